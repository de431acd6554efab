//! Networks that are trained, pruned and rewound: their weights are named as torchvision names them.
//!
//! candle's `candle_transformers::models::resnet` runs a ResNet but cannot train it: its batch norm knows evaluation
//! only. Here are networks that train, from layers that train: [`ResNet`] (18, 34 and 50; 20 to 110 layers for CIFAR) with
//! torchvision's or fastai's [`Head`], [`LeNet`] (300-100), [`ConvNet`] (Conv-2, 4, 6) and [`Vgg`]. A [`NetworkSpec`] is any
//! of them as data, by [`NetworkName`]; it starts as its paper says, and [`Recipe`] has the paper's settings. Each is an
//! [`lth_train::Network`]:
//!
//! * Every tensor has a name; stock checkpoints of torchvision load as they are ([`Weights`]), and what is saved here
//!   loads there.
//! * Masks given by `set_masks` become sparse operators, so that a pruned layer computes with the kept weights alone.
//! * Initial values and dropout are drawn from streams that are addressed by seed and name: the same on every platform,
//!   for any number of threads.
//! * A tap shows what enters each layer ([`TappedNetwork`]), for criteria that look at activations.
//!
//! For models of one's own, [`drop_in`] has candle-nn's linear and convolutional layers on the same kernels, dense and sparse, and
//! [`transformer`] has norms, softmax, attention and rotary embedding with backward, built from a
//! candle `VarBuilder`.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use lth_nn::{LeNet, LeNetConfig, Part, Setup, Weights};
//! use lth_train::{Network, Pass};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = LeNet::new(&LeNetConfig { inputs: 64, ..LeNetConfig::default() }, &Setup::new(42))?;
//! let x = Tensor::ones((2, 8, 8), candle_core::DType::F32, &Device::Cpu)?;
//! let logits = network.forward(&x, &Pass::train(42, 0))?;
//! let loss = lth_kernels::cross_entropy(&logits, &Tensor::new(&[3u32, 5], &Device::Cpu)?)?;
//! let gradients = loss.backward()?;
//! assert!(gradients.get(network.parameters().require("fc1.weight")?.var()).is_some());
//!
//! // Weights travel by name.
//! let other = LeNet::new(&LeNetConfig { inputs: 64, ..LeNetConfig::default() }, &Setup::new(7))?;
//! Weights::of(network.parameters())?.load_into(other.parameters(), Part::All)?;
//! let same = other.forward(&x, &Pass::eval())?;
//! assert_eq!(logits.to_vec2::<f32>()?, same.to_vec2::<f32>()?);
//! # Ok(()) }
//! ```

mod builder;
mod compact;
mod context;
pub mod drop_in;
mod error;
mod init;
mod layers;
mod networks;
mod packed;
mod random;
mod seeded;
mod spec;
pub mod transformer;
mod weights;

pub use builder::{Builder, Setup};
pub use compact::{Place, Stream};
pub use context::{Context, Tap};
pub use error::Error;
pub use init::{Fan, Init};
pub use layers::{After, BatchNorm, Conv2d, Conv2dConfig, Dropout, Linear, Patterns, Sparse};
pub use networks::{
    BlockKind, ConvNet, ConvNetConfig, ConvNetDepth, FastaiHead, Freeze, Head, InitScheme, LeNet, LeNetConfig,
    NamedNetwork, ResNet, ResNetConfig, ResNetWidths, Shortcut, Stem, TappedNetwork, Vgg, VggConfig, VggDepth,
};
pub use packed::PackedNetwork;
pub use seeded::seeded_builder;
pub use spec::{NetworkName, NetworkSpec, PruningScope, Recipe, RecipeOptimizer, ResNetDepth};
pub use weights::{LoadReport, Part, Skipped, TensorInfo, WeightFiles, Weights};
