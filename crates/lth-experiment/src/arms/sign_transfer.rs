//! The ticket's mask and the signs of its start on the magnitudes of other initial weights.
//!
//! Source: Zhou et al. 2019, "Deconstructing Lottery Tickets", §4: the sign is all that matters of a ticket's initial
//! weights.

use lth_runs::Address;

use crate::imp::TICKET;
use crate::plan::{FitPlan, MaskFrom, Start};
use crate::{Arm, ImpConfig};

pub(super) const WORDS: (&str, &str) = (
    "ticket's mask and signs, other magnitudes",
    "the magnitudes of the initial weights matter, not their signs alone",
);

/// It trains from its own first step, as the control with other initial weights, whose magnitudes it has.
pub(super) fn fit(config: &ImpConfig, level: u32, seed: u64) -> FitPlan {
    let address = Address::new(Arm::SignTransfer.name(), level, seed);
    let fit = FitPlan {
        mask: MaskFrom::Same(Address::new(TICKET, level, seed)),
        ..FitPlan::new(address, "the ticket's mask and signs on other magnitudes", config.training.length)
    };
    let signs = Box::new(config.rewound(fit.clone(), level, seed).start);
    FitPlan { start: Start::SignTransfer { signs, draw: 1 }, ..fit }
}
