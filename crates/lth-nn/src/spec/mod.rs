//! A network as data: its name, head, outputs and input.

mod name;
mod recipe;

pub use name::{NetworkName, ResNetDepth};
pub use recipe::{PruningScope, Recipe, RecipeOptimizer};

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    ConvNet, ConvNetConfig, Error, Head, LeNet, LeNetConfig, NamedNetwork, ResNet, ResNetConfig, Setup, Stem, Stream,
    Vgg, VggConfig,
};

/// Larger values in a file are no honest network's, and would ask for gigabytes.
const MAX_OUTPUTS: usize = 100_000;
/// Of an input's channels, rows or columns.
const MAX_SIDE: usize = 4096;
/// Values that enter a first linear layer.
const MAX_FEATURES: usize = 1 << 20;

/// What a network is built from, as plans, tickets and commands hold it.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use lth_nn::{NamedNetwork, NetworkSpec, Setup};
/// use lth_train::{Network, Pass};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let spec: NetworkSpec = serde_json::from_str(r#"{"name": "resnet-20", "n_outputs": 10, "input": [3, 32, 32]}"#)?;
/// let network = spec.build(&Setup::new(42))?;
/// assert_eq!(network.parameters().n_trainable(), 269_722);
/// let x = Tensor::zeros((1, 3, 32, 32), DType::F32, &Device::Cpu)?;
/// assert_eq!(network.packed()?.forward(&x)?.dims(), [1, 10]);
///
/// let small = NetworkSpec { input: vec![3, 8], ..spec };
/// let message = small.build(&Setup::new(42)).map_err(|error| error.to_string()).err();
/// assert_eq!(message.as_deref(), Some("network `resnet-20`: input is [3, 8], expected [channels, height, width]"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Which network.
    pub name: NetworkName,
    /// The head of a ResNet, by default torchvision's `fc`; other networks have their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// Number of outputs: classes, as a rule.
    pub n_outputs: usize,
    /// Shape of one input: `[channels, height, width]`, or `[features]` for a network of linear layers.
    pub input: Vec<usize>,
}

/// A checked spec.
enum Config {
    LeNet(LeNetConfig),
    ConvNet(ConvNetConfig),
    ResNet(ResNetConfig),
    Vgg(VggConfig),
}

impl NetworkSpec {
    /// The network with its usual head.
    pub fn new(name: NetworkName, n_outputs: usize, input: impl Into<Vec<usize>>) -> Self {
        Self { name, head: None, n_outputs, input: input.into() }
    }

    /// Nothing, if the network can be built and takes such inputs.
    /// # Errors
    /// If the input has a rank or size that the network cannot take, the head is not for it, or there are no outputs.
    pub fn check(&self) -> Result<(), Error> {
        self.config().map(|_| ())
    }

    /// A new network that starts as its paper says ([`Recipe`] has the source).
    /// # Errors
    /// As [`NetworkSpec::check`], before anything is built.
    pub fn build(&self, setup: &Setup) -> Result<Box<dyn NamedNetwork>, Error> {
        Ok(match self.config()? {
            Config::LeNet(config) => Box::new(LeNet::new(&config, setup)?),
            Config::ConvNet(config) => Box::new(ConvNet::new(&config, setup)?),
            Config::ResNet(config) => Box::new(ResNet::new(&config, setup)?),
            Config::Vgg(config) => Box::new(Vgg::new(&config, setup)?),
        })
    }

    /// The network that these tensors belong to: as wide as they are, with their values. For a network that was compacted.
    /// # Errors
    /// As [`NetworkSpec::check`]; and if a name is missing or unknown, or a shape does not fit its neighbours, the inputs
    /// or the outputs.
    pub fn from_tensors(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        setup: &Setup,
    ) -> Result<Box<dyn NamedNetwork>, Error> {
        let config = self.config()?;
        let output = self.output_weight();
        let size = |name: &str, axis| tensors.get(name).map(|weight| weight.dim(axis)).transpose();
        if let Some(n) = size(output, 0)?.filter(|&n| n != self.n_outputs) {
            let expected = format!("{n}, as many as `{output}` gives");
            return Err(self.refused("n_outputs", self.n_outputs.to_string(), expected));
        }
        Ok(match config {
            Config::LeNet(config) => {
                let network = LeNet::from_tensors(tensors, setup)?;
                if let Some(n) = size("fc1.weight", 1)?.filter(|&n| n != config.inputs) {
                    let expected = format!("{n} values, as many as `fc1.weight` reads");
                    return Err(self.refused("input", format!("{:?}", self.input), expected));
                }
                Box::new(network)
            }
            Config::ConvNet(config) => Box::new(ConvNet::from_tensors(&config, tensors, setup)?),
            Config::ResNet(config) => Box::new(ResNet::from_tensors(&config, tensors, setup)?),
            Config::Vgg(config) => Box::new(Vgg::from_tensors(&config, tensors, setup)?),
        })
    }

    /// Which tensors each of its channels runs through, for compaction.
    /// # Errors
    /// As [`NetworkSpec::check`].
    pub fn streams(&self) -> Result<Vec<Stream>, Error> {
        Ok(match self.config()? {
            Config::LeNet(_) => LeNet::streams(),
            Config::ConvNet(config) => ConvNet::streams(&config),
            Config::ResNet(config) => ResNet::streams(&config),
            Config::Vgg(config) => Vgg::streams(&config),
        })
    }

    /// The name of the weight that gives the outputs, which is pruned at a rate of its own.
    pub fn output_weight(&self) -> &'static str {
        match self.name {
            NetworkName::LeNet300100 | NetworkName::ConvNet(_) => "fc3.weight",
            NetworkName::CifarResNet { .. } | NetworkName::ResNet { .. } => {
                self.head.unwrap_or(Head::Fc).output_weight()
            }
            NetworkName::Vgg(_) => "classifier.weight",
        }
    }

    fn config(&self) -> Result<Config, Error> {
        if !(1..=MAX_OUTPUTS).contains(&self.n_outputs) {
            return Err(self.refused("n_outputs", self.n_outputs.to_string(), format!("1 to {MAX_OUTPUTS}")));
        }
        let classes = self.n_outputs;
        Ok(match self.name {
            NetworkName::LeNet300100 => {
                self.no_head()?;
                Config::LeNet(LeNetConfig { inputs: self.features()?, classes, ..LeNetConfig::default() })
            }
            NetworkName::ConvNet(depth) => {
                self.no_head()?;
                let input = self.image(1 << ConvNetConfig::cifar10(depth).n_pairs())?;
                let config = ConvNetConfig { depth, input, classes };
                if config.n_features() > MAX_FEATURES {
                    let expected = format!("at most {MAX_FEATURES} values after the last pooling");
                    return Err(self.refused("input", format!("{:?}", self.input), expected));
                }
                Config::ConvNet(config)
            }
            NetworkName::CifarResNet { n_blocks, shortcut } => {
                // Two halvings leave 2×2.
                let (channels, _, _) = self.image(8)?;
                let head = self.head.unwrap_or(Head::Fc);
                Config::ResNet(ResNetConfig { channels, head, ..ResNetConfig::cifar(n_blocks, shortcut, classes) })
            }
            NetworkName::ResNet { depth, stem } => {
                let smallest = match stem {
                    Stem::ImageNet => 32,
                    Stem::Cifar => 8,
                };
                let (channels, _, _) = self.image(smallest)?;
                let head = self.head.unwrap_or(Head::Fc);
                let config = match depth {
                    ResNetDepth::Eighteen => ResNetConfig::resnet18(classes, head),
                    ResNetDepth::ThirtyFour => ResNetConfig::resnet34(classes, head),
                    ResNetDepth::Fifty => ResNetConfig::resnet50(classes, head),
                };
                Config::ResNet(ResNetConfig { channels, stem, ..config })
            }
            NetworkName::Vgg(depth) => {
                self.no_head()?;
                // Four poolings.
                let (channels, _, _) = self.image(16)?;
                Config::Vgg(VggConfig { channels, ..VggConfig::new(depth, classes) })
            }
        })
    }

    fn no_head(&self) -> Result<(), Error> {
        match self.head {
            None => Ok(()),
            Some(head) => Err(self.refused("head", format!("`{head}`"), "none: the network has its own".to_owned())),
        }
    }

    /// The values of one input, whatever its shape.
    fn features(&self) -> Result<usize, Error> {
        let product = self.input.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
        match (self.input.len(), product) {
            (1 | 3, Some(n)) if (1..=MAX_FEATURES).contains(&n) => Ok(n),
            _ => {
                let expected = format!("[features] or [channels, height, width], of 1 to {MAX_FEATURES} values");
                Err(self.refused("input", format!("{:?}", self.input), expected))
            }
        }
    }

    /// Channels, height and width of one input.
    fn image(&self, smallest: usize) -> Result<(usize, usize, usize), Error> {
        let refused = |expected| Err(self.refused("input", format!("{:?}", self.input), expected));
        let [channels, height, width] = self.input[..] else {
            return refused("[channels, height, width]".to_owned());
        };
        if !(1..=MAX_SIDE).contains(&channels) {
            return refused(format!("1 to {MAX_SIDE} channels"));
        }
        if [height, width].iter().any(|side| !(smallest..=MAX_SIDE).contains(side)) {
            return refused(format!("height and width from {smallest} to {MAX_SIDE}"));
        }
        Ok((channels, height, width))
    }

    fn refused(&self, field: &'static str, got: String, expected: String) -> Error {
        Error::NetworkSpec { name: self.name, field, got, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(spec: &NetworkSpec) -> String {
        spec.check().map_err(|error| error.to_string()).err().unwrap_or_default()
    }

    fn spec(name: &str, input: &[usize]) -> Result<NetworkSpec, Error> {
        Ok(NetworkSpec::new(name.parse()?, 10, input))
    }

    #[test]
    fn inputs_that_a_network_cannot_take_are_refused_before_it_is_built() -> Result<(), Error> {
        for (name, input, expected) in [
            ("resnet-18", &[3, 31, 32][..], "height and width from 32 to 4096"),
            ("resnet-50", &[3, 224, 5000], "height and width from 32 to 4096"),
            ("resnet-18-cifar", &[3, 7, 8], "height and width from 8 to 4096"),
            ("resnet-20", &[0, 32, 32], "1 to 4096 channels"),
            ("resnet-20-b", &[784], "[channels, height, width]"),
            ("vgg-16", &[1, 15, 16], "height and width from 16 to 4096"),
            ("conv-6", &[3, 7, 32], "height and width from 8 to 4096"),
            ("conv-2", &[3, 4096, 4096], "at most 1048576 values after the last pooling"),
            ("lenet-300-100", &[28, 28], "[features] or [channels, height, width], of 1 to 1048576 values"),
            ("lenet-300-100", &[usize::MAX, 2, 2], "[features] or [channels, height, width], of 1 to 1048576 values"),
            ("lenet-300-100", &[], "[features] or [channels, height, width], of 1 to 1048576 values"),
        ] {
            assert_eq!(
                message(&spec(name, input)?),
                format!("network `{name}`: input is {input:?}, expected {expected}")
            );
        }
        Ok(())
    }

    #[test]
    fn every_network_takes_the_input_of_its_paper() -> Result<(), Error> {
        for name in NetworkName::all() {
            let input = match name {
                NetworkName::LeNet300100 => vec![1, 28, 28],
                NetworkName::ResNet { stem: Stem::ImageNet, .. } => vec![3, 224, 224],
                _ => vec![3, 32, 32],
            };
            NetworkSpec::new(name, 10, input).check()?;
        }
        Ok(())
    }

    #[test]
    fn a_head_or_number_of_outputs_that_cannot_be_is_refused() -> Result<(), Error> {
        let vgg = NetworkSpec { head: Some(Head::Fc), ..spec("vgg-16", &[3, 32, 32])? };
        assert_eq!(message(&vgg), "network `vgg-16`: head is `fc`, expected none: the network has its own");
        for n_outputs in [0, usize::MAX] {
            let spec = NetworkSpec { n_outputs, ..spec("resnet-20", &[3, 32, 32])? };
            assert_eq!(message(&spec), format!("network `resnet-20`: n_outputs is {n_outputs}, expected 1 to 100000"));
        }
        Ok(())
    }

    #[test]
    fn a_spec_is_read_as_it_is_written_and_no_other_field() -> Result<(), Box<dyn std::error::Error>> {
        let spec = NetworkSpec { head: Some(Head::Fastai), ..spec("resnet-18", &[3, 64, 64])? };
        let json = serde_json::to_string(&spec)?;
        assert_eq!(json, r#"{"name":"resnet-18","head":"fastai","n_outputs":10,"input":[3,64,64]}"#);
        assert_eq!(serde_json::from_str::<NetworkSpec>(&json)?, spec);
        assert_eq!(serde_json::from_str::<NetworkSpec>(&json.replace("resnet-18", "resnet18"))?, spec);
        assert!(serde_json::from_str::<NetworkSpec>(&json.replace("n_outputs", "classes")).is_err());
        Ok(())
    }
}
