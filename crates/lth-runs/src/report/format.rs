//! Numbers as a person reads them.

use crate::lines::grouped;
use crate::statistics::{CONFIDENCE, Estimate, Interval, Scale, plain};

/// A fraction in percent, to three significant digits and without its sign: "51.2", "100", "3.6".
pub(crate) fn share(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    if percent <= 0.0 || !percent.is_finite() {
        return "0".into();
    }
    let n_decimals = (2 - percent.log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{percent:.n_decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

/// A value of the metric: in percent with two decimals where it is a fraction, or to four significant digits.
pub(super) fn metric(value: f64, scale: &Scale) -> String {
    match scale {
        Scale::Points => format!("{:.2}", 100.0 * value),
        Scale::Unit(_) | Scale::Ratio => plain_signed(value),
    }
}

/// What a column of the metric is called: "test accuracy, %".
pub(super) fn metric_title(name: &str, scale: &Scale) -> String {
    if *scale == Scale::Points { format!("{name}, %") } else { name.to_owned() }
}

/// "97.81 (97.60 to 98.02)", or the mean alone where there is no interval.
pub(super) fn with_interval(estimate: Option<&Estimate>, write: impl Fn(f64) -> String) -> String {
    let Some(estimate) = estimate else { return "–".into() };
    match estimate.interval(CONFIDENCE) {
        Some(Interval { low, high, .. }) => format!("{} ({} to {})", write(estimate.mean), write(low), write(high)),
        None => write(estimate.mean),
    }
}

/// The mean alone.
pub(super) fn mean(estimate: Option<&Estimate>, write: impl Fn(f64) -> String) -> String {
    estimate.map_or_else(|| "–".into(), |estimate| write(estimate.mean))
}

/// A number of steps: "12,500"; negative ends of intervals too.
pub(super) fn steps(value: f64) -> String {
    let whole = value.round();
    if whole < 0.0 { format!("-{}", grouped(-whole as u64)) } else { grouped(whole as u64) }
}

/// "0.52 ms", "12.3 s", "5 min 01 s", "1 h 02 min"
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 0.0 {
        return format!("-{}", duration(-seconds));
    }
    match seconds {
        _ if seconds < 0.9995 => format!("{} ms", three(1000.0 * seconds)),
        _ if seconds < 59.95 => format!("{} s", three(seconds)),
        _ if seconds < 3599.5 => {
            let whole = seconds.round() as u64;
            format!("{} min {:02} s", whole / 60, whole % 60)
        }
        _ => {
            let minutes = (seconds / 60.0).round() as u64;
            format!("{} h {:02} min", grouped(minutes / 60), minutes % 60)
        }
    }
}

/// A difference with its sign, or a ratio.
pub(super) fn difference(value: f64, scale: &Scale) -> String {
    match scale {
        Scale::Points => signed(100.0 * value, 2),
        Scale::Unit(_) if value > 0.0 => format!("+{}", plain(value)),
        Scale::Unit(_) => plain(value),
        Scale::Ratio => format!("{value:.3}"),
    }
}

/// "0.021", "< 0.001"
pub(super) fn p_value(value: f64) -> String {
    if value < 0.001 { "< 0.001".into() } else { format!("{value:.3}") }
}

/// The word with an `s` unless there is one: "3 seeds".
pub(super) fn counted(n: usize, word: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{} {word}{s}", grouped(n as u64))
}

/// "a", "a and b", "a, b and c"
pub(super) fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// With a capital letter and a full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", characters.as_str())
}

fn three(value: f64) -> String {
    if value <= 0.0 {
        return "0".into();
    }
    let n_decimals = (2 - value.log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.n_decimals$}")
}

fn plain_signed(value: f64) -> String {
    if value < 0.0 { format!("-{}", plain(-value)) } else { plain(value) }
}

/// "2026-11-22 15:04:05 UTC"
pub(super) fn date(seconds_since_1970: u64) -> String {
    let (days, second) = (seconds_since_1970 / 86_400, seconds_since_1970 % 86_400);
    // Howard Hinnant's `civil_from_days`: years begin in March, so that the leap day is the last one.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// "1.16 GiB", "44.7 MiB", "512 bytes"
pub(super) fn bytes(n_bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut size = n_bytes as f64;
    let mut unit = "bytes";
    for larger in UNITS {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    if unit == "bytes" { format!("{n_bytes} bytes") } else { format!("{size:.1} {unit}") }
}

fn signed(value: f64, decimals: usize) -> String {
    let text = format!("{value:+.decimals$}");
    // No "-0.00": a sign says that there is something.
    if text[1..].bytes().all(|byte| matches!(byte, b'0' | b'.')) { text[1..].into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        let dates = [0, 951_782_400, 1_795_359_845, 4_107_542_399].map(date);
        assert_eq!(
            dates,
            [
                "1970-01-01 00:00:00 UTC",
                "2000-02-29 00:00:00 UTC",
                "2026-11-22 15:04:05 UTC",
                "2100-02-28 23:59:59 UTC"
            ]
        );
    }

    #[test]
    fn shares_have_three_digits() {
        let shares = [1.0, 0.5, 0.134_217, 0.036, 0.012_34, 0.0, 0.9996].map(share);
        assert_eq!(shares, ["100", "50", "13.4", "3.6", "1.23", "0", "100"]);
    }

    #[test]
    fn times_have_units() {
        let times = [0.000_52, 0.0234, 1.0, 59.94, 60.0, 301.4, 3600.0, 5025.0].map(duration);
        assert_eq!(
            times,
            ["0.520 ms", "23.4 ms", "1.00 s", "59.9 s", "1 min 00 s", "5 min 01 s", "1 h 00 min", "1 h 24 min"]
        );
    }

    #[test]
    fn nothing_has_no_sign() {
        let points = [0.0264, -0.0264, 0.00001, -0.00001].map(|value| difference(value, &Scale::Points));
        assert_eq!(points, ["+2.64", "-2.64", "0.00", "0.00"]);
    }

    #[test]
    fn one_seed_shows_no_interval() {
        let cell = |values: &[f64]| with_interval(Estimate::of(values).as_ref(), |value| format!("{value:.2}"));
        assert_eq!(cell(&[0.87]), "0.87");
        assert_eq!(cell(&[0.5, 0.5, 0.5]), "0.50");
        // Student's t for two degrees of freedom: 4.3027 deviations of the mean, here 1 / √3.
        assert_eq!(cell(&[1.0, 2.0, 3.0]), "2.00 (-0.48 to 4.48)");
        assert_eq!(with_interval(None, |_| String::new()), "–");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([512, 46_830_571, 1_248_000_000].map(bytes), ["512 bytes", "44.7 MiB", "1.2 GiB"]);
    }
}
