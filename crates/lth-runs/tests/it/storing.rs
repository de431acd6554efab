//! A run's folder: what is refused, what is replaced, what survives a crash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lth_runs::{Error, Existing, MetricRecord, RunDir, Summary, next_free, read_metrics};
use tempfile::TempDir;

use crate::faults::check_writer;
use crate::fixture::summary;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn metric(epoch: usize) -> MetricRecord {
    let run = &summary(&[0], false).runs[0];
    MetricRecord { run: run.name.clone(), seed: run.seed, epoch: run.epochs[epoch] }
}

/// All files below `root` with their contents.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path(), std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// A folder with a whole run in it, and two files that are not the run's.
fn finished() -> TempDir {
    let folder = folder();
    let summary = summary(&[0], false);
    let mut run = RunDir::create(folder.path(), Existing::Refuse).unwrap();
    run.append(&metric(0)).unwrap();
    for file in summary.runs.iter().flat_map(|run| [&run.ticket, &run.trained]).flatten() {
        run.write_file(&file.path, |writer| writer.write_all(b"weights")).unwrap();
    }
    run.finish(&summary).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    std::fs::write(folder.path().join("tickets/mine.safetensors"), "mine").unwrap();
    folder
}

#[test]
fn a_run_leaves_its_four_kinds_of_file() {
    let folder = finished();
    let names: Vec<String> = files(folder.path())
        .keys()
        .map(|path| path.strip_prefix(folder.path()).unwrap().to_string_lossy().replace('\\', "/"))
        .collect();
    assert_eq!(
        names,
        [
            "metrics.jsonl",
            "notes.txt",
            "report.md",
            "summary.json",
            "tickets/mine.safetensors",
            "tickets/search-50-seed0.ticket.safetensors",
            "tickets/search-80-seed0.ticket.safetensors",
            "tickets/ticket-50-seed0.trained.safetensors",
            "tickets/ticket-80-seed0.trained.safetensors",
        ]
    );
    let read = Summary::read(&folder.path().join("summary.json")).unwrap();
    let report = std::fs::read_to_string(folder.path().join("report.md")).unwrap();
    assert_eq!(report, lth_runs::report(&read));
}

#[test]
fn a_folder_that_holds_anything_is_refused() {
    let run = finished();
    let before = files(run.path());
    let refused = RunDir::create(run.path(), Existing::Refuse).unwrap_err();
    assert!(matches!(&refused, Error::Occupied { holds, .. } if holds == "a run"), "{refused}");
    assert_eq!(files(run.path()), before);

    let other = folder();
    std::fs::write(other.path().join("notes.txt"), "mine").unwrap();
    let refused = RunDir::create(other.path(), Existing::Refuse).unwrap_err();
    assert!(matches!(&refused, Error::Occupied { holds, .. } if holds == "`notes.txt`"), "{refused}");

    let file = other.path().join("notes.txt");
    assert!(matches!(RunDir::create(&file, Existing::Replace), Err(Error::NotAFolder { .. })));
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

#[test]
fn an_empty_folder_is_taken() {
    let folder = folder();
    RunDir::create(folder.path(), Existing::Refuse).unwrap().append(&metric(0)).unwrap();
    assert_eq!(read_metrics(&folder.path().join("metrics.jsonl")).unwrap().lines, [metric(0)]);
}

#[test]
fn replacing_loses_nothing_until_something_is_written() {
    let folder = finished();
    let before = files(folder.path());
    drop(RunDir::create(folder.path(), Existing::Replace).unwrap());
    assert_eq!(files(folder.path()), before);
    let mut run = RunDir::create(folder.path(), Existing::Replace).unwrap();
    // A record that is refused is no write either.
    let mut wrong = metric(0);
    wrong.epoch.train_loss = f64::NAN;
    assert!(matches!(run.append(&wrong), Err(Error::Invalid { .. })));
    assert!(matches!(run.prepare_file("../x"), Err(Error::FileName { .. })));
    assert_eq!(files(folder.path()), before);
}

#[test]
fn replacing_removes_the_old_run_and_nothing_else() {
    let folder = finished();
    let mut run = RunDir::create(folder.path(), Existing::Replace).unwrap();
    run.append(&metric(1)).unwrap();
    let left = files(folder.path());
    let names: Vec<_> = left.keys().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["metrics.jsonl", "notes.txt", "mine.safetensors"]);
    assert_eq!(run.metrics().unwrap().lines, [metric(1)]);
}

#[test]
fn a_summary_that_lists_foreign_files_deletes_none() {
    let folder = finished();
    let outside = folder.path().parent().unwrap().join("outside.safetensors");
    let path = folder.path().join("summary.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("tickets/ticket-50-seed0.trained", "../outside")).unwrap();
    std::fs::write(&outside, "mine").unwrap();
    let mut run = RunDir::create(folder.path(), Existing::Replace).unwrap();
    run.append(&metric(0)).unwrap();
    assert_eq!(std::fs::read(&outside).unwrap(), b"mine");
    // Such a summary is damaged, so nothing that it lists goes.
    assert!(folder.path().join("tickets/ticket-80-seed0.trained.safetensors").exists());
    std::fs::remove_file(outside).unwrap();
}

#[cfg(unix)]
#[test]
fn a_linked_ticket_folder_is_not_emptied() {
    let (elsewhere, run_folder) = (folder(), finished());
    let tickets = run_folder.path().join("tickets");
    let name = "ticket-50-seed0.trained.safetensors";
    std::fs::write(elsewhere.path().join(name), "mine").unwrap();
    std::fs::remove_dir_all(&tickets).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &tickets).unwrap();
    RunDir::create(run_folder.path(), Existing::Replace).unwrap().append(&metric(0)).unwrap();
    assert_eq!(std::fs::read(elsewhere.path().join(name)).unwrap(), b"mine");
}

#[test]
fn a_folder_made_for_nothing_goes_away() {
    let parent = folder();
    let path = parent.path().join("deep/run");
    drop(RunDir::create(&path, Existing::Refuse).unwrap());
    assert!(!path.exists());
    // One that was there stays.
    std::fs::create_dir_all(&path).unwrap();
    drop(RunDir::create(&path, Existing::Refuse).unwrap());
    assert!(path.exists());
}

#[test]
fn next_free_counts_up_and_keeps_names_plain() {
    let parent = folder();
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_string();
    assert_eq!(name(next_free(parent.path(), "toy-pets", 3)), "toy-pets-seed3");
    let runs: Vec<RunDir> =
        (0..3).map(|_| RunDir::create_next(&parent.path().join("runs"), "toy-pets", 3).unwrap()).collect();
    let names: Vec<String> = runs.iter().map(|run| name(run.path().into())).collect();
    assert_eq!(names, ["toy-pets-seed3", "toy-pets-seed3-2", "toy-pets-seed3-3"]);
    assert_eq!(name(next_free(parent.path(), "../my photos", 0)), "---my-photos-seed0");
    assert_eq!(name(next_free(parent.path(), "", 0)), "run-seed0");
}

#[test]
fn many_at_once_get_a_folder_each() {
    let parent = folder();
    let runs: Vec<RunDir> = std::thread::scope(|scope| {
        let create = || RunDir::create_next(parent.path(), "pets", 0).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let paths: std::collections::BTreeSet<&Path> = runs.iter().map(RunDir::path).collect();
    assert_eq!(paths.len(), 8);
}

#[cfg(unix)]
#[test]
fn one_folder_has_one_writer() {
    let folder = folder();
    let first = RunDir::create(folder.path(), Existing::Refuse).unwrap();
    assert!(matches!(RunDir::create(folder.path(), Existing::Replace), Err(Error::Busy { .. })));
    drop(first);
    RunDir::create(folder.path(), Existing::Refuse).unwrap();
}

#[test]
fn a_cut_last_line_is_left_out_and_overwritten() {
    let folder = folder();
    let path = folder.path().join("metrics.jsonl");
    {
        let mut run = RunDir::create(folder.path(), Existing::Refuse).unwrap();
        run.append(&metric(0)).unwrap();
        run.append(&metric(1)).unwrap();
    }
    let whole = std::fs::read(&path).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for cut in first..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let metrics = read_metrics(&path).unwrap();
        assert_eq!((metrics.lines.as_slice(), metrics.cut), ([metric(0)].as_slice(), cut > first));
        let mut run = RunDir::open(folder.path()).unwrap();
        run.append(&metric(2)).unwrap();
        let metrics = run.metrics().unwrap();
        assert_eq!((metrics.lines, metrics.cut), (vec![metric(0), metric(2)], false));
    }
}

#[test]
fn a_bad_line_in_the_middle_is_named() {
    let folder = folder();
    let path = folder.path().join("metrics.jsonl");
    RunDir::create(folder.path(), Existing::Refuse).unwrap().append(&metric(0)).unwrap();
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{good}{{\"run\": 3}}\n{good}")).unwrap();
    assert!(matches!(read_metrics(&path), Err(Error::Damaged { line: Some(2), .. })));
    assert!(matches!(RunDir::open(folder.path()), Err(Error::Damaged { line: Some(2), .. })));
}

#[test]
fn only_a_run_is_opened() {
    let folder = folder();
    assert!(matches!(RunDir::open(folder.path()), Err(Error::Absent { what: "run", .. })));
    assert!(matches!(RunDir::open(folder.path().join("none")), Err(Error::Absent { what: "run", .. })));
    let run = finished();
    assert_eq!(RunDir::open(run.path()).unwrap().summary().unwrap(), summary(&[0], false));
}

#[test]
fn a_writer_that_fails_leaves_the_old_file() {
    let folder = finished();
    let before = files(folder.path());
    let mut run = RunDir::open(folder.path()).unwrap();
    let failed = run.write_file("tickets/ticket-50-seed0.trained.safetensors", |writer| {
        writer.write_all(&[7; 100_000])?;
        Err(std::io::Error::other("no more"))
    });
    assert!(matches!(failed, Err(Error::Io { action: "write", .. })));
    assert_eq!(files(folder.path()), before);
}

#[test]
fn a_failed_write_leaves_the_old_summary_and_nothing_else() {
    let summary = summary(&[0], false);
    check_writer("summary.json", |path| summary.write(path).map_err(|error| error.to_string()));
}

#[test]
fn readers_see_one_whole_summary_or_another() {
    let folder = finished();
    let path = folder.path().join("summary.json");
    let (one, three) = (summary(&[0], false), summary(&[0, 1, 2], true));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..15 {
                three.write(&path).unwrap();
                one.write(&path).unwrap();
            }
        });
        while !writer.is_finished() {
            let read = Summary::read(&path).unwrap();
            assert!(read == one || read == three);
        }
    });
}

/// The test runs itself as another process, which writes without end until it is killed.
#[test]
fn a_killed_process_leaves_whole_files() {
    const FOLDER: &str = "LTH_RUNS_TEST_WRITES_INTO";
    if let Some(path) = std::env::var_os(FOLDER) {
        let mut run = RunDir::open(&path).or_else(|_| RunDir::create(&path, Existing::Refuse)).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::time::Instant::now() < end {
            run.append(&metric(0)).unwrap();
            run.write_file("tickets/t.bin", |writer| writer.write_all(&[7; 1_000_000])).unwrap();
            run.finish(&summary(&[0], true)).unwrap();
        }
        return;
    }
    let folder = folder();
    let path = folder.path().join("run");
    for round in 0..6 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "storing::a_killed_process_leaves_whole_files"])
            .env(FOLDER, &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let summary_path = path.join("summary.json");
        while !summary_path.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        std::thread::sleep(std::time::Duration::from_millis(40 + 7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Summary::read(&summary_path).unwrap(), summary(&[0], true));
        assert_eq!(std::fs::read(path.join("tickets/t.bin")).unwrap(), [7; 1_000_000]);
        let run = RunDir::open(&path).unwrap();
        let metrics = run.metrics().unwrap();
        assert!(!metrics.lines.is_empty() && metrics.lines.iter().all(|line| *line == metric(0)));
        let names: Vec<_> = files(&path).into_keys().collect();
        assert_eq!(names.len(), 4, "{names:?}");
    }
}

/// A process that is killed while it writes leaves a temporary file; opening the run clears it away.
#[test]
fn what_a_killed_writer_left_is_cleared() {
    let folder = finished();
    let before = files(folder.path());
    for name in [".lth-x7.partial", "tickets/.lth-y8.partial"] {
        std::fs::write(folder.path().join(name), "half").unwrap();
    }
    drop(RunDir::open(folder.path()).unwrap());
    assert_eq!(files(folder.path()), before);
}

#[test]
fn names_stay_inside_the_folder() {
    let folder = folder();
    let mut run = RunDir::create(folder.path(), Existing::Refuse).unwrap();
    for name in ["", "/x", "../x", "tickets/../x", "a//b", ".hidden", "a\\b", "C:x", "summary.json", "Report.md"] {
        let refused = run.prepare_file(name);
        assert!(matches!(refused, Err(Error::FileName { .. })), "{name:?}: {refused:?}");
    }
    assert!(files(folder.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn others_may_read_what_a_run_leaves() {
    use std::os::unix::fs::PermissionsExt;
    let folder = finished();
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    // As any file that a program makes: whatever the user's umask leaves of 0666.
    assert_eq!(mode("summary.json"), mode("notes.txt"));
}
