//! Records of experiments that are damaged or mean harm.

use lth_runs::{Existing, ExperimentDir, ExperimentRecord, MetricLine, Summary, report};

use crate::fixture::imp;
use crate::mutations::{Memory, check};

const MEMORY: Memory = Memory { base: 1 << 20, per_byte: 128 };

#[test]
fn summaries_survive_any_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("summary.json");
    let mut summary = imp(&[0], 0);
    summary.fits.truncate(1);
    summary.fits[0].history.truncate(1);
    let valid = summary.to_json().expect("it is valid");
    check(valid.as_bytes(), 5_000, MEMORY, |bytes| {
        std::fs::write(&path, bytes).expect("a small file");
        let read = Summary::read(&path).map_err(|error| error.to_string())?;
        // What is taken can be shown.
        let _ = report::overview(&read);
        Ok(())
    });
}

#[test]
fn an_experiments_folder_survives_any_damage() {
    let experiment =
        || ExperimentRecord { name: "imp".into(), identity: "a".into(), config: serde_json::json!({ "levels": 2 }) };
    let summary = imp(&[0], 0);
    let fit = &summary.fits[0];
    let made = || {
        let folder = tempfile::tempdir().expect("a folder");
        let mut dir = ExperimentDir::open(folder.path(), experiment(), Existing::Refuse).expect("it is empty");
        dir.append(&MetricLine { fit: fit.address.clone(), at: fit.history[0].clone() }).expect("a line");
        dir.write_record(fit).expect("a record");
        drop(dir);
        folder
    };
    for file in ["experiment.json", "metrics.jsonl", "fits/dense/level-00/seed-0/record.json"] {
        let folder = made();
        let path = folder.path().join(file);
        let valid = std::fs::read(&path).expect("it is there");
        check(&valid, 2_000, MEMORY, |bytes| {
            std::fs::write(&path, bytes).expect("a small file");
            let read = || {
                let mut dir = ExperimentDir::open(folder.path(), experiment(), Existing::Refuse)?;
                dir.record(&fit.address)?;
                dir.drop_lines_after(&fit.address, u64::MAX)
            };
            read().map_err(|error| error.to_string())
        });
    }
}
