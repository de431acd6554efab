//! Whether two experiments are the same to the last bit, and whether an experiment's files are what its records say.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use lth_files::sha256_file;
use serde_json::Value;

use super::{Address, Evaluated, FitRecord, PathRecord, Summary};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discrepancy {
    /// The fit.
    pub fit: Address,
    /// What of it.
    pub what: String,
    /// What it is in the first experiment, or on the disk.
    pub got: String,
    /// What it is in the second, or in the record.
    pub expected: String,
}

/// "ticket/1/0: plan is …, expected …"
impl fmt::Display for Discrepancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fit, what, got, expected } = self;
        write!(f, "{fit}: {what} is {got}, expected {expected}")
    }
}

/// Where the fits of two experiments differ, and the paths between them: plans, masks' sizes, figures to the last bit, what
/// the files hold. Times and memory are no part of it, and neither are fits that only one of them has, which come back
/// beside.
pub fn differences(first: &Summary, second: &Summary) -> (Vec<Discrepancy>, Vec<Address>) {
    let addresses = |summary: &Summary| summary.fits.iter().map(|fit| fit.address.clone()).collect::<BTreeSet<_>>();
    let alone = addresses(first).symmetric_difference(&addresses(second)).cloned().collect();
    let mut found = Vec::new();
    for one in &first.fits {
        if let Some(other) = second.fits.iter().find(|other| other.address == one.address) {
            found.extend(fit_differences(one, other));
        }
    }
    for one in &first.paths {
        if let Some(other) = second.paths.iter().find(|other| other.ends == one.ends) {
            found.extend(path_differences(one, other));
        }
    }
    (found, alone)
}

/// Where two records of one path differ, if they do: the time that measuring took is no part of it.
#[must_use]
pub fn path_differences(one: &PathRecord, other: &PathRecord) -> Option<Discrepancy> {
    let untimed = |path: &PathRecord| PathRecord { seconds: 0.0, ..path.clone() };
    let text = |path: &PathRecord| serde_json::to_string(&untimed(path)).unwrap_or_default();
    let [_, last] = &one.ends;
    let what = "the path to it".to_owned();
    (untimed(one) != untimed(other)).then(|| Discrepancy {
        fit: last.clone(),
        what,
        got: text(one),
        expected: text(other),
    })
}

/// Where two records of one fit differ; see [`differences`].
#[must_use]
pub fn fit_differences(one: &FitRecord, other: &FitRecord) -> Vec<Discrepancy> {
    let mut found = Vec::new();
    let mut check = |what: &str, got: String, expected: String| {
        if got != expected {
            found.push(Discrepancy { fit: one.address.clone(), what: what.to_owned(), got, expected });
        }
    };
    check("plan", one.plan.clone(), other.plan.clone());
    check("ending", format!("{:?}", one.ending), format!("{:?}", other.ending));
    check("number of measurements", one.history.len().to_string(), other.history.len().to_string());
    for (at, expected) in one.history.iter().zip(&other.history) {
        let figures = |at: &super::Measurement| {
            let metrics: Vec<_> = at.metrics.iter().map(|(name, value)| (name, value.to_bits())).collect();
            let bits = at.valid_loss.map(f64::to_bits);
            format!("step {}: {:?} {bits:?} {metrics:?} {:?}", at.step, at.train_loss.to_bits(), at.sparsity)
        };
        // One line is enough: what comes after follows from it.
        if figures(at) != figures(expected) {
            check("figures", figures(at), figures(expected));
            break;
        }
    }
    let evaluated = |at: &Option<Evaluated>| serde_json::to_string(at).unwrap_or_default();
    check("figures at the end", evaluated(&one.at_end), evaluated(&other.at_end));
    check("figures at the best step", evaluated(&one.at_best), evaluated(&other.at_best));
    check("layers", format!("{:?}", one.layers), format!("{:?}", other.layers));
    let names = |record: &FitRecord| format!("{:?}", record.files.keys().collect::<Vec<_>>());
    check("names of files", names(one), names(other));
    for (name, file) in &one.files {
        let Some(expected) = other.files.get(name) else { continue };
        // A header may name another version of the program.
        match (&file.content, &expected.content) {
            (Some(got), Some(expected)) => check(&format!("content of {name}"), got.clone(), expected.clone()),
            _ => check(&format!("file {name}"), file.sha256.clone(), expected.sha256.clone()),
        }
    }
    found
}

/// The fields in which two configurations differ, by their dotted paths; what one of them leaves out is `default`.
#[must_use]
pub fn config_differences(one: &Value, other: &Value) -> Vec<(String, String, String)> {
    below(one, other, String::new())
}

fn below(one: &Value, other: &Value, path: String) -> Vec<(String, String, String)> {
    match (one, other) {
        _ if one == other => Vec::new(),
        (Value::Object(first), Value::Object(second)) => {
            let fields: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
            let dotted = |field: &String| if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
            let of = |map: &serde_json::Map<String, Value>, field: &String| map.get(field).cloned().unwrap_or_default();
            fields.into_iter().flat_map(|field| below(&of(first, field), &of(second, field), dotted(field))).collect()
        }
        _ => {
            let text = |value: &Value| if value.is_null() { "default".to_owned() } else { value.to_string() };
            vec![(path, text(one), text(other))]
        }
    }
}

/// The files of an experiment in `folder` that are not what the records say.
pub fn damaged_files(folder: &Path, summary: &Summary) -> Vec<Discrepancy> {
    let mut found = Vec::new();
    for fit in &summary.fits {
        for (name, file) in &fit.files {
            let got = match sha256_file(&folder.join(&file.path)) {
                Ok((sha256, _)) if sha256 == file.sha256 => continue,
                Ok((sha256, _)) => sha256,
                Err(error) => error.to_string(),
            };
            found.push(Discrepancy {
                fit: fit.address.clone(),
                what: format!("file {name}"),
                got,
                expected: file.sha256.clone(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::config_differences;

    #[test]
    fn what_differs_is_named_by_its_path() {
        let found = config_differences(&json!({"a": {"b": 1, "c": 2}, "d": 3}), &json!({"a": {"b": 1, "c": 5}}));
        let expected = [("a.c", "2", "5"), ("d", "3", "default")];
        assert_eq!(found, expected.map(|(path, one, other)| (path.to_owned(), one.to_owned(), other.to_owned())));
    }
}
