//! Numbers as a person reads them.

use crate::statistics::{Difference, Estimate, Interval};

/// "87.01"
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.2}", 100.0 * fraction)
}

/// "87.01 ± 0.31", or "87.01" for one seed.
pub(super) fn percent_estimate(estimate: &Estimate) -> String {
    with_deviation(estimate, 100.0, 2)
}

/// "8.9 ± 0.2", or "8.9" for one seed.
pub(super) fn seconds(estimate: &Estimate) -> String {
    with_deviation(estimate, 1.0, if estimate.mean < 10.0 { 2 } else { 1 })
}

/// "1.38 ± 0.02", or "1.38" for one seed.
pub(super) fn ratio(estimate: &Estimate) -> String {
    with_deviation(estimate, 1.0, 3)
}

/// "+2.64", in percentage points.
pub(super) fn points(difference: f64) -> String {
    signed(100.0 * difference, 2)
}

/// "-0.10 to +5.38", in percentage points.
pub(super) fn points_interval(interval: &Interval) -> String {
    format!("{} to {}", points(interval.low), points(interval.high))
}

/// "+2.64 points (95 % interval -0.10 to +5.38, 3 seeds)"
pub(super) fn points_with_interval(difference: &Difference) -> String {
    let mean = points(difference.mean);
    match &difference.interval {
        Some(interval) => format!(
            "{mean} points ({:.0} % interval {}, {} seeds)",
            100.0 * interval.confidence,
            points_interval(interval),
            difference.n
        ),
        None => format!("{mean} points"),
    }
}

/// "0.021", "< 0.001"
pub(super) fn p_value(value: f64) -> String {
    if value < 0.001 { "< 0.001".into() } else { format!("{value:.3}") }
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

fn with_deviation(estimate: &Estimate, scale: f64, decimals: usize) -> String {
    let mean = format!("{:.decimals$}", scale * estimate.mean);
    match estimate.deviation {
        Some(deviation) => format!("{mean} ± {:.decimals$}", scale * deviation),
        None => mean,
    }
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
    fn one_seed_shows_no_deviation() {
        let estimate = |values: &[f64]| percent_estimate(&Estimate::of(values).unwrap());
        assert_eq!((estimate(&[0.8701]), estimate(&[0.86, 0.88])), ("87.01".into(), "87.00 ± 1.41".into()));
    }

    #[test]
    fn nothing_has_no_sign() {
        assert_eq!([0.0264, -0.0264, 0.00001, -0.00001].map(points), ["+2.64", "-2.64", "0.00", "0.00"]);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([512, 46_830_571, 1_248_000_000].map(bytes), ["512 bytes", "44.7 MiB", "1.2 GiB"]);
    }
}
