//! `lth connectivity`: instability analysis of an experiment's networks.

use clap::Args;
use lth_experiment::{Experiment, InstabilityConfig, MaskSearch, Shard};
use lth_runs::{Analysis, Summary};
use lth_schedule::Step;

use crate::failure::{Blame, Failure, Result};
use crate::imp::Common;
use crate::work::Planned;

/// Measures whether two copies of a network that see their data in other orders from a step on end in one linearly
/// connected minimum.
///
/// Of the dense network and of the tickets of the levels that are asked for. Instability is the highest test error on the
/// straight path between the copies less the mean of its ends'; below 2 points Frankle, Dziugaite, Roy & Carbin (2020)
/// call them stable. It goes on in the folder of the same experiment of `lth imp` and uses what is there: paths, table and
/// figures come into its report. The dense network is trained again where states of the steps are missing.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth connectivity --preset lenet-digits --steps 0ep,1ep,3ep --seeds 3               the dense network, in seconds
  lth connectivity --preset lenet-digits --steps 0ep,1ep,3ep --levels 0,3,5 --seeds 3
  lth connectivity --preset resnet-20-cifar-10 --steps 0it,500it,2000it --levels 0,8 --masks ticket")]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Steps from which the copies see other orders, separated by commas: 0it,500it,2ep
    #[arg(long, value_name = "STEP,…", value_delimiter = ',')]
    steps: Vec<Step>,
    /// Levels that are looked at, separated by commas; 0 is the dense network [default: 0]
    #[arg(long, value_name = "LEVEL,…", value_delimiter = ',')]
    levels: Vec<u32>,
    /// Masks of subnetworks: `each-step` searches anew, with rewinding to each of the steps; `ticket` takes the
    /// experiment's own tickets [default: each-step]
    #[arg(long, value_name = "SEARCH")]
    masks: Option<MaskSearch>,
    /// Networks on a path, its ends included [default: 30]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=10_000))]
    points: Option<u32>,
}

pub(crate) fn run(options: &Options, shard: Option<Shard>) -> Result {
    let (name, experiment) = experiment(options)?;
    options.common.run(&name, &experiment, shown, shard)
}

pub(crate) fn planned(options: &Options) -> Result<Planned> {
    let (name, experiment) = experiment(options)?;
    options.common.planned(&name, &experiment)
}

fn experiment(options: &Options) -> Result<(String, Experiment)> {
    let (name, mut experiment) = options.common.experiment()?;
    let mut instability = match experiment.imp.instability.take() {
        Some(own) => own,
        None if options.steps.is_empty() => {
            return Err(Failure::usage(
                "--steps is missing: the steps from which copies see other orders, as 0it,500it",
            ));
        }
        None => InstabilityConfig::new(Vec::new(), vec![0]),
    };
    if !options.steps.is_empty() {
        instability.steps.clone_from(&options.steps);
    }
    if !options.levels.is_empty() {
        instability.levels.clone_from(&options.levels);
    }
    instability.masks = options.masks.unwrap_or(instability.masks);
    instability.n_points = options.points.unwrap_or(instability.n_points);
    let last = instability.levels.iter().copied().max();
    experiment.imp.instability = Some(instability);
    // Whether the experiment has the levels is asked before those that nobody looks at are left out, and the controls.
    experiment.plan().usage()?;
    experiment.imp.n_levels = last.unwrap_or(experiment.imp.n_levels);
    experiment.imp.arms.clear();
    Ok((name, experiment))
}

/// The table alone: the rest is in the report.
fn shown(summary: &Summary) -> String {
    let analysis = Analysis::of(summary);
    let mut text = format!("Linear mode connectivity on {}\n\n", summary.dataset.name);
    text += &lth_runs::report::stability(&analysis).plain();
    text += "(means over seeds with 95 % intervals; stable: below 2 points, from three seeds on)\n";
    for left_out in &analysis.left_out {
        text += &format!("Left out: {}: {}\n", left_out.what, left_out.reason);
    }
    text
}
