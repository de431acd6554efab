//! Which pictures train and which validate.

use crate::error::{Error, Result};
use crate::random::{Purpose, permutation, stream};

/// Indices of the pictures for training and for validation, each ascending; a picture is in one of them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Split {
    /// Indices for training.
    pub train: Vec<usize>,
    /// Indices for validation.
    pub valid: Vec<usize>,
}

impl Split {
    /// A random split of `n` pictures: the first int(`valid_fraction`·n) of a permutation seeded by `seed` validate.
    ///
    /// Indices are those of the sorted names, so that the same pictures give the same split on every machine.
    /// PARITY: fastai's `RandomSplitter` takes the directory's order, which differs between machines, and torch's
    /// generator; the sizes are equal.
    ///
    /// # Errors
    /// If `valid_fraction` is not in [0, 1).
    pub fn random(n: usize, valid_fraction: f64, seed: u64) -> Result<Split> {
        if !(0.0..1.0).contains(&valid_fraction) {
            return Err(Error::BadSetting {
                what: "validation fraction",
                got: valid_fraction.to_string(),
                expected: "at least 0 and below 1".into(),
            });
        }
        let mut valid = permutation(n, &mut stream(seed, Purpose::Split, 0, 0));
        let mut train = valid.split_off((valid_fraction * n as f64) as usize);
        train.sort_unstable();
        valid.sort_unstable();
        Ok(Split { train, valid })
    }

    /// All pictures for training, none for validation.
    pub fn all_train(n: usize) -> Split {
        Split { train: (0..n).collect(), valid: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_notebook() {
        let split = Split::random(7_390, 0.2, 42).unwrap();
        assert_eq!((split.train.len(), split.valid.len()), (5_912, 1_478));
        assert_eq!(split.train.len() / 64, 92);
    }

    #[test]
    fn every_picture_is_in_one_half() {
        let split = Split::random(101, 0.3, 1).unwrap();
        let mut all = [split.train.clone(), split.valid.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..101).collect::<Vec<_>>());
        assert_eq!(split.valid.len(), 30);
        assert!(split.train.is_sorted() && split.valid.is_sorted());
    }

    #[test]
    fn seed_decides() {
        assert_eq!(Split::random(50, 0.2, 9).unwrap(), Split::random(50, 0.2, 9).unwrap());
        assert_ne!(Split::random(50, 0.2, 9).unwrap(), Split::random(50, 0.2, 10).unwrap());
    }

    #[test]
    fn fraction_outside_its_range_is_an_error() {
        for fraction in [-0.1, 1.0, f64::NAN] {
            let error = Split::random(10, fraction, 0).unwrap_err();
            assert!(matches!(error, Error::BadSetting { what: "validation fraction", .. }), "{error}");
        }
        assert_eq!(Split::random(10, 0.0, 0).unwrap(), Split::all_train(10));
    }
}
