//! Gradient criteria, several hooks in one fit, one hook in several fits, and states that do not fit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

use candle_core::{Device, Tensor};
use lth_criteria::{Criterion, NamedInputs, Snip, UpdatingMovement, score_all};
use lth_mask::{MaskSet, Selection, select};
use lth_schedule::Step;
use lth_schedule::{Schedule, Sparsity, SparsitySchedule};
use lth_ticket::{Extent, Pruning, PruningConfig, Rewind};
use lth_train::{BoxError, Event, Fit, FitConfig, Hook, Network, Pass, State};

use crate::support::{N_BATCHES, RANKS, bits, data, trainer};

type Outcome = Result<(), Box<dyn std::error::Error>>;
const LAYERS: [&str; 3] = ["fc1.weight", "fc2.weight", "fc3.weight"];

fn to(percent: f64, schedule: Schedule) -> SparsitySchedule {
    SparsitySchedule::to(Sparsity::from_percent(percent).expect("a percentage"), schedule)
}

fn config(criterion: impl Criterion + 'static, schedule: SparsitySchedule) -> PruningConfig {
    PruningConfig { criterion: Box::new(criterion), ranks: RANKS.to_vec(), ..PruningConfig::new(schedule) }
}

fn only(layer: &str) -> Selection {
    let others = LAYERS.into_iter().filter(|name| *name != layer).map(str::to_owned);
    Selection { keep_dense: others.collect(), ..Selection::default() }
}

fn fit_config() -> FitConfig<'static> {
    FitConfig { learning_rate: &|_| 0.02, ..FitConfig::new(4) }
}

/// SNIP's masks from the mean gradient of the first `n` batches, of a network that does not move.
fn snip(n: usize) -> Result<MaskSet, Box<dyn std::error::Error>> {
    let trainer = trainer();
    let parameters = trainer.network().parameters();
    let (mut weights, mut mean) = (BTreeMap::new(), BTreeMap::<String, Tensor>::new());
    for batch in (data().train)(0).take(n) {
        let (x, y) = batch?;
        let logits = trainer.network().forward(&x, &Pass::train(3, 0))?;
        let gradients = candle_nn::loss::cross_entropy(&logits, &y)?.backward()?;
        for name in LAYERS {
            let var = parameters.require(name)?.var();
            weights.insert(name.to_owned(), var.as_detached_tensor());
            let gradient = (gradients.get(var).ok_or("no gradient")? / n as f64)?;
            let sum = mean.get(name).map_or(Ok(gradient.clone()), |sum| sum + gradient)?;
            mean.insert(name.to_owned(), sum);
        }
    }
    let scores = score_all(&Snip, &NamedInputs { gradient: Some(&mean), ..NamedInputs::of(&weights) })?;
    Ok(select(&scores, 0.5, &Selection::default())?)
}

#[test]
fn a_gradient_criterion_prunes_at_initialisation_over_as_many_batches_as_asked() -> Outcome {
    for n in [1, 3] {
        let mut trainer = trainer();
        let gradient_batches = NonZeroU32::new(n as u32).ok_or("none")?;
        let config = PruningConfig { gradient_batches, ..config(Snip, to(50.0, Schedule::OneShot)) };
        // Nothing moves, so that the scores are those of the initial weights.
        let still = FitConfig { learning_rate: &|_| 0.0, ..FitConfig::new(1) };
        trainer.fit(&still, &data(), &mut [&mut Pruning::new(config)])?;
        assert_eq!(MaskSet::from_tensors(trainer.masks())?, snip(n)?, "{n} batches");
    }
    Ok(())
}

#[test]
fn two_hooks_keep_their_own_layers_and_resume_to_the_same_bits() -> Outcome {
    let rewind = Rewind { extent: Extent::PrunedLayers, ..Rewind::to_epoch(1) };
    let hook = |layer: &'static str| {
        let schedule = SparsitySchedule {
            window: "1ep..end".parse().expect("a window"),
            ..to(80.0, Schedule::iterative(3).expect("three"))
        };
        let config = config(lth_criteria::LargeFinal, schedule);
        Pruning::new(PruningConfig { selection: only(layer), rewind: Some(rewind), ..config }).with_name(layer)
    };
    let states = RefCell::new(Vec::<State>::new());
    let keep = |state: &State| {
        states.borrow_mut().push(state.clone());
        Ok(())
    };
    let mut whole = trainer();
    let checkpointed = FitConfig { checkpoint: Some(&keep), ..fit_config() };
    whole.fit(&checkpointed, &data(), &mut [&mut hook("fc1.weight"), &mut hook("fc2.weight")])?;
    assert_eq!(whole.masks().keys().map(String::as_str).collect::<Vec<_>>(), ["fc1.weight", "fc2.weight"]);
    for state in states.take() {
        let mut resumed = trainer();
        resumed.restore(&state)?;
        resumed.fit(&fit_config(), &data(), &mut [&mut hook("fc1.weight"), &mut hook("fc2.weight")])?;
        for (name, _) in whole.network().parameters().iter() {
            assert_eq!(bits(resumed.network(), name), bits(whole.network(), name), "{name}");
        }
    }
    Ok(())
}

/// What became of two layers between a step and the next batch, when hooks before it have spoken.
#[derive(Default)]
struct Between {
    after_step: Vec<Vec<u32>>,
    moved: BTreeMap<String, usize>,
}

impl Hook for Between {
    fn name(&self) -> &str {
        "between"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        let names = ["fc1.weight", "fc2.weight"];
        let values = |name: &str| -> Result<Vec<u32>, BoxError> {
            let values = fit.parameters().require(name)?.var().flatten_all()?.to_vec1::<f32>()?;
            Ok(values.into_iter().map(f32::to_bits).collect())
        };
        let now = names.map(values).into_iter().collect::<Result<Vec<_>, _>>()?;
        if event == Event::BeforeBatch {
            for ((name, before), now) in names.iter().zip(&self.after_step).zip(&now) {
                *self.moved.entry((*name).to_owned()).or_default() += usize::from(before != now);
            }
        }
        if event == Event::AfterStep {
            self.after_step = now;
        }
        Ok(())
    }
}

#[test]
fn a_hook_of_pruned_layers_rewinds_no_layer_of_another() -> Outcome {
    let rewind = Rewind { extent: Extent::PrunedLayers, ..Rewind::to_epoch(1) };
    let schedule = SparsitySchedule { window: "2ep..end".parse().expect("a window"), ..to(80.0, Schedule::OneShot) };
    let first = PruningConfig {
        selection: only("fc1.weight"),
        rewind: Some(rewind),
        ..config(lth_criteria::LargeFinal, schedule)
    };
    let (mut hook, mut between) = (Pruning::new(first), Between::default());
    trainer().fit(&fit_config(), &data(), &mut [&mut hook, &mut between])?;
    assert_eq!(between.moved, BTreeMap::from([("fc1.weight".to_owned(), 1), ("fc2.weight".to_owned(), 0)]));
    Ok(())
}

#[test]
fn a_hook_that_rewinds_what_another_prunes_is_refused() {
    let hook = |name: &str, rewind| {
        let config = config(lth_criteria::LargeFinal, to(80.0, Schedule::OneShot));
        Pruning::new(PruningConfig { rewind, ..config }).with_name(name)
    };
    let hooks = &mut [&mut hook("a", Some(Rewind::to_epoch(0))) as &mut dyn lth_train::Hook, &mut hook("b", None)];
    let error = trainer().fit(&fit_config(), &data(), hooks).expect_err("both prune the network").to_string();
    assert!(error.contains("hook `pruning.a` rewinds the whole network, which hook `pruning.b` prunes"), "{error}");
}

#[test]
fn a_hook_begins_every_fit_anew() -> Outcome {
    let fresh = || Pruning::new(config(UpdatingMovement, to(60.0, Schedule::iterative(3).expect("three"))));
    let run = |is_reused: bool| -> Result<Vec<Vec<u32>>, lth_train::Error> {
        let mut trainer = trainer();
        let mut hook = fresh();
        trainer.fit(&fit_config(), &data(), &mut [&mut hook])?;
        trainer.set_masks(BTreeMap::new())?;
        if !is_reused {
            hook = fresh();
        }
        trainer.fit(&fit_config(), &data(), &mut [&mut hook])?;
        Ok(LAYERS.map(|name| bits(trainer.network(), name)).to_vec())
    };
    assert_eq!(run(true)?, run(false)?);
    Ok(())
}

#[test]
fn a_state_from_inside_another_fit_is_refused() -> Outcome {
    let hook = |percent| Pruning::new(config(lth_criteria::LargeFinal, to(percent, Schedule::Linear)));
    let states = RefCell::new(Vec::<State>::new());
    let keep = |state: &State| {
        states.borrow_mut().push(state.clone());
        Ok(())
    };
    let checkpointed = FitConfig { checkpoint: Some(&keep), ..fit_config() };
    trainer().fit(&checkpointed, &data(), &mut [&mut hook(80.0)])?;
    let state = states.take().swap_remove(1);
    let refused =
        |n_epochs, first_epoch, percent, frozen: Option<&str>| -> Result<String, Box<dyn std::error::Error>> {
            let mut trainer = trainer();
            trainer.restore(&state)?;
            if let Some(name) = frozen {
                trainer.network().parameters().require(name)?.set_trainable(false);
            }
            let before = LAYERS.map(|name| bits(trainer.network(), name));
            let config = FitConfig { to: Step::epoch(n_epochs), first_epoch, ..fit_config() };
            let error = trainer.fit(&config, &data(), &mut [&mut hook(percent)]).expect_err("another fit");
            assert_eq!(before, LAYERS.map(|name| bits(trainer.network(), name)));
            Ok(error.to_string())
        };
    let of_length =
        format!("it is from inside a fit over 0ep..4ep of 4ep with epochs of {N_BATCHES} batches, this one is over");
    for n_epochs in [1, 2, 6, 8] {
        let message = refused(n_epochs, 0, 80.0, None)?;
        assert!(message.contains(&of_length), "{message}");
    }
    let message = refused(4, 3, 80.0, None)?;
    assert!(message.contains("its fit began with epoch 0 of the data, this one with 3"), "{message}");
    let message = refused(4, 0, 80.0, Some("fc2.weight"))?;
    assert!(message.contains("its fit trained `fc2.weight`, which is frozen now"), "{message}");
    let message = refused(4, 0, 90.0, None)?;
    assert!(message.contains("its schedule.end is 0.8, this hook's is 0.9"), "{message}");
    Ok(())
}

/// A straight line of a user's own.
#[derive(Debug)]
struct Line(&'static str);

impl lth_schedule::Curve for Line {
    fn name(&self) -> &str {
        self.0
    }

    fn progress(&self, position: f64) -> f64 {
        position
    }
}

#[test]
fn a_fit_along_ones_own_curve_is_resumed_by_a_curve_of_its_name_alone() -> Outcome {
    let hook = |name| Pruning::new(config(lth_criteria::LargeFinal, to(80.0, Schedule::own(Line(name)))));
    let states = RefCell::new(Vec::<State>::new());
    let keep = |state: &State| {
        states.borrow_mut().push(state.clone());
        Ok(())
    };
    let checkpointed = FitConfig { checkpoint: Some(&keep), ..fit_config() };
    let mut whole = trainer();
    whole.fit(&checkpointed, &data(), &mut [&mut hook("line")])?;
    let state = states.take().swap_remove(1);
    let mut resumed = trainer();
    resumed.restore(&state)?;
    let error = resumed.fit(&fit_config(), &data(), &mut [&mut hook("other")]).expect_err("another curve").to_string();
    let expected = "its schedule.schedule is \"own(line)\", this hook's is \"own(other)\"";
    assert!(error.contains(expected), "{error}");
    resumed.restore(&state)?;
    resumed.fit(&fit_config(), &data(), &mut [&mut hook("line")])?;
    assert_eq!(LAYERS.map(|name| bits(resumed.network(), name)), LAYERS.map(|name| bits(whole.network(), name)));
    Ok(())
}

#[test]
fn masks_of_anything_are_kept_by_a_fit() -> Outcome {
    let mut trainer = trainer();
    let bias = Tensor::new(&[0u8, 1, 0, 1, 1, 0, 1], &Device::Cpu)?;
    trainer.set_masks(BTreeMap::from([("fc2.bias".to_owned(), bias)]))?;
    trainer.fit(&fit_config(), &data(), &mut [&mut Pruning::new(config(Snip, to(50.0, Schedule::OneShot)))])?;
    let zeros: Vec<bool> = bits(trainer.network(), "fc2.bias").into_iter().map(|bits| bits == 0).collect();
    assert_eq!(zeros, [true, false, true, false, false, true, false]);
    Ok(())
}
