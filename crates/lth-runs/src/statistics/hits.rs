//! Which pictures a network had right, a bit each.

use serde::{Deserialize, Serialize};

use super::invalid;
use crate::Error;

/// Which pictures of a set a network had right, in the set's order.
///
/// In JSON `{"n": 10, "bits": "ff01"}`: two hexadecimal digits for eight pictures, the first of them the lowest bit.
///
/// ```
/// use lth_runs::statistics::{Hits, mcnemar};
///
/// # fn main() -> Result<(), lth_runs::Error> {
/// let dense: Hits = [true, true, false, true].into_iter().collect();
/// let ticket: Hits = [true, false, false, true].into_iter().collect();
/// assert_eq!((dense.n(), dense.n_right()), (4, 3));
/// assert_eq!(mcnemar(dense.iter(), ticket.iter())?.only_first, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HitsFile", into = "HitsFile")]
pub struct Hits {
    n: usize,
    bytes: Vec<u8>,
}

impl Hits {
    /// How many pictures.
    pub fn n(&self) -> usize {
        self.n
    }

    /// How many of them are right.
    pub fn n_right(&self) -> usize {
        self.bytes.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Right or wrong, picture by picture.
    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.n).map(|index| self.bytes[index / 8] >> (index % 8) & 1 == 1)
    }
}

impl FromIterator<bool> for Hits {
    fn from_iter<I: IntoIterator<Item = bool>>(pictures: I) -> Self {
        let mut hits = Self::default();
        for right in pictures {
            if hits.n.is_multiple_of(8) {
                hits.bytes.push(0);
            }
            if let (true, Some(byte)) = (right, hits.bytes.last_mut()) {
                *byte |= 1 << (hits.n % 8);
            }
            hits.n += 1;
        }
        hits
    }
}

#[derive(Serialize, Deserialize)]
struct HitsFile {
    n: usize,
    bits: String,
}

impl From<Hits> for HitsFile {
    fn from(hits: Hits) -> Self {
        Self { n: hits.n, bits: hits.bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
    }
}

impl TryFrom<HitsFile> for Hits {
    type Error = Error;

    fn try_from(file: HitsFile) -> Result<Self, Error> {
        let digits: Option<Vec<u8>> =
            file.bits.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        let digits = digits.ok_or_else(|| invalid("bits", "hold something else than hexadecimal digits"))?;
        let expected = 2 * file.n.div_ceil(8);
        if digits.len() != expected {
            let reason = format!("have {} digits, expected {expected} for {} pictures", digits.len(), file.n);
            return Err(invalid("bits", reason));
        }
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        let hits = Self { n: file.n, bytes };
        if hits.iter().filter(|right| *right).count() != hits.n_right() {
            return Err(invalid("bits", format!("are set beyond picture {}", file.n)));
        }
        Ok(hits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_picture_is_the_lowest_bit() {
        let hits: Hits = (0..10).map(|index| index != 1).collect();
        assert_eq!(serde_json::to_string(&hits).unwrap(), r#"{"n":10,"bits":"fd03"}"#);
    }

    #[test]
    fn a_damaged_file_is_refused() {
        for (json, named) in [
            (r#"{"n":9,"bits":"ff"}"#, "have 2 digits, expected 4 for 9 pictures"),
            (r#"{"n":8,"bits":"zz"}"#, "hexadecimal"),
            (r#"{"n":7,"bits":"ff"}"#, "beyond picture 7"),
        ] {
            let error = serde_json::from_str::<Hits>(json).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_picture_comes_back(pictures in prop::collection::vec(any::<bool>(), 0..40)) {
            let hits: Hits = pictures.iter().copied().collect();
            prop_assert_eq!(hits.iter().collect::<Vec<_>>(), pictures.clone());
            prop_assert_eq!(hits.n_right(), pictures.iter().filter(|right| **right).count());
            let json = serde_json::to_string(&hits).unwrap();
            prop_assert_eq!(serde_json::from_str::<Hits>(&json).unwrap(), hits);
        }
    }
}
