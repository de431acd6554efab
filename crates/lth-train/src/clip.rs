//! Limits on gradients.

use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use serde::{Deserialize, Serialize};

use crate::double::in_f64;
use crate::{Error, Parameters};

/// A limit on the gradients of all trainable parameters, taken after the hooks have seen them and before the step.
///
/// Gradients of pruned weights count as 0, whether the network computed them or not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// All gradients together are scaled so that their Euclidean norm is at most this.
    /// Source: Pascanu et al. 2013, §3.2; the factor is PyTorch's `clip_grad_norm_`: norm / (length + 1e-6), at most 1.
    Norm(f64),
    /// Each value is brought into [−this, this].
    Value(f64),
}

impl Clip {
    /// # Errors
    /// [`Error::Setting`] if the limit is not a positive number.
    pub(crate) fn check(self) -> Result<(), Error> {
        let (Self::Norm(limit) | Self::Value(limit)) = self;
        if limit > 0.0 && limit.is_finite() {
            return Ok(());
        }
        let (got, expected) = (limit.to_string(), "a finite number above 0".to_owned());
        Err(Error::Setting { what: "limit of gradients", got, expected })
    }

    /// Limits the gradients in place. The name comes back of the first parameter whose gradient is not finite; nothing is
    /// changed then.
    pub(crate) fn apply(
        self,
        parameters: &Parameters,
        gradients: &mut GradStore,
        masks: &BTreeMap<String, Tensor>,
    ) -> Result<Option<String>, Error> {
        let mut all = Vec::new();
        let mut squares = 0.0;
        for (name, parameter) in parameters.trainable() {
            let Some(gradient) = gradients.get(parameter.var()) else { continue };
            let gradient = match masks.get(name) {
                // Selected, not multiplied: 0 · ∞ is NaN.
                Some(mask) => mask.where_cond(gradient, &gradient.zeros_like()?)?,
                None => gradient.clone(),
            };
            // In f64, where neither squares overflow nor the order of a sum shows.
            let square = in_f64(&gradient)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
            if !square.is_finite() {
                return Ok(Some(name.to_owned()));
            }
            squares += square;
            all.push((parameter.var(), gradient));
        }
        match self {
            Self::Norm(limit) => {
                let factor = limit / (squares.sqrt() + 1e-6);
                if factor < 1.0 {
                    for (var, gradient) in all {
                        gradients.insert(var, (gradient * factor)?);
                    }
                }
            }
            Self::Value(limit) => {
                for (var, gradient) in all {
                    gradients.insert(var, gradient.clamp(-limit, limit)?);
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var, safetensors};

    use super::*;
    use crate::{Parameter, Role};

    /// Two parameters whose gradients are the golden one and twice it.
    fn pair(gradient: &Tensor) -> Result<(Parameters, GradStore), Error> {
        let mut parameters = Parameters::new();
        let (a, b) = (Var::from_tensor(gradient)?, Var::from_tensor(gradient)?);
        let loss = ((a.as_tensor() * gradient)? + (b.as_tensor() * (gradient * 2.0)?)?)?.sum_all()?;
        parameters.insert("a", Parameter::new(a, Role::Weight));
        parameters.insert("b", Parameter::new(b, Role::Bias));
        Ok((parameters, loss.backward()?))
    }

    #[test]
    fn the_norm_over_all_parameters_is_clipped_as_in_pytorch() -> Result<(), Error> {
        let golden =
            |name: &str| safetensors::load(format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR")), &Device::Cpu);
        let (gradients, expected) = (golden("optimizers.safetensors")?, golden("torch.safetensors")?);
        for i in 0..5 {
            let (parameters, mut store) = pair(&gradients["grads"].get(i)?)?;
            assert_eq!(Clip::Norm(1.5).apply(&parameters, &mut store, &BTreeMap::new())?, None);
            let clipped = store.get(parameters.require("a")?.var()).expect("a gradient");
            let error = (clipped - expected["clip_norm_1.5"].get(i)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(error < 1e-6, "step {i}: off by {error}");
        }
        Ok(())
    }

    #[test]
    fn gradients_of_pruned_weights_do_not_count() -> Result<(), Error> {
        let gradient = Tensor::new(&[3f32, f32::INFINITY, 4.0], &Device::Cpu)?;
        let mask = Tensor::new(&[1u8, 0, 1], &Device::Cpu)?;
        let masks = BTreeMap::from([("a".to_owned(), mask.clone()), ("b".to_owned(), mask)]);
        let var = Var::from_tensor(&gradient.ones_like()?)?;
        let mut parameters = Parameters::new();
        let mut store = var.sum_all()?.backward()?;
        store.insert(&var, gradient);
        parameters.insert("a", Parameter::new(var.clone(), Role::Weight));
        assert_eq!(Clip::Norm(1.0).apply(&parameters, &mut store, &BTreeMap::new())?, Some("a".to_owned()));
        assert_eq!(Clip::Norm(1.0).apply(&parameters, &mut store, &masks)?, None);
        let clipped = store.get(&var).expect("a gradient").to_vec1::<f32>()?;
        for (got, expected) in clipped.into_iter().zip([0.6, 0.0, 0.8]) {
            assert!((got - expected).abs() < 1e-6, "{got}");
        }
        Ok(())
    }
}
