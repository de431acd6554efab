//! The ticket's start under a random mask with as many weights in all, wherever they lie. With as many in every layer is what
//! [`Shuffled`](crate::Arm::Shuffled) is for.

use lth_runs::Address;

use crate::imp::TICKET;
use crate::plan::{FitPlan, MaskFrom};
use crate::{Arm, ImpConfig};

pub(super) const WORDS: (&str, &str) =
    ("random mask, as many weights in all", "which weights are kept matters, not their number alone");

pub(super) fn fit(config: &ImpConfig, level: u32, seed: u64) -> FitPlan {
    let address = Address::new(Arm::Random.name(), level, seed);
    let mask = MaskFrom::Random(Address::new(TICKET, level, seed));
    let fit = FitPlan { mask, ..FitPlan::new(address, "as many weights in all, at random", config.training.length) };
    config.rewound(fit, level, seed)
}
