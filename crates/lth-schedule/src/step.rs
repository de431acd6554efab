use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// A point in training: whole epochs, then iterations (batches) into the next one.
///
/// Written `2ep`, `40it` or `2ep40it`, in files too. Two steps compare only once the length of an epoch is known, by
/// [`Step::iterations`]; there is no `Ord`. `==` compares the two fields, so `0ep100it` and `1ep` differ even where an
/// epoch has 100 iterations.
///
/// ```
/// use lth_schedule::Step;
///
/// let step: Step = "1ep40it".parse()?;
/// assert_eq!(step, Step { epoch: 1, iteration: 40 });
/// assert_eq!(step.iterations(92), 132);
/// assert_eq!(Step::from_iterations(132, 92)?, step);
/// # Ok::<(), lth_schedule::Error>(())
/// ```
/// Source: the spelling is open_lth's (`Step`, `str_to_step`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Step {
    /// Epochs that are over.
    pub epoch: u32,
    /// Iterations after those epochs.
    pub iteration: u32,
}

impl Step {
    /// Before the first batch.
    pub const START: Step = Step { epoch: 0, iteration: 0 };

    /// The start of epoch `epoch` (the first is 0).
    pub fn epoch(epoch: u32) -> Step {
        Step { epoch, iteration: 0 }
    }

    /// Iterations from the start of training.
    pub fn iterations(self, iterations_per_epoch: u32) -> u64 {
        // At most (2^32 - 1)^2 + 2^32 - 1 < 2^64: no overflow.
        u64::from(self.epoch) * u64::from(iterations_per_epoch) + u64::from(self.iteration)
    }

    /// The step after `iterations` iterations from the start, its `iteration` below `iterations_per_epoch`.
    ///
    /// # Errors
    /// if an epoch has no iterations or the epoch does not fit in 32 bits.
    pub fn from_iterations(iterations: u64, iterations_per_epoch: u32) -> Result<Step, Error> {
        let per_epoch = u64::from(iterations_per_epoch);
        let whole = iterations.checked_div(per_epoch).ok_or_else(|| Error::Parameter {
            parameter: "iterations per epoch",
            got: "0".to_owned(),
            expected: "at least 1",
        })?;
        let epoch = u32::try_from(whole).map_err(|_| Error::Parameter {
            parameter: "epoch of a step",
            got: whole.to_string(),
            expected: "at most 4294967295",
        })?;
        // The remainder is below `iterations_per_epoch`, a u32.
        Ok(Step { epoch, iteration: (iterations % per_epoch) as u32 })
    }

    /// Which part of a training of `length` lies before this step, in [0, 1], where both are in epochs or both in iterations.
    ///
    /// # Errors
    /// if they are not, or the step lies after the end: how many iterations an epoch has is not known here.
    pub(crate) fn part_of(self, length: Step) -> Result<f64, Error> {
        let (here, whole) = match (self, length) {
            (Step { epoch: 0, iteration }, Step { epoch: 0, iteration: whole }) => (iteration, whole),
            (Step { epoch, iteration: 0 }, Step { epoch: whole, iteration: 0 }) => (epoch, whole),
            _ => (1, 0),
        };
        if here > whole {
            return Err(Error::Parameter {
                parameter: "moment of a learning rate",
                got: format!("{self} in a training of {length}"),
                expected: "one before its end, both in epochs or both in iterations, or a fraction",
            });
        }
        Ok(f64::from(here) / f64::from(whole.max(1)))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.epoch, self.iteration) {
            (epoch, 0) => write!(f, "{epoch}ep"),
            (0, iteration) => write!(f, "{iteration}it"),
            (epoch, iteration) => write!(f, "{epoch}ep{iteration}it"),
        }
    }
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unreadable = || Error::Spelling {
            what: "step",
            got: text.to_owned(),
            expected: "epochs and iterations such as 2ep, 40it or 2ep40it",
        };
        let number = |digits: &str| {
            // `parse` alone would take a sign.
            if digits.starts_with('+') { Err(unreadable()) } else { digits.parse::<u32>().map_err(|_| unreadable()) }
        };
        let trimmed = text.trim();
        let (epoch, rest) = match trimmed.split_once("ep") {
            Some((epoch, rest)) => (number(epoch)?, rest),
            None if trimmed.is_empty() => return Err(unreadable()),
            None => (0, trimmed),
        };
        let iteration = match rest {
            "" => 0,
            rest => number(rest.strip_suffix("it").ok_or_else(unreadable)?)?,
        };
        Ok(Step { epoch, iteration })
    }
}

impl TryFrom<String> for Step {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Step> for String {
    fn from(step: Step) -> String {
        step.to_string()
    }
}

/// How long a training is: epochs and iterations (batches) per epoch, both at least 1; the last epoch need not be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrainingLength {
    epochs: u32,
    iterations_per_epoch: u32,
    iterations: u64,
}

impl TrainingLength {
    /// A length of `epochs` × `iterations_per_epoch`.
    ///
    /// # Errors
    /// if either is 0.
    pub fn new(epochs: u32, iterations_per_epoch: u32) -> Result<Self, Error> {
        let parameter = match (epochs, iterations_per_epoch) {
            (0, _) => "epochs",
            (_, 0) => "iterations per epoch",
            _ => {
                let iterations = u64::from(epochs) * u64::from(iterations_per_epoch);
                return Ok(TrainingLength { epochs, iterations_per_epoch, iterations });
            }
        };
        Err(Error::Parameter { parameter, got: "0".to_owned(), expected: "at least 1" })
    }

    /// The length of a training that ends at `end`, which may lie inside an epoch.
    ///
    /// # Errors
    /// If it ends where it starts, or an epoch has no iterations, or its epochs do not fit in 32 bits.
    pub fn until(end: Step, iterations_per_epoch: u32) -> Result<Self, Error> {
        let iterations = end.iterations(iterations_per_epoch);
        let last = Step::from_iterations(iterations.saturating_sub(1), iterations_per_epoch)?;
        let epochs = if iterations == 0 { 0 } else { last.epoch.saturating_add(1) };
        Ok(TrainingLength { iterations, ..TrainingLength::new(epochs, iterations_per_epoch)? })
    }

    /// Number of epochs; one that the training does not come to the end of counts.
    pub fn epochs(self) -> u32 {
        self.epochs
    }

    /// Number of iterations in an epoch.
    pub fn iterations_per_epoch(self) -> u32 {
        self.iterations_per_epoch
    }

    /// Number of iterations in all.
    pub fn iterations(self) -> u64 {
        self.iterations
    }
}

impl fmt::Display for TrainingLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_epoch = self.iterations_per_epoch;
        match self.iterations % u64::from(per_epoch) {
            0 => write!(f, "{} epochs of {per_epoch} iterations", self.epochs),
            rest => write!(f, "{} epochs of {per_epoch} iterations and {rest} more", self.epochs - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_returns_to_the_same_step() {
        for (text, step) in [
            ("0ep", Step::START),
            ("3ep", Step::epoch(3)),
            ("40it", Step { epoch: 0, iteration: 40 }),
            ("3ep40it", Step { epoch: 3, iteration: 40 }),
            ("4294967295ep4294967295it", Step { epoch: u32::MAX, iteration: u32::MAX }),
        ] {
            assert_eq!(text.parse::<Step>().unwrap(), step);
            assert_eq!(step.to_string(), text);
            assert_eq!(serde_json::from_str::<Step>(&format!("\"{text}\"")).unwrap(), step);
        }
        for bad in ["", "ep", "it", "3", "3ep40", "3it2ep", "-1ep", "+1ep", "1.5ep", "4294967296it", "1epep"] {
            assert!(bad.parse::<Step>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_largest_step_does_not_overflow() {
        let step = Step { epoch: u32::MAX, iteration: u32::MAX };
        assert_eq!(step.iterations(u32::MAX), u64::from(u32::MAX) * u64::from(u32::MAX) + u64::from(u32::MAX));
    }

    #[test]
    fn an_epoch_without_iterations_is_an_error() {
        assert!(Step::from_iterations(5, 0).is_err());
        assert!(Step::from_iterations(u64::MAX, 1).is_err());
        assert_eq!(TrainingLength::new(0, 5).unwrap_err().to_string(), "epochs is 0, expected at least 1");
        assert!(TrainingLength::new(5, 0).is_err());
        assert_eq!(TrainingLength::new(4, 92).unwrap().iterations(), 368);
        assert!(TrainingLength::until(Step::START, 5).is_err());
        assert!(TrainingLength::until(Step::epoch(3), 0).is_err());
    }

    #[test]
    fn a_length_may_end_inside_an_epoch() {
        let length = TrainingLength::until(Step { epoch: 0, iteration: 50_000 }, 917).unwrap();
        assert_eq!((length.epochs(), length.iterations()), (55, 50_000));
        assert_eq!(length.to_string(), "54 epochs of 917 iterations and 482 more");
        assert_eq!(TrainingLength::until(Step::epoch(4), 92).unwrap(), TrainingLength::new(4, 92).unwrap());
    }
}
