//! A small experiment, and what runs it.

use std::cell::Cell;
use std::path::Path;

use candle_core::Tensor;
use lth_data::{DamagedPolicy, OpenOptions};
use lth_experiment::{Experiment, Host, Notice, Outcome, Plan, Runner, Silent, preset};
use lth_nn::Setup;
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

/// Runs a plan of one's own over the experiment's network and data of seed 7.
pub(crate) fn run_plan(experiment: &Experiment, plan: &Plan, folder: &Path) -> Result<Outcome> {
    let mut dir = experiment.open_dir(folder, Existing::Refuse)?;
    let options = OpenOptions { cache_dir: folder.into(), damaged: DamagedPolicy::Fail };
    let dataset = experiment.data.open(7, &options, &mut |_| {})?;
    let runner = Runner {
        plan,
        network: &|seed, dtype| Ok(experiment.network.build(&Setup { dtype, ..Setup::new(seed) })?),
        examples: &|seed| Ok(experiment.loader(&dataset, seed)?),
        task: &lth_train::Classification::default(),
        weights_sha256: None,
        network_info: lth_ticket::NetworkInfo {
            name: "lenet-300-100".into(),
            head: None,
            n_outputs: 10,
            input: vec![1, 8, 8],
            preprocessing: None,
            class_names: Vec::new(),
        },
        dataset_info: &|| lth_ticket::DatasetInfo { name: "digits".into(), sha256: None },
        score_batches: 1,
        is_interrupted: &|| false,
        checkpoint_every: std::time::Duration::MAX,
        peak_memory: &|| None,
    };
    Ok(runner.run(&mut dir, &mut Silent, &mut |_, _| Ok(()))?)
}

/// Every bit of a tensor in f32.
pub(crate) fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}
