//! A race: the whole time of every arm, search included, beside dense training's.

use serde::{Deserialize, Serialize};

use super::analysis::{estimate, whole};
use super::{ArmRole, FitRecord, Summary};
use crate::statistics::{CONFIDENCE, Estimate, Ratio, paired_ratio};

/// One arm at one level in a race.
///
/// Its time is all that its network needed: the training of every fit, and what is no training (pruning, rewinding, saving).
/// Validation and testing, which measure, are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Racer {
    /// The arm.
    pub arm: String,
    /// Its part.
    pub role: ArmRole,
    /// The level.
    pub level: u32,
    /// Seeds with a whole fit, in order.
    pub seeds: Vec<u64>,
    /// Seconds to its end.
    pub seconds: Option<Estimate>,
    /// The same over dense's of the seed; absent for dense itself and where nothing was timed.
    pub ratio: Option<Ratio>,
    /// Seconds to the first validation at which it was as sparse as at its end, and as good as dense at its end, less the
    /// margin: over the seeds in which it was. What is no training of its own counts before its first step.
    pub seconds_to_target: Option<Estimate>,
    /// The same over dense's of the seed.
    pub ratio_to_target: Option<Ratio>,
}

/// All that trained whole: dense first, then arm by arm, level by level. Empty where nothing was asked to race.
pub(super) fn of(summary: &Summary, metric: Option<&str>) -> Vec<Racer> {
    let dense = summary.is_race.then(|| summary.arm_of(ArmRole::Dense)).flatten();
    let Some(dense) = dense.map(|dense| whole(summary, &dense.name, 0)) else { return Vec::new() };
    let reference = |fit: &FitRecord| dense.iter().copied().find(|dense| dense.address.seed == fit.address.seed);
    let to_target = |fit: &FitRecord| seconds_to_target(summary, fit, target(summary, reference(fit)?, metric?)?);
    let mut racers = Vec::new();
    let arms = summary.arms.iter().filter(|arm| !matches!(arm.role, ArmRole::Search | ArmRole::Branch));
    for (arm, level) in arms.flat_map(|arm| summary.levels().into_iter().map(move |level| (arm, level))) {
        let fits = whole(summary, &arm.name, level);
        if fits.is_empty() {
            continue;
        }
        let ratio = |value: &dyn Fn(&FitRecord) -> Option<f64>| {
            let pair = |fit: &&FitRecord| Some((value(reference(fit)?)?, value(fit)?));
            let pairs: Vec<(f64, f64)> = fits.iter().filter_map(pair).collect();
            // Nothing to divide by where nothing was timed.
            (arm.role != ArmRole::Dense).then(|| paired_ratio(&pairs, CONFIDENCE).ok()).flatten()
        };
        racers.push(Racer {
            arm: arm.name.clone(),
            role: arm.role,
            level,
            seeds: fits.iter().map(|fit| fit.address.seed).collect(),
            seconds: estimate(&fits, |fit| Some(seconds_in_all(summary, fit))),
            ratio: ratio(&|fit| Some(seconds_in_all(summary, fit))),
            seconds_to_target: estimate(&fits, to_target),
            ratio_to_target: ratio(&to_target),
        });
    }
    racers
}

/// Seconds of the fit and of all that it needed, without what measures.
pub(super) fn seconds_in_all(summary: &Summary, fit: &FitRecord) -> f64 {
    summary.needed_by(fit).into_iter().map(FitRecord::working_seconds).sum()
}

/// What dense's last validation says, less the margin.
fn target(summary: &Summary, dense: &FitRecord, metric: &str) -> Option<f64> {
    let last = dense.history.iter().rev().find_map(|at| at.metrics.get(metric))?;
    Some(last - summary.margin.unwrap_or(0.0))
}

/// Seconds until a validation of the fit first reached `target` with the sparsity that it ends with; `None` if none did.
fn seconds_to_target(summary: &Summary, fit: &FitRecord, target: f64) -> Option<f64> {
    // A weight may be 0 by chance.
    const CHANCE: f64 = 0.005;
    let before = seconds_in_all(summary, fit) - fit.seconds();
    let sparsity = fit.history.last()?.sparsity - CHANCE;
    let reached = fit.history.iter().position(|at| {
        at.sparsity >= sparsity && at.metrics.get(&summary.metric).is_some_and(|metric| *metric >= target)
    })?;
    Some(before + fit.history[..=reached].iter().map(|at| at.seconds).sum::<f64>())
}
