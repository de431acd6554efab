//! Numbers that come back from a file as they went in.
//!
//! JSON numbers are written in the shortest form that names the double exactly, but `serde_json` reads long ones
//! with an error of one unit in the last place unless its `float_roundtrip` feature is on, which a library cannot
//! turn on without rebuilding everything above it. So a number that would not come back loses its last digit or
//! two *before* it is written. What is read is then what was written, and a report made from the file is
//! the report made by the run. With the feature on, nothing is ever changed.

use serde_json::{Number, Value};

/// `value`, or the nearest shorter decimal that survives being written and read. Relative change below 1e-13.
pub(crate) fn settle(value: f64) -> f64 {
    if !value.is_finite() || survives(value) {
        return value;
    }
    // 17 digits name every double; two fewer are read exactly in the range that metrics have.
    (0..16)
        .rev()
        .filter_map(|n_decimals| format!("{value:.n_decimals$e}").parse().ok())
        .find(|shorter| survives(*shorter))
        .unwrap_or(value)
}

/// Settles every number in a JSON tree.
pub(crate) fn settle_all(tree: &mut Value) {
    match tree {
        Value::Number(number) if number.is_f64() => {
            if let Some(settled) = number.as_f64().map(settle).and_then(Number::from_f64) {
                *number = settled;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle_all),
        Value::Object(fields) => fields.values_mut().for_each(settle_all),
        _ => {}
    }
}

fn survives(value: f64) -> bool {
    let read = serde_json::to_string(&value).and_then(|text| serde_json::from_str::<f64>(&text));
    read.is_ok_and(|read| read.to_bits() == value.to_bits())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_decimals_are_kept() {
        for value in [0.0, -0.0, 1.0, 0.8701, 1e-3, 123.456, 0.1 + 0.2] {
            assert!((settle(value) - value).abs() <= 1e-15 * value.abs(), "{value}");
        }
        assert_eq!(settle(0.8701).to_bits(), 0.8701_f64.to_bits());
    }

    proptest! {
        #[test]
        fn settled_numbers_survive_the_file(value in -1e6_f64..1e6) {
            let settled = settle(value);
            prop_assert!(survives(settled));
            prop_assert!((settled - value).abs() <= 1e-13 * value.abs());
            prop_assert_eq!(settle(settled).to_bits(), settled.to_bits());
        }

        #[test]
        fn any_finite_number_survives(value in proptest::num::f64::NORMAL) {
            prop_assert!(survives(settle(value)));
        }
    }
}
