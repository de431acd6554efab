//! Residual blocks: convolutions with norms, and a way around them.

use candle_core::{Device, Tensor};
use lth_kernels::{Conv2dParams, Layout, PackedConv2d, Pattern};

use super::InitScheme;
use crate::packed::PackedBlock;
use crate::{After, BatchNorm, Builder, Context, Conv2d, Error, Patterns, Sparse};

/// The convolutions of a residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockKind {
    /// Two of 3×3; the first has the stride.
    Basic,
    /// 1×1, 3×3 and 1×1, the last with four times the channels of the others; the 3×3 has the stride, as in torchvision
    /// ("ResNet v1.5") and unlike He et al. 2016, where the first has it.
    Bottleneck,
}

impl BlockKind {
    /// How many convolutions.
    pub(crate) fn n_convolutions(self) -> usize {
        match self {
            Self::Basic => 2,
            Self::Bottleneck => 3,
        }
    }

    /// Channels of the block's output for each of its inner channels.
    pub(crate) fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }

    /// Kernel and whether it has the block's stride, by convolution.
    fn convolutions(self) -> &'static [(usize, bool)] {
        match self {
            Self::Basic => &[(3, true), (3, false)],
            Self::Bottleneck => &[(1, false), (3, true), (1, false)],
        }
    }
}

/// The way around a block whose output has another shape than its input. Source: He et al. 2016, §3.3 and §4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shortcut {
    /// Option A: every other row and column, and channels of zeros on both sides of the block's input, an equal number on
    /// each; it has no parameters. The paper does not say on which side; both is what PyTorch implementations do.
    Padding,
    /// Option B: a 1×1 convolution `downsample.0` and a norm `downsample.1`.
    Projection,
}

/// Convolutions `conv1`, `conv2`, … with norms `bn1`, `bn2`, …, ReLU after each; what goes around is added before the last
/// ReLU.
#[derive(Clone, Debug)]
pub(super) struct Block {
    inner: Vec<(Conv2d, BatchNorm)>,
    last: (Conv2d, BatchNorm),
    around: Around,
}

#[derive(Clone, Debug)]
enum Around {
    Identity,
    Projection(Box<(Conv2d, BatchNorm)>),
    Padding(PaddedInput),
}

/// What a [`Block`] is built from.
pub(super) struct BlockConfig<'a> {
    pub(super) kind: BlockKind,
    pub(super) inputs: usize,
    /// Outputs of each convolution but the last.
    pub(super) inner: &'a [usize],
    pub(super) outputs: usize,
    pub(super) stride: usize,
    /// None where the input itself is added.
    pub(super) shortcut: Option<Shortcut>,
    pub(super) init: InitScheme,
}

impl Block {
    pub(super) fn new(builder: &mut Builder<'_>, config: &BlockConfig<'_>) -> Result<Self, Error> {
        let BlockConfig { kind, inputs, inner, outputs, stride, shortcut, init } = *config;
        let mut layer = |idx: usize, inputs, outputs| {
            let (kernel, is_strided) = kind.convolutions()[idx];
            let stride = if is_strided { stride } else { 1 };
            let conv = init.conv(&mut builder.at(format!("conv{}", idx + 1)), [inputs, outputs], kernel, stride)?;
            Ok::<_, Error>((conv, init.norm(&mut builder.at(format!("bn{}", idx + 1)), outputs)?))
        };
        let mut from = inputs;
        let mut layers = Vec::new();
        for (idx, &to) in inner.iter().enumerate() {
            layers.push(layer(idx, from, to)?);
            from = to;
        }
        let last = layer(inner.len(), from, outputs)?;
        let around = match shortcut {
            None => Around::Identity,
            Some(Shortcut::Padding) => Around::Padding(PaddedInput::new(builder, [inputs, outputs], stride)?),
            Some(Shortcut::Projection) => {
                let mut builder = builder.at("downsample");
                let conv = init.conv(&mut builder.at(0), [inputs, outputs], 1, stride)?;
                Around::Projection(Box::new((conv, init.norm(&mut builder.at(1), outputs)?)))
            }
        };
        Ok(Self { inner: layers, last, around })
    }

    pub(super) fn forward(&self, x: &Tensor, context: &mut Context<'_>) -> candle_core::Result<Tensor> {
        let mut y = x.clone();
        for (conv, norm) in &self.inner {
            y = norm.forward(&conv.forward(&y, context)?, After::RELU, context)?;
        }
        let (conv, norm) = &self.last;
        let y = conv.forward(&y, context)?;
        let around = match &self.around {
            Around::Identity => x.clone(),
            Around::Projection(way) => {
                let (conv, norm) = &**way;
                norm.forward(&conv.forward(x, context)?, After::default(), context)?
            }
            Around::Padding(padded) => padded.forward(x, context)?,
        };
        norm.forward(&y, After { residual: Some(&around), ..After::RELU }, context)
    }

    pub(super) fn packed(&self) -> candle_core::Result<PackedBlock> {
        let layer = |(conv, norm): &(Conv2d, BatchNorm)| conv.packed(Some(norm), true);
        Ok(PackedBlock {
            inner: self.inner.iter().map(layer).collect::<candle_core::Result<_>>()?,
            last: layer(&self.last)?,
            around: match &self.around {
                Around::Identity => None,
                Around::Projection(way) => Some(way.0.packed(Some(&way.1), false)?),
                Around::Padding(padded) => Some(padded.packed()?),
            },
        })
    }
}

impl Sparse for Block {
    fn set_patterns(&mut self, patterns: &Patterns) {
        self.inner.iter_mut().for_each(|(conv, _)| conv.set_patterns(patterns));
        self.last.0.set_patterns(patterns);
        if let Around::Projection(way) = &mut self.around {
            way.0.set_patterns(patterns);
        }
    }
}

/// Option A's way around as a 1×1 convolution with constant weights: 1 where an output is an input, 0 elsewhere. The
/// sparse operators compute with the ones alone, in every layout, forward, backward and packed.
#[derive(Clone, Debug)]
struct PaddedInput {
    weight: Tensor,
    pattern: Pattern,
    stride: usize,
}

impl PaddedInput {
    fn new(builder: &Builder<'_>, [inputs, outputs]: [usize; 2], stride: usize) -> Result<Self, Error> {
        let Some(padding) = outputs.checked_sub(inputs) else {
            let got = format!("from {inputs} to {outputs} channels");
            return Err(Error::Config {
                what: "padding shortcut",
                got,
                expected: "at least as many channels out as in",
            });
        };
        let first = padding / 2;
        let ones = (0..outputs * inputs).map(|i| u8::from(i / inputs == first + i % inputs));
        let mask = Tensor::from_iter(ones, &Device::Cpu)?.reshape((outputs, inputs, 1, 1))?;
        let weight = builder.constant(&mask)?;
        Ok(Self { weight, pattern: Pattern::new(&mask)?, stride })
    }

    fn params(&self, layout: Layout) -> Conv2dParams {
        Conv2dParams { stride: (self.stride, self.stride), layout, ..Conv2dParams::default() }
    }

    fn forward(&self, x: &Tensor, context: &Context<'_>) -> candle_core::Result<Tensor> {
        lth_kernels::conv2d(x, &self.weight, Some(&self.pattern), &self.params(context.layout))
    }

    fn packed(&self) -> candle_core::Result<PackedConv2d> {
        PackedConv2d::new(&self.weight, None, Some(&self.pattern), false, &self.params(Layout::Nchw))
    }
}
