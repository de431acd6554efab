//! The hook that moves a mask while a network trains, without changing how much of each layer is kept.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::num::NonZeroU32;

use candle_core::{DType, Device, Tensor};
use lth_mask::Mask;
use lth_schedule::update_interval;
use lth_train::{BoxError, Event, Fit, Hook, HookState};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::exchange::{exchanged, largest};
use crate::identity::{self, Length};
use crate::random::{choose, stream};

/// How dynamic sparse training moves its masks.
///
/// Sources: Evci et al. 2020, "Rigging the Lottery: Making All Tickets Winners", §3 and algorithm 1; Mocanu et al. 2018,
/// "Scalable training of artificial neural networks with adaptive sparse connectivity inspired by network science" (SET).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DynamicConfig {
    /// Which pruned weights grow.
    pub growth: Growth,
    /// Batches between two updates. `None`: [`update_interval`], 100 as in the paper, or fewer in a short training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<NonZeroU32>,
    /// The part of a layer's kept weights that is exchanged, in (0, 1): at the start of the training; it falls to 0 along
    /// half a cosine.
    pub fraction: f64,
    /// The part of the training in which masks move, in (0, 1].
    pub until: f64,
}

/// Which pruned weights grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Growth {
    /// Those of largest gradient (RigL). As in algorithm 1, the update takes the place of the optimiser's step.
    Gradient,
    /// Any (SET), after the optimiser's step.
    Random,
}

impl DynamicConfig {
    /// The paper's: ΔT = 100, α = 0.3, until 75 % of the training.
    pub fn new(growth: Growth) -> Self {
        Self { growth, every: None, fraction: 0.3, until: 0.75 }
    }

    /// Whether a training of so many batches can be done.
    ///
    /// # Errors
    /// [`Error::Setting`] for a part out of range, for updates at every batch, between which no grown weight could learn,
    /// or where the first would come after the last.
    pub fn check(&self, n_iterations: u64) -> Result<(), Error> {
        let refuse = |what, got: String, expected: String| Err(Error::Setting { what, got, expected });
        if !(self.fraction > 0.0 && self.fraction < 1.0) {
            return refuse(
                "exchanged part of the kept weights",
                self.fraction.to_string(),
                "more than 0, below 1".into(),
            );
        }
        if !(self.until > 0.0 && self.until <= 1.0) {
            let expected = "more than 0, at most 1".into();
            return refuse("part of the training with updates", self.until.to_string(), expected);
        }
        let (every, end) = (self.every(n_iterations), self.end(n_iterations));
        if every < 2 || every >= end {
            let expected = format!("at least 2, fewer than the {end} batches with updates");
            return refuse("batches between two updates", every.to_string(), expected);
        }
        Ok(())
    }

    fn every(&self, n_iterations: u64) -> u64 {
        self.every.unwrap_or_else(|| update_interval(n_iterations)).get().into()
    }

    /// The first batch at which nothing moves any more.
    fn end(&self, n_iterations: u64) -> u64 {
        (self.until * n_iterations as f64) as u64
    }

    /// The part that is exchanged: α/2 · (1 + cos(π t / T_end)).
    fn fraction_at(&self, iteration: u64, n_iterations: u64) -> f64 {
        self.fraction / 2.0 * (1.0 + (PI * iteration as f64 / self.end(n_iterations) as f64).cos())
    }
}

/// Dynamic sparse training: every so often a part of each layer's kept weights, those of smallest magnitude, is dropped,
/// and as many grow elsewhere in the layer.
///
/// It moves the masks that the trainer has when the fit starts, of weights that are trained; every layer keeps its number.
/// Grown weights start at 0 with the optimiser's averages at 0; one that is dropped and grown in the same update stays as
/// it is, as in RigL's published code. From that code are also the rounding (down) and, for SET, the falling fraction.
/// DIFFERENCE: SET's paper exchanges the same part after every epoch, and draws the values of grown weights.
///
/// It moves single weights: a structure (filters, N:M) does not outlive the first update.
pub struct Dynamic {
    config: DynamicConfig,
    /// Between the first and the last event of a fit.
    at: Option<At>,
    /// The length of the training that a loaded state is from, until it is compared.
    loaded: Option<Length>,
    progress: Progress,
}

/// The fit at hand.
#[derive(Clone, Copy)]
struct At {
    length: Length,
    accumulate: usize,
}

/// What the hook remembers; the masks themselves are the trainer's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    has_started: bool,
    /// The batch from which an update is due.
    next: u64,
    n_updates: u64,
}

/// How a state is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    config: Value,
    length: Option<Length>,
    progress: Progress,
}

impl Dynamic {
    /// A hook that has moved nothing yet.
    pub fn new(config: DynamicConfig) -> Self {
        Self { config, at: None, loaded: None, progress: Progress::default() }
    }

    /// Updates of the masks so far.
    pub fn n_updates(&self) -> u64 {
        self.progress.n_updates
    }

    fn prepare(&mut self, fit: &Fit<'_>) -> Result<At, Error> {
        if !self.progress.has_started {
            let reason = "there is none of this hook's, and the fit is not at its start";
            return Err(Error::State(reason.to_owned()));
        }
        if let Some(length) = self.loaded.take() {
            length.check(fit)?;
        }
        let at = At { length: Length::of(fit), accumulate: fit.span().accumulate };
        self.config.check(at.length.n_iterations)?;
        self.at = Some(at);
        Ok(at)
    }

    fn start(&mut self, fit: &Fit<'_>) -> Result<(), Error> {
        if moved(fit).is_empty() {
            let masked = fit.masks().keys().cloned().collect();
            return Err(Error::NothingToMove { masked });
        }
        self.progress = Progress { has_started: true, ..Progress::default() };
        self.loaded = None;
        let at = self.prepare(fit)?;
        self.progress.next = self.following(fit.iteration() as u64, at);
        Ok(())
    }

    /// The first multiple of the update interval after a batch.
    fn following(&self, iteration: u64, at: At) -> u64 {
        let every = self.config.every(at.length.n_iterations);
        (iteration / every + 1) * every
    }

    fn update(&mut self, fit: &mut Fit<'_>) -> Result<(), Error> {
        let at = match self.at {
            Some(at) => at,
            None => self.prepare(fit)?,
        };
        let (iteration, n_iterations) = (fit.iteration() as u64, at.length.n_iterations);
        if iteration < self.progress.next || iteration >= self.config.end(n_iterations) {
            return Ok(());
        }
        let gradients = match self.config.growth {
            Growth::Gradient => gradients(fit)?,
            Growth::Random => BTreeMap::new(),
        };
        if gradients.values().flatten().any(|gradient| !gradient.is_finite()) {
            // The step is taken, so that the training ends by it rather than goes on in an order of NaNs.
            return Ok(());
        }
        let fraction = self.config.fraction_at(iteration, n_iterations);
        let mut masks = fit.masks().clone();
        for name in moved(fit) {
            let Some(mask) = masks.get(&name) else { continue };
            let mask = Mask::from_tensor(mask)?;
            let weights = values(&fit.parameters().require(&name)?.var().as_detached_tensor())?;
            let n = (fraction * mask.kept() as f64) as usize;
            let after = match (self.config.growth, gradients.get(&name)) {
                (Growth::Gradient, Some(gradient)) => {
                    exchanged(&mask, &weights, n, |places, n| largest(places, n, gradient))?
                }
                // No gradient reached it, so that it is as it was.
                (Growth::Gradient, None) => continue,
                (Growth::Random, _) => {
                    let mut random = stream(fit.seed(), "regrow", &name, iteration);
                    exchanged(&mask, &weights, n, |places, n| choose(places, n, &mut random))?
                }
            };
            masks.insert(name, after.to_tensor(&Device::Cpu)?);
        }
        fit.set_masks(masks)?;
        if self.config.growth == Growth::Gradient {
            fit.skip_step()?;
        }
        self.progress.n_updates += 1;
        self.progress.next = self.following(iteration, at);
        Ok(())
    }

    fn handle(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), Error> {
        match (event, self.config.growth) {
            (Event::FitStart, _) => self.start(fit)?,
            (Event::BeforeStep, Growth::Gradient) | (Event::AfterStep, Growth::Random) => self.update(fit)?,
            (Event::FitEnd, _) => {
                self.at = None;
                self.progress.has_started = false;
            }
            // After a resume: before a batch, whose gradients may have to be dense.
            _ if self.at.is_none() => {
                self.prepare(fit)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The trained weights of which something is pruned.
fn moved(fit: &Fit<'_>) -> Vec<String> {
    let is_moved = |(name, mask): &(&String, &Tensor)| {
        let is_trained = fit.parameters().trainable().any(|(trained, _)| trained == name.as_str());
        is_trained && Mask::from_tensor(mask).is_ok_and(|mask| mask.zeros() > 0)
    };
    fit.masks().iter().filter(is_moved).map(|(name, _)| name.clone()).collect()
}

/// The gradients of the masked weights.
fn gradients(fit: &mut Fit<'_>) -> Result<BTreeMap<String, Vec<f64>>, Error> {
    let names = moved(fit);
    let var = |name: &String| Ok((name.clone(), fit.parameters().require(name)?.var().clone()));
    let variables: Vec<_> = names.iter().map(var).collect::<Result<_, Error>>()?;
    let Some(all) = fit.gradients()? else { return Ok(BTreeMap::new()) };
    let found = variables.into_iter().filter_map(|(name, var)| Some((name, all.get(&var)?.clone())));
    found.map(|(name, gradient)| Ok((name, values(&gradient)?))).collect()
}

fn values(tensor: &Tensor) -> Result<Vec<f64>, Error> {
    Ok(tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

impl Hook for Dynamic {
    fn name(&self) -> &str {
        "dynamic sparse training"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        Ok(self.handle(event, fit)?)
    }

    fn needs_dense_gradients(&self, iteration: usize) -> bool {
        let Some(At { length, accumulate }) = self.at else { return false };
        // Every batch of a step at whose end an update is due.
        let reached = (iteration + accumulate.saturating_sub(1)) as u64;
        self.config.growth == Growth::Gradient
            && reached >= self.progress.next
            && (iteration as u64) < self.config.end(length.n_iterations)
    }

    fn save(&self) -> Result<HookState, BoxError> {
        let (config, length) = (serde_json::to_value(self.config)?, self.at.map(|at| at.length));
        let saved = Saved { config, length, progress: self.progress.clone() };
        Ok(HookState { tensors: BTreeMap::new(), json: serde_json::to_value(saved)? })
    }

    fn load(&mut self, state: &HookState) -> Result<(), BoxError> {
        let saved: Saved = serde_json::from_value(state.json.clone())?;
        identity::check(&saved.config, &serde_json::to_value(self.config)?)?;
        (self.progress, self.loaded, self.at) = (saved.progress, saved.length, None);
        Ok(())
    }
}
