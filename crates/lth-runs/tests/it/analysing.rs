//! What is made of an experiment's numbers, against numbers worked out by hand and against a statistics library.

use lth_runs::statistics::{Claim, VerdictKind};
use lth_runs::{Address, Analysis, Compared, Comparison, Ending, Part, Reference, ReferenceFigure, Summary};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::fixture::{imp, notebook, race, regression};

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "found {found}, expected {expected}");
}

fn against<'a>(analysis: &'a Analysis, arm: &str, level: u32, compared: Compared) -> Vec<&'a Comparison> {
    let wanted = |other: &&Comparison| other.arm == arm && other.level == level && other.compared == compared;
    analysis.comparisons.iter().filter(wanted).collect()
}

#[test]
fn search_time_counts() {
    let analysis = Analysis::of(&imp(&[0], 3));
    // Dense takes 10 × (2 s − 5 ms × 1): noise(0, 0) is −0.5, so 19.95 s; the ticket's levels 18, 16 and 14 s with noise
    // (0, level) of −0.3, −0.1 … by (13 level mod 11) / 10 − 1/2: 2, 4, 6 tenths less a half.
    let levels = [19.95, 18.0 + 0.1 * (0.2 - 0.5), 16.0 + 0.1 * (0.4 - 0.5), 14.0 + 0.1 * (0.6 - 0.5)];
    for level in 1..=3_usize {
        let ticket = analysis.figures_of("ticket", level as u32).expect("it was trained");
        close(ticket.seconds.expect("timed").mean, levels[level]);
        close(ticket.seconds_in_all.expect("timed").mean, levels[..=level].iter().sum());
        close(ticket.n_steps.expect("trained").mean, 1000.0);
        close(ticket.n_steps_in_all.expect("trained").mean, 1000.0 * (level + 1) as f64);
    }
    // A control of the mask rests on the whole search too.
    close(analysis.figures_of("random", 3).and_then(|random| random.n_steps_in_all).expect("trained").mean, 5000.0);
    // In the notebook the search is an arm of its own.
    let analysis = Analysis::of(&notebook(&[0]));
    close(analysis.figures_of("ticket", 2).and_then(|ticket| ticket.seconds_in_all).expect("timed").mean, 20.0);
    close(analysis.figures_of("dense-longer", 0).and_then(|dense| dense.seconds_in_all).expect("timed").mean, 20.0);
}

#[test]
fn in_a_race_every_arm_is_held_against_dense_by_its_whole_time() {
    let summary = race(&[0, 1, 2, 3]);
    let analysis = Analysis::of(&summary);
    // Two arms at two levels: as good, and in less time. Nothing else is asked, and all is corrected together.
    assert_eq!((analysis.comparisons.len(), analysis.comparisons[0].verdict.n_comparisons), (8, 8));
    let of = |arm: &str, level: u32| {
        analysis.race.iter().find(|racer| (racer.arm.as_str(), racer.level) == (arm, level)).expect("it was trained")
    };
    let seconds = |arm: &str, level: u32, seed: u64| {
        summary.fit(&Address::new(arm, level, seed)).map(|fit| fit.seconds() + 0.125).expect("it was trained")
    };
    let geometric = |ratios: Vec<f64>| {
        let n = ratios.len() as f64;
        (ratios.into_iter().map(f64::ln).sum::<f64>() / n).exp()
    };
    let search =
        |seed: u64| (0..=2).map(|level| seconds(if level == 0 { "dense" } else { "ticket" }, level, seed)).sum();
    let expected = (0..4)
        .map(|seed| {
            let all: f64 = search(seed);
            all / seconds("dense", 0, seed)
        })
        .collect();
    close(of("ticket", 2).ratio.expect("timed").mean, geometric(expected));
    let expected = (0..4).map(|seed| seconds("random", 1, seed) / seconds("dense", 0, seed)).collect();
    close(of("random", 1).ratio.expect("timed").mean, geometric(expected));
    assert!(of("dense", 0).ratio.is_none());

    // Dense is within a point of its end, half a point a validation, from the eighth of ten on; all of the ticket's search
    // and its pruning come before its own first step.
    let estimates = of("dense", 0).seconds_to_target.expect("validated");
    let of_seeds: f64 = (0..4).map(|seed| 0.125 + 0.8 * (seconds("dense", 0, seed) - 0.125)).sum::<f64>() / 4.0;
    close(estimates.mean, of_seeds);
    assert!(of("ticket", 1).seconds_to_target.expect("validated").mean > of("dense", 0).seconds.expect("timed").mean);
    // Three points a level below dense it never gets there.
    assert_eq!((of("random", 2).seconds_to_target, of("random", 2).ratio_to_target), (None, None));

    let said = lth_runs::report::overview(&summary);
    assert!(said.contains("within 1.00 points, search included, takes random 50 % in 0."), "{said}");
    let rows: Vec<&str> = said.lines().filter(|line| line.starts_with("random")).collect();
    assert!(rows[0].contains(" yes ") && rows[1].contains(" not shown ") && rows[1].contains("0 of 4"), "{said}");
    let two = lth_runs::report::overview(&race(&[0, 1]));
    assert!(two.contains("No verdict from fewer than 3 seeds"), "{two}");
    let mut none = race(&[0, 1, 2]);
    none.fits.retain(|fit| fit.address.arm != "random");
    let none = lth_runs::report::overview(&none);
    assert!(none.contains("No arm is shown to be as good as dense within 1.00 points in less time"), "{none}");

    // The figure is of the same seconds, and stands beside the table.
    let page = lth_runs::report::page(&summary, &lth_runs::report::Extras::default()).html();
    let place = |heading: &str| page.find(heading).expect("it is in the report");
    assert!((place("<h2>Race")..place("<h2>Result")).contains(&place("seconds in all, search included")));
    assert!(!page.contains("seconds of training, search included"));
}

#[test]
fn figures_are_of_the_measured_mask_and_the_test_set() {
    let mut summary = imp(&[0, 1, 2], 4);
    for fit in &mut summary.fits {
        fit.sparsity = 0.9; // as planned; the layers say otherwise
    }
    let analysis = Analysis::of(&summary);
    assert_eq!((analysis.measure.name.as_str(), analysis.metric.as_deref()), ("test accuracy", Some("accuracy")));
    let ticket = analysis.figures_of("ticket", 2).expect("it was trained");
    close(ticket.density.expect("counted").mean, 0.25);
    close(ticket.best_step.expect("validated").mean, (500.0 + 400.0 + 500.0) / 3.0);
    let accuracies: Vec<f64> = (0..3)
        .map(|seed| {
            summary.fit(&Address::new("ticket", 2, seed)).and_then(|fit| fit.metric("accuracy")).expect("tested")
        })
        .collect();
    close(ticket.metric.expect("tested").mean, accuracies.iter().sum::<f64>() / 3.0);
    close(ticket.metric_at_best.expect("tested").mean, accuracies.iter().sum::<f64>() / 3.0 - 0.001);
    let overhead = 0.1875 / (ticket.seconds.expect("timed").mean + 2.5 + 0.1875);
    assert!((ticket.overhead_share.expect("timed").mean - overhead).abs() < 1e-5);
}

#[test]
fn the_ticket_is_compared_with_dense_at_every_level() {
    let analysis = Analysis::of(&imp(&[0, 1, 2], 4));
    for level in 1..=4 {
        let metric = against(&analysis, "dense", level, Compared::Metric);
        assert_eq!(metric.len(), 2, "that it differs, and that it is as good within the margin");
        assert_eq!(metric[1].verdict.claim, Claim::AtLeastAsGood { margin: 0.01 });
        assert_eq!(metric[1].verdict.kind, VerdictKind::AtLeastAsGood);
        for compared in [Compared::BestStep, Compared::StepTime] {
            assert_eq!(against(&analysis, "dense", level, compared).len(), 1);
        }
        assert_eq!(against(&analysis, "random", level, Compared::BestStep).len(), 0);
        assert_eq!(against(&analysis, "reinitialised", level, Compared::BestStep).len(), 1);
        assert_eq!(against(&analysis, "reinitialised", level, Compared::Metric)[0].arm_level, level);
    }
    let first = &analysis.comparisons[0].verdict;
    assert_eq!(first.setting, "at 50 % of weights");
    // Four levels of two on the metric, two ratios, two controls and the reinitialised one's step.
    assert_eq!((analysis.comparisons.len(), first.n_comparisons), (28, 28));
}

#[test]
fn a_difference_has_students_p_and_holms_correction() {
    let summary = imp(&[0, 1, 2], 4);
    let analysis = Analysis::of(&summary);
    let accuracy = |arm: &str, level, seed| {
        summary.fit(&Address::new(arm, level, seed)).and_then(|fit| fit.metric("accuracy")).expect("tested")
    };
    let student = StudentsT::new(0.0, 1.0, 2.0).expect("two degrees of freedom");
    for level in 1..=4 {
        let found = &against(&analysis, "random", level, Compared::Metric)[0].verdict;
        let differences: Vec<f64> =
            (0..3).map(|seed| accuracy("ticket", level, seed) - accuracy("random", level, seed)).collect();
        let mean = differences.iter().sum::<f64>() / 3.0;
        let variance = differences.iter().map(|difference| (difference - mean).powi(2)).sum::<f64>() / 2.0;
        let p = 2.0 * student.cdf(-(mean / (variance / 3.0).sqrt()).abs());
        close(found.mean, mean);
        assert!((found.p_value.expect("three seeds") - p).abs() < 1e-9);
    }
    // Holm's correction by its definition, over all of them.
    let mut p_values: Vec<f64> =
        analysis.comparisons.iter().filter_map(|comparison| comparison.verdict.p_value).collect();
    p_values.sort_by(f64::total_cmp);
    let mut running = 0.0_f64;
    for (rank, p) in p_values.iter().enumerate() {
        running = running.max(((p_values.len() - rank) as f64 * p).min(1.0));
        let of_rank = analysis.comparisons.iter().find(|comparison| comparison.verdict.p_value == Some(*p));
        close(of_rank.and_then(|comparison| comparison.verdict.adjusted).expect("tested"), running);
    }
}

#[test]
fn a_control_at_level_0_is_compared_with_every_ticket() {
    let analysis = Analysis::of(&notebook(&[0, 1, 2]));
    for level in [1, 2] {
        let longer = against(&analysis, "dense-longer", level, Compared::Metric);
        assert_eq!((longer.len(), longer[0].arm_level), (1, 0));
        let random = against(&analysis, "random", level, Compared::Metric);
        assert_eq!((random.len(), random[0].arm_level), (1, level));
    }
    assert!(analysis.comparisons.iter().all(|comparison| !comparison.arm.contains("search")));
}

#[test]
fn one_seed_makes_no_verdict() {
    let analysis = Analysis::of(&imp(&[7], 4));
    assert_eq!(analysis.comparisons.len(), 28);
    for comparison in &analysis.comparisons {
        let verdict = &comparison.verdict;
        assert_eq!(verdict.kind, VerdictKind::TooFewSeeds);
        assert_eq!((verdict.interval, verdict.p_value, verdict.adjusted), (None, None, None));
    }
    assert!(Analysis::of(&imp(&[1, 2], 2)).comparisons.iter().all(|two| two.verdict.kind == VerdictKind::TooFewSeeds));
}

#[test]
fn one_seed_is_compared_by_example() {
    let summary = imp(&[7], 1);
    let analysis = Analysis::of(&summary);
    // Against dense, the reinitialised and the random one; not for ratios, and once for two claims.
    assert_eq!(analysis.single.len(), 3);
    let single = &analysis.single[0];
    assert_eq!((&single.ticket, &single.arm), (&Address::new("ticket", 1, 7), &Address::new("dense", 0, 7)));
    let right = |address: &Address| -> Vec<bool> {
        summary.fit(address).and_then(|fit| fit.at_end.as_ref()?.right.as_ref()).expect("kept").iter().collect()
    };
    let (dense, ticket) = (right(&single.arm), right(&single.ticket));
    let only =
        |one: &[bool], other: &[bool]| one.iter().zip(other).filter(|(one, other)| **one && !**other).count() as u64;
    assert_eq!((single.test.only_first, single.test.only_second), (only(&dense, &ticket), only(&ticket, &dense)));
    assert_eq!(single.n_comparisons, 3);
    assert!(single.to_string().contains("at 50 % of weights, seed 7 alone: ticket has "), "{single}");
    assert!(Analysis::of(&imp(&[7, 8], 1)).single.is_empty());
}

#[test]
fn answers_on_different_examples_are_not_compared() {
    let mut summary = imp(&[7], 1);
    if let Some(at_end) = &mut summary.fits[0].at_end {
        at_end.on = Part::Validation;
    }
    let analysis = Analysis::of(&summary);
    assert_eq!(analysis.single.len(), 2);
    assert_eq!(analysis.measure.name, "accuracy", "some are of the test set and some of the validation set");
}

#[test]
fn a_failed_fit_is_named_and_in_no_figure() {
    let mut summary = imp(&[0, 1, 2, 3], 2);
    let failed = Address::new("random", 2, 3);
    let reason = "loss is NaN at step 420, first in layer fc1".to_owned();
    for fit in summary.fits.iter_mut().filter(|fit| fit.address == failed) {
        fit.ending = Ending::Failed { reason: reason.clone() };
    }
    let analysis = Analysis::of(&summary);
    assert_eq!(analysis.left_out.len(), 1);
    assert_eq!((analysis.left_out[0].what.as_str(), &analysis.left_out[0].reason), ("random/2/3", &reason));
    assert_eq!(analysis.figures_of("random", 2).expect("three are left").seeds, [0, 1, 2]);
    assert_eq!(against(&analysis, "random", 2, Compared::Metric)[0].verdict.n_seeds, 3);
    assert_eq!(against(&analysis, "random", 1, Compared::Metric)[0].verdict.n_seeds, 4);
}

#[test]
fn seeds_are_paired_and_not_counted_together() {
    let mut summary = imp(&[0, 1, 2, 3], 1);
    // Dense lost seed 0, the ticket seed 3: two pairs are left of three values each.
    for fit in &mut summary.fits {
        if [Address::new("dense", 0, 0), Address::new("ticket", 1, 3)].contains(&fit.address) {
            fit.ending = Ending::Failed { reason: "disk full".into() };
        }
    }
    let analysis = Analysis::of(&summary);
    let verdict = &against(&analysis, "dense", 1, Compared::Metric)[0].verdict;
    assert_eq!((verdict.n_seeds, verdict.kind), (2, VerdictKind::TooFewSeeds));
}

#[test]
fn without_the_metric_the_loss_is_compared_and_no_margin_is_used() {
    let analysis = Analysis::of(&regression(&[0, 1, 2]));
    assert_eq!((analysis.metric.as_deref(), analysis.measure.name.as_str()), (None, "test loss"));
    let metric = against(&analysis, "random", 2, Compared::Metric);
    assert_eq!((metric.len(), metric[0].verdict.kind), (1, VerdictKind::Lower));
    assert_eq!(against(&analysis, "dense", 2, Compared::Metric).len(), 1);
}

#[test]
fn a_margin_of_zero_is_refused_aloud() {
    let mut summary = imp(&[0, 1, 2], 1);
    summary.margin = Some(0.0);
    let analysis = Analysis::of(&summary);
    assert_eq!(against(&analysis, "dense", 1, Compared::Metric).len(), 1);
    assert_eq!(analysis.left_out[0].what, "whether ticket is as good as dense at 50 % of weights");
}

#[test]
fn an_early_stop_at_step_0_has_no_ratio_and_says_so() {
    let mut summary = imp(&[0, 1, 2], 1);
    let dense = summary.fits.iter_mut().find(|fit| fit.address.arm == "dense").expect("the first");
    dense.history[0].step = 0;
    dense.history[0].valid_loss = Some(0.0);
    let analysis = Analysis::of(&summary);
    assert!(against(&analysis, "dense", 1, Compared::BestStep).is_empty());
    assert_eq!(analysis.left_out[0].what, "early-stop step of ticket against dense at 50 % of weights");
    assert_eq!(against(&analysis, "reinitialised", 1, Compared::BestStep).len(), 1);
}

#[test]
fn published_figures_are_laid_beside_ours() {
    let mut summary = imp(&[0, 1, 2], 2);
    let figure = |arm: &str, level, metric: &str, value| ReferenceFigure {
        arm: arm.into(),
        level,
        metric: metric.into(),
        value,
    };
    summary.reference = Some(Reference {
        title: "the paper".into(),
        source: "figure 4".into(),
        caveats: vec!["other data".into()],
        figures: vec![
            figure("ticket", 1, "accuracy", 0.96),
            figure("dense", 0, "best_step", 650.0),
            figure("ticket", 9, "accuracy", 0.5),
        ],
    });
    let analysis = Analysis::of(&summary);
    let [accuracy, step, absent] = analysis.beside.as_slice() else { panic!("three figures") };
    let here = analysis.figures_of("ticket", 1).and_then(|ticket| ticket.metric).expect("tested");
    close(accuracy.difference.expect("there"), here.mean - 0.96);
    assert_eq!(accuracy.interval, here.interval(0.95));
    assert_eq!((step.difference, step.interval), (Some(50.0), None), "all three stop at 700: no zero-width interval");
    assert_eq!((absent.here, absent.difference), (None, None));
}

#[test]
fn an_analysis_is_plain_data() -> Result<(), serde_json::Error> {
    let analysis = Analysis::of(&notebook(&[1, 2, 3]));
    let text = serde_json::to_string(&analysis)?;
    let read: Analysis = serde_json::from_str(&text)?;
    assert_eq!(read.comparisons.len(), analysis.comparisons.len());
    let nothing = Summary { fits: Vec::new(), ..notebook(&[1]) };
    assert_eq!(Analysis::of(&nothing).comparisons, []);
    Ok(())
}
