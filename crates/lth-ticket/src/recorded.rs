//! Curves and groups of a user's own, as a ticket's header has them: by name, which is all that a file can hold.
//!
//! A selection or schedule with one of them cannot be read, since nothing could be done with it. A ticket can: its header
//! tells what was done.

use lth_mask::{Granularity, Groups, Layer, Selection};
use lth_schedule::{Curve, Schedule, SparsitySchedule};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};
use serde_json::Value;

/// Of what only the name is known.
#[derive(Debug)]
struct Recorded(String);

impl Curve for Recorded {
    fn name(&self) -> &str {
        &self.0
    }

    /// NaN, of which no plan is made.
    fn progress(&self, _: f64) -> f64 {
        f64::NAN
    }
}

impl Groups for Recorded {
    fn name(&self) -> &str {
        &self.0
    }

    fn groups(&self, _: &[usize], _: Layer) -> Result<Vec<usize>, String> {
        Err("only its name is recorded, expected the groups themselves".to_owned())
    }
}

/// # Errors
/// If it is no schedule, for another reason than its curve.
pub(crate) fn schedule<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SparsitySchedule, D::Error> {
    let mut value = Value::deserialize(deserializer)?;
    let own = value.get_mut("schedule").and_then(|curve| {
        let name = curve.as_str()?.strip_prefix("own(")?.strip_suffix(')')?.to_owned();
        *curve = Schedule::OneShot.to_string().into(); // holds its place
        Some(name)
    });
    let mut schedule: SparsitySchedule = read(value)?;
    if let Some(name) = own {
        schedule.schedule = Schedule::own(Recorded(name));
    }
    Ok(schedule)
}

/// # Errors
/// If it is no selection, for another reason than its groups.
pub(crate) fn selection<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Selection, D::Error> {
    let mut value = Value::deserialize(deserializer)?;
    let own = |granularity: &mut Value| {
        let name = granularity.get("own")?.as_str()?.to_owned();
        *granularity = Granularity::Weight.to_string().into(); // holds its place
        Some(Granularity::own(Recorded(name)))
    };
    let granularity = value.get_mut("granularity").and_then(own);
    let by_name = value.get_mut("granularities").and_then(Value::as_object_mut).into_iter().flatten();
    let by_name: Vec<_> = by_name.filter_map(|(name, value)| Some((name.clone(), own(value)?))).collect();
    let mut selection: Selection = read(value)?;
    selection.granularities.extend(by_name);
    if let Some(granularity) = granularity {
        selection.granularity = granularity;
    }
    Ok(selection)
}

fn read<T: DeserializeOwned, E: Error>(value: Value) -> Result<T, E> {
    serde_json::from_value(value).map_err(E::custom)
}
