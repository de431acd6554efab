//! Shares: how many of a set's pictures one network has right, and how two networks differ on the same pictures.

use serde::{Deserialize, Serialize};

use super::distribution::{binomial_half_tail, normal_two_sided};
use super::estimate::Interval;
use super::invalid;
use crate::Error;

/// Wilson's score interval for a share of which `successes` of `trials` is the sample (Wilson 1927).
///
/// For the accuracy of one network on one validation set: it says how far the set's size alone lets the true
/// accuracy lie. `None` for no trials, more successes than trials, or a confidence outside (0, 1).
pub fn wilson_interval(successes: u64, trials: u64, confidence: f64) -> Option<Interval> {
    if trials == 0 || successes > trials {
        return None;
    }
    let z = normal_two_sided(confidence)?;
    let (n, share) = (trials as f64, successes as f64 / trials as f64);
    let centre = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    // The ends are exact where no or every trial succeeded.
    let low = if successes == 0 { 0.0 } else { (centre - half) / scale };
    let high = if successes == trials { 1.0 } else { (centre + half) / scale };
    Some(Interval { low, high, confidence })
}

/// Two networks on the same pictures: where they agree, where only one is right, and whether that is chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Pictures that both have right.
    pub both_right: u64,
    /// Pictures that only the first has right.
    pub only_first: u64,
    /// Pictures that only the second has right.
    pub only_second: u64,
    /// Pictures that both have wrong.
    pub both_wrong: u64,
    /// Exact two-sided p-value of "where they disagree, either is as likely to be right"; 1 where they never disagree.
    pub p_value: f64,
}

impl McNemar {
    /// How many pictures.
    pub fn n(&self) -> u64 {
        self.both_right + self.only_first + self.only_second + self.both_wrong
    }

    /// Accuracy of the second minus that of the first.
    pub fn difference(&self) -> f64 {
        (self.only_second as f64 - self.only_first as f64) / self.n() as f64
    }
}

impl std::fmt::Display for McNemar {
    /// "on 500 pictures only the first is right 12 times, only the second 25 times (McNemar's exact test, p = 0.047)"
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "on {} pictures only the first is right {} times, only the second {} times (McNemar's exact test, {})",
            self.n(),
            self.only_first,
            self.only_second,
            super::verdict_text::p_value(self.p_value)
        )
    }
}

/// McNemar's test (1947) on which pictures two networks have right, in the same order: see [`Hits`](super::Hits).
///
/// The p-value is the binomial one for any number of disagreements; the chi-square that is often taken for many of
/// them is an approximation to it. It speaks of these two networks, not of other seeds of their arms.
///
/// # Errors
/// If there are no pictures, or not as many for the second as for the first.
pub fn mcnemar(
    first: impl IntoIterator<Item = bool>,
    second: impl IntoIterator<Item = bool>,
) -> Result<McNemar, Error> {
    let mut test = McNemar { both_right: 0, only_first: 0, only_second: 0, both_wrong: 0, p_value: 1.0 };
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (Some(true), Some(true)) => test.both_right += 1,
            (Some(true), Some(false)) => test.only_first += 1,
            (Some(false), Some(true)) => test.only_second += 1,
            (Some(false), Some(false)) => test.both_wrong += 1,
            (None, None) => break,
            (one, _) => {
                let n = test.n();
                let n_more = n + 1 + if one.is_some() { first.count() } else { second.count() } as u64;
                let (n_first, n_second) = if one.is_some() { (n_more, n) } else { (n, n_more) };
                let reason = format!("has {n_second} pictures, expected {n_first} as in the first");
                return Err(invalid("second network", reason));
            }
        }
    }
    if test.n() == 0 {
        return Err(invalid("two networks", "have no pictures, expected at least one"));
    }
    let n_discordant = test.only_first + test.only_second;
    test.p_value = (2.0 * binomial_half_tail(test.only_first.min(test.only_second), n_discordant)).min(1.0);
    Ok(test)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        let tolerance = 1e-12 * expected.abs().max(1e-3);
        assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected}");
    }

    #[test]
    fn wilson_has_its_closed_form_at_the_ends() {
        let z = normal_two_sided(0.95).unwrap();
        let all = wilson_interval(10, 10, 0.95).unwrap();
        assert_eq!(all.high, 1.0);
        close(all.low, 10.0 / (10.0 + z * z));
        let none = wilson_interval(0, 10, 0.95).unwrap();
        assert_eq!(none.low, 0.0);
        close(none.high, z * z / (10.0 + z * z));
        let half = wilson_interval(50, 100, 0.95).unwrap();
        close(half.low + half.high, 1.0);
        assert!(half.contains(0.5) && !half.contains(0.3));
        assert_eq!(wilson_interval(0, 0, 0.95), None);
        assert_eq!(wilson_interval(2, 1, 0.95), None);
        for confidence in [0.0, 1.0, -1.0, f64::NAN] {
            assert_eq!(wilson_interval(1, 2, confidence), None);
        }
    }

    /// `n` pictures each that both, only the first, only the second and none have right.
    fn pictures(counts: [usize; 4]) -> (Vec<bool>, Vec<bool>) {
        let answers = [(true, true), (true, false), (false, true), (false, false)];
        counts.into_iter().zip(answers).flat_map(|(n, answer)| std::iter::repeat_n(answer, n)).unzip()
    }

    /// R: `binom.test(5, 20)$p.value`, and Agresti 2013, table 11.1 (approval ratings: 150 against 86).
    #[test]
    fn mcnemar_is_the_binomial_test_of_the_disagreements() -> Result<(), Error> {
        let (first, second) = pictures([70, 15, 5, 10]);
        let test = mcnemar(first, second)?;
        assert_eq!((test.both_right, test.only_first, test.only_second, test.both_wrong), (70, 15, 5, 10));
        assert!((test.p_value - 0.041_389_465_332_031_25).abs() < 1e-13, "{}", test.p_value);
        close(test.difference(), -0.1);
        let (first, second) = pictures([794, 150, 86, 570]);
        let approval = mcnemar(first, second)?;
        assert!((approval.p_value - 3.716e-5).abs() < 1e-8, "{}", approval.p_value);
        assert_eq!(
            test.to_string(),
            "on 100 pictures only the first is right 15 times, only the second 5 times (McNemar's exact test, p = 0.041)"
        );
        Ok(())
    }

    #[test]
    fn agreement_is_no_evidence() -> Result<(), Error> {
        let (first, second) = pictures([9, 0, 0, 1]);
        assert_eq!(mcnemar(first, second)?.p_value, 1.0);
        let (first, second) = pictures([0, 7, 7, 0]);
        assert_eq!(mcnemar(first, second)?.p_value, 1.0);
        Ok(())
    }

    #[test]
    fn sets_of_unlike_size_are_refused() {
        let error = mcnemar([true, false, true], [true]).unwrap_err();
        assert_eq!(error.to_string(), "second network: has 1 pictures, expected 3 as in the first");
        assert!(mcnemar([], [true]).is_err() && mcnemar([], []).is_err());
    }
}
