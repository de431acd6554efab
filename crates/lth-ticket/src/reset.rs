//! Setting the kept weights back to earlier values.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_train::{Parameter, Parameters, Role};
use serde::{Deserialize, Serialize};

use crate::Error;

/// To when kept weights go back, and when they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewind {
    /// The start of this epoch of the training; 0 is the start of the training ("reset").
    pub epoch: usize,
    /// Which tensors go back, and at which moment.
    pub rule: ResetRule,
    /// Whether they go back once more after the last epoch, so that the fit leaves the ticket and not the trained network.
    pub reset_end: bool,
    /// Where they go back: the whole network unless several hooks prune it.
    #[serde(default, skip_serializing_if = "Extent::is_network")]
    pub extent: Extent,
}

impl Rewind {
    /// Everything back to the start of `epoch`, without a reset at the end.
    pub fn to_epoch(epoch: usize) -> Self {
        Self { epoch, rule: ResetRule::All, reset_end: false, extent: Extent::Network }
    }

    /// Back to the start of `epoch` by the rule of the 2021 notebook, without a reset at the end.
    pub fn notebook(epoch: usize) -> Self {
        Self { rule: ResetRule::Fasterai2021, ..Self::to_epoch(epoch) }
    }
}

/// The part of a network that goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// All that the rule names, in layers that are not pruned as well.
    #[default]
    Network,
    /// Of that, the layers whose weights the hook prunes: `fc1.bias` goes with `fc1.weight`. What several hooks of one fit
    /// need, so that none sets back what another prunes.
    PrunedLayers,
}

impl Extent {
    // serde hands a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_network(&self) -> bool {
        *self == Self::Network
    }
}

/// Which tensors go back. None of them touches the optimiser's averages, except that pruned positions are 0 there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetRule {
    /// Weights of convolutions and linear layers only, before the batch for which the sparsity changed. Biases,
    /// BatchNorm and its statistics keep what they learnt.
    /// Source: fasterai of February 2021, `SparsifyCallback._reset_weights`.
    Fasterai2021,
    /// Weights, biases, and scales and shifts of norms without running statistics, after the step for which the sparsity
    /// changed; norms with running statistics (BatchNorm) start anew (scale 1, shift 0, running mean 0, running
    /// variance 1).
    /// Source: fasterai since 2022.
    Fasterai2022,
    /// Everything, BatchNorm and its statistics too, before the batch for which the sparsity changed.
    /// Source: Frankle & Carbin 2019, §2; Frankle et al. 2020, §3: the subnetwork at its state of step k.
    #[default]
    All,
}

impl ResetRule {
    /// Whether the rule acts after the step rather than before the batch.
    pub(crate) fn is_after_step(self) -> bool {
        self == Self::Fasterai2022
    }

    fn takes_back(self, parameters: &Parameters, name: &str, parameter: &Parameter) -> bool {
        match (self, parameter.role()) {
            (Self::All, _) | (_, Role::Weight) => true,
            (Self::Fasterai2021, _) | (_, Role::Buffer) => false,
            (Self::Fasterai2022, Role::Bias | Role::Embedding) => true,
            (Self::Fasterai2022, Role::Norm) => !has_running_statistics(parameters, name),
        }
    }

    /// A deep copy of the values that this rule will need, of those parameters for which `owns` holds.
    pub(crate) fn snapshot(
        self,
        parameters: &Parameters,
        owns: &dyn Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, Tensor>, Error> {
        Ok(parameters.snapshot(|name, parameter| owns(name) && self.takes_back(parameters, name, parameter))?)
    }

    /// Sets the parameters back and masks them.
    pub(crate) fn reset(
        self,
        parameters: &Parameters,
        owns: &dyn Fn(&str) -> bool,
        snapshot: &BTreeMap<String, Tensor>,
        masks: &BTreeMap<String, Tensor>,
    ) -> Result<(), Error> {
        parameters.restore(snapshot)?;
        if self == Self::Fasterai2022 {
            let starts_anew = |(name, parameter): &(&str, &Parameter)| {
                matches!(parameter.role(), Role::Norm | Role::Buffer)
                    && owns(name)
                    && has_running_statistics(parameters, name)
            };
            for (name, parameter) in parameters.iter().filter(starts_anew) {
                let var = parameter.var();
                match (parameter.role(), leaf(name)) {
                    (Role::Norm, "weight") | (Role::Buffer, "running_var") => var.set(&var.ones_like()?)?,
                    (Role::Norm, _) | (Role::Buffer, "running_mean" | "num_batches_tracked") => {
                        var.set(&var.zeros_like()?)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(parameters.apply_masks(masks)?)
    }
}

/// The name of what a parameter belongs to: `layer1.bn` of `layer1.bn.weight`.
pub(crate) fn layer(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(layer, _)| layer)
}

fn leaf(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, leaf)| leaf)
}

/// Whether the parameter's norm is a batch norm rather than one over the features, which has none.
fn has_running_statistics(parameters: &Parameters, name: &str) -> bool {
    let sibling = match layer(name) {
        "" => "running_mean".to_owned(),
        layer => format!("{layer}.running_mean"),
    };
    parameters.get(&sibling).is_some()
}
