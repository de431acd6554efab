//! What the schedule asks for at an iteration, of every layer.

use std::collections::BTreeMap;

use lth_mask::{Scope, Selection};
use lth_schedule::{Sparsity, SparsityPlan};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The sparsity asked for, and that of the layers with a target of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) sparsity: Sparsity,
    /// By the names and patterns of [`Scope::PerLayer`].
    layers: BTreeMap<String, f64>,
}

impl Target {
    pub(crate) fn at(plan: &SparsityPlan, selection: &Selection, iteration: u64) -> Result<Self, Error> {
        let layers = match &selection.scope {
            Scope::PerLayer(ends) => ends
                .iter()
                .map(|(name, end)| Ok((name.clone(), plan.sparsity_to(Sparsity::new(*end)?, iteration).fraction())))
                .collect::<Result<_, Error>>()?,
            _ => BTreeMap::new(),
        };
        Ok(Self { sparsity: plan.sparsity(iteration), layers })
    }

    /// Whether nothing is to be pruned.
    pub(crate) fn is_dense(&self) -> bool {
        self.sparsity == Sparsity::DENSE && self.layers.values().all(|sparsity| *sparsity == 0.0)
    }

    /// `selection` with the layers' targets as they are now, for scores that have no dense layers among them.
    pub(crate) fn selection(&self, selection: &Selection) -> Selection {
        let mut now = selection.clone();
        now.keep_dense.clear();
        if let Scope::PerLayer(targets) = &mut now.scope {
            targets.clone_from(&self.layers);
        }
        now
    }
}
