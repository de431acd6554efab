//! The dense network trained for a part of the steps: what a sparse one that is done sooner must beat.

use lth_runs::Address;
use lth_schedule::Step;

use super::stretched;
use crate::plan::FitPlan;
use crate::{Arm, Error, ImpConfig};

pub(super) const WORDS: (&str, &str) = (
    "dense, half the steps at every level",
    "the time is better spent on a ticket than on fewer steps of the whole network",
);

/// At level n the 2ⁿth part of the steps, rounded down. Its learning rate is stretched over its length.
pub(super) fn fit(config: &ImpConfig, level: u32, seed: u64) -> Result<FitPlan, Error> {
    let part = |n: u32| n.checked_shr(level).unwrap_or(0);
    let Step { epoch, iteration } = config.training.length;
    let length = Step { epoch: part(epoch), iteration: part(iteration) };
    if length == Step::START {
        return Err(Error::Plan {
            field: "length of the training".into(),
            got: config.training.length.to_string(),
            expected: format!("one that can be halved {level} times, for the arm {}", Arm::DenseShorter),
        });
    }
    let address = Address::new(Arm::DenseShorter.name(), level, seed);
    stretched(config, FitPlan::new(address, format!("the whole network, trained for {length}"), length))
}
