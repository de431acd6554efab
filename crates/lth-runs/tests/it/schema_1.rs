//! Summaries that the first schema left are read, and mean what they meant.

use std::path::Path;

use lth_runs::{Address, Analysis, ArmRole, Compared, Error, Summary, report};

const OLD: &str = include_str!("schema_1.json");

fn read(text: &str) -> Result<Summary, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("summary.json");
    std::fs::write(&path, text).expect("written");
    Summary::read(&path)
}

#[test]
fn the_five_fits_and_their_controls_have_addresses() -> Result<(), Error> {
    let summary = read(OLD)?;
    assert_eq!((summary.schema, summary.seeds(), summary.levels()), (2, vec![0, 1, 2], vec![0, 1, 2]));
    let arms: Vec<(&str, ArmRole)> = summary.arms.iter().map(|arm| (arm.name.as_str(), arm.role)).collect();
    let expected = [
        ("dense", ArmRole::Dense),
        ("search", ArmRole::Search),
        ("ticket", ArmRole::Ticket),
        ("dense-longer", ArmRole::Control),
        ("random-search", ArmRole::Search),
        ("random", ArmRole::Control),
    ];
    assert_eq!(arms, expected);
    let ticket = summary.fit(&Address::new("ticket", 2, 1)).expect("it is the 80 % ticket");
    assert_eq!(ticket.starts_from, Some(Address::new("search", 2, 1)));
    assert_eq!(ticket.metric("accuracy"), Some(0.87));
    assert_eq!((ticket.history.len(), ticket.best().map(|best| best.step)), (3, Some(3)));
    assert!(summary.conditions.pruned_weights_are_frozen, "its configuration froze the body");
    Ok(())
}

#[test]
fn the_search_counts_and_the_longer_control_stands_beside_both_tickets() -> Result<(), Error> {
    let analysis = Analysis::of(&read(OLD)?);
    // Two epochs of search and three of ticket, 6, 6.5 and 7 seconds each.
    let in_all = analysis.figures_of("ticket", 1).and_then(|ticket| ticket.seconds_in_all).expect("timed");
    assert!((in_all.mean - 5.0 * 6.5).abs() < 1e-12);
    let against = |arm: &str| {
        let of = |other: &&lth_runs::Comparison| other.arm == arm && other.compared == Compared::Metric;
        analysis.comparisons.iter().filter(of).map(|other| other.level).collect::<Vec<_>>()
    };
    assert_eq!((against("dense-longer"), against("random")), (vec![1, 2], vec![1]));
    Ok(())
}

#[test]
fn an_old_summary_has_a_report_and_says_that_it_is_old() -> Result<(), Error> {
    for (name, text) in report::files(&read(OLD)?) {
        assert!(text.contains("its steps are epochs"), "{name}");
        assert!(text.contains("early-stop epoch") && !text.contains("NaN"), "{name}");
    }
    Ok(())
}

#[test]
fn an_old_summary_can_be_written_in_the_new_schema() -> Result<(), Error> {
    let summary = read(OLD)?.settled()?;
    assert_eq!(read(&summary.to_json()?)?, summary);
    Ok(())
}

#[test]
fn an_old_summary_that_contradicts_itself_is_refused() {
    let twice = OLD.replace(
        "\"name\":\"ticket-80\",\"role\":\"ticket\",\"control\":false",
        "\"name\":\"ticket-80\",\"role\":\"ticket\",\"control\":true",
    );
    let twice = twice.replace("\"sparsity\":0.8", "\"sparsity\":0.5");
    let error = read(&twice).expect_err("two random tickets of one sparsity").to_string();
    assert!(error.contains("two runs of schema 1 have this part, sparsity and seed"), "{error}");
    let orphan = OLD.replace("\"starts_from\":\"search-50\"", "\"starts_from\":\"nothing\"");
    let error = read(&orphan).expect_err("it starts from nothing").to_string();
    assert_eq!(error, "fit ticket/1/0: it starts from `nothing`, which is not among the runs");
    let later = OLD.replace("\"schema\":1", "\"schema\":3");
    assert!(matches!(read(&later), Err(Error::SchemaVersion { found: 3, .. })));
    assert!(matches!(Summary::read(Path::new("nowhere/summary.json")), Err(Error::Absent { .. })));
}
