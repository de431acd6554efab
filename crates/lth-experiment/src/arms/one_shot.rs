//! The level's weights cut at once from the trained dense network.
//!
//! Source: Frankle & Carbin 2019, §2 "one-shot pruning".

use lth_runs::Address;

use crate::imp::DENSE;
use crate::plan::{Cut, FitPlan, MaskFrom, Start, Target};
use crate::{Arm, ImpConfig};

pub(super) const WORDS: (&str, &str) = ("one cut of the dense network", "pruning in small steps is worth its training");

pub(super) fn fit(config: &ImpConfig, level: u32, seed: u64) -> FitPlan {
    let address = Address::new(Arm::OneShot.name(), level, seed);
    let scored = Start::End(Address::new(DENSE, 0, seed));
    let mask = MaskFrom::Cut(Box::new(Cut {
        scored,
        within: None,
        criterion: None,
        selection: None,
        target: Target::Level(level),
    }));
    let fit = FitPlan { mask, ..FitPlan::new(address, "cut at once from the trained network", config.training.length) };
    // At level 1 the parent is the dense network, which all levels are cut from here.
    config.rewound(fit, 1, seed)
}
