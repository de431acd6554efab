//! Where a fit stands in an experiment.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Arm, level and seed: what tells one fit of an experiment from all others. Every path, record, table row and figure
/// follows from it.
///
/// It is written `arm/level/seed`, and sorts in that order.
///
/// ```
/// use lth_runs::Address;
///
/// let address: Address = "ticket/3/42".parse()?;
/// assert_eq!(address, Address::new("ticket", 3, 42));
/// assert_eq!(address.folder(), "fits/ticket/level-03/seed-42");
/// # Ok::<(), lth_runs::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// The treatment: "dense", "ticket", "reinitialised". Lower-case letters, digits and hyphens.
    pub arm: String,
    /// The round of iterative pruning; 0 is dense.
    pub level: u32,
    /// The replicate.
    pub seed: u64,
}

impl Address {
    /// The fit of `arm` at `level` for `seed`.
    pub fn new(arm: impl Into<String>, level: u32, seed: u64) -> Self {
        Self { arm: arm.into(), level, seed }
    }

    /// The fit's folder below the experiment's, with `/` on every platform.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("fits/{}/level-{:02}/seed-{}", self.arm, self.level, self.seed)
    }

    /// The same arm and level for another seed.
    #[must_use]
    pub fn with_seed(&self, seed: u64) -> Self {
        Self { seed, ..self.clone() }
    }

    /// What is wrong with an arm's name, if anything: names become folders.
    pub(crate) fn problem(arm: &str) -> Option<&'static str> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = !arm.is_empty() && arm.len() <= 64 && arm.bytes().all(plain) && !arm.starts_with('-');
        (!fits).then_some("expected 1 to 64 lower-case letters, digits and hyphens, not beginning with a hyphen")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arm, level, seed } = self;
        write!(f, "{arm}/{level}/{seed}")
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse =
            |reason: &'static str| Error::Invalid { record: format!("address `{text}`"), reason: reason.into() };
        let mut parts = text.split('/');
        let (Some(arm), Some(level), Some(seed), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse("expected arm/level/seed, as ticket/3/42"));
        };
        if let Some(problem) = Self::problem(arm) {
            return Err(refuse(problem));
        }
        // `parse` alone would take a sign.
        let number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
        if !number(level) || !number(seed) {
            return Err(refuse("expected a level and a seed in digits"));
        }
        let level = level.parse().map_err(|_| refuse("expected a level of at most 4294967295"))?;
        let seed = seed.parse().map_err(|_| refuse("expected a seed of at most 18446744073709551615"))?;
        Ok(Self { arm: arm.to_owned(), level, seed })
    }
}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_back_as_it_was_written() -> Result<(), Error> {
        for address in [Address::new("dense", 0, 0), Address::new("snip-shuffled", 20, u64::MAX)] {
            assert_eq!(address.to_string().parse::<Address>()?, address);
        }
        Ok(())
    }

    #[test]
    fn what_could_leave_its_folder_is_no_address() {
        for text in
            ["", "a", "a/1", "a/1/2/3", "../1/2", "A/1/2", "-a/1/2", "a b/1/2", "a/+1/2", "a/1/-2", "a//2", "/1/2"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        let error = "a/1/99999999999999999999".parse::<Address>().expect_err("the seed is too large");
        assert_eq!(
            error.to_string(),
            "address `a/1/99999999999999999999`: expected a seed of at most 18446744073709551615"
        );
    }
}
