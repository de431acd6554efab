//! A network's tensors under sorted names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor, Var};
use lth_kernels::optim::apply_mask;

use crate::double::in_f64;
use crate::{Error, Pass};

/// What a parameter is for; weight decay, freezing and pruning go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A convolution's or linear layer's weight: decayed, and the only role that is pruned unless asked for by name.
    Weight,
    /// A table that is looked up, such as of words or positions: decayed. Its rows are no layer's inputs, so that scores of
    /// weights do not compare with theirs.
    Embedding,
    /// A bias of such a layer: not decayed.
    Bias,
    /// Scale or shift of a normalisation layer: not decayed, and kept trainable when a body is frozen.
    Norm,
    /// State that no gradient reaches, such as running statistics: never trained, decayed or pruned.
    Buffer,
}

/// One named tensor of a network. Clones share the same values, so that a layer and [`Parameters`] see one tensor.
#[derive(Clone, Debug)]
pub struct Parameter {
    var: Var,
    role: Role,
    trainable: Arc<AtomicBool>,
}

impl Parameter {
    /// A parameter around `var`; trainable unless it is a [`Role::Buffer`].
    pub fn new(var: Var, role: Role) -> Self {
        Self { var, role, trainable: Arc::new(AtomicBool::new(role != Role::Buffer)) }
    }

    /// The variable itself, to set or to look up its gradient.
    pub fn var(&self) -> &Var {
        &self.var
    }

    /// What the parameter is for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether the optimiser moves it.
    pub fn is_trainable(&self) -> bool {
        self.trainable.load(Ordering::Relaxed)
    }

    /// Freezes or thaws it, for every clone. A buffer stays frozen.
    pub fn set_trainable(&self, trainable: bool) {
        self.trainable.store(trainable && self.role != Role::Buffer, Ordering::Relaxed);
    }

    /// The values as they enter a forward pass: detached if the parameter is frozen or the pass keeps no graph, so that
    /// no gradient is computed for them.
    pub fn tensor(&self, pass: &Pass) -> Tensor {
        if pass.track && self.is_trainable() { self.var.as_tensor().clone() } else { self.var.as_detached_tensor() }
    }
}

/// A network's parameters in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct Parameters(BTreeMap<String, Parameter>);

impl Parameters {
    /// No parameters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one.
    pub fn insert(&mut self, name: impl Into<String>, parameter: Parameter) {
        self.0.insert(name.into(), parameter);
    }

    /// The parameter called `name`.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.0.get(name)
    }

    /// The parameter called `name`.
    /// # Errors
    /// [`Error::NoParameter`] if there is none.
    pub fn require(&self, name: &str) -> Result<&Parameter, Error> {
        self.get(name).ok_or_else(|| Error::no_parameter(name, self.names()))
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All parameters, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.0.iter().map(|(name, parameter)| (name.as_str(), parameter))
    }

    /// Those that the optimiser moves.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.iter().filter(|(_, parameter)| parameter.is_trainable())
    }

    /// Those that can be pruned: [`Role::Weight`] with one of the given ranks (4 for convolutions, 2 for linear layers).
    pub fn prunable<'a>(&'a self, ranks: &'a [usize]) -> impl Iterator<Item = (&'a str, &'a Parameter)> {
        self.iter().filter(|(_, parameter)| parameter.role() == Role::Weight && ranks.contains(&parameter.var().rank()))
    }

    /// Number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of values that the optimiser moves.
    pub fn n_trainable(&self) -> usize {
        self.trainable().map(|(_, parameter)| parameter.var().elem_count()).sum()
    }

    /// Number of values in all, buffers included.
    pub fn n_values(&self) -> usize {
        self.iter().map(|(_, parameter)| parameter.var().elem_count()).sum()
    }

    /// A deep copy of every parameter for which `keep(name, parameter)` holds.
    ///
    /// Candle's `Tensor::clone` and `detach` share storage with the variable and follow it; these copies do not.
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn snapshot(
        &self,
        keep: impl Fn(&str, &Parameter) -> bool,
    ) -> Result<BTreeMap<String, Tensor>, candle_core::Error> {
        self.iter()
            .filter(|(name, parameter)| keep(name, parameter))
            .map(|(name, parameter)| Ok((name.to_owned(), parameter.var().as_detached_tensor().copy()?)))
            .collect()
    }

    /// Sets every named parameter to the given values; parameters that are not named keep theirs. All names and shapes
    /// are checked first, so that an error leaves the network as it was.
    /// # Errors
    /// If a name is unknown, a shape differs, or candle fails.
    pub fn restore(&self, values: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        for (name, value) in values {
            let var = self.require(name)?.var();
            check_shape("value", name, value, var)?;
        }
        for (name, value) in values {
            let var = self.require(name)?.var();
            // `copy`: a value that shares the variable's storage could not be set, and must not follow it afterwards.
            var.set(&value.to_dtype(var.dtype())?.to_device(var.device())?.contiguous()?.copy()?)?;
        }
        Ok(())
    }

    /// Whether every mask fits its parameter; nothing is changed.
    /// # Errors
    /// If a mask's parameter is unknown, its shape differs, or it is not u8 (1 = keep).
    pub fn check_masks(&self, masks: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        for (name, mask) in masks {
            check_shape("mask", name, mask, self.require(name)?.var())?;
            if mask.dtype() != DType::U8 {
                return Err(Error::MaskType { name: name.clone(), got: mask.dtype() });
            }
        }
        Ok(())
    }

    /// Multiplies each named parameter by its mask (u8, 1 = keep), so that pruned weights are exactly 0. All are checked
    /// before any is changed.
    /// # Errors
    /// If a mask's parameter is unknown, a shape or dtype differs, or candle fails.
    pub fn apply_masks(&self, masks: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        self.check_masks(masks)?;
        for (name, mask) in masks {
            let var = self.require(name)?.var();
            apply_mask(var, &mask.to_device(var.device())?)?;
        }
        Ok(())
    }
}

/// The first parameter, in the order of names, with a value that is not finite.
pub(crate) fn first_not_finite(parameters: &Parameters) -> Result<Option<String>, Error> {
    for (name, parameter) in parameters.iter() {
        // In f64 the sum of what is finite stays so, but for f64 networks near its end.
        let sum = in_f64(&parameter.var().as_detached_tensor())?.abs()?.sum_all()?.to_scalar::<f64>()?;
        if !sum.is_finite() {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

pub(crate) fn check_shape(what: &'static str, name: &str, got: &Tensor, expected: &Tensor) -> Result<(), Error> {
    if got.dims() == expected.dims() {
        return Ok(());
    }
    Err(Error::Shape { what, name: name.to_owned(), got: got.dims().to_vec(), expected: expected.dims().to_vec() })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn one(values: &[f32]) -> Parameters {
        let mut parameters = Parameters::new();
        let var = Var::from_slice(values, values.len(), &Device::Cpu).expect("small tensor");
        parameters.insert("w", Parameter::new(var, Role::Weight));
        parameters
    }

    fn values(parameters: &Parameters) -> Vec<f32> {
        parameters.get("w").and_then(|w| w.var().to_vec1().ok()).expect("a vector")
    }

    #[test]
    fn a_snapshot_does_not_follow_the_variable() -> Result<(), Error> {
        let parameters = one(&[1., 2.]);
        let snapshot = parameters.snapshot(|_, _| true)?;
        parameters.require("w")?.var().set(&Tensor::new(&[5f32, 6.], &Device::Cpu)?)?;
        assert_eq!(values(&parameters), [5., 6.]);
        parameters.restore(&snapshot)?;
        assert_eq!(values(&parameters), [1., 2.]);
        // Nor do the restored values tie the snapshot to the variable.
        parameters.require("w")?.var().set(&Tensor::new(&[7f32, 8.], &Device::Cpu)?)?;
        assert_eq!(snapshot["w"].to_vec1::<f32>()?, [1., 2.]);
        Ok(())
    }

    #[test]
    fn a_wrong_name_or_shape_changes_nothing() -> Result<(), Error> {
        let parameters = one(&[1., 2.]);
        let good = Tensor::new(&[3f32, 4.], &Device::Cpu)?;
        let unknown = BTreeMap::from([("w".to_owned(), good.clone()), ("x".to_owned(), good)]);
        let message = parameters.restore(&unknown).expect_err("x is unknown").to_string();
        assert_eq!(message, "there is no parameter `x`; there are 1 others: w");
        let long = BTreeMap::from([("w".to_owned(), Tensor::new(&[0f32; 3], &Device::Cpu)?)]);
        let message = parameters.restore(&long).expect_err("shape differs").to_string();
        assert_eq!(message, "value for `w` has shape [3], expected [2]");
        assert_eq!(values(&parameters), [1., 2.]);
        Ok(())
    }

    #[test]
    fn masks_leave_positive_zeros_even_in_place_of_nan() -> Result<(), Error> {
        let parameters = one(&[f32::NAN, -2., 3.]);
        let mask = Tensor::new(&[0u8, 0, 1], &Device::Cpu)?;
        parameters.apply_masks(&BTreeMap::from([("w".to_owned(), mask)]))?;
        assert_eq!(values(&parameters).iter().map(|v| v.to_bits()).collect::<Vec<_>>(), [0, 0, 3f32.to_bits()]);
        Ok(())
    }

    #[test]
    fn frozen_parameters_enter_a_pass_detached() {
        let parameters = one(&[1.]);
        let w = parameters.get("w").expect("inserted above");
        assert!(w.tensor(&Pass::train(0, 0)).track_op());
        assert!(!w.tensor(&Pass::eval()).track_op());
        w.clone().set_trainable(false);
        assert!(!w.tensor(&Pass::train(0, 0)).track_op());
    }
}
