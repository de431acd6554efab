//! Whether networks are stable to the noise of their training: instability analysis over seeds.

use serde::{Deserialize, Serialize};

use super::analysis::density;
use super::{ArmRole, FitRecord, PathRecord, Summary};
use crate::statistics::{CONFIDENCE, Estimate, Instability, STABLE, instability};

/// Two copies of a network that see other data orders from a step on, and the error between them, over seeds.
///
/// Source: Frankle, Dziugaite, Roy & Carbin 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", §2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// The arm of the second copy.
    pub arm: String,
    /// The level of both; 0 is dense.
    pub level: u32,
    /// The step from which the orders differ.
    pub step: u64,
    /// Seeds with a path, in order.
    pub seeds: Vec<u64>,
    /// Weights that remain, as a fraction.
    pub density: Option<Estimate>,
    /// Highest error on the path less the mean of its ends'.
    pub instability: Option<Estimate>,
    /// Mean error of the ends.
    pub ends: Option<Estimate>,
    /// The same less the error of the seed's dense network.
    pub above_dense: Option<Estimate>,
    /// Place, and the error there less the mean of the ends'.
    pub path: Vec<(f64, Estimate)>,
}

impl Stability {
    /// Whether the copies are stable by the paper's measure, an instability below [`STABLE`]; `None` where its interval
    /// holds that value, and for fewer than three seeds.
    pub fn is_stable(&self) -> Option<bool> {
        let instability = self.instability.filter(|instability| instability.n >= 3)?;
        if instability.is_constant() {
            // Equal values have no interval.
            return None;
        }
        let interval = instability.interval(CONFIDENCE)?;
        (!interval.contains(STABLE)).then_some(instability.mean < STABLE)
    }
}

/// One path with what is needed besides.
struct Measured<'a> {
    path: &'a PathRecord,
    fit: &'a FitRecord,
    errors: Vec<(f64, f64)>,
    found: Instability,
}

/// By level and step, where `metric` is a fraction.
pub(super) fn of(summary: &Summary, metric: &str) -> Vec<Stability> {
    let measured = |path| -> Option<Measured<'_>> {
        let path: &PathRecord = path;
        let [_, last] = &path.ends;
        let errors = path.errors(metric)?;
        Some(Measured { path, fit: summary.fit(last)?, found: instability(&errors).ok()?, errors })
    };
    let mut all: Vec<Measured<'_>> = summary.paths.iter().filter_map(measured).collect();
    let key = |one: &Measured<'_>| {
        let address = &one.fit.address;
        (address.level, one.path.branched_at, address.arm.clone())
    };
    all.sort_by_key(|one| (key(one), one.fit.address.seed));
    all.chunk_by(|one, next| key(one) == key(next)).map(|group| over_seeds(summary, metric, group)).collect()
}

fn over_seeds(summary: &Summary, metric: &str, group: &[Measured<'_>]) -> Stability {
    let Measured { path, fit, errors, .. } = &group[0];
    let estimate = |value: &dyn Fn(&Measured<'_>) -> Option<f64>| {
        Estimate::of(&group.iter().filter_map(value).collect::<Vec<_>>())
    };
    let dense = summary.arm_of(ArmRole::Dense);
    let dense_error = |seed: u64| {
        let dense = summary.fits.iter().find(|fit| {
            dense.is_some_and(|dense| dense.name == fit.address.arm) && fit.address.seed == seed && fit.is_whole()
        });
        Some(1.0 - dense?.metric(metric)?)
    };
    let at = |(index, (place, _)): (usize, &(f64, f64))| {
        // Of a seed that was measured at other places nothing is drawn.
        let value = |one: &Measured<'_>| {
            one.errors.get(index).filter(|(other, _)| other == place).map(|(_, error)| error - one.found.ends)
        };
        Some((*place, estimate(&value)?))
    };
    Stability {
        arm: fit.address.arm.clone(),
        level: fit.address.level,
        step: path.branched_at,
        seeds: group.iter().map(|one| one.fit.address.seed).collect(),
        density: estimate(&|one| Some(density(one.fit))),
        instability: estimate(&|one| Some(one.found.instability)),
        ends: estimate(&|one| Some(one.found.ends)),
        above_dense: estimate(&|one| Some(one.found.ends - dense_error(one.fit.address.seed)?)),
        path: errors.iter().enumerate().filter_map(at).collect(),
    }
}
