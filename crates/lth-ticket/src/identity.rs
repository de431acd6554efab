//! What a saved state of the hook belongs to.

use lth_train::Fit;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Error, PruningConfig};

/// The training that a fit is of, or a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Length {
    pub(crate) n_iterations: u64,
    pub(crate) n_batches: usize,
}

impl Length {
    pub(crate) fn of(fit: &Fit<'_>) -> Self {
        Self { n_iterations: fit.n_iterations() as u64, n_batches: fit.n_batches() }
    }

    /// # Errors
    /// If the training is of another length than the one that was saved.
    pub(crate) fn check(self, fit: &Fit<'_>) -> Result<(), Error> {
        let here = Self::of(fit);
        if here == self {
            return Ok(());
        }
        let text = |length: Self| format!("{} batches with {} an epoch", length.n_iterations, length.n_batches);
        Err(Error::State(format!("it is from a training of {}, this one has {}", text(self), text(here))))
    }
}

/// All of a configuration that changes results, as JSON.
pub(crate) fn of(config: &PruningConfig) -> Result<Value, serde_json::Error> {
    Ok(json!({
        "criterion": config.criterion.name(),
        "selection": serde_json::to_value(&config.selection)?,
        "schedule": serde_json::to_value(&config.schedule)?,
        "rewind": serde_json::to_value(config.rewind)?,
        "ranks": serde_json::to_value(&config.ranks)?,
        "gradient_batches": config.gradient_batches.get(),
        "connections": serde_json::to_value(&config.connections)?,
        "regrowth": serde_json::to_value(config.regrowth)?,
    }))
}

/// # Errors
/// If the two differ, with the first place where they do.
pub(crate) fn check(saved: &Value, own: &Value) -> Result<(), Error> {
    match difference("", saved, own) {
        None => Ok(()),
        Some((at, saved, own)) => Err(Error::State(format!("its {at} is {saved}, this hook's is {own}"))),
    }
}

fn difference(at: &str, saved: &Value, own: &Value) -> Option<(String, String, String)> {
    if saved == own {
        return None;
    }
    if let (Value::Object(saved), Value::Object(own)) = (saved, own) {
        let names = saved.keys().chain(own.keys().filter(|name| !saved.contains_key(*name)));
        for name in names {
            let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            let (saved, own) = (saved.get(name).unwrap_or(&Value::Null), own.get(name).unwrap_or(&Value::Null));
            if let Some(found) = difference(&path, saved, own) {
                return Some(found);
            }
        }
    }
    Some((at.to_owned(), saved.to_string(), own.to_string()))
}
