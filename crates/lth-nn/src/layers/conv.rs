use candle_core::Tensor;
use lth_kernels::{Conv2dParams, Layout, PackedConv2d, Pattern, conv2d, conv2d_bias_relu};
use lth_train::{Parameter, Role};

use super::{Patterns, Sparse};
use crate::{BatchNorm, Builder, Context, Error, Init};

/// The shape of a [`Conv2d`] and how it starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dConfig {
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Step of the kernel.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: usize,
    /// Initial weights.
    pub weight: Init,
    /// Initial bias; none makes a convolution without one.
    pub bias: Option<Init>,
}

/// A two-dimensional convolution: `weight` [outputs, inputs, kernel, kernel] and, if wanted, `bias` with one value per output.
#[derive(Clone, Debug)]
pub struct Conv2d {
    name: String,
    weight: Parameter,
    bias: Option<Parameter>,
    pattern: Option<Pattern>,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// A new layer at the builder's prefix.
    /// # Errors
    /// If a name is taken or a tensor cannot be made.
    pub fn new(builder: &mut Builder<'_>, config: &Conv2dConfig) -> Result<Self, Error> {
        let Conv2dConfig { inputs, outputs, kernel, stride, padding, weight, bias } = *config;
        Ok(Self {
            name: builder.prefix().to_owned(),
            weight: builder.parameter("weight", &[outputs, inputs, kernel, kernel], weight, Role::Weight)?,
            bias: bias.map(|init| builder.parameter("bias", &[outputs], init, Role::Bias)).transpose()?,
            pattern: None,
            stride,
            padding,
        })
    }

    /// The layer as inference computes it, together with the `norm` and the ReLU that follow it.
    /// # Errors
    /// If the values are not f32 or candle fails.
    pub(crate) fn packed(&self, norm: Option<&BatchNorm>, relu: bool) -> candle_core::Result<PackedConv2d> {
        let mut weight = self.weight.var().as_detached_tensor();
        let mut bias = self.bias.as_ref().map(|bias| bias.var().as_detached_tensor());
        if let Some(norm) = norm {
            let (factor, shift) = norm.factor_and_shift()?;
            weight = weight.broadcast_mul(&factor.reshape(((), 1, 1, 1))?)?;
            bias = Some(match bias {
                Some(bias) => ((bias * factor)? + shift)?,
                None => shift,
            });
        }
        PackedConv2d::new(&weight, bias.as_ref(), self.pattern.as_ref(), relu, &self.params(Layout::Nchw))
    }

    fn params(&self, layout: Layout) -> Conv2dParams {
        let (stride, padding) = ((self.stride, self.stride), (self.padding, self.padding));
        Conv2dParams { stride, padding, layout, ..Conv2dParams::default() }
    }

    /// The output for feature maps in the context's layout.
    /// # Errors
    /// If the input does not fit or candle fails.
    pub fn forward(&self, x: &Tensor, context: &mut Context<'_>) -> candle_core::Result<Tensor> {
        let y = self.product(x, context)?;
        let Some(bias) = &self.bias else { return Ok(y) };
        lth_kernels::add_bias(&y, &bias.tensor(&context.pass), context.layout.channel_axis())
    }

    /// The output behind a rectifier.
    /// # Errors
    /// As [`Conv2d::forward`].
    pub fn forward_relu(&self, x: &Tensor, context: &mut Context<'_>) -> candle_core::Result<Tensor> {
        let Some(bias) = &self.bias else { return lth_kernels::relu(&self.product(x, context)?) };
        let bias = bias.tensor(&context.pass);
        self.run(x, context, |x, weight, pattern, params| conv2d_bias_relu(x, weight, &bias, pattern, params))
    }

    /// The output without the bias.
    fn product(&self, x: &Tensor, context: &mut Context<'_>) -> candle_core::Result<Tensor> {
        self.run(x, context, conv2d)
    }

    /// What `convolve` makes of `x`, the weight and its pattern.
    fn run(
        &self,
        x: &Tensor,
        context: &mut Context<'_>,
        convolve: impl FnOnce(&Tensor, &Tensor, Option<&Pattern>, &Conv2dParams) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<Tensor> {
        context.show(&self.name, x)?;
        let weight = self.weight.tensor(&context.pass);
        let pattern = self.pattern.as_ref().filter(|_| !context.pass.dense_gradients);
        convolve(x, &weight, pattern, &self.params(context.layout))
            .map_err(|error| error.context(format!("layer `{}`", self.name)))
    }
}

impl Sparse for Conv2d {
    fn set_patterns(&mut self, patterns: &Patterns) {
        patterns.update(&format!("{}.weight", self.name), &mut self.pattern);
    }
}
