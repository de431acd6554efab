use candle_core::Tensor;
use lth_kernels::{BatchNormParams, Layout, Pool2dParams};
use lth_train::{Parameter, Role};

use crate::{Builder, Context, Error, Init};

/// Share of a batch's statistics in the new running statistics, PyTorch's default.
const MOMENTUM: f64 = 0.1;
/// Added to variances, PyTorch's default.
const EPS: f64 = 1e-5;

/// What is computed together with a [`BatchNorm`], in this order.
#[derive(Clone, Copy, Debug, Default)]
pub struct After<'a> {
    /// Added to the normalised values.
    pub residual: Option<&'a Tensor>,
    /// Negative values become 0.
    pub relu: bool,
    /// The largest of each window; in the layout of the pass, whatever the parameters say.
    pub max_pool: Option<Pool2dParams>,
}

impl After<'_> {
    /// Only a ReLU.
    pub const RELU: Self = Self { residual: None, relu: true, max_pool: None };
}

/// Batch normalisation of feature maps, or of [N, channels]: `weight`, `bias`, `running_mean` and `running_var`.
///
/// A training pass normalises by the batch's statistics and moves the running ones by a tenth, the variance *unbiased*
/// as in PyTorch; an evaluation pass normalises by the running ones. PyTorch's `num_batches_tracked` has no use at a
/// fixed momentum and is neither kept nor saved.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    name: String,
    weight: Parameter,
    bias: Parameter,
    running_mean: Parameter,
    running_var: Parameter,
}

impl BatchNorm {
    /// A new layer at the builder's prefix with scale 1 and the given initial shift (0 in PyTorch, 1e-3 in fastai's heads).
    /// # Errors  if a name is taken or a tensor cannot be made.
    pub fn new(builder: &mut Builder<'_>, channels: usize, bias: f64) -> Result<Self, Error> {
        Self::with_scale(builder, channels, Init::Constant(1.), bias)
    }

    /// A new layer whose scales are drawn, such as open_lth's.
    /// # Errors
    /// If a name is taken or a tensor cannot be made.
    pub fn with_scale(builder: &mut Builder<'_>, channels: usize, scale: Init, bias: f64) -> Result<Self, Error> {
        let mut parameter = |leaf, init, role| builder.parameter(leaf, &[channels], init, role);
        Ok(Self {
            weight: parameter("weight", scale, Role::Norm)?,
            bias: parameter("bias", Init::Constant(bias), Role::Norm)?,
            running_mean: parameter("running_mean", Init::Constant(0.), Role::Buffer)?,
            running_var: parameter("running_var", Init::Constant(1.), Role::Buffer)?,
            name: builder.prefix().to_owned(),
        })
    }

    /// What an evaluation pass does to each channel: a factor, then a shift.
    /// # Errors  if the values are not f32 or candle fails.
    pub(crate) fn factor_and_shift(&self) -> candle_core::Result<(Tensor, Tensor)> {
        let [weight, bias, mean, var] =
            [&self.weight, &self.bias, &self.running_mean, &self.running_var].map(|one| one.var().as_detached_tensor());
        let factor = (weight / (var + EPS)?.sqrt()?)?;
        let shift = (bias - (mean * &factor)?)?;
        Ok((factor, shift))
    }

    /// The normalised `x`, then what `after` asks for.
    /// # Errors  if the input does not fit, has one value per channel in training, or candle fails.
    pub fn forward(&self, x: &Tensor, after: After<'_>, context: &Context<'_>) -> candle_core::Result<Tensor> {
        let pass = &context.pass;
        let layout = if x.rank() == 4 { context.layout } else { Layout::Nchw };
        let params = BatchNormParams { eps: EPS, layout, relu: after.relu };
        let (weight, bias) = (self.weight.tensor(pass), self.bias.tensor(pass));
        let (mean, var) = (&self.running_mean, &self.running_var);
        let named = |error: candle_core::Error| error.context(format!("layer `{}`", self.name));
        if !pass.train {
            let (mean, var) = (mean.tensor(pass), var.tensor(pass));
            let y = lth_kernels::batch_norm_eval(x, &weight, &bias, &mean, &var, after.residual, &params);
            return y.and_then(|y| pooled(y, after.max_pool, layout)).map_err(named);
        }
        let normalised = match (after.residual, after.max_pool) {
            (None, Some(pool)) => lth_kernels::batch_norm_train_max_pool(x, &weight, &bias, &params, &pool),
            (residual, pool) => lth_kernels::batch_norm_train(x, &weight, &bias, residual, &params)
                .and_then(|(y, batch)| Ok((pooled(y, pool, layout)?, batch))),
        };
        let (y, batch) = normalised.map_err(named)?;
        for (running, batch) in [(mean, batch.mean), (var, batch.var)] {
            let moved = (running.tensor(pass) * (1. - MOMENTUM))? + (batch.detach() * MOMENTUM)?;
            running.var().set(&moved?)?;
        }
        Ok(y)
    }
}

fn pooled(x: Tensor, pool: Option<Pool2dParams>, layout: Layout) -> candle_core::Result<Tensor> {
    match pool {
        Some(pool) => lth_kernels::max_pool2d(&x, &Pool2dParams { layout, ..pool }),
        None => Ok(x),
    }
}
