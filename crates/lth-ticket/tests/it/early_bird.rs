//! Fits that end when their mask has settled.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::num::NonZeroU32;

use lth_mask::{Scope, Selection};
use lth_schedule::Sparsity;
use lth_ticket::{EarlyBird, Settled};
use lth_train::{BoxError, End, Event, Fit, FitConfig, Hook, State};

use crate::support::{N_BATCHES, RANKS, data, trainer};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;
const N_EPOCHS: usize = 12;
const BEFORE: usize = 2;

fn hook(below: f64) -> Outcome<EarlyBird> {
    let settled = Settled { below, n_epochs: NonZeroU32::new(BEFORE as u32).ok_or("none")? };
    let selection = Selection { scope: Scope::Global, ..Selection::default() };
    Ok(EarlyBird::new(settled, Sparsity::new(0.5)?, selection, RANKS.to_vec()))
}

fn fit_config() -> FitConfig<'static> {
    FitConfig { learning_rate: &|progress| 0.05 * (1.0 - progress), ..FitConfig::new(N_EPOCHS) }
}

/// The places of the larger half of all weights after every epoch, by sorting them all.
#[derive(Default)]
struct Halves(Vec<BTreeSet<(String, usize)>>);

impl Hook for Halves {
    fn name(&self) -> &str {
        "halves"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        if event == Event::EpochEnd {
            let mut all = Vec::new();
            for (name, parameter) in fit.parameters().prunable(&RANKS) {
                let values = parameter.var().flatten_all()?.to_vec1::<f32>()?;
                all.extend(values.into_iter().enumerate().map(|(place, value)| (value.abs(), name.to_owned(), place)));
            }
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            all.truncate(all.len() / 2);
            self.0.push(all.into_iter().map(|(_, name, place)| (name, place)).collect());
        }
        Ok(())
    }
}

#[test]
fn a_fit_ends_with_the_first_mask_that_is_near_to_those_before() -> Outcome {
    let mut halves = Halves::default();
    trainer().fit(&fit_config(), &data(), &mut [&mut halves])?;
    // 120 + 70 + 21 weights, of which two masks of one number differ in twice what one alone keeps.
    let distance = |one: &BTreeSet<_>, other: &BTreeSet<_>| 2.0 * one.difference(other).count() as f64 / 211.0;
    let farthest: Vec<f64> = (BEFORE..N_EPOCHS)
        .map(|epoch| {
            let before = &halves.0[epoch - BEFORE..epoch];
            before.iter().map(|before| distance(&halves.0[epoch], before)).fold(0.0, f64::max)
        })
        .collect();
    let mut ends = BTreeSet::new();
    for below in [0.5, 0.2, 0.1, 0.05, 0.03, 0.001] {
        // The last epoch ends by itself.
        let first = farthest[..farthest.len() - 1].iter().position(|farthest| *farthest < below);
        let mut trainer = trainer();
        let fitted = trainer.fit(&fit_config(), &data(), &mut [&mut hook(below)?])?;
        let n_epochs = fitted.history.len();
        assert_eq!(n_epochs, first.map_or(N_EPOCHS, |first| BEFORE + first + 1), "{below}: {farthest:?}");
        assert_eq!(matches!(fitted.end, End::Stopped { .. }), first.is_some(), "{below}: {:?}", fitted.end);
        ends.insert(n_epochs);
    }
    assert!(ends.len() > 2, "{ends:?} of {farthest:?}");
    Ok(())
}

#[test]
fn what_does_not_move_has_settled_as_soon_as_there_are_masks_enough() -> Outcome {
    let still = FitConfig { learning_rate: &|_| 0.0, ..FitConfig::new(N_EPOCHS) };
    let fitted = trainer().fit(&still, &data(), &mut [&mut hook(1e-9)?])?;
    let End::Stopped { by, reason } = fitted.end else { return Err("it was not stopped".into()) };
    assert_eq!((by.as_str(), fitted.history.len()), ("early bird", BEFORE + 1));
    assert_eq!(
        reason,
        "the mask at 50.00 % has settled: its distance to those of the 2 epochs before is at most 0.000"
    );
    Ok(())
}

#[test]
fn a_resumed_fit_ends_at_the_same_epoch() -> Outcome {
    let states = RefCell::new(Vec::<State>::new());
    let keep = |state: &State| {
        states.borrow_mut().push(state.clone());
        Ok(())
    };
    let below = 0.1;
    let checkpointed = FitConfig { checkpoint: Some(&keep), ..fit_config() };
    let whole = trainer().fit(&checkpointed, &data(), &mut [&mut hook(below)?])?;
    assert!(whole.history.len() > BEFORE + 1 && whole.history.len() < N_EPOCHS, "{}", whole.history.len());
    for state in states.take() {
        let mut resumed = trainer();
        resumed.restore(&state)?;
        let fitted = resumed.fit(&fit_config(), &data(), &mut [&mut hook(below)?])?;
        assert_eq!((fitted.end, fitted.reached), (whole.end.clone(), whole.reached));
        assert_eq!(whole.history.len() * N_BATCHES, fitted.history.last().ok_or("no record")?.iteration);
    }
    Ok(())
}

#[test]
fn a_distance_that_is_none_is_refused() -> Outcome {
    for below in [0.0, 1.0, f64::NAN] {
        let error = trainer().fit(&fit_config(), &data(), &mut [&mut hook(below)?]).err().ok_or("not refused")?;
        let expected = format!("distance of masks that have settled is {below}, expected more than 0, below 1");
        assert!(error.to_string().contains(&expected), "{error}");
    }
    Ok(())
}
