//! `lth race`: which way to a sparse network is as good as dense training in less time, search included.

use clap::Args;
use lth_experiment::{Experiment, Shard};

use crate::failure::Result;
use crate::imp::{self, Asked, Common};
use crate::work::Planned;

/// Races the ways to a sparse network against dense training: the whole time of each, search included, and whether it ends as
/// good.
///
/// Dense; iterative pruning's ticket; SNIP and SynFlow at initialisation; gradual magnitude pruning; RigL; the early-bird
/// ticket; and the dense network that is simply trained for fewer steps. All have the same data in the same order, and the
/// kernels that skip zeros. A preset is raced at three levels, 60 % of what is left pruned at each. An arm wins where it is
/// shown to be as good within the margin and to take less time. Nothing else should run on the machine meanwhile.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth race                                                           embedded digits, no network, a few minutes
  lth race --preset lenet-mnist --length 8ep --seeds 5
  lth race --preset resnet-20-cifar-10 --length 8000it --arms agp,rigl,dense-shorter
  lth race --preset lenet-digits --write race.toml                   the whole race as a file, to be edited")]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    asked: Asked,
}

pub(crate) fn run(options: &Options, shard: Option<Shard>) -> Result {
    let (name, experiment) = experiment(options)?;
    options.common.run(&name, &experiment, lth_runs::report::overview, shard)
}

pub(crate) fn planned(options: &Options) -> Result<Planned> {
    let (name, experiment) = experiment(options)?;
    options.common.planned(&name, &experiment)
}

fn experiment(options: &Options) -> Result<(String, Experiment)> {
    let (name, own) = options.common.experiment()?;
    // A file has the levels and arms that its author wants.
    let (name, experiment) = if options.common.is_plan() {
        let mut own = own;
        own.imp.is_race = true;
        (name, own)
    } else {
        (format!("race-{name}"), own.race())
    };
    Ok((name, imp::asked(experiment, &options.asked)?))
}
