//! What an experiment and its fits are told apart by.

use lth_files::sha256;
use serde::Serialize;
use serde_json::Value;

use crate::Error;
use crate::plan::{FitPlan, PathPlan, Plan};

/// SHA-256 of a value's canonical JSON: keys sorted, nothing between tokens. Fields that have their defaults are left out
/// when a configuration is written, so that a new option changes no old name.
///
/// # Errors
/// If it cannot be written as JSON.
pub(crate) fn of(value: &impl Serialize) -> Result<String, Error> {
    // `Value` keeps its keys in sorted order.
    Ok(sha256(serde_json::to_string(&serde_json::to_value(value)?)?.as_bytes()))
}

/// SHA-256 of all that a fit's result depends on: the subject, how it trains and prunes, and the fits that it rests on.
///
/// # Errors
/// If it cannot be written as JSON.
pub(crate) fn of_fit(plan: &Plan, fit: &FitPlan) -> Result<String, Error> {
    of(&facts_of_fit(plan, fit)?)
}

/// All that a fit's result depends on.
///
/// # Errors
/// If it cannot be written as JSON.
pub(crate) fn facts_of_fit(plan: &Plan, fit: &FitPlan) -> Result<Value, Error> {
    // What is kept for others does not change the fit; nor do words.
    let own = FitPlan { keep: Vec::new(), description: String::new(), keeps_files: false, ..fit.clone() };
    let rests_on = fit.rests_on().into_iter().filter_map(|address| plan.fit(address));
    let rests_on: Vec<Value> = rests_on.map(|other| Ok(of_fit(plan, other)?.into())).collect::<Result<_, Error>>()?;
    let Plan { subject, training, pruning, optimizer_state, .. } = plan;
    Ok(serde_json::json!({
        "fit": own, "rests_on": rests_on, "subject": subject, "training": training, "pruning": pruning,
        "optimizer_state": optimizer_state,
    }))
}

/// SHA-256 of all that the figures along a path depend on: the fits at its ends, and how it is measured.
///
/// # Errors
/// If it cannot be written as JSON.
pub(crate) fn of_path(plan: &Plan, path: &PathPlan) -> Result<String, Error> {
    let ends = path.ends.iter().filter_map(|end| plan.fit(end));
    let ends: Vec<String> = ends.map(|fit| of_fit(plan, fit)).collect::<Result<_, Error>>()?;
    of(&serde_json::json!({ "ends": ends, "path": path }))
}

/// A seed from words: the first eight bytes of their SHA-256, little-endian.
pub(crate) fn seed(words: &str) -> u64 {
    let digits = sha256(words.as_bytes());
    (0..8).fold(0, |seed, place| {
        let byte = digits.get(2 * place..2 * place + 2).and_then(|byte| u64::from_str_radix(byte, 16).ok());
        seed | byte.unwrap_or(0) << (8 * place)
    })
}
