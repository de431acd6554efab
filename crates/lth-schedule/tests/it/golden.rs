//! `schedules.json`: values of fasterai 0.3.3 (commit 868348e) and of fasterai before commit 91ba92f (2021), printed by
//! its own functions at 101 positions. Tolerance 1e-12: both sides are float64, the formulas differ in rounding only.

use std::collections::BTreeMap;

use lth_schedule::{Schedule, Span, Sparsity, SparsitySchedule, Window, fasterai_2021};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    pct: Vec<f64>,
    schedules: BTreeMap<String, Progress>,
    schedules_2021: BTreeMap<String, Values>,
}

#[derive(Deserialize)]
struct Progress {
    start_pct: f64,
    end_pct: f64,
    start_val: f64,
    end_val: f64,
    progress: Vec<f64>,
}

#[derive(Deserialize)]
struct Values {
    start: f64,
    end: f64,
    value: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/schedules.json")).unwrap()
}

#[test]
fn every_schedule_of_fasterai_0_3_3_has_its_values() {
    let golden = golden();
    assert_eq!(golden.schedules.len(), 7);
    for (name, expected) in &golden.schedules {
        let schedule = SparsitySchedule {
            schedule: name.parse().unwrap(),
            start: Sparsity::new(expected.start_val).unwrap(),
            end: Sparsity::new(expected.end_val).unwrap(),
            window: Window::ALL,
            every: None,
        };
        let span = Span::fractions(expected.start_pct, expected.end_pct).unwrap();
        assert_eq!(expected.progress.len(), golden.pct.len());
        for (pct, value) in golden.pct.iter().zip(&expected.progress) {
            let ours = span.position(*pct).map_or(schedule.start, |pos| schedule.at(pos)).fraction();
            assert!((ours - value).abs() <= 1e-12, "{name} at {pct}: {ours}, expected {value}");
        }
    }
}

#[test]
fn the_forms_of_2021_have_their_values() {
    let golden = golden();
    assert_eq!(golden.schedules_2021.len(), 6);
    for (name, expected) in &golden.schedules_2021 {
        for (pct, value) in golden.pct.iter().zip(&expected.value) {
            let ours = if name.starts_with("one_shot") {
                fasterai_2021::one_shot(expected.start, expected.end, *pct)
            } else if name.starts_with("iterative") {
                fasterai_2021::iterative(expected.start, expected.end, *pct, 3)
            } else {
                assert!(name.starts_with("sched_agp"), "{name}");
                fasterai_2021::agp(expected.start, expected.end, *pct)
            };
            assert!((ours - value).abs() <= 1e-12, "{name} at {pct}: {ours}, expected {value}");
        }
    }
}

#[test]
fn the_notebooks_one_shot_and_iterative_are_ours() {
    for (name, expected) in &golden().schedules_2021 {
        let schedule = match name.split_once('_').unwrap().0 {
            "one" => Schedule::OneShot,
            "iterative" => Schedule::iterative(3).unwrap(),
            _ => continue,
        };
        let schedule = SparsitySchedule {
            schedule,
            start: Sparsity::from_percent(expected.start).unwrap(),
            end: Sparsity::from_percent(expected.end).unwrap(),
            window: Window::ALL,
            every: None,
        };
        for (pct, value) in golden().pct.iter().zip(&expected.value) {
            let ours = schedule.at(*pct).percent();
            assert!((ours - value).abs() <= 1e-12, "{name} at {pct}: {ours}, expected {value}");
        }
    }
}
