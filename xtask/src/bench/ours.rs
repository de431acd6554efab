//! This project's network, dense or with a random mask.

use std::collections::BTreeMap;

use candle_core::{Device, Module, Tensor};
use lth_mask::{Granularity, Mask, MaskSet, Scope, Selection, random_like, select};
use lth_nn::{
    ConvNetDepth, Freeze, Head, NamedNetwork, NetworkName, NetworkSpec, PackedNetwork, ResNet, ResNetConfig, Setup,
};
use lth_train::{Network, Optimizer, OptimizerConfig, Parameters, Pass};

use super::options::Figure;

/// Height and width of the pictures.
pub(crate) const SIDE: usize = 64;
pub(crate) const CLASSES: usize = 2;
pub(crate) const LEARNING_RATE: f64 = 1e-3;
const SEED: u64 = 42;

/// A batch of noise with labels 0, 1, 0, …: about normal, from a fixed generator.
pub(crate) fn batch(n: usize, side: usize) -> candle_core::Result<(Tensor, Tensor)> {
    let x = noise(&[n, 3, side, side], 1)?;
    let labels: Vec<u32> = (0..n).map(|i| (i % CLASSES) as u32).collect();
    Ok((x, Tensor::from_vec(labels, n, &Device::Cpu)?))
}

/// Values with mean 0 and variance 1, about normal.
pub(crate) fn noise(shape: &[usize], seed: u64) -> candle_core::Result<Tensor> {
    let mut state = seed;
    let mut uniform = || {
        // Knuth's MMIX generator: its upper bits are good enough to fill tensors with.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    // Three uniform values have variance 1/4.
    let values = (0..shape.iter().product()).map(|_| 2. * (uniform() + uniform() + uniform() - 1.5)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// How a random mask's zeros lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Anywhere in a layer.
    Even,
    /// At the same places of every four filters.
    InBlocks,
}

/// Masks that prune a uniform random choice of each convolution's weights, or of the places that every four filters share.
///
/// `ranks`: those of the weights that are pruned.
pub(crate) fn masks(
    parameters: &Parameters,
    ranks: &[usize],
    sparsity: f64,
    spread: Spread,
) -> anyhow::Result<MaskSet> {
    if spread == Spread::InBlocks {
        let scores = parameters
            .prunable(ranks)
            .zip(1..)
            .map(|((name, parameter), seed)| Ok((name.to_owned(), noise(parameter.var().dims(), seed)?.abs()?)))
            .collect::<candle_core::Result<BTreeMap<_, _>>>()?;
        let granularity = Granularity::OutputBlock { outputs: 4 };
        return Ok(select(&scores, sparsity, &Selection { granularity, scope: Scope::Local, ..Selection::default() })?);
    }
    uniform_masks(parameters.prunable(ranks).map(|(name, parameter)| (name, parameter.var().dims())), sparsity)
}

/// Masks that prune a uniform random choice of each weight, given by its name and shape.
pub(crate) fn uniform_masks<'a>(
    weights: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    sparsity: f64,
) -> anyhow::Result<MaskSet> {
    let mut first = MaskSet::new();
    for (name, dims) in weights {
        let zeros = (sparsity * dims.iter().product::<usize>() as f64).round() as usize;
        first.insert(name, Mask::from_fn(dims, |i| i >= zeros)?);
    }
    Ok(random_like(&first, SEED))
}

/// A network that is trained or evaluated step by step.
pub(crate) struct Ours {
    batch: (Tensor, Tensor),
    work: Work,
}

enum Work {
    Training(Box<Training>),
    Inference(PackedNetwork),
}

struct Training {
    network: Box<dyn NamedNetwork>,
    optimizer: Optimizer,
    masks: BTreeMap<String, Tensor>,
    n_steps: u64,
}

impl Ours {
    pub(crate) fn new(figure: Figure, sparsity: f64, spread: Spread) -> anyhow::Result<Self> {
        Self::with_batch(figure, sparsity, spread, batch(figure.batch(), figure.side())?)
    }

    /// With a batch of its own.
    pub(crate) fn with_batch(
        figure: Figure,
        sparsity: f64,
        spread: Spread,
        batch: (Tensor, Tensor),
    ) -> anyhow::Result<Self> {
        let setup = Setup::new(SEED);
        // Of Conv-4 nearly all weights are in linear layers.
        let (mut network, ranks): (Box<dyn NamedNetwork>, &[usize]) = match figure {
            Figure::TrainConv4 => {
                let side = figure.side();
                (
                    NetworkSpec::new(NetworkName::ConvNet(ConvNetDepth::Four), CLASSES, [3, side, side])
                        .build(&setup)?,
                    &[2, 4],
                )
            }
            _ => (Box::new(ResNet::new(&ResNetConfig::resnet18(CLASSES, Head::Fastai), &setup)?), &[4]),
        };
        if figure == Figure::TrainFrozen {
            network.freeze(Freeze::Body);
        }
        let mut tensors = BTreeMap::new();
        if sparsity > 0. {
            tensors = masks(network.parameters(), ranks, sparsity, spread)?.to_tensors(&Device::Cpu)?;
            network.parameters().apply_masks(&tensors)?;
            network.set_masks(&tensors)?;
        }
        let work = if figure.is_training() {
            let optimizer = Optimizer::new(OptimizerConfig::adam());
            Work::Training(Box::new(Training { network, optimizer, masks: tensors, n_steps: 0 }))
        } else {
            Work::Inference(network.packed()?)
        };
        Ok(Self { batch, work })
    }

    pub(crate) fn step(&mut self) -> anyhow::Result<()> {
        let (x, target) = &self.batch;
        match &mut self.work {
            Work::Training(training) => training.step(x, target),
            Work::Inference(network) => Ok(network.forward(x).map(drop)?),
        }
    }
}

impl Training {
    fn step(&mut self, x: &Tensor, target: &Tensor) -> anyhow::Result<()> {
        let logits = self.network.forward(x, &Pass::train(SEED, self.n_steps))?;
        let loss = lth_kernels::cross_entropy(&logits, target)?;
        let value = loss.to_scalar::<f32>()?;
        anyhow::ensure!(value.is_finite(), "the loss is {value}");
        let gradients = lth_kernels::backward_kept(&loss)?;
        drop((logits, loss));
        self.optimizer.step_kept(LEARNING_RATE, None, self.network.parameters(), &gradients, &self.masks)?;
        self.n_steps += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_mask_prunes_the_same_share_of_every_convolution() -> anyhow::Result<()> {
        let network = ResNet::new(&ResNetConfig::resnet18(CLASSES, Head::Fastai), &Setup::new(SEED))?;
        for spread in [Spread::Even, Spread::InBlocks] {
            let masks = masks(network.parameters(), &[4], 0.9, spread)?;
            assert_eq!(masks.len(), 20);
            for (name, mask) in masks.iter() {
                assert!((mask.sparsity() - 0.9).abs() < 1e-3, "{name}: {}", mask.sparsity());
            }
        }
        Ok(())
    }
}
