//! Parts of a training, put together again: spans, accumulation, interruptions.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use candle_core::{Device, Tensor};
use lth_schedule::Step;
use lth_train::{
    BoxError, Clip, Data, End, Error, Event, Fit, FitConfig, Hook, HookState, Network, Optimizer, OptimizerConfig,
    Parameters, Pass, State, Trainer, Validate,
};

use crate::trainer::{Batches, Linear, batch, network, plain_sgd, without_times};

/// A classifier whose training passes draw noise by the pass's step.
pub(crate) struct Noisy(Linear);

impl Network for Noisy {
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        let noise = if pass.train { 1.0 + 0.3 * (pass.step as f64 * 1.7).sin() } else { 1.0 };
        self.0.forward(&(x * noise)?, pass)
    }

    fn parameters(&self) -> &Parameters {
        self.0.parameters()
    }
}

/// Batches of an epoch.
pub(crate) const N: usize = 5;
pub(crate) const EPOCHS: u32 = 3;

pub(crate) fn data() -> Data<impl Fn(u64) -> Batches, impl Fn() -> Batches> {
    let train = |epoch| Box::new((0..N).map(move |index| batch(epoch, index))) as Batches;
    Data { train, n_train_batches: N, valid: || Box::new((0..2).map(|index| batch(99, index))) as Batches }
}

pub(crate) fn trainer() -> Result<Trainer<Noisy>, Error> {
    let mut trainer = Trainer::new(Noisy(network()?), Optimizer::new(OptimizerConfig::adam()), 7);
    let mask = Tensor::new(&[[1u8, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]], &Device::Cpu)?;
    trainer.set_masks(BTreeMap::from([("weight".to_owned(), mask)]))?;
    Ok(trainer)
}

/// Every bit of a trainer's weights and averages.
pub(crate) fn bits<M: Network>(trainer: &Trainer<M>) -> Result<BTreeMap<String, Vec<u64>>, Error> {
    let State { parameters, optimizer, .. } = trainer.state()?;
    let all = parameters.into_iter().chain(optimizer);
    let values = all.map(|(name, tensor)| {
        let values = tensor.flatten_all()?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
        Ok((name, values.into_iter().map(f64::to_bits).collect()))
    });
    values.collect()
}

fn rate(progress: f64) -> f64 {
    0.1 * (1.0 - progress)
}

fn momentum(progress: f64) -> f64 {
    0.95 - 0.1 * progress
}

fn at(iteration: usize) -> Step {
    Step { epoch: (iteration / N) as u32, iteration: (iteration % N) as u32 }
}

pub(crate) fn whole(accumulate: u32) -> FitConfig<'static> {
    FitConfig {
        first_epoch: 4,
        learning_rate: &rate,
        momentum: Some(&momentum),
        clip: Some(Clip::Norm(0.5)),
        accumulate: NonZeroU32::new(accumulate).expect("not 0"),
        ..FitConfig::new(EPOCHS as usize)
    }
}

#[test]
fn two_spans_end_with_the_bits_of_one_wherever_the_cut_is() -> Result<(), Error> {
    let end = Step::epoch(EPOCHS);
    for accumulate in [1, 2, 3, 7] {
        let mut unbroken = trainer()?;
        unbroken.fit(&whole(accumulate), &data(), &mut [])?;
        let expected = bits(&unbroken)?;
        for cut in 0..=N * EPOCHS as usize {
            let parts = [(Step::START, at(cut)), (at(cut), end)];
            let configs = parts.map(|(from, to)| FitConfig { from, to, length: Some(end), ..whole(accumulate) });
            let mut first = trainer()?;
            let result = first.fit(&configs[0], &data(), &mut []);
            if (cut % N).is_multiple_of(accumulate as usize) {
                assert_eq!(result?.reached, at(cut));
                // What a state holds is enough to go on.
                let mut second = trainer()?;
                second.restore(&first.state()?)?;
                second.fit(&configs[1], &data(), &mut [])?;
                assert_eq!(bits(&second)?, expected, "cut at {cut} with {accumulate} batches a step");
            } else {
                let message = result.expect_err("inside a step").to_string();
                assert!(
                    message.starts_with(&format!("end of the fit is {}, expected a whole number", at(cut))),
                    "{message}"
                );
                let message = trainer()?.fit(&configs[1], &data(), &mut []).expect_err("inside a step").to_string();
                assert!(message.starts_with(&format!("start of the fit is {}", at(cut))), "{message}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_span_reports_positions_from_the_start_of_the_training() -> Result<(), Error> {
    struct Seen(Vec<(Event, usize, usize)>);
    impl Hook for Seen {
        fn name(&self) -> &str {
            "seen"
        }

        fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
            assert_eq!((fit.n_iterations(), fit.n_epochs(), fit.span().from, fit.span().to), (13, 3, 3, 8));
            if !matches!(event, Event::BeforeStep | Event::AfterStep) {
                self.0.push((event, fit.epoch(), fit.iteration()));
            }
            Ok(())
        }
    }
    let mut seen = Seen(Vec::new());
    let config = FitConfig { length: Some(at(13)), ..FitConfig::span(at(3), at(8)) };
    let fitted = trainer()?.fit(&config, &data(), &mut [&mut seen])?;
    use Event::{AfterValidation, BeforeBatch, BeforeValidation, EpochEnd, EpochStart, FitEnd, FitStart};
    let expected = [
        (FitStart, 0, 3),
        (BeforeBatch, 0, 3),
        (BeforeBatch, 0, 4),
        (BeforeValidation, 0, 5),
        (AfterValidation, 0, 5),
        (EpochEnd, 0, 5),
        (EpochStart, 1, 5),
        (BeforeBatch, 1, 5),
        (BeforeBatch, 1, 6),
        (BeforeBatch, 1, 7),
        (BeforeValidation, 1, 8),
        (AfterValidation, 1, 8),
        (FitEnd, 1, 8),
    ];
    assert_eq!(seen.0, expected);
    let records: Vec<_> = fitted.history.iter().map(|record| (record.epoch, record.iteration)).collect();
    assert_eq!((records, fitted.end, fitted.reached), (vec![(0, 5), (1, 8)], End::Done, at(8)));
    Ok(())
}

#[test]
fn spans_out_of_order_are_refused() -> Result<(), Error> {
    let refused = |config: &FitConfig<'_>| -> Result<String, Error> {
        Ok(trainer()?.fit(config, &data(), &mut []).expect_err("out of order").to_string())
    };
    assert_eq!(refused(&FitConfig::span(at(4), at(3)))?, "start of the fit is 4it, expected at most its end, 3it");
    let config = FitConfig { length: Some(at(9)), ..FitConfig::span(at(4), at(10)) };
    assert_eq!(refused(&config)?, "end of the fit is 2ep, expected at most the length of the training, 1ep4it");
    let config = FitConfig { clip: Some(Clip::Value(0.0)), ..FitConfig::new(1) };
    assert_eq!(refused(&config)?, "limit of gradients is 0, expected a finite number above 0");
    let config = FitConfig { learning_rate: &|_| f64::NAN, ..FitConfig::new(1) };
    assert_eq!(refused(&config)?, "learning rate is NaN, expected a finite number");
    let config = FitConfig { momentum: Some(&|_| 1.0), ..FitConfig::new(1) };
    assert_eq!(refused(&config)?, "momentum is 1, expected a number in [0, 1)");
    Ok(())
}

/// Counts; its count must survive a resume.
#[derive(Default)]
pub(crate) struct Counter(pub(crate) BTreeMap<String, u64>);

impl Hook for Counter {
    fn name(&self) -> &str {
        "counter"
    }

    fn on(&mut self, event: Event, _fit: &mut Fit<'_>) -> Result<(), BoxError> {
        *self.0.entry(format!("{event:?}")).or_default() += 1;
        Ok(())
    }

    fn save(&self) -> Result<HookState, BoxError> {
        Ok(HookState { tensors: BTreeMap::new(), json: serde_json::to_value(&self.0)? })
    }

    fn load(&mut self, state: &HookState) -> Result<(), BoxError> {
        self.0 = serde_json::from_value(state.json.clone())?;
        Ok(())
    }
}

#[test]
fn an_interrupted_fit_goes_on_to_the_same_bits_history_and_events() -> Result<(), Error> {
    for accumulate in [1, 2] {
        let config = FitConfig { validate: Validate::Every(NonZeroU32::new(4).expect("not 0")), ..whole(accumulate) };
        let (mut unbroken, mut counted) = (trainer()?, Counter::default());
        let expected = unbroken.fit(&config, &data(), &mut [&mut counted])?;
        for n_asked in 0..if accumulate == 1 { 15 } else { 9 } {
            let (left, written) = (Cell::new(n_asked), RefCell::new(Vec::new()));
            let asked = || left.replace(left.get() - 1) == 0;
            let keep = |state: &State| {
                written.borrow_mut().push(state.clone());
                Ok(())
            };
            let (mut first, mut counter) = (trainer()?, Counter::default());
            let interrupted = FitConfig { interrupted: Some(&asked), checkpoint: Some(&keep), ..config };
            let part = first.fit(&interrupted, &data(), &mut [&mut counter])?;
            assert_eq!(part.end, End::Interrupted);
            assert!(!counter.0.contains_key("FitEnd"));

            // By the state, by the checkpoint, and by the same trainer.
            let last = written.take().pop().expect("an interruption is written down");
            assert_eq!(last.counters, first.state()?.counters);
            let mut resumed = trainer()?;
            resumed.restore(&last)?;
            for trainer in [&mut resumed, &mut first] {
                let mut counter = Counter::default();
                let whole = trainer.fit(&config, &data(), &mut [&mut counter])?;
                assert_eq!(bits(trainer)?, bits(&unbroken)?, "interrupted at {}", part.reached);
                assert_eq!(without_times(&whole.history), without_times(&expected.history));
                assert_eq!((whole.end, counter.0), (End::Done, counted.0.clone()));
            }
        }
    }
    Ok(())
}

#[test]
fn a_fit_out_of_time_is_resumed_or_abandoned() -> Result<(), Error> {
    let mut trainer = trainer()?;
    let limited = FitConfig { time_limit: Some(Duration::ZERO), ..whole(1) };
    let fitted = trainer.fit(&limited, &data(), &mut [])?;
    assert_eq!((fitted.end, fitted.reached, fitted.history.len()), (End::TimeLimit, Step::START, 0));
    let message = trainer.fit(&FitConfig::new(1), &data(), &mut []).expect_err("another fit").to_string();
    assert!(message.contains("it is from inside a fit over 0ep..3ep of 3ep with epochs of 5 batches"), "{message}");
    let other = FitConfig { validate: Validate::Never, ..whole(1) };
    let message = trainer.fit(&other, &data(), &mut []).expect_err("another cadence").to_string();
    assert!(message.contains("its fit validated EachEpoch, this one Never"), "{message}");
    let other = FitConfig { clip: None, ..whole(1) };
    let message = trainer.fit(&other, &data(), &mut []).expect_err("no clipping").to_string();
    assert!(message.contains("its fit clipped gradients by Some(Norm(0.5)), this one by None"), "{message}");
    trainer.abandon_fit();
    assert_eq!(trainer.fit(&FitConfig::new(1), &data(), &mut [])?.end, End::Done);
    Ok(())
}

#[test]
fn accumulation_is_the_step_of_the_large_batch() -> Result<(), Error> {
    // Four batches of five examples, or two of ten.
    let of_two = |epoch: u64, index: usize| {
        let ((x1, y1), (x2, y2)) = (batch(epoch, 2 * index)?, batch(epoch, 2 * index + 1)?);
        Ok((Tensor::cat(&[x1, x2], 0)?, Tensor::cat(&[y1, y2], 0)?))
    };
    let valid = || Box::new(std::iter::once(batch(99, 0))) as Batches;
    let small =
        Data { train: |epoch| Box::new((0..4).map(move |i| batch(epoch, i))) as Batches, n_train_batches: 4, valid };
    let large =
        Data { train: |epoch| Box::new((0..2).map(move |i| of_two(epoch, i))) as Batches, n_train_batches: 2, valid };
    let config = FitConfig { learning_rate: &rate, clip: Some(Clip::Norm(0.3)), ..FitConfig::new(3) };
    let mut by_parts = Trainer::new(network()?, Optimizer::new(plain_sgd()), 7);
    let mut at_once = Trainer::new(network()?, Optimizer::new(plain_sgd()), 7);
    let halves =
        by_parts.fit(&FitConfig { accumulate: NonZeroU32::new(2).expect("not 0"), ..config }, &small, &mut [])?;
    let wholes = at_once.fit(&config, &large, &mut [])?;
    assert_eq!(by_parts.optimizer().n_steps(), 6);
    for (name, value) in at_once.network().parameters().snapshot(|_, _| true)? {
        let other = by_parts.network().parameters().require(name.as_str())?.var().as_tensor().clone();
        let error = (value - other)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(error < 1e-6, "{name} is off by {error}");
    }
    for (half, whole) in halves.history.iter().zip(&wholes.history) {
        assert!((half.train_loss - whole.train_loss).abs() < 1e-6);
    }
    Ok(())
}

#[test]
fn clipping_is_the_step_by_hand() -> Result<(), Error> {
    // One batch, one step of rate 1: the weights move by the limited gradient.
    let data = Data {
        train: |_| Box::new(std::iter::once(batch(0, 0))) as Batches,
        n_train_batches: 1,
        valid: || Box::new(std::iter::once(batch(99, 0))) as Batches,
    };
    let by_hand = network()?;
    let (x, y) = batch(0, 0)?;
    let loss = candle_nn::loss::cross_entropy(&by_hand.forward(&x, &Pass::train(0, 0))?, &y)?;
    let gradients = loss.backward()?;
    let of = |name: &str| -> Result<Vec<f64>, Error> {
        let gradient = gradients.get(by_hand.parameters().require(name)?.var()).expect("a gradient").flatten_all()?;
        Ok(gradient.to_dtype(candle_core::DType::F64)?.to_vec1()?)
    };
    let norm = [of("weight")?, of("bias")?].concat().iter().map(|g| g * g).sum::<f64>().sqrt();
    assert!(norm > 0.2, "{norm}");
    type Limit = fn(f64, f64) -> f64;
    let cases: [(Clip, Limit); 3] = [
        (Clip::Norm(0.2), |g, norm| g * 0.2 / norm),
        (Clip::Norm(50.0), |g, _| g),
        (Clip::Value(0.01), |g, _| g.clamp(-0.01, 0.01)),
    ];
    for (clip, limited) in cases {
        let mut trainer = Trainer::new(network()?, Optimizer::new(plain_sgd()), 7);
        let before = trainer.network().parameters().snapshot(|_, _| true)?;
        trainer.fit(&FitConfig { learning_rate: &|_| 1.0, clip: Some(clip), ..FitConfig::new(1) }, &data, &mut [])?;
        for (name, start) in before {
            let moved = (start - trainer.network().parameters().require(&name)?.var().as_tensor())?.flatten_all()?;
            for (moved, gradient) in moved.to_vec1::<f32>()?.into_iter().zip(of(&name)?) {
                let expected = limited(gradient, norm);
                assert!((f64::from(moved) - expected).abs() < 1e-6, "{name} under {clip:?}: {moved} for {expected}");
            }
        }
    }
    Ok(())
}
