use candle_core::{D, Module, Result, Tensor};
use candle_nn::{LayerNormConfig, VarBuilder};

use super::widened;

/// Normalises the last axis to mean 0 and variance 1, then scales and shifts it.
///
/// Source: Ba, Kiros & Hinton 2016. The variance is the biased one, as in PyTorch.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    remove_mean: bool,
    eps: f64,
}

impl LayerNorm {
    /// A layer with the scale and shift given, each of the last axis' length.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self { weight: Some(weight), bias: Some(bias), remove_mean: true, eps }
    }

    /// A layer without a shift.
    pub fn new_no_bias(weight: Tensor, eps: f64) -> Self {
        Self { weight: Some(weight), bias: None, remove_mean: true, eps }
    }

    /// The scale; none if the layer only normalises.
    pub fn weight(&self) -> Option<&Tensor> {
        self.weight.as_ref()
    }

    /// The shift, if there is one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = widened(x)?;
        let centred = if self.remove_mean { wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)? } else { wide };
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let mut y = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        if let Some(weight) = &self.weight {
            y = y.broadcast_mul(&widened(weight)?)?;
        }
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(&widened(bias)?)?;
        }
        y.to_dtype(x.dtype())
    }
}

/// A new [`LayerNorm`] over `size` values, from `weight` (1 at first) and `bias` (0 at first) of the builder; an `eps`
/// alone is a configuration, too. As candle-nn's: without `affine` it has no parameters, without `remove_mean` no bias.
/// # Errors
/// If the builder has tensors of these names with other shapes, or none.
pub fn layer_norm(size: usize, config: impl Into<LayerNormConfig>, builder: VarBuilder<'_>) -> Result<LayerNorm> {
    let LayerNormConfig { eps, remove_mean, affine } = config.into();
    let get = |wanted: bool, leaf, value| {
        wanted.then(|| builder.get_with_hints(size, leaf, candle_nn::Init::Const(value))).transpose()
    };
    Ok(LayerNorm {
        weight: get(affine, "weight", 1.0)?,
        bias: get(affine && remove_mean, "bias", 0.0)?,
        remove_mean,
        eps,
    })
}

/// Divides the last axis by the root of its mean square, then scales it.
///
/// Source: Zhang & Sennrich 2019.
#[derive(Clone, Debug)]
pub struct RmsNorm(LayerNorm);

impl RmsNorm {
    /// A layer with the scale given, of the last axis' length.
    pub fn new(weight: Tensor, eps: f64) -> Self {
        Self(LayerNorm { weight: Some(weight), bias: None, remove_mean: false, eps })
    }
}

impl Module for RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

/// A new [`RmsNorm`] over `size` values, from `weight` (1 at first) of the builder.
/// # Errors
/// If the builder has a `weight` of another shape, or none.
pub fn rms_norm(size: usize, eps: f64, builder: VarBuilder<'_>) -> Result<RmsNorm> {
    Ok(RmsNorm::new(builder.get_with_hints(size, "weight", candle_nn::Init::Const(1.0))?, eps))
}
