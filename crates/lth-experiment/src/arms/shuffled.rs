//! The ticket's start under its own mask, shuffled within each layer in units of what is pruned as one.
//!
//! Source: Frankle et al. 2021, "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", §4.

use lth_runs::Address;

use crate::imp::TICKET;
use crate::plan::{FitPlan, MaskFrom};
use crate::{Arm, ImpConfig};

pub(super) const WORDS: (&str, &str) =
    ("ticket's mask, shuffled within layers", "where in a layer the kept weights are matters");

pub(super) fn fit(config: &ImpConfig, level: u32, seed: u64) -> FitPlan {
    let address = Address::new(Arm::Shuffled.name(), level, seed);
    let mask = MaskFrom::Shuffled(Address::new(TICKET, level, seed));
    let fit = FitPlan { mask, ..FitPlan::new(address, "the ticket's mask, shuffled", config.training.length) };
    config.rewound(fit, level, seed)
}
