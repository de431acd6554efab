use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The part of the prunable weights that is pruned, in [0, 1].
///
/// Stored as a fraction; percent exist only where a person reads or writes them. It is never NaN, so it is `Ord`. In a
/// file it is the fraction, checked when it is read.
///
/// ```
/// use lth_schedule::Sparsity;
///
/// let sparsity = Sparsity::from_percent(80.0)?;
/// assert_eq!(sparsity.fraction(), 0.8);
/// assert_eq!(sparsity.to_string(), "80.00 %");
/// assert_eq!("80 %".parse::<Sparsity>()?, "0.8".parse()?);
/// assert!(Sparsity::new(80.0).is_err());
/// # Ok::<(), lth_schedule::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Sparsity(f64);

impl Sparsity {
    /// Nothing is pruned.
    pub const DENSE: Sparsity = Sparsity(0.0);
    /// Everything is pruned.
    pub const EMPTY: Sparsity = Sparsity(1.0);

    /// Sparsity from a fraction.
    ///
    /// # Errors
    /// if `fraction` is NaN or outside [0, 1].
    pub fn new(fraction: f64) -> Result<Self, Error> {
        if (0.0..=1.0).contains(&fraction) {
            Ok(Sparsity(fraction + 0.0)) // -0.0 becomes 0.0
        } else {
            Err(Error::Sparsity { got: fraction })
        }
    }

    /// Sparsity from percent: 80.0 is 0.8.
    ///
    /// # Errors
    /// if `percent` is NaN or outside [0, 100].
    pub fn from_percent(percent: f64) -> Result<Self, Error> {
        Sparsity::new(percent / 100.0)
    }

    /// Pruned weights over prunable weights.
    pub fn fraction(self) -> f64 {
        self.0
    }

    /// The fraction times 100, for output.
    pub fn percent(self) -> f64 {
        self.0 * 100.0
    }

    /// The part that is kept: 1 − sparsity.
    pub fn density(self) -> f64 {
        1.0 - self.0
    }

    /// The sparsity at `progress` of the way from `self` to `end`: `self` at 0, exactly `end` at 1, and never outside the
    /// two. Progress outside [0, 1] counts as the nearer end, NaN as 0.
    pub fn toward(self, end: Sparsity, progress: f64) -> Sparsity {
        if progress >= 1.0 {
            return end;
        }
        let progress = progress.max(0.0); // NaN becomes 0
        let value = self.0 + (end.0 - self.0) * progress;
        Sparsity(value.clamp(self.0.min(end.0), self.0.max(end.0)))
    }
}

impl Eq for Sparsity {}

impl PartialOrd for Sparsity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sparsity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl TryFrom<f64> for Sparsity {
    type Error = Error;

    fn try_from(fraction: f64) -> Result<Self, Error> {
        Sparsity::new(fraction)
    }
}

impl From<Sparsity> for f64 {
    fn from(sparsity: Sparsity) -> f64 {
        sparsity.0
    }
}

/// Percent with two decimals: `26.67 %`. Honours a precision, as in `{:.0}`.
impl fmt::Display for Sparsity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(2);
        write!(f, "{:.decimals$} %", self.percent())
    }
}

/// A fraction (`0.8`) or percent (`80%`, `80 %`).
impl FromStr for Sparsity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unreadable = || Error::Spelling {
            what: "sparsity",
            got: text.to_owned(),
            expected: "a fraction such as 0.8 or percent such as 80%",
        };
        let trimmed = text.trim();
        match trimmed.strip_suffix('%') {
            Some(percent) => Sparsity::from_percent(percent.trim_end().parse().map_err(|_| unreadable())?),
            None => Sparsity::new(trimmed.parse().map_err(|_| unreadable())?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_infinite_and_out_of_range_are_rejected() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e-300, 1.0 + f64::EPSILON, 50.0] {
            let error = Sparsity::new(bad).unwrap_err();
            assert_eq!(error.to_string(), format!("sparsity is {bad}, expected a fraction in [0, 1]"));
            assert!(Sparsity::from_percent(bad * 100.0).is_err());
        }
    }

    #[test]
    fn negative_zero_is_zero() {
        assert_eq!(Sparsity::new(-0.0).unwrap(), Sparsity::DENSE);
        assert_eq!(Sparsity::new(-0.0).unwrap().cmp(&Sparsity::DENSE), Ordering::Equal);
        assert_eq!(Sparsity::new(-0.0).unwrap().to_string(), "0.00 %");
    }

    #[test]
    fn text_is_read_as_fraction_or_percent() {
        for (text, fraction) in [("0.8", 0.8), ("80%", 0.8), (" 80 % ", 0.8), ("0", 0.0), ("100%", 1.0), ("1", 1.0)] {
            assert_eq!(text.parse::<Sparsity>().unwrap().fraction(), fraction, "{text}");
        }
        for bad in ["", "%", "80", "eighty", "0.8%%", "NaN", "inf", "101 %", "-1%"] {
            assert!(bad.parse::<Sparsity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_holds_the_fraction_and_a_bad_one_is_rejected() {
        let sparsity = Sparsity::from_percent(26.666).unwrap();
        let text = serde_json::to_string(&sparsity).unwrap();
        assert_eq!(text, "0.26666");
        assert_eq!(serde_json::from_str::<Sparsity>(&text).unwrap(), sparsity);
        let message = serde_json::from_str::<Sparsity>("1.5").unwrap_err().to_string();
        assert!(message.contains("sparsity is 1.5"), "{message}");
    }

    #[test]
    fn toward_reaches_the_end_exactly_and_stays_between() {
        // start + (end - start) misses the end by a rounding for many of these pairs.
        for (from, to) in (0..=100).flat_map(|from| (0..=100).map(move |to| (from, to))) {
            let (from, to) =
                (Sparsity::new(f64::from(from) / 100.0).unwrap(), Sparsity::new(f64::from(to) / 100.0).unwrap());
            assert_eq!(from.toward(to, 1.0), to);
            let almost = from.toward(to, 1.0 - f64::EPSILON / 2.0);
            assert!(from.min(to) <= almost && almost <= from.max(to), "{from} to {to}: {almost}");
        }
        let (low, high) = (Sparsity::new(0.1).unwrap(), Sparsity::new(0.7).unwrap());
        assert_eq!(low.toward(high, -3.0), low);
        assert_eq!(low.toward(high, f64::NAN), low);
        assert_eq!(low.toward(high, 7.0), high);
    }
}
