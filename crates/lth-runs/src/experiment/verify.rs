//! Whether two experiments are the same to the last bit, and whether an experiment's files are what its records say.

use std::collections::BTreeSet;
use std::path::Path;

use lth_files::sha256_file;

use super::{Address, Evaluated, FitRecord, Summary};

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

/// Where the fits of two experiments differ: plans, masks' sizes, figures to the last bit, what the files hold. Times and
/// memory are no part of it, and neither are fits that only one of them has, which come back beside.
pub fn differences(first: &Summary, second: &Summary) -> (Vec<Discrepancy>, Vec<Address>) {
    let addresses = |summary: &Summary| summary.fits.iter().map(|fit| fit.address.clone()).collect::<BTreeSet<_>>();
    let alone = addresses(first).symmetric_difference(&addresses(second)).cloned().collect();
    let mut found = Vec::new();
    for one in &first.fits {
        if let Some(other) = second.fits.iter().find(|other| other.address == one.address) {
            compare(one, other, &mut found);
        }
    }
    (found, alone)
}

fn compare(one: &FitRecord, other: &FitRecord, found: &mut Vec<Discrepancy>) {
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
