//! Numbers read off a curve: where training would have stopped, and how high the error rises between two runs.

use serde::{Deserialize, Serialize};

use super::{finite, invalid};
use crate::Error;

/// Where a validation curve is lowest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyStop {
    /// The step of the least loss; the earliest one of several.
    pub step: u64,
    /// The loss there.
    pub loss: f64,
}

/// The step of least validation loss over (step, loss) pairs in any order.
///
/// # Errors
/// If there are no pairs or a loss is not finite.
///
/// Source: Frankle & Carbin 2019, §2: "the iteration of minimum validation loss".
pub fn early_stop(losses: &[(u64, f64)]) -> Result<EarlyStop, Error> {
    for (step, loss) in losses {
        finite(&format!("validation loss at step {step}"), *loss)?;
    }
    let least = losses.iter().reduce(|best, point| {
        let is_better = point.1 < best.1 || point.1 == best.1 && point.0 < best.0;
        if is_better { point } else { best }
    });
    let (step, loss) = least.ok_or_else(|| invalid("validation curve", "has no points, expected at least one"))?;
    Ok(EarlyStop { step: *step, loss: *loss })
}

/// Networks are called stable where their instability is below this.
///
/// Source: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", §3.
pub const STABLE: f64 = 0.02;

/// How high the error rises on the straight path between two networks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instability {
    /// Highest error on the path minus the mean of the ends, 0 or more. Below [`STABLE`] the paper calls the runs stable.
    pub instability: f64,
    /// Highest error on the path, ends included.
    pub highest: f64,
    /// Where it is: 0 is the first network, 1 the second.
    pub at: f64,
    /// Mean error of the two ends.
    pub ends: f64,
}

/// Linear interpolation instability from (place, error) pairs along the path, from place 0 to place 1.
///
/// Errors are fractions in [0, 1]; of equally high ones the first counts.
///
/// # Errors
/// If the places do not rise from 0 to 1 or an error is not in [0, 1].
///
/// Source: Frankle, Dziugaite, Roy & Carbin 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", §2.
pub fn instability(path: &[(f64, f64)]) -> Result<Instability, Error> {
    let (Some((start, first)), Some((end, last))) = (path.first(), path.last()) else {
        return Err(invalid("path", "has no points, expected one at place 0 and one at place 1"));
    };
    if *start != 0.0 || *end != 1.0 {
        return Err(invalid("path", format!("goes from place {start} to {end}, expected 0 to 1")));
    }
    if let Some(pair) = path.windows(2).find(|pair| pair[0].0.partial_cmp(&pair[1].0) != Some(std::cmp::Ordering::Less))
    {
        return Err(invalid(
            "path",
            format!("place {} is followed by {}, expected a higher one", pair[0].0, pair[1].0),
        ));
    }
    if let Some((place, error)) = path.iter().find(|(_, error)| !(0.0..=1.0).contains(error)) {
        return Err(invalid(format!("error at place {place}"), format!("is {error}, expected a number in [0, 1]")));
    }
    let ends = (first + last) / 2.0;
    let (mut at, mut highest) = (*start, *first);
    for (place, error) in path {
        if *error > highest {
            (at, highest) = (*place, *error);
        }
    }
    Ok(Instability { instability: highest - ends, highest, at, ends })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_of_equal_losses_is_taken() -> Result<(), Error> {
        let stop = early_stop(&[(300, 0.5), (100, 0.9), (200, 0.5), (400, 0.7)])?;
        assert_eq!(stop, EarlyStop { step: 200, loss: 0.5 });
        Ok(())
    }

    #[test]
    fn a_curve_with_a_hole_is_refused() {
        let error = early_stop(&[(100, 0.5), (200, f64::NAN)]).unwrap_err().to_string();
        assert_eq!(error, "validation loss at step 200: is NaN, expected a finite number");
        assert!(early_stop(&[]).is_err());
    }

    #[test]
    fn instability_is_the_highest_error_above_the_ends_mean() -> Result<(), Error> {
        let hill = instability(&[(0.0, 0.10), (0.25, 0.3), (0.5, 0.5), (0.75, 0.5), (1.0, 0.2)])?;
        assert!((hill.instability - 0.35).abs() < 1e-15);
        assert_eq!((hill.highest, hill.at), (0.5, 0.5));
        // A path that never rises above its ends: the worse end is half their distance above the mean.
        let valley = instability(&[(0.0, 0.2), (0.5, 0.05), (1.0, 0.1)])?;
        assert!((valley.instability - 0.05).abs() < 1e-15);
        Ok(())
    }

    #[test]
    fn a_path_without_its_ends_is_refused() {
        for (path, named) in [
            (vec![], "has no points"),
            (vec![(0.0, 0.1), (0.5, 0.1)], "goes from place 0 to 0.5"),
            (vec![(0.0, 0.1), (0.7, 0.1), (0.3, 0.1), (1.0, 0.1)], "place 0.7 is followed by 0.3"),
            (vec![(0.0, 0.1), (f64::NAN, 0.1), (1.0, 0.1)], "place 0 is followed by NaN"),
            (vec![(0.0, 0.1), (1.0, f64::NAN)], "error at place 1: is NaN"),
            (vec![(0.0, 1.5), (1.0, 0.1)], "error at place 0: is 1.5"),
        ] {
            let error = instability(&path).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
