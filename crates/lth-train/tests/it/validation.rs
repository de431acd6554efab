//! When a fit validates, and what its history then holds.

use std::cell::Cell;
use std::num::NonZeroU32;

use lth_schedule::Step;
use lth_train::{Classification, Data, Error, FitConfig, Fitted, Record, Validate, evaluate};

use crate::trainer::{Batches, N_BATCHES, data, epoch_of, trainer};

/// Iterations and epochs of the records, and how often the validation data were read through.
fn validated(config: &FitConfig<'_>) -> Result<(Fitted, usize), Error> {
    let n_read = Cell::new(0);
    let valid = || {
        n_read.set(n_read.get() + 1);
        (data().valid)()
    };
    let data = Data { train: |epoch| (data().train)(epoch), n_train_batches: N_BATCHES, valid };
    let fitted = trainer()?.fit(config, &data, &mut [])?;
    Ok((fitted, n_read.get()))
}

fn positions(fitted: &Fitted) -> Vec<(usize, usize)> {
    fitted.history.iter().map(|record| (record.iteration, record.epoch)).collect()
}

fn every(n: u32) -> Validate {
    Validate::Every(NonZeroU32::new(n).expect("not 0"))
}

#[test]
fn validation_comes_every_so_many_batches_and_at_the_end() -> Result<(), Error> {
    let fit = |validate, n_epochs| validated(&FitConfig { validate, ..FitConfig::new(n_epochs) });
    // Once more than there are records: the data are looked at before the fit.
    let (fitted, n_read) = fit(every(2), 3)?;
    assert_eq!((positions(&fitted), n_read), (vec![(2, 0), (4, 1), (6, 1), (8, 2), (9, 2)], 6));
    let (fitted, n_read) = fit(every(4), 3)?;
    assert_eq!((positions(&fitted), n_read), (vec![(4, 1), (8, 2), (9, 2)], 4));
    let (fitted, n_read) = fit(Validate::EachEpoch, 2)?;
    assert_eq!((positions(&fitted), n_read), (vec![(3, 0), (6, 1)], 3));
    let (fitted, n_read) = fit(every(100), 1)?;
    assert_eq!((positions(&fitted), n_read), (vec![(3, 0)], 2));
    // Counted from the start of the training, in a span too.
    let span = FitConfig::span(Step { epoch: 0, iteration: 1 }, Step { epoch: 2, iteration: 1 });
    let (fitted, _) = validated(&FitConfig { validate: every(2), ..span })?;
    assert_eq!(positions(&fitted), [(2, 0), (4, 1), (6, 1), (7, 2)]);
    Ok(())
}

#[test]
fn a_fit_that_never_validates_reads_no_validation_data() -> Result<(), Error> {
    let config = FitConfig { validate: Validate::Never, ..FitConfig::new(2) };
    let (fitted, n_read) = validated(&config)?;
    assert_eq!((positions(&fitted), n_read), (vec![(3, 0), (6, 1)], 0));
    assert!(fitted.history.iter().all(|record| record.valid_loss.is_none() && record.metrics.is_empty()));
    assert!(fitted.best().is_none() && fitted.history[0].train_loss.is_finite());
    let none = Data {
        valid: || Box::new(std::iter::empty()) as Batches,
        train: |e| (data().train)(e),
        n_train_batches: N_BATCHES,
    };
    trainer()?.fit(&config, &none, &mut [])?;
    Ok(())
}

#[test]
fn validating_changes_nothing_of_the_training() -> Result<(), Error> {
    let trained = |validate| -> Result<Vec<u32>, Error> {
        let mut trainer = trainer()?;
        trainer.fit(&FitConfig { validate, ..FitConfig::new(2) }, &data(), &mut [])?;
        Ok(crate::trainer::weights(&trainer))
    };
    assert_eq!(trained(Validate::Never)?, trained(every(1))?);
    Ok(())
}

#[test]
fn the_best_record_is_the_first_of_least_validation_loss() -> Result<(), Error> {
    let (mut fitted, _) = validated(&FitConfig { validate: every(1), ..FitConfig::new(2) })?;
    for (record, loss) in fitted.history.iter_mut().zip([f64::NAN, 3.0, 1.0, 2.0, 1.0, 1.5]) {
        record.valid_loss = Some(loss);
    }
    assert_eq!(fitted.best().map(|record| record.iteration), Some(3));
    fitted.history.clear();
    assert!(fitted.best().is_none());
    Ok(())
}

#[test]
fn a_record_is_the_evaluation_of_its_moment_and_comes_back_from_json() -> Result<(), Box<dyn std::error::Error>> {
    let mut trainer = trainer()?;
    let fitted = trainer.fit(&FitConfig::new(1), &data(), &mut [])?;
    let evaluation = evaluate(trainer.network(), &Classification::default(), (data().valid)())?;
    let last = fitted.last().ok_or("a record")?;
    assert_eq!((last.valid_loss, last.accuracy()), (Some(evaluation.loss), evaluation.accuracy()));
    let right = evaluation.right.ok_or("classification knows")?;
    assert_eq!(right.len(), evaluation.n_examples);
    let share = right.iter().filter(|right| **right).count() as f64 / right.len() as f64;
    assert_eq!(Some(share), last.accuracy());
    assert_eq!(serde_json::from_str::<Record>(&serde_json::to_string(last)?)?, *last);
    let n: usize = epoch_of(0).map(|batch| batch.map_or(0, |(_, y)| y.elem_count())).sum();
    assert_eq!((n, evaluation.n_examples), (15, 10));
    Ok(())
}

#[test]
fn a_validation_that_is_not_finite_ends_the_fit_by_name() -> Result<(), Error> {
    // Training is all right; what is validated is not.
    let valid = || -> Batches {
        Box::new((data().valid)().map(|batch| {
            let (x, target) = batch?;
            Ok(((x * f64::INFINITY)?, target))
        }))
    };
    let data = Data { train: |epoch| (data().train)(epoch), n_train_batches: N_BATCHES, valid };
    let error = trainer()?.fit(&FitConfig::new(1), &data, &mut []).expect_err("its loss is not finite");
    assert!(
        matches!(&error, Error::NotFinite { what, step } if what == "the validation loss" && *step == Step::epoch(1)),
        "{error}"
    );
    Ok(())
}
