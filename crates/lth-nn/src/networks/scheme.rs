//! How the networks of the papers start.

use crate::{BatchNorm, Builder, Conv2d, Conv2dConfig, Error, Init, Linear};

/// The distributions of a whole network's initial values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InitScheme {
    /// Weights Glorot normal, biases 0, norms' scales 1. Source: Frankle & Carbin 2019, figure 2 ("Gaussian Glorot").
    Glorot,
    /// Weights Kaiming normal over the inputs, biases 0, norms' scales 1. Source: He et al. 2015, §2.2, as He et al. 2016,
    /// §4.2 ask for.
    He,
    /// Weights Kaiming normal over the inputs, norms' scales uniform in (0, 1), the output layer's bias as PyTorch's
    /// default. Source: open_lth's `kaiming_normal` and `uniform`, with which Frankle et al. 2020 and 2021 trained.
    OpenLth,
    /// Convolutions Kaiming normal over the outputs, norms' scales 1, the output layer with PyTorch's default. Source:
    /// torchvision's `ResNet`.
    Torchvision,
}

impl InitScheme {
    /// A convolution without bias, its padding half of its kernel.
    pub(super) fn conv(
        self,
        builder: &mut Builder<'_>,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
    ) -> Result<Conv2d, Error> {
        let weight = match self {
            Self::Glorot => Init::GlorotNormal,
            Self::He | Self::OpenLth => Init::FASTAI,
            Self::Torchvision => Init::RESNET,
        };
        let padding = kernel / 2;
        Conv2d::new(builder, &Conv2dConfig { inputs, outputs, kernel, stride, padding, weight, bias: None })
    }

    pub(super) fn norm(self, builder: &mut Builder<'_>, channels: usize) -> Result<BatchNorm, Error> {
        let scale = match self {
            Self::OpenLth => Init::Between { low: 0., high: 1. },
            Self::Glorot | Self::He | Self::Torchvision => Init::Constant(1.),
        };
        BatchNorm::with_scale(builder, channels, scale, 0.)
    }

    /// The linear layer that gives the logits.
    pub(super) fn output(self, builder: &mut Builder<'_>, inputs: usize, outputs: usize) -> Result<Linear, Error> {
        let (weight, bias) = match self {
            Self::Glorot => (Init::GlorotNormal, Init::Constant(0.)),
            Self::He => (Init::FASTAI, Init::Constant(0.)),
            Self::OpenLth => (Init::FASTAI, Init::torch_bias(inputs)),
            Self::Torchvision => (Init::TORCH, Init::torch_bias(inputs)),
        };
        Linear::new(builder, inputs, outputs, weight, Some(bias))
    }
}
