//! Two runs side by side, and files beside their records.

use lth_runs::FileRecord;
use lth_runs::experiment::{damaged_files, differences};

use crate::fixture::imp;

#[test]
fn times_are_no_difference_and_a_bit_is() {
    let first = imp(&[1, 2], 2);
    let mut second = first.clone();
    second.fits.iter_mut().for_each(|fit| {
        (fit.overhead_seconds, fit.test_seconds) = (fit.overhead_seconds + 1.0, Some(1.0));
        fit.peak_memory_bytes = Some(7);
        fit.history.iter_mut().for_each(|at| (at.seconds, at.valid_seconds) = (9.0, 9.0));
    });
    assert_eq!(differences(&first, &second), (Vec::new(), Vec::new()));

    let at = second.fits[3].history.len() / 2;
    let loss = &mut second.fits[3].history[at].train_loss;
    *loss = loss.next_up();
    let (found, _) = differences(&first, &second);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0].fit, found[0].what.as_str()), (&first.fits[3].address, "figures"));

    let mut third = first.clone();
    third.fits[1].layers[0].zeros += 1;
    third.fits[2].plan = "0".repeat(64);
    let last = third.fits.pop().expect("there are fits");
    let (found, alone) = differences(&first, &third);
    let what: Vec<&str> = found.iter().map(|found| found.what.as_str()).collect();
    assert_eq!((what, alone), (vec!["layers", "plan"], vec![last.address]));
}

#[test]
fn what_files_hold_counts_and_not_what_their_headers_say() {
    let file = |sha256: &str, content: Option<&str>| FileRecord {
        path: "fits/dense/level-00/seed-1/trained.safetensors".into(),
        sha256: sha256.repeat(64),
        bytes: 3,
        content: content.map(|digit| digit.repeat(64)),
    };
    let with = |record: FileRecord| {
        let mut summary = imp(&[1], 1);
        summary.fits[0].files.insert("trained".into(), record);
        summary
    };
    let found = |one: FileRecord, other: FileRecord| -> Vec<String> {
        differences(&with(one), &with(other)).0.into_iter().map(|found| found.what).collect()
    };
    assert!(found(file("a", Some("c")), file("b", Some("c"))).is_empty());
    assert_eq!(found(file("a", Some("c")), file("a", Some("d"))), ["content of trained"]);
    assert_eq!(found(file("a", None), file("b", None)), ["file trained"]);
    let mut without = with(file("a", None));
    without.fits[0].files.remove("trained");
    assert_eq!(differences(&with(file("a", None)), &without).0[0].what, "names of files");
}

#[test]
fn a_file_that_was_changed_or_is_gone_is_found() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let mut summary = imp(&[1], 1);
    let path = "fits/dense/level-00/seed-1/trained.safetensors";
    std::fs::create_dir_all(folder.path().join("fits/dense/level-00/seed-1"))?;
    std::fs::write(folder.path().join(path), "abc")?;
    // SHA-256 of "abc", FIPS 180-2, B.1.
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
    summary.fits.iter_mut().for_each(|fit| fit.files.clear());
    summary.fits[0].files.insert("trained".into(), FileRecord { path: path.into(), sha256, bytes: 3, content: None });
    assert_eq!(damaged_files(folder.path(), &summary), []);
    std::fs::write(folder.path().join(path), "abd")?;
    assert_eq!(damaged_files(folder.path(), &summary).len(), 1);
    std::fs::remove_file(folder.path().join(path))?;
    let found = damaged_files(folder.path(), &summary);
    assert!(found[0].got.contains("No such file"), "{found:?}");
    Ok(())
}
