//! Optimisers over named parameters, with state that can be saved.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use lth_kernels::Gradients;
use lth_kernels::optim::{AdamStep, Decay, KeptPlaces, SgdStep, adam_step, adam_step_kept, sgd_step, sgd_step_kept};
use serde::{Deserialize, Serialize};

use crate::parameters::check_shape;
use crate::{Error, Parameters, Role};

/// Which optimiser, and its constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OptimizerConfig {
    /// Adam (Kingma & Ba 2015), with decoupled weight decay that of Loshchilov & Hutter 2019.
    Adam {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squared gradients.
        beta2: f64,
        /// Added to the root after bias correction.
        eps: f64,
        /// Strength of the decay.
        weight_decay: f64,
        /// `true`: `w *= 1 − lr·wd` before the step (fastai's `Adam`, PyTorch's `AdamW`); `false`: `wd·w` is added to the
        /// gradient (PyTorch's `Adam`).
        #[serde(default = "yes")]
        decoupled: bool,
        /// What decays.
        #[serde(default)]
        decays: Decays,
    },
    /// Stochastic gradient descent with momentum, without dampening.
    Sgd {
        /// 0 for none.
        momentum: f64,
        /// Strength of the decay.
        weight_decay: f64,
        /// `true`: fastai's rule, `w *= 1 − lr·wd` before the step; `false`: PyTorch's, `wd·w` is added to the gradient.
        decoupled: bool,
        /// Whether the step looks ahead: along gradient + momentum · buffer.
        #[serde(default)]
        nesterov: bool,
        /// What decays.
        #[serde(default)]
        decays: Decays,
    },
}

/// Which parameters weight decay touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decays {
    /// [`Role::Weight`] and [`Role::Embedding`], as in fastai: not biases, and not the scales and shifts of norms.
    #[default]
    Weights,
    /// Every parameter, as in PyTorch where parameters are not grouped.
    All,
}

// serde wants a function.
fn yes() -> bool {
    true
}

impl OptimizerConfig {
    /// fastai's Adam: betas 0.9 and 0.99, eps 1e-5, decoupled weight decay 0.01 of weights and embeddings.
    pub fn adam() -> Self {
        let decays = Decays::Weights;
        Self::Adam { beta1: 0.9, beta2: 0.99, eps: 1e-5, weight_decay: 0.01, decoupled: true, decays }
    }

    /// PyTorch's `Adam`, and the papers': betas 0.9 and 0.999, eps 1e-8, no weight decay; a decay given to it is added to
    /// the gradient of every parameter.
    pub fn torch_adam() -> Self {
        let decays = Decays::All;
        Self::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decoupled: false, decays }
    }

    /// PyTorch's `AdamW`: betas 0.9 and 0.999, eps 1e-8, decoupled weight decay 0.01 of every parameter.
    pub fn torch_adamw() -> Self {
        let decays = Decays::All;
        Self::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, decoupled: true, decays }
    }

    /// PyTorch's `SGD` with momentum 0.9 and no weight decay; a decay given to it is added to the gradient of every
    /// parameter.
    pub fn sgd() -> Self {
        let decays = Decays::All;
        Self::Sgd { momentum: 0.9, weight_decay: 0.0, decoupled: false, nesterov: false, decays }
    }

    /// [`OptimizerConfig::sgd`] with Nesterov's look ahead.
    pub fn nesterov() -> Self {
        let decays = Decays::All;
        Self::Sgd { momentum: 0.9, weight_decay: 0.0, decoupled: false, nesterov: true, decays }
    }

    /// The same with another strength of weight decay.
    #[must_use]
    pub fn with_weight_decay(mut self, strength: f64) -> Self {
        let (Self::Adam { weight_decay, .. } | Self::Sgd { weight_decay, .. }) = &mut self;
        *weight_decay = strength;
        self
    }
}

/// An optimiser and its averages, by parameter name.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    n_steps: u64,
    averages: BTreeMap<String, Averages>,
}

/// Adam's first and second moment, or SGD's momentum buffer alone.
#[derive(Debug)]
struct Averages {
    first: Var,
    second: Option<Var>,
    /// Where little is kept: the places of the values whose averages alone these are. All others are 0.
    places: Option<KeptPlaces>,
    /// Steps that this parameter has taken.
    n_steps: u64,
}

/// A parameter's gradient: all of it, or that of its kept values, all others being 0.
enum Gradient<'a> {
    Whole(&'a Tensor),
    Kept(&'a KeptPlaces, &'a Tensor),
}

impl Gradient<'_> {
    /// As a step with averages of the values at `places`, or of all values, takes it.
    fn for_averages(&self, places: Option<&KeptPlaces>) -> Result<Tensor, Error> {
        Ok(match self {
            Self::Kept(own, values) if places == Some(own) => (*values).clone(),
            Self::Kept(own, values) => own.scatter(values)?,
            Self::Whole(gradient) => gradient.contiguous()?,
        })
    }
}

/// Elements of a parameter whose averages are little memory (2 MiB of Adam's). Where gradients are whole, a step with averages of half
/// its values takes longer than one with all: what it works on must be brought together and put back.
const SMALL: usize = 1 << 18;

const FIRST: &str = "first";
const SECOND: &str = "second";
const STEPS: &str = "steps";

impl Optimizer {
    /// An optimiser that has taken no step.
    pub fn new(config: OptimizerConfig) -> Self {
        Self { config, n_steps: 0, averages: BTreeMap::new() }
    }

    /// Its constants.
    pub fn config(&self) -> OptimizerConfig {
        self.config
    }

    /// Steps taken since it was made or reset. Adam's bias correction counts each parameter's own: one that was thawed
    /// later, or had no gradient for a while, has taken fewer.
    pub fn n_steps(&self) -> u64 {
        self.n_steps
    }

    /// Forgets all averages and steps.
    pub fn reset(&mut self) {
        self.n_steps = 0;
        self.averages.clear();
    }

    /// Moves every trainable parameter that has a gradient. A parameter with a mask (u8, 1 = keep) has exactly 0 at its
    /// pruned positions afterwards, in its value and in its averages.
    /// # Errors
    /// If a mask or gradient does not fit its parameter or candle fails.
    pub fn step(
        &mut self,
        learning_rate: f64,
        parameters: &Parameters,
        gradients: &GradStore,
        masks: &BTreeMap<String, Tensor>,
    ) -> Result<(), Error> {
        self.step_with_momentum(learning_rate, None, parameters, gradients, masks)
    }

    /// [`Optimizer::step`] with a momentum (Adam's beta1) of this step's own in place of the configuration's. Adam corrects
    /// its bias by it, as fastai does.
    /// # Errors
    /// As `step`.
    pub fn step_with_momentum(
        &mut self,
        learning_rate: f64,
        momentum: Option<f64>,
        parameters: &Parameters,
        gradients: &GradStore,
        masks: &BTreeMap<String, Tensor>,
    ) -> Result<(), Error> {
        let of = |var: &Var| gradients.get(var).map(Gradient::Whole);
        self.move_all((learning_rate, momentum), parameters, of, masks)
    }

    /// [`Optimizer::step_with_momentum`] with what [`backward_kept`](lth_kernels::backward_kept) gives: to the same bits, in less
    /// time where little is kept.
    /// # Errors
    /// As `step`.
    pub fn step_kept(
        &mut self,
        learning_rate: f64,
        momentum: Option<f64>,
        parameters: &Parameters,
        gradients: &Gradients,
        masks: &BTreeMap<String, Tensor>,
    ) -> Result<(), Error> {
        let of = |var: &Var| match gradients.kept(var) {
            Some((places, values)) => Some(Gradient::Kept(places, values)),
            None => gradients.get(var).map(Gradient::Whole),
        };
        self.move_all((learning_rate, momentum), parameters, of, masks)
    }

    fn move_all<'a>(
        &mut self,
        (learning_rate, momentum): (f64, Option<f64>),
        parameters: &Parameters,
        gradient_of: impl Fn(&Var) -> Option<Gradient<'a>> + Send,
        masks: &BTreeMap<String, Tensor>,
    ) -> Result<(), Error> {
        self.n_steps += 1;
        let mut now = self.config;
        let (OptimizerConfig::Adam { beta1: own, .. } | OptimizerConfig::Sgd { momentum: own, .. }) = &mut now;
        *own = momentum.unwrap_or(*own);
        lth_kernels::in_pool(|| self.move_each(now, learning_rate, parameters, gradient_of, masks))
    }

    fn move_each<'a>(
        &mut self,
        config: OptimizerConfig,
        learning_rate: f64,
        parameters: &Parameters,
        gradient_of: impl Fn(&Var) -> Option<Gradient<'a>>,
        masks: &BTreeMap<String, Tensor>,
    ) -> Result<(), Error> {
        for (name, parameter) in parameters.trainable() {
            let var = parameter.var();
            let Some(gradient) = gradient_of(var) else { continue };
            let mask = masks.get(name);
            if let Some(mask) = mask {
                check_shape("mask", name, mask, var)?;
            }
            let averages = match self.averages.entry(name.to_owned()) {
                Entry::Occupied(averages) => {
                    let averages = averages.into_mut();
                    averages.follow(var, mask, &gradient)?;
                    averages
                }
                Entry::Vacant(place) => {
                    place.insert(Averages::zeros(var, few_places(var, mask, &gradient)?, self.config)?)
                }
            };
            averages.n_steps += 1;
            let gradient = gradient.for_averages(averages.places.as_ref())?;
            let strength = |weight_decay, decays| match (decays, parameter.role()) {
                (Decays::All, _) | (_, Role::Weight | Role::Embedding) => weight_decay,
                _ => 0.0,
            };
            let rule = |decoupled| if decoupled { Decay::Decoupled } else { Decay::Coupled };
            match (config, &averages.second) {
                (OptimizerConfig::Adam { beta1, beta2, eps, weight_decay, decoupled, decays }, Some(second)) => {
                    let (weight_decay, decay) = (strength(weight_decay, decays), rule(decoupled));
                    let (lr, step) = (learning_rate, averages.n_steps);
                    let step = AdamStep { lr, beta1, beta2, eps, weight_decay, decay, step };
                    match &averages.places {
                        Some(places) => adam_step_kept(var, &gradient, &averages.first, second, places, &step)?,
                        None => adam_step(var, &gradient, &averages.first, second, mask, &step)?,
                    }
                }
                (OptimizerConfig::Sgd { momentum, weight_decay, decoupled, nesterov, decays }, None) => {
                    let (weight_decay, decay) = (strength(weight_decay, decays), rule(decoupled));
                    let step = SgdStep { lr: learning_rate, momentum, weight_decay, decay, nesterov };
                    match &averages.places {
                        Some(places) => sgd_step_kept(var, &gradient, &averages.first, places, &step)?,
                        None => sgd_step(var, &gradient, &averages.first, mask, &step)?,
                    }
                }
                _ => return Err(Error::State(format!("averages of `{name}` are another optimiser's"))),
            }
        }
        Ok(())
    }

    /// Deep copies of all averages: `<parameter>/first`, `<parameter>/second`, and the steps that the parameter has taken,
    /// `<parameter>/steps` (i64, no dimension).
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let mut tensors = BTreeMap::new();
        for (name, averages) in &self.averages {
            tensors.insert(format!("{name}/{FIRST}"), averages.whole(&averages.first)?);
            if let Some(second) = &averages.second {
                tensors.insert(format!("{name}/{SECOND}"), averages.whole(second)?);
            }
            let n_steps = i64::try_from(averages.n_steps).unwrap_or(i64::MAX);
            tensors.insert(format!("{name}/{STEPS}"), Tensor::new(n_steps, &Device::Cpu)?);
        }
        Ok(tensors)
    }

    /// Takes up averages from [`Optimizer::tensors`] after `n_steps` steps, checked against the parameters.
    /// # Errors
    /// If a name or shape does not fit; the optimiser is then unchanged.
    pub fn restore(
        &mut self,
        n_steps: u64,
        tensors: &BTreeMap<String, Tensor>,
        parameters: &Parameters,
    ) -> Result<(), Error> {
        let mut averages = BTreeMap::new();
        for (key, tensor) in tensors {
            let unknown = || Error::State(format!("`{key}` is no average of an optimiser"));
            let (name, which) = key.rsplit_once('/').ok_or_else(unknown)?;
            if ![FIRST, SECOND, STEPS].contains(&which) {
                return Err(unknown());
            }
            let var = parameters.require(name)?.var();
            let entry = match averages.entry(name.to_owned()) {
                Entry::Occupied(entry) => entry.into_mut(),
                // States without counts of their own were made by parameters that moved at every step.
                Entry::Vacant(place) => place.insert(Averages { n_steps, ..Averages::zeros(var, None, self.config)? }),
            };
            if which == STEPS {
                let taken = tensor.to_dtype(DType::I64)?.to_scalar::<i64>()?;
                let fits = u64::try_from(taken).ok().filter(|taken| *taken <= n_steps);
                let reason = || Error::State(format!("`{key}` is {taken}, expected 0 to {n_steps}"));
                entry.n_steps = fits.ok_or_else(reason)?;
                continue;
            }
            check_shape("average", name, tensor, var)?;
            let target = if which == FIRST { Some(&entry.first) } else { entry.second.as_ref() };
            let target = target.ok_or_else(|| Error::State(format!("`{key}` belongs to another optimiser")))?;
            target.set(&tensor.to_dtype(var.dtype())?.to_device(var.device())?.contiguous()?.copy()?)?;
        }
        self.n_steps = n_steps;
        self.averages = averages;
        Ok(())
    }
}

impl Averages {
    fn zeros(var: &Var, places: Option<KeptPlaces>, config: OptimizerConfig) -> Result<Self, Error> {
        let shape = places.as_ref().map_or(var.shape().clone(), |places| places.n_kept().into());
        let zeros = || Var::zeros(&shape, var.dtype(), var.device());
        let second = match config {
            OptimizerConfig::Adam { .. } => Some(zeros()?),
            OptimizerConfig::Sgd { .. } => None,
        };
        Ok(Self { first: zeros()?, second, places, n_steps: 0 })
    }

    /// Makes them those of what `mask` keeps, where that is little. What is kept again begins at 0: so it would if all
    /// averages were there.
    fn follow(&mut self, var: &Var, mask: Option<&Tensor>, gradient: &Gradient<'_>) -> Result<(), Error> {
        if let (Some(places), Some(mask)) = (&self.places, mask)
            && places.are_of(mask)?
        {
            return Ok(());
        }
        let wanted = few_places(var, mask, gradient)?;
        if wanted.is_none() && self.places.is_none() {
            return Ok(());
        }
        let arranged = |average: &Var| {
            let arranged = match (&self.places, &wanted) {
                (Some(places), Some(wanted)) => places.moved(average, wanted)?,
                (None, Some(wanted)) => wanted.gather(average)?,
                (_, None) => self.whole(average)?,
            };
            Ok::<_, Error>(Var::from_tensor(&arranged)?)
        };
        (self.first, self.second) = (arranged(&self.first)?, self.second.as_ref().map(arranged).transpose()?);
        self.places = wanted;
        Ok(())
    }

    /// A deep copy of one of them, of the parameter's shape.
    fn whole(&self, average: &Var) -> Result<Tensor, Error> {
        Ok(match &self.places {
            Some(places) => places.scatter(average)?,
            None => average.as_detached_tensor().copy()?,
        })
    }
}

/// The places that `mask` keeps, if they are half or less, and the averages of their values alone can be kept. Beyond half there is
/// little to gain. Of a small parameter whose gradient is whole a quarter or less: a step over all its values is sooner done.
fn few_places(var: &Var, mask: Option<&Tensor>, gradient: &Gradient<'_>) -> Result<Option<KeptPlaces>, Error> {
    let is_on_cpu = |tensor: &Tensor| tensor.device().is_cpu();
    match mask {
        Some(mask) if is_on_cpu(mask) && is_on_cpu(var) && matches!(var.dtype(), DType::F32 | DType::F64) => {
            let share = match gradient {
                Gradient::Whole(_) if var.elem_count() <= SMALL => 4,
                _ => 2,
            };
            let places = KeptPlaces::new(mask, var.elem_count() / share)?;
            // A tensor of no elements is not made: what is wholly pruned keeps whole averages.
            Ok(places.filter(|places| places.n_kept() > 0))
        }
        _ => Ok(None),
    }
}
