//! The ticket's mask on its untrained weights, and nothing trained.
//!
//! Source: Zhou et al. 2019, "Deconstructing Lottery Tickets", §5.

use lth_runs::Address;
use lth_schedule::Step;

use crate::imp::TICKET;
use crate::plan::{FitPlan, MaskFrom};
use crate::{Arm, ImpConfig};

pub(super) const WORDS: (&str, &str) =
    ("ticket's mask on untrained weights", "training the ticket adds to what its mask has");

pub(super) fn fit(_config: &ImpConfig, level: u32, seed: u64) -> FitPlan {
    let address = Address::new(Arm::Supermask.name(), level, seed);
    let mask = MaskFrom::Same(Address::new(TICKET, level, seed));
    FitPlan { mask, ..FitPlan::new(address, "untrained, under the ticket's mask", Step::START) }
}
