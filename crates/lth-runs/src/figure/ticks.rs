//! Where an axis is marked: at 1, 2 and 5 times powers of ten, as often as the labels leave room.

use super::axis::{Scale, TickFormat};

/// A mark on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    /// The pixel.
    pub(super) position: f64,
    pub(super) label: String,
}

/// The densest ticks between `low` and `high` whose labels keep apart on `length` pixels.
pub(super) fn ticks(
    scale: Scale,
    format: TickFormat,
    low: f64,
    high: f64,
    length: f64,
    extent: impl Fn(&str) -> f64,
    position: impl Fn(f64) -> f64,
) -> Vec<Tick> {
    let fits = |ticks: &[Tick]| {
        ticks.windows(2).all(|pair| {
            let needed = (extent(&pair[0].label) + extent(&pair[1].label)) / 2.0;
            (pair[0].position - pair[1].position).abs() >= needed
        })
    };
    let make = |values: Vec<(f64, usize)>| -> Vec<Tick> {
        values
            .into_iter()
            .map(|(value, n_decimals)| Tick { position: position(value), label: label(value, n_decimals, format) })
            .collect()
    };
    let most = (length / 36.0).floor().clamp(2.0, 12.0) as usize;
    let linear = (1..=most).rev().map(|n| linear_values(low, high, n, format));
    let candidates: Vec<Vec<(f64, usize)>> = match scale {
        Scale::Linear => linear.collect(),
        Scale::Log => {
            let decades =
                [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]].map(|steps| log_values(low, high, steps, 1, format));
            let sparse = (2..12).map(|every| log_values(low, high, &[1.0], every, format));
            // Less than a decade may hold one round number or none: then even steps are marked.
            decades.into_iter().chain(sparse).filter(|values| values.len() >= 2).chain(linear).collect()
        }
    };
    candidates.into_iter().map(make).find(|ticks| fits(ticks)).unwrap_or_default()
}

/// Multiples of a step of 1, 2 or 5 times a power of ten, about `n` of them, with the decimals that they need.
fn linear_values(low: f64, high: f64, n: usize, format: TickFormat) -> Vec<(f64, usize)> {
    let rough = (high - low) / n as f64;
    let power = 10.0_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|factor| factor * power).find(|step| *step >= rough * 0.999_999);
    let step = step.unwrap_or(10.0 * power);
    if !(step.is_finite() && step > 0.0) {
        return Vec::new();
    }
    let n_decimals = decimals(shown(step, format));
    let first = (low / step - 1e-6).ceil();
    let last = (high / step + 1e-6).floor();
    // Ranges whose neighbouring ticks are the same double have none.
    if !(last - first).is_finite() || last - first > 1000.0 || first.abs() > 1e15 {
        return Vec::new();
    }
    (0..=(last - first) as i64).map(|index| ((first + index as f64) * step, n_decimals)).collect()
}

fn log_values(low: f64, high: f64, steps: &[f64], every: i32, format: TickFormat) -> Vec<(f64, usize)> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    (first..=last)
        .filter(|power| power % every == 0)
        .flat_map(|power| steps.iter().map(move |step| step * 10.0_f64.powi(power)))
        .filter(|value| *value >= low * 0.999_999 && *value <= high * 1.000_001)
        .map(|value| (value, decimals(shown(value, format))))
        .collect()
}

fn shown(value: f64, format: TickFormat) -> f64 {
    if format == TickFormat::Percent { 100.0 * value } else { value }
}

/// Decimals that show the first digit of `value`.
fn decimals(value: f64) -> usize {
    (-(value.abs() * 1.000_001).log10().floor()).clamp(0.0, 15.0) as usize
}

fn label(value: f64, n_decimals: usize, format: TickFormat) -> String {
    let shown = shown(value, format);
    let text = if shown != 0.0 && (shown.abs() >= 1e7 || n_decimals > 5) {
        format!("{:e}", significant(shown, 4))
    } else {
        grouped(&format!("{shown:.n_decimals$}"))
    };
    let text = if text.trim_start_matches('-').chars().all(|digit| matches!(digit, '0' | '.')) {
        text.trim_start_matches('-').into()
    } else {
        text
    };
    if format == TickFormat::Percent { format!("{text} %") } else { text }
}

/// `value` in four significant digits, without needless zeros.
pub(super) fn value(value: f64, format: TickFormat) -> String {
    let shown = significant(shown(value, format), 4);
    let text = match shown.abs() {
        _ if !shown.is_finite() => "not a number".into(),
        0.0 => "0".into(),
        size if !(1e-4..1e9).contains(&size) => format!("{shown:e}"),
        _ => grouped(&format!("{shown}")),
    };
    if format == TickFormat::Percent { format!("{text} %") } else { text }
}

fn significant(value: f64, n_digits: usize) -> f64 {
    format!("{value:.*e}", n_digits - 1).parse().unwrap_or(value)
}

/// "50000" as "50,000"; four digits stay together.
fn grouped(number: &str) -> String {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (whole, rest) = number.find('.').map_or((number, ""), |dot| number.split_at(dot));
    if whole.len() <= 4 {
        return format!("{sign}{number}");
    }
    let mut parts: Vec<&str> = Vec::new();
    let mut left = whole;
    while left.len() > 3 {
        let (front, back) = left.split_at(left.len() - 3);
        parts.push(back);
        left = front;
    }
    parts.push(left);
    parts.reverse();
    format!("{sign}{}{rest}", parts.join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::figure::text::width;

    fn labels(scale: Scale, format: TickFormat, low: f64, high: f64, length: f64) -> Vec<String> {
        let place = |value: f64| match scale {
            Scale::Linear => length * (value - low) / (high - low),
            Scale::Log => length * (value / low).ln() / (high / low).ln(),
        };
        let found = ticks(scale, format, low, high, length, |label| width(label, 12.0) + 8.0, place);
        found.into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round() {
        let linear = |low, high| labels(Scale::Linear, TickFormat::Plain, low, high, 300.0);
        assert_eq!(linear(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(linear(-0.1, 0.1), ["-0.10", "-0.05", "0.00", "0.05", "0.10"]);
        assert_eq!(linear(0.0, 50_000.0), ["0", "10,000", "20,000", "30,000", "40,000", "50,000"]);
        let percent = labels(Scale::Linear, TickFormat::Percent, 0.95, 0.99, 300.0);
        assert_eq!(percent, ["95 %", "96 %", "97 %", "98 %", "99 %"]);
    }

    #[test]
    fn logarithmic_ticks_are_powers_and_their_halves_and_fifths() {
        let weights = labels(Scale::Log, TickFormat::Percent, 0.01, 1.0, 380.0);
        assert_eq!(weights, ["1 %", "2 %", "5 %", "10 %", "20 %", "50 %", "100 %"]);
        let wide = labels(Scale::Log, TickFormat::Plain, 1e-6, 1e3, 300.0);
        assert!(wide.len() >= 4 && wide.contains(&"1".to_string()), "{wide:?}");
        // Within one decade and without a power in it.
        let narrow = labels(Scale::Log, TickFormat::Percent, 0.61, 0.79, 300.0);
        assert!(narrow.len() >= 2, "{narrow:?}");
    }

    #[test]
    fn values_have_four_digits() {
        let plain = [0.0, 1234.56, 123_456.0, 0.000_012_346, 1.0 / 3.0, 2e12];
        let expected = ["0", "1235", "123,500", "1.235e-5", "0.3333", "2e12"];
        assert_eq!(plain.map(|number| value(number, TickFormat::Plain)), expected);
        assert_eq!(value(0.13512, TickFormat::Percent), "13.51 %");
        assert_eq!(value(f64::NAN, TickFormat::Plain), "not a number");
    }

    proptest! {
        #[test]
        fn labels_keep_apart_and_are_distinct(
            low in -1e6_f64..1e6, exponent in -6.0_f64..8.0, length in 60.0_f64..600.0, is_percent: bool
        ) {
            let high = low + 10.0_f64.powf(exponent);
            let format = if is_percent { TickFormat::Percent } else { TickFormat::Plain };
            let place = |value: f64| length * (value - low) / (high - low);
            let extent = |label: &str| width(label, 12.0) + 8.0;
            let found = ticks(Scale::Linear, format, low, high, length, extent, place);
            for pair in found.windows(2) {
                prop_assert!(pair[1].position - pair[0].position >= (extent(&pair[0].label) + extent(&pair[1].label)) / 2.0);
            }
            for tick in &found {
                prop_assert!((-0.1..=length + 0.1).contains(&tick.position));
            }
        }

        #[test]
        fn logarithmic_labels_keep_apart(low in 1e-8_f64..1e3, decades in 0.01_f64..12.0, length in 60.0_f64..600.0) {
            let high = low * 10.0_f64.powf(decades);
            let place = |value: f64| length * (value / low).ln() / (high / low).ln();
            let extent = |label: &str| width(label, 12.0) + 8.0;
            for pair in ticks(Scale::Log, TickFormat::Plain, low, high, length, extent, place).windows(2) {
                prop_assert!((pair[1].position - pair[0].position).abs() >= (extent(&pair[0].label) + extent(&pair[1].label)) / 2.0);
            }
        }
    }
}
