//! The folder of an experiment: whole files, one writer, and nothing foreign ever removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lth_runs::tensorboard::EventFile;
use lth_runs::{Address, Error, Existing, ExperimentDir, ExperimentRecord, FitRecord, MetricLine, Summary, report};
use tempfile::TempDir;

use crate::fixture::imp;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn experiment(identity: &str) -> ExperimentRecord {
    ExperimentRecord { name: "imp".into(), identity: identity.into(), config: serde_json::json!({ "levels": 2 }) }
}

/// Every file below `root` with what it holds.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("readable");
                found.insert(path.strip_prefix(root).expect("below it").to_path_buf(), bytes);
            }
        }
    }
    found
}

fn first_fit(summary: &Summary) -> FitRecord {
    summary.fits[0].clone()
}

/// An experiment with a fit and its file, a line of metrics, a summary and its reports.
fn finished(path: &Path) -> Result<Summary, Error> {
    let summary = imp(&[0], 1);
    let mut dir = ExperimentDir::open(path, experiment("a"), Existing::Refuse)?;
    let fit = first_fit(&summary);
    let (ticket, relative) = dir.prepare_file(&fit.address, "ticket.safetensors")?;
    assert_eq!(relative, "fits/dense/level-00/seed-0/ticket.safetensors");
    std::fs::write(ticket, b"weights").expect("written");
    dir.append(&MetricLine { fit: fit.address.clone(), at: fit.history[0].clone() })?;
    dir.write_record(&fit)?;
    dir.finish(&summary, report::files)
}

#[test]
fn an_experiment_leaves_its_files_and_goes_on() -> Result<(), Error> {
    let folder = folder();
    let summary = finished(folder.path())?;
    let names: Vec<String> = files(folder.path()).keys().map(|path| path.display().to_string()).collect();
    let fit = "fits/dense/level-00/seed-0";
    let expected = [
        "experiment.json".to_owned(),
        format!("{fit}/record.json"),
        format!("{fit}/ticket.safetensors"),
        "metrics.jsonl".into(),
        "report.html".into(),
        "report.md".into(),
        "summary.json".into(),
    ];
    assert_eq!(names, expected);
    let again = ExperimentDir::open(folder.path(), experiment("a"), Existing::Refuse)?;
    assert_eq!(again.record(&Address::new("dense", 0, 0))?, Some(first_fit(&summary)));
    assert_eq!(again.record(&Address::new("ticket", 1, 0))?, None);
    assert_eq!(again.summary()?, Some(summary));
    Ok(())
}

#[test]
fn a_report_needs_the_summary_alone() -> Result<(), Error> {
    let folder = folder();
    let summary = finished(folder.path())?;
    let read = Summary::read(&folder.path().join("summary.json"))?;
    assert_eq!(read, summary);
    for (name, text) in report::files(&read) {
        assert_eq!(std::fs::read_to_string(folder.path().join(name)).ok(), Some(text), "{name}");
    }
    Ok(())
}

#[test]
fn a_folder_that_holds_anything_else_is_refused() -> Result<(), Error> {
    let folder = folder();
    finished(folder.path())?;
    let before = files(folder.path());
    let refused = ExperimentDir::open(folder.path(), experiment("b"), Existing::Refuse);
    assert!(matches!(refused, Err(Error::Occupied { holds, .. }) if holds == "another experiment (`imp`, a)"));
    assert_eq!(files(folder.path()), before);
    let other = tempfile::tempdir().expect("a folder");
    std::fs::write(other.path().join("thesis.tex"), b"years").expect("written");
    let refused = ExperimentDir::open(other.path(), experiment("b"), Existing::Refuse);
    assert!(matches!(refused, Err(Error::Occupied { holds, .. }) if holds == "`thesis.tex`"));
    let file = other.path().join("thesis.tex");
    assert!(matches!(ExperimentDir::open(&file, experiment("b"), Existing::Replace), Err(Error::NotAFolder { .. })));
    Ok(())
}

#[test]
fn replacing_loses_nothing_until_something_is_written() -> Result<(), Error> {
    let folder = folder();
    finished(folder.path())?;
    let before = files(folder.path());
    let mut dir = ExperimentDir::open(folder.path(), experiment("b"), Existing::Replace)?;
    assert_eq!((dir.record(&Address::new("dense", 0, 0))?, dir.summary()?), (None, None));
    assert_eq!(files(folder.path()), before);
    let mut record = first_fit(&imp(&[1], 1));
    record.files.clear();
    dir.write_record(&record)?;
    let names: Vec<PathBuf> = files(folder.path()).into_keys().collect();
    assert_eq!(names, ["experiment.json", "fits/dense/level-00/seed-1/record.json"].map(PathBuf::from));
    Ok(())
}

#[test]
fn replacing_leaves_what_no_experiment_wrote() -> Result<(), Error> {
    let folder = folder();
    finished(folder.path())?;
    let notes = folder.path().join("fits/dense/level-00/seed-0/notes.txt");
    std::fs::write(&notes, b"mine").expect("written");
    std::fs::write(folder.path().join("thesis.tex"), b"years").expect("written");
    // A record that lists a file of somebody else's: it is outside the fit's own folder.
    let record = folder.path().join("fits/dense/level-00/seed-0/record.json");
    let text = std::fs::read_to_string(&record).expect("readable");
    std::fs::write(&record, text.replace("fits/dense/level-00/seed-0/ticket.safetensors", "thesis.tex"))
        .expect("written");
    let mut dir = ExperimentDir::open(folder.path(), experiment("b"), Existing::Replace)?;
    dir.write_record(&FitRecord { files: BTreeMap::new(), ..first_fit(&imp(&[1], 1)) })?;
    assert!(notes.exists() && folder.path().join("thesis.tex").exists());
    assert!(!record.exists() && !folder.path().join("summary.json").exists());
    Ok(())
}

#[test]
fn replacing_removes_what_fits_without_a_record_left() -> Result<(), Error> {
    let folder = folder();
    finished(folder.path())?;
    let done = Address::new("dense", 0, 0);
    let killed = Address::new("ticket", 1, 0);
    let mut dir = ExperimentDir::open(folder.path(), experiment("a"), Existing::Refuse)?;
    let (ticket, _) = dir.prepare_file(&killed, "ticket.safetensors")?;
    std::fs::write(&ticket, b"without a record").expect("written");
    // Done again, and killed before it had a file.
    dir.forget(&done)?;
    drop(dir);
    // What another file was to become when the process was killed, and one that is nobody's business.
    let fit = ticket.parent().expect("a folder").to_path_buf();
    lth_files::write_atomic(&fit.join("end.safetensors"), |_| {
        for entry in std::fs::read_dir(&fit)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                std::fs::copy(entry.path(), fit.join(format!("{}1.partial", entry.file_name().to_string_lossy())))?;
            }
        }
        Ok(())
    })?;
    std::fs::remove_file(fit.join("end.safetensors")).expect("removed");
    std::fs::write(fit.join("notes.txt"), b"mine").expect("written");
    assert_eq!(std::fs::read_dir(&fit).expect("a folder").count(), 4);

    let mut dir = ExperimentDir::open(folder.path(), experiment("b"), Existing::Replace)?;
    dir.write_record(&FitRecord { files: BTreeMap::new(), ..first_fit(&imp(&[1], 1)) })?;
    let names: Vec<PathBuf> = files(folder.path()).into_keys().collect();
    let kept = ["experiment.json", "fits/dense/level-00/seed-1/record.json", "fits/ticket/level-01/seed-0/notes.txt"];
    assert_eq!(names, kept.map(PathBuf::from));
    Ok(())
}

#[test]
fn a_whole_fit_has_no_list_of_files_without_a_record() -> Result<(), Error> {
    let folder = folder();
    finished(folder.path())?;
    assert!(files(folder.path()).keys().all(|name| !name.ends_with("unrecorded.txt")));
    Ok(())
}

#[test]
fn fits_that_are_there_are_told_by_their_folders() -> Result<(), Error> {
    let folder = folder();
    finished(folder.path())?;
    for name in ["fits/dense/level-0/seed-0", "fits/Dense/level-00/seed-0", "fits/dense/level-00/seed-9"] {
        std::fs::create_dir_all(folder.path().join(name)).expect("a folder");
    }
    // Not as an address writes it, and without a record.
    std::fs::write(folder.path().join("fits/dense/level-0/seed-0/record.json"), b"{}").expect("written");
    let dir = ExperimentDir::open(folder.path(), experiment("a"), Existing::Refuse)?;
    assert_eq!(dir.addresses(), [Address::new("dense", 0, 0)]);
    drop(dir);
    let dir = ExperimentDir::open(folder.path(), experiment("b"), Existing::Replace)?;
    assert_eq!(dir.addresses(), []);
    Ok(())
}

#[test]
fn events_of_a_replaced_experiment_go_and_those_of_others_stay() -> Result<(), Error> {
    let folder = folder();
    finished(folder.path())?;
    let fit = folder.path().join("fits/dense/level-00/seed-0");
    drop(EventFile::create(&fit, 12.5)?);
    // Of a second time there is one file only.
    EventFile::create(&fit, 99.0)?.add(99.5, 3, &[("loss", 0.5)])?;
    let foreign = fit.join("events.out.tfevents.1.host");
    std::fs::write(&foreign, b"").expect("written");
    let events =
        |fit: &Path| files(fit).into_keys().filter(|name| name.to_string_lossy().starts_with("events.")).count();
    assert_eq!((events(&fit), EventFile::is_in(&fit)), (2, true));
    let mut dir = ExperimentDir::open(folder.path(), experiment("b"), Existing::Replace)?;
    dir.write_record(&FitRecord { files: BTreeMap::new(), ..first_fit(&imp(&[1], 1)) })?;
    assert!(foreign.exists() && !EventFile::is_in(&fit));
    Ok(())
}

#[test]
fn a_folder_made_for_nothing_goes_away() -> Result<(), Error> {
    let parent = folder();
    let path = parent.path().join("runs/imp");
    drop(ExperimentDir::open(&path, experiment("a"), Existing::Refuse)?);
    assert!(!parent.path().join("runs").exists());
    Ok(())
}

#[cfg(unix)]
#[test]
fn one_folder_has_one_writer() -> Result<(), Error> {
    let folder = folder();
    let first = ExperimentDir::open(folder.path(), experiment("a"), Existing::Refuse)?;
    let second = ExperimentDir::open(folder.path(), experiment("a"), Existing::Replace);
    assert!(matches!(second, Err(Error::Busy { .. })));
    drop(first);
    ExperimentDir::open(folder.path(), experiment("a"), Existing::Refuse)?;
    Ok(())
}

#[test]
fn a_line_that_a_killed_process_left_half_written_is_taken_away() -> Result<(), Error> {
    let folder = folder();
    finished(folder.path())?;
    let path = folder.path().join("metrics.jsonl");
    let whole = std::fs::read_to_string(&path).expect("readable");
    std::fs::write(&path, format!("{whole}{{\"fit\":\"tick")).expect("written");
    let mut dir = ExperimentDir::open(folder.path(), experiment("a"), Existing::Refuse)?;
    let fit = first_fit(&imp(&[0], 1));
    dir.append(&MetricLine { fit: fit.address.clone(), at: fit.history[1].clone() })?;
    let text = std::fs::read_to_string(&path).expect("readable");
    assert!(text.starts_with(&whole) && text.lines().count() == 2, "{text}");
    let second: MetricLine = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("a whole line");
    assert_eq!((second.fit, second.at), (fit.address, fit.history[1].clone()));
    Ok(())
}

#[test]
fn a_fit_that_is_forgotten_is_done_again() -> Result<(), Error> {
    let folder = folder();
    finished(folder.path())?;
    let mut dir = ExperimentDir::open(folder.path(), experiment("a"), Existing::Refuse)?;
    let address = Address::new("dense", 0, 0);
    dir.forget(&address)?;
    assert_eq!(dir.record(&address)?, None);
    assert!(folder.path().join("fits/dense/level-00/seed-0/ticket.safetensors").exists());
    Ok(())
}

#[test]
fn a_record_in_another_fits_place_is_refused() -> Result<(), Error> {
    let folder = folder();
    finished(folder.path())?;
    let place = |seed: u64| folder.path().join(format!("fits/dense/level-00/seed-{seed}"));
    std::fs::create_dir_all(place(1)).expect("made");
    std::fs::copy(place(0).join("record.json"), place(1).join("record.json")).expect("copied");
    let dir = ExperimentDir::open(folder.path(), experiment("a"), Existing::Refuse)?;
    let error = dir.record(&Address::new("dense", 0, 1)).expect_err("it is seed 0's").to_string();
    assert!(error.ends_with("it is the record of dense/0/0, expected that of dense/0/1"), "{error}");
    Ok(())
}

#[test]
fn names_stay_inside_the_fits_folder() -> Result<(), Error> {
    let folder = folder();
    let mut dir = ExperimentDir::open(folder.path(), experiment("a"), Existing::Refuse)?;
    for name in ["", ".", "..", "../x", "a/b", "a\\b", "c:x", ".hidden", "record.json"] {
        let refused = dir.prepare_file(&Address::new("dense", 0, 0), name);
        assert!(matches!(refused, Err(Error::FileName { .. })), "{name}");
    }
    Ok(())
}

/// Held to the same as every other writer: a file is there whole or not at all.
#[cfg(target_os = "linux")]
#[test]
fn a_summary_that_cannot_be_written_leaves_the_old_one() {
    let summary = imp(&[1, 2, 3], 1);
    crate::writers::check_writer("summary.json", |path| summary.write(path).map_err(|error| error.to_string()));
}

#[test]
fn a_folder_with_half_a_manifest_of_a_killed_process_is_begun_anew() -> Result<(), Error> {
    let folder = folder();
    let path = folder.path().join("run");
    std::fs::create_dir(&path).expect("a folder");
    std::fs::write(path.join(".lth-a1B2c3.partial"), "{ \"name\"").expect("writable");
    let mut dir = ExperimentDir::open(&path, experiment("a"), Existing::Refuse)?;
    let summary = imp(&[1], 1);
    dir.write_record(&first_fit(&summary))?;
    assert!(files(&path).keys().all(|name| !name.to_string_lossy().contains("partial")));
    Ok(())
}
