//! `lth imp`: iterative magnitude pruning with its controls.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use lth_data::{DatasetName, Opening};
use lth_experiment::{Arm, CHECKPOINT_EVERY, Experiment, Host, PRESETS, Rewinding, Shard, preset};
use lth_runs::{Existing, Summary};
use lth_schedule::Step;

use crate::build::build;
use crate::console::Console;
use crate::data::Watch;
use crate::experiment::{Progress, TensorBoardOption, conclude, interrupted, machine, out_failure};
use crate::failure::{Blame, Failure, Result};
use crate::share::Share;
use crate::work::{self, Planned};
use crate::{data, system};

/// Finds winning tickets as the papers do: train, prune, rewind, level by level, beside the controls that they must beat.
///
/// A preset is a published experiment; options change it. What the experiment's folder holds already is not done again:
/// more seeds, levels or arms add to it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth imp --preset lenet-digits                                  no network, no download, a minute or more
  lth imp --preset lenet-mnist --data-dir mnist/ --seeds 5       the lottery-ticket paper's first figure
  lth imp --preset resnet-20-cifar-10 --rewind 500it --arms random,shuffled,one-shot
  lth imp --preset lenet-digits --write my.toml                  the whole experiment as a file, to be edited
  lth imp --plan my.toml --dry-run                               the fits that it would train")]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    asked: Asked,
}

/// What is trained beside dense, and what it may lose.
#[derive(Args)]
pub(crate) struct Asked {
    /// Levels after the dense one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    levels: Option<u32>,
    /// Arms besides dense and ticket, separated by commas; `none`, `all`
    #[arg(long, value_name = "ARM,…")]
    arms: Option<String>,
    /// How much accuracy a ticket may lose and still be called as good: 0.005 or 0.5%
    #[arg(long, value_name = Share::VALUE_NAME)]
    margin: Option<Share>,
}

/// Which experiment, and how and where it runs.
#[derive(Args)]
pub(crate) struct Common {
    /// A published experiment [default: lenet-digits]
    #[arg(long, value_name = "NAME", value_parser = preset_names(), conflicts_with = "plan")]
    preset: Option<String>,
    /// An experiment of one's own, as --write writes it
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// First seed
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Repeat with this many consecutive seeds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: Option<u64>,
    /// Length of a training: 10ep, 5000it, 2ep40it; a preset's milestones of the learning rate stretch with it
    #[arg(long, value_name = "STEP")]
    length: Option<Step>,
    /// Where kept weights go back to: a step such as 0ep or 500it
    #[arg(long, value_name = "STEP")]
    rewind: Option<Step>,
    /// Examples in a training batch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: Option<u32>,
    #[command(flatten)]
    source: data::SourceOptions,
    #[command(flatten)]
    events: TensorBoardOption,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Seconds between two checkpoints of a fit, at least: what is behind the last one is trained again after a kill
    #[arg(long, value_name = "SECONDS", default_value_t = CHECKPOINT_EVERY.as_secs())]
    checkpoint_every: u64,
    /// Folder of the experiment [default: runs/NAME-IDENTITY, the same for the same experiment]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace another experiment that --out holds
    #[arg(long, requires = "out")]
    force: bool,
    /// Print the fits and train nothing
    #[arg(long)]
    dry_run: bool,
    /// Write the experiment to FILE (TOML) and train nothing
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print summary.json to standard output, and everything else to standard error
    #[arg(long)]
    json: bool,
}

fn preset_names() -> clap::builder::PossibleValuesParser {
    PRESETS.map(|(name, what)| clap::builder::PossibleValue::new(name).help(what)).into()
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
    let (name, experiment) = options.common.experiment()?;
    Ok((name, asked(experiment, &options.asked)?))
}

/// The experiment with what was asked for in place of its own.
pub(crate) fn asked(mut experiment: Experiment, asked: &Asked) -> Result<Experiment> {
    let imp = &mut experiment.imp;
    if let Some(levels) = asked.levels {
        imp.n_levels = levels;
    }
    if let Some(arms) = &asked.arms {
        imp.arms = arms_of(arms)?;
    }
    if let Some(Share(margin)) = asked.margin {
        imp.margin = Some(margin);
    }
    Ok(experiment)
}

impl Common {
    /// What the experiment comes to, and where.
    pub(crate) fn planned(&self, name: &str, experiment: &Experiment) -> Result<Planned> {
        let (plan, identity) = (experiment.plan().usage()?, experiment.identity().usage()?);
        let out = self.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(format!("{name}-{}", &identity[..8])));
        Ok(Planned { plan, identity, out, json: self.json })
    }

    /// Runs the experiment, or a shard of it, and shows what `shown` makes of its summary.
    pub(crate) fn run(
        &self,
        name: &str,
        experiment: &Experiment,
        shown: fn(&Summary) -> String,
        shard: Option<Shard>,
    ) -> Result {
        let options = self;
        // From here on a signal is listened to.
        interrupted();
        let Planned { plan, out, .. } = self.planned(name, experiment)?;
        let plan = shard.map_or_else(|| plan.clone(), |shard| shard.plan(&plan));
        let out = work::folder(out, shard)?;
        let console = Console::new(options.json);
        if let Some(path) = &options.write {
            let text = toml::to_string(&experiment).usage()?;
            lth_files::write_atomic(path, |file| file.write_all(text.as_bytes())).data()?;
            console.note(format!("wrote {}", path.display()));
            return console.finish();
        }
        if options.dry_run {
            for fit in &plan.fits {
                console.line(format!("{:32} {}..{}  {}", fit.address.to_string(), fit.from, fit.to, fit.description));
            }
            console.line(format!("{} fits", plan.fits.len()));
            return console.finish();
        }
        system::prepare(options.threads)?;
        let existing = if options.force { Existing::Replace } else { Existing::Refuse };
        let mut dir = experiment.open_dir(&out, existing).map_err(|error| match error {
            lth_experiment::Error::Runs(error) => out_failure(error, options.force),
            error => error.into(),
        })?;
        console.note(format!("experiment in {}", dir.path().display()));
        let mut progress = Progress::new(&console);
        let mut watch = Watch { console: &console, bar: None };
        let mut show = |opening: Opening<'_>| watch.show(opening);
        let open = data::open_options(options.source.skip_damaged)?;
        let folder = dir.path().to_path_buf();
        let (summary, outcome) = options.events.watch(&folder, &mut progress, |observer| {
            let host = Host {
                open,
                is_interrupted: &interrupted,
                shard,
                checkpoint_every: Duration::from_secs(options.checkpoint_every),
                peak_memory: &system::peak_memory,
                build: build(),
                command: system::command_line(),
                machine: Some(machine()),
                ..Host::new("", &mut show, observer)
            };
            Ok(experiment.run(&mut dir, host)?)
        })?;
        progress.finish();
        conclude(&summary, &outcome, dir.path(), shown, &console)
    }

    /// Whether the experiment is one of the caller's own, from a file.
    pub(crate) fn is_plan(&self) -> bool {
        self.plan.is_some()
    }

    /// The experiment with the options' changes, and its name for a folder.
    pub(crate) fn experiment(&self) -> Result<(String, Experiment)> {
        let (name, mut experiment) = match &self.plan {
            Some(path) => {
                let stem = path.file_stem().map_or_else(|| "imp".into(), |stem| stem.to_string_lossy().into_owned());
                (stem, read_plan(path)?)
            }
            None => {
                let name = self.preset.clone().unwrap_or_else(|| "lenet-digits".into());
                let experiment = preset(&name).usage()?;
                (name, experiment)
            }
        };
        let imp = &mut experiment.imp;
        if self.seed.is_some() || self.seeds.is_some() {
            let first = self.seed.or(imp.seeds.first().copied()).unwrap_or(0);
            let n = self.seeds.unwrap_or(imp.seeds.len() as u64).max(1);
            let last = first.checked_add(n - 1);
            let last = last.ok_or_else(|| Failure::usage("--seed and --seeds go past the largest 64-bit number"))?;
            imp.seeds = (first..=last).collect();
        }
        if let Some(length) = self.length {
            // A preset's milestones and warm-up keep their places in the training; those of a file are its author's.
            if self.plan.is_none() && length != imp.training.length {
                imp.training.learning_rate = imp.training.learning_rate.relative_to(imp.training.length).usage()?;
            }
            imp.training.length = length;
        }
        if let Some(step) = self.rewind {
            imp.rewinding = if step == Step::START { Rewinding::Reset } else { Rewinding::Weights(step) };
        }
        if let Some(batch_size) = self.batch_size {
            experiment.batch_size = batch_size as usize;
        }
        if let Some(source) = self.source.source() {
            if matches!(experiment.data.name, DatasetName::Digits | DatasetName::ToyPets) {
                return Err(Failure::usage(format!(
                    "{} need no files: leave --data-dir, --archive and --mirror out",
                    experiment.data.name
                )));
            }
            experiment.data.source = source;
        }
        Ok((name, experiment))
    }
}

fn read_plan(path: &Path) -> Result<Experiment> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))
        .data()?;
    let experiment = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).map_err(anyhow::Error::from)
    } else {
        toml::from_str(&text).map_err(anyhow::Error::from)
    };
    experiment.map_err(|error| error.context(format!("{} is no experiment", path.display()))).usage()
}

fn arms_of(text: &str) -> Result<Vec<Arm>> {
    match text {
        "none" => Ok(Vec::new()),
        "all" => Ok(Arm::ALL.to_vec()),
        list => {
            let mut arms: Vec<Arm> = Vec::new();
            for name in list.split(',') {
                let arm: Arm = name.trim().parse().usage()?;
                // What an arm rests on comes before it.
                for arm in arm.needs().into_iter().chain([arm]) {
                    if !arms.contains(&arm) {
                        arms.push(arm);
                    }
                }
            }
            Ok(arms)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations::{Memory, check};

    #[test]
    fn plans_survive_any_damage() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut experiment = preset("lenet-digits")?;
        experiment.imp.seeds.truncate(1);
        (experiment.imp.n_levels, experiment.imp.arms) = (1, Vec::new());
        for (name, valid) in
            [("plan.toml", toml::to_string(&experiment)?), ("plan.json", serde_json::to_string(&experiment)?)]
        {
            let path = folder.path().join(name);
            // A hundred thousand fits, should a damaged plan ask for them.
            check(valid.as_bytes(), 2_000, Memory { base: 256 << 20, per_byte: 256 }, |bytes| {
                std::fs::write(&path, bytes).map_err(|error| error.to_string())?;
                let read = read_plan(&path).map_err(|failure| failure.to_string())?;
                let planned = read.plan().usage().map_err(|failure| failure.to_string())?;
                assert!(!planned.fits.is_empty());
                Ok(())
            });
        }
        Ok(())
    }
}
