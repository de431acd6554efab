//! The report, as a person reads it.

use lth_runs::figure::{Outcome, Picture};
use lth_runs::report::{self, Extras, Overlap, WeightHistogram};
use lth_runs::{
    Address, BuildRecord, Checked, ContactSheet, Ending, OptimizerState, Reference, ReferenceFigure, Shown, Summary,
};

use crate::fixture::{imp, notebook, regression};

fn markdown(summary: &Summary) -> String {
    text(summary, "report.md")
}

fn text(summary: &Summary, name: &str) -> String {
    report::files(summary)
        .into_iter()
        .find(|(other, _)| *other == name)
        .map(|(_, text)| text)
        .expect("it is one of two")
}

/// The part of the Markdown from one heading to the next.
fn section<'a>(markdown: &'a str, heading: &str) -> &'a str {
    let start = markdown.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}")) + 1;
    let end = markdown[start..].find("\n## ").map_or(markdown.len(), |end| start + end);
    &markdown[start..end]
}

#[test]
fn the_result_of_three_seeds() {
    insta::assert_snapshot!(section(&markdown(&imp(&[0, 1, 2], 2)), "Result"));
}

#[test]
fn the_result_of_one_seed() {
    insta::assert_snapshot!(section(&markdown(&notebook(&[42])), "Result"));
}

#[test]
fn costs_of_the_notebook() {
    insta::assert_snapshot!(section(&markdown(&notebook(&[1, 2, 3])), "Costs"));
}

#[test]
fn what_a_terminal_shows() {
    insta::assert_snapshot!(report::overview(&imp(&[0, 1, 2, 3], 12)));
}

#[test]
fn a_terminal_is_never_flooded() {
    for summary in [imp(&[0, 1, 2], 30), imp(&[1], 30), notebook(&[1]), notebook(&[1, 2, 3]), regression(&[1, 2])] {
        let overview = report::overview(&summary);
        assert!(overview.lines().count() <= 40, "{overview}");
    }
    let cut = report::overview(&imp(&[0, 1, 2], 30));
    assert!(cut.contains("(4 of 31 levels; all are in the report)"), "{cut}");
}

#[test]
fn words_that_say_too_much_are_never_said() {
    for summary in
        [imp(&[7], 3), imp(&[0, 1], 3), imp(&[0, 1, 2], 3), notebook(&[1]), notebook(&[1, 2, 3]), regression(&[1])]
    {
        for (name, text) in report::files(&summary).into_iter().chain([("overview", report::overview(&summary))]) {
            for word in ["known better than either", "is not what B's accuracy", "NaN", "inf "] {
                assert!(!text.contains(word), "{name}: {word}");
            }
            if summary.seeds().len() < 3 {
                for word in ["faster", "slower", "sooner", "later", "higher at", "lower at", "at least as good,"] {
                    assert!(!text.contains(word), "{name}: {word} from {} seeds", summary.seeds().len());
                }
            }
        }
    }
}

#[test]
fn faster_is_said_only_where_the_ratio_is_not_1() {
    let mut summary = imp(&[0, 1, 2], 1);
    for fit in summary.fits.iter_mut().filter(|fit| fit.address.arm == "ticket") {
        let seconds = [1.99, 2.02, 1.98][fit.address.seed as usize];
        fit.history.iter_mut().for_each(|at| at.seconds = seconds);
    }
    let report = markdown(&summary);
    assert!(report.contains("not supported that time per step of ticket differs from that of dense"), "{report}");
    assert!(!report.contains("faster"), "{report}");
    assert!(markdown(&imp(&[0, 1, 2], 1)).contains("time per step of ticket is faster, 0.9"));
}

#[test]
fn what_limits_a_result_most_comes_first() {
    let report = markdown(&notebook(&[1, 2, 3]));
    let caveats: Vec<&str> = report.lines().filter(|line| line.starts_with("> - ")).collect();
    assert!(caveats[0].starts_with("> - Nothing that is pruned was ever trained"), "{caveats:?}");
    assert!(caveats[1].starts_with("> - The search's training is part of a ticket's cost"), "{caveats:?}");
    assert!(
        caveats[1].contains("2.0 times dense's steps up to the ticket at 50 % of weights (2,000 against 1,000;"),
        "{caveats:?}"
    );
    // There is a dense control that was trained as long, so nothing is said of the lack of one.
    assert!(!caveats[1].contains("may be a gain of more training"));
    let imp = markdown(&imp(&[1, 2, 3], 4));
    assert!(
        imp.contains("5.0 times dense's steps up to the ticket at 6.26 % of weights (5,000 against 1,000"),
        "{imp}"
    );
    assert!(imp.contains("a gain over dense may be a gain of more training"));
    assert!(!imp.contains("Nothing that is pruned"));
    assert!(report::overview(&notebook(&[1])).contains("Nothing that is pruned was ever trained"));
}

#[test]
fn a_control_says_what_it_means_only_where_the_ticket_is_better() {
    let report = markdown(&imp(&[0, 1, 2], 1));
    let sentence =
        |of: &str| report.lines().find(|line| line.contains(of) && line.starts_with("- At 50 %")).expect("it is said");
    assert!(sentence("than that of random").ends_with(": the choice of weights matters."));
    assert!(!sentence("than that of dense").contains("matter"));
    let mut turned = imp(&[0, 1, 2], 1);
    for arm in &mut turned.arms {
        (arm.role, arm.name) = match arm.name.as_str() {
            "ticket" => (lth_runs::ArmRole::Control, "ticket".into()),
            "random" => (lth_runs::ArmRole::Ticket, "random".into()),
            other => (arm.role, other.to_owned()),
        };
        arm.meaning = "it matters".into();
    }
    assert!(!markdown(&turned).contains(": it matters"), "the arm of role ticket is the worst of all");
}

#[test]
fn a_dense_control_of_a_level_is_compared_with_its_own_ticket_only() {
    let mut summary = imp(&[0, 1, 2], 3);
    for fit in summary.fits.iter_mut().filter(|fit| fit.address.arm == "random") {
        fit.sparsity = 0.0;
        fit.layers.iter_mut().for_each(|layer| layer.zeros = 0);
    }
    let analysis = lth_runs::Analysis::of(&summary);
    let of = |other: &&lth_runs::Comparison| other.arm == "random";
    let levels: Vec<(u32, u32)> =
        analysis.comparisons.iter().filter(of).map(|other| (other.level, other.arm_level)).collect();
    assert_eq!(levels, [(1, 1), (2, 2), (3, 3)]);
    let report = markdown(&summary);
    assert!(!report.contains("No dense network was trained as long"), "{report}");
    assert!(text(&summary, "report.html").contains("random, level 3"), "its weights do not tell its levels apart");
}

#[test]
fn a_failed_fit_is_named_with_its_reason() {
    let mut summary = imp(&[0, 1, 2], 2);
    let reason = "loss is NaN at step 420, first in layer fc1".to_owned();
    for fit in summary.fits.iter_mut().filter(|fit| fit.address == Address::new("random", 2, 1)) {
        fit.ending = Ending::Failed { reason: reason.clone() };
    }
    let report = markdown(&summary);
    assert!(report.contains(&format!("Left out: random/2/1 ({reason}).")), "{report}");
    assert!(report.contains(&format!("| failed: {reason} |")), "{report}");
    assert!(report.contains("too few seeds"), "two are left of it");
    assert!(report::overview(&summary).contains(&format!("Left out: random/2/1: {reason}")));
}

#[test]
fn a_task_without_accuracy_is_told_in_its_loss() {
    for name in ["report.md", "report.html"] {
        let report = text(&regression(&[0, 1, 2]), name);
        assert!(report.contains("Test loss") && !report.contains("accuracy"), "{name}");
        assert!(!report.contains("Wilson") && !report.contains("points"), "{name}");
    }
}

#[test]
fn another_metric_keeps_its_unit() {
    let mut summary = imp(&[0, 1, 2], 1);
    summary.metric = "psnr".into();
    for fit in &mut summary.fits {
        for evaluated in [&mut fit.at_end, &mut fit.at_best].into_iter().flatten() {
            evaluated.metrics = [("psnr".to_owned(), 30.0 * evaluated.metrics["accuracy"])].into();
        }
    }
    let report = markdown(&summary);
    assert!(report.contains("test psnr of ticket is 0.1"), "{report}");
    assert!(!report.contains("points") && !report.contains("test psnr, %"), "{report}");
}

#[test]
fn published_figures_are_beside_with_their_caveats() {
    assert!(!markdown(&imp(&[0, 1, 2], 1)).contains("Beside published"));
    let mut summary = imp(&[0, 1, 2], 1);
    summary.reference = Some(Reference {
        title: "the paper".into(),
        source: "figure 4".into(),
        caveats: vec!["It had other data.".into()],
        figures: vec![ReferenceFigure { arm: "dense".into(), level: 0, metric: "best_step".into(), value: 650.0 }],
    });
    insta::assert_snapshot!(section(&markdown(&summary), "Beside published figures"));
}

#[test]
fn what_is_known_of_the_data_is_said() {
    let mut summary = notebook(&[1]);
    summary.dataset.checked = Checked::No;
    summary.dataset.skipped = vec!["beagle_116.jpg".into()];
    summary.dataset.odd = vec!["Abyssinian_5.jpg".into(), "b".into()];
    summary.dataset.left_out = vec!["IMG_1.HEIC".into()];
    summary.dataset.contradicted = vec!["pug_9.jpg".into()];
    summary.conditions.optimizer_state = OptimizerState::Carried;
    let report = markdown(&summary);
    for said in [
        "No checksum vouches for the data \"digits\"",
        "1 damaged file was left out: beagle_116.jpg.",
        "1 file among the data was not looked at: IMG_1.HEIC.",
        "gives 1 example another class than the file name, which was believed: pug_9.jpg.",
        "2 files loaded although not what the name says",
        "One optimiser lived through all fits",
    ] {
        assert!(report.contains(said), "{said}: {report}");
    }
}

#[test]
fn names_cannot_break_the_report() {
    let mut hostile = imp(&[0], 1);
    hostile.dataset.name = "a|b\n# <script>alert(1)</script>".into();
    hostile.software = "</pre><img src=x>".into();
    hostile.experiment.config = serde_json::json!({ "```": "</pre><script>" });
    hostile.fits[0].description = "x|y\n## z".into();
    hostile.arms[3].title = "\"><svg onload=alert(1)>".into();
    let html = text(&hostile, "report.html");
    assert!(!html.contains("<script") && !html.contains("<img src") && !html.contains("<svg onload"));
    let markdown = markdown(&hostile);
    assert!(!markdown.contains("\n# <") && !markdown.contains("\n## z"));
    assert!(markdown.contains(r"x\|y"));
}

#[test]
fn what_is_measured_on_tensors_comes_in_as_numbers() {
    let summary = imp(&[0, 1, 2], 1);
    assert!(!markdown(&summary).contains("Masks, weights and pictures"));
    let picture = Picture::png(b"\x89PNG\r\n\x1a\n", "cat (0.98)").expect("it begins as a PNG file does");
    let extras = Extras {
        overlaps: vec![Overlap {
            title: "between seeds at level 1".into(),
            names: vec!["seed 0".into(), "seed 1".into()],
            values: vec![vec![1.0, 0.37], vec![0.37, 1.0]],
            by_chance: Some(0.333),
        }],
        histograms: vec![WeightHistogram {
            title: "ticket/1/0".into(),
            edges: vec![-1.0, 0.0, 1.0],
            series: vec![("at the start".into(), vec![3.0, 4.0])],
        }],
        pictures: vec![picture],
        about_pictures: "The first test picture.".into(),
        notes: vec!["The network of ticket/1/2 could not be read.".into()],
    };
    let files = report::files_with(&summary, &extras);
    let html = &files.iter().find(|(name, _)| *name == "report.html").expect("it is one of two").1;
    for title in ["Mask overlap between seeds at level 1", "Weights of ticket/1/0", "Examples"] {
        assert!(html.contains(title), "{title}");
    }
    for said in [
        "at random with as many weights in each layer: 33.3",
        "The first test picture.",
        "ticket/1/2 could not be read",
    ] {
        assert!(html.contains(said), "{said}");
    }
}

#[test]
fn what_trained_it_is_said() {
    let mut summary = imp(&[0, 1, 2], 1);
    let build = BuildRecord {
        commit: Some("8c9a131".into()),
        compiler: Some("rustc 1.95.0".into()),
        candle: Some("0.11.1".into()),
        ..BuildRecord::of("lth 0.1.0")
    };
    summary.builds = vec![BuildRecord::of("lth 0.0.9"), BuildRecord { is_modified: true, ..build }];
    summary.dataset.splits = [(7, "ab".repeat(32))].into();
    summary.machine.iter_mut().for_each(|machine| machine.instruction_set = Some("AVX2".into()));
    summary.earlier = vec![Address::new("random", 1, 0), Address::new("random", 1, 2)];
    let report = markdown(&summary.settled().expect("it is valid"));
    for said in [
        "lth 0.0.9, commit unknown",
        "lth 0.1.0, commit 8c9a131, with changes that are in no commit, rustc 1.95.0, candle 0.11.1",
        "2 threads, kernels for AVX2",
        "2 fits that the last command did not ask for, shown like all others: random (2)",
        &"ab".repeat(32),
    ] {
        assert!(report.contains(said), "{said}: {report}");
    }
    summary.earlier.push(Address::new("shuffled", 1, 0));
    assert!(summary.settled().is_err(), "an earlier fit that is not there");
}

#[test]
fn pictures_are_shown_from_their_file_and_only_from_inside_it() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    assert_eq!(ContactSheet::read(folder.path())?, None);
    let shown = |said: &str| Shown::png(b"\x89PNG\r\n\x1a\n", "cat", vec!["cat".into(), said.into()]);
    let mut sheet = ContactSheet {
        caption: "The first two.".into(),
        networks: vec![Address::new("dense", 0, 1), Address::new("ticket", 2, 1)],
        pictures: vec![shown("cat")?, shown("dog")?],
    };
    std::fs::write(folder.path().join("pictures.json"), serde_json::to_string(&sheet)?)?;
    assert_eq!(ContactSheet::read(folder.path())?.as_ref(), Some(&sheet));
    let pictures = sheet.pictures()?;
    let looks: Vec<_> = pictures.iter().map(|picture| (picture.caption.as_str(), picture.outcome)).collect();
    let (right, wrong) = (Some(Outcome::Right), Some(Outcome::Wrong));
    assert_eq!(looks, [("cat\ndense: cat\nticket: cat", right), ("cat\ndense: cat\nticket: dog", wrong)]);
    sheet.pictures[0].picture = "https://example.org/cat.png".into();
    std::fs::write(folder.path().join("pictures.json"), serde_json::to_string(&sheet)?)?;
    assert!(ContactSheet::read(folder.path()).is_err());
    Ok(())
}

#[test]
fn a_report_of_nothing_says_so() {
    let nothing = Summary { fits: Vec::new(), ..imp(&[0], 1) };
    let report = markdown(&nothing);
    assert!(report.contains("No fit has ended yet.") && report.contains("nothing is compared"), "{report}");
    assert!(!report.contains("NaN") && !report.contains("## Costs"));
    assert_eq!(report::overview(&nothing).lines().count(), 2);
    let unfinished = Summary { fits: imp(&[0], 1).fits[..1].to_vec(), ..imp(&[0], 1) };
    assert!(markdown(&unfinished).contains("| dense |"));
}

#[test]
fn every_figure_and_table_is_in_the_page() {
    let html = text(&imp(&[0, 1, 2], 4), "report.html");
    for title in [
        "Test accuracy on digits",
        "Early-stop step on digits",
        "Learning curves",
        "Validation loss",
        "Time against test accuracy",
        "Weights that remain in each layer of ticket",
        "Time of a training step",
    ] {
        assert!(html.contains(title), "{title}");
    }
    let without_namespace = html.replace("http://www.w3.org/", "");
    assert!(!html.contains("<script") && !without_namespace.contains("http://") && !html.contains("https://"));
    assert!(html.contains("Fits (39)") && html.contains("Files (39)"));
    assert!(html.contains("lth imp --out &#39;runs/a b&#39;") || html.contains("lth imp --out 'runs/a b'"));
}

#[test]
fn a_large_experiment_is_reported_in_a_second() {
    let seeds: Vec<u64> = (0..10).collect();
    let large = imp(&seeds, 20);
    let start = std::time::Instant::now();
    let files = report::files(&large);
    assert!(start.elapsed().as_secs_f64() < 1.0, "took {:?}", start.elapsed());
    assert!(files[0].1.contains("All 6,100 measurements are in metrics.jsonl."), "{} fits", large.fits.len());
}

#[test]
fn long_tables_are_not_printed_unasked() {
    let long = |summary: &Summary| text(summary, "report.html").matches("<details class=\"long\">").count();
    assert_eq!(long(&imp(&[0, 1, 2], 1)), 0);
    assert_eq!(long(&imp(&[0, 1, 2, 3, 4], 12)), 3, "fits and files: 185 rows each; 84 verdicts as sentences");
}

#[test]
fn few_verdicts_are_said_one_by_one_with_their_numbers() {
    let report = markdown(&notebook(&[1, 2, 3]));
    let verdicts: Vec<&str> = report.lines().filter(|line| line.starts_with("- At ")).collect();
    assert_eq!(verdicts.len(), 12, "{verdicts:?}");
    assert!(verdicts.iter().all(|verdict| verdict.contains("3 seeds")), "{verdicts:?}");
    assert!(!report.contains("verdicts as a sentence"));
}
