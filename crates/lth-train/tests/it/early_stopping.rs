//! A fit that ends when it no longer gets better.

use std::cell::RefCell;
use std::num::NonZeroU32;

use lth_schedule::Step;
use lth_train::{EarlyStopping, End, Error, FitConfig, State, Validate};

use crate::trainer::{data, trainer, weights};

fn patience(n: u32) -> EarlyStopping {
    EarlyStopping::new(NonZeroU32::new(n).expect("not 0"))
}

/// Good steps first, then such that make it worse.
fn rate(progress: f64) -> f64 {
    if progress < 0.2 { 0.05 } else { 0.8 }
}

fn config() -> FitConfig<'static> {
    FitConfig {
        learning_rate: &rate,
        validate: Validate::Every(NonZeroU32::MIN),
        length: Some(Step::epoch(10)),
        ..FitConfig::new(10)
    }
}

#[test]
fn a_fit_without_improvement_stops_after_its_patience() -> Result<(), Error> {
    for n in [1, 3, 5] {
        let still = FitConfig { learning_rate: &|_| 0.0, ..config() };
        let fitted = trainer()?.fit(&still, &data(), &mut [&mut patience(n)])?;
        // The first validation is the best, n more are no better.
        assert_eq!(fitted.history.len(), 1 + n as usize);
        let End::Stopped { by, reason } = &fitted.end else { panic!("{:?}", fitted.end) };
        assert!(by == "early stopping" && reason.contains("that of iteration 1, in "), "{reason}");
    }
    Ok(())
}

#[test]
fn it_stops_where_the_history_says_and_keeps_the_best_weights() -> Result<(), Error> {
    let all = trainer()?.fit(&config(), &data(), &mut [])?;
    let losses: Vec<f64> = all.history.iter().filter_map(|record| record.valid_loss).collect();
    for n in [1, 2, 4] {
        // By the definition: the first record that ends n in a row without a new least.
        let (mut best, mut without, mut end) = (0, 0, losses.len() - 1);
        for (i, loss) in losses.iter().enumerate().skip(1) {
            (best, without) = if *loss < losses[best] { (i, 0) } else { (best, without + 1) };
            if without == n {
                end = i;
                break;
            }
        }
        let mut hook = patience(n).keeping_best();
        let mut stopped = trainer()?;
        let fitted = stopped.fit(&config(), &data(), &mut [&mut hook])?;
        assert_eq!(fitted.history.len(), end + 1);
        assert_eq!(fitted.best().map(|record| record.iteration), Some(best + 1));
        assert_eq!(hook.best().map(|(_, iteration)| iteration), Some(best + 1));
        let mut until_best = trainer()?;
        let to = Step { epoch: 0, iteration: best as u32 + 1 };
        until_best.fit(&FitConfig { to, ..config() }, &data(), &mut [])?;
        assert_eq!(weights(&stopped), weights(&until_best), "patience {n}");
    }
    Ok(())
}

#[test]
fn an_improvement_below_the_least_is_none() -> Result<(), Error> {
    let mut hook = patience(2).with_min_delta(1e3);
    let fitted = trainer()?.fit(&config(), &data(), &mut [&mut hook])?;
    assert_eq!(fitted.history.len(), 3);
    Ok(())
}

#[test]
fn a_resumed_fit_remembers_its_best() -> Result<(), Error> {
    let states = RefCell::new(Vec::<State>::new());
    let keep = |state: &State| {
        states.borrow_mut().push(state.clone());
        Ok(())
    };
    let hook = || patience(4).keeping_best();
    let mut whole = trainer()?;
    let expected = whole.fit(&FitConfig { checkpoint: Some(&keep), ..config() }, &data(), &mut [&mut hook()])?;
    assert!(!states.borrow().is_empty());
    for state in states.take() {
        let mut resumed = trainer()?;
        resumed.restore(&state)?;
        let fitted = resumed.fit(&config(), &data(), &mut [&mut hook()])?;
        assert_eq!((fitted.end, fitted.reached), (expected.end.clone(), expected.reached));
        assert_eq!(weights(&resumed), weights(&whole));
    }
    Ok(())
}

#[test]
fn without_validation_it_refuses_to_wait_for_ever() -> Result<(), Error> {
    let never = FitConfig { validate: Validate::Never, ..config() };
    let message = trainer()?.fit(&never, &data(), &mut [&mut patience(1)]).expect_err("no losses").to_string();
    assert!(message.starts_with("early stopping: it goes by the validation loss"), "{message}");
    let message =
        trainer()?.fit(&config(), &data(), &mut [&mut patience(1).with_min_delta(-1.0)]).expect_err("below 0");
    assert!(message.to_string().contains("least improvement is -1, expected a finite number"), "{message}");
    Ok(())
}
