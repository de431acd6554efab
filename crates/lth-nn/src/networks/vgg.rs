use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_kernels::{Layout, Pool2dParams};
use lth_train::{Network, Parameters, Pass};

use super::{TappedNetwork, check_classes, check_images};
use crate::packed::{PackedNetwork, Step};
use crate::{
    After, BatchNorm, Builder, Context, Conv2d, Conv2dConfig, Error, Init, Linear, Patterns, Setup, Sparse, Tap,
};

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
    fn stages(self) -> [usize; 5] {
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
    /// Number of classes.
    pub classes: usize,
}

/// A VGG with batch norm as the lottery-ticket literature trains it, for pictures of at least 16×16: 3×3 convolutions
/// with batch norm and ReLU in five stages, 2×2 max pooling between them, the average over positions, one linear layer.
///
/// Convolutions and norms have the names of torchvision's `vgg11_bn` to `vgg19_bn` (`features.0`, `features.1`, …).
/// Differs from torchvision: no bias before a norm, no pooling after the last stage, and `classifier` is one layer, as
/// in open_lth. Source: Simonyan & Zisserman 2015; Frankle & Carbin 2019, §4.
#[derive(Clone, Debug)]
pub struct Vgg {
    stages: Vec<Vec<(Conv2d, BatchNorm)>>,
    classifier: Linear,
    parameters: Parameters,
}

impl Vgg {
    /// A new network; convolutions start Kaiming normal (fan out), the classifier with PyTorch's default.
    /// # Errors  if there are no classes.
    pub fn new(config: &VggConfig, setup: &Setup) -> Result<Self, Error> {
        check_classes(config.classes)?;
        let mut parameters = Parameters::new();
        let mut root = Builder::new(setup, &mut parameters);
        let mut stages = Vec::new();
        let (mut inputs, mut idx) = (3, 0);
        for (n_convolutions, outputs) in config.depth.stages().into_iter().zip([64, 128, 256, 512, 512]) {
            let mut stage = Vec::new();
            for _ in 0..n_convolutions {
                let conv = Conv2dConfig {
                    inputs,
                    outputs,
                    kernel: 3,
                    stride: 1,
                    padding: 1,
                    weight: Init::RESNET,
                    bias: None,
                };
                let conv = Conv2d::new(&mut root.at(format!("features.{idx}")), &conv)?;
                stage.push((conv, BatchNorm::new(&mut root.at(format!("features.{}", idx + 1)), outputs, 0.)?));
                inputs = outputs;
                idx += 3; // convolution, norm, ReLU
            }
            stages.push(stage);
            idx += 1; // pooling
        }
        let bias = Some(Init::torch_bias(inputs));
        let classifier = Linear::new(&mut root.at("classifier"), inputs, config.classes, Init::TORCH, bias)?;
        Ok(Self { stages, classifier, parameters })
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
        let n = check_images(x, 3)?;
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
