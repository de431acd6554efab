//! The names of networks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ConvNetDepth, Error, Shortcut, Stem, VggDepth};

/// The depths that ResNets for ImageNet have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResNetDepth {
    /// Two basic blocks a stage.
    Eighteen,
    /// Three, four, six and three basic blocks.
    ThirtyFour,
    /// As many bottleneck blocks.
    Fifty,
}

/// A network of the literature. What is typed, what JSON says and what is printed are the same word.
///
/// | word | network |
/// |---|---|
/// | `lenet-300-100` | [`LeNet`](crate::LeNet) |
/// | `conv-2`, `conv-4`, `conv-6` | [`ConvNet`](crate::ConvNet) |
/// | `resnet-20`, `-32`, `-44`, `-56`, `-110` | [`ResNet`](crate::ResNet) for CIFAR as He et al. 2016 have it, inputs padded (option A) |
/// | `resnet-20-b` and so on | the same with projections (option B), as open_lth has it |
/// | `resnet-18`, `-34`, `-50` | [`ResNet`](crate::ResNet) for ImageNet; `resnet18` and so on are read, too |
/// | `resnet-18-cifar` and so on | the same behind a 3×3 convolution without pooling |
/// | `vgg-11`, `-13`, `-16`, `-19` | [`Vgg`](crate::Vgg): batch norm, one linear layer |
///
/// ```
/// use lth_nn::{NetworkName, Shortcut};
///
/// let name: NetworkName = "resnet-20-b".parse()?;
/// assert_eq!(name, NetworkName::CifarResNet { n_blocks: 3, shortcut: Shortcut::Projection });
/// assert_eq!(name.to_string(), "resnet-20-b");
/// assert_eq!("resnet18".parse::<NetworkName>()?.to_string(), "resnet-18");
/// # Ok::<(), lth_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NetworkName {
    /// LeNet-300-100.
    LeNet300100,
    /// Conv-2, Conv-4 or Conv-6.
    ConvNet(ConvNetDepth),
    /// A ResNet of 6n + 2 layers for CIFAR.
    CifarResNet {
        /// Blocks of each of the three stages: 3, 5, 7, 9 or 18.
        n_blocks: usize,
        /// What goes around the first block of the second and the third.
        shortcut: Shortcut,
    },
    /// ResNet-18, ResNet-34 or ResNet-50.
    ResNet {
        /// How many layers.
        depth: ResNetDepth,
        /// What is before the first block.
        stem: Stem,
    },
    /// A VGG with batch norm.
    Vgg(VggDepth),
}

/// ResNet-20, -32, -44, -56 and -110. Source: He et al. 2016, table 6.
const CIFAR_BLOCKS: [usize; 5] = [3, 5, 7, 9, 18];

impl NetworkName {
    /// All of them, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        let conv = [ConvNetDepth::Two, ConvNetDepth::Four, ConvNetDepth::Six].map(Self::ConvNet);
        let cifar = |shortcut| CIFAR_BLOCKS.map(|n_blocks| Self::CifarResNet { n_blocks, shortcut });
        let depths = [ResNetDepth::Eighteen, ResNetDepth::ThirtyFour, ResNetDepth::Fifty];
        let resnet = |stem| depths.map(|depth| Self::ResNet { depth, stem });
        let vgg = [VggDepth::Eleven, VggDepth::Thirteen, VggDepth::Sixteen, VggDepth::Nineteen].map(Self::Vgg);
        std::iter::once(Self::LeNet300100)
            .chain(conv)
            .chain(cifar(Shortcut::Padding))
            .chain(cifar(Shortcut::Projection))
            .chain(resnet(Stem::ImageNet))
            .chain(resnet(Stem::Cifar))
            .chain(vgg)
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::LeNet300100 => f.write_str("lenet-300-100"),
            Self::ConvNet(depth) => {
                let n_layers = match depth {
                    ConvNetDepth::Two => 2,
                    ConvNetDepth::Four => 4,
                    ConvNetDepth::Six => 6,
                };
                write!(f, "conv-{n_layers}")
            }
            Self::CifarResNet { n_blocks, shortcut } => {
                let option = if shortcut == Shortcut::Projection { "-b" } else { "" };
                write!(f, "resnet-{}{option}", 6 * n_blocks + 2)
            }
            Self::ResNet { depth, stem } => {
                let n_layers = match depth {
                    ResNetDepth::Eighteen => 18,
                    ResNetDepth::ThirtyFour => 34,
                    ResNetDepth::Fifty => 50,
                };
                write!(f, "resnet-{n_layers}{}", if stem == Stem::Cifar { "-cifar" } else { "" })
            }
            Self::Vgg(depth) => {
                let n_layers = match depth {
                    VggDepth::Eleven => 11,
                    VggDepth::Thirteen => 13,
                    VggDepth::Sixteen => 16,
                    VggDepth::Nineteen => 19,
                };
                write!(f, "vgg-{n_layers}")
            }
        }
    }
}

impl FromStr for NetworkName {
    type Err = Error;

    /// # Errors
    /// If there is no such network; the message lists all.
    fn from_str(name: &str) -> Result<Self, Error> {
        // As torchvision spells it, and as tickets of this project once did.
        let spelled = match name {
            "resnet18" => "resnet-18",
            "resnet34" => "resnet-34",
            "resnet50" => "resnet-50",
            other => other,
        };
        let unknown = || {
            let known: Vec<String> = Self::all().map(|name| name.to_string()).collect();
            Error::UnknownNetwork { got: name.to_owned(), expected: known.join(", ") }
        };
        Self::all().find(|known| known.to_string() == spelled).ok_or_else(unknown)
    }
}

impl TryFrom<String> for NetworkName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        name.parse()
    }
}

impl From<NetworkName> for String {
    fn from(name: NetworkName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_read_as_it_is_written_and_is_there_once() -> Result<(), Box<dyn std::error::Error>> {
        let mut seen = BTreeSet::new();
        for name in NetworkName::all() {
            assert_eq!(name.to_string().parse::<NetworkName>()?, name);
            let json = serde_json::to_string(&name)?;
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<NetworkName>(&json)?, name);
            assert!(seen.insert(name.to_string()), "{name} is there twice");
        }
        assert_eq!(seen.len(), 1 + 3 + 5 + 5 + 3 + 3 + 4);
        Ok(())
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_that_there_are() {
        let message = "resnet-19".parse::<NetworkName>().map_err(|error| error.to_string()).err().unwrap_or_default();
        assert!(
            message.starts_with("network: name is `resnet-19`, expected one of lenet-300-100, conv-2,"),
            "{message}"
        );
        for near in ["", "ResNet-18", "resnet-18 ", "lenet", "vgg16"] {
            assert!(near.parse::<NetworkName>().is_err(), "{near:?}");
        }
    }
}
