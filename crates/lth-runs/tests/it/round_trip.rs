//! What is written is what is read.

use lth_runs::{Ending, Error, Measurement, SCHEMA, Summary};
use proptest::prelude::*;

use crate::fixture::imp;

fn measurement() -> impl Strategy<Value = Measurement> {
    let loss = || -10.0_f64..1e3;
    let time = || 0.0_f64..1e5;
    let valid = prop::option::of(loss());
    let metrics = prop::collection::btree_map("[a-z_]{1,8}", -1e6_f64..1e6, 0..3);
    (loss(), valid, metrics, time(), time(), 0.0_f64..=1.0, 0.0_f64..1e4).prop_map(
        |(train_loss, valid_loss, metrics, seconds, valid_seconds, sparsity, epoch)| Measurement {
            step: 0,
            epoch,
            train_loss,
            valid_loss,
            metrics,
            seconds,
            valid_seconds,
            sparsity,
        },
    )
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        Just(Ending::Done),
        ".{0,20}".prop_map(|reason| Ending::Stopped { reason }),
        ".{0,20}".prop_map(|reason| Ending::Failed { reason }),
    ]
}

fn written_and_read(summary: &Summary) -> Result<Summary, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("summary.json");
    summary.write(&path)?;
    Summary::read(&path)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_summary_comes_back_as_it_was_settled(
        history in prop::collection::vec(measurement(), 0..4), ending in ending(), overhead in 0.0_f64..1e6, name in ".{0,20}",
    ) {
        let mut summary = imp(&[u64::MAX], 1);
        summary.dataset.name = name;
        summary.fits[0].ending = ending;
        summary.fits[0].overhead_seconds = overhead;
        summary.fits[0].history = history;
        for (index, at) in summary.fits[0].history.iter_mut().enumerate() {
            at.step = 10 * index as u64;
        }
        let settled = summary.settled()?;
        let read = written_and_read(&settled)?;
        prop_assert_eq!(&read, &settled);
        prop_assert_eq!(read.to_json()?, settled.to_json()?);
        for (one, other) in summary.fits[0].history.iter().zip(&settled.fits[0].history) {
            prop_assert!((one.train_loss - other.train_loss).abs() <= 1e-12 * one.train_loss.abs());
        }
    }
}

#[test]
fn which_answers_were_right_comes_back_bit_for_bit() -> Result<(), Error> {
    let summary = imp(&[3], 2);
    let read = written_and_read(&summary)?;
    let right = |summary: &Summary| summary.fits[1].at_end.as_ref().and_then(|at_end| at_end.right.clone());
    assert_eq!(right(&read), right(&summary));
    assert_eq!(right(&read).map(|right| right.n()), Some(400));
    Ok(())
}

#[test]
fn a_summary_that_contradicts_itself_is_neither_written_nor_read() {
    let refused = |change: &dyn Fn(&mut Summary), expected: &str| {
        let mut summary = imp(&[0], 1);
        change(&mut summary);
        let error = summary.to_json().expect_err("it contradicts itself").to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&|summary| summary.fits[0].history[2].step = 50, "fit dense/0/0: step 50 comes after step 200");
    refused(
        &|summary| summary.fits[1].starts_from = Some("ticket/9/0".parse().expect("an address")),
        "rests on ticket/9/0",
    );
    refused(&|summary| summary.fits[1].address = summary.fits[0].address.clone(), "there are two of them");
    refused(&|summary| summary.arms.clear(), "there is no arm of that name");
    refused(&|summary| summary.fits[0].layers[0].zeros = 9000, "9000 zeros of 8000 weights");
    refused(&|summary| summary.fits[0].history[0].train_loss = f64::NAN, "train_loss is NaN");
    refused(&|summary| summary.margin = Some(-1.0), "margin is -1");
}

#[test]
fn a_later_schema_is_told_apart_from_a_damaged_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("summary.json");
    let text = imp(&[0], 1).to_json().expect("valid");
    let read = |text: &str| {
        std::fs::write(&path, text).expect("written");
        Summary::read(&path)
    };
    assert!(read(&text).is_ok());
    let later = text.replacen(&format!("\"schema\": {SCHEMA}"), "\"schema\": 9", 1);
    assert!(matches!(read(&later), Err(Error::SchemaVersion { found: 9, expected: SCHEMA, .. })));
    assert!(matches!(read(&text[..text.len() / 2]), Err(Error::Damaged { line: Some(_), .. })));
    assert!(matches!(read("{}"), Err(Error::Damaged { line: None, .. })));
}
