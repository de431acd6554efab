//! Sparse from the first step on, under a mask that moves: RigL and SET.
//!
//! Sources: Evci et al. 2020, "Rigging the Lottery: Making All Tickets Winners"; Mocanu et al. 2018, "Scalable training of
//! artificial neural networks with adaptive sparse connectivity inspired by network science".

use std::collections::BTreeMap;

use lth_mask::{Granularity, Scope, Selection};
use lth_runs::Address;
use lth_ticket::{DynamicConfig, Growth};

use crate::plan::{Cut, FitPlan, MaskFrom, Start, Target};
use crate::{Arm, ImpConfig};

const SPARSE: &str = "a mask found by training dense is better than one found by training sparse";

pub(super) const RIGL: (&str, &str) = ("RigL: a mask that gradients move", SPARSE);
pub(super) const SET: (&str, &str) = ("SET: a mask that chance moves", SPARSE);

/// A random mask with the papers' densities of layers, moved as the paper of RigL does by default, for SET as well.
pub(super) fn fit(config: &ImpConfig, arm: Arm, growth: Growth, level: u32, seed: u64) -> FitPlan {
    let selection = Selection {
        scope: Scope::ErdosRenyiKernel,
        granularity: Granularity::Weight,
        granularities: BTreeMap::new(),
        ..config.pruning.selection.clone()
    };
    let cut = Cut {
        scored: Start::Initial,
        within: None,
        criterion: Some("random".into()),
        selection: Some(selection),
        target: Target::Level(level),
    };
    let address = Address::new(arm.name(), level, seed);
    FitPlan {
        mask: MaskFrom::Cut(Box::new(cut)),
        dynamic: Some(DynamicConfig::new(growth)),
        ..FitPlan::new(address, "sparse throughout, under a mask that moves", config.training.length)
    }
}
