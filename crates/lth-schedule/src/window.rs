use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Step, TrainingLength};

/// A point in training, as a person gives it: a fraction of the whole, or epochs and iterations.
///
/// Written `20%` (or `0.2`), `2ep`, `40it`, `2ep40it`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Moment {
    /// Part of the whole training, in [0, 1].
    Fraction(f64),
    /// Epochs and iterations from the start.
    Step(Step),
}

impl Moment {
    /// Before the first batch.
    pub const START: Moment = Moment::Fraction(0.0);
    /// After the last batch.
    pub const END: Moment = Moment::Fraction(1.0);

    /// The start of epoch `epoch` (the first is 0).
    pub fn epoch(epoch: u32) -> Moment {
        Moment::Step(Step::epoch(epoch))
    }

    /// Iterations from the start of a training of this length; not whole where a fraction is not.
    ///
    /// # Errors
    /// if the fraction is outside [0, 1] or the moment lies after the end.
    pub fn iterations(self, length: TrainingLength) -> Result<f64, Error> {
        // Exact below 2^53 iterations.
        let total = length.iterations() as f64;
        let iterations = match self {
            Moment::Fraction(fraction) => check_fraction(fraction)? * total,
            Moment::Step(step) => step.iterations(length.iterations_per_epoch()) as f64,
        };
        if iterations > total {
            return Err(Error::AfterEnd { moment: self, length });
        }
        Ok(iterations)
    }
}

fn check_fraction(fraction: f64) -> Result<f64, Error> {
    if (0.0..=1.0).contains(&fraction) {
        return Ok(fraction);
    }
    Err(Error::Parameter {
        parameter: "fraction of the training",
        got: fraction.to_string(),
        expected: "a number in [0, 1]",
    })
}

impl From<Step> for Moment {
    fn from(step: Step) -> Moment {
        Moment::Step(step)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // As a fraction, not in percent: 0.07 · 100 is not 7, and the text must return to the same number.
            Moment::Fraction(fraction) => write!(f, "{fraction}"),
            Moment::Step(step) => write!(f, "{step}"),
        }
    }
}

impl FromStr for Moment {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unreadable = || Error::Spelling {
            what: "moment of the training",
            got: text.to_owned(),
            expected: "a fraction such as 0.2 or 20%, or a step such as 2ep, 40it or 2ep40it",
        };
        let trimmed = text.trim();
        if let Some(percent) = trimmed.strip_suffix('%') {
            let percent: f64 = percent.trim_end().parse().map_err(|_| unreadable())?;
            return Ok(Moment::Fraction(check_fraction(percent / 100.0)?));
        }
        if let Ok(fraction) = trimmed.parse::<f64>() {
            return Ok(Moment::Fraction(check_fraction(fraction)?));
        }
        Ok(Moment::Step(trimmed.parse().map_err(|_| unreadable())?))
    }
}

impl TryFrom<String> for Moment {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> String {
        moment.to_string()
    }
}

/// The part of a training over which a schedule runs, as a person gives it: written `0.2..1`, `1ep..end`, `40it..4ep`.
///
/// What can be checked without knowing the length of the training is checked here, the rest by [`Window::resolve`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    start: Moment,
    end: Moment,
}

impl Window {
    /// The whole training.
    pub const ALL: Window = Window { start: Moment::START, end: Moment::END };

    /// From `start` to `end`.
    ///
    /// # Errors
    /// if a fraction is outside [0, 1], or start and end are both fractions and the end is not after the start.
    pub fn new(start: Moment, end: Moment) -> Result<Window, Error> {
        for moment in [start, end] {
            if let Moment::Fraction(fraction) = moment {
                check_fraction(fraction)?;
            }
        }
        match (start, end) {
            (Moment::Fraction(a), Moment::Fraction(b)) if a >= b => Err(Error::EmptyWindow { start, end }),
            _ => Ok(Window { start, end }),
        }
    }

    /// From `start` to the end of the training.
    ///
    /// # Errors
    /// if `start` is a fraction outside [0, 1).
    pub fn starting_at(start: Moment) -> Result<Window, Error> {
        Window::new(start, Moment::END)
    }

    /// Where it starts.
    pub fn start(self) -> Moment {
        self.start
    }

    /// Where it ends.
    pub fn end(self) -> Moment {
        self.end
    }

    /// The window in iterations of a training of this length.
    ///
    /// # Errors
    /// if it is empty there or reaches past the end.
    pub fn resolve(self, length: TrainingLength) -> Result<Span, Error> {
        let (start, end) = (self.start.iterations(length)?, self.end.iterations(length)?);
        if start >= end {
            return Err(Error::EmptyWindow { start: self.start, end: self.end });
        }
        Ok(Span { start, end })
    }
}

impl Default for Window {
    fn default() -> Self {
        Window::ALL
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl FromStr for Window {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (start, end) = text.split_once("..").ok_or_else(|| Error::Spelling {
            what: "window",
            got: text.to_owned(),
            expected: "two moments such as 0.2..1, 1ep..end or 40it..4ep",
        })?;
        let start = match start.trim() {
            "" | "start" => Moment::START,
            moment => moment.parse()?,
        };
        let end = match end.trim() {
            "" | "end" => Moment::END,
            moment => moment.parse()?,
        };
        Window::new(start, end)
    }
}

impl TryFrom<String> for Window {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}

/// A checked, non-empty stretch of training: two numbers of one unit, and the position of a third between them.
///
/// The unit is iterations when it comes from [`Window::resolve`]; [`Span::fractions`] makes one in fractions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    start: f64,
    end: f64,
}

impl Span {
    /// A span in fractions of the training.
    ///
    /// # Errors
    /// unless 0 ≤ `start` < `end` ≤ 1.
    pub fn fractions(start: f64, end: f64) -> Result<Span, Error> {
        Window::new(Moment::Fraction(start), Moment::Fraction(end))?;
        Ok(Span { start, end })
    }

    /// Where it starts.
    pub fn start(self) -> f64 {
        self.start
    }

    /// Where it ends.
    pub fn end(self) -> f64 {
        self.end
    }

    /// How far `at` is into the span: (at − start) / (end − start), 1 after the end; `None` before the start, where a
    /// schedule has not begun. NaN counts as before.
    pub fn position(self, at: f64) -> Option<f64> {
        if at >= self.end {
            Some(1.0)
        } else if at >= self.start {
            Some((at - self.start) / (self.end - self.start))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length() -> TrainingLength {
        TrainingLength::new(4, 92).unwrap()
    }

    #[test]
    fn fractions_epochs_and_steps_give_the_same_span() {
        let spans = ["0.25..1", "25%..100%", "1ep..4ep", "92it..368it", "1ep..end", "0ep92it.."]
            .map(|text| text.parse::<Window>().unwrap().resolve(length()).unwrap());
        for span in spans {
            assert_eq!(span, Span { start: 92.0, end: 368.0 });
        }
    }

    #[test]
    fn every_spelling_returns_to_the_same_window() {
        for window in [
            Window::ALL,
            Window::new(Moment::Fraction(0.07), Moment::Fraction(1.0 / 3.0)).unwrap(),
            Window::new(Moment::epoch(1), Moment::END).unwrap(),
            Window::new(Step { epoch: 1, iteration: 40 }.into(), Moment::epoch(3)).unwrap(),
        ] {
            assert_eq!(window.to_string().parse::<Window>().unwrap(), window, "{window}");
            let json = serde_json::to_string(&window).unwrap();
            assert_eq!(serde_json::from_str::<Window>(&json).unwrap(), window, "{json}");
        }
    }

    #[test]
    fn an_empty_or_reversed_window_is_an_error() {
        let error = "0.5..0.5".parse::<Window>().unwrap_err();
        assert_eq!(error.to_string(), "window from 0.5 to 0.5 is empty, expected an end after the start");
        assert!("1..0".parse::<Window>().is_err());
        assert!("2ep..1ep".parse::<Window>().unwrap().resolve(length()).is_err());
        assert!("1ep..0.25".parse::<Window>().unwrap().resolve(length()).is_err());
    }

    #[test]
    fn a_moment_after_the_end_or_outside_the_fractions_is_an_error() {
        let error = "0..5ep".parse::<Window>().unwrap().resolve(length()).unwrap_err();
        assert_eq!(error.to_string(), "moment 5ep lies after the end of 4 epochs of 92 iterations");
        for bad in ["1.5..2", "-0.1..1", "NaN..1", "0..inf", "0.1", "a..b", "..101%"] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
        assert!(Moment::Fraction(f64::NAN).iterations(length()).is_err());
        assert!(Span::fractions(f64::NAN, 1.0).is_err());
    }

    #[test]
    fn positions_before_inside_and_after() {
        let span = Span::fractions(0.5, 1.0).unwrap();
        assert_eq!(span.position(0.49), None);
        assert_eq!(span.position(0.5), Some(0.0));
        assert_eq!(span.position(0.75), Some(0.5));
        assert_eq!(span.position(1.0), Some(1.0));
        assert_eq!(span.position(2.0), Some(1.0));
        assert_eq!(span.position(f64::NAN), None);
    }
}
