//! The ticket's mask on other initial weights: the paper's control.
//!
//! Source: Frankle & Carbin 2019, §2: "random reinitialization".

use lth_runs::Address;

use crate::imp::TICKET;
use crate::plan::{FitPlan, MaskFrom, Start};
use crate::{Arm, ImpConfig};

pub(super) const WORDS: (&str, &str) =
    ("ticket's mask, other initial weights", "the initial weights matter, not the structure alone");

/// It trains from its own first step, whatever the ticket is rewound to: there is no later step of these weights.
pub(super) fn fit(config: &ImpConfig, level: u32, seed: u64) -> FitPlan {
    let address = Address::new(Arm::Reinitialised.name(), level, seed);
    FitPlan {
        start: Start::Reinitialised(1),
        mask: MaskFrom::Same(Address::new(TICKET, level, seed)),
        ..FitPlan::new(address, "the ticket's mask on other initial weights", config.training.length)
    }
}
