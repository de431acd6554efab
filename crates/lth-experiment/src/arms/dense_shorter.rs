//! The dense network trained for a part of the steps: what a sparse one that is done sooner must beat.

use lth_runs::Address;
use lth_schedule::Step;

use super::stretched;
use crate::plan::FitPlan;
use crate::{Arm, Error, ImpConfig};

pub(super) const WORDS: (&str, &str) =
    ("dense, half the steps at every level", "the whole network needs more than a part of its steps");

/// At level n the 2ⁿth part of the length, rounded down to whole epochs where it is in epochs; no fit at levels where nothing is
/// left. Its learning rate is stretched over its length.
pub(super) fn fits(config: &ImpConfig, seed: u64) -> Result<Vec<FitPlan>, Error> {
    let Step { epoch, iteration } = config.training.length;
    if (epoch > 0 && iteration > 0) || epoch + iteration < 2 {
        return Err(Error::Plan {
            field: format!("length of the training, for the arm {}", Arm::DenseShorter),
            got: config.training.length.to_string(),
            expected: "at least two epochs, or iterations alone, at least two".into(),
        });
    }
    let at = |level: u32| {
        let part = |n: u32| n.checked_shr(level).unwrap_or(0);
        let length = Step { epoch: part(epoch), iteration: part(iteration) };
        let address = Address::new(Arm::DenseShorter.name(), level, seed);
        let description = format!("the whole network, trained for {length}");
        (length != Step::START).then(|| stretched(config, FitPlan::new(address, description, length)))
    };
    (1..=config.n_levels).map_while(at).collect()
}
