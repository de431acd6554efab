//! Summaries of schema 1, which knew the five fits of one comparison and named them in words.

mod records;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Address, ArmRecord, ArmRole, Conditions, Ending, ExperimentRecord, FitRecord, Measurement, SCHEMA, Summary,
};
use crate::Error;

use records::{OldEpoch, OldRun, Role};

pub(super) use records::OldSummary;

/// The same in schema 2. What schema 1 did not know is empty (plans, the experiment's identity); its steps are epochs.
pub(super) fn converted(old: OldSummary) -> Result<Summary, Error> {
    let mut sparsities: Vec<f64> = old.runs.iter().map(|run| run.sparsity).filter(|sparsity| *sparsity > 0.0).collect();
    sparsities.sort_by(f64::total_cmp);
    sparsities.dedup();
    let level = |run: &OldRun| match sparsities.iter().position(|sparsity| *sparsity == run.sparsity) {
        Some(index) => index as u32 + 1,
        None => 0,
    };
    let address = |run: &OldRun| Address::new(arm_name(run), level(run), run.seed);
    let addresses: BTreeMap<(&str, u64), Address> =
        old.runs.iter().map(|run| ((run.name.as_str(), run.seed), address(run))).collect();
    let invalid = |address: &Address, reason: String| Error::Invalid { record: format!("fit {address}"), reason };
    let mut seen = BTreeSet::new();
    let mut fits = Vec::with_capacity(old.runs.len());
    for run in &old.runs {
        let address = address(run);
        if !seen.insert(address.clone()) {
            return Err(invalid(&address, "two runs of schema 1 have this part, sparsity and seed".into()));
        }
        let starts_from =
            match &run.starts_from {
                None => None,
                Some(name) => Some(addresses.get(&(name.as_str(), run.seed)).cloned().ok_or_else(|| {
                    invalid(&address, format!("it starts from `{name}`, which is not among the runs"))
                })?),
            };
        fits.push(fit(run, address, starts_from));
    }
    let mut arms: Vec<ArmRecord> = Vec::new();
    for run in &old.runs {
        let name = arm_name(run);
        if arms.iter().all(|known| known.name != name) {
            arms.push(arm(run, name));
        }
    }
    let is_frozen = old.config.get("freeze").and_then(serde_json::Value::as_str) == Some("body");
    Ok(Summary {
        schema: SCHEMA,
        software: old.software,
        builds: Vec::new(),
        command: old.command,
        experiment: ExperimentRecord { name: "notebook".into(), identity: String::new(), config: old.config },
        arms,
        metric: "accuracy".into(),
        margin: None,
        is_race: false,
        dataset: old.dataset,
        weights: old.weights,
        conditions: Conditions { pruned_weights_are_frozen: is_frozen, optimizer_state: old.optimizer_state },
        machine: old.machine,
        started: old.started,
        wall_seconds: old.wall_seconds,
        peak_memory_bytes: old.peak_memory_bytes,
        fits,
        is_unfinished: false,
        earlier: Vec::new(),
        paths: Vec::new(),
        reference: None,
    })
}

fn fit(run: &OldRun, address: Address, starts_from: Option<Address>) -> FitRecord {
    let words = [Some(&run.name), run.criterion.as_ref(), run.schedule.as_ref()];
    FitRecord {
        address,
        plan: String::new(),
        starts_from,
        mask_from: Vec::new(),
        description: words.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", "),
        sparsity: run.sparsity,
        span: (0, run.epochs.len() as u64),
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
        test_seconds: None,
        wait_seconds: run.wait_seconds,
        peak_memory_bytes: run.peak_memory_bytes,
    }
}

fn arm(run: &OldRun, name: String) -> ArmRecord {
    let (role, title, meaning) = match (run.role, run.control) {
        (Role::Baseline, false) => (ArmRole::Dense, "dense", ""),
        (Role::Baseline, true) => {
            (ArmRole::Control, "dense, trained on", "its gain over dense is not that of more training alone")
        }
        (Role::Search, false) => (ArmRole::Search, "search for the mask", ""),
        (Role::Search, true) => (ArmRole::Search, "the search's training with a random mask", ""),
        (Role::Ticket, false) => (ArmRole::Ticket, "ticket", ""),
        (Role::Ticket, true) => {
            (ArmRole::Control, "random mask, same counts per layer", "the choice of weights matters")
        }
        (Role::Other, false) => (ArmRole::Search, "", ""),
        (Role::Other, true) => (ArmRole::Control, "", ""),
    };
    let title = if title.is_empty() { run.name.clone() } else { title.to_owned() };
    ArmRecord { name, role, title, meaning: meaning.to_owned() }
}

fn arm_name(run: &OldRun) -> String {
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

fn measurement(epoch: &OldEpoch) -> Measurement {
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
