//! The report and its tables, as a person sees them.

use lth_runs::{Role, Summary, report, statistics};

use crate::fixture::{five_fits, pets, run, summary};

#[test]
fn a_report_over_three_seeds_with_controls() {
    insta::assert_snapshot!(report(&summary(&[0, 1, 2], true)));
}

#[test]
fn a_report_of_one_seed_on_unverified_pets() {
    insta::assert_snapshot!(report(&pets()));
}

#[test]
fn the_tables_in_plain_text() {
    let summary = summary(&[0], true);
    let sparsity = report::sparsity_table(&summary).plain();
    insta::assert_snapshot!(format!("{}\n{sparsity}", report::overview(&summary)));
}

#[test]
fn the_schema_of_summary_json() {
    let mut small = summary(&[0], true);
    for run in &mut small.runs {
        run.epochs.truncate(1);
        run.layers.truncate(1);
    }
    small.runs.truncate(3);
    insta::assert_snapshot!(small.to_json().unwrap());
}

#[test]
fn a_report_needs_the_summary_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("summary.json");
    let written = summary(&[0, 1], true);
    written.write(&path).unwrap();
    assert_eq!(report(&Summary::read(&path).unwrap()), report(&written));
}

#[test]
fn a_report_of_nothing_says_so() {
    let mut empty = summary(&[0], false);
    empty.runs.clear();
    empty.comparison = None;
    let text = report(&empty.settled().unwrap());
    assert!(text.contains("nothing is compared"));
    assert!(!text.contains("NaN") && !text.contains("## The fits"));
}

#[test]
fn one_seed_claims_no_deviation() {
    let text = report(&summary(&[7], true));
    assert!(text.contains("One seed has no deviation"));
    assert!(!text.contains('±') && !text.contains("NaN"));
}

#[test]
fn other_pictures_are_never_compared_with_the_notebook() {
    let disclaimer = "its accuracies are not PETS accuracies";
    assert!(report(&summary(&[0], true)).contains(disclaimer));
    let mut stand_in = pets();
    assert!(report(&stand_in).contains(disclaimer));
    stand_in.dataset.checked = lth_runs::Checked::Published;
    assert!(report(&stand_in).contains(disclaimer), "the weights are not ImageNet's");
    stand_in.weights = Some(lth_runs::WeightsRecord {
        name: "imagenet".into(),
        source: "downloaded".into(),
        sha256: None,
        checked: lth_runs::Checked::Published,
    });
    assert!(!report(&stand_in).contains(disclaimer));
    let whole = "are the notebook's, checked against their published checksums";
    assert!(report(&stand_in).contains(whole), "{}", report(&stand_in));
    stand_in.dataset.checked = lth_runs::Checked::PublishedPart;
    stand_in.dataset.files[0].checked = Some("MD5 of the first MiB".into());
    let part = report(&stand_in);
    assert!(!part.contains(disclaimer) && !part.contains(whole), "{part}");
    assert!(part.contains("checked in part, not in every byte, against their published checksums"), "{part}");
    assert!(part.contains("checked in part against published checksums"), "{part}");
    assert!(part.contains("compared: MD5 of the first MiB"), "{part}");
}

#[test]
fn what_was_not_looked_at_is_said() {
    let mut summary = pets();
    summary.dataset.left_out = vec!["IMG_1.HEIC".into()];
    summary.dataset.contradicted = vec!["Bengal_3.jpg".into(), "pug_9.jpg".into()];
    let text = report(&summary);
    assert!(text.contains("One file among the pictures was not looked at: IMG_1.HEIC."), "{text}");
    assert!(
        text.contains(
            "gives 2 pictures another class than the file name, which was believed: Bengal_3.jpg, pug_9.jpg."
        ),
        "{text}"
    );
}

#[test]
fn a_control_that_does_as_well_is_said_to() {
    let text = report(&summary(&[0], true));
    assert!(text.contains("A trained as long as the 50 % ticket did as well or better (+0.50 points)"), "{text}");
    assert!(text.contains("There is no random mask beside the 80 % ticket"));
    let three = report(&summary(&[0, 1, 2], true));
    assert!(three.contains("A trained as long as the 50 % ticket did as well or better (0.00 points)"), "{three}");
    assert!(report(&summary(&[0], false)).contains("There is no control that trains A as long as the 80 % ticket"));
}

#[test]
fn a_lead_within_the_spread_is_called_that() {
    let mut spread = summary(&[0, 1, 2], true);
    for (run, shift) in spread.runs.iter_mut().filter(|run| run.name == "random-ticket-50").zip([0.03, 0.0, 0.06]) {
        run.epochs.iter_mut().for_each(|epoch| epoch.accuracy += shift);
    }
    let text = report(&spread.settled().unwrap());
    let expected = "The 50 % ticket's lead over a random mask (+1.50 points) is within the spread of the seeds.";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn names_cannot_break_the_markdown() {
    let mut hostile = pets();
    hostile.dataset.name = "a|b\n# <script>".into();
    hostile.runs[0].name = "x|y".into();
    let text = report(&hostile);
    assert!(!text.contains("<script>") && !text.contains("\n# <"));
    assert!(text.contains(r"x\|y"));
}

#[test]
fn a_large_summary_is_reported_in_well_under_a_second() {
    let mut large = summary(&[0], false);
    large.runs = (0..40).flat_map(|seed| five_fits(seed, true)).collect();
    for run in &mut large.runs {
        run.epochs.iter_mut().for_each(|epoch| epoch.accuracy = epoch.accuracy.min(1.0));
        let layer = run.layers[0].clone();
        run.layers = vec![layer; 160];
    }
    let large = large.settled().unwrap();
    let start = std::time::Instant::now();
    let text = report(&large);
    assert!(start.elapsed().as_secs_f64() < 0.5, "took {:?}", start.elapsed());
    assert!(text.contains("see `metrics.jsonl`"));
}

#[test]
fn runs_outside_the_comparison_are_listed_all_the_same() {
    let mut other = summary(&[0], false);
    other.runs = vec![run("sweep", Role::Other, 0, 0.3, 2, 0.5)];
    let text = report(&other.settled().unwrap());
    assert!(text.contains("| sweep") && text.contains("nothing is compared"));
    assert_eq!(statistics::CONFIDENCE, 0.95);
}
