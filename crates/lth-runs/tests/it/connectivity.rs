//! Paths between networks: their records, what they come to over seeds, and what a report says of them.

use lth_runs::experiment::PathPoint;
use lth_runs::{
    Address, Analysis, ArmRole, Error, Existing, ExperimentDir, ExperimentRecord, FitRecord, Part, PathRecord, Summary,
    report,
};

use crate::fixture::{arm, imp};

/// A hill between two ends of equal error, `height` above them.
fn path(ends: [Address; 2], branched_at: u64, error: f64, height: f64) -> PathRecord {
    let point = |(place, error): (f64, f64)| PathPoint {
        place,
        loss: Some(error),
        metrics: [("accuracy".to_owned(), 1.0 - error)].into(),
    };
    let points = [(0.0, error), (0.25, error + height / 2.0), (0.5, error + height), (1.0, error)].map(point).to_vec();
    PathRecord { plan: "5f".repeat(32), ends, branched_at, on: Part::Test, points, seconds: 0.5 }
}

/// Copies of dense from steps 0 and 500, and of the level-1 subnetwork from step 500, with these hills for each seed.
fn with_paths(hills: [&[f64]; 3]) -> Summary {
    let seeds: Vec<u64> = (0..hills[0].len() as u64).collect();
    let mut summary = imp(&seeds, 1);
    let before = summary.fits.clone();
    let like = |arm: &str, level: u32, seed: u64, name: &str| -> FitRecord {
        let found =
            before.iter().find(|fit| fit.address == Address::new(arm, level, seed)).expect("it is in the fixture");
        let address = Address::new(name, level, seed);
        FitRecord { address, starts_from: None, mask_from: Vec::new(), ..found.clone() }
    };
    for (names, level, step, hills) in [
        (["dense", "copy-1-0it"], 0, 0, hills[0]),
        (["dense", "copy-1-500it"], 0, 500, hills[1]),
        (["copy-2-500it", "copy-1-500it"], 1, 500, hills[2]),
    ] {
        for (&seed, &height) in seeds.iter().zip(hills) {
            let original = if level == 0 { "dense" } else { "ticket" };
            for name in names.into_iter().filter(|name| *name != "dense") {
                summary.fits.push(like(original, level, seed, name));
            }
            let [first, last] = names.map(|name| Address::new(name, level, seed));
            let error = 1.0 - summary.fit(&last).and_then(|fit| fit.metric("accuracy")).expect("it has one");
            summary.paths.push(path([first, last], step, error, height));
        }
    }
    let names = ["copy-1-0it", "copy-1-500it", "copy-2-500it"];
    summary.arms.extend(names.map(|name| arm(name, ArmRole::Branch, "another order", "")));
    summary.settled().expect("it is valid")
}

#[test]
fn instability_over_seeds_is_the_hill_with_students_interval() {
    let analysis = Analysis::of(&with_paths([&[0.1, 0.2, 0.3], &[0.001, 0.002, 0.003], &[0.01, 0.02, 0.06]]));
    let rows: Vec<(u32, u64, usize)> =
        analysis.stability.iter().map(|row| (row.level, row.step, row.seeds.len())).collect();
    assert_eq!(rows, [(0, 0, 3), (0, 500, 3), (1, 500, 3)]);
    let first = &analysis.stability[0];
    let instability = first.instability.expect("three seeds");
    let interval = instability.interval(0.95).expect("three values");
    assert!((instability.mean - 0.2).abs() < 1e-12);
    // Student's t for two degrees of freedom, 4.302652729911275, times 0.1 / √3.
    assert!((interval.high - 0.2 - 4.302_652_729_911_275 * 0.1 / 3.0_f64.sqrt()).abs() < 1e-9);
    assert_eq!(first.path.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0.0, 0.25, 0.5, 1.0]);
    // Half way up the hill, from ends of equal error.
    assert!((first.path[1].1.mean - 0.1).abs() < 1e-12 && first.path[0].1.mean.abs() < 1e-12);
    // 20 ± 25 points and 3 ± 6.6 points hold 2; 0.2 ± 0.25 points lie below.
    let stable: Vec<Option<bool>> = analysis.stability.iter().map(lth_runs::Stability::is_stable).collect();
    assert_eq!(stable, [None, Some(true), None]);
    // The ticket is half a point above dense in the fixture, but for its noise; dense is its own error.
    assert_eq!(analysis.stability[1].above_dense.map(|above| above.mean), Some(0.0));
    assert!((analysis.stability[2].above_dense.expect("of three").mean + 0.005).abs() < 0.002);
}

#[test]
fn no_verdict_comes_from_two_seeds_or_from_equal_values() {
    for hills in [&[0.1, 0.10001][..], &[0.1, 0.1, 0.1]] {
        let analysis = Analysis::of(&with_paths([hills; 3]));
        assert!(analysis.stability.iter().all(|row| row.is_stable().is_none()), "{hills:?}");
    }
    let high = Analysis::of(&with_paths([&[0.1, 0.11, 0.12]; 3]));
    assert!(high.stability.iter().all(|row| row.is_stable() == Some(false)));
}

#[test]
fn copies_change_no_other_figure_and_no_verdict() {
    let (with, without) = (with_paths([&[0.1, 0.2, 0.3]; 3]), imp(&[0, 1, 2], 1));
    let (with, without) = (Analysis::of(&with), Analysis::of(&without));
    assert_eq!((with.figures, with.comparisons), (without.figures, without.comparisons));
    assert!(without.stability.is_empty());
}

#[test]
fn the_report_has_paths_and_instability_where_they_were_measured() {
    let files = report::files(&with_paths([&[0.1, 0.2, 0.3], &[0.001, 0.002, 0.003], &[0.01, 0.02, 0.06]]));
    let (markdown, html) = (&files[0].1, &files[1].1);
    for title in ["Linear mode connectivity", "Instability against the step", "Error between two copies: dense"] {
        assert!(html.contains(title), "{title}");
    }
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let row = markdown.lines().map(cells).find(|cells| cells.len() == 9 && cells[1..3] == ["100", "500"]);
    let row = row.unwrap_or_default();
    assert_eq!(row.get(6..8), Some(&["0.20 (-0.05 to 0.45)".to_owned(), "yes".to_owned()][..]), "{row:?}");
    assert!(!report::files(&imp(&[0, 1, 2], 1))[0].1.contains("Linear mode connectivity"));
}

#[test]
fn a_path_is_read_back_and_goes_with_its_experiment() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let record = |identity: &str| ExperimentRecord {
        name: "imp".into(),
        identity: identity.into(),
        config: serde_json::json!({}),
    };
    let summary = with_paths([&[0.1, 0.2, 0.3]; 3]);
    let mut dir = ExperimentDir::open(folder.path(), record("a"), Existing::Refuse)?;
    let path = &summary.paths[0];
    let last = &path.ends[1];
    assert_eq!(dir.path_record(last)?, None);
    dir.write_record(summary.fit(last).expect("it is there"))?;
    dir.write_path(path)?;
    assert_eq!(dir.path_record(last)?.as_ref(), Some(path));
    assert!(folder.path().join(last.folder()).join("path.json").is_file());
    assert!(dir.prepare_file(last, "path.json").is_err());
    let read = dir.finish(&summary, report::files)?;
    assert_eq!(read, summary);
    drop(dir);
    // Replaced by another experiment, nothing of it is left.
    let mut dir = ExperimentDir::open(folder.path(), record("b"), Existing::Replace)?;
    assert_eq!(dir.path_record(last)?, None);
    dir.write_record(&summary.fits[0])?;
    assert!(!folder.path().join("fits").join(&last.arm).exists());
    Ok(())
}

#[test]
fn a_path_that_makes_no_sense_is_refused() {
    let summary = with_paths([&[0.1, 0.2, 0.3]; 3]);
    let refused = |change: &dyn Fn(&mut Summary)| {
        let mut changed = summary.clone();
        change(&mut changed);
        changed.validate().expect_err("it makes no sense").to_string()
    };
    let message = refused(&|summary| summary.paths[0].ends[1] = Address::new("copy-1-0it", 9, 0));
    assert!(message.contains("copy-1-0it/9/0 is not among the fits"), "{message}");
    let message = refused(&|summary| summary.paths[0].points[1].place = 0.0);
    assert!(message.contains("its places are [0.0, 0.0, 0.5, 1.0], expected rising ones"), "{message}");
    let message = refused(&|summary| summary.paths[0].points[1].loss = Some(f64::NAN));
    assert!(message.contains("loss at place 0.25 is NaN"), "{message}");
}
