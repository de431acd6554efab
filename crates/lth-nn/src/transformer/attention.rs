use candle_core::{D, DType, Device, Module, Result, Tensor};
use candle_nn::VarBuilder;

use super::{Rotary, softmax_last_dim, widened};
use crate::Error;
use crate::drop_in::{Linear, linear_b};

/// Scaled dot-product attention: the mean of `value`'s positions, weighted by how well each `key` fits a `query`.
/// `query` `[…, T, D]`, `key` `[…, S, D]`, `value` `[…, S, E]` give `[…, T, E]`; `mask` (u8, 1 = may be seen) is of
/// any shape that broadcasts to `[…, T, S]`. A position that may see nothing becomes NaN, as in PyTorch.
///
/// Source: Vaswani et al. 2017, §3.2.1.
/// # Errors
/// If shapes or types do not fit, the mask is not u8, or candle fails.
pub fn attention(query: &Tensor, key: &Tensor, value: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let scale = 1.0 / (query.dim(D::Minus1)? as f64).sqrt();
    let [wide_query, key, value] = [query, key, value].map(widened);
    let mut fit = (wide_query?.contiguous()? * scale)?.matmul(&key?.transpose(D::Minus2, D::Minus1)?.contiguous()?)?;
    if let Some(mask) = mask {
        if mask.dtype() != DType::U8 {
            return Err(
                Error::DType { what: "mask", name: "attention".to_owned(), got: mask.dtype(), expected: "U8" }.into()
            );
        }
        let hidden = Tensor::full(f32::NEG_INFINITY, fit.shape(), fit.device())?.to_dtype(fit.dtype())?;
        fit = mask.broadcast_as(fit.shape())?.contiguous()?.where_cond(&fit, &hidden)?;
    }
    softmax_last_dim(&fit)?.matmul(&value?.contiguous()?)?.to_dtype(query.dtype())
}

/// A mask `[length, length]` (u8) under which each position sees itself and those before it.
/// # Errors
/// If candle fails.
pub fn causal_mask(length: usize, device: &Device) -> Result<Tensor> {
    let seen: Vec<u8> = (0..length * length).map(|at| u8::from(at % length <= at / length)).collect();
    Tensor::from_vec(seen, (length, length), device)
}

/// The shape of a [`MultiHeadAttention`].
#[derive(Clone, Debug)]
pub struct AttentionConfig {
    /// Heads; they share the size evenly.
    pub n_heads: usize,
    /// Whether the four projections have a `bias`.
    pub bias: bool,
    /// Turns queries and keys by their position.
    pub rotary: Option<Rotary>,
}

impl AttentionConfig {
    /// PyTorch's defaults: with biases, without positions.
    pub fn new(n_heads: usize) -> Self {
        Self { n_heads, bias: true, rotary: None }
    }
}

/// Self-attention in several heads: the projections `q_proj`, `k_proj`, `v_proj` and `out_proj`.
///
/// Source: Vaswani et al. 2017, §3.2.2. PyTorch's `in_proj_weight` is the first three weights below one another.
#[derive(Clone, Debug)]
pub struct MultiHeadAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    n_heads: usize,
    rotary: Option<Rotary>,
}

/// A new [`MultiHeadAttention`] over `size` values, from `{q,k,v,out}_proj.{weight,bias}` of the builder.
/// # Errors
/// If the heads do not divide `size`, or the builder has tensors of these names with other shapes, or none.
pub fn multi_head_attention(
    size: usize,
    config: &AttentionConfig,
    builder: VarBuilder<'_>,
) -> Result<MultiHeadAttention> {
    let AttentionConfig { n_heads, bias, rotary } = config.clone();
    if n_heads == 0 || !size.is_multiple_of(n_heads) {
        let got = format!("{n_heads} for {size} values");
        return Err(Error::Config { what: "number of heads", got, expected: "a divisor of the size" }.into());
    }
    let projection = |name| linear_b(size, size, bias, builder.pp(name));
    Ok(MultiHeadAttention {
        query: projection("q_proj")?,
        key: projection("k_proj")?,
        value: projection("v_proj")?,
        out: projection("out_proj")?,
        n_heads,
        rotary,
    })
}

impl MultiHeadAttention {
    /// The output `[N, T, size]` for `x` `[N, T, size]`; `mask` (u8, 1 = may be seen) is of any shape that broadcasts to
    /// `[N, heads, T, T]`: [`causal_mask`], or padding as `[N, 1, 1, T]`.
    /// # Errors
    /// If shapes or types do not fit, or candle fails.
    pub fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let wide = widened(x)?;
        let (n, length, size) = wide.dims3()?;
        let heads = |projection: &Linear| {
            project(projection, &wide)?.reshape((n, length, self.n_heads, size / self.n_heads))?.transpose(1, 2)
        };
        let turned = |x: Tensor| match &self.rotary {
            Some(rotary) => rotary.turn(&x, 0),
            None => Ok(x),
        };
        let (query, key) = (turned(heads(&self.query)?)?, turned(heads(&self.key)?)?);
        let y = attention(&query, &key, &heads(&self.value)?, mask)?;
        project(&self.out, &y.transpose(1, 2)?.reshape((n, length, size))?)?.to_dtype(x.dtype())
    }
}

/// A linear layer of half type computed in f32.
fn project(layer: &Linear, x: &Tensor) -> Result<Tensor> {
    if layer.weight().dtype() == x.dtype() {
        return layer.forward(x);
    }
    Linear::new(widened(layer.weight())?, layer.bias().map(widened).transpose()?).forward(x)
}
