use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_kernels::{Layout, Pool2dParams};
use lth_train::{Network, Parameters, Pass};

use super::lenet::{dense_forward, dense_layers, dense_packed};
use super::{Freeze, TappedNetwork, check_classes, check_images};
use crate::packed::{PackedNetwork, Step};
use crate::{Builder, Context, Conv2d, Conv2dConfig, Error, Init, Linear, Patterns, Setup, Sparse, Tap};

/// After each pair of convolutions.
const POOL: Pool2dParams = Pool2dParams { kernel: (2, 2), stride: (2, 2), padding: (0, 0), layout: Layout::Nchw };

/// How many convolutions a [`ConvNet`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvNetDepth {
    /// Conv-2: 64, 64.
    Two,
    /// Conv-4: 64, 64, 128, 128.
    Four,
    /// Conv-6: 64, 64, 128, 128, 256, 256.
    Six,
}

impl ConvNetDepth {
    /// Channels of each pair of convolutions.
    fn widths(self) -> &'static [usize] {
        match self {
            Self::Two => &[64],
            Self::Four => &[64, 128],
            Self::Six => &[64, 128, 256],
        }
    }
}

/// The shape of a [`ConvNet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvNetConfig {
    /// How many convolutions.
    pub depth: ConvNetDepth,
    /// Channels, height and width of the input.
    pub input: (usize, usize, usize),
    /// Number of classes.
    pub classes: usize,
}

impl ConvNetConfig {
    /// For CIFAR-10: 3×32×32 inputs, 10 classes.
    pub fn cifar10(depth: ConvNetDepth) -> Self {
        Self { depth, input: (3, 32, 32), classes: 10 }
    }

    /// Values that enter the first linear layer.
    pub(crate) fn n_features(&self) -> usize {
        let (_, height, width) = self.input;
        let last = self.depth.widths().last().copied().unwrap_or(0);
        last * (height >> self.n_pairs()) * (width >> self.n_pairs())
    }

    pub(crate) fn n_pairs(&self) -> usize {
        self.depth.widths().len()
    }
}

/// Conv-2, Conv-4 or Conv-6: pairs of 3×3 convolutions `conv1`, `conv2`, … each pair followed by 2×2 max pooling, then
/// linear layers `fc1` (256), `fc2` (256) and `fc3`; all with biases and ReLU.
///
/// Weights start Glorot normal and biases at 0. Source: Frankle & Carbin 2019, figure 2.
#[derive(Clone, Debug)]
pub struct ConvNet {
    input: (usize, usize, usize),
    pairs: Vec<[Conv2d; 2]>,
    dense: Vec<Linear>,
    parameters: Parameters,
}

impl ConvNet {
    /// A new network.
    /// # Errors  if there are no classes or the input is too small for the poolings.
    pub fn new(config: &ConvNetConfig, setup: &Setup) -> Result<Self, Error> {
        let pairs: Vec<[usize; 2]> = config.depth.widths().iter().map(|&width| [width; 2]).collect();
        Self::with_widths(config, &pairs, [256; 2], setup)
    }

    /// A new network with these channels in its convolutions and units in its hidden linear layers.
    pub(crate) fn with_widths(
        config: &ConvNetConfig,
        widths: &[[usize; 2]],
        dense: [usize; 2],
        setup: &Setup,
    ) -> Result<Self, Error> {
        check_classes(config.classes)?;
        let (mut inputs, mut height, mut width) = config.input;
        let mut parameters = Parameters::new();
        let mut root = Builder::new(setup, &mut parameters);
        let mut pairs = Vec::new();
        for (idx, &[inner, outputs]) in widths.iter().enumerate() {
            let first = Conv2d::new(&mut root.at(format!("conv{}", 2 * idx + 1)), &convolution(inputs, inner))?;
            let second = Conv2d::new(&mut root.at(format!("conv{}", 2 * idx + 2)), &convolution(inner, outputs))?;
            pairs.push([first, second]);
            (inputs, height, width) = (outputs, height / 2, width / 2);
        }
        if inputs * height * width == 0 {
            let got = format!("{:?}", config.input);
            return Err(Error::Config { what: "input shape", got, expected: "large enough for a pooling per pair" });
        }
        let dense = dense_layers(&mut root, &[inputs * height * width, dense[0], dense[1], config.classes])?;
        Ok(Self { input: config.input, pairs, dense, parameters })
    }

    /// Sets which parameters train; the head is the last layer, `fc3`.
    pub fn freeze(&self, freeze: Freeze) {
        freeze.apply(&self.parameters, "fc3");
    }

    /// The network for inference, with its weights and masks as they are now.
    /// # Errors  if its values are not f32 or candle fails.
    pub fn packed(&self) -> Result<PackedNetwork, Error> {
        let mut steps = Vec::new();
        for pair in &self.pairs {
            for conv in pair {
                steps.push(Step::Conv(conv.packed(None, true)?));
            }
            steps.push(Step::MaxPool(POOL));
        }
        steps.extend(dense_packed(&self.dense)?);
        Ok(PackedNetwork::new(steps, None))
    }

    fn run(&self, x: &Tensor, pass: &Pass, tap: Option<Tap<'_>>) -> candle_core::Result<Tensor> {
        let (channels, height, width) = self.input;
        let n = check_images(x, channels)?;
        if x.dims()[2..] != [height, width] {
            candle_core::bail!("input has shape {:?}, expected [N, {channels}, {height}, {width}]", x.dims());
        }
        let layout = Layout::for_batch(n, x.device());
        let mut context = Context::new(pass, layout, tap);
        let mut x = lth_kernels::to_layout(x, Layout::Nchw, layout)?;
        for pair in &self.pairs {
            for conv in pair {
                x = conv.forward_relu(&x, &mut context)?;
            }
            x = lth_kernels::max_pool2d(&x, &Pool2dParams { layout, ..POOL })?;
        }
        let x = lth_kernels::to_layout(&x, layout, Layout::Nchw)?;
        let n_inputs: usize = x.dims()[1..].iter().product();
        let x = lth_kernels::reshape(&x, (n, n_inputs))?;
        dense_forward(&self.dense, &x, &mut context)
    }
}

impl Network for ConvNet {
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        lth_kernels::in_pool(|| self.run(x, pass, None))
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn set_masks(&mut self, masks: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        let patterns = Patterns::new(&self.parameters, masks)?;
        self.pairs.iter_mut().flatten().for_each(|conv| conv.set_patterns(&patterns));
        self.dense.set_patterns(&patterns);
        Ok(())
    }
}

impl TappedNetwork for ConvNet {
    fn forward_with_tap(&self, x: &Tensor, pass: &Pass, tap: Tap<'_>) -> candle_core::Result<Tensor> {
        self.run(x, pass, Some(tap))
    }
}

fn convolution(inputs: usize, outputs: usize) -> Conv2dConfig {
    let bias = Some(Init::Constant(0.));
    Conv2dConfig { inputs, outputs, kernel: 3, stride: 1, padding: 1, weight: Init::GlorotNormal, bias }
}
