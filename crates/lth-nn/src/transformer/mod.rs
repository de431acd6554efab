//! Layers of transformers whose gradients reach everything before them, for models built from a candle `VarBuilder`.
//!
//! candle-nn's `layer_norm`, `LayerNorm`, `rms_norm`, `RmsNorm`, `softmax_last_dim`, `rope`, `rope_i`, `rope_thd` and
//! `sdpa` are inference operators: they end candle's graph, so that everything before them gets no gradient, without
//! an error. These take the same arguments, read the same names (`weight`, `bias`) and give the same values:
//!
//! | instead of candle-nn's | take |
//! |---|---|
//! | `layer_norm`, `layer_norm_no_bias`, `LayerNorm` | [`layer_norm`], [`LayerNorm`] |
//! | `rms_norm`, `RmsNorm` | [`rms_norm`], [`RmsNorm`] |
//! | `ops::softmax_last_dim` | [`softmax_last_dim`] |
//! | `ops::sdpa` | [`attention`] |
//! | `rotary_emb::rope`, `rope_i` | [`rope`], [`rope_interleaved`], [`Rotary`] |
//!
//! They consist of candle operators that have a backward pass and run on every device. f16 and bf16 are computed in f32
//! and rounded once, at the end.
//!
//! ```
//! use candle_core::{DType, Device, Module, Tensor};
//! use candle_nn::{VarBuilder, VarMap};
//! use lth_nn::transformer::{AttentionConfig, layer_norm, multi_head_attention};
//!
//! # fn main() -> candle_core::Result<()> {
//! let variables = VarMap::new();
//! let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let norm = layer_norm(8, 1e-5, builder.pp("norm"))?;
//! let attention = multi_head_attention(8, &AttentionConfig::new(2), builder.pp("attention"))?;
//! let x = Tensor::arange(0f32, 48.0, &Device::Cpu)?.sin()?.reshape((2, 3, 8))?;
//! let y = (&x + attention.forward(&norm.forward(&x)?, None)?)?;
//! let gradients = y.sqr()?.sum_all()?.backward()?;
//! assert!(variables.all_vars().iter().all(|variable| gradients.get(variable).is_some()));
//! # Ok(()) }
//! ```

#![allow(clippy::needless_pass_by_value)] // the signatures are candle-nn's, so that one takes the other's place

mod attention;
mod norm;
mod rotary;
mod softmax;

pub use attention::{AttentionConfig, MultiHeadAttention, attention, causal_mask, multi_head_attention};
pub use norm::{LayerNorm, RmsNorm, layer_norm, rms_norm};
pub use rotary::{Rotary, rope, rope_interleaved};
pub use softmax::{softmax, softmax_last_dim};

use candle_core::{DType, Result, Tensor};

/// `x` as it is computed with: half types as f32, everything else as it is.
fn widened(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32),
        _ => Ok(x.clone()),
    }
}
