//! A share, as a person types it.

use std::str::FromStr;

use serde::Serialize;

/// A fraction in [0, 1), typed as such (`0.8`) or as a percentage (`80%`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share(pub f64);

impl Share {
    /// What a command line's help calls it.
    pub const VALUE_NAME: &str = "FRACTION|PERCENT%";
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = match text.trim().strip_suffix('%') {
            Some(percent) => (percent.trim_end(), 100.0),
            None => (text.trim(), 1.0),
        };
        let value: f64 = number.parse().map_err(|_| "expected a fraction as 0.8 or a percentage as 80%".to_owned())?;
        let share = value / unit;
        if (0.0..1.0).contains(&share) {
            return Ok(Self(share));
        }
        let hint = if unit == 1.0 && (1.0..=100.0).contains(&value) {
            format!("; {value} % is `{value}%`")
        } else {
            String::new()
        };
        Err(format!("expected a fraction from 0 to below 1 or a percentage from 0% to below 100%{hint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_fraction_or_a_percentage_and_below_all() {
        assert_eq!("0.8".parse(), Ok(Share(0.8)));
        assert_eq!("80%".parse(), Ok(Share(0.8)));
        assert_eq!(" 80 % ".parse(), Ok(Share(0.8)));
        for wrong in ["", "%", "-1%", "nan", "inf", "half", "100%", "1.5"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
        assert!("1".parse::<Share>().is_err_and(|message| message.contains("below 1") && message.ends_with("`1%`")));
        assert!("80".parse::<Share>().is_err_and(|message| message.ends_with("80 % is `80%`")));
    }
}
