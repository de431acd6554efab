use std::fmt;
use std::sync::Arc;

/// The shape of a schedule of one's own, beside those of [`Schedule`](crate::Schedule).
///
/// ```
/// use lth_schedule::{Curve, Schedule, Sparsity, SparsitySchedule, TrainingLength};
///
/// /// Fast at first: the square root of the position.
/// #[derive(Debug)]
/// struct Root;
///
/// impl Curve for Root {
///     fn name(&self) -> &str {
///         "root"
///     }
///
///     fn progress(&self, position: f64) -> f64 {
///         position.sqrt()
///     }
///
///     fn is_monotone(&self) -> bool {
///         true
///     }
/// }
///
/// let schedule = SparsitySchedule::to(Sparsity::from_percent(80.0)?, Schedule::own(Root));
/// let plan = schedule.plan(TrainingLength::new(4, 100)?)?;
/// assert_eq!(plan.sparsity(100).to_string(), "40.00 %");
/// assert_eq!(schedule.schedule.to_string(), "own(root)");
/// # Ok::<(), lth_schedule::Error>(())
/// ```
pub trait Curve: fmt::Debug + Send + Sync {
    /// What a file records of it, as `own(name)`; curves of one name count as equal. Parameters that change the curve
    /// belong into the name, so that a state is not resumed with others.
    fn name(&self) -> &str;

    /// The part of the way from the starting to the final sparsity at `position` in [0, 1], always the same there.
    ///
    /// What lies outside [0, 1] counts as the nearer end, and NaN as 0;
    /// [`SparsitySchedule::plan`](crate::SparsitySchedule::plan) refuses a curve that is NaN.
    fn progress(&self, position: f64) -> f64;

    /// Whether progress stands still between a number of jumps: see
    /// [`Schedule::is_stepwise`](crate::Schedule::is_stepwise).
    fn is_stepwise(&self) -> bool {
        false
    }

    /// Whether progress never falls: see [`Schedule::is_monotone`](crate::Schedule::is_monotone).
    fn is_monotone(&self) -> bool {
        false
    }
}

/// A [`Curve`] in a [`Schedule`](crate::Schedule): equal to another of the same name.
#[derive(Clone, Debug)]
pub struct OwnCurve(Arc<dyn Curve>);

impl OwnCurve {
    /// The curve as a value.
    pub fn new(curve: impl Curve + 'static) -> OwnCurve {
        OwnCurve(Arc::new(curve))
    }

    /// The curve itself.
    pub fn curve(&self) -> &dyn Curve {
        &*self.0
    }

    /// The curve's progress, in [0, 1].
    pub(crate) fn progress(&self, position: f64) -> f64 {
        let progress = self.0.progress(position);
        if progress.is_nan() { 0.0 } else { progress }
    }

    /// The first of a thousand even steps from 0 to 1 at which the curve is NaN.
    pub(crate) fn first_nan(&self) -> Option<f64> {
        crate::schedule::positions(1001).find(|&position| self.0.progress(position).is_nan())
    }
}

impl PartialEq for OwnCurve {
    fn eq(&self, other: &OwnCurve) -> bool {
        self.0.name() == other.0.name()
    }
}
