use candle_core::Tensor;
use lth_kernels::{PackedLinear, Pattern};
use lth_train::{Parameter, Role};

use super::{Patterns, Sparse};
use crate::{BatchNorm, Builder, Context, Error, Init};

/// A linear layer: `weight` [outputs, inputs] and, if wanted, `bias` with one value per output.
#[derive(Clone, Debug)]
pub struct Linear {
    name: String,
    weight: Parameter,
    bias: Option<Parameter>,
    pattern: Option<Pattern>,
}

impl Linear {
    /// A new layer at the builder's prefix; without `bias` it has none.
    /// # Errors
    /// If a name is taken or a tensor cannot be made.
    pub fn new(
        builder: &mut Builder<'_>,
        inputs: usize,
        outputs: usize,
        weight: Init,
        bias: Option<Init>,
    ) -> Result<Self, Error> {
        Ok(Self {
            name: builder.prefix().to_owned(),
            weight: builder.parameter("weight", &[outputs, inputs], weight, Role::Weight)?,
            bias: bias.map(|init| builder.parameter("bias", &[outputs], init, Role::Bias)).transpose()?,
            pattern: None,
        })
    }

    /// The layer as inference computes it, together with the `norm` before it and the ReLU after it.
    /// # Errors
    /// If the values are not f32 or candle fails.
    pub(crate) fn packed(&self, norm: Option<&BatchNorm>, relu: bool) -> candle_core::Result<PackedLinear> {
        let mut weight = self.weight.var().as_detached_tensor();
        let mut bias = self.bias.as_ref().map(|bias| bias.var().as_detached_tensor());
        if let Some(norm) = norm {
            let (factor, shift) = norm.factor_and_shift()?;
            let shift = weight.matmul(&shift.unsqueeze(1)?)?.squeeze(1)?;
            weight = weight.broadcast_mul(&factor.unsqueeze(0)?)?;
            bias = Some(match bias {
                Some(bias) => (bias + shift)?,
                None => shift,
            });
        }
        PackedLinear::new(&weight, bias.as_ref(), self.pattern.as_ref(), relu)
    }

    /// The output [N, outputs] for `x` [N, inputs].
    /// # Errors
    /// If the input does not fit or candle fails.
    pub fn forward(&self, x: &Tensor, context: &mut Context<'_>) -> candle_core::Result<Tensor> {
        context.show(&self.name, x)?;
        let weight = self.weight.tensor(&context.pass);
        let bias = self.bias.as_ref().map(|bias| bias.tensor(&context.pass));
        let pattern = self.pattern.as_ref().filter(|_| !context.pass.dense_gradients);
        lth_kernels::linear(x, &weight, bias.as_ref(), pattern)
            .map_err(|error| error.context(format!("layer `{}`", self.name)))
    }
}

impl Sparse for Linear {
    fn set_patterns(&mut self, patterns: &Patterns) {
        patterns.update(&format!("{}.weight", self.name), &mut self.pattern);
    }
}
