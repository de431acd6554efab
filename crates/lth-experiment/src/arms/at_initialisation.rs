//! Networks pruned before they are trained: by magnitude, SNIP, GraSP, SynFlow; SNIP's and SynFlow's masks shuffled and on
//! other initial weights.
//!
//! Sources: Lee et al. 2019 (SNIP), Wang et al. 2020 (GraSP), Tanaka et al. 2020 (SynFlow); the controls are those of Frankle
//! et al. 2021, "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?".

use lth_mask::{Scope, Selection};
use lth_runs::Address;

use crate::plan::{Cut, FitPlan, MaskFrom, Start, Target};
use crate::{Arm, ImpConfig};

const EARLY: &str = "training before pruning tells which weights to keep";

pub(super) const MAGNITUDE: (&str, &str) = ("magnitude before training", EARLY);
pub(super) const SNIP: (&str, &str) = ("SNIP before training", EARLY);
pub(super) const GRASP: (&str, &str) = ("GraSP before training", EARLY);
pub(super) const SYNFLOW: (&str, &str) = ("SynFlow before training", EARLY);
pub(super) const SNIP_SHUFFLED: (&str, &str) = ("SNIP, shuffled within layers", EARLY);
pub(super) const SNIP_REINITIALISED: (&str, &str) = ("SNIP, other initial weights", EARLY);
pub(super) const SYNFLOW_SHUFFLED: (&str, &str) = ("SynFlow, shuffled within layers", EARLY);
pub(super) const SYNFLOW_REINITIALISED: (&str, &str) = ("SynFlow, other initial weights", EARLY);

/// Scores compete over all layers, as in the papers.
pub(super) fn fit(config: &ImpConfig, arm: Arm, criterion: &str, level: u32, seed: u64) -> FitPlan {
    let selection = Selection { scope: Scope::Global, ..config.pruning.selection.clone() };
    let cut = Cut {
        scored: Start::Initial,
        within: None,
        criterion: Some(criterion.into()),
        selection: Some(selection),
        target: Target::Level(level),
    };
    let address = Address::new(arm.name(), level, seed);
    let description = format!("cut by {criterion} before training");
    FitPlan { mask: MaskFrom::Cut(Box::new(cut)), ..FitPlan::new(address, description, config.training.length) }
}

pub(super) fn shuffled(config: &ImpConfig, arm: Arm, level: u32, seed: u64) -> FitPlan {
    let address = Address::new(arm.name(), level, seed);
    let mask = MaskFrom::Shuffled(of(arm, level, seed));
    FitPlan { mask, ..FitPlan::new(address, "the same mask, shuffled", config.training.length) }
}

pub(super) fn reinitialised(config: &ImpConfig, arm: Arm, level: u32, seed: u64) -> FitPlan {
    let address = Address::new(arm.name(), level, seed);
    let (start, mask) = (Start::Reinitialised(1), MaskFrom::Same(of(arm, level, seed)));
    FitPlan { start, mask, ..FitPlan::new(address, "the same mask on other initial weights", config.training.length) }
}

/// The fit whose mask a control has.
fn of(arm: Arm, level: u32, seed: u64) -> Address {
    Address::new(arm.needs().unwrap_or(arm).name(), level, seed)
}
