//! A small experiment, and what runs it.

use std::cell::Cell;
use std::path::Path;

use lth_experiment::{Experiment, Host, Notice, Outcome, preset};
use lth_runs::Existing;
use lth_schedule::Step;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// LeNet on digits: two levels of a moment, one seed.
pub(crate) fn small() -> Result<Experiment> {
    let mut experiment = preset("lenet-digits")?;
    experiment.imp.training.length = Step::epoch(1);
    experiment.imp.n_levels = 2;
    experiment.imp.arms.clear();
    experiment.imp.seeds = vec![7];
    Ok(experiment)
}

/// Runs the experiment in `folder` until it has asked so many times whether to stop. Also what it told.
pub(crate) fn run_until(experiment: &Experiment, folder: &Path, n_asked: usize) -> Result<(Outcome, Vec<String>)> {
    let mut dir = experiment.open_dir(folder, Existing::Refuse)?;
    let n = Cell::new(0);
    let is_interrupted = || {
        n.set(n.get() + 1);
        n.get() > n_asked
    };
    let mut told = Vec::new();
    let mut observer = |notice: &Notice<'_>| match notice {
        Notice::Started { fit, .. } => told.push(format!("started {}", fit.address)),
        Notice::Resumed { fit, step } => told.push(format!("resumed {fit} at {step}")),
        Notice::BegunAnew { fit, reason } => told.push(format!("begun anew {fit}: {reason}")),
        Notice::Skipped { record } => told.push(format!("skipped {}", record.address)),
        Notice::LeftOut { fit, needed } => told.push(format!("left out {} for {needed}", fit.address)),
        _ => {}
    };
    let mut watch = |_: lth_data::Opening<'_>| {};
    let host = Host { is_interrupted: &is_interrupted, ..Host::new(folder.join("cache"), &mut watch, &mut observer) };
    let (_, outcome) = experiment.run(&mut dir, host)?;
    Ok((outcome, told))
}

pub(crate) fn run(experiment: &Experiment, folder: &Path) -> Result<(Outcome, Vec<String>)> {
    run_until(experiment, folder, usize::MAX)
}
