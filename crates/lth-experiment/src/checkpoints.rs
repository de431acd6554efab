//! The checkpoint of a fit: where it lies, whose it is, and how a fit goes on from it.

use std::collections::BTreeMap;

use lth_kernels::InstructionSet;
use lth_runs::experiment::ExperimentDir;
use lth_train::{Checkpoint, State};
use serde_json::Value;

use crate::observer::{Notice, Observer};
use crate::plan::{FitPlan, Plan};
use crate::{Error, identity};

/// The checkpoint of a fit, which belongs to its settings, to the data and to the starting weights of these SHA-256.
///
/// # Errors
/// If the fit's folder cannot be made.
pub(crate) fn of(
    plan: &Plan,
    fit: &FitPlan,
    (data, weights): (Option<String>, Option<String>),
    dir: &mut ExperimentDir,
) -> Result<Checkpoint, Error> {
    let path = dir.prepare_checkpoint(&fit.address)?;
    let mut facts = BTreeMap::new();
    flatten("", &identity::facts_of_fit(plan, fit)?, &mut facts);
    // Weights of these steps are in the state, or were not kept.
    let keep: Vec<String> = fit.keep.iter().map(ToString::to_string).collect();
    facts.insert("keep".to_owned(), keep.join(", "));
    // Another version may keep other things, and other vector instructions sum in another order.
    facts.insert("software".to_owned(), concat!("lth-experiment ", env!("CARGO_PKG_VERSION")).to_owned());
    facts.insert("instruction_set".to_owned(), format!("{:?}", InstructionSet::active()));
    facts.insert("data".to_owned(), data.unwrap_or_else(|| "not known".to_owned()));
    facts.extend(weights.map(|weights| ("starting_weights".to_owned(), weights)));
    Ok(Checkpoint::new(path, facts))
}

/// The state to go on from; `None` where the fit begins at its start. A checkpoint that is damaged or another run's is
/// told of and not used.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn read(
    checkpoint: &Checkpoint,
    fit: &FitPlan,
    observer: &mut dyn Observer,
) -> Result<Option<State>, Error> {
    match checkpoint.read() {
        Ok(Some(state)) => {
            let reached = state.counters.position.as_ref().map_or(0, |at| at.iteration as u64);
            observer.on(&Notice::Resumed { fit: &fit.address, step: reached });
            Ok(Some(state))
        }
        Ok(None) => Ok(None),
        Err(error @ (lth_train::Error::DamagedCheckpoint { .. } | lth_train::Error::OtherRun { .. })) => {
            observer.on(&Notice::BegunAnew { fit: &fit.address, reason: &error.to_string() });
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The leaves of a JSON value, by their dotted paths.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| flatten(&below(name), value, into)),
        Value::String(text) => _ = into.insert(path.to_owned(), text.clone()),
        other => _ = into.insert(path.to_owned(), other.to_string()),
    }
}
