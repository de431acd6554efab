//! Products with the Hessian by central differences of gradients.
//!
//! candle's second derivatives are silently wrong unless an environment variable is set, and cannot pass through custom
//! operators; more gradients always work.
//!
//! The step is as short as f64 allows, not where truncation and rounding are about equal: a network with ReLU or max
//! pooling has a kink wherever a unit is at 0, and a difference across one counts its jump divided by the step. What is
//! wrong by that doubles when the step is halved, so that two lengths tell it.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};

use crate::collect::{Restore, gradients};
use crate::{Error, Input};

/// The step, in units of 1 + the norm of the weights.
const STEP: f64 = 1e-9;

/// How far the products by two steps may be apart, in units of their norm.
const AGREEMENT: f64 = 1e-3;

/// The Hessian times `direction`, by name, f64: (g(w + εd) − g(w − εd)) / 2ε.
///
/// `weights`: of any floating-point type, widened to f64. `gradient` gives the gradients in f64 at the weights it is
/// handed, by the same names. ε = 10⁻⁹ · (1 + ‖w‖) / ‖d‖, the norms over all tensors; the product is compared with that
/// of half the step, which makes four gradients. The error of what is returned is then rounding alone, about 10⁻⁷ of the
/// product's norm.
///
/// # Errors
/// If a direction or a gradient is missing or has another shape, `direction` is not finite, a gradient is not f64, the
/// products by the two steps differ by more than a thousandth of their norm, or `gradient` fails.
pub fn hessian_vector_product(
    weights: &BTreeMap<String, Tensor>,
    direction: &BTreeMap<String, Tensor>,
    mut gradient: impl FnMut(&BTreeMap<String, Tensor>) -> candle_core::Result<BTreeMap<String, Tensor>>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let mut wide = BTreeMap::new();
    for (name, weight) in weights {
        let along = of(direction, "the direction", name)?;
        same_shape(name, weight, along, Input::Weight)?;
        wide.insert(name.as_str(), (widened(weight)?, widened(along)?));
    }
    let norm_along = norm(wide.values().map(|(_, along)| along))?;
    if !norm_along.is_finite() {
        let (parameter, got) = ("norm of the direction", norm_along.to_string());
        return Err(Error::Parameter { parameter, got, expected: "a finite number" });
    }
    if norm_along == 0.0 {
        return wide.iter().map(|(name, (weight, _))| Ok(((*name).to_owned(), weight.zeros_like()?))).collect();
    }
    let mut at = |step: f64| -> Result<BTreeMap<String, Tensor>, Error> {
        let mut shifted = BTreeMap::new();
        for (name, (weight, along)) in &wide {
            shifted.insert((*name).to_owned(), (weight + (along * step)?)?);
        }
        Ok(gradient(&shifted)?)
    };
    let mut product = |step: f64| -> Result<BTreeMap<String, Tensor>, Error> {
        let (plus, minus) = (at(step)?, at(-step)?);
        let mut products = BTreeMap::new();
        for (name, weight) in weights {
            let (plus, minus) = (of(&plus, "the gradients", name)?, of(&minus, "the gradients", name)?);
            for gradient in [plus, minus] {
                same_shape(name, weight, gradient, Input::Gradient)?;
                is_double(gradient, || format!("gradient of `{name}`"))?;
            }
            products.insert(name.clone(), ((plus.detach() - minus.detach())? / (2.0 * step))?);
        }
        Ok(products)
    };
    let step = STEP * (1.0 + norm(wide.values().map(|(weight, _)| weight))?) / norm_along;
    let (products, check) = (product(step)?, product(step / 2.0)?);
    let gaps = products.iter().map(|(name, product)| product - &check[name]).collect::<Result<Vec<_>, _>>()?;
    let (gap, size) = (norm(gaps.iter())?, norm(products.values())?);
    // Excludes NaN too. A loss without curvature has exactly 0 by both.
    if gap <= AGREEMENT * size {
        Ok(products)
    } else {
        Err(Error::HessianStep { got: gap / size, expected: AGREEMENT })
    }
}

/// The Hessian of a loss times its gradient, by name: what [`Grasp`](crate::Grasp) needs.
///
/// `variables`: the weights over which gradient and Hessian are taken, f64. `loss` runs the network in f64 on fixed data
/// in fixed order (the difference of two noisy gradients is noise: no dropout). Five forward and backward passes; the
/// variables are as before when this returns, whatever `loss` returns. Running statistics of BatchNorm that are not among
/// them are the caller's to keep.
///
/// A variable's type is fixed where the network is built, so that f32 cannot be widened here and is refused: in f32 the
/// product of a network with ReLU is noise (errors of three times its norm were measured on LeNet-300-100).
/// [`hessian_gradient_product_at`] takes weights of any type.
///
/// # Errors
/// If a variable or the loss is not f64, `loss` fails or gives a variable no gradient, the gradient is not finite or all
/// zeros, or as [`hessian_vector_product`].
pub fn hessian_gradient_product(
    variables: &BTreeMap<String, Var>,
    mut loss: impl FnMut() -> candle_core::Result<Tensor>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    for (name, var) in variables.iter().filter(|(_, var)| !var.dtype().is_int()) {
        is_double(var, || format!("weight `{name}`"))?;
    }
    let first = loss()?;
    is_double(&first, || "the loss".to_owned())?;
    let direction = gradients(&first, variables)?;
    drop(first);
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
    if norm(product.values())? == 0.0 {
        let (parameter, got) = ("norm of the Hessian-gradient product", "0".to_owned());
        let expected =
            "a positive number (no gradient, or a loss that is linear in the weights or not computed in f64)";
        return Err(Error::Parameter { parameter, got, expected });
    }
    Ok(product)
}

/// [`hessian_gradient_product`] of weights of any floating-point type, by name, f64.
///
/// `loss` is handed the weights as variables in f64, by the same names, and runs the network with them on fixed data in
/// f64. A model that is built from a `VarBuilder` is built anew from these: `VarBuilder::from_tensors` keeps what is a
/// variable one. `weights` themselves are not touched.
///
/// ```
/// use std::collections::BTreeMap;
/// use candle_core::{Device, Tensor};
/// use lth_criteria::hessian_gradient_product_at;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let weights = BTreeMap::from([("w".to_owned(), Tensor::new(&[1f32, -2.0], &Device::Cpu)?)]);
/// // L = Σ w⁴ / 12, so that g = w³ / 3 and H is diagonal with w².
/// let product = hessian_gradient_product_at(&weights, |w| (w["w"].powf(4.0)?.sum_all()? / 12.0))?;
/// let product = product["w"].to_vec1::<f64>()?;
/// assert!((product[0] - 1.0 / 3.0).abs() < 1e-6 && (product[1] + 32.0 / 3.0).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If a weight is of an integer type, or as [`hessian_gradient_product`].
pub fn hessian_gradient_product_at(
    weights: &BTreeMap<String, Tensor>,
    mut loss: impl FnMut(&BTreeMap<String, Var>) -> candle_core::Result<Tensor>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let mut variables = BTreeMap::new();
    for (name, weight) in weights {
        if weight.dtype().is_int() {
            return Err(Error::NotDouble { what: format!("weight `{name}`"), got: weight.dtype() });
        }
        variables.insert(name.clone(), Var::from_tensor(&widened(weight)?)?);
    }
    hessian_gradient_product(&variables, || loss(&variables))
}

fn widened(tensor: &Tensor) -> Result<Tensor, Error> {
    Ok(tensor.detach().to_dtype(DType::F64)?)
}

fn is_double(tensor: &Tensor, what: impl FnOnce() -> String) -> Result<(), Error> {
    match tensor.dtype() {
        DType::F64 => Ok(()),
        got => Err(Error::NotDouble { what: what(), got }),
    }
}

/// `tensors`: f64.
fn norm<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Result<f64, Error> {
    let mut squares = 0.0;
    for tensor in tensors {
        squares += tensor.detach().sqr()?.sum_all()?.to_scalar::<f64>()?;
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
