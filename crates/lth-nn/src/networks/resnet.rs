//! Residual networks.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_kernels::{Layout, Pool2dParams};
use lth_train::{Network, Parameters, Pass};

use super::head::{BuiltHead, HeadSize};
use super::residual::{Block, BlockConfig};
use super::{BlockKind, Freeze, Head, InitScheme, Shortcut, TappedNetwork, check_classes, check_images};
use crate::packed::{PackedNetwork, Step};
use crate::{After, BatchNorm, Builder, Context, Conv2d, Error, Patterns, Setup, Sparse, Tap};

/// Between ImageNet's stem and the first block.
const STEM_POOL: Pool2dParams = Pool2dParams { kernel: (3, 3), stride: (2, 2), padding: (1, 1), layout: Layout::Nchw };

/// What is before the first block of a [`ResNet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stem {
    /// A 7×7 convolution with stride 2 and a 3×3 maximum with stride 2: a quarter of the height and width.
    ImageNet,
    /// A 3×3 convolution, at full height and width.
    Cifar,
}

/// The shape of a [`ResNet`] and how it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResNetConfig {
    /// Channels of the input, 3 for colours.
    pub channels: usize,
    /// What is before the first block.
    pub stem: Stem,
    /// The blocks' convolutions.
    pub block: BlockKind,
    /// Blocks of each stage. From the second on a stage halves height and width and doubles the channels.
    pub blocks: Vec<usize>,
    /// Inner channels of the first stage's blocks.
    pub width: usize,
    /// The way around the first block of a stage.
    pub shortcut: Shortcut,
    /// Initial values; those of fastai's head are always fastai's.
    pub init: InitScheme,
    /// Number of classes.
    pub classes: usize,
    /// The head.
    pub head: Head,
    /// The order of axes inside; by default what is fastest for the batch at hand ([`Layout::for_batch`]).
    pub layout: Option<Layout>,
}

impl ResNetConfig {
    /// ResNet-18 for ImageNet: two blocks a stage. Source: He et al. 2016, table 1; torchvision's `resnet18`.
    pub fn resnet18(classes: usize, head: Head) -> Self {
        Self {
            channels: 3,
            stem: Stem::ImageNet,
            block: BlockKind::Basic,
            blocks: vec![2; 4],
            width: 64,
            shortcut: Shortcut::Projection,
            init: InitScheme::Torchvision,
            classes,
            head,
            layout: None,
        }
    }

    /// ResNet-34.
    pub fn resnet34(classes: usize, head: Head) -> Self {
        Self { blocks: vec![3, 4, 6, 3], ..Self::resnet18(classes, head) }
    }

    /// ResNet-50, with torchvision's place for the stride ([`BlockKind::Bottleneck`]).
    pub fn resnet50(classes: usize, head: Head) -> Self {
        Self { block: BlockKind::Bottleneck, ..Self::resnet34(classes, head) }
    }

    /// The ResNet of 6n + 2 layers for CIFAR, of `n` blocks a stage: ResNet-20 for 3, ResNet-56 for 9. Three stages of 16,
    /// 32 and 64 channels behind a 3×3 convolution. Source: He et al. 2016, §4.2, which has [`Shortcut::Padding`];
    /// open_lth's `cifar_resnet_20` has [`Shortcut::Projection`]. Starts as [`InitScheme::OpenLth`].
    pub fn cifar(n: usize, shortcut: Shortcut, classes: usize) -> Self {
        Self {
            stem: Stem::Cifar,
            blocks: vec![n; 3],
            width: 16,
            shortcut,
            init: InitScheme::OpenLth,
            ..Self::resnet18(classes, Head::Fc)
        }
    }

    /// What goes around each block, in order; none where the input itself is added.
    fn shortcuts(&self) -> impl Iterator<Item = Option<Shortcut>> {
        let stages = self.blocks.iter().enumerate();
        stages.flat_map(|(stage_idx, &n_blocks)| {
            let first = self.shortcut_into(stage_idx);
            (0..n_blocks).map(move |block_idx| first.filter(|_| block_idx == 0))
        })
    }

    /// What goes around a stage's first block.
    pub(crate) fn shortcut_into(&self, stage_idx: usize) -> Option<Shortcut> {
        (stage_idx > 0 || self.block.expansion() > 1).then_some(self.shortcut)
    }

    fn check(&self, widths: &ResNetWidths) -> Result<(), Error> {
        check_classes(self.classes)?;
        let mut counts = [self.channels, self.width].into_iter().chain(self.blocks.iter().copied());
        if self.blocks.is_empty() || counts.any(|count| count == 0) {
            let got = format!("{:?} with {} channels of {} inputs", self.blocks, self.width, self.channels);
            return Err(Error::Config { what: "blocks of the stages", got, expected: "at least 1 each" });
        }
        let n_inner = self.blocks.iter().sum::<usize>() * (self.block.n_convolutions() - 1);
        if widths.inner.len() != n_inner {
            let got = widths.inner.len().to_string();
            let expected = "one for each convolution of each block but its last";
            return Err(Error::Config { what: "number of inner widths", got, expected });
        }
        if widths.streams.len() != self.blocks.len() {
            let got = widths.streams.len().to_string();
            return Err(Error::Config { what: "number of streams", got, expected: "one for each stage" });
        }
        if self.shortcut_into(0).is_none() && widths.streams[0] != widths.stem {
            let got = widths.stem.to_string();
            return Err(Error::Config { what: "width of the stem", got, expected: "that of the first stage" });
        }
        Ok(())
    }
}

/// A residual network for pictures, with torchvision's names.
///
/// `conv1`, `bn1`, blocks `layer1.0` and so on (`conv1`, `bn1`, `conv2`, `bn2`, …, and `downsample.0` and `.1` where option B
/// goes around one), then the head. In networks for CIFAR the usual implementations in PyTorch say `linear` for `fc` and
/// `shortcut` for `downsample`; otherwise their names are these, too.
///
/// Sources: He et al. 2016; torchvision 0.29.
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
    pool: Option<Pool2dParams>,
    blocks: Vec<Block>,
    head: BuiltHead,
    channels: usize,
    layout: Option<Layout>,
    parameters: Parameters,
}

/// How many channels a [`ResNet`] has where they are free to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResNetWidths {
    /// Outputs of the stem; those of the first stage where its first block adds its input itself.
    pub stem: usize,
    /// Outputs of the stages.
    pub streams: Vec<usize>,
    /// Outputs of each convolution of each block but its last, in order.
    pub inner: Vec<usize>,
    /// Between the linear layers of fastai's head.
    pub hidden: usize,
}

impl ResNetWidths {
    /// The usual ones: twice as many in each stage as in the one before, the same in all of its blocks.
    pub fn usual(config: &ResNetConfig) -> Self {
        let n_inner = config.block.n_convolutions() - 1;
        let widths = || {
            config.blocks.iter().scan(config.width, |next, &n_blocks| {
                let width = *next;
                *next *= 2;
                Some((width, n_blocks))
            })
        };
        Self {
            stem: config.width,
            streams: widths().map(|(width, _)| width * config.block.expansion()).collect(),
            inner: widths().flat_map(|(width, n_blocks)| std::iter::repeat_n(width, n_blocks * n_inner)).collect(),
            hidden: 512,
        }
    }
}

impl ResNet {
    /// Channels that enter the head of ResNet-18 and ResNet-34, unless they have widths of their own.
    pub const FEATURES: usize = 512;

    /// A new network.
    /// # Errors
    /// If a stage has no block, or there are no classes or no channels.
    pub fn new(config: &ResNetConfig, setup: &Setup) -> Result<Self, Error> {
        Self::with_widths(config, &ResNetWidths::usual(config), setup)
    }

    /// A new network with widths of its own.
    /// # Errors
    /// As `new`, and if the widths are not as many as the blocks need, or a padding would have to take channels away.
    pub fn with_widths(config: &ResNetConfig, widths: &ResNetWidths, setup: &Setup) -> Result<Self, Error> {
        config.check(widths)?;
        let init = config.init;
        let mut parameters = Parameters::new();
        let mut root = Builder::new(setup, &mut parameters);
        let (kernel, stride, pool) = match config.stem {
            Stem::ImageNet => (7, 2, Some(STEM_POOL)),
            Stem::Cifar => (3, 1, None),
        };
        let conv1 = init.conv(&mut root.at("conv1"), [config.channels, widths.stem], kernel, stride)?;
        let bn1 = init.norm(&mut root.at("bn1"), widths.stem)?;
        let mut inputs = widths.stem;
        let mut blocks = Vec::new();
        let mut inner = widths.inner.chunks(config.block.n_convolutions() - 1);
        let mut shortcuts = config.shortcuts();
        for (stage_idx, (&n_blocks, &outputs)) in config.blocks.iter().zip(&widths.streams).enumerate() {
            let layers = inner.by_ref().zip(shortcuts.by_ref()).take(n_blocks).enumerate();
            for (block_idx, (inner, shortcut)) in layers {
                let stride = if stage_idx > 0 && block_idx == 0 { 2 } else { 1 };
                let kind = config.block;
                let mut builder = root.at(format!("layer{}.{block_idx}", stage_idx + 1));
                blocks.push(Block::new(
                    &mut builder,
                    &BlockConfig { kind, inputs, inner, outputs, stride, shortcut, init },
                )?);
                inputs = outputs;
            }
        }
        let size = HeadSize { channels: inputs, hidden: widths.hidden, classes: config.classes };
        let head = BuiltHead::new(&mut root, config.head, size, init)?;
        Ok(Self { conv1, bn1, pool, blocks, head, channels: config.channels, layout: config.layout, parameters })
    }

    /// Sets which parameters train.
    pub fn freeze(&self, freeze: Freeze) {
        freeze.apply(&self.parameters, self.head.prefix());
    }

    /// The average of each of the last feature maps, [N, 512] in ResNet-18: what enters torchvision's `fc`, whatever the
    /// head.
    /// # Errors  as `forward`.
    pub fn features(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        let mut context = self.context(x, pass, None)?;
        let x = self.body(x, &mut context)?;
        lth_kernels::global_avg_pool(&x, context.layout)
    }

    /// The last feature maps, [N, 512, height / 32, width / 32] rounded up in ResNet-18.
    /// # Errors  as `forward`.
    pub fn feature_maps(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        let mut context = self.context(x, pass, None)?;
        let x = self.body(x, &mut context)?;
        lth_kernels::to_layout(&x, context.layout, Layout::Nchw)
    }

    /// The network for inference, with its weights and masks as they are now.
    /// # Errors  if its values are not f32 or candle fails.
    pub fn packed(&self) -> Result<PackedNetwork, Error> {
        let mut steps = vec![Step::Conv(self.conv1.packed(Some(&self.bn1), true)?)];
        steps.extend(self.pool.map(Step::MaxPool));
        for block in &self.blocks {
            steps.push(Step::Residual(Box::new(block.packed()?)));
        }
        steps.extend(self.head.packed()?);
        Ok(PackedNetwork::new(steps, self.layout))
    }

    fn context<'a>(&self, x: &Tensor, pass: &Pass, tap: Option<Tap<'a>>) -> candle_core::Result<Context<'a>> {
        let n = check_images(x, self.channels)?;
        Ok(Context::new(pass, self.layout.unwrap_or_else(|| Layout::for_batch(n, x.device())), tap))
    }

    fn body(&self, x: &Tensor, context: &mut Context<'_>) -> candle_core::Result<Tensor> {
        let x = lth_kernels::to_layout(x, Layout::Nchw, context.layout)?;
        let x = self.conv1.forward(&x, context)?;
        let mut x = self.bn1.forward(&x, After { max_pool: self.pool, ..After::RELU }, context)?;
        for block in &self.blocks {
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
        self.blocks.set_patterns(&patterns);
        self.head.set_patterns(&patterns);
        Ok(())
    }
}

impl TappedNetwork for ResNet {
    fn forward_with_tap(&self, x: &Tensor, pass: &Pass, tap: Tap<'_>) -> candle_core::Result<Tensor> {
        self.run(x, self.context(x, pass, Some(tap))?)
    }
}
