//! Trained networks made ready for inference.

use candle_core::{Module, Tensor};
use lth_kernels::{Layout, PackedConv2d, PackedLinear, Pool2dParams};

/// A trained network for inference on the CPU, in f32: batch norms folded into the convolutions and linear layers beside
/// them, ReLUs and residual additions fused, dropouts gone, and of masked weights only the kept values packed.
///
/// Made by [`ResNet::packed`](crate::ResNet::packed) and its like from a network *with its masks set*; later changes of
/// that network do not reach it. Logits equal the evaluation pass of the network up to rounding. The kept values are
/// packed once per batch size, at the first call with it. Programs that call it again and again should call
/// [`lth_kernels::keep_freed_memory`] first: the memory of feature maps is then used again rather than given back to the
/// operating system and asked for anew.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use lth_nn::{Head, ResNet, ResNetConfig, Setup};
/// use lth_train::{Network, Pass};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = ResNet::new(&ResNetConfig::resnet18(2, Head::Fastai), &Setup::new(42))?;
/// let packed = network.packed()?;
/// let x = Tensor::ones((1, 3, 32, 32), DType::F32, &Device::Cpu)?;
/// let (ours, expected) = (packed.forward(&x)?, network.forward(&x, &Pass::eval())?);
/// let difference = (ours - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
/// assert!(difference < 1e-5);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PackedNetwork {
    steps: Vec<Step>,
    layout: Option<Layout>,
}

/// What happens to the feature maps, or to [N, values].
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Conv(PackedConv2d),
    /// The pooling's own layout does not count.
    MaxPool(Pool2dParams),
    Residual(Box<PackedBlock>),
    /// Average over positions: [N, channels].
    Average,
    /// Maximum and average over positions, side by side: [N, 2 channels].
    MaxAndAverage,
    /// All values of a sample, channels outermost: [N, values].
    Flatten,
    Linear(PackedLinear),
}

/// `last(inner(x)) + around(x)`; the last convolution has the ReLU.
#[derive(Clone, Debug)]
pub(crate) struct PackedBlock {
    pub(crate) inner: Vec<PackedConv2d>,
    pub(crate) last: PackedConv2d,
    pub(crate) around: Option<PackedConv2d>,
}

impl PackedNetwork {
    /// `layout` is that of feature maps inside; by default what is fastest for the batch at hand.
    pub(crate) fn new(steps: Vec<Step>, layout: Option<Layout>) -> Self {
        Self { steps, layout }
    }
}

impl Module for PackedNetwork {
    /// Logits [N, classes] for pictures [N, C, H, W], or [N, …] where the network begins with a linear layer.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if !x.device().is_cpu() {
            candle_core::bail!("a packed network runs on the CPU alone, and its input is on another device");
        }
        let layout = match x.dims() {
            [n, _, _, _] => self.layout.unwrap_or_else(|| Layout::for_batch(*n, x.device())),
            _ => Layout::Nchw,
        };
        lth_kernels::in_pool(|| {
            let mut x = if x.rank() == 4 { lth_kernels::to_layout(x, Layout::Nchw, layout)? } else { x.clone() };
            for step in &self.steps {
                x = step.forward(&x, layout)?;
            }
            Ok(x)
        })
    }
}

impl Step {
    fn forward(&self, x: &Tensor, layout: Layout) -> candle_core::Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.with_layout(layout).forward(x, None),
            Self::MaxPool(params) => lth_kernels::max_pool2d(x, &Pool2dParams { layout, ..*params }),
            Self::Residual(block) => {
                let around = block.around.as_ref().map(|conv| conv.with_layout(layout).forward(x, None)).transpose()?;
                let mut inner = x.clone();
                for conv in &block.inner {
                    inner = conv.with_layout(layout).forward(&inner, None)?;
                }
                block.last.with_layout(layout).forward(&inner, Some(around.as_ref().unwrap_or(x)))
            }
            Self::Average => lth_kernels::global_avg_pool(x, layout),
            Self::MaxAndAverage => {
                let (max, mean) = (lth_kernels::global_max_pool(x, layout)?, lth_kernels::global_avg_pool(x, layout)?);
                lth_kernels::concat(&max, &mean, 1)
            }
            Self::Flatten if x.rank() == 4 => lth_kernels::to_layout(x, layout, Layout::Nchw)?.flatten_from(1),
            Self::Flatten => x.flatten_from(1),
            Self::Linear(linear) => linear.forward(x),
        }
    }
}
