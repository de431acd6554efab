use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_kernels::Layout;
use lth_train::{Network, Parameters, Pass};

use super::{Freeze, TappedNetwork, check_classes};
use crate::packed::{PackedNetwork, Step};
use crate::{Builder, Context, Error, Init, Linear, Patterns, Setup, Sparse, Tap};

/// The widths of a [`LeNet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeNetConfig {
    /// Values of one input.
    pub inputs: usize,
    /// Units of the two hidden layers.
    pub hidden: (usize, usize),
    /// Number of classes.
    pub classes: usize,
}

impl Default for LeNetConfig {
    /// LeNet-300-100 for MNIST: 784 inputs, 10 classes.
    fn default() -> Self {
        Self { inputs: 784, hidden: (300, 100), classes: 10 }
    }
}

/// LeNet-300-100: three linear layers `fc1`, `fc2`, `fc3` with ReLU between. Inputs of any shape are flattened.
///
/// Weights start Glorot normal and biases at 0. Source: LeCun et al. 1998; initialised as in Frankle & Carbin 2019, §2.
#[derive(Clone, Debug)]
pub struct LeNet {
    layers: Vec<Linear>,
    parameters: Parameters,
}

impl LeNet {
    /// A new network.
    /// # Errors  if there are no classes.
    pub fn new(config: &LeNetConfig, setup: &Setup) -> Result<Self, Error> {
        check_classes(config.classes)?;
        let mut parameters = Parameters::new();
        let mut root = Builder::new(setup, &mut parameters);
        let layers = dense_layers(&mut root, &[config.inputs, config.hidden.0, config.hidden.1, config.classes])?;
        Ok(Self { layers, parameters })
    }

    /// Sets which parameters train; the head is the last layer, `fc3`.
    pub fn freeze(&self, freeze: Freeze) {
        freeze.apply(&self.parameters, "fc3");
    }

    /// The network for inference, with its weights and masks as they are now.
    /// # Errors  if its values are not f32 or candle fails.
    pub fn packed(&self) -> Result<PackedNetwork, Error> {
        Ok(PackedNetwork::new(dense_packed(&self.layers)?, None))
    }
}

impl Network for LeNet {
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        lth_kernels::in_pool(|| dense_forward(&self.layers, &x.flatten_from(1)?, &mut Context::nchw(pass)))
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn set_masks(&mut self, masks: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        self.layers.set_patterns(&Patterns::new(&self.parameters, masks)?);
        Ok(())
    }
}

impl TappedNetwork for LeNet {
    fn forward_with_tap(&self, x: &Tensor, pass: &Pass, tap: Tap<'_>) -> candle_core::Result<Tensor> {
        dense_forward(&self.layers, &x.flatten_from(1)?, &mut Context::new(pass, Layout::Nchw, Some(tap)))
    }
}

/// Linear layers `fc1`, `fc2`, … from each width to the next, with biases.
pub(super) fn dense_layers(root: &mut Builder<'_>, widths: &[usize]) -> Result<Vec<Linear>, Error> {
    let layer = |(idx, pair): (usize, &[usize])| {
        let bias = Some(Init::Constant(0.));
        Linear::new(&mut root.at(format!("fc{}", idx + 1)), pair[0], pair[1], Init::GlorotNormal, bias)
    };
    widths.windows(2).enumerate().map(layer).collect()
}

/// The layers one after the other with ReLU between.
pub(super) fn dense_forward(layers: &[Linear], x: &Tensor, context: &mut Context<'_>) -> candle_core::Result<Tensor> {
    let mut x = x.clone();
    for (idx, layer) in layers.iter().enumerate() {
        if idx > 0 {
            x = lth_kernels::relu(&x)?;
        }
        x = layer.forward(&x, context)?;
    }
    Ok(x)
}

/// The same for inference.
pub(super) fn dense_packed(layers: &[Linear]) -> candle_core::Result<Vec<Step>> {
    let mut steps = vec![Step::Flatten];
    for (idx, layer) in layers.iter().enumerate() {
        steps.push(Step::Linear(layer.packed(None, idx + 1 < layers.len())?));
    }
    Ok(steps)
}
