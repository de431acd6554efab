//! What the comparison is made of.

use lth_runs::{Comparison, Role, epochs_in_all};

use crate::fixture::{five_fits, run};

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "found {found}, expected {expected}");
}

#[test]
fn a_stands_beside_every_b() {
    let comparison = Comparison::of(&five_fits(0, true)).unwrap();
    assert_eq!(comparison.baseline.name, "baseline");
    let sparsities: Vec<f64> = comparison.tickets.iter().map(|ticket| ticket.sparsity).collect();
    assert_eq!(sparsities, [0.5, 0.8]);
    let half = &comparison.tickets[0];
    close(half.accuracy_difference.mean, 0.02);
    close(half.accuracy_ratio.unwrap().mean, 0.89 / 0.87);
    close(half.time_ratio.unwrap().mean, 0.75);
    let curve: Vec<f64> = half.accuracy_b.iter().map(|estimate| estimate.mean).collect();
    assert_eq!(curve.len(), 6);
    close(curve[0], 0.84);
    close(curve[5], 0.89);
    assert_eq!(half.search.as_ref().unwrap().name, "search-50");
}

#[test]
fn epochs_count_those_of_the_runs_before() {
    let comparison = Comparison::of(&five_fits(0, true)).unwrap();
    assert_eq!(comparison.baseline.n_epochs_in_all, 6);
    let ticket = &comparison.tickets[0].ticket;
    assert_eq!((ticket.n_epochs, ticket.n_epochs_in_all), (6, 10));
    let runs = five_fits(0, true);
    assert_eq!(epochs_in_all(&runs, &runs[2])[..4], runs[1].epochs);
}

#[test]
fn controls_are_found_by_their_part_not_their_name() {
    let mut runs = five_fits(0, true);
    for run in &mut runs {
        run.name = format!("x{}", run.name);
        run.starts_from = run.starts_from.as_ref().map(|name| format!("x{name}"));
    }
    let comparison = Comparison::of(&runs).unwrap();
    let half = &comparison.tickets[0];
    close(half.longer.as_ref().unwrap().accuracy_difference.mean, 0.89 - 0.895);
    close(half.random.as_ref().unwrap().accuracy_difference.mean, 0.89 - 0.85);
    // No random mask was tried at 80 %, but the longer A serves both.
    let eighty = &comparison.tickets[1];
    assert!(eighty.random.is_none());
    assert_eq!(eighty.longer.as_ref().unwrap().figures.n_epochs_in_all, 10);
}

#[test]
fn a_longer_control_is_read_at_the_age_of_the_ticket() {
    let mut runs = five_fits(0, false);
    // From the initial weights, and two epochs longer than B: its tenth epoch counts, 0.02 below its last.
    let mut longer = run("long", Role::Baseline, 0, 0.0, 12, 0.92);
    longer.control = true;
    runs.push(longer);
    let comparison = Comparison::of(&runs).unwrap();
    let control = comparison.tickets[0].longer.as_ref().unwrap();
    assert_eq!(control.figures.n_epochs_in_all, 10);
    close(control.figures.accuracy.mean, 0.90);
    close(control.accuracy_difference.mean, 0.89 - 0.90);
    // One that stopped before B's age is no control for B.
    runs.last_mut().unwrap().epochs.truncate(9);
    assert!(Comparison::of(&runs).unwrap().tickets[0].longer.is_none());
}

#[test]
fn seeds_are_paired_and_missing_ones_left_out() {
    let mut runs: Vec<_> = [2, 0, 1].into_iter().flat_map(|seed| five_fits(seed, true)).collect();
    let comparison = Comparison::of(&runs).unwrap();
    assert_eq!(comparison.baseline.seeds, [0, 1, 2]);
    let difference = comparison.tickets[0].accuracy_difference;
    // 0.02, 0.025, 0.03
    close(difference.mean, 0.025);
    close(difference.standard_error.unwrap(), 0.005 / 3.0_f64.sqrt());
    let interval = difference.interval.unwrap();
    close((interval.high - interval.low) / 2.0, 4.302_652_729_911_275 * 0.005 / 3.0_f64.sqrt());

    runs.retain(|run| !(run.name == "ticket-50" && run.seed == 1));
    let comparison = Comparison::of(&runs).unwrap();
    assert_eq!(comparison.tickets[0].accuracy_difference.n, 2);
    assert_eq!(comparison.tickets[1].accuracy_difference.n, 3);
    assert_eq!(comparison.baseline.accuracy.n, 3);
}

#[test]
fn nothing_is_compared_without_both_sides() {
    assert!(Comparison::of(&[]).is_none());
    assert!(Comparison::of(&five_fits(0, true)[..2]).is_none());
    // A longer A alone is a control of nothing.
    assert!(Comparison::of(&five_fits(0, true)[1..]).is_none());
    let mut other_seed = five_fits(0, false);
    other_seed.retain(|run| run.role == Role::Baseline);
    other_seed.extend(five_fits(1, false).into_iter().filter(|run| run.role != Role::Baseline));
    assert!(Comparison::of(&other_seed).is_none());
}
