//! Which pictures train, which validate, and which are kept for the test.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::random::{Purpose, permutation, stream};
use crate::source::hex;

/// Indices of the pictures of each part, each ascending; a picture is in one of them at most.
///
/// Choose (a step to stop at, a setting) by the validation pictures and report on the test pictures, which nothing was
/// chosen by. Files written before there was a test part are read with an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Split {
    /// Indices for training.
    pub train: Vec<usize>,
    /// Indices for validation.
    pub valid: Vec<usize>,
    /// Indices for the test; may be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<usize>,
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
    pub fn random(n: usize, valid_fraction: f64, seed: u64) -> Result<Self> {
        Self::by_rule(&SplitRule { valid: Part::Fraction(valid_fraction), test: Part::None }, n, &[], seed)
    }

    /// The split of `n` pictures that `rule` describes. `published_test`: the pictures that the makers of the data set
    /// keep for the test, ascending.
    ///
    /// Published test pictures never train and are never drawn for another part: a rule that names them nowhere leaves
    /// them out. Of the others a permutation seeded by `seed` is taken: validation first, then test, the rest trains. So
    /// the validation pictures do not depend on how many are kept for the test.
    ///
    /// # Errors
    /// If a fraction is not in [0, 1), the parts leave no picture for training, or the rule asks for a published test
    /// part that there is not.
    pub fn by_rule(rule: &SplitRule, n: usize, published_test: &[usize], seed: u64) -> Result<Self> {
        rule.check()?;
        if rule.asks_for_published() && published_test.is_empty() {
            return Err(bad("split", rule.to_string(), "no published part: the data set has none"));
        }
        if let Some(idx) = published_test.last().filter(|&&idx| idx >= n || !published_test.is_sorted()) {
            return Err(bad("published test picture", idx.to_string(), format!("ascending and below {n}")));
        }
        let free: Vec<usize> = (0..n).filter(|idx| published_test.binary_search(idx).is_err()).collect();
        let n_valid = rule.valid.n_drawn(free.len());
        let n_test = rule.test.n_drawn(free.len());
        let n_drawn = n_valid.saturating_add(n_test);
        if n_drawn > free.len() || (n_drawn == free.len() && n_drawn > 0) {
            let expected = format!("at least one of {} pictures left for training", free.len());
            return Err(bad("split", format!("{rule} ({n_valid} and {n_test} pictures)"), expected));
        }
        let order = permutation(free.len(), &mut stream(seed, Purpose::Split, 0, 0));
        let part = |places: &[usize]| {
            let mut part: Vec<usize> = places.iter().map(|&place| free[place]).collect();
            part.sort_unstable();
            part
        };
        let drawn = |rule: Part, places: &[usize]| match rule {
            Part::Published => published_test.to_vec(),
            _ => part(places),
        };
        let (valid, rest) = order.split_at(n_valid);
        let (test, train) = rest.split_at(n_test);
        Ok(Self { train: part(train), valid: drawn(rule.valid, valid), test: drawn(rule.test, test) })
    }

    /// All pictures for training, none for validation and test.
    #[must_use]
    pub fn all_train(n: usize) -> Self {
        Self { train: (0..n).collect(), ..Self::default() }
    }

    /// SHA-256 of the three parts as 64 hexadecimal digits, for records: of a line of text that names this form, and then
    /// of each part its length and its indices, as 64-bit little-endian numbers.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"lth split: train, valid, test\n");
        for part in [&self.train, &self.valid, &self.test] {
            hash.update((part.len() as u64).to_le_bytes());
            part.iter().for_each(|&idx| hash.update((idx as u64).to_le_bytes()));
        }
        hex(hash)
    }

    /// Whether it can be used for `n` pictures.
    ///
    /// # Errors
    /// If it names a picture that does not exist, or one picture twice.
    pub fn check(&self, n: usize) -> Result<()> {
        let mut seen = vec![false; n];
        for &idx in self.train.iter().chain(&self.valid).chain(&self.test) {
            match seen.get_mut(idx) {
                None => return Err(bad("picture index in the split", idx.to_string(), format!("below {n}"))),
                Some(true) => return Err(bad("picture index in the split", format!("{idx} twice"), "once")),
                Some(seen) => *seen = true,
            }
        }
        Ok(())
    }
}

/// How a split is made: how many pictures validate, and how many are kept for the test.
///
/// ```
/// use lth_data::{Part, Split, SplitRule};
///
/// # fn main() -> Result<(), lth_data::Error> {
/// // MNIST as Frankle & Carbin split it: 55,000 train, 5,000 validate, the published 10,000 test.
/// let rule = SplitRule { valid: Part::Count(5_000), test: Part::Published };
/// let published: Vec<usize> = (60_000..70_000).collect();
/// let split = Split::by_rule(&rule, 70_000, &published, 42)?;
/// assert_eq!((split.train.len(), split.valid.len(), split.test.len()), (55_000, 5_000, 10_000));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRule {
    /// Which pictures validate.
    pub valid: Part,
    /// Which pictures are kept for the test.
    pub test: Part,
}

impl SplitRule {
    /// # Errors
    /// If a fraction is not in [0, 1), or the published part is both.
    pub(crate) fn check(&self) -> Result<()> {
        for (what, part) in [("validation fraction", self.valid), ("test fraction", self.test)] {
            if let Part::Fraction(fraction) = part
                && !(0.0..1.0).contains(&fraction)
            {
                return Err(bad(what, fraction.to_string(), "at least 0 and below 1"));
            }
        }
        if self.valid == Part::Published && self.test == Part::Published {
            return Err(bad("split", self.to_string(), "the published part for one of them"));
        }
        Ok(())
    }

    /// Whether one of the parts is the published one.
    #[must_use]
    pub fn asks_for_published(&self) -> bool {
        [self.valid, self.test].contains(&Part::Published)
    }
}

impl fmt::Display for SplitRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "valid {}, test {}", self.valid, self.test)
    }
}

/// A part of a data set: as a person types it "none", "published", a count ("5000"), or a fraction, which has a point
/// in it ("0.2"); JSON has the same words.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Part {
    /// No picture.
    None,
    /// This fraction, in [0, 1), of the pictures that are not in the published test part; rounded down.
    Fraction(f64),
    /// So many pictures.
    Count(usize),
    /// The part that the data set's makers keep for the test.
    Published,
}

impl Part {
    /// Pictures to draw out of `n`.
    fn n_drawn(self, n: usize) -> usize {
        match self {
            Self::None | Self::Published => 0,
            Self::Fraction(fraction) => (fraction * n as f64) as usize,
            Self::Count(count) => count,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Published => f.write_str("published"),
            Self::Count(count) => write!(f, "{count}"),
            // With its point, also where nothing follows it.
            Self::Fraction(fraction) => write!(f, "{fraction:?}"),
        }
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let expected = "`none`, `published`, a count such as 5000 or a fraction such as 0.2";
        let refused = || bad("part of a split", text.to_owned(), expected);
        match text {
            "none" => Ok(Self::None),
            "published" => Ok(Self::Published),
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().map(Self::Count).map_err(|_| refused()),
            _ => {
                let fraction = text.parse().map_err(|_| refused())?;
                if !(0.0..1.0).contains(&fraction) {
                    return Err(refused());
                }
                Ok(Self::Fraction(fraction))
            }
        }
    }
}

impl TryFrom<String> for Part {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Part> for String {
    fn from(part: Part) -> Self {
        part.to_string()
    }
}

fn bad(what: &'static str, got: String, expected: impl Into<String>) -> Error {
    Error::BadSetting { what, got, expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(valid: Part, test: Part) -> SplitRule {
        SplitRule { valid, test }
    }

    #[test]
    fn sizes_are_those_of_the_notebook() {
        let split = Split::random(7_390, 0.2, 42).unwrap();
        assert_eq!((split.train.len(), split.valid.len()), (5_912, 1_478));
        assert_eq!(split.train.len() / 64, 92);
    }

    #[test]
    fn every_picture_is_in_one_part() {
        let published: Vec<usize> = (40..60).collect();
        for (valid, test, sizes) in [
            (Part::Fraction(0.3), Part::None, [56, 24, 0]),
            (Part::Fraction(0.3), Part::Count(5), [51, 24, 5]),
            (Part::Count(7), Part::Published, [73, 7, 20]),
            (Part::Published, Part::Fraction(0.5), [40, 20, 40]),
            (Part::None, Part::Published, [80, 0, 20]),
        ] {
            let split = Split::by_rule(&rule(valid, test), 100, &published, 1).unwrap();
            assert_eq!([split.train.len(), split.valid.len(), split.test.len()], sizes, "{valid} {test}");
            split.check(100).unwrap();
            assert!(split.train.is_sorted() && split.valid.is_sorted() && split.test.is_sorted());
            assert!(split.train.iter().all(|idx| !published.contains(idx)), "{valid} {test}");
            for (part, drawn) in [(valid, &split.valid), (test, &split.test)] {
                let n_published = drawn.iter().filter(|idx| published.contains(idx)).count();
                assert_eq!(n_published, if part == Part::Published { 20 } else { 0 });
            }
        }
    }

    #[test]
    fn seed_decides_and_the_test_part_moves_no_validation_picture() {
        assert_eq!(Split::random(50, 0.2, 9).unwrap(), Split::random(50, 0.2, 9).unwrap());
        assert_ne!(Split::random(50, 0.2, 9).unwrap(), Split::random(50, 0.2, 10).unwrap());
        let with_test = Split::by_rule(&rule(Part::Count(10), Part::Count(10)), 50, &[], 9).unwrap();
        assert_eq!(with_test.valid, Split::random(50, 0.2, 9).unwrap().valid);
    }

    #[test]
    fn rules_that_cannot_be_are_errors() {
        for fraction in [-0.1, 1.0, f64::NAN] {
            let error = Split::random(10, fraction, 0).unwrap_err();
            assert!(matches!(error, Error::BadSetting { what: "validation fraction", .. }), "{error}");
        }
        assert_eq!(Split::random(10, 0.0, 0).unwrap(), Split::all_train(10));
        let message = |valid, test, published: &[usize]| {
            Split::by_rule(&rule(valid, test), 10, published, 0).unwrap_err().to_string()
        };
        assert_eq!(
            message(Part::Count(6), Part::Count(4), &[]),
            "split is valid 6, test 4 (6 and 4 pictures), expected at least one of 10 pictures left for training"
        );
        assert!(message(Part::Count(usize::MAX), Part::Count(usize::MAX), &[]).contains("left for training"));
        assert!(message(Part::None, Part::Published, &[]).contains("no published part"));
        assert!(message(Part::Published, Part::Published, &[1]).contains("for one of them"));
        assert!(message(Part::None, Part::Published, &[10]).contains("below 10"));
        let twice = Split { train: vec![1, 2], valid: vec![2], ..Split::default() };
        assert_eq!(twice.check(3).unwrap_err().to_string(), "picture index in the split is 2 twice, expected once");
    }

    #[test]
    fn a_part_is_read_as_it_is_written() {
        for (part, text) in [
            (Part::None, "none"),
            (Part::Published, "published"),
            (Part::Count(5_000), "5000"),
            (Part::Fraction(0.2), "0.2"),
            (Part::Fraction(0.0), "0.0"),
        ] {
            assert_eq!(part.to_string(), text);
            assert_eq!(text.parse::<Part>().unwrap(), part);
            assert_eq!(serde_json::from_str::<Part>(&serde_json::to_string(&part).unwrap()).unwrap(), part);
        }
        for text in ["", "-1", "1.0", "NaN", "1e400", "99999999999999999999999", "half"] {
            assert!(text.parse::<Part>().unwrap_err().to_string().contains("part of a split"), "{text}");
        }
    }

    #[test]
    fn a_file_without_a_test_part_is_read_and_written_as_before() {
        let old = r#"{"train":[0,2],"valid":[1]}"#;
        let split: Split = serde_json::from_str(old).unwrap();
        assert_eq!(split, Split { train: vec![0, 2], valid: vec![1], test: vec![] });
        assert_eq!(serde_json::to_string(&split).unwrap(), old);
    }

    #[test]
    fn the_hash_is_that_of_the_stated_bytes_and_tells_the_parts_apart() {
        // python3 -c 'import hashlib,struct; q=lambda p: struct.pack("<%dQ"%(len(p)+1),len(p),*p); print(hashlib.sha256(
        // b"lth split: train, valid, test\n"+q([0,2])+q([1])+q([3])).hexdigest())'
        let split = Split { train: vec![0, 2], valid: vec![1], test: vec![3] };
        assert_eq!(split.sha256(), "b62d696bbcf4da9ffd69053d8cb38b65e88dfcad3df534a35649ee8ec3663392");
        let others = [
            Split { train: vec![0, 2], valid: vec![3], test: vec![1] },
            Split { train: vec![0], valid: vec![2, 1], test: vec![3] },
            Split { train: vec![0, 2], valid: vec![1, 3], test: vec![] },
        ];
        assert!(others.iter().all(|other| other.sha256() != split.sha256()));
    }
}
