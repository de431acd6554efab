//! What is written is what is read.

use lth_runs::{EpochRecord, Error, Existing, MetricRecord, Role, RunDir, RunRecord, SCHEMA, Summary};
use proptest::prelude::*;

use crate::fixture::{run, summary};

fn epoch(index: usize) -> impl Strategy<Value = EpochRecord> {
    let loss = || -10.0_f64..1e3;
    let time = || 0.0_f64..1e5;
    (loss(), loss(), 0.0_f64..=1.0, time(), time(), 0.0_f64..=1.0).prop_map(
        move |(train_loss, valid_loss, accuracy, seconds, valid_seconds, sparsity)| EpochRecord {
            epoch: index,
            train_loss,
            valid_loss,
            accuracy,
            seconds,
            valid_seconds,
            sparsity,
        },
    )
}

fn record() -> impl Strategy<Value = RunRecord> {
    let role = prop_oneof![Just(Role::Baseline), Just(Role::Search), Just(Role::Ticket), Just(Role::Other)];
    let epochs = prop_oneof![(epoch(0), epoch(1)).prop_map(|(a, b)| vec![a, b]), Just(Vec::new())];
    (role, any::<bool>(), any::<u64>(), 0.0_f64..=1.0, epochs, ".{1,12}").prop_map(
        |(role, control, seed, sparsity, epochs, name)| RunRecord {
            control,
            seed,
            sparsity,
            epochs,
            ..run(&name, role, 0, 0.0, 1, 0.5)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_summary_comes_back_bit_for_bit(records in proptest::collection::vec(record(), 0..4)) {
        let mut written = summary(&[0, 1], true);
        // Names made unique, files made plain: the validity of those is tested elsewhere.
        written.runs.extend(records.into_iter().enumerate().map(|(index, record)| RunRecord {
            name: format!("{index}{}", record.name),
            ticket: None,
            trained: None,
            ..record
        }));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.json");
        written.write(&path).unwrap();
        let read = Summary::read(&path).unwrap();
        prop_assert_eq!(&read, &written.settled().unwrap());
        // What was read is written as the same bytes.
        prop_assert_eq!(read.to_json().unwrap(), std::fs::read_to_string(&path).unwrap());
        for (read, written) in read.runs.iter().zip(&written.runs) {
            for (read, written) in read.epochs.iter().zip(&written.epochs) {
                let close = |read: f64, written: f64| (read - written).abs() <= 1e-13 * written.abs();
                prop_assert!(close(read.train_loss, written.train_loss));
                prop_assert!(close(read.seconds, written.seconds));
            }
        }
    }

    #[test]
    fn metrics_come_back_in_order(epochs in proptest::collection::vec(epoch(3), 0..6), seed in any::<u64>(), run in ".{0,8}") {
        let folder = tempfile::tempdir().unwrap();
        let mut dir = RunDir::create(folder.path(), Existing::Refuse).unwrap();
        for epoch in &epochs {
            dir.append(&MetricRecord { run: run.clone(), seed, epoch: *epoch }).unwrap();
        }
        let metrics = dir.metrics().unwrap();
        prop_assert!(!metrics.cut);
        prop_assert_eq!(metrics.lines.len(), epochs.len());
        for (read, written) in metrics.lines.iter().zip(&epochs) {
            prop_assert_eq!((&read.run, read.seed), (&run, seed));
            prop_assert!((read.epoch.train_loss - written.train_loss).abs() <= 1e-13 * written.train_loss.abs());
        }
    }

    #[test]
    fn any_cut_of_a_summary_is_an_error(share in 0.0_f64..1.0) {
        let text = summary(&[0], true).to_json().unwrap();
        let cut = (share * (text.len() - 2) as f64) as usize;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.json");
        std::fs::write(&path, &text.as_bytes()[..cut]).unwrap();
        let damaged = matches!(Summary::read(&path), Err(Error::Damaged { .. }));
        prop_assert!(damaged);
    }
}

fn read(text: &str) -> Result<Summary, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("summary.json");
    std::fs::write(&path, text).unwrap();
    Summary::read(&path)
}

fn changed(change: impl FnOnce(&mut Summary)) -> Summary {
    let mut summary = summary(&[0], true);
    change(&mut summary);
    summary
}

#[test]
fn another_schema_is_told_from_a_damaged_file() {
    let newer = summary(&[0], false).to_json().unwrap().replace("\"schema\": 1", "\"schema\": 2");
    assert!(matches!(read(&newer), Err(Error::SchemaVersion { found: 2, expected: SCHEMA, .. })));
    assert!(matches!(read("{}"), Err(Error::Damaged { line: None, .. })));
    assert!(matches!(read("[1]"), Err(Error::Damaged { .. })));
    assert!(matches!(read("{\"schema\": 1}"), Err(Error::Damaged { .. })));
    assert!(matches!(read("{\"schema\": -1}"), Err(Error::Damaged { .. })));
    assert!(matches!(read(&"[".repeat(100_000)), Err(Error::Damaged { .. })));
    let folder = tempfile::tempdir().unwrap();
    let absent = Summary::read(&folder.path().join("summary.json"));
    assert!(matches!(absent, Err(Error::Absent { what: "summary", .. })));
    assert!(matches!(Summary::read(folder.path()), Err(Error::Io { .. })));
}

#[test]
fn unknown_fields_are_ignored() {
    let text = summary(&[0], false).to_json().unwrap();
    let longer = text.replacen('{', "{\n  \"from_a_later_version\": {\"x\": [1]},", 1);
    assert_eq!(read(&longer).unwrap(), read(&text).unwrap());
}

#[test]
fn what_makes_no_sense_is_neither_written_nor_read() {
    let wrong = [
        changed(|summary| summary.runs[0].epochs[2].train_loss = f64::NAN),
        changed(|summary| summary.runs[0].epochs[2].accuracy = 1.01),
        changed(|summary| summary.runs[0].epochs[2].seconds = -1.0),
        changed(|summary| summary.runs[0].epochs[2].epoch = 3),
        changed(|summary| summary.runs[1].sparsity = 50.0),
        changed(|summary| summary.runs[1].layers[0].zeros = 1_000_000),
        changed(|summary| summary.runs[1].ticket.as_mut().unwrap().path = "../x".into()),
        changed(|summary| summary.runs[1].ticket.as_mut().unwrap().sha256 = "abc".into()),
        changed(|summary| summary.runs[1].name = "baseline".into()),
        changed(|summary| summary.runs[1].name = String::new()),
        changed(|summary| summary.runs[1].starts_from = Some("ticket-80".into())),
        changed(|summary| summary.runs[1].starts_from = Some("search-50".into())),
        changed(|summary| summary.runs[1].wait_seconds = Some(f64::INFINITY)),
        changed(|summary| summary.wall_seconds = Some(f64::NAN)),
    ];
    for (index, summary) in wrong.iter().enumerate() {
        let found = summary.to_json();
        assert!(matches!(found, Err(Error::Invalid { .. })), "case {index}: {found:?}");
        // JSON has no NaN: an optional figure that is none reads as absent.
        if index < 12 {
            let text = serde_json::to_string(summary).unwrap();
            let found = read(&text);
            assert!(matches!(found, Err(Error::Invalid { .. } | Error::Damaged { .. })), "case {index}: {found:?}");
        }
    }
}

#[test]
fn messages_name_the_record_and_both_values() {
    let wrong = changed(|summary| summary.runs[2].epochs[3].accuracy = 1.5);
    let message = wrong.validate().unwrap_err().to_string();
    assert_eq!(message, "run `ticket-50` of seed 0, epoch 3: accuracy is 1.5, expected a number in [0, 1]");
}

#[test]
fn the_comparison_is_computed_never_trusted() {
    let mut edited = summary(&[0, 1], true);
    edited.comparison = None;
    let found = edited.settled().unwrap();
    assert!(found.comparison.is_some());
}
