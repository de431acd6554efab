//! What hooks may do to a fit.

use candle_core::Tensor;
use lth_schedule::Step;
use lth_train::{BoxError, Data, End, Error, Event, Fit, FitConfig, Hook, Network, Optimizer, Trainer};

use crate::trainer::{Batches, N_BATCHES, batch, data, network, plain_sgd, trainer, weights};

/// A hook that is a closure.
struct On<F>(&'static str, F);

impl<F: FnMut(Event, &mut Fit<'_>) -> Result<(), BoxError>> Hook for On<F> {
    fn name(&self) -> &str {
        self.0
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        (self.1)(event, fit)
    }
}

#[test]
fn a_hook_ends_a_fit_with_its_name_reason_and_history() -> Result<(), Error> {
    // The event and iteration at which it stops; what is then reached.
    let cases = [
        (Event::FitStart, 0, 0),
        (Event::EpochStart, 3, 3),
        (Event::BeforeBatch, 4, 4),
        (Event::BeforeStep, 4, 5),
        (Event::AfterStep, 4, 5),
        (Event::AfterStep, 2, 3),
        (Event::AfterValidation, 3, 3),
        (Event::EpochEnd, 6, 6),
    ];
    for (when, at, reached) in cases {
        let mut events = Vec::new();
        let mut stopping = On("judge", |event, fit: &mut Fit<'_>| {
            events.push(event);
            if (event, fit.iteration()) == (when, at) {
                fit.stop(format!("seen {event:?}"));
                fit.stop("and again");
            }
            Ok(())
        });
        let mut trainer = trainer()?;
        let fitted = trainer.fit(&FitConfig::new(4), &data(), &mut [&mut stopping])?;
        let reason = format!("seen {when:?}");
        assert_eq!(fitted.end, End::Stopped { by: "judge".to_owned(), reason });
        assert_eq!(fitted.reached, Step { epoch: reached / 3, iteration: reached % 3 }, "{when:?}");
        assert_eq!(events.last(), Some(&Event::FitEnd));
        // What was trained is what a span until there trains, and its end is validated.
        let mut same = crate::trainer::trainer()?;
        same.fit(&FitConfig::span(Step::START, fitted.reached), &data(), &mut [])?;
        assert_eq!(weights(&trainer), weights(&same), "{when:?}");
        let records: Vec<usize> = fitted.history.iter().map(|record| record.iteration).collect();
        let mut expected: Vec<usize> = (1..=reached as usize).filter(|it| it.is_multiple_of(N_BATCHES)).collect();
        if expected.last() != Some(&(reached as usize)) && reached > 0 {
            expected.push(reached as usize);
        }
        assert_eq!(records, expected, "{when:?}");
    }
    assert_eq!(End::Stopped { by: "a".into(), reason: "b".into() }.to_string(), "stopped by a: b");
    Ok(())
}

#[test]
fn a_skipped_step_moves_nothing_and_is_counted() -> Result<(), Error> {
    let mut before = Vec::new();
    let mut skipping = On("skipping", |event, fit: &mut Fit<'_>| {
        let weight = || Ok::<_, BoxError>(fit.parameters().require("weight")?.var().flatten_all()?.to_vec1::<f32>()?);
        match event {
            Event::BeforeBatch => before = weight()?,
            Event::BeforeStep if fit.iteration() % 2 == 1 => fit.skip_step()?,
            Event::AfterStep => assert_eq!(weight()? == before, fit.iteration() % 2 == 1),
            _ => {}
        }
        Ok(())
    });
    let mut trainer = trainer()?;
    let fitted = trainer.fit(&FitConfig::new(2), &data(), &mut [&mut skipping])?;
    assert_eq!((fitted.n_skipped, trainer.optimizer().n_steps(), fitted.end), (3, 3, End::Done));
    Ok(())
}

#[test]
fn a_hook_sets_the_rate_of_the_step_at_hand_alone() -> Result<(), Error> {
    let with = |rate: &dyn Fn(f64) -> f64, hooks: &mut [&mut dyn Hook]| -> Result<Vec<f32>, Error> {
        let mut trainer = Trainer::new(network()?, Optimizer::new(plain_sgd()), 7);
        trainer.fit(&FitConfig { learning_rate: rate, ..FitConfig::new(2) }, &data(), hooks)?;
        Ok(trainer.network().parameters().require("weight")?.var().flatten_all()?.to_vec1()?)
    };
    let mut seen = Vec::new();
    let mut setting = On("setting", |event, fit: &mut Fit<'_>| {
        match (event, fit.iteration()) {
            (Event::BeforeBatch, 1) => fit.set_learning_rate(0.5)?,
            (Event::BeforeStep, 3) => fit.set_learning_rate(0.25)?,
            _ => {}
        }
        if event == Event::AfterStep {
            seen.extend(fit.learning_rate());
        }
        Ok(())
    });
    let set = with(&|_| 0.1, &mut [&mut setting])?;
    assert_eq!(seen, [0.1, 0.5, 0.1, 0.25, 0.1, 0.1]);
    let written = |progress: f64| [0.1, 0.5, 0.1, 0.25, 0.1, 0.1][(progress * 6.0).round() as usize];
    assert_eq!(set, with(&written, &mut [])?);
    Ok(())
}

#[test]
fn what_has_no_effect_at_a_moment_is_refused_there() -> Result<(), Error> {
    let refused = |when: Event, ask: fn(&mut Fit<'_>) -> Result<(), Error>| -> Result<String, Error> {
        let mut asking = On("asking", |event, fit: &mut Fit<'_>| if event == when { Ok(ask(fit)?) } else { Ok(()) });
        Ok(trainer()?.fit(&FitConfig::new(1), &data(), &mut [&mut asking]).expect_err("not now").to_string())
    };
    let message = refused(Event::BeforeBatch, |fit| {
        fit.skip_step()?;
        Ok(())
    })?;
    assert_eq!(message, "asking: a hook can skip a step at [BeforeStep], not at BeforeBatch");
    let message = refused(Event::AfterStep, |fit| fit.set_learning_rate(0.1))?;
    assert!(message.contains("set the learning rate at [BeforeBatch, BeforeStep], not at AfterStep"), "{message}");
    let message = refused(Event::BeforeBatch, |fit| fit.set_learning_rate(f64::INFINITY))?;
    assert!(message.contains("learning rate is inf, expected a finite number"), "{message}");
    Ok(())
}

#[test]
fn a_hook_reaches_the_optimiser() -> Result<(), Error> {
    let mut resetting = On("resetting", |event, fit: &mut Fit<'_>| {
        if event == Event::EpochStart {
            fit.optimizer_mut().reset();
        }
        Ok(())
    });
    let mut trainer = trainer()?;
    trainer.fit(&FitConfig::new(3), &data(), &mut [&mut resetting])?;
    assert_eq!(trainer.optimizer().n_steps(), N_BATCHES as u64);
    Ok(())
}

#[test]
fn dense_gradients_are_asked_for_by_iteration() -> Result<(), Error> {
    struct Asking;
    impl Hook for Asking {
        fn name(&self) -> &str {
            "asking"
        }

        fn on(&mut self, _: Event, _: &mut Fit<'_>) -> Result<(), BoxError> {
            Ok(())
        }

        fn needs_dense_gradients(&self, iteration: usize) -> bool {
            iteration == 2 || iteration == 4
        }
    }
    /// Notes the passes that want dense gradients.
    struct Noting(crate::trainer::Linear, std::cell::RefCell<Vec<u64>>);
    impl Network for Noting {
        fn forward(&self, x: &Tensor, pass: &lth_train::Pass) -> candle_core::Result<Tensor> {
            if pass.dense_gradients {
                self.1.borrow_mut().push(pass.step);
            }
            self.0.forward(x, pass)
        }

        fn parameters(&self) -> &lth_train::Parameters {
            self.0.parameters()
        }
    }
    let mut trainer = Trainer::new(Noting(network()?, Vec::new().into()), Optimizer::new(plain_sgd()), 7);
    trainer.fit(&FitConfig::new(2), &data(), &mut [&mut Asking])?;
    assert_eq!(*trainer.network().1.borrow(), [2, 4]);
    Ok(())
}

#[test]
fn a_loss_that_is_not_finite_names_step_and_parameter() -> Result<(), Error> {
    // A rate of 1e30 makes the weights infinite within some steps, and the loss after them.
    let mut trainer = Trainer::new(network()?, Optimizer::new(plain_sgd().with_weight_decay(1.0)), 7);
    let config = FitConfig { learning_rate: &|_| 1e30, ..FitConfig::new(2) };
    let error = trainer.fit(&config, &data(), &mut []).expect_err("it diverges");
    let Error::LossNotFinite { step, parameter: Some(name), .. } = &error else { panic!("{error}") };
    assert!(step.iterations(3) >= 1 && name == "bias", "{error}");
    assert!(error.to_string().contains(&format!("at step {step}: `bias` has values that are not finite")), "{error}");
    Ok(())
}

#[test]
fn a_gradient_that_is_not_finite_is_named_where_gradients_are_clipped() -> Result<(), Error> {
    let data = Data {
        train: |_| Box::new(std::iter::once(batch(0, 0))) as Batches,
        n_train_batches: 1,
        valid: || Box::new(std::iter::once(batch(99, 0))) as Batches,
    };
    let mut poisoning = On("poisoning", |event, fit: &mut Fit<'_>| {
        if event == Event::BeforeStep {
            let var = fit.parameters().require("weight")?.var().clone();
            let infinite = (var.ones_like()? / 0.0)?;
            fit.gradients()?.ok_or("gradients")?.insert(&var, infinite);
        }
        Ok(())
    });
    let mut trainer = trainer()?;
    let before = weights(&trainer);
    let config = FitConfig { clip: Some(lth_train::Clip::Norm(1.0)), ..FitConfig::new(1) };
    let error = trainer.fit(&config, &data, &mut [&mut poisoning]).expect_err("infinite").to_string();
    assert!(error.starts_with("the gradient of `weight` is not finite at step 0ep"), "{error}");
    assert_eq!(weights(&trainer), before);
    Ok(())
}
