//! The network, its optimiser and its masks, from fit to fit.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;

use crate::hook::put_in_force;
use crate::state::{Counters, Position};
use crate::{Error, HookState, Network, Optimizer, State};

/// A network, its optimiser and the masks in force, through one or several fits.
#[derive(Debug)]
pub struct Trainer<N> {
    pub(crate) network: N,
    pub(crate) optimizer: Optimizer,
    pub(crate) masks: BTreeMap<String, Tensor>,
    pub(crate) seed: u64,
    pub(crate) position: Option<Position>,
    pub(crate) hook_states: BTreeMap<String, HookState>,
    /// Whether position and states came by [`Trainer::restore`], so that every hook of the fit is among them.
    pub(crate) is_restored: bool,
    pub(crate) may_lack_gradient: BTreeSet<String>,
    pub(crate) may_be_unseeded: bool,
}

impl<N: Network> Trainer<N> {
    /// A trainer that has taken no step.
    pub fn new(network: N, optimizer: Optimizer, seed: u64) -> Self {
        Self {
            network,
            optimizer,
            masks: BTreeMap::new(),
            seed,
            position: None,
            hook_states: BTreeMap::new(),
            is_restored: false,
            may_lack_gradient: BTreeSet::new(),
            may_be_unseeded: false,
        }
    }

    /// Names trainable parameters that may have no gradient, or one of zeros, in a fit's first step. All others must have
    /// one: without it they would never move, and nobody would be told.
    pub fn allow_no_gradient(&mut self, names: impl IntoIterator<Item = impl Into<String>>) {
        self.may_lack_gradient = names.into_iter().map(Into::into).collect();
    }

    /// Accepts a network whose passes draw noise of their own, such as candle's dropout. Nothing of such a fit comes out
    /// the same again: not its result for a seed, and not what a resumed fit ends with.
    pub fn allow_unseeded(&mut self) {
        self.may_be_unseeded = true;
    }

    /// The network.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// Gives the network back.
    pub fn into_network(self) -> N {
        self.network
    }

    /// The optimiser.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The optimiser, to reset it between fits.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// The masks in force.
    pub fn masks(&self) -> &BTreeMap<String, Tensor> {
        &self.masks
    }

    /// Replaces the masks and zeroes the pruned weights; an empty map makes the network dense (zeros stay zeros until
    /// they are trained).
    /// # Errors
    /// If a mask does not fit its parameter; the old masks then stay in force.
    pub fn set_masks(&mut self, masks: BTreeMap<String, Tensor>) -> Result<(), Error> {
        self.masks = put_in_force(&mut self.network, masks)?;
        Ok(())
    }

    /// Forgets a fit that was interrupted or out of time, so that the next begins at its own start.
    pub fn abandon_fit(&mut self) {
        self.position = None;
        self.hook_states.clear();
        self.is_restored = false;
    }

    /// All that a later run needs to go on from here: between two fits, or where a fit was interrupted or out of time. For
    /// states inside a fit see [`FitConfig::checkpoint`](crate::FitConfig::checkpoint).
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn state(&self) -> Result<State, Error> {
        let masks = self.masks.iter().map(|(name, mask)| Ok((name.clone(), mask.copy()?)));
        Ok(State {
            parameters: self.network.parameters().snapshot(|_, _| true)?,
            masks: masks.collect::<Result<_, candle_core::Error>>()?,
            optimizer: self.optimizer.tensors()?,
            hooks: self.hook_states.clone(),
            counters: Counters {
                seed: self.seed,
                optimizer: self.optimizer.config(),
                optimizer_steps: self.optimizer.n_steps(),
                position: self.position.clone(),
            },
        })
    }

    /// Takes up a [`State`]. If it is from inside a fit, the next [`Trainer::fit`] goes on with the batch that was next
    /// (give it the same configuration, data and hooks) and ends with the same bits as if it had not been interrupted. A
    /// fit over another span, with another cadence of validation, another clipping, other frozen parameters or other hooks
    /// is refused there.
    /// # Errors
    /// If parameters or averages do not fit this network and optimiser.
    pub fn restore(&mut self, state: &State) -> Result<(), Error> {
        let counters = &state.counters;
        if counters.optimizer != self.optimizer.config() {
            let (got, expected) = (counters.optimizer, self.optimizer.config());
            return Err(Error::State(format!("its optimiser is {got:?}, this trainer's is {expected:?}")));
        }
        if let Some(name) = self.network.parameters().names().find(|name| !state.parameters.contains_key(*name)) {
            return Err(Error::State(format!("it lacks parameter `{name}`")));
        }
        self.network.parameters().restore(&state.parameters)?;
        self.optimizer.restore(counters.optimizer_steps, &state.optimizer, self.network.parameters())?;
        self.set_masks(state.masks.clone())?;
        self.seed = counters.seed;
        self.position.clone_from(&counters.position);
        self.hook_states.clone_from(&state.hooks);
        self.is_restored = true;
        Ok(())
    }
}
