//! The papers' experiments by name.

use std::num::NonZeroU32;

use lth_data::{Augmentation, DatasetName, DatasetSpec};
use lth_mask::{Scope, Selection};
use lth_nn::{NetworkName, NetworkSpec, PruningScope, RecipeOptimizer};
use lth_schedule::{LearningRate, Moment, PruningRate, PruningRates, RateShape, Step};
use lth_train::OptimizerConfig;

use crate::plan::{Levels, PruningRule, Training};
use crate::{Arm, Error, Experiment, FixedSeeds, ImpConfig, Rewinding};

/// The names of all presets, with what they are.
pub const PRESETS: [(&str, &str); 8] = [
    ("lenet-digits", "LeNet-300-100 on 1,797 embedded digits: a minute or more, without a network"),
    ("lenet-mnist", "LeNet-300-100 on MNIST, as Frankle & Carbin 2019"),
    ("lenet-fashion-mnist", "the same on Fashion-MNIST"),
    ("conv-2-cifar-10", "Conv-2 on CIFAR-10, as Frankle & Carbin 2019"),
    ("conv-4-cifar-10", "Conv-4 on CIFAR-10, as Frankle & Carbin 2019"),
    ("conv-6-cifar-10", "Conv-6 on CIFAR-10, as Frankle & Carbin 2019"),
    ("resnet-20-cifar-10", "ResNet-20 on CIFAR-10, rewound to step 2,000, as Frankle et al. 2020"),
    ("vgg-16-cifar-10", "VGG-16 on CIFAR-10, rewound to step 1,000, as Frankle et al. 2020"),
];

/// The experiment of that name.
///
/// ```
/// let experiment = lth_experiment::preset("lenet-mnist")?;
/// assert_eq!((experiment.batch_size, experiment.imp.training.length.to_string()), (60, "50000it".to_owned()));
/// # Ok::<(), lth_experiment::Error>(())
/// ```
///
/// # Errors
/// [`Error::Plan`] if there is none.
pub fn preset(name: &str) -> Result<Experiment, Error> {
    let from = |network: &str, data| from_recipe(network.parse()?, data);
    match name {
        "lenet-digits" => digits(),
        "lenet-mnist" => from("lenet-300-100", DatasetName::Mnist),
        "lenet-fashion-mnist" => from("lenet-300-100", DatasetName::FashionMnist),
        "conv-2-cifar-10" => from("conv-2", DatasetName::Cifar10),
        "conv-4-cifar-10" => from("conv-4", DatasetName::Cifar10),
        "conv-6-cifar-10" => from("conv-6", DatasetName::Cifar10),
        "resnet-20-cifar-10" => from("resnet-20", DatasetName::Cifar10),
        "vgg-16-cifar-10" => from("vgg-16", DatasetName::Cifar10),
        _ => Err(Error::Plan {
            field: "preset".into(),
            got: format!("`{name}`"),
            expected: format!("one of {}", PRESETS.map(|(name, _)| name).join(", ")),
        }),
    }
}

/// The network's first published recipe on a data set, with the paper's one control.
///
/// # Errors
/// If the recipe's numbers make no schedule.
pub fn from_recipe(network: NetworkName, data: DatasetName) -> Result<Experiment, Error> {
    let recipe = network.recipes()[0];
    let data = DatasetSpec::new(data);
    let n_outputs = n_classes(data.name);
    let spec = NetworkSpec::new(network, n_outputs, [data.n_channels(), data.image_size, data.image_size]);
    let it = |n: u64| Step { epoch: 0, iteration: u32::try_from(n).unwrap_or(u32::MAX) };
    let milestones: Vec<Moment> = recipe.milestones.iter().map(|at| it(*at).into()).collect();
    let shape = if milestones.is_empty() {
        RateShape::Constant(recipe.learning_rate)
    } else {
        RateShape::Step { rate: recipe.learning_rate, factor: 0.1, milestones }
    };
    let mut learning_rate = LearningRate::new(shape);
    if recipe.warm_up > 0 {
        learning_rate = learning_rate.with_warm_up(it(recipe.warm_up).into());
    }
    let is_global = recipe.pruning_scope == PruningScope::Global;
    let rates = recipe.pruning_rates;
    let ranks = match (rates.linear.fraction() > 0.0 || rates.output.fraction() > 0.0, spec.input.len()) {
        (false, _) => vec![4],
        (true, _) if network == NetworkName::LeNet300100 => vec![2],
        (true, _) => vec![2, 4],
    };
    let scope = if is_global { Scope::Global } else { Scope::Local };
    Ok(Experiment {
        batch_size: recipe.batch_size,
        augmentation: if is_global { Augmentation::cifar() } else { Augmentation::default() },
        fixed: FixedSeeds::default(),
        imp: ImpConfig {
            training: Training {
                length: it(recipe.iterations),
                optimizer: optimizer(recipe.optimizer),
                learning_rate,
                validate_every: NonZeroU32::new(100),
                clip_norm: None,
            },
            pruning: PruningRule {
                criterion: "large_final".into(),
                selection: Selection { scope, ..Selection::default() },
                ranks,
                levels: Levels::ByKind { rates, output: spec.output_weight().into() },
            },
            n_levels: 15,
            rewinding: if recipe.rewind == 0 { Rewinding::Reset } else { Rewinding::Weights(it(recipe.rewind)) },
            arms: vec![Arm::Reinitialised],
            seeds: (0..3).collect(),
            metric: "accuracy".into(),
            margin: Some(0.005),
            instability: None,
            is_race: false,
            reference: None,
        },
        network: spec,
        data,
    })
}

impl Experiment {
    /// A race of the same network on the same data, trained in the same way: [`Arm::RACE`] and the ticket against dense, at
    /// three levels, 60 % of the weights that are left pruned at each (30 % in the output layer, where the experiment
    /// prunes it).
    #[must_use]
    pub fn race(mut self) -> Self {
        if let Levels::ByKind { rates, .. } = &mut self.imp.pruning.levels {
            for (rate, share) in [(&mut rates.convolution, 0.6), (&mut rates.linear, 0.6), (&mut rates.output, 0.3)] {
                if rate.fraction() > 0.0
                    && let Ok(share) = PruningRate::new(share)
                {
                    *rate = share;
                }
            }
        }
        let imp = &mut self.imp;
        (imp.is_race, imp.n_levels, imp.arms) = (true, 3, Arm::RACE.to_vec());
        (imp.instability, imp.reference) = (None, None);
        self
    }
}

/// Small enough for minutes: twice the paper's pruning rates, and so half as many levels; ten seeds, with which differences of
/// a point can be told from chance. Forty epochs: dense's validation loss is least after 27 in the mean; after twelve all networks'
/// still fell.
fn digits() -> Result<Experiment, Error> {
    let paper = from_recipe(NetworkName::LeNet300100, DatasetName::Digits)?;
    let rate = |fraction| PruningRate::new(fraction);
    let rates = PruningRates { convolution: rate(0.4)?, linear: rate(0.4)?, output: rate(0.2)? };
    let levels = Levels::ByKind { rates, output: paper.network.output_weight().into() };
    Ok(Experiment {
        batch_size: 32,
        imp: ImpConfig {
            training: Training { length: Step::epoch(40), validate_every: None, ..paper.imp.training },
            pruning: PruningRule { levels, ..paper.imp.pruning },
            n_levels: 5,
            arms: Arm::FIRST_RANK.to_vec(),
            seeds: (0..10).collect(),
            margin: Some(0.01),
            ..paper.imp
        },
        ..paper
    })
}

fn optimizer(recipe: RecipeOptimizer) -> OptimizerConfig {
    match recipe {
        RecipeOptimizer::Adam { .. } => OptimizerConfig::torch_adam(),
        RecipeOptimizer::Sgd { weight_decay, .. } => OptimizerConfig::sgd().with_weight_decay(weight_decay),
    }
}

fn n_classes(data: DatasetName) -> usize {
    match data {
        DatasetName::Cifar100 => 100,
        DatasetName::PetsBreeds => 37,
        DatasetName::Pets | DatasetName::ToyPets => 2,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_makes_a_plan() -> Result<(), Error> {
        for (name, _) in PRESETS {
            let experiment = preset(name)?;
            let plan = experiment.plan()?;
            plan.check(100).map_err(|error| Error::Plan {
                field: name.into(),
                got: error.to_string(),
                expected: String::new(),
            })?;
            // What is written is read back, and has the same identity.
            let text = serde_json::to_string(&experiment)?;
            let read: Experiment = serde_json::from_str(&text)?;
            assert_eq!((&read, read.identity()?), (&experiment, experiment.identity()?), "{name}");
        }
        Ok(())
    }

    #[test]
    fn seeds_levels_and_arms_change_no_identity_and_the_rest_does() -> Result<(), Error> {
        let one = preset("lenet-digits")?;
        let mut more = one.clone();
        (more.imp.seeds, more.imp.n_levels, more.imp.arms) = (vec![7], 2, Vec::new());
        assert_eq!(one.identity()?, more.identity()?);
        let mut other = one.clone();
        other.batch_size += 1;
        assert_ne!(one.identity()?, other.identity()?);
        other = one.clone();
        other.imp.training.length = Step::epoch(99);
        assert_ne!(one.identity()?, other.identity()?);
        Ok(())
    }
}
