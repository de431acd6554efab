//! The loop: events, masks, errors, resuming.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use lth_schedule::Step;
use lth_train::{
    BoxError, Data, Decays, Error, Event, Fit, FitConfig, Hook, HookState, ModuleNetwork, Network, Optimizer,
    OptimizerConfig, Pass, Record, State, Trainer,
};

pub(crate) type Linear = ModuleNetwork<candle_nn::Linear>;
pub(crate) type Batch = candle_core::Result<(Tensor, Tensor)>;
pub(crate) type Batches = Box<dyn Iterator<Item = Batch>>;
pub(crate) const N_BATCHES: usize = 3;

/// A linear classifier with fixed starting values.
pub(crate) fn network() -> Result<Linear, Error> {
    network_on(&Device::Cpu)
}

pub(crate) fn network_on(device: &Device) -> Result<Linear, Error> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, device);
    let network = ModuleNetwork::new(candle_nn::linear(4, 3, builder)?, &variables)?;
    let start = BTreeMap::from([
        ("weight".to_owned(), (Tensor::arange(0f32, 12., &Device::Cpu)?.reshape((3, 4))? * 0.05)?),
        ("bias".to_owned(), Tensor::zeros(3, DType::F32, &Device::Cpu)?),
    ]);
    network.parameters().restore(&start)?;
    Ok(network)
}

/// A batch that depends on epoch and position alone.
pub(crate) fn batch(epoch: u64, index: usize) -> Batch {
    let x: Vec<f32> = (0..20).map(|i| ((i as f32 + 1.) * (epoch as f32 + 2.) * (index as f32 + 3.)).sin()).collect();
    let y: Vec<u32> = (0..5).map(|i| ((i * 7 + index as u64 + epoch) % 3) as u32).collect();
    Ok((Tensor::from_vec(x, (5, 4), &Device::Cpu)?, Tensor::from_vec(y, 5, &Device::Cpu)?))
}

pub(crate) fn epoch_of(epoch: u64) -> impl Iterator<Item = Batch> {
    (0..N_BATCHES).map(move |index| batch(epoch, index))
}

fn valid() -> impl Iterator<Item = Batch> {
    (0..2).map(|index| batch(99, index))
}

pub(crate) fn data() -> Data<impl Fn(u64) -> Batches, impl Fn() -> Batches> {
    Data {
        train: |epoch| Box::new(epoch_of(epoch)) as Batches,
        n_train_batches: N_BATCHES,
        valid: || Box::new(valid()) as Batches,
    }
}

/// PyTorch's SGD without momentum.
pub(crate) fn plain_sgd() -> OptimizerConfig {
    let (momentum, weight_decay, decoupled, nesterov) = (0.0, 0.0, false, false);
    OptimizerConfig::Sgd { momentum, weight_decay, decoupled, nesterov, decays: Decays::All }
}

pub(crate) fn trainer() -> Result<Trainer<Linear>, Error> {
    Ok(Trainer::new(network()?, Optimizer::new(OptimizerConfig::adam()), 7))
}

pub(crate) fn weights(trainer: &Trainer<Linear>) -> Vec<u32> {
    let parameters = trainer.network().parameters();
    let weight = parameters.get("weight").and_then(|w| w.var().flatten_all().ok()).expect("the layer has a weight");
    weight.to_vec1::<f32>().expect("f32").iter().map(|v| v.to_bits()).collect()
}

pub(crate) fn without_times(history: &[Record]) -> Vec<Record> {
    let zero = std::time::Duration::ZERO;
    let strip = |record: &Record| Record { train_time: zero, valid_time: zero, data_time: zero, ..record.clone() };
    history.iter().map(strip).collect()
}

#[derive(Default)]
struct Log(Vec<(Event, usize, usize)>);

impl Hook for Log {
    fn name(&self) -> &str {
        "log"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        assert_eq!(fit.gradients()?.is_some(), event == Event::BeforeStep);
        assert_eq!(fit.loss().is_some(), matches!(event, Event::BeforeStep | Event::AfterStep));
        self.0.push((event, fit.epoch(), fit.iteration()));
        Ok(())
    }
}

#[test]
fn events_come_in_order_with_their_positions() -> Result<(), Error> {
    let mut log = Log::default();
    trainer()?.fit(&FitConfig::new(2), &data(), &mut [&mut log])?;
    let mut expected = vec![(Event::FitStart, 0, 0)];
    for epoch in 0..2 {
        expected.push((Event::EpochStart, epoch, epoch * N_BATCHES));
        for iteration in epoch * N_BATCHES..(epoch + 1) * N_BATCHES {
            for event in [Event::BeforeBatch, Event::BeforeStep, Event::AfterStep] {
                expected.push((event, epoch, iteration));
            }
        }
        expected.push((Event::BeforeValidation, epoch, (epoch + 1) * N_BATCHES));
        expected.push((Event::AfterValidation, epoch, (epoch + 1) * N_BATCHES));
        expected.push((Event::EpochEnd, epoch, (epoch + 1) * N_BATCHES));
    }
    expected.push((Event::FitEnd, 1, 2 * N_BATCHES));
    assert_eq!(log.0, expected);
    Ok(())
}

#[test]
fn the_loop_is_gradient_descent() -> Result<(), Error> {
    let mut trainer = Trainer::new(network()?, Optimizer::new(plain_sgd()), 7);
    let fitted = trainer.fit(&FitConfig { learning_rate: &|_| 0.1, ..FitConfig::new(2) }, &data(), &mut [])?;

    // The same by hand, with candle's own cross entropy and w ← w − 0.1 g.
    let by_hand = network()?;
    let mut smoothed = (0., 0);
    for epoch in 0..2 {
        for next in epoch_of(epoch) {
            let (x, y) = next?;
            let loss = candle_nn::loss::cross_entropy(&by_hand.forward(&x, &Pass::train(0, 0))?, &y)?;
            smoothed = (0.98 * smoothed.0 + 0.02 * f64::from(loss.to_scalar::<f32>()?), smoothed.1 + 1);
            let gradients = loss.backward()?;
            for (_, parameter) in by_hand.parameters().iter() {
                let var = parameter.var();
                let gradient = gradients.get(var).expect("every parameter is used");
                var.set(&(var.as_tensor() - (gradient * 0.1)?)?)?;
            }
        }
    }
    for (name, parameter) in by_hand.parameters().iter() {
        let ours = trainer.network().parameters().require(name)?.var().as_tensor();
        let error = (ours - parameter.var().as_tensor())?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(error < 1e-6, "{name} is off by {error}");
    }
    let expected = smoothed.0 / (1. - 0.98f64.powi(smoothed.1));
    assert!((fitted.history[1].train_loss - expected).abs() < 1e-6);
    Ok(())
}

#[test]
fn masks_hold_through_a_fit() -> Result<(), Error> {
    let mut trainer = trainer()?;
    let mask = Tensor::new(&[[1u8, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]], &Device::Cpu)?;
    trainer.set_masks(BTreeMap::from([("weight".to_owned(), mask.clone())]))?;
    trainer.fit(&FitConfig { learning_rate: &|_| 0.1, ..FitConfig::new(2) }, &data(), &mut [])?;
    let kept = mask.flatten_all()?.to_vec1::<u8>()?;
    for (bits, keep) in weights(&trainer).into_iter().zip(kept) {
        assert_eq!(bits != 0, keep == 1);
    }
    Ok(())
}

#[test]
fn a_mask_of_another_shape_is_refused_and_nothing_changes() -> Result<(), Error> {
    let mut trainer = trainer()?;
    let before = weights(&trainer);
    let mask = Tensor::zeros((4, 3), DType::U8, &Device::Cpu)?;
    let error = trainer.set_masks(BTreeMap::from([("weight".to_owned(), mask)])).expect_err("transposed");
    assert_eq!(error.to_string(), "mask for `weight` has shape [4, 3], expected [3, 4]");
    assert_eq!(weights(&trainer), before);
    assert!(trainer.masks().is_empty());
    Ok(())
}

#[test]
fn a_loss_that_is_not_finite_ends_the_fit() -> Result<(), Error> {
    let mut trainer = trainer()?;
    let poisoned = Data {
        train: |_| {
            epoch_of(0).enumerate().map(|(index, next)| {
                let (x, y) = next?;
                Ok::<_, candle_core::Error>(if index == 1 { ((x * f64::NAN)?, y) } else { (x, y) })
            })
        },
        n_train_batches: N_BATCHES,
        valid: || epoch_of(0),
    };
    // `valid` has another type than `train` here: box both.
    let poisoned = Data {
        train: |epoch| Box::new((poisoned.train)(epoch)) as Batches,
        n_train_batches: N_BATCHES,
        valid: || Box::new((poisoned.valid)()) as Batches,
    };
    match trainer.fit(&FitConfig::new(1), &poisoned, &mut []) {
        Err(Error::LossNotFinite { step: Step { epoch: 0, iteration: 1 }, loss, parameter: None }) => {
            assert!(loss.is_nan());
        }
        other => panic!("expected LossNotFinite in batch 1, got {other:?}"),
    }
    Ok(())
}

#[test]
fn too_few_and_too_many_batches_are_errors() -> Result<(), Error> {
    for (promised, got) in [(N_BATCHES + 1, N_BATCHES), (N_BATCHES - 1, N_BATCHES)] {
        let wrong = Data { n_train_batches: promised, ..data() };
        match trainer()?.fit(&FitConfig::new(1), &wrong, &mut []) {
            Err(Error::BatchCount { epoch: 0, got: n, expected }) => assert_eq!((n, expected), (got, promised)),
            other => panic!("expected BatchCount, got {other:?}"),
        }
    }
    let none = Data { n_train_batches: 0, ..data() };
    assert!(matches!(trainer()?.fit(&FitConfig::new(1), &none, &mut []), Err(Error::NoBatches { .. })));
    Ok(())
}

/// Counts batches; its count must survive a resume.
#[derive(Default)]
struct Counter(u64);

impl Hook for Counter {
    fn name(&self) -> &str {
        "counter"
    }

    fn on(&mut self, event: Event, _fit: &mut Fit<'_>) -> Result<(), BoxError> {
        self.0 += u64::from(event == Event::AfterStep);
        Ok(())
    }

    fn save(&self) -> Result<HookState, BoxError> {
        Ok(HookState { tensors: BTreeMap::new(), json: self.0.into() })
    }

    fn load(&mut self, state: &HookState) -> Result<(), BoxError> {
        self.0 = state.json.as_u64().ok_or("the count is no number")?;
        Ok(())
    }
}

#[test]
fn a_fit_resumed_from_a_checkpoint_ends_with_the_same_bits() -> Result<(), Error> {
    let rate = |progress: f64| 0.1 * (1. - progress);
    let states = RefCell::new(Vec::<State>::new());
    let keep = |state: &State| {
        states.borrow_mut().push(state.clone());
        Ok(())
    };
    let config = FitConfig { learning_rate: &rate, first_epoch: 5, checkpoint: Some(&keep), ..FitConfig::new(4) };
    let mut whole = trainer()?;
    let mask = Tensor::new(&[[1u8, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]], &Device::Cpu)?;
    whole.set_masks(BTreeMap::from([("weight".to_owned(), mask)]))?;
    let mut counter = Counter::default();
    let history = whole.fit(&config, &data(), &mut [&mut counter])?.history;
    assert_eq!(counter.0, 4 * N_BATCHES as u64);
    assert_eq!(states.borrow().len(), 4);

    for state in states.take() {
        let mut resumed = trainer()?;
        resumed.restore(&state)?;
        let mut counter = Counter::default();
        let again = resumed.fit(&FitConfig { checkpoint: None, ..config }, &data(), &mut [&mut counter])?;
        assert_eq!(weights(&resumed), weights(&whole));
        assert_eq!(without_times(&again.history), without_times(&history));
        assert_eq!(counter.0, 4 * N_BATCHES as u64);
    }
    Ok(())
}

#[test]
fn a_state_of_another_optimiser_is_refused() -> Result<(), Error> {
    let state = trainer()?.state()?;
    let mut other = Trainer::new(network()?, Optimizer::new(OptimizerConfig::sgd()), 7);
    let error = other.restore(&state).expect_err("Adam's state").to_string();
    assert!(error.contains("its optimiser is Adam"), "{error}");
    Ok(())
}

#[test]
fn an_error_of_a_hook_names_the_hook() -> Result<(), Error> {
    struct Failing(Cell<bool>);
    impl Hook for Failing {
        fn name(&self) -> &str {
            "failing"
        }

        fn on(&mut self, _event: Event, _fit: &mut Fit<'_>) -> Result<(), BoxError> {
            self.0.set(true);
            Err("disk full".into())
        }
    }
    let error = trainer()?.fit(&FitConfig::new(1), &data(), &mut [&mut Failing(Cell::new(false))]);
    assert_eq!(error.expect_err("the hook fails").to_string(), "failing: disk full");
    Ok(())
}

#[test]
fn a_cause_is_said_once_and_without_a_backtrace() {
    let message = |text: &str| candle_core::Error::Msg(text.to_owned());
    let traced = |error| candle_core::Error::WithBacktrace {
        inner: Box::new(error),
        backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
    };
    #[derive(Debug)]
    struct Outer(candle_core::Error);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("no batch")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let hook = |source: BoxError| Error::Hook { hook: "pruning".to_owned(), source };
    let outer = || Box::new(Outer(traced(message("bad shape"))));
    let cases = [
        (Error::from(traced(message("bad shape"))), "bad shape"),
        (Error::from(traced(message("bad shape")).with_path("a.bin")), "path: \"a.bin\" bad shape"),
        (hook(Box::new(traced(message("bad shape")))), "pruning: bad shape"),
        (hook(outer()), "pruning: no batch: bad shape"),
        (Error::Data(outer()), "reading a batch failed: no batch: bad shape"),
        (Error::Checkpoint(outer()), "writing a checkpoint failed: no batch: bad shape"),
    ];
    for (error, expected) in cases {
        assert_eq!(error.to_string(), expected);
        assert!(std::error::Error::source(&error).is_none(), "{error} is said again by its source");
    }
}

/// A layer whose norm ends the graph, as candle's fused one does.
struct Severed(candle_nn::Linear, candle_nn::LayerNorm, candle_nn::Linear);

impl candle_nn::ModuleT for Severed {
    fn forward_t(&self, x: &Tensor, _train: bool) -> candle_core::Result<Tensor> {
        use candle_nn::Module;
        self.2.forward(&self.1.forward(&self.0.forward(x)?)?)
    }
}

#[test]
fn parameters_that_no_gradient_reaches_are_named_before_the_first_step() -> Result<(), Error> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let module = Severed(
        candle_nn::linear(4, 8, builder.pp("in"))?,
        candle_nn::layer_norm(8, candle_nn::LayerNormConfig::default(), builder.pp("norm"))?,
        candle_nn::linear(8, 3, builder.pp("out"))?,
    );
    let network = ModuleNetwork::new(module, &variables)?;
    let before = network.parameters().snapshot(|_, _| true)?;
    let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::adam()), 7);
    match trainer.fit(&FitConfig::new(1), &data(), &mut []) {
        Err(Error::NoGradient { names, n_trainable: 6 }) => {
            assert_eq!(names, ["in.bias", "in.weight", "norm.bias", "norm.weight"]);
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    for (name, parameter) in trainer.network().parameters().iter() {
        let moved = (parameter.var().as_tensor() - &before[name])?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert_eq!(moved, 0.0, "{name}");
    }
    trainer.allow_no_gradient(["in.bias", "in.weight", "norm.bias", "norm.weight"]);
    trainer.fit(&FitConfig::new(1), &data(), &mut [])?;
    Ok(())
}

/// What its first layer says counts for nothing.
struct Muted(candle_nn::Linear, candle_nn::Linear);

impl candle_nn::ModuleT for Muted {
    fn forward_t(&self, x: &Tensor, _train: bool) -> candle_core::Result<Tensor> {
        use candle_nn::Module;
        let muted = self.0.forward(x)?;
        let zeros = muted.zeros_like()?;
        (muted * zeros)? + self.1.forward(x)?
    }
}

#[test]
fn parameters_whose_gradient_is_zero_throughout_are_named_as_well() -> Result<(), Error> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let module = Muted(candle_nn::linear(4, 3, builder.pp("muted"))?, candle_nn::linear(4, 3, builder.pp("heard"))?);
    let network = ModuleNetwork::new(module, &variables)?;
    let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::adam()), 7);
    match trainer.fit(&FitConfig::new(1), &data(), &mut []) {
        Err(Error::NoGradient { names, n_trainable: 4 }) => assert_eq!(names, ["muted.bias", "muted.weight"]),
        other => panic!("expected a refusal, got {other:?}"),
    }
    Ok(())
}

#[test]
fn a_fit_without_validation_batches_is_refused_before_it_trains() -> Result<(), Error> {
    let mut trainer = trainer()?;
    let before = weights(&trainer);
    let Data { train, n_train_batches, .. } = data();
    let data = Data { train, n_train_batches, valid: || Box::new(std::iter::empty()) as Batches };
    let result = trainer.fit(&FitConfig::new(1), &data, &mut []);
    assert!(matches!(result, Err(Error::NoBatches { what: "the validation set", .. })), "{result:?}");
    assert_eq!(weights(&trainer), before);
    Ok(())
}

/// Refuses every mask, as a network may.
struct Refusing(Linear);

impl Network for Refusing {
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        self.0.forward(x, pass)
    }

    fn parameters(&self) -> &lth_train::Parameters {
        self.0.parameters()
    }

    fn set_masks(&mut self, _: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        candle_core::bail!("no masks here")
    }
}

#[test]
fn masks_that_are_refused_change_no_weight() -> Result<(), Error> {
    let mut trainer = Trainer::new(Refusing(network()?), Optimizer::new(OptimizerConfig::adam()), 7);
    let before = trainer.network().0.parameters().snapshot(|_, _| true)?;
    let zeros = Tensor::zeros((3, 4), DType::U8, &Device::Cpu)?;
    assert!(trainer.set_masks(BTreeMap::from([("weight".to_owned(), zeros.clone())])).is_err());
    let float = BTreeMap::from([("weight".to_owned(), zeros.to_dtype(DType::F32)?)]);
    let message = trainer.set_masks(float).expect_err("a mask is u8").to_string();
    assert!(message.starts_with("mask for `weight` is F32, expected U8"), "{message}");
    assert!(trainer.masks().is_empty());
    for (name, value) in trainer.network().parameters().snapshot(|_, _| true)? {
        assert_eq!((value - &before[&name])?.abs()?.max_all()?.to_scalar::<f32>()?, 0.0, "{name}");
    }
    Ok(())
}

#[test]
fn two_hooks_of_one_name_are_refused_before_anything_happens() -> Result<(), Error> {
    let mut trainer = trainer()?;
    let before = weights(&trainer);
    let (mut first, mut second) = (Log(Vec::new()), Log(Vec::new()));
    let error = trainer.fit(&FitConfig::new(2), &data(), &mut [&mut first, &mut second]).expect_err("one name twice");
    assert!(error.to_string().starts_with("two hooks of this fit are called `log`"), "{error}");
    assert!(first.0.is_empty() && weights(&trainer) == before);
    Ok(())
}

/// Dropout that draws from candle's generator, which has no seed on a CPU.
struct Noisy(candle_nn::Linear);

impl candle_nn::ModuleT for Noisy {
    fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        use candle_nn::Module;
        self.0.forward(&candle_nn::Dropout::new(0.5).forward(x, train)?)
    }
}

#[test]
fn noise_that_cannot_be_seeded_is_refused_unless_it_is_allowed() -> Result<(), Error> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let network = ModuleNetwork::new(Noisy(candle_nn::linear(4, 3, builder)?), &variables)?;
    let before = network.parameters().snapshot(|_, _| true)?;
    let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::adam()), 7);
    let error = trainer.fit(&FitConfig::new(1), &data(), &mut []).expect_err("candle's dropout");
    assert!(matches!(error, Error::Unseeded { difference } if difference > 0.0), "{error}");
    for (name, parameter) in trainer.network().parameters().iter() {
        let moved = (parameter.var().as_tensor() - &before[name])?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert_eq!(moved, 0.0, "{name}");
    }
    trainer.allow_unseeded();
    trainer.fit(&FitConfig::new(1), &data(), &mut [])?;
    Ok(())
}

#[test]
fn the_rehearsal_leaves_running_statistics_alone() -> Result<(), Error> {
    struct Normed(candle_nn::BatchNorm, candle_nn::Linear);
    impl candle_nn::ModuleT for Normed {
        fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
            use candle_nn::Module;
            self.1.forward(&self.0.forward_t(x, train)?)
        }
    }
    let mean_after_one_batch = |is_rehearsed: bool| -> Result<Vec<f32>, Error> {
        let variables = VarMap::new();
        let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let norm = candle_nn::batch_norm(4, candle_nn::BatchNormConfig::default(), builder.pp("norm"))?;
        let module = Normed(norm, candle_nn::linear(4, 3, builder.pp("fc"))?);
        let mut trainer =
            Trainer::new(ModuleNetwork::new(module, &variables)?, Optimizer::new(OptimizerConfig::adam()), 7);
        if !is_rehearsed {
            trainer.allow_unseeded();
        }
        trainer.fit(&FitConfig::new(1), &data(), &mut [])?;
        Ok(trainer.network().parameters().require("norm.running_mean")?.var().to_vec1()?)
    };
    assert_eq!(mean_after_one_batch(true)?, mean_after_one_batch(false)?);
    Ok(())
}

#[test]
fn variables_that_join_later_are_named() -> Result<(), Error> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let network = ModuleNetwork::new(candle_nn::linear(4, 3, builder.clone())?, &variables)?;
    let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::adam()), 7);
    candle_nn::linear(3, 3, builder.pp("late"))?;
    let error = trainer.fit(&FitConfig::new(1), &data(), &mut []).expect_err("a new layer").to_string();
    assert!(error.starts_with("the VarMap has variables that were not there"), "{error}");
    assert!(error.contains("`late.bias`, `late.weight`"), "{error}");
    Ok(())
}

#[test]
fn what_is_no_classification_is_refused_at_the_first_batch() -> Result<(), Error> {
    let refused = |network: &dyn Fn() -> Result<Box<dyn Network>, Error>, y: &Tensor| -> Result<String, Error> {
        let (x, _) = batch(0, 0)?;
        let batches =
            || Box::new((0..N_BATCHES).map(|_| Ok((x.clone(), y.clone())))) as Box<dyn Iterator<Item = Batch>>;
        let data = Data { train: |_| batches(), n_train_batches: N_BATCHES, valid: batches };
        let mut trainer = Trainer::new(network()?, Optimizer::new(OptimizerConfig::adam()), 7);
        Ok(trainer.fit(&FitConfig::new(1), &data, &mut []).expect_err("no classes").to_string())
    };
    let plain = || Ok(Box::new(network()?) as Box<dyn Network>);
    let message = refused(&plain, &Tensor::zeros(5, DType::F32, &Device::Cpu)?)?;
    assert!(message.contains("targets [5] of F32") && message.contains("For a regression"), "{message}");
    let message = refused(&plain, &Tensor::zeros((5, 3), DType::U32, &Device::Cpu)?)?;
    assert!(message.contains("one class index"), "{message}");
    Ok(())
}
