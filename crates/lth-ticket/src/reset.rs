//! Setting the kept weights back to earlier values.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_train::{Parameter, Parameters, Role};
use serde::{Deserialize, Serialize};

use crate::Error;

/// To when kept weights go back, and when they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewind {
    /// The start of this epoch of the fit; 0 is the start of the fit ("reset").
    pub epoch: usize,
    /// Which tensors go back, and at which moment.
    pub rule: ResetRule,
    /// Whether they go back once more after the last epoch, so that the fit leaves the ticket and not the trained network.
    pub reset_end: bool,
}

impl Rewind {
    /// Back to the start of `epoch` by the rule of the 2021 notebook, without a reset at the end.
    pub fn to_epoch(epoch: usize) -> Self {
        Self { epoch, rule: ResetRule::Fasterai2021, reset_end: false }
    }
}

/// Which tensors go back. None of them touches the optimiser's averages, except that pruned positions are 0 there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetRule {
    /// Weights of convolutions and linear layers only, before the batch for which the sparsity changed. Biases,
    /// BatchNorm and its statistics keep what they learnt.
    /// Source: fasterai of February 2021, `SparsifyCallback._reset_weights`.
    #[default]
    Fasterai2021,
    /// Weights and biases, after the step for which the sparsity changed; BatchNorm starts anew (scale 1, shift 0,
    /// running mean 0, running variance 1).
    /// Source: fasterai since 2022.
    Fasterai2022,
    /// Everything, BatchNorm and its statistics too, before the batch for which the sparsity changed.
    /// Source: Frankle & Carbin 2019, §2; Frankle et al. 2020, §3: the subnetwork at its state of step k.
    All,
}

impl ResetRule {
    /// Whether the rule acts after the step rather than before the batch.
    pub(crate) fn is_after_step(self) -> bool {
        self == Self::Fasterai2022
    }

    fn takes_back(self, parameter: &Parameter) -> bool {
        match self {
            Self::Fasterai2021 => parameter.role() == Role::Weight,
            Self::Fasterai2022 => matches!(parameter.role(), Role::Weight | Role::Bias),
            Self::All => true,
        }
    }

    /// A deep copy of the values that this rule will need.
    pub(crate) fn snapshot(self, parameters: &Parameters) -> Result<BTreeMap<String, Tensor>, Error> {
        Ok(parameters.snapshot(|_, parameter| self.takes_back(parameter))?)
    }

    /// Sets the parameters back and masks them.
    pub(crate) fn reset(
        self,
        parameters: &Parameters,
        snapshot: &BTreeMap<String, Tensor>,
        masks: &BTreeMap<String, Tensor>,
    ) -> Result<(), Error> {
        parameters.restore(snapshot)?;
        if self == Self::Fasterai2022 {
            for (name, parameter) in parameters.iter() {
                let var = parameter.var();
                match (parameter.role(), name.rsplit('.').next()) {
                    (Role::Norm, Some("weight")) | (Role::Buffer, Some("running_var")) => var.set(&var.ones_like()?)?,
                    (Role::Norm, _) | (Role::Buffer, Some("running_mean")) => var.set(&var.zeros_like()?)?,
                    _ => {}
                }
            }
        }
        Ok(parameters.apply_masks(masks)?)
    }
}
