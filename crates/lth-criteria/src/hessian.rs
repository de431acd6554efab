//! Products with the Hessian by central differences of gradients.
//!
//! candle's second derivatives are silently wrong unless an environment variable is set, and cannot pass through custom
//! operators; two more gradients always work.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};

use crate::collect::{Restore, gradients};
use crate::{Error, Input};

/// The Hessian times `direction`, by name: (g(w + εd) − g(w − εd)) / 2ε.
///
/// `gradient` gives the gradients at the weights it is handed, by the same names. ε = h · (1 + ‖w‖) / ‖d‖ with
/// h = ∛machine precision of the first weight's type (5·10⁻³ for f32, 6·10⁻⁶ for f64), where truncation and rounding are
/// about equal; the norms are over all tensors. The error is then about h² relative for a smooth loss: f64 gives ten
/// digits, f32 four.
///
/// # Errors
/// if a direction or a gradient is missing or has another shape, `direction` is not finite, or `gradient` fails.
pub fn hessian_vector_product(
    weights: &BTreeMap<String, Tensor>,
    direction: &BTreeMap<String, Tensor>,
    mut gradient: impl FnMut(&BTreeMap<String, Tensor>) -> candle_core::Result<BTreeMap<String, Tensor>>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    for (name, weight) in weights {
        same_shape(name, weight, of(direction, "the direction", name)?, Input::Weight)?;
    }
    let norm = norm(weights.keys().map(|name| &direction[name]))?;
    if !norm.is_finite() {
        let (parameter, got) = ("norm of the direction", norm.to_string());
        return Err(Error::Parameter { parameter, got, expected: "a finite number" });
    }
    if norm == 0.0 {
        return weights.iter().map(|(name, weight)| Ok((name.clone(), weight.zeros_like()?))).collect();
    }
    let step = relative_step(weights) * (1.0 + self::norm(weights.values())?) / norm;
    let mut at = |step: f64| -> Result<BTreeMap<String, Tensor>, Error> {
        let mut shifted = BTreeMap::new();
        for (name, weight) in weights {
            let weight = weight.detach();
            let shift = (direction[name].detach().to_dtype(weight.dtype())? * step)?;
            shifted.insert(name.clone(), (weight + shift)?);
        }
        Ok(gradient(&shifted)?)
    };
    let (plus, minus) = (at(step)?, at(-step)?);
    let mut products = BTreeMap::new();
    for (name, weight) in weights {
        let (plus, minus) = (of(&plus, "the gradients", name)?, of(&minus, "the gradients", name)?);
        same_shape(name, weight, plus, Input::Gradient)?;
        same_shape(name, weight, minus, Input::Gradient)?;
        products.insert(name.clone(), ((plus.detach() - minus.detach())? / (2.0 * step))?);
    }
    Ok(products)
}

/// The Hessian of a loss times its gradient, by name: what [`Grasp`](crate::Grasp) needs.
///
/// `variables`: the weights over which gradient and Hessian are taken. `loss` runs the network on fixed data in fixed
/// order (the difference of two noisy gradients is noise: no dropout). Three forward and backward passes; the variables
/// are as before when this returns, whatever `loss` returns. Running statistics of BatchNorm that are not among them are
/// the caller's to keep.
///
/// # Errors
/// if `loss` fails or the gradient is not finite.
pub fn hessian_gradient_product(
    variables: &BTreeMap<String, Var>,
    mut loss: impl FnMut() -> candle_core::Result<Tensor>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let direction = gradients(&loss()?, variables)?;
    let restore = Restore::new(variables)?;
    let mut weights = BTreeMap::new();
    for name in direction.keys() {
        weights.insert(name.clone(), restore.value(name)?.clone());
    }
    let product = hessian_vector_product(&weights, &direction, |shifted| {
        for (name, value) in shifted {
            variables[name].set(value)?;
        }
        gradients(&loss()?, variables).map_err(candle_core::Error::wrap)
    })?;
    restore.finish()?;
    Ok(product)
}

fn relative_step(weights: &BTreeMap<String, Tensor>) -> f64 {
    let double = weights.values().all(|weight| weight.dtype() == DType::F64);
    if double { f64::EPSILON.cbrt() } else { f64::from(f32::EPSILON).cbrt() }
}

fn norm<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Result<f64, Error> {
    let mut squares = 0.0;
    for tensor in tensors {
        squares += tensor.detach().to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
    }
    Ok(squares.sqrt())
}

fn of<'a>(tensors: &'a BTreeMap<String, Tensor>, what: &'static str, name: &str) -> Result<&'a Tensor, Error> {
    tensors.get(name).ok_or_else(|| Error::UnknownWeight { what, weight: name.to_owned() })
}

fn same_shape(name: &str, weight: &Tensor, tensor: &Tensor, input: Input) -> Result<(), Error> {
    if weight.dims() == tensor.dims() {
        return Ok(());
    }
    let (got, expected) = (tensor.dims().to_vec(), format!("{:?}", weight.dims()));
    Err(Error::Shape { weight: name.to_owned(), input, got, expected })
}
