use std::f64::consts::PI;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::{Curve, Error, OwnCurve, Points, Sparsity};

/// The shape of a pruning schedule: how much of the way from the starting to the final sparsity is done, over the
/// position in its window.
///
/// A plain value: compare it, store it, spell it. The text is the same in a file, on a command line and in [`Display`]:
/// `one_shot`, `iterative(3)`, `agp`, `one_cycle`, `cosine`, `linear`, `dsd`, `geometric(7)`, `polynomial(2)`,
/// `piecewise(0:0, 0.5:0.9, 1:1)`. A [`Curve`] of one's own is written as `own(name)`, and reading that is an error.
///
/// ```
/// use lth_schedule::Schedule;
///
/// let schedule: Schedule = "iterative(3)".parse()?;
/// assert_eq!(schedule, Schedule::iterative(3)?);
/// assert_eq!(schedule.progress(0.0), 0.0);
/// assert_eq!(schedule.progress(0.01), 1.0 / 3.0);
/// assert_eq!(schedule.progress(1.0), 1.0);
/// # Ok::<(), lth_schedule::Error>(())
/// ```
/// [`Display`]: std::fmt::Display
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Schedule {
    /// All at once, at the start of the window: `one_shot`.
    OneShot,
    /// In equal jumps, the first right after the start: ⌈n·pos⌉ / n. `iterative(n)`.
    ///
    /// At position 0 exactly nothing is pruned yet. Source: fasterai `sched_iterative`, of 2021 and of 0.3.3 alike.
    Iterative {
        /// Number of jumps.
        n_steps: NonZeroU32,
    },
    /// Automated gradual pruning, 1 − (1 − pos)³: fast while much is redundant, slow at the end. `agp`.
    ///
    /// Source: Zhu & Gupta 2017, "To prune, or not to prune", eq. 1; its
    /// frequency of pruning is [`SparsitySchedule::every`](crate::SparsitySchedule::every).
    Agp,
    /// A logistic curve, (1 + e^(β−α)) / (1 + e^(β−α·pos)): `one_cycle` or `one_cycle(14, 6)`.
    ///
    /// It does not start at 0: 0.0025 with the published α and β. Source: Hubens et al. 2021, "One-Cycle Pruning".
    OneCycle(Logistic),
    /// Half a cosine wave, (1 − cos π·pos) / 2: `cosine`. Source: fasterai `cos`.
    Cosine,
    /// pos itself: `linear`.
    Linear,
    /// Dense, sparse, dense: up by a cosine until the middle, and down again. `dsd`.
    ///
    /// The one schedule that ends where it started. Source: Han et al. 2017, "DSD: Dense-Sparse-Dense Training"; the
    /// curve is fasterai's `sched_dsd`.
    Dsd,
    /// In rounds that each prune the same part of what remains, as iterative magnitude pruning does: the density after
    /// round k = ⌈n·pos⌉ is start · (end / start)^(k/n). `geometric(n)`.
    ///
    /// From dense to 90 % in three rounds: 53.6, 78.5, 90 %. It leads to the end that is asked for, so the part that a
    /// round prunes follows from the two; where the part is given, the end is
    /// [`PruningRate::sparsity`](crate::PruningRate::sparsity) of the number of rounds. It cannot end (or start) at
    /// 100 %, which no such round reaches. Source: Frankle & Carbin 2019, "The Lottery Ticket Hypothesis", §2: p^(1/n)
    /// of the remaining weights survive each of n rounds.
    Geometric {
        /// Number of rounds.
        n_rounds: NonZeroU32,
    },
    /// 1 − (1 − pos)^p: `polynomial(p)`. Linear for p = 1, [`Schedule::Agp`] for p = 3.
    ///
    /// Source: TensorFlow model optimisation's `PolynomialDecay`.
    Polynomial(Exponent),
    /// Straight lines between given points: `piecewise(0:0, 0.5:0.9, 1:1)`.
    Piecewise(Points),
    /// A [`Curve`] of one's own: `own(name)`, which is written and not read.
    Own(OwnCurve),
}

impl Schedule {
    /// [`Schedule::Iterative`] in `n_steps` jumps.
    ///
    /// # Errors
    /// if `n_steps` is 0.
    pub fn iterative(n_steps: u32) -> Result<Schedule, Error> {
        Ok(Schedule::Iterative { n_steps: at_least_one("steps of an iterative schedule", n_steps)? })
    }

    /// [`Schedule::OneCycle`] with the published α = 14 and β = 6.
    pub fn one_cycle() -> Schedule {
        Schedule::OneCycle(Logistic::default())
    }

    /// [`Schedule::Geometric`] in `n_rounds` rounds.
    ///
    /// # Errors
    /// If there are no rounds.
    pub fn geometric(n_rounds: u32) -> Result<Schedule, Error> {
        Ok(Schedule::Geometric { n_rounds: at_least_one("rounds of a geometric schedule", n_rounds)? })
    }

    /// [`Schedule::Polynomial`] of degree `exponent`.
    ///
    /// # Errors
    /// if `exponent` is not a number in (0, 1000].
    pub fn polynomial(exponent: f64) -> Result<Schedule, Error> {
        Ok(Schedule::Polynomial(Exponent::new(exponent)?))
    }

    /// [`Schedule::Piecewise`] through `points`, pairs of position and progress.
    ///
    /// # Errors
    /// see [`Points::new`].
    pub fn piecewise(points: impl IntoIterator<Item = (f64, f64)>) -> Result<Schedule, Error> {
        Ok(Schedule::Piecewise(Points::new(points)?))
    }

    /// [`Schedule::Own`] along `curve`.
    pub fn own(curve: impl Curve + 'static) -> Schedule {
        Schedule::Own(OwnCurve::new(curve))
    }

    /// The part of the way from the starting to the final sparsity, in [0, 1]; of [`Schedule::Geometric`] the part of its
    /// rounds that are done, which is the way of the density's logarithm.
    ///
    /// `position`: where in the schedule's window, in [0, 1]; beyond it the nearer end counts, NaN counts as 0.
    pub fn progress(&self, position: f64) -> f64 {
        let pos = if position.is_nan() { 0.0 } else { position.clamp(0.0, 1.0) };
        let progress = match self {
            Schedule::OneShot => 1.0,
            Schedule::Iterative { n_steps } => jumps(pos, *n_steps) / f64::from(n_steps.get()),
            Schedule::Agp => 1.0 - (1.0 - pos).powi(3),
            Schedule::OneCycle(logistic) => logistic.progress(pos),
            Schedule::Cosine => (1.0 - (PI * pos).cos()) / 2.0,
            Schedule::Linear => pos,
            Schedule::Dsd => (1.0 + (PI * (1.0 - pos * 2.0)).cos()) / 2.0,
            Schedule::Geometric { n_rounds } => jumps(pos, *n_rounds) / f64::from(n_rounds.get()),
            Schedule::Polynomial(exponent) => 1.0 - (1.0 - pos).powf(exponent.0),
            Schedule::Piecewise(points) => points.at(pos),
            Schedule::Own(own) => own.progress(pos),
        };
        progress.clamp(0.0, 1.0)
    }

    /// The sparsity at a position of the way from `start` to `end`: never outside the two, and exactly `end` where the
    /// progress is 1.
    ///
    /// `position`: as for [`Schedule::progress`].
    pub fn between(&self, start: Sparsity, end: Sparsity, position: f64) -> Sparsity {
        let progress = self.progress(position);
        match self {
            Schedule::Geometric { .. } if progress > 0.0 && progress < 1.0 => {
                let density = start.density() * (end.density() / start.density()).powf(progress);
                let (low, high) = (start.min(end), start.max(end));
                // NaN where both are 100 %: the end.
                Sparsity::new(1.0 - density).map_or(end, |sparsity| sparsity.clamp(low, high))
            }
            _ => start.toward(end, progress),
        }
    }

    /// Whether the sparsity stands still between a number of jumps, instead of changing at every iteration:
    /// [`Schedule::OneShot`], [`Schedule::Iterative`], [`Schedule::Geometric`], and a piecewise schedule all of whose
    /// lines are level or jumps. A curve of one's own says so itself.
    pub fn is_stepwise(&self) -> bool {
        match self {
            Schedule::OneShot | Schedule::Iterative { .. } | Schedule::Geometric { .. } => true,
            Schedule::Piecewise(points) => points.is_stepwise(),
            Schedule::Own(own) => own.curve().is_stepwise(),
            _ => false,
        }
    }

    /// Whether progress never falls while the position grows: all but [`Schedule::Dsd`] and a piecewise schedule with a
    /// falling stretch. A curve of one's own says so itself. The masks along such a schedule can be nested.
    pub fn is_monotone(&self) -> bool {
        match self {
            Schedule::Dsd => false,
            Schedule::Piecewise(points) => points.is_monotone(),
            Schedule::Own(own) => own.curve().is_monotone(),
            _ => true,
        }
    }

    /// `n_points` pairs of position and progress for a plot, evenly spaced from 0 to 1 with both ends; a single point is
    /// at 0.
    pub fn sample(&self, n_points: usize) -> Vec<(f64, f64)> {
        positions(n_points).map(|pos| (pos, self.progress(pos))).collect()
    }
}

/// `n_points` numbers from 0 to 1, evenly spaced, both ends exactly.
pub(crate) fn positions(n_points: usize) -> impl Iterator<Item = f64> {
    let last = n_points.saturating_sub(1).max(1) as f64;
    (0..n_points).map(move |idx| idx as f64 / last)
}

/// ⌈n·pos⌉, the number of jumps done. PARITY: the product is taken as fasterai takes it, `pos * n`, so that the jump
/// comes at the same iteration where `pos * n` is not exact.
fn jumps(pos: f64, n: NonZeroU32) -> f64 {
    (pos * f64::from(n.get())).ceil()
}

fn at_least_one(parameter: &'static str, n: u32) -> Result<NonZeroU32, Error> {
    NonZeroU32::new(n).ok_or(Error::Parameter { parameter, got: "0".to_owned(), expected: "at least 1" })
}

/// Steepness α and offset β of [`Schedule::OneCycle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logistic {
    alpha: f64,
    beta: f64,
}

impl Logistic {
    /// A curve of steepness `alpha` whose middle lies at `beta / alpha`.
    ///
    /// # Errors
    /// if `alpha` is not in (0, 500] or `beta` not in [−500, 500]: beyond, the exponentials overflow.
    pub fn new(alpha: f64, beta: f64) -> Result<Logistic, Error> {
        if !(alpha > 0.0 && alpha <= 500.0) {
            return Err(Error::Parameter {
                parameter: "alpha of a one-cycle schedule",
                got: alpha.to_string(),
                expected: "a number in (0, 500]",
            });
        }
        if !(-500.0..=500.0).contains(&beta) {
            return Err(Error::Parameter {
                parameter: "beta of a one-cycle schedule",
                got: beta.to_string(),
                expected: "a number in [-500, 500]",
            });
        }
        Ok(Logistic { alpha, beta })
    }

    /// α, the steepness.
    pub fn alpha(self) -> f64 {
        self.alpha
    }

    /// β, the offset.
    pub fn beta(self) -> f64 {
        self.beta
    }

    fn progress(self, pos: f64) -> f64 {
        // The same expression at pos = 1 above and below the line: exactly 1 there.
        (1.0 + (-self.alpha + self.beta).exp()) / (1.0 + (-self.alpha * pos + self.beta).exp())
    }
}

/// α = 14, β = 6, as published.
impl Default for Logistic {
    fn default() -> Self {
        Logistic { alpha: 14.0, beta: 6.0 }
    }
}

/// Degree of [`Schedule::Polynomial`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponent(f64);

impl Exponent {
    /// A degree.
    ///
    /// # Errors
    /// if it is not a number in (0, 1000].
    pub fn new(exponent: f64) -> Result<Exponent, Error> {
        if exponent > 0.0 && exponent <= 1000.0 {
            return Ok(Exponent(exponent));
        }
        Err(Error::Parameter {
            parameter: "exponent of a polynomial schedule",
            got: exponent.to_string(),
            expected: "a number in (0, 1000]",
        })
    }

    /// The degree as a number.
    pub fn value(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_but_dsd_ends_at_one_exactly() {
        for text in
            ["one_shot", "iterative(7)", "agp", "one_cycle", "cosine", "linear", "geometric(9)", "polynomial(0.5)"]
        {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.progress(1.0), 1.0, "{text}");
        }
        assert_eq!(Schedule::Dsd.progress(1.0), 0.0);
        assert_eq!(Schedule::Dsd.progress(0.5), 1.0);
    }

    #[test]
    fn positions_outside_count_as_the_nearer_end_and_nan_as_the_start() {
        for schedule in [Schedule::Linear, Schedule::Agp, Schedule::one_cycle(), Schedule::iterative(4).unwrap()] {
            for (outside, end) in
                [(-1.0, 0.0), (f64::NEG_INFINITY, 0.0), (f64::NAN, 0.0), (1.5, 1.0), (f64::INFINITY, 1.0)]
            {
                assert_eq!(schedule.progress(outside), schedule.progress(end), "{schedule} at {outside}");
            }
        }
    }

    #[test]
    fn a_third_of_the_window_is_still_the_first_of_three_jumps() {
        // 92 of 276 iterations: 1/3 in f64, and 3 · (1/3) is 1 exactly, so the second jump comes one iteration later.
        let schedule = Schedule::iterative(3).unwrap();
        assert_eq!(schedule.progress(92.0 / 276.0), 1.0 / 3.0);
        assert_eq!(schedule.progress(93.0 / 276.0), 2.0 / 3.0);
    }

    fn sparsity(fraction: f64) -> Sparsity {
        Sparsity::new(fraction).unwrap()
    }

    #[test]
    fn each_geometric_round_prunes_the_same_part_of_what_is_left() {
        let schedule = Schedule::geometric(3).unwrap();
        // 0.1^(1/3) = 0.4641588833612779 survives a round.
        let expected = [0.0, 0.5358411166387221, 0.784556530996811, 0.9];
        for (round, expected) in (0u32..).zip(expected) {
            let at = schedule.between(Sparsity::DENSE, sparsity(0.9), f64::from(round) / 3.0);
            assert!((at.fraction() - expected).abs() < 1e-12, "round {round}: {at}");
        }
        // Twenty per cent a round, from 30 %: densities 0.7, 0.56, 0.448, 0.3584.
        let end = crate::PruningRate::new(0.2).unwrap().sparsity_from(sparsity(0.3), 3);
        for (round, density) in (0u32..).zip([0.7, 0.56, 0.448, 0.3584]) {
            let at = schedule.between(sparsity(0.3), end, f64::from(round) / 3.0);
            assert!((at.density() - density).abs() < 1e-12, "round {round}: {at}");
        }
    }

    #[test]
    fn what_stands_still_between_jumps_is_stepwise() {
        for text in ["one_shot", "iterative(3)", "geometric(3)", "piecewise(0:0.5, 0.5:0.5, 0.5:1, 1:1)"] {
            assert!(text.parse::<Schedule>().unwrap().is_stepwise(), "{text}");
        }
        for text in ["agp", "one_cycle", "cosine", "linear", "dsd", "polynomial(2)", "piecewise(0:0, 1:1)"] {
            assert!(!text.parse::<Schedule>().unwrap().is_stepwise(), "{text}");
        }
    }

    #[test]
    fn polynomial_of_degree_three_is_agp() {
        let cubic = Schedule::polynomial(3.0).unwrap();
        for pos in positions(101) {
            assert!((cubic.progress(pos) - Schedule::Agp.progress(pos)).abs() < 1e-15);
        }
    }

    #[test]
    fn parameters_out_of_range_are_errors() {
        assert_eq!(
            Schedule::iterative(0).unwrap_err().to_string(),
            "steps of an iterative schedule is 0, expected at least 1"
        );
        assert!(Schedule::geometric(0).is_err());
        for exponent in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(Schedule::polynomial(exponent).is_err(), "{exponent}");
        }
        for (alpha, beta) in [(0.0, 6.0), (f64::NAN, 6.0), (14.0, f64::NAN), (501.0, 6.0), (14.0, -501.0)] {
            assert!(Logistic::new(alpha, beta).is_err(), "{alpha} {beta}");
        }
    }

    #[test]
    fn the_steepest_logistic_is_finite_everywhere() {
        for beta in [-500.0, 0.0, 500.0] {
            let schedule = Schedule::OneCycle(Logistic::new(500.0, beta).unwrap());
            for (pos, progress) in schedule.sample(101) {
                assert!(progress.is_finite(), "beta {beta} at {pos}: {progress}");
            }
        }
    }

    #[test]
    fn samples_are_evenly_spaced_with_both_ends() {
        assert_eq!(Schedule::Linear.sample(0), []);
        assert_eq!(Schedule::Linear.sample(1), [(0.0, 0.0)]);
        assert_eq!(Schedule::Linear.sample(3), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)]);
    }
}
