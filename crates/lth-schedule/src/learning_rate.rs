//! Learning rates over the progress of a training: plain functions from progress in [0, 1] to a number.
//!
//! Each returns an `impl Fn(f64) -> f64`, so that a trainer needs to know no type of this crate, and a schedule of your
//! own is a closure. Progress is (iterations done) / (iterations in all), asked for before each batch; beyond [0, 1] the
//! nearer end counts.
//!
//! ```
//! use lth_schedule::learning_rate::{OneCycleRate, linear_warm_up, one_cycle, step};
//!
//! let rate = one_cycle(OneCycleRate::to(0.01))?;
//! assert!((rate(0.0) - 0.0004).abs() < 1e-12 && (rate(0.25) - 0.01).abs() < 1e-12);
//!
//! // 0.1, a tenth of it from one half, a hundredth from three quarters, after 5 % of warm-up.
//! let rate = linear_warm_up(0.05, step(0.1, 0.1, [0.5, 0.75])?)?;
//! assert!((rate(0.025) - 0.05).abs() < 1e-12 && (rate(0.6) - 0.01).abs() < 1e-12);
//! # Ok::<(), lth_schedule::Error>(())
//! ```

use std::f64::consts::PI;

use crate::{Error, Moment, Step, TrainingLength};

/// The same rate throughout, as fastai's `fit`.
pub fn constant(rate: f64) -> impl Fn(f64) -> f64 + Clone + Send + Sync + 'static {
    move |_| rate
}

/// A straight line from `start` to `end`.
pub fn linear(start: f64, end: f64) -> impl Fn(f64) -> f64 + Clone + Send + Sync + 'static {
    move |progress| {
        let pos = inside(progress);
        start * (1.0 - pos) + end * pos
    }
}

/// Half a cosine wave from `start` to `end`: end + (start − end) · (1 + cos π·progress) / 2.
///
/// Source: Loshchilov & Hutter 2017, "SGDR", eq. 5, without restarts.
pub fn cosine(start: f64, end: f64) -> impl Fn(f64) -> f64 + Clone + Send + Sync + 'static {
    move |progress| {
        let wave = (1.0 + (PI * inside(progress)).cos()) / 2.0;
        start * wave + end * (1.0 - wave)
    }
}

/// What [`one_cycle`] goes through; the defaults of fastai's `fit_one_cycle` come with [`OneCycleRate::to`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycleRate {
    /// The highest rate.
    pub max: f64,
    /// It starts at `max / div`.
    pub div: f64,
    /// It ends at `max / div_final`.
    pub div_final: f64,
    /// The part of the training until the highest rate, in [0, 1].
    pub rise: f64,
}

impl OneCycleRate {
    /// To `max` with fastai's defaults: from max / 25, up over a quarter of the training, down to max / 10⁵.
    pub fn to(max: f64) -> OneCycleRate {
        OneCycleRate { max, div: 25.0, div_final: 1e5, rise: 0.25 }
    }
}

/// Up and down by half a cosine wave each, as fastai's `fit_one_cycle`.
///
/// # Errors
/// if a number is not finite, `max` is negative, a divisor not positive, or `rise` outside [0, 1].
///
/// Source: Smith & Topin 2018, "Super-Convergence"; the curve is fastai 2.8's `combined_cos`, which takes the position in a
/// wave in float32 and so differs in the seventh digit.
pub fn one_cycle(parameters: OneCycleRate) -> Result<impl Fn(f64) -> f64 + Clone + Send + Sync + 'static, Error> {
    let OneCycleRate { max, div, div_final, rise } = parameters;
    check("highest rate of a one-cycle schedule", max, max >= 0.0, "a finite number, at least 0")?;
    check("div of a one-cycle schedule", div, div > 0.0, "a finite number above 0")?;
    check("div_final of a one-cycle schedule", div_final, div_final > 0.0, "a finite number above 0")?;
    check("rise of a one-cycle schedule", rise, (0.0..=1.0).contains(&rise), "a fraction in [0, 1]")?;
    Ok(rise_and_fall(rise, [max / div, max, max / div_final]))
}

/// The momentum that goes with [`one_cycle`]: down from `high` to `low` while the rate rises, and back.
///
/// fastai's `fit_one_cycle` has 0.95, 0.85 and `rise` 0.25.
///
/// # Errors
/// if a momentum is outside [0, 1) or `rise` outside [0, 1].
pub fn one_cycle_momentum(
    high: f64,
    low: f64,
    rise: f64,
) -> Result<impl Fn(f64) -> f64 + Clone + Send + Sync + 'static, Error> {
    for momentum in [high, low] {
        let fits = (0.0..1.0).contains(&momentum);
        check("momentum of a one-cycle schedule", momentum, fits, "a number in [0, 1)")?;
    }
    check("rise of a one-cycle schedule", rise, (0.0..=1.0).contains(&rise), "a fraction in [0, 1]")?;
    Ok(rise_and_fall(rise, [high, low, high]))
}

/// `rate`, multiplied with `factor` at each of the `milestones` (fractions of the training, in any order).
///
/// At a milestone itself the new rate holds.
///
/// # Errors
/// if `rate` or `factor` is negative or not finite, or a milestone is outside [0, 1].
pub fn step(
    rate: f64,
    factor: f64,
    milestones: impl IntoIterator<Item = f64>,
) -> Result<impl Fn(f64) -> f64 + Clone + Send + Sync + 'static, Error> {
    check("rate of a step schedule", rate, rate >= 0.0, "a finite number, at least 0")?;
    check("factor of a step schedule", factor, factor >= 0.0, "a finite number, at least 0")?;
    let milestones: Vec<f64> = milestones.into_iter().collect();
    for milestone in &milestones {
        let fits = (0.0..=1.0).contains(milestone);
        check("milestone of a step schedule", *milestone, fits, "a fraction of the training in [0, 1]")?;
    }
    Ok(move |progress: f64| {
        let n_passed = milestones.iter().filter(|milestone| progress >= **milestone).count();
        // A slice's length fits: there are not 2^31 milestones.
        rate * factor.powi(n_passed as i32)
    })
}

/// `then`, scaled up in a straight line from 0 over the first `warm_up` of the training.
///
/// `then` sees the progress of the whole training, warm-up included.
///
/// # Errors
/// if `warm_up` is outside [0, 1].
///
/// Source: Goyal et al. 2017, "Accurate, Large Minibatch SGD", §2.2; Frankle & Carbin 2019, §5, for tickets of deep
/// networks.
pub fn linear_warm_up<F: Fn(f64) -> f64>(warm_up: f64, then: F) -> Result<impl Fn(f64) -> f64, Error> {
    check("warm-up", warm_up, (0.0..=1.0).contains(&warm_up), "a fraction of the training in [0, 1]")?;
    Ok(move |progress: f64| {
        let scale = if progress < warm_up { inside(progress) / warm_up } else { 1.0 };
        scale * then(progress)
    })
}

/// [`step`] with milestones and a [`linear_warm_up`] given in steps of a training of a known length, as papers give them.
///
/// # Errors
/// As `step`, and if a milestone or the warm-up lies after the end of the training.
///
/// ```
/// use lth_schedule::{Step, TrainingLength, learning_rate::step_at};
///
/// // He et al. 2016 for ResNets on CIFAR-10: 0.1, divided by 10 at 32,000 and 48,000 of 64,000 iterations.
/// let at = |iteration| Step { epoch: 0, iteration };
/// let length = TrainingLength::until(at(64_000), 391)?;
/// let rate = step_at(0.1, 0.1, [at(32_000), at(48_000)], at(400), length)?;
/// assert!((rate(0.6) - 0.01).abs() < 1e-12);
/// # Ok::<(), lth_schedule::Error>(())
/// ```
pub fn step_at(
    rate: f64,
    factor: f64,
    milestones: impl IntoIterator<Item = Step>,
    warm_up: Step,
    length: TrainingLength,
) -> Result<impl Fn(f64) -> f64, Error> {
    let fraction = |step| Ok::<_, Error>(Moment::Step(step).iterations(length)? / length.iterations() as f64);
    let milestones = milestones.into_iter().map(fraction).collect::<Result<Vec<_>, _>>()?;
    linear_warm_up(fraction(warm_up)?, step(rate, factor, milestones)?)
}

/// Half a cosine wave from the first to the second value until `rise`, another to the third after it.
fn rise_and_fall(rise: f64, values: [f64; 3]) -> impl Fn(f64) -> f64 + Clone + Send + Sync + 'static {
    let (up, down) = (cosine(values[0], values[1]), cosine(values[1], values[2]));
    move |progress| {
        let pos = inside(progress);
        // PARITY: at `rise` itself the second wave counts, as in fastai's `combine_scheds`, and at the end always.
        if pos < rise {
            up(pos / rise)
        } else if rise < 1.0 {
            down((pos - rise) / (1.0 - rise))
        } else {
            values[2]
        }
    }
}

fn inside(progress: f64) -> f64 {
    progress.clamp(0.0, 1.0)
}

fn check(parameter: &'static str, got: f64, fits: bool, expected: &'static str) -> Result<(), Error> {
    if fits && got.is_finite() {
        return Ok(());
    }
    Err(Error::Parameter { parameter, got: got.to_string(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(ours: f64, expected: f64) {
        assert!((ours - expected).abs() <= 1e-12 * expected.abs().max(1e-3), "{ours}, expected {expected}");
    }

    #[test]
    fn one_cycle_is_fastais() {
        // combined_cos(0.25, 1e-3 / 25, 1e-3, 1e-3 / 1e5) of fastai 2.8: SchedCos on each side, worked out by hand at
        // the ends and the middles of its two waves.
        let rate = one_cycle(OneCycleRate::to(1e-3)).unwrap();
        assert_close(rate(0.0), 4e-5);
        assert_close(rate(0.125), (4e-5 + 1e-3) / 2.0);
        assert_close(rate(0.25), 1e-3);
        assert_close(rate(0.625), (1e-3 + 1e-8) / 2.0);
        assert_close(rate(1.0), 1e-8);
        // A third into the second wave: 1e-3 + (1 + cos π·2/3) · (1e-8 − 1e-3) / 2, that is three quarters of 1e-3.
        assert_close(rate(0.5), 0.75e-3 + 0.25e-8);
        let momentum = one_cycle_momentum(0.95, 0.85, 0.25).unwrap();
        for (progress, expected) in [(0.0, 0.95), (0.125, 0.9), (0.25, 0.85), (0.625, 0.9), (1.0, 0.95)] {
            assert_close(momentum(progress), expected);
        }
    }

    #[test]
    fn one_cycle_without_rise_or_fall_has_its_ends() {
        let fall = one_cycle(OneCycleRate { rise: 0.0, ..OneCycleRate::to(1.0) }).unwrap();
        assert_close(fall(0.0), 1.0);
        assert_close(fall(1.0), 1e-5);
        let rise = one_cycle(OneCycleRate { rise: 1.0, ..OneCycleRate::to(1.0) }).unwrap();
        assert_close(rise(0.0), 0.04);
        assert_close(rise(0.5), 0.52);
        assert_close(rise(1.0), 1e-5);
    }

    #[test]
    fn ends_are_exact_and_hold_outside() {
        for rate in [Box::new(linear(0.3, 0.1)) as Box<dyn Fn(f64) -> f64>, Box::new(cosine(0.3, 0.1))] {
            assert_eq!((rate(0.0), rate(-1.0)), (0.3, 0.3));
            assert_eq!((rate(1.0), rate(2.0)), (0.1, 0.1));
            assert_close(rate(0.5), 0.2);
        }
        assert_eq!(constant(0.1)(0.7), 0.1);
    }

    #[test]
    fn the_rate_falls_at_each_milestone() {
        let rate = step(1.0, 0.5, [0.75, 0.5]).unwrap();
        for (progress, expected) in [(0.0, 1.0), (0.4999, 1.0), (0.5, 0.5), (0.75, 0.25), (1.0, 0.25)] {
            assert_eq!(rate(progress), expected, "at {progress}");
        }
    }

    #[test]
    fn warm_up_scales_what_comes_after() {
        let rate = linear_warm_up(0.2, cosine(1.0, 0.0)).unwrap();
        assert_eq!(rate(0.0), 0.0);
        assert_close(rate(0.1), 0.5 * cosine(1.0, 0.0)(0.1));
        assert_eq!(rate(0.2), cosine(1.0, 0.0)(0.2));
        let none = linear_warm_up(0.0, constant(0.1)).unwrap();
        assert_eq!(none(0.0), 0.1);
    }

    #[test]
    fn numbers_out_of_range_are_errors() {
        assert!(one_cycle(OneCycleRate::to(f64::NAN)).is_err());
        assert!(one_cycle(OneCycleRate { div: 0.0, ..OneCycleRate::to(0.1) }).is_err());
        assert!(one_cycle(OneCycleRate { rise: 1.5, ..OneCycleRate::to(0.1) }).is_err());
        assert!(one_cycle_momentum(1.0, 0.85, 0.25).is_err());
        assert!(step(-0.1, 0.1, [0.5]).is_err());
        assert!(step(0.1, f64::INFINITY, [0.5]).is_err());
        let error = step(0.1, 0.1, [30.0]).err().unwrap();
        let expected = "milestone of a step schedule is 30, expected a fraction of the training in [0, 1]";
        assert_eq!(error.to_string(), expected);
        assert!(linear_warm_up(f64::NAN, constant(0.1)).is_err());
    }
}
