//! A learning-rate schedule as a value that can be stored and spelled.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::learning_rate::{
    OneCycleRate, constant, cosine, linear, linear_warm_up, one_cycle, one_cycle_momentum, step,
};
use crate::{Error, Moment, Step, TrainingLength};

/// A learning rate over a training as it is written down: a shape, and the part of the training over which it warms up.
///
/// Written `constant(0.001)`, `linear(0.1, 0.01)`, `cosine(0.1, 0)`, `one_cycle(0.01)`, `step(0.1, 0.1, 80ep, 120ep)`, and
/// with a warm-up `cosine(0.1, 0) warm_up(5ep)`, in files too. Moments are steps or fractions; bound to the length of a
/// training by [`LearningRate::plan`] it gives the rate at every point, as
/// [`SparsitySchedule::plan`](crate::SparsitySchedule::plan) does for sparsity.
///
/// ```
/// use lth_schedule::{LearningRate, Step, TrainingLength};
///
/// let rate: LearningRate = "step(0.1, 0.1, 80ep, 120ep) warm_up(1ep)".parse()?;
/// let plan = rate.plan(TrainingLength::new(160, 391)?)?;
/// assert!((plan.rate(0.5 / 160.0) - 0.05).abs() < 1e-12);
/// assert_eq!((plan.rate(79.0 / 160.0), plan.momentum(0.5)), (0.1, None));
/// assert!((plan.rate(0.5) - 0.01).abs() < 1e-12);
/// # Ok::<(), lth_schedule::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LearningRate {
    /// How it goes.
    pub shape: RateShape,
    /// Until when the rate is scaled up from 0 in a straight line; the start of the training for none.
    pub warm_up: Moment,
}

/// How a learning rate goes over a training.
#[derive(Clone, Debug, PartialEq)]
pub enum RateShape {
    /// The same throughout.
    Constant(f64),
    /// [`linear`]: a straight line.
    Linear {
        /// The first rate.
        start: f64,
        /// The last.
        end: f64,
    },
    /// [`cosine`]: half a wave.
    Cosine {
        /// The first rate.
        start: f64,
        /// The last.
        end: f64,
    },
    /// [`one_cycle`], and a momentum from 0.95 to 0.85 and back, fastai's.
    OneCycle(OneCycleRate),
    /// [`step`]: multiplied with `factor` at each milestone.
    Step {
        /// The first rate.
        rate: f64,
        /// What it is multiplied with.
        factor: f64,
        /// When.
        milestones: Vec<Moment>,
    },
}

impl LearningRate {
    /// Every spelling in one line, for the help of a command line.
    pub const SPELLINGS: &str = "constant(rate), linear(start, end), cosine(start, end), one_cycle(max), \
                                 one_cycle(max, div, div_final, rise), step(rate, factor, moment, …), each of them also \
                                 with warm_up(moment) behind it";

    /// `shape` without a warm-up.
    pub fn new(shape: RateShape) -> Self {
        Self { shape, warm_up: Moment::START }
    }

    /// The same rate throughout.
    pub fn constant(rate: f64) -> Self {
        Self::new(RateShape::Constant(rate))
    }

    /// The same, scaled up from 0 until `moment`.
    #[must_use]
    pub fn with_warm_up(mut self, moment: Moment) -> Self {
        self.warm_up = moment;
        self
    }

    /// The same with every moment as a fraction of a training of this length, so that it stretches with another: a milestone
    /// at 80 of 160 epochs becomes one at a half.
    ///
    /// ```
    /// use lth_schedule::{LearningRate, Step};
    ///
    /// let rate: LearningRate = "step(0.1, 0.1, 80ep, 0.75) warm_up(1ep)".parse()?;
    /// assert_eq!(rate.relative_to(Step::epoch(160))?.to_string(), "step(0.1, 0.1, 0.5, 0.75) warm_up(0.00625)");
    /// # Ok::<(), lth_schedule::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] for a moment in epochs where the length is in iterations, or the other way round: how long an
    /// epoch is is not known here. [`Error::Parameter`] also for a moment after the end.
    pub fn relative_to(&self, length: Step) -> Result<Self, Error> {
        let relative = |moment: &Moment| match *moment {
            Moment::Fraction(_) => Ok(*moment),
            Moment::Step(step) => step.part_of(length).map(Moment::Fraction),
        };
        let shape = match &self.shape {
            RateShape::Step { rate, factor, milestones } => RateShape::Step {
                rate: *rate,
                factor: *factor,
                milestones: milestones.iter().map(relative).collect::<Result<_, _>>()?,
            },
            other => other.clone(),
        };
        Ok(Self { shape, warm_up: relative(&self.warm_up)? })
    }

    /// The schedule for a training of a known length.
    ///
    /// # Errors
    /// If a number is out of its range, or a milestone or the warm-up lies after the end.
    pub fn plan(&self, length: TrainingLength) -> Result<RatePlan, Error> {
        let fraction = |moment: &Moment| Ok::<_, Error>(moment.iterations(length)? / length.iterations() as f64);
        let plan = match &self.shape {
            RateShape::Constant(rate) => RatePlan::of(constant(check(*rate)?)),
            RateShape::Linear { start, end } => RatePlan::of(linear(check(*start)?, check(*end)?)),
            RateShape::Cosine { start, end } => RatePlan::of(cosine(check(*start)?, check(*end)?)),
            RateShape::OneCycle(cycle) => {
                let momentum: Curve = Box::new(one_cycle_momentum(0.95, 0.85, cycle.rise)?);
                RatePlan { rate: Box::new(one_cycle(*cycle)?), momentum: Some(momentum) }
            }
            RateShape::Step { rate, factor, milestones } => {
                let milestones: Vec<f64> = milestones.iter().map(fraction).collect::<Result<_, _>>()?;
                RatePlan::of(step(*rate, *factor, milestones)?)
            }
        };
        match fraction(&self.warm_up)? {
            0.0 => Ok(plan),
            warm_up => Ok(RatePlan { rate: Box::new(linear_warm_up(warm_up, plan.rate)?), ..plan }),
        }
    }
}

fn check(rate: f64) -> Result<f64, Error> {
    if rate >= 0.0 && rate.is_finite() {
        return Ok(rate);
    }
    let (parameter, expected) = ("learning rate", "a finite number, at least 0");
    Err(Error::Parameter { parameter, got: rate.to_string(), expected })
}

type Curve = Box<dyn Fn(f64) -> f64 + Send + Sync>;

/// A [`LearningRate`] bound to the length of a training.
pub struct RatePlan {
    rate: Curve,
    momentum: Option<Curve>,
}

impl RatePlan {
    fn of(rate: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Self {
        Self { rate: Box::new(rate), momentum: None }
    }

    /// The rate at a progress in [0, 1]; beyond it the nearer end counts.
    pub fn rate(&self, progress: f64) -> f64 {
        (self.rate)(progress)
    }

    /// The momentum that goes with it; `None` where it is the optimiser's own, which is so throughout or never.
    pub fn momentum(&self, progress: f64) -> Option<f64> {
        self.momentum.as_ref().map(|momentum| momentum(progress))
    }

    /// The momentum as a function, for a trainer that takes one.
    pub fn momentum_curve(&self) -> Option<&dyn Fn(f64) -> f64> {
        self.momentum.as_deref().map(|momentum| momentum as &dyn Fn(f64) -> f64)
    }
}

impl fmt::Debug for RatePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RatePlan").field("has_momentum", &self.momentum.is_some()).finish_non_exhaustive()
    }
}

/// The spelling that [`FromStr`] reads; numbers are written so that they read back equal.
impl fmt::Display for LearningRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shape {
            RateShape::Constant(rate) => write!(f, "constant({rate})")?,
            RateShape::Linear { start, end } => write!(f, "linear({start}, {end})")?,
            RateShape::Cosine { start, end } => write!(f, "cosine({start}, {end})")?,
            RateShape::OneCycle(cycle) if *cycle == OneCycleRate::to(cycle.max) => {
                write!(f, "one_cycle({})", cycle.max)?;
            }
            RateShape::OneCycle(OneCycleRate { max, div, div_final, rise }) => {
                write!(f, "one_cycle({max}, {div}, {div_final}, {rise})")?;
            }
            RateShape::Step { rate, factor, milestones } => {
                write!(f, "step({rate}, {factor}")?;
                milestones.iter().try_for_each(|moment| write!(f, ", {moment}"))?;
                f.write_str(")")?;
            }
        }
        if self.warm_up == Moment::START { Ok(()) } else { write!(f, " warm_up({})", self.warm_up) }
    }
}

impl FromStr for LearningRate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unreadable =
            || Error::Spelling { what: "learning rate", got: text.to_owned(), expected: LearningRate::SPELLINGS };
        let call = |text: &'_ str| -> Result<(String, Vec<String>), Error> {
            let (name, rest) = text.trim().split_once('(').ok_or_else(unreadable)?;
            let inside = rest.strip_suffix(')').filter(|inside| !inside.contains(')')).ok_or_else(unreadable)?;
            Ok((name.trim().to_owned(), inside.split(',').map(|argument| argument.trim().to_owned()).collect()))
        };
        let (shape, warm_up) = match text.trim().split_once(')') {
            Some((shape, rest)) if !rest.trim().is_empty() => (format!("{shape})"), Some(rest)),
            _ => (text.trim().to_owned(), None),
        };
        let number = |argument: &String| argument.parse::<f64>().map_err(|_| unreadable());
        let (name, arguments) = call(&shape)?;
        let shape = match (name.as_str(), arguments.as_slice()) {
            ("constant", [rate]) => RateShape::Constant(number(rate)?),
            ("linear", [start, end]) => RateShape::Linear { start: number(start)?, end: number(end)? },
            ("cosine", [start, end]) => RateShape::Cosine { start: number(start)?, end: number(end)? },
            ("one_cycle", [max]) => RateShape::OneCycle(OneCycleRate::to(number(max)?)),
            ("one_cycle", [max, div, div_final, rise]) => RateShape::OneCycle(OneCycleRate {
                max: number(max)?,
                div: number(div)?,
                div_final: number(div_final)?,
                rise: number(rise)?,
            }),
            ("step", [rate, factor, milestones @ ..]) => RateShape::Step {
                rate: number(rate)?,
                factor: number(factor)?,
                milestones: milestones.iter().map(|moment| moment.parse()).collect::<Result<_, _>>()?,
            },
            _ => return Err(unreadable()),
        };
        let warm_up = match warm_up.map(call).transpose()? {
            None => Moment::START,
            Some((name, arguments)) => match (name.as_str(), arguments.as_slice()) {
                ("warm_up", [moment]) => moment.parse()?,
                _ => return Err(unreadable()),
            },
        };
        let rate = Self { shape, warm_up };
        // Whatever the length, its numbers must be in range: so long a training has no moment after its end.
        rate.plan(TrainingLength::new(u32::MAX, u32::MAX)?)?;
        Ok(rate)
    }
}

impl TryFrom<String> for LearningRate {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<LearningRate> for String {
    fn from(rate: LearningRate) -> Self {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_returns_to_the_same_rate() {
        for text in [
            "constant(0.001)",
            "linear(0.1, 0.01)",
            "cosine(0.1, 0)",
            "one_cycle(0.01)",
            "one_cycle(0.01, 10, 100, 0.3)",
            "step(0.1, 0.1)",
            "step(0.1, 0.1, 80ep, 0.75)",
            "step(0.03, 0.1, 20000it, 25000it) warm_up(20000it)",
            "constant(0.001) warm_up(0.05)",
        ] {
            let rate: LearningRate = text.parse().unwrap();
            assert_eq!(rate.to_string(), text);
            let json = serde_json::to_string(&rate).unwrap();
            assert_eq!(serde_json::from_str::<LearningRate>(&json).unwrap(), rate);
        }
        assert_eq!(
            " cosine( 0.1,0 )  warm_up( 5% ) ".parse::<LearningRate>().unwrap().to_string(),
            "cosine(0.1, 0) warm_up(0.05)"
        );
    }

    #[test]
    fn text_that_is_no_rate_is_an_error_that_lists_them() {
        for bad in
            ["", "0.1", "constant()", "constant(x)", "linear(1)", "warm_up(1ep)", "constant(1) warm(1ep)", "step(1)"]
        {
            let message = bad.parse::<LearningRate>().unwrap_err().to_string();
            assert!(message.contains("is no learning rate, expected constant(rate), linear(start, end)"), "{message}");
        }
        for bad in ["constant(-1)", "constant(NaN)", "step(0.1, -1)", "one_cycle(0.1, 0, 1, 1)", "step(1, 1, 2.0)"] {
            assert!(bad.parse::<LearningRate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn milestones_hold_from_their_very_iteration_on() {
        let rate: LearningRate = "step(1, 0.5, 3ep7it, 0.5) warm_up(1ep)".parse().unwrap();
        let length = TrainingLength::new(12, 13).unwrap();
        let plan = rate.plan(length).unwrap();
        for iteration in 0..156 {
            let expected: f64 = match iteration {
                0..13 => f64::from(iteration) / 13.0,
                13..46 => 1.0,
                46..78 => 0.5,
                _ => 0.25,
            };
            let got = plan.rate(f64::from(iteration) / 156.0);
            assert!((got - expected).abs() < 1e-12, "at {iteration}: {got}, expected {expected}");
        }
        let late = LearningRate::constant(0.1).with_warm_up(Moment::Step(Step::epoch(13)));
        assert!(late.plan(length).is_err());
    }

    #[test]
    fn a_relative_rate_stretches_with_the_training() {
        let rate: LearningRate = "step(1, 0.1, 350it, 450it) warm_up(50it)".parse().unwrap();
        let it = |iteration| Step { epoch: 0, iteration };
        let relative = rate.relative_to(it(500)).unwrap();
        let at = |rate: &LearningRate, n: u32| {
            let plan = rate.plan(TrainingLength::new(1, n).unwrap()).unwrap();
            (0..n).step_by(n as usize / 100).map(|i| plan.rate(f64::from(i) / f64::from(n))).collect::<Vec<_>>()
        };
        let (short, long) = (at(&rate, 500), at(&relative, 2000));
        assert!(short.iter().zip(&long).all(|(one, other)| (one - other).abs() < 1e-9), "{short:?} {long:?}");
        for (rate, length) in [("step(1, 0.1, 3ep)", it(500)), ("constant(1) warm_up(9it)", Step::epoch(2))] {
            let error = rate.parse::<LearningRate>().unwrap().relative_to(length).unwrap_err().to_string();
            assert!(error.contains(&length.to_string()), "{error}");
        }
        assert!("step(1, 0.1, 501it)".parse::<LearningRate>().unwrap().relative_to(it(500)).is_err());
    }

    #[test]
    fn one_cycle_alone_moves_the_momentum() {
        let length = TrainingLength::new(4, 10).unwrap();
        let plan = "one_cycle(0.01)".parse::<LearningRate>().unwrap().plan(length).unwrap();
        assert_eq!((plan.momentum(0.0), plan.momentum(0.25)), (Some(0.95), Some(0.85)));
        assert_eq!(plan.rate(0.25), one_cycle(OneCycleRate::to(0.01)).unwrap()(0.25));
        assert!(LearningRate::constant(0.1).plan(length).unwrap().momentum_curve().is_none());
    }
}
