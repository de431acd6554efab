//! candle-nn's layers on the kernels of `lth-kernels`: a candle model gets them by changing its imports.
//!
//! | instead of candle-nn's | take |
//! |---|---|
//! | `linear`, `linear_no_bias`, `linear_b`, `Linear` | [`linear`], [`linear_no_bias`], [`linear_b`], [`Linear`] |
//! | `conv1d`, `conv1d_no_bias`, `Conv1d` | [`conv1d`], [`conv1d_no_bias`], [`Conv1d`] |
//! | `conv2d`, `conv2d_no_bias`, `Conv2d` | [`conv2d`], [`conv2d_no_bias`], [`Conv2d`] |
//! | layer and RMS norms, softmax, rotary embedding | those of [`transformer`](crate::transformer) |
//!
//! They take the same arguments, read the same names (`weight`, `bias`) with the same initial values, and give the same
//! values but for rounding. Masked through an [`lth_train::ModuleNetwork`], they compute with the kept weights alone, forward
//! and backward; the weights of a checkpoint that has zeros already are masked by `Trainer::set_masks` as any others.
//!
//! The masks are the network's: layers that outlive it are dense again, and whatever is loaded into a masked variable meanwhile is
//! masked as well.
//!
//! A weight is known by its variable: a builder that converts what it reads (another type, another device) hands out
//! another tensor, and the layer then computes dense.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use candle_core::{DType, Device, Module, Tensor};
//! use candle_nn::{Activation, VarBuilder, VarMap, seq};
//! use lth_nn::drop_in::linear; // in place of candle_nn::linear
//! use lth_train::{ModuleNetwork, Network, Pass};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let variables = VarMap::new();
//! let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let model = seq().add(linear(8, 16, builder.pp("wide"))?).add(Activation::Relu).add(linear(16, 2, builder.pp("out"))?);
//! let mut network = ModuleNetwork::new(model, &variables)?;
//!
//! let mask = Tensor::arange(0u8, 128, &Device::Cpu)?.lt(64f64)?.reshape((16, 8))?;
//! network.set_masks(&BTreeMap::from([("wide.weight".to_owned(), mask)]))?;
//! let x = Tensor::ones((4, 8), DType::F32, &Device::Cpu)?;
//! let gradients = lth_kernels::backward(&network.forward(&x, &Pass::train(42, 0))?.sqr()?.sum_all()?)?;
//! let of_wide = gradients.get(network.parameters().require("wide.weight")?.var()).expect("it trains");
//! assert_eq!(of_wide.narrow(0, 8, 8)?.abs()?.sum_all()?.to_scalar::<f32>()?, 0.0);
//! # Ok(()) }
//! ```

#![allow(clippy::needless_pass_by_value)] // the signatures are candle-nn's, so that one takes the other's place

mod conv;
mod linear;

pub use conv::{Conv1d, Conv2d, conv1d, conv1d_no_bias, conv2d, conv2d_no_bias};
pub use linear::{Linear, linear, linear_b, linear_no_bias};

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// candle-nn's initial values: `weight` of `shape`, and `bias` with one value for each of its first axis, within one over the
/// root of `fan`.
fn parameters(shape: &[usize], fan: usize, bias: bool, builder: &VarBuilder<'_>) -> Result<(Tensor, Option<Tensor>)> {
    let weight = builder.get_with_hints(shape, "weight", candle_nn::init::DEFAULT_KAIMING_NORMAL)?;
    let bound = 1.0 / (fan as f64).sqrt();
    let init = Init::Uniform { lo: -bound, up: bound };
    let bias = bias.then(|| builder.get_with_hints(shape[0], "bias", init)).transpose()?;
    Ok((weight, bias))
}
