use candle_core::Tensor;
use rand::RngCore;

use crate::{Builder, Context, Error, random};

/// Zeroes each value with a fixed probability while training, and scales the others so that the mean stays.
///
/// Which values fall is a function of the pass's seed and step and of the layer's name alone: the same on every thread
/// count, after a resume, and whatever else draws.
#[derive(Clone, Debug)]
pub struct Dropout {
    name: String,
    probability: f64,
}

impl Dropout {
    /// A layer named by the builder's prefix that drops with `probability`.
    /// # Errors  if the probability is not in [0, 1).
    pub fn new(builder: &Builder<'_>, probability: f64) -> Result<Self, Error> {
        if !(0. ..1.).contains(&probability) {
            let got = probability.to_string();
            return Err(Error::Config { what: "dropout probability", got, expected: "at least 0 and less than 1" });
        }
        Ok(Self { name: builder.prefix().to_owned(), probability })
    }

    /// `x` itself in evaluation; in training `x` with values dropped.
    /// # Errors  if candle fails.
    pub fn forward(&self, x: &Tensor, context: &Context<'_>) -> candle_core::Result<Tensor> {
        if !context.pass.train || self.probability == 0. {
            return Ok(x.clone());
        }
        let mut stream = random::stream(context.pass.seed, "dropout", &self.name, context.pass.step);
        let kept = (1. / (1. - self.probability)) as f32;
        // The first `threshold` of the 2^32 values of a draw drop.
        let threshold = (self.probability * 4_294_967_296.) as u64;
        let noise: Vec<f32> =
            std::iter::repeat_with(|| if u64::from(stream.next_u32()) < threshold { 0. } else { kept })
                .take(x.elem_count())
                .collect();
        let noise = Tensor::from_vec(noise, x.shape(), &candle_core::Device::Cpu)?;
        lth_kernels::multiply_by(x, &noise.to_dtype(x.dtype())?.to_device(x.device())?)
    }
}
