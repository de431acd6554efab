//! Curves of a user's own.

use lth_schedule::{Curve, Error, Schedule, Sparsity, SparsitySchedule, TrainingLength};
use proptest::prelude::*;

/// Values at even positions from 0 to 1, each until the next: whatever a user may return.
#[derive(Debug)]
struct Table {
    name: String,
    values: Vec<f64>,
}

impl Curve for Table {
    fn name(&self) -> &str {
        &self.name
    }

    fn progress(&self, position: f64) -> f64 {
        self.values[(position * (self.values.len() - 1) as f64) as usize]
    }
}

fn table(name: &str, values: &[f64]) -> Schedule {
    Schedule::own(Table { name: name.to_owned(), values: values.to_vec() })
}

/// 1 − (1 − pos)³ once more.
#[derive(Debug)]
struct Cubic;

impl Curve for Cubic {
    fn name(&self) -> &str {
        "cubic"
    }

    fn progress(&self, position: f64) -> f64 {
        1.0 - (1.0 - position).powi(3)
    }

    fn is_monotone(&self) -> bool {
        true
    }
}

proptest! {
    #[test]
    fn no_curve_leads_out_of_start_and_end(
        values in proptest::collection::vec(proptest::num::f64::ANY, 1..20),
        (start, end) in (0.0..=1.0f64, 0.0..=1.0f64),
        position in prop_oneof![0.0..=1.0f64, proptest::num::f64::ANY],
    ) {
        let (start, end) = (Sparsity::new(start).unwrap(), Sparsity::new(end).unwrap());
        let schedule = SparsitySchedule { start, ..SparsitySchedule::to(end, table("any", &values)) };
        let at = schedule.at(position);
        prop_assert!(start.min(end) <= at && at <= start.max(end), "{at} at {position}");
        let progress = schedule.schedule.progress(position);
        prop_assert!((0.0..=1.0).contains(&progress), "{progress} at {position}");
    }

    #[test]
    fn an_own_curve_equal_to_a_built_in_one_plans_the_same(
        (start, end) in (0.0..=1.0f64, 0.0..=1.0f64),
        (epochs, per_epoch) in (2u32..10, 1u32..20),
    ) {
        let (start, end) = (Sparsity::new(start).unwrap(), Sparsity::new(end).unwrap());
        let length = TrainingLength::new(epochs, per_epoch).unwrap();
        let plan = |schedule: Schedule| {
            let window = "1ep..end".parse().unwrap();
            SparsitySchedule { start, window, ..SparsitySchedule::to(end, schedule) }.plan(length).unwrap()
        };
        let (own, built_in) = (plan(Schedule::own(Cubic)), plan(Schedule::Agp));
        for iteration in 0..=length.iterations() {
            prop_assert_eq!(own.sparsity(iteration), built_in.sparsity(iteration));
        }
    }
}

#[test]
fn what_a_curve_does_not_say_of_itself_counts_as_no() {
    let (careful, cubic) = (table("t", &[0.0, 1.0]), Schedule::own(Cubic));
    assert!(!careful.is_monotone() && !careful.is_stepwise());
    assert!(cubic.is_monotone() && !cubic.is_stepwise());
}

#[test]
fn a_curve_that_is_nan_has_no_plan() -> Result<(), Error> {
    let schedule = SparsitySchedule::to(Sparsity::from_percent(50.0)?, table("gap", &[0.0, f64::NAN, 1.0]));
    let error = schedule.plan(TrainingLength::new(2, 10)?);
    assert_eq!(error, Err(Error::CurveNan { schedule: "own(gap)".to_owned(), position: 0.5 }));
    Ok(())
}

#[test]
fn a_curve_is_written_by_name_and_cannot_be_read() -> Result<(), serde_json::Error> {
    let schedule = table("linear", &[0.0]);
    assert_ne!(schedule, Schedule::Linear);
    assert_eq!(schedule, table("linear", &[1.0]));
    assert_ne!(schedule, table("other", &[0.0]));
    assert_eq!(serde_json::to_string(&schedule)?, r#""own(linear)""#);
    for name in ["linear", "a, b", "f(x)", ""] {
        let text = table(name, &[0.0]).to_string();
        assert_eq!(text.parse::<Schedule>(), Err(Error::Own { schedule: text.clone() }));
        let read = serde_json::from_value::<SparsitySchedule>(serde_json::json!({ "schedule": text, "end": 0.5 }));
        let message = read.map_err(|error| error.to_string());
        assert!(
            matches!(&message, Err(message) if message.starts_with(&format!("`{text}` is a curve of one's own"))),
            "{message:?}"
        );
    }
    Ok(())
}
