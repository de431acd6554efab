use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_kernels::{Layout, Pool2dParams};
use lth_train::{Network, Parameters, Pass};

use super::{Freeze, InitScheme, TappedNetwork, check_classes, check_images};
use crate::packed::{PackedNetwork, Step};
use crate::{After, BatchNorm, Builder, Context, Conv2d, Error, Linear, Patterns, Setup, Sparse, Tap};

/// Between stages.
const POOL: Pool2dParams = Pool2dParams { kernel: (2, 2), stride: (2, 2), padding: (0, 0), layout: Layout::Nchw };

/// How many layers with weights a [`Vgg`] would have with VGG's original three linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VggDepth {
    /// VGG-11, eight convolutions.
    Eleven,
    /// VGG-13, ten convolutions.
    Thirteen,
    /// VGG-16, thirteen convolutions.
    Sixteen,
    /// VGG-19, sixteen convolutions.
    Nineteen,
}

impl VggDepth {
    /// Convolutions of each of the five stages.
    pub(crate) fn stages(self) -> [usize; 5] {
        match self {
            Self::Eleven => [1, 1, 2, 2, 2],
            Self::Thirteen => [2, 2, 2, 2, 2],
            Self::Sixteen => [2, 2, 3, 3, 3],
            Self::Nineteen => [2, 2, 4, 4, 4],
        }
    }
}

/// The shape of a [`Vgg`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VggConfig {
    /// How many layers.
    pub depth: VggDepth,
    /// Channels of the input, 3 for colours.
    pub channels: usize,
    /// Initial values.
    pub init: InitScheme,
    /// Number of classes.
    pub classes: usize,
}

impl VggConfig {
    /// For colours, started as [`InitScheme::OpenLth`].
    pub fn new(depth: VggDepth, classes: usize) -> Self {
        Self { depth, channels: 3, init: InitScheme::OpenLth, classes }
    }

    /// Outputs of each convolution, by stage: 64, 128, 256, 512, 512.
    fn widths(&self) -> Vec<Vec<usize>> {
        self.depth.stages().into_iter().zip([64, 128, 256, 512, 512]).map(|(n, width)| vec![width; n]).collect()
    }

    /// The number in torchvision's name `features.<number>` of each convolution, by stage; its norm has the next.
    pub(crate) fn indices(&self) -> Vec<Vec<usize>> {
        let mut idx = 0;
        let mut stage = |n_convolutions| {
            let first = idx;
            idx += 3 * n_convolutions + 1; // convolution, norm, ReLU; the pooling
            (0..n_convolutions).map(|n| first + 3 * n).collect()
        };
        self.depth.stages().into_iter().map(&mut stage).collect()
    }
}

/// A VGG with batch norm as the lottery-ticket literature trains it, for pictures of at least 16×16: 3×3 convolutions
/// with batch norm and ReLU in five stages, 2×2 max pooling between them, the average over positions, one linear layer.
///
/// Convolutions and norms have the names of torchvision's `vgg11_bn` to `vgg19_bn` (`features.0`, `features.1`, …).
/// Differs from torchvision: no bias before a norm (open_lth has one; the norm takes it away again), no pooling after the
/// last stage, and `classifier` is one layer, as in open_lth. Source: Simonyan & Zisserman 2015; Frankle & Carbin 2019, §4;
/// open_lth's `cifar_vgg_16`.
#[derive(Clone, Debug)]
pub struct Vgg {
    stages: Vec<Vec<(Conv2d, BatchNorm)>>,
    classifier: Linear,
    channels: usize,
    parameters: Parameters,
}

impl Vgg {
    /// A new network.
    /// # Errors
    /// If there are no classes or no channels.
    pub fn new(config: &VggConfig, setup: &Setup) -> Result<Self, Error> {
        Self::with_widths(config, &config.widths(), setup)
    }

    /// A new network with these outputs of its convolutions, by stage.
    pub(crate) fn with_widths(config: &VggConfig, widths: &[Vec<usize>], setup: &Setup) -> Result<Self, Error> {
        let VggConfig { channels, init, classes, .. } = *config;
        check_classes(classes)?;
        if channels == 0 {
            return Err(Error::Config { what: "number of channels", got: "0".to_owned(), expected: "at least 1" });
        }
        let mut parameters = Parameters::new();
        let mut root = Builder::new(setup, &mut parameters);
        let mut inputs = channels;
        let mut stages = Vec::new();
        for (indices, widths) in config.indices().iter().zip(widths) {
            let mut stage = Vec::new();
            for (idx, &outputs) in indices.iter().zip(widths) {
                let conv = init.conv(&mut root.at(format!("features.{idx}")), [inputs, outputs], 3, 1)?;
                stage.push((conv, init.norm(&mut root.at(format!("features.{}", idx + 1)), outputs)?));
                inputs = outputs;
            }
            stages.push(stage);
        }
        let classifier = init.output(&mut root.at("classifier"), inputs, classes)?;
        Ok(Self { stages, classifier, channels, parameters })
    }

    /// Sets which parameters train; the head is the classifier.
    pub fn freeze(&self, freeze: Freeze) {
        freeze.apply(&self.parameters, "classifier");
    }

    /// The network for inference, with its weights and masks as they are now.
    /// # Errors  if its values are not f32 or candle fails.
    pub fn packed(&self) -> Result<PackedNetwork, Error> {
        let mut steps = Vec::new();
        for (idx, stage) in self.stages.iter().enumerate() {
            if idx > 0 {
                steps.push(Step::MaxPool(POOL));
            }
            for (conv, norm) in stage {
                steps.push(Step::Conv(conv.packed(Some(norm), true)?));
            }
        }
        steps.extend([Step::Average, Step::Linear(self.classifier.packed(None, false)?)]);
        Ok(PackedNetwork::new(steps, None))
    }

    fn run(&self, x: &Tensor, pass: &Pass, tap: Option<Tap<'_>>) -> candle_core::Result<Tensor> {
        let n = check_images(x, self.channels)?;
        let layout = Layout::for_batch(n, x.device());
        let mut context = Context::new(pass, layout, tap);
        let mut x = lth_kernels::to_layout(x, Layout::Nchw, layout)?;
        for (stage_idx, stage) in self.stages.iter().enumerate() {
            for (idx, (conv, norm)) in stage.iter().enumerate() {
                let y = conv.forward(&x, &mut context)?;
                let ends_stage = idx + 1 == stage.len() && stage_idx + 1 < self.stages.len();
                x = norm.forward(&y, After { max_pool: ends_stage.then_some(POOL), ..After::RELU }, &context)?;
            }
        }
        self.classifier.forward(&lth_kernels::global_avg_pool(&x, layout)?, &mut context)
    }
}

impl Network for Vgg {
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        lth_kernels::in_pool(|| self.run(x, pass, None))
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn set_masks(&mut self, masks: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        let patterns = Patterns::new(&self.parameters, masks)?;
        self.stages.iter_mut().flatten().for_each(|(conv, _)| conv.set_patterns(&patterns));
        self.classifier.set_patterns(&patterns);
        Ok(())
    }
}

impl TappedNetwork for Vgg {
    fn forward_with_tap(&self, x: &Tensor, pass: &Pass, tap: Tap<'_>) -> candle_core::Result<Tensor> {
        self.run(x, pass, Some(tap))
    }
}
