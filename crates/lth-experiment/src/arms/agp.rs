//! Pruned gradually in one training, without rewinding.
//!
//! Source: Zhu & Gupta 2017, "To prune, or not to prune", eq. 1, Δt as there.

use lth_runs::Address;
use lth_schedule::{Schedule, Window};

use crate::plan::{FitPlan, Gradual, Interval, Target};
use crate::{Arm, ImpConfig};

pub(super) const WORDS: (&str, &str) =
    ("gradual pruning in one training", "a ticket trained alone is better than pruning on the way");

pub(super) fn fit(config: &ImpConfig, level: u32, seed: u64) -> FitPlan {
    let address = Address::new(Arm::Agp.name(), level, seed);
    let gradual = Gradual {
        criterion: config.pruning.criterion.clone(),
        selection: config.pruning.selection.clone(),
        target: Target::Level(level),
        schedule: Schedule::Agp,
        window: Window::default(),
        interval: Interval::Papers,
        rewind: None,
    };
    FitPlan { gradual: Some(gradual), ..FitPlan::new(address, "pruned while it trains", config.training.length) }
}
