//! What the masks are, beside what the schedule asks for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

use lth_criteria::Movement;
use lth_mask::{Granularity, Mask, Scope, Selection};
use lth_schedule::{Schedule, Sparsity, SparsitySchedule};
use lth_ticket::{Error, Notice, Pruning, PruningConfig, Rewind, layer_records};
use lth_train::{BoxError, Event, Fit, FitConfig, Hook, Network};

use crate::support::{N_BATCHES, RANKS, data, trainer};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn percent(value: f64) -> Sparsity {
    Sparsity::from_percent(value).expect("a percentage")
}

/// Sparsities of the masks in force at every training batch, by weight and of all.
#[derive(Default)]
struct Measured(Vec<BTreeMap<String, f64>>);

const ALL: &str = "all";

impl Hook for Measured {
    fn name(&self) -> &str {
        "measured"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        if event == Event::BeforeStep {
            let (mut at, mut zeros, mut total) = (BTreeMap::new(), 0, 0);
            for (name, parameter) in fit.parameters().iter().filter(|(_, parameter)| parameter.var().rank() == 2) {
                let n = parameter.var().elem_count();
                let pruned = fit.masks().get(name).map_or(Ok(0), |mask| Mask::from_tensor(mask).map(|m| m.zeros()))?;
                at.insert(name.to_owned(), pruned as f64 / n as f64);
                (zeros, total) = (zeros + pruned, total + n);
            }
            at.insert(ALL.to_owned(), zeros as f64 / total as f64);
            self.0.push(at);
        }
        Ok(())
    }
}

/// Masks during a fit of four epochs, and what was told.
fn measure(config: PruningConfig) -> Result<(Measured, Vec<Notice>), lth_train::Error> {
    let told = RefCell::new(Vec::new());
    let mut measured = Measured::default();
    let mut pruning = Pruning::new(config).with_notices(|notice| told.borrow_mut().push(*notice));
    trainer().fit(&FitConfig::new(4), &data(), &mut [&mut pruning, &mut measured])?;
    drop(pruning);
    Ok((measured, told.into_inner()))
}

fn config(schedule: SparsitySchedule) -> PruningConfig {
    PruningConfig { ranks: RANKS.to_vec(), ..PruningConfig::new(schedule) }
}

fn refusal(config: PruningConfig) -> Error {
    match measure(config).map(|_| ()).expect_err("cannot work") {
        lth_train::Error::Hook { source, .. } => *source.downcast::<Error>().expect("our error"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_schedule_that_starts_at_its_end_prunes_from_the_first_batch() -> Outcome {
    let schedule = SparsitySchedule { start: percent(50.0), ..SparsitySchedule::to(percent(50.0), Schedule::Linear) };
    let (measured, told) = measure(config(schedule))?;
    assert!(measured.0.iter().all(|at| (at[ALL] - 0.5).abs() < 0.01), "{:?}", measured.0);
    let Some(Notice::FitEnd { measured, .. }) = told.last() else { panic!("{told:?}") };
    assert!((measured.percent() - 50.0).abs() < 1.0, "{measured}");
    Ok(())
}

#[test]
fn a_starting_sparsity_holds_before_the_window() -> Outcome {
    let schedule = SparsitySchedule {
        start: percent(30.0),
        window: "2ep..end".parse()?,
        ..SparsitySchedule::to(percent(60.0), Schedule::Linear)
    };
    let (measured, told) = measure(config(schedule))?;
    assert!(measured.0[..2 * N_BATCHES].iter().all(|at| (at[ALL] - 0.3).abs() < 0.01), "{:?}", measured.0);
    let epochs: Vec<_> = told.iter().filter(|notice| matches!(notice, Notice::EpochEnd { .. })).collect();
    let Notice::EpochEnd { epoch: 0, sparsity, measured } = epochs[0] else { panic!("{epochs:?}") };
    assert_eq!(*sparsity, percent(30.0));
    assert!((measured.percent() - 30.0).abs() < 1.0, "{measured}");
    Ok(())
}

#[test]
fn masks_follow_a_falling_sparsity_under_either_rule() -> Outcome {
    let up_and_down = "piecewise(0:0, 0.5:1, 1:0.25)".parse::<Schedule>()?;
    for schedule in [Schedule::Dsd, up_and_down] {
        for selection in [Selection::default(), Selection::fasterai_2021()] {
            let schedule = SparsitySchedule::to(percent(80.0), schedule.clone());
            let plan = schedule.plan(lth_schedule::TrainingLength::new(4, N_BATCHES as u32)?)?;
            let (measured, _) = measure(PruningConfig { selection, ..config(schedule) })?;
            for (iteration, at) in measured.0.iter().enumerate() {
                let asked = plan.sparsity(iteration as u64).fraction();
                // A weight per layer and the rounding of three layers: 21 weights are the fewest.
                assert!((at[ALL] - asked).abs() < 0.02, "batch {iteration}: asked {asked}, got {}", at[ALL]);
            }
        }
    }
    Ok(())
}

#[test]
fn layers_with_targets_of_their_own_follow_the_schedule() -> Outcome {
    let scope = Scope::PerLayer(BTreeMap::from([("fc3.weight".to_owned(), 0.4), ("fc1.weight".to_owned(), 0.0)]));
    let schedule = SparsitySchedule::to(percent(80.0), Schedule::iterative(4)?);
    let selection = Selection { scope, ..Selection::default() };
    let (measured, _) = measure(PruningConfig { selection, ..config(schedule) })?;
    for (iteration, at) in measured.0.iter().enumerate().skip(1) {
        let jumps = (iteration as f64 / 4.0).ceil() / 4.0;
        for (name, end) in [("fc1.weight", 0.0), ("fc2.weight", 0.8), ("fc3.weight", 0.4)] {
            let expected = end * jumps;
            assert!((at[name] - expected).abs() < 0.03, "{name} at batch {iteration}: {} for {expected}", at[name]);
        }
    }
    Ok(())
}

#[test]
fn geometric_rounds_prune_equal_shares_of_what_is_left() -> Outcome {
    let schedule = SparsitySchedule::to(percent(90.0), Schedule::geometric(3)?);
    let (measured, _) = measure(config(schedule))?;
    let mut steps: Vec<f64> = measured.0.iter().map(|at| at[ALL]).filter(|sparsity| *sparsity > 0.0).collect();
    steps.dedup();
    // 1 − 0.1^(k/3) of 211 weights.
    for (got, expected) in steps.iter().zip([0.536, 0.785, 0.9]) {
        assert!((got - expected).abs() < 0.01, "{steps:?}");
    }
    assert_eq!(steps.len(), 3);
    Ok(())
}

#[test]
fn rewinding_before_every_batch_is_refused_and_an_update_frequency_allows_it() -> Outcome {
    let schedule = SparsitySchedule::to(percent(80.0), Schedule::Agp);
    let rewound = |schedule: SparsitySchedule| PruningConfig { rewind: Some(Rewind::to_epoch(0)), ..config(schedule) };
    assert!(matches!(refusal(rewound(schedule.clone())), Error::RewindEveryBatch { .. }));
    let every = SparsitySchedule { every: NonZeroU32::new(8), ..schedule };
    let (_, told) = measure(rewound(every))?;
    let resets = told.iter().filter(|notice| matches!(notice, Notice::Reset { .. })).count();
    assert_eq!(resets, 2, "{told:?}"); // at iteration 8 and at the end
    Ok(())
}

#[test]
fn masks_change_with_the_update_frequency_and_not_at_every_batch() -> Outcome {
    let schedule = SparsitySchedule { every: NonZeroU32::new(4), ..SparsitySchedule::to(percent(80.0), Schedule::Agp) };
    let (_, told) = measure(config(schedule))?;
    let cuts = told.iter().filter(|notice| matches!(notice, Notice::Pruned { .. })).count();
    assert_eq!(cuts, 4, "{told:?}");
    Ok(())
}

#[test]
fn what_a_pattern_cannot_reach_is_refused_before_training() {
    let selection = Selection { granularity: Granularity::NM { n: 2, m: 4 }, ..Selection::default() };
    let selection = Selection { keep_dense: vec!["fc2.weight".to_owned(), "fc3.weight".to_owned()], ..selection };
    let schedule = SparsitySchedule::to(percent(80.0), Schedule::Agp);
    let error = refusal(PruningConfig { selection, ..config(schedule) });
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[test]
fn gradual_two_of_four_by_movement_ends_at_half() -> Outcome {
    let selection = Selection { granularity: Granularity::NM { n: 2, m: 4 }, ..Selection::default() };
    let selection = Selection { keep_dense: vec!["fc2.weight".to_owned(), "fc3.weight".to_owned()], ..selection };
    let schedule = SparsitySchedule::to(percent(50.0), Schedule::iterative(3)?);
    let mut trainer = trainer();
    let config = PruningConfig { selection, criterion: Box::new(Movement), ..config(schedule) };
    trainer.fit(&FitConfig::new(4), &data(), &mut [&mut Pruning::new(config)])?;
    assert_eq!(layer_records(trainer.network().parameters(), &RANKS)?[0].zeros, 60);
    Ok(())
}

#[test]
fn a_pattern_that_fits_no_weight_ends_the_fit_at_its_start() -> Outcome {
    let selection = Selection { keep_dense: vec!["fc2.weight".to_owned(), "fc9".to_owned()], ..Selection::default() };
    let config = PruningConfig { selection, ..config(SparsitySchedule::to(percent(50.0), Schedule::iterative(2)?)) };
    let error = trainer().fit(&FitConfig::new(2), &data(), &mut [&mut Pruning::new(config)]);
    let error = error.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("keep_dense has `fc9`, which fits no tensor of `fc1.weight`"), "{error}");
    Ok(())
}
