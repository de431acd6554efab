//! Residual networks of basic blocks.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_kernels::{Layout, Pool2dParams};
use lth_train::{Network, Parameters, Pass, Role};

use super::head::{BuiltHead, in_head};
use super::{Head, TappedNetwork, check_classes, check_images};
use crate::packed::{PackedBlock, PackedNetwork, Step};
use crate::{After, BatchNorm, Builder, Context, Conv2d, Conv2dConfig, Error, Init, Patterns, Setup, Sparse, Tap};

/// Between the stem's convolution and the first block.
const STEM_POOL: Pool2dParams = Pool2dParams { kernel: (3, 3), stride: (2, 2), padding: (1, 1), layout: Layout::Nchw };

/// Which parameters of a network with body and head stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freeze {
    /// The body's weights and biases; the head and every batch norm train, as after fastai's `freeze`.
    Body,
    /// None.
    None,
}

/// The shape of a [`ResNet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResNetConfig {
    /// Blocks of each of the four stages.
    pub blocks: [usize; 4],
    /// Number of classes.
    pub classes: usize,
    /// The head.
    pub head: Head,
    /// The order of axes inside; by default what is fastest for the batch at hand ([`Layout::for_batch`]).
    pub layout: Option<Layout>,
}

impl ResNetConfig {
    /// ResNet-18: two blocks a stage.
    pub fn resnet18(classes: usize, head: Head) -> Self {
        Self { blocks: [2; 4], classes, head, layout: None }
    }

    /// ResNet-34.
    pub fn resnet34(classes: usize, head: Head) -> Self {
        Self { blocks: [3, 4, 6, 3], classes, head, layout: None }
    }
}

/// A ResNet of basic blocks (18 or 34 layers) for pictures of any size from about 32×32, with torchvision's names.
///
/// Starts as torchvision's: convolutions Kaiming normal (fan out), norms at scale 1 and shift 0, `fc` with PyTorch's
/// default. Source: He et al. 2016; torchvision 0.29 `resnet18`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use lth_nn::{Freeze, Head, ResNet, ResNetConfig, Setup};
/// use lth_train::{Network, Pass};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = ResNet::new(&ResNetConfig::resnet18(2, Head::Fastai), &Setup::new(42))?;
/// network.freeze(Freeze::Body);
/// assert_eq!(network.parameters().n_trainable(), 537_984);
/// let x = Tensor::zeros((1, 3, 32, 32), DType::F32, &Device::Cpu)?;
/// assert_eq!(network.forward(&x, &Pass::eval())?.dims(), [1, 2]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    stages: Vec<Block>,
    head: BuiltHead,
    layout: Option<Layout>,
    parameters: Parameters,
}

/// How many channels a [`ResNet`] has where they are free to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResNetWidths {
    /// Outputs of the four stages; the first is the stem's, too.
    pub streams: [usize; 4],
    /// Between the two convolutions of each block, in order.
    pub inner: Vec<usize>,
    /// Between the linear layers of fastai's head.
    pub hidden: usize,
}

impl ResNetWidths {
    /// The usual ones: 64, 128, 256 and 512 channels, a stage's in all of its blocks.
    pub fn usual(config: &ResNetConfig) -> Self {
        let streams = [64, 128, 256, ResNet::FEATURES];
        let inner =
            config.blocks.iter().zip(streams).flat_map(|(&n_blocks, width)| std::iter::repeat_n(width, n_blocks));
        Self { streams, inner: inner.collect(), hidden: 512 }
    }
}

impl ResNet {
    /// Channels that enter the head, unless the network has widths of its own.
    pub const FEATURES: usize = 512;

    /// A new network.
    /// # Errors  if a stage has no block or there are no classes.
    pub fn new(config: &ResNetConfig, setup: &Setup) -> Result<Self, Error> {
        Self::with_widths(config, &ResNetWidths::usual(config), setup)
    }

    /// A new network with widths of its own.
    /// # Errors  as `new`, and if there are not as many inner widths as blocks.
    pub fn with_widths(config: &ResNetConfig, widths: &ResNetWidths, setup: &Setup) -> Result<Self, Error> {
        check_classes(config.classes)?;
        if config.blocks.contains(&0) {
            let got = format!("{:?}", config.blocks);
            return Err(Error::Config { what: "blocks of the stages", got, expected: "at least 1 each" });
        }
        if widths.inner.len() != config.blocks.iter().sum::<usize>() {
            let got = widths.inner.len().to_string();
            return Err(Error::Config { what: "number of inner widths", got, expected: "one for each block" });
        }
        let mut parameters = Parameters::new();
        let mut root = Builder::new(setup, &mut parameters);
        let mut inputs = widths.streams[0];
        let conv1 = Conv2d::new(&mut root.at("conv1"), &convolution(3, inputs, 7, 2))?;
        let bn1 = BatchNorm::new(&mut root.at("bn1"), inputs, 0.)?;
        let mut stages = Vec::new();
        let mut inner = widths.inner.iter();
        for (stage_idx, (&n_blocks, &outputs)) in config.blocks.iter().zip(&widths.streams).enumerate() {
            for (block_idx, &inner) in inner.by_ref().take(n_blocks).enumerate() {
                let stride = if stage_idx > 0 && block_idx == 0 { 2 } else { 1 };
                let mut builder = root.at(format!("layer{}.{block_idx}", stage_idx + 1));
                stages.push(Block::new(&mut builder, [inputs, inner, outputs], stride)?);
                inputs = outputs;
            }
        }
        let head = BuiltHead::new(&mut root, config.head, [inputs, widths.hidden, config.classes])?;
        Ok(Self { conv1, bn1, stages, head, layout: config.layout, parameters })
    }

    /// Sets which parameters train.
    pub fn freeze(&self, freeze: Freeze) {
        for (name, parameter) in self.parameters.iter() {
            let frozen = freeze == Freeze::Body && !in_head(name) && parameter.role() != Role::Norm;
            parameter.set_trainable(!frozen);
        }
    }

    /// The average of each of the last feature maps, [N, 512]: what enters torchvision's `fc`, whatever the head.
    /// # Errors  as `forward`.
    pub fn features(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        let mut context = self.context(x, pass, None)?;
        let x = self.body(x, &mut context)?;
        lth_kernels::global_avg_pool(&x, context.layout)
    }

    /// The last feature maps, [N, 512, height / 32, width / 32] rounded up.
    /// # Errors  as `forward`.
    pub fn feature_maps(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        let mut context = self.context(x, pass, None)?;
        let x = self.body(x, &mut context)?;
        lth_kernels::to_layout(&x, context.layout, Layout::Nchw)
    }

    /// The network for inference, with its weights and masks as they are now.
    /// # Errors  if its values are not f32 or candle fails.
    pub fn packed(&self) -> Result<PackedNetwork, Error> {
        let mut steps = vec![Step::Conv(self.conv1.packed(Some(&self.bn1), true)?), Step::MaxPool(STEM_POOL)];
        for block in &self.stages {
            steps.push(Step::Residual(Box::new(block.packed()?)));
        }
        steps.extend(self.head.packed()?);
        Ok(PackedNetwork::new(steps, self.layout))
    }

    fn context<'a>(&self, x: &Tensor, pass: &Pass, tap: Option<Tap<'a>>) -> candle_core::Result<Context<'a>> {
        let n = check_images(x, 3)?;
        Ok(Context::new(pass, self.layout.unwrap_or_else(|| Layout::for_batch(n, x.device())), tap))
    }

    fn body(&self, x: &Tensor, context: &mut Context<'_>) -> candle_core::Result<Tensor> {
        let layout = context.layout;
        let x = lth_kernels::to_layout(x, Layout::Nchw, layout)?;
        let x = self.conv1.forward(&x, context)?;
        let mut x = self.bn1.forward(&x, After { max_pool: Some(STEM_POOL), ..After::RELU }, context)?;
        for block in &self.stages {
            x = block.forward(&x, context)?;
        }
        Ok(x)
    }

    fn run(&self, x: &Tensor, mut context: Context<'_>) -> candle_core::Result<Tensor> {
        let x = self.body(x, &mut context)?;
        self.head.forward(&x, &mut context)
    }
}

impl Network for ResNet {
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        lth_kernels::in_pool(|| self.run(x, self.context(x, pass, None)?))
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn set_masks(&mut self, masks: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        let patterns = Patterns::new(&self.parameters, masks)?;
        self.conv1.set_patterns(&patterns);
        self.stages.set_patterns(&patterns);
        self.head.set_patterns(&patterns);
        Ok(())
    }
}

impl TappedNetwork for ResNet {
    fn forward_with_tap(&self, x: &Tensor, pass: &Pass, tap: Tap<'_>) -> candle_core::Result<Tensor> {
        self.run(x, self.context(x, pass, Some(tap))?)
    }
}

/// Two 3×3 convolutions and a way around them.
#[derive(Clone, Debug)]
struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    downsample: Option<Downsample>,
}

/// The way around a block whose output has another shape than its input.
#[derive(Clone, Debug)]
struct Downsample {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Block {
    fn new(builder: &mut Builder<'_>, [inputs, inner, outputs]: [usize; 3], stride: usize) -> Result<Self, Error> {
        let conv1 = Conv2d::new(&mut builder.at("conv1"), &convolution(inputs, inner, 3, stride))?;
        let bn1 = BatchNorm::new(&mut builder.at("bn1"), inner, 0.)?;
        let conv2 = Conv2d::new(&mut builder.at("conv2"), &convolution(inner, outputs, 3, 1))?;
        let bn2 = BatchNorm::new(&mut builder.at("bn2"), outputs, 0.)?;
        let downsample = if stride == 1 && inputs == outputs {
            None
        } else {
            let mut builder = builder.at("downsample");
            let conv = Conv2d::new(&mut builder.at(0), &convolution(inputs, outputs, 1, stride))?;
            Some(Downsample { conv, norm: BatchNorm::new(&mut builder.at(1), outputs, 0.)? })
        };
        Ok(Self { conv1, bn1, conv2, bn2, downsample })
    }

    fn forward(&self, x: &Tensor, context: &mut Context<'_>) -> candle_core::Result<Tensor> {
        let y = self.conv1.forward(x, context)?;
        let y = self.bn1.forward(&y, After::RELU, context)?;
        let y = self.conv2.forward(&y, context)?;
        let around = match &self.downsample {
            None => x.clone(),
            Some(Downsample { conv, norm }) => norm.forward(&conv.forward(x, context)?, After::default(), context)?,
        };
        self.bn2.forward(&y, After { residual: Some(&around), ..After::RELU }, context)
    }
}

impl Block {
    fn packed(&self) -> candle_core::Result<PackedBlock> {
        let around = |way: &Downsample| way.conv.packed(Some(&way.norm), false);
        Ok(PackedBlock {
            first: self.conv1.packed(Some(&self.bn1), true)?,
            second: self.conv2.packed(Some(&self.bn2), true)?,
            around: self.downsample.as_ref().map(around).transpose()?,
        })
    }
}

impl Sparse for Block {
    fn set_patterns(&mut self, patterns: &Patterns) {
        self.conv1.set_patterns(patterns);
        self.conv2.set_patterns(patterns);
        if let Some(downsample) = &mut self.downsample {
            downsample.conv.set_patterns(patterns);
        }
    }
}

fn convolution(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Conv2dConfig {
    Conv2dConfig { inputs, outputs, kernel, stride, padding: kernel / 2, weight: Init::RESNET, bias: None }
}
