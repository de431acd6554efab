//! Masks that move while a network trains.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

use candle_core::{Device, Tensor};
use lth_mask::{Mask, MaskSet};
use lth_schedule::Step;
use lth_ticket::{Dynamic, DynamicConfig, Growth};
use lth_train::{BoxError, Event, Fit, FitConfig, Hook, Network, Pass, State};

use crate::support::{N_BATCHES, bits, data, trainer};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;
const LAYERS: [&str; 3] = ["fc1.weight", "fc2.weight", "fc3.weight"];

fn config(growth: Growth) -> DynamicConfig {
    DynamicConfig { every: NonZeroU32::new(3), ..DynamicConfig::new(growth) }
}

fn fit_config() -> FitConfig<'static> {
    FitConfig { learning_rate: &|_| 0.02, ..FitConfig::new(4) }
}

/// Four of ten weights kept in the first two layers; the third is dense.
fn masks() -> Outcome<MaskSet> {
    let some = |shape: [usize; 2]| Mask::from_fn(shape, |index| index * 7 % 10 < 4);
    Ok([("fc1.weight".to_owned(), some([10, 12])?), ("fc2.weight".to_owned(), some([7, 10])?)].into_iter().collect())
}

fn masked() -> Outcome<lth_train::Trainer<crate::support::Small>> {
    let mut trainer = trainer();
    trainer.set_masks(masks()?.to_tensors(&Device::Cpu)?)?;
    Ok(trainer)
}

/// What it saw after every batch: the masks, and the places that are new with their values and averages.
#[derive(Default)]
struct Watch {
    before: MaskSet,
    counts: Vec<Vec<usize>>,
    changed_at: Vec<usize>,
    grown: Vec<(f32, f32)>,
}

impl Hook for Watch {
    fn name(&self) -> &str {
        "watch"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        if event != Event::AfterStep {
            return Ok(());
        }
        let now = MaskSet::from_tensors(fit.masks())?;
        self.counts.push(now.iter().map(|(_, mask)| mask.kept()).collect());
        if !self.before.is_empty() && now != self.before {
            self.changed_at.push(fit.iteration());
            let averages = fit.optimizer().tensors()?;
            for (name, mask) in now.iter() {
                let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
                let values = flat(&fit.parameters().require(name)?.var().as_detached_tensor())?;
                let average = flat(&averages[&format!("{name}/first")])?;
                let before = self.before.get(name).ok_or("no mask")?;
                for place in mask.kept_indices().filter(|place| before.get(*place) == Some(false)) {
                    self.grown.push((values[place], average[place]));
                }
            }
        }
        self.before = now;
        Ok(())
    }
}

#[test]
fn every_update_keeps_each_layers_number_and_grown_weights_start_at_zero() -> Outcome {
    for growth in [Growth::Gradient, Growth::Random] {
        let mut trainer = masked()?;
        let (mut dynamic, mut watch) = (Dynamic::new(config(growth)), Watch::default());
        let fitted = trainer.fit(&fit_config(), &data(), &mut [&mut dynamic, &mut watch])?;
        assert_eq!(watch.counts.len(), 4 * N_BATCHES);
        let kept: Vec<usize> = masks()?.iter().map(|(_, mask)| mask.kept()).collect();
        assert!(watch.counts.iter().all(|counts| *counts == kept), "{growth:?}");
        // Of 16 batches the first 12 are for updates: before the steps of batches 3, 6 and 9, or after them.
        assert_eq!((dynamic.n_updates(), &watch.changed_at[..]), (3, &[3, 6, 9][..]), "{growth:?}");
        assert!(!watch.grown.is_empty());
        assert!(watch.grown.iter().all(|grown| *grown == (0.0, 0.0)), "{growth:?}: {:?}", watch.grown);
        assert_eq!(fitted.n_skipped, if growth == Growth::Gradient { 3 } else { 0 });
        // What is pruned is 0 at the end.
        for (name, mask) in MaskSet::from_tensors(trainer.masks())?.iter() {
            let values = bits(trainer.network(), name);
            assert!(mask.iter().zip(values).all(|(keep, bits)| keep || bits == 0), "{name}");
        }
    }
    Ok(())
}

/// Steps of two batches end with batches 1, 3, 5, …: the update of batch 6 waits for 7.
#[test]
fn where_a_step_has_several_batches_an_update_waits_for_its_last() -> Outcome {
    let two = NonZeroU32::new(2).ok_or("none")?;
    for growth in [Growth::Gradient, Growth::Random] {
        let (mut dynamic, mut watch) = (Dynamic::new(config(growth)), Watch::default());
        let config = FitConfig { accumulate: two, ..fit_config() };
        masked()?.fit(&config, &data(), &mut [&mut dynamic, &mut watch])?;
        assert_eq!((dynamic.n_updates(), watch.changed_at), (3, vec![3, 7, 9]), "{growth:?}");
    }
    Ok(())
}

/// Notes for which batches another hook asks for dense gradients.
struct Asks(Dynamic, Vec<bool>);

impl Hook for Asks {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        if event == Event::BeforeBatch {
            self.1.push(self.0.needs_dense_gradients(fit.iteration()));
        }
        self.0.on(event, fit)
    }
}

#[test]
fn dense_gradients_are_asked_for_at_updates_alone() -> Outcome {
    let at = |growth, accumulate: u32| -> Outcome<Vec<usize>> {
        let mut asks = Asks(Dynamic::new(config(growth)), Vec::new());
        let accumulate = NonZeroU32::new(accumulate).ok_or("none")?;
        masked()?.fit(&FitConfig { accumulate, ..fit_config() }, &data(), &mut [&mut asks])?;
        Ok(asks.1.iter().enumerate().filter(|(_, asks)| **asks).map(|(batch, _)| batch).collect())
    };
    assert_eq!(at(Growth::Gradient, 1)?, [3, 6, 9]);
    // Of a step of two batches both; one batch more where a step ends just before.
    assert_eq!(at(Growth::Gradient, 2)?, [2, 3, 5, 6, 7, 8, 9, 11]);
    assert!(at(Growth::Random, 1)?.is_empty());
    Ok(())
}

#[test]
fn a_resumed_fit_ends_with_the_same_bits() -> Outcome {
    for growth in [Growth::Gradient, Growth::Random] {
        let states = RefCell::new(Vec::<State>::new());
        let keep = |state: &State| {
            states.borrow_mut().push(state.clone());
            Ok(())
        };
        let checkpointed = FitConfig { checkpoint: Some(&keep), ..fit_config() };
        let mut whole = masked()?;
        whole.fit(&checkpointed, &data(), &mut [&mut Dynamic::new(config(growth))])?;
        for state in states.take() {
            let mut resumed = trainer();
            resumed.restore(&state)?;
            resumed.fit(&fit_config(), &data(), &mut [&mut Dynamic::new(config(growth))])?;
            assert_eq!(
                LAYERS.map(|name| bits(resumed.network(), name)),
                LAYERS.map(|name| bits(whole.network(), name))
            );
            assert_eq!(MaskSet::from_tensors(resumed.masks())?, MaskSet::from_tensors(whole.masks())?);
        }
    }
    Ok(())
}

#[test]
fn a_state_of_another_configuration_is_refused() -> Outcome {
    let states = RefCell::new(Vec::<State>::new());
    let keep = |state: &State| {
        states.borrow_mut().push(state.clone());
        Ok(())
    };
    let checkpointed = FitConfig { checkpoint: Some(&keep), ..fit_config() };
    masked()?.fit(&checkpointed, &data(), &mut [&mut Dynamic::new(config(Growth::Random))])?;
    let mut resumed = trainer();
    resumed.restore(&states.take().swap_remove(1))?;
    let other = DynamicConfig { fraction: 0.5, ..config(Growth::Random) };
    let error = resumed.fit(&fit_config(), &data(), &mut [&mut Dynamic::new(other)]).expect_err("another fraction");
    assert!(error.to_string().contains("its fraction is 0.3, this hook's is 0.5"), "{error}");
    Ok(())
}

/// The first update by sorting whole lists, with the gradient of candle's own backward pass.
#[test]
fn what_grows_is_where_the_loss_is_steepest() -> Outcome {
    let to = |text: &str| {
        Ok::<_, Box<dyn std::error::Error>>(FitConfig {
            to: text.parse()?,
            length: Some(Step::epoch(4)),
            ..fit_config()
        })
    };
    let mut before = masked()?;
    before.fit(&to("3it")?, &data(), &mut [])?;
    let (x, y) = (data().train)(0).nth(3).ok_or("no batch")??;
    let logits = before.network().forward(&x, &Pass::train(3, 0))?;
    let gradients = candle_nn::loss::cross_entropy(&logits, &y)?.backward()?;
    let mut expected = BTreeMap::new();
    for (name, mask) in masks()?.iter() {
        let var = before.network().parameters().require(name)?.var();
        let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let (weights, gradient) = (flat(var)?, flat(gradients.get(var).ok_or("no gradient")?)?);
        // 0.15 · (1 + cos(π · 3 / 12)) of what is kept.
        let n = (0.15 * (1.0 + std::f64::consts::FRAC_1_SQRT_2) * mask.kept() as f64) as usize;
        let mut kept: Vec<usize> = mask.kept_indices().collect();
        kept.sort_by(|a, b| weights[*b].abs().total_cmp(&weights[*a].abs()));
        kept.truncate(mask.kept() - n);
        let mut others: Vec<usize> = (0..mask.len()).filter(|place| !kept.contains(place)).collect();
        others.sort_by(|a, b| gradient[*b].abs().total_cmp(&gradient[*a].abs()));
        kept.extend(&others[..n]);
        expected.insert(name.to_owned(), Mask::from_fn(mask.shape(), |place| kept.contains(&place))?);
    }
    let mut after = masked()?;
    after.fit(&to("4it")?, &data(), &mut [&mut Dynamic::new(config(Growth::Gradient))])?;
    let expected: MaskSet = expected.into_iter().collect();
    assert_eq!(MaskSet::from_tensors(after.masks())?, expected);
    assert_ne!(expected, masks()?);
    Ok(())
}

#[test]
fn what_cannot_move_is_refused_with_what_it_is_and_may_be() -> Outcome {
    let refused = |trainer: Outcome<lth_train::Trainer<crate::support::Small>>, config| -> Outcome<String> {
        let error = trainer?.fit(&fit_config(), &data(), &mut [&mut Dynamic::new(config)]).err();
        Ok(error.ok_or("it was not refused")?.to_string())
    };
    let message = refused(Ok(trainer()), config(Growth::Random))?;
    assert!(message.contains("it has masks of []"), "{message}");
    let message = refused(masked(), DynamicConfig { fraction: 1.0, ..config(Growth::Random) })?;
    assert!(message.contains("exchanged part of the kept weights is 1, expected more than 0, below 1"), "{message}");
    let message = refused(masked(), DynamicConfig { until: 0.0, ..config(Growth::Random) })?;
    assert!(message.contains("part of the training with updates is 0, expected more than 0, at most 1"), "{message}");
    let message = refused(masked(), DynamicConfig { every: NonZeroU32::new(12), ..config(Growth::Random) })?;
    assert!(message.contains("is 12, expected at least 2, fewer than the 12 batches with updates"), "{message}");
    Ok(())
}

#[test]
fn the_papers_interval_shrinks_with_a_short_training() -> Outcome {
    let every = |n| {
        let config = DynamicConfig::new(Growth::Gradient);
        config.check(n).map_err(|error| error.to_string())
    };
    // A hundred of 50,000, and still two of 30; of two nothing is left.
    assert_eq!((every(50_000), every(30)), (Ok(()), Ok(())));
    assert_eq!(
        every(2),
        Err("batches between two updates is 2, expected at least 2, fewer than the 1 batches with updates".into())
    );
    Ok(())
}
