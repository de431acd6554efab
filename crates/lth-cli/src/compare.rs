//! `lth compare`: two experiments side by side.

use std::path::{Path, PathBuf};

use clap::Args;
use lth_runs::experiment::{FitRecord, Summary};
use lth_runs::table::{Align, Table};

use crate::console::Console;
use crate::failure::{Blame, Result};

/// Lays two experiments side by side: which options differ, and the figures of every arm and level that both have.
///
/// It compares what was measured and says nothing of chance: seeds of two experiments are no pairs.
#[derive(Args)]
#[command(after_help = "\
Example:
  lth compare runs/lenet-digits-5f0c1a2b runs/lenet-digits-77aa01c4")]
pub struct Options {
    /// The first experiment
    first: PathBuf,
    /// The second
    second: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(false);
    let (first, second) = (read(&options.first)?, read(&options.second)?);
    let differences = differences(&first.experiment.config, &second.experiment.config, String::new());
    if differences.is_empty() {
        console.line("The same options.");
    }
    let mut table = Table::new([("option", Align::Left), ("first", Align::Left), ("second", Align::Left)]);
    for (field, one, other) in differences {
        table.push([field, one, other]);
    }
    if !table.is_empty() {
        console.line(table.plain());
    }
    console.line(figures(&first, &second).plain().trim_end());
    console.finish()
}

fn read(path: &Path) -> Result<Summary> {
    let file = if path.is_dir() { path.join("summary.json") } else { path.to_path_buf() };
    Summary::read(&file).data()
}

/// Means over the seeds of each experiment.
fn figures(first: &Summary, second: &Summary) -> Table {
    let metric = &first.metric;
    let mut table = Table::new([
        ("arm", Align::Left),
        ("level", Align::Right),
        ("density %, first", Align::Right),
        ("second", Align::Right),
        ("metric, first", Align::Right),
        ("second", Align::Right),
        ("seconds, first", Align::Right),
        ("second", Align::Right),
    ]);
    for arm in &first.arms {
        for level in first.levels() {
            let of = |summary: &Summary| -> Vec<FitRecord> {
                let here =
                    |fit: &&FitRecord| fit.address.arm == arm.name && fit.address.level == level && fit.is_whole();
                summary.fits.iter().filter(here).cloned().collect()
            };
            let (one, other) = (of(first), of(second));
            if one.is_empty() || other.is_empty() {
                continue;
            }
            let mean = |fits: &[FitRecord], value: &dyn Fn(&FitRecord) -> Option<f64>| -> Option<f64> {
                let values: Vec<f64> = fits.iter().filter_map(value).collect();
                (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
            };
            let density = |fits: &[FitRecord]| mean(fits, &|fit| Some(100.0 * (1.0 - fit.measured_sparsity()?)));
            let figure = |fits: &[FitRecord]| mean(fits, &|fit| fit.metric(metric));
            let seconds = |fits: &[FitRecord]| mean(fits, &|fit| Some(fit.seconds()));
            let text = |value: Option<f64>, decimals: usize| {
                value.map_or_else(String::new, |value| format!("{value:.decimals$}"))
            };
            table.push([
                arm.name.clone(),
                level.to_string(),
                text(density(&one), 2),
                text(density(&other), 2),
                text(figure(&one), 4),
                text(figure(&other), 4),
                text(seconds(&one), 1),
                text(seconds(&other), 1),
            ]);
        }
    }
    table
}

/// The fields in which two configurations differ, by their paths.
fn differences(one: &serde_json::Value, other: &serde_json::Value, path: String) -> Vec<(String, String, String)> {
    use serde_json::Value;
    match (one, other) {
        _ if one == other => Vec::new(),
        (Value::Object(first), Value::Object(second)) => {
            let mut fields: Vec<&String> = first.keys().chain(second.keys()).collect();
            fields.sort();
            fields.dedup();
            let below = |field: &String| if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
            let of =
                |map: &serde_json::Map<String, Value>, field: &String| map.get(field).cloned().unwrap_or(Value::Null);
            fields
                .into_iter()
                .flat_map(|field| differences(&of(first, field), &of(second, field), below(field)))
                .collect()
        }
        _ => {
            let text = |value: &Value| if value.is_null() { "default".to_owned() } else { value.to_string() };
            vec![(path, text(one), text(other))]
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::differences;

    #[test]
    fn what_differs_is_named_by_its_path() {
        let found =
            differences(&json!({"a": {"b": 1, "c": 2}, "d": 3}), &json!({"a": {"b": 1, "c": 5}}), String::new());
        let expected = [("a.c", "2", "5"), ("d", "3", "default")];
        assert_eq!(found, expected.map(|(path, one, other)| (path.to_owned(), one.to_owned(), other.to_owned())));
    }
}
