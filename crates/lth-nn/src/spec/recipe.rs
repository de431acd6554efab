//! How the papers trained and pruned each network, as plain numbers.

use lth_schedule::PruningRates;
use serde::Serialize;

use super::{NetworkName, ResNetDepth};
use crate::{ConvNetDepth, Shortcut, Stem, VggDepth};

/// An optimiser and its constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum RecipeOptimizer {
    /// Adam as Kingma & Ba 2015 have it: no decay of weights.
    Adam {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squared gradients.
        beta2: f64,
        /// Added to the root.
        eps: f64,
    },
    /// Stochastic gradient descent with momentum, the decay added to the gradient of every parameter, as PyTorch's.
    Sgd {
        /// Share of the last step in the next.
        momentum: f64,
        /// Share of a weight that is added to its gradient.
        weight_decay: f64,
    },
}

/// Over which weights a level's budget is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PruningScope {
    /// Each layer loses its own rate.
    Layerwise,
    /// The smallest weights of all layers together go.
    Global,
}

/// A published experiment's settings: what a training and a level of pruning are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// The optimiser.
    pub optimizer: RecipeOptimizer,
    /// The learning rate after the warm-up and before the first milestone.
    pub learning_rate: f64,
    /// Iterations over which the learning rate rises in a straight line from 0; 0 for none.
    pub warm_up: u64,
    /// Iterations at which the learning rate falls to a tenth.
    pub milestones: &'static [u64],
    /// Examples of one iteration.
    pub batch_size: usize,
    /// Iterations of one training.
    pub iterations: u64,
    /// What a level prunes of the weights that are left.
    pub pruning_rates: PruningRates,
    /// Over which weights.
    pub pruning_scope: PruningScope,
    /// The iteration to which kept weights are rewound; 0 for the initial values.
    pub rewind: u64,
    /// Where the numbers are from.
    pub source: &'static str,
}

/// TensorFlow's and PyTorch's constants; the paper names the learning rate alone.
const ADAM: RecipeOptimizer = RecipeOptimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
const SGD: RecipeOptimizer = RecipeOptimizer::Sgd { momentum: 0.9, weight_decay: 1e-4 };
/// open_lth's `sparse_global` takes a fifth of all weights together, the output layer's too unless it is left out.
const FIFTH: PruningRates = PruningRates { output: PruningRates::LENET.convolution, ..PruningRates::LENET };

impl Recipe {
    /// LeNet-300-100 on MNIST.
    pub const LENET_300_100: Self = Self {
        optimizer: ADAM,
        learning_rate: 1.2e-3,
        warm_up: 0,
        milestones: &[],
        batch_size: 60,
        iterations: 50_000,
        pruning_rates: PruningRates::LENET,
        pruning_scope: PruningScope::Layerwise,
        rewind: 0,
        source: "Frankle & Carbin 2019, figure 2",
    };

    /// Conv-2 on CIFAR-10.
    pub const CONV_2: Self = Self {
        learning_rate: 2e-4,
        iterations: 20_000,
        pruning_rates: PruningRates::CONV_2_AND_4,
        ..Self::LENET_300_100
    };

    /// Conv-4 on CIFAR-10.
    pub const CONV_4: Self = Self { learning_rate: 3e-4, iterations: 25_000, ..Self::CONV_2 };

    /// Conv-6 on CIFAR-10.
    pub const CONV_6: Self =
        Self { learning_rate: 3e-4, iterations: 30_000, pruning_rates: PruningRates::CONV_6, ..Self::CONV_2 };

    /// ResNet-20 on CIFAR-10, rewound to where it is stable to the order of the data.
    pub const RESNET_20: Self = Self {
        optimizer: SGD,
        learning_rate: 0.1,
        warm_up: 0,
        milestones: &[32_000, 48_000],
        batch_size: 128,
        iterations: 63_000,
        pruning_rates: FIFTH,
        pruning_scope: PruningScope::Global,
        rewind: 2_000,
        source: "Frankle et al. 2020, table 1 and §3; what is pruned: open_lth",
    };

    /// ResNet-20 at a learning rate so low that it can be rewound to its initial values.
    pub const RESNET_20_LOW: Self = Self { learning_rate: 0.01, rewind: 0, ..Self::RESNET_20 };

    /// ResNet-20 with a warm-up over half of the training, rewound to its initial values.
    pub const RESNET_20_WARM_UP: Self = Self { learning_rate: 0.03, warm_up: 30_000, rewind: 0, ..Self::RESNET_20 };

    /// What the first paper calls Resnet-18 on CIFAR-10: the ResNet-20 of He et al. 2016, §4.2, fewer iterations.
    pub const RESNET_20_2019: Self = Self {
        milestones: &[20_000, 25_000],
        iterations: 30_000,
        pruning_rates: PruningRates::RESNET_AND_VGG,
        rewind: 0,
        source: "Frankle & Carbin 2019, figure 2 and §4",
        ..Self::RESNET_20
    };

    /// The same at a tenth of the learning rate, where tickets win.
    pub const RESNET_20_2019_LOW: Self = Self { learning_rate: 0.01, ..Self::RESNET_20_2019 };

    /// The same at 0.03 with a warm-up.
    pub const RESNET_20_2019_WARM_UP: Self = Self { learning_rate: 0.03, warm_up: 20_000, ..Self::RESNET_20_2019 };

    /// VGG-16 on CIFAR-10; its output layer stays dense.
    pub const VGG_16: Self = Self { rewind: 1_000, pruning_rates: PruningRates::RESNET_AND_VGG, ..Self::RESNET_20 };

    /// VGG-16 at a learning rate so low that it can be rewound to its initial values.
    pub const VGG_16_LOW: Self = Self { learning_rate: 0.01, rewind: 0, ..Self::VGG_16 };

    /// VGG-16 with a warm-up, rewound to its initial values.
    pub const VGG_16_WARM_UP: Self = Self { warm_up: 10_000, rewind: 0, ..Self::VGG_16 };

    /// VGG-19 on CIFAR-10: 160 epochs, a tenth of the learning rate at 80 and at 120.
    pub const VGG_19: Self = Self {
        milestones: &[56_240, 84_360],
        batch_size: 64,
        iterations: 112_480,
        rewind: 0,
        source: "Frankle & Carbin 2019, figure 2 and §4",
        ..Self::VGG_16
    };

    /// VGG-19 at a tenth of the learning rate, where tickets win.
    pub const VGG_19_LOW: Self = Self { learning_rate: 0.01, ..Self::VGG_19 };

    /// VGG-19 with a warm-up.
    pub const VGG_19_WARM_UP: Self = Self { warm_up: 10_000, ..Self::VGG_19 };

    /// The deeper ResNets on CIFAR-10; pruned as ResNet-20 is.
    pub const RESNET_CIFAR: Self = Self {
        iterations: 64_000,
        rewind: 0,
        source: "He et al. 2016, §4.2; what is pruned: open_lth",
        ..Self::RESNET_20
    };

    /// ResNet-18 and ResNet-34 on ImageNet: 90 epochs of 5,005 iterations.
    pub const RESNET_IMAGENET: Self = Self {
        milestones: &[150_150, 300_300],
        batch_size: 256,
        iterations: 450_450,
        rewind: 0,
        source: "torchvision's references/classification; what is pruned: open_lth",
        ..Self::RESNET_20
    };

    /// ResNet-50 on ImageNet: 90 epochs of 1,251 iterations, rewound to epoch 18.
    pub const RESNET_50: Self = Self {
        learning_rate: 0.4,
        warm_up: 6_255,
        milestones: &[37_530, 75_060, 100_080],
        batch_size: 1_024,
        iterations: 112_590,
        rewind: 22_518,
        source: "Frankle et al. 2020, table 1 and §3; what is pruned: open_lth",
        ..Self::RESNET_20
    };
}

impl NetworkName {
    /// The settings of its paper; the first are the usual ones, the others variants of theirs.
    ///
    /// ```
    /// use lth_nn::{NetworkName, Recipe};
    ///
    /// let recipes = NetworkName::LeNet300100.recipes();
    /// assert_eq!(recipes, [Recipe::LENET_300_100]);
    /// assert_eq!((recipes[0].learning_rate, recipes[0].batch_size, recipes[0].iterations), (1.2e-3, 60, 50_000));
    /// ```
    pub fn recipes(self) -> &'static [Recipe] {
        match self {
            Self::LeNet300100 => &[Recipe::LENET_300_100],
            Self::ConvNet(ConvNetDepth::Two) => &[Recipe::CONV_2],
            Self::ConvNet(ConvNetDepth::Four) => &[Recipe::CONV_4],
            Self::ConvNet(ConvNetDepth::Six) => &[Recipe::CONV_6],
            Self::CifarResNet { n_blocks: 3, shortcut: Shortcut::Padding | Shortcut::Projection } => &[
                Recipe::RESNET_20,
                Recipe::RESNET_20_LOW,
                Recipe::RESNET_20_WARM_UP,
                Recipe::RESNET_20_2019,
                Recipe::RESNET_20_2019_LOW,
                Recipe::RESNET_20_2019_WARM_UP,
            ],
            Self::CifarResNet { .. } | Self::ResNet { stem: Stem::Cifar, .. } => &[Recipe::RESNET_CIFAR],
            Self::ResNet { depth: ResNetDepth::Fifty, stem: Stem::ImageNet } => &[Recipe::RESNET_50],
            Self::ResNet { stem: Stem::ImageNet, .. } => &[Recipe::RESNET_IMAGENET],
            Self::Vgg(VggDepth::Nineteen) => &[Recipe::VGG_19, Recipe::VGG_19_LOW, Recipe::VGG_19_WARM_UP],
            Self::Vgg(_) => &[Recipe::VGG_16, Recipe::VGG_16_LOW, Recipe::VGG_16_WARM_UP],
        }
    }

    /// The usual settings: the first of [`NetworkName::recipes`].
    pub fn recipe(self) -> Recipe {
        self.recipes()[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_a_training_that_can_run() {
        for name in NetworkName::all() {
            for recipe in name.recipes() {
                let Recipe { milestones, iterations, warm_up, rewind, learning_rate, batch_size, .. } = *recipe;
                assert!(learning_rate > 0. && learning_rate < 1. && batch_size > 0, "{name}");
                assert!(milestones.is_sorted() && milestones.iter().all(|&at| (1..iterations).contains(&at)), "{name}");
                assert!(warm_up < iterations && rewind < iterations, "{name}");
                assert!(recipe.source.contains("20") || recipe.source.contains("torchvision"), "{name}");
            }
            assert_eq!(name.recipe(), name.recipes()[0]);
        }
    }

    #[test]
    fn the_first_papers_table_is_here() {
        // Frankle & Carbin 2019, figure 2: iterations, batch, optimiser's rate; convolution and linear pruning rates.
        let row = |recipe: Recipe| {
            let PruningRates { convolution, linear, output } = recipe.pruning_rates;
            let rates = [convolution, linear, output].map(|rate| rate.to_string());
            (recipe.iterations, recipe.batch_size, recipe.learning_rate, rates.join(", "))
        };
        let rates = |text: &str| text.to_owned();
        assert_eq!(row(Recipe::LENET_300_100), (50_000, 60, 1.2e-3, rates("20 %, 20 %, 10 %")));
        assert_eq!(row(Recipe::CONV_2), (20_000, 60, 2e-4, rates("10 %, 20 %, 10 %")));
        assert_eq!(row(Recipe::CONV_4), (25_000, 60, 3e-4, rates("10 %, 20 %, 10 %")));
        assert_eq!(row(Recipe::CONV_6), (30_000, 60, 3e-4, rates("15 %, 20 %, 10 %")));
        assert_eq!(row(Recipe::RESNET_20_2019), (30_000, 128, 0.1, rates("20 %, 0 %, 0 %")));
        assert_eq!(row(Recipe::VGG_19), (112_480, 64, 0.1, rates("20 %, 0 %, 0 %")));
        assert_eq!(row(Recipe::RESNET_20), (63_000, 128, 0.1, rates("20 %, 20 %, 20 %")));
    }
}
