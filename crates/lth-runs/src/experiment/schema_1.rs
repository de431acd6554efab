//! Summaries of schema 1, which knew the five fits of one comparison and named them in words.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Address, ArmRecord, ArmRole, Conditions, Ending, ExperimentRecord, FitRecord, Measurement, SCHEMA, Summary,
};
use crate::Error;
use crate::record::{Role, RunRecord};
use crate::summary::Summary as Old;

/// The same in schema 2. What schema 1 did not know (steps, plans) is counted in epochs, or empty.
pub(super) fn converted(old: Old) -> Result<Summary, Error> {
    old.validate()?;
    let mut sparsities: Vec<f64> = old.runs.iter().map(|run| run.sparsity).filter(|sparsity| *sparsity > 0.0).collect();
    sparsities.sort_by(f64::total_cmp);
    sparsities.dedup();
    let level = |run: &RunRecord| match sparsities.iter().position(|sparsity| *sparsity == run.sparsity) {
        Some(index) => index as u32 + 1,
        None => 0,
    };
    let address = |run: &RunRecord| Address::new(arm(run), level(run), run.seed);
    let addresses: BTreeMap<(&str, u64), Address> =
        old.runs.iter().map(|run| ((run.name.as_str(), run.seed), address(run))).collect();
    let fits = old.runs.iter().map(|run| {
        let before = run.starts_from.as_deref().and_then(|name| addresses.get(&(name, run.seed)).cloned());
        let n_epochs = run.epochs.len() as u64;
        FitRecord {
            address: address(run),
            plan: String::new(),
            starts_from: before,
            mask_from: Vec::new(),
            description: run.name.clone(),
            sparsity: run.sparsity,
            span: (0, n_epochs),
            ending: Ending::Done,
            history: run.epochs.iter().map(measurement).collect(),
            at_end: None,
            at_best: None,
            layers: run.layers.clone(),
            files: [("ticket", &run.ticket), ("trained", &run.trained)]
                .into_iter()
                .filter_map(|(what, file)| Some((what.to_owned(), file.clone()?)))
                .collect(),
            overhead_seconds: 0.0,
            wait_seconds: run.wait_seconds,
            peak_memory_bytes: run.peak_memory_bytes,
        }
    });
    let fits: Vec<FitRecord> = fits.collect();
    let mut seen = BTreeSet::new();
    if let Some(twice) = fits.iter().find(|fit| !seen.insert(&fit.address)) {
        let reason = "two runs of schema 1 have this part, sparsity and seed".into();
        return Err(Error::Invalid { record: format!("fit {}", twice.address), reason });
    }
    let mut arms: Vec<ArmRecord> = Vec::new();
    for run in &old.runs {
        if arms.iter().all(|known| known.name != arm(run)) {
            let role = match (run.role, run.control) {
                (Role::Search, _) | (Role::Other, false) => ArmRole::Search,
                (_, true) => ArmRole::Control,
                (Role::Baseline, false) => ArmRole::Dense,
                (Role::Ticket, false) => ArmRole::Ticket,
            };
            arms.push(ArmRecord { name: arm(run), role, title: arm(run).replace('-', " "), meaning: String::new() });
        }
    }
    Ok(Summary {
        schema: SCHEMA,
        software: old.software,
        command: old.command,
        experiment: ExperimentRecord { name: "notebook".into(), identity: String::new(), config: old.config },
        arms,
        metric: "accuracy".into(),
        margin: None,
        dataset: old.dataset,
        weights: old.weights,
        conditions: Conditions { pruned_weights_are_frozen: false, optimizer_state: old.optimizer_state },
        machine: old.machine,
        started: old.started,
        wall_seconds: old.wall_seconds,
        peak_memory_bytes: old.peak_memory_bytes,
        fits,
        reference: None,
    })
}

fn arm(run: &RunRecord) -> String {
    let name = match (run.role, run.control) {
        (Role::Baseline, false) => "dense",
        (Role::Baseline, true) => "dense-longer",
        (Role::Search, false) => "search",
        (Role::Search, true) => "random-search",
        (Role::Ticket, false) => "ticket",
        (Role::Ticket, true) => "random",
        (Role::Other, _) => {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
            let name: String = run.name.chars().map(plain).take(58).collect();
            return format!("other-{}", name.trim_start_matches('-'));
        }
    };
    name.to_owned()
}

fn measurement(epoch: &crate::record::EpochRecord) -> Measurement {
    Measurement {
        step: epoch.epoch as u64 + 1,
        epoch: epoch.epoch as f64 + 1.0,
        train_loss: epoch.train_loss,
        valid_loss: Some(epoch.valid_loss),
        metrics: [("accuracy".to_owned(), epoch.accuracy)].into(),
        seconds: epoch.seconds,
        valid_seconds: epoch.valid_seconds,
        sparsity: epoch.sparsity,
    }
}
