//! What the masks are, beside what the schedule asks for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

use candle_core::Tensor;
use lth_criteria::{Checked, Criterion, Input, Inputs, Movement, Requirements};
use lth_mask::{Granularity, Mask, Scope, Selection};
use lth_schedule::{Schedule, Sparsity, SparsitySchedule, Step, TrainingLength};
use lth_ticket::{Error, Notice, Pruning, PruningConfig, Regrowth, Rewind, layer_records};
use lth_train::{BoxError, End, Event, Fit, FitConfig, Hook, Network};

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
fn notices_tell_what_was_counted_beside_what_was_asked() -> Outcome {
    // Of no layer 33.3 % are a whole number of weights.
    let (counted, told) = measure(config(SparsitySchedule::to(percent(33.3), Schedule::OneShot)))?;
    let Some(Notice::FitEnd { sparsity, measured }) = told.last() else { panic!("{told:?}") };
    assert_eq!(*sparsity, percent(33.3));
    assert_eq!(Some(measured.fraction()), counted.0.last().map(|at| at[ALL]));
    assert_ne!(measured, sparsity);
    Ok(())
}

#[test]
fn the_defaults_are_the_papers_and_the_notebooks_have_a_name() {
    let schedule = || SparsitySchedule::to(percent(50.0), Schedule::OneShot);
    let (papers, notebook) = (PruningConfig::new(schedule()), PruningConfig::notebook(schedule()));
    assert_eq!((papers.ranks, notebook.ranks), (vec![2, 3, 4, 5], vec![4]));
    assert_eq!((papers.selection, notebook.selection), (Selection::default(), Selection::fasterai_2021()));
    assert_eq!((papers.rewind, notebook.rewind), (None, None));
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

#[test]
fn spans_prune_by_the_schedule_of_the_whole_training() -> Outcome {
    // Three and a half epochs, in parts that end inside epochs.
    let at = |iteration| Step { epoch: 0, iteration };
    let (length, schedule) = (at(14), SparsitySchedule::to(percent(80.0), Schedule::Agp));
    let plan = schedule.plan(TrainingLength::until(length, N_BATCHES as u32)?)?;
    let (mut trainer, mut measured) = (trainer(), Measured::default());
    for (from, to) in [(0, 3), (3, 9), (9, 14)] {
        let mut pruning = Pruning::new(config(schedule.clone()));
        let span = FitConfig { length: Some(length), ..FitConfig::span(at(from), at(to)) };
        trainer.fit(&span, &data(), &mut [&mut pruning, &mut measured])?;
    }
    assert_eq!(measured.0.len(), 14);
    for (iteration, at) in measured.0.iter().enumerate() {
        let asked = plan.sparsity(iteration as u64).fraction();
        assert!((at[ALL] - asked).abs() < 0.02, "batch {iteration}: asked {asked}, got {}", at[ALL]);
    }
    assert!((lth_mask::MaskSet::from_tensors(trainer.masks())?.sparsity() - 0.8).abs() < 0.01);
    Ok(())
}

#[test]
fn a_span_that_begins_after_what_it_rewinds_to_is_refused() -> Outcome {
    let schedule =
        SparsitySchedule { window: "2ep..end".parse()?, ..SparsitySchedule::to(percent(80.0), Schedule::OneShot) };
    for (from, epoch, is_refused) in [(5, 1, true), (4, 1, false), (1, 0, true), (3, 1, false)] {
        let config = PruningConfig { rewind: Some(Rewind::to_epoch(epoch)), ..config(schedule.clone()) };
        let span = FitConfig::span(Step { epoch: 0, iteration: from }, Step::epoch(4));
        let result = trainer().fit(&span, &data(), &mut [&mut Pruning::new(config)]);
        assert_eq!(result.is_err(), is_refused, "from {from} to epoch {epoch}");
        if let Err(error) = result {
            assert!(error.to_string().contains("the fit begins at step 1"), "{error}");
            assert!(error.to_string().contains(&format!("after the start of epoch {epoch} to which")), "{error}");
        }
    }
    Ok(())
}

#[test]
fn a_stopped_search_still_leaves_its_ticket() -> Outcome {
    struct Stop;
    impl Hook for Stop {
        fn name(&self) -> &str {
            "stop"
        }

        fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
            if (event, fit.iteration()) == (Event::AfterStep, 9) {
                fit.stop("enough");
            }
            Ok(())
        }
    }
    let mut trainer = trainer();
    let initial = trainer.network().parameters().snapshot(|_, _| true)?;
    let rewind = Some(Rewind { reset_end: true, ..Rewind::to_epoch(0) });
    let schedule = SparsitySchedule::to(percent(50.0), Schedule::OneShot);
    let mut pruning = Pruning::new(PruningConfig { rewind, ..config(schedule) });
    let fitted = trainer.fit(&FitConfig::new(4), &data(), &mut [&mut pruning, &mut Stop])?;
    assert_eq!(fitted.end, End::Stopped { by: "stop".to_owned(), reason: "enough".to_owned() });
    for (name, start) in initial {
        let expected = match trainer.masks().get(&name) {
            Some(mask) => mask.where_cond(&start, &start.zeros_like()?)?,
            None => start,
        };
        let now = trainer.network().parameters().require(&name)?.var().as_tensor().clone();
        assert_eq!((now - expected)?.abs()?.max_all()?.to_scalar::<f32>()?, 0.0, "{name}");
    }
    Ok(())
}

/// |gradient|, by which a pruned weight can be worth more than a kept one.
struct GradientSize;

impl Criterion for GradientSize {
    fn name(&self) -> &str {
        "gradient_size"
    }

    fn requires(&self) -> Requirements {
        Requirements::of(&[Input::Gradient])
    }

    fn score(&self, name: &str, inputs: &Inputs<'_>) -> Result<Tensor, lth_criteria::Error> {
        let checked = Checked::new(self.name(), name, inputs);
        checked.finish(&checked.like_weight(Input::Gradient)?.abs()?)
    }
}

/// The masks after every step.
#[derive(Default)]
struct Masks(Vec<lth_mask::MaskSet>);

impl Hook for Masks {
    fn name(&self) -> &str {
        "masks"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        if matches!(event, Event::AfterStep | Event::FitEnd) && !fit.masks().is_empty() {
            self.0.push(lth_mask::MaskSet::from_tensors(fit.masks())?);
        }
        Ok(())
    }
}

#[test]
fn pruned_weights_come_back_only_where_masks_are_free() -> Outcome {
    for regrowth in [Regrowth::Nested, Regrowth::Free] {
        let schedule =
            SparsitySchedule { every: NonZeroU32::new(3), ..SparsitySchedule::to(percent(60.0), Schedule::Linear) };
        let config = PruningConfig { regrowth, criterion: Box::new(GradientSize), ..config(schedule) };
        let (mut trainer, mut masks) = (trainer(), Masks::default());
        trainer.fit(&FitConfig::new(4), &data(), &mut [&mut Pruning::new(config), &mut masks])?;
        let mut n_back = 0;
        for pair in masks.0.windows(2) {
            for (name, now) in pair[1].iter() {
                let before = pair[0].get(name).ok_or("a mask")?;
                n_back += before.iter().zip(now.iter()).filter(|(before, now)| !before && *now).count();
            }
        }
        assert_eq!(n_back > 0, regrowth == Regrowth::Free, "{regrowth:?}: {n_back} came back");
        let last = masks.0.last().ok_or("masks")?;
        assert!((last.sparsity() - 0.6).abs() < 0.01, "{regrowth:?}: {}", last.sparsity());
    }
    Ok(())
}
