//! The dense network trained for as many steps as the search and the last ticket together.

use lth_runs::Address;
use lth_schedule::Step;

use super::stretched;
use crate::plan::FitPlan;
use crate::{Arm, Error, ImpConfig, Rewinding};

pub(super) const WORDS: (&str, &str) =
    ("dense, as many steps as search and ticket", "the search's training is better spent on finding a ticket");

/// One fit, beside the last level. Its learning rate is stretched over its length.
pub(super) fn fit(config: &ImpConfig, seed: u64) -> Result<FitPlan, Error> {
    let level = config.n_levels;
    let times =
        |step: Step| Step { epoch: step.epoch.saturating_mul(level), iteration: step.iteration.saturating_mul(level) };
    let Step { epoch, iteration } = config.training.length;
    let (more, skipped) = match &config.rewinding {
        Rewinding::FineTune { steps, .. } => (times(*steps), Step::START),
        _ => (times(config.training.length), times(config.rewind_step())),
    };
    let length = Step {
        epoch: epoch.saturating_add(more.epoch).saturating_sub(skipped.epoch),
        iteration: iteration.saturating_add(more.iteration).saturating_sub(skipped.iteration),
    };
    let address = Address::new(Arm::DenseLonger.name(), level, seed);
    stretched(config, FitPlan::new(address, "the whole network, trained longer", length))
}
