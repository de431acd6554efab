//! Numbers of bytes as a person types and reads them.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A number of bytes: `500 MB`, `2.5GB`, `4 GiB`, `1000`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
    ("", 1),
];

/// In units of a thousand, with at most two decimals: `2.35 GB`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS[4..9].iter().find(|(_, factor)| self.0 >= *factor).unwrap_or(&UNITS[8]);
        let number = format!("{:.2}", self.0 as f64 / *factor as f64);
        write!(f, "{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadSetting {
            what: "number of bytes",
            got: format!("`{}`", crate::text::on_one_line(text)),
            expected: "a number with a unit, such as 500MB, 5GB or 4GiB".into(),
        };
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = unit.trim();
        let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(bad)?;
        let bytes = number.parse::<f64>().map_err(|_| bad())? * *factor as f64;
        // The largest number that is exact; nobody has such a disk.
        if bytes.is_finite() && bytes < 9e15 { Ok(Self(bytes.round() as u64)) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1_000),
            ("5GB", 5_000_000_000),
            ("5 gb", 5_000_000_000),
            ("2.5MB", 2_500_000),
            ("4 GiB", 4 << 30),
            ("1kB", 1_000),
            ("17 B", 17),
        ] {
            let size = text.parse::<ByteSize>().unwrap();
            assert_eq!(size, ByteSize(bytes), "{text}");
            assert_eq!(
                size.to_string().parse::<ByteSize>().map(|again| again.0.abs_diff(bytes) * 100 <= bytes).ok(),
                Some(true)
            );
        }
        assert_eq!(ByteSize(2_349_999_999).to_string(), "2.35 GB");
        assert_eq!(ByteSize(999).to_string(), "999 B");
        for bad in ["", "GB", "-1", "5 apples", "1e3", "1.2.3", "99999999TB", "\u{1b}[31m5GB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?}");
        }
    }
}
