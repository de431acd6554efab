//! An experiment as data: its fits, each with an address, what it starts from, which mask it trains under, and how long.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use lth_mask::Selection;
use lth_runs::Address;
use lth_runs::experiment::{ArmRecord, Reference};
use lth_schedule::{
    LearningRate, PruningRate, PruningRates, Schedule, Sparsity, SparsitySchedule, Step, Window, update_interval,
};
use lth_ticket::{DynamicConfig, Rewind, Settled};
use lth_train::OptimizerConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// What is done, in the order in which it is done.
///
/// [`imp`](crate::ImpConfig::plan) and [`notebook`](crate::NotebookConfig::plan) make plans; one of one's own is a list of
/// [`FitPlan`]s. A fit may rest on fits before it, on no others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The kind of experiment: "imp", "notebook".
    pub name: String,
    /// The network, the data and whatever else the caller's factories depend on. Part of every fit's identity; the runner
    /// does not look into it.
    pub subject: Value,
    /// The configuration that the plan was made of, for the records.
    pub config: Value,
    /// How every fit trains, unless it says otherwise.
    pub training: Training,
    /// How masks are cut.
    pub pruning: PruningRule,
    /// The metric that arms are compared by; higher is better.
    pub metric: String,
    /// How much of it a ticket may lose and still be called as good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Whether all arms race against dense, rather than the ticket be held against the others.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_race: bool,
    /// Whether an optimiser's averages outlive a fit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub optimizer_state: OptimizerState,
    /// The arms of the fits, in the order in which they are shown.
    pub arms: Vec<ArmRecord>,
    /// The fits.
    pub fits: Vec<FitPlan>,
    /// Straight paths between networks that fits end with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPlan>,
    /// Published figures of the same experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
}

/// How a network is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// From the initial weights to the end.
    pub length: Step,
    /// Optimiser and its constants.
    pub optimizer: OptimizerConfig,
    /// Learning rate over the training.
    pub learning_rate: LearningRate,
    /// Steps between validations; absent: after every epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_every: Option<NonZeroU32>,
    /// The largest norm of the gradients; absent: whatever they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
}

/// What is pruned, and how much of it at a level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruningRule {
    /// Saliency score by its name in [`lth_criteria::by_name`].
    pub criterion: String,
    /// What is pruned as one, and over what the budget is shared.
    #[serde(default, skip_serializing_if = "is_default")]
    pub selection: Selection,
    /// Ranks of the weights to prune: 4 for convolutions, 2 for linear layers.
    pub ranks: Vec<usize>,
    /// How much a level has.
    pub levels: Levels,
}

/// The sparsities of the levels; level 0 is dense.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Levels {
    /// A part of the remaining weights at every level, of every kind of layer its own.
    ///
    /// Source: Frankle & Carbin 2019, figure 2.
    ByKind {
        /// The parts.
        rates: PruningRates,
        /// The weight of the last linear layer, which gives the outputs: "fc3.weight".
        output: String,
    },
    /// A part of the remaining weights at every level, of every layer its own: what [`sensitivity`](crate::sensitivity()) suggests.
    ByLayer {
        /// The parts by the weight's name. A layer that is not here is not pruned.
        rates: BTreeMap<String, PruningRate>,
    },
    /// The sparsity of levels 1, 2, … over all prunable weights.
    Overall(Vec<Sparsity>),
}

/// One fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitPlan {
    /// Which one it is.
    pub address: Address,
    /// What it starts from and prunes, in a few words.
    pub description: String,
    /// Which weights it starts from.
    pub start: Start,
    /// Under which mask.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mask: MaskFrom,
    /// Where in the training it begins: the learning rate and the order of the data are those of this step.
    #[serde(default, skip_serializing_if = "is_start")]
    pub from: Step,
    /// Where it ends.
    pub to: Step,
    /// The training's length, if it is not the plan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<Step>,
    /// Its learning rate, if it is not the plan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<LearningRate>,
    /// What becomes of the optimiser, if it is not what the plan says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_state: Option<OptimizerState>,
    /// Pruning while it trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradual: Option<Gradual>,
    /// Moving its mask while it trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<DynamicConfig>,
    /// Ending as soon as the mask that would be cut by magnitude has settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_bird: Option<EarlyBirdSearch>,
    /// Another order of the data, and other augmentation, from a step on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Branch>,
    /// The fit whose epochs come before in the data's order, whose steps in the noise's: fits that follow one another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Address>,
    /// Steps whose whole state is kept for fits that rewind to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<Step>,
    /// Whether its weights are written as files of their own, as tickets are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keeps_files: bool,
}

/// Where a fit leaves the seed's order of the data for another. Until then it is the same to the bit; the epoch that is
/// under way goes on with the other order's batches from the same place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// From which step on.
    pub at: Step,
    /// Which other order: the same for every fit of the seed with this number.
    pub number: u32,
}

/// The straight path between the networks that two fits end with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathPlan {
    /// The fits at its two ends. Of the second, no other path is measured.
    pub ends: [Address; 2],
    /// The step from which their data orders differ.
    pub branched_at: Step,
    /// Networks on it, the ends included.
    pub n_points: u32,
}

/// Which weights a fit starts from: parameters and buffers, all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// The seed's initial weights.
    Initial,
    /// Initial weights of another draw, the same for every fit with this number.
    Reinitialised(u32),
    /// Those that a fit had at a step that it keeps: rewinding.
    Rewound {
        /// The fit.
        fit: Address,
        /// The step.
        step: Step,
    },
    /// Those that a fit ended with.
    End(Address),
    /// Initial weights of another draw, each with the sign that it has in another start; what is 0 there is 0. Biases and
    /// norms are the draw's own.
    ///
    /// Source: Zhou et al. 2019, "Deconstructing Lottery Tickets", §4.
    SignTransfer {
        /// The start that has the signs.
        signs: Box<Start>,
        /// The draw, as in [`Start::Reinitialised`].
        draw: u32,
    },
}

/// Which mask a fit trains under.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskFrom {
    /// None.
    #[default]
    Dense,
    /// The one that a fit ended with.
    Same(Address),
    /// The weights of highest score are kept.
    Cut(Box<Cut>),
    /// As many weights in all as a fit ended with, drawn at random from all layers together.
    Random(Address),
    /// A fit's mask, its values shuffled within each layer.
    Shuffled(Address),
}

/// A mask cut by scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// The weights that are scored.
    pub scored: Start,
    /// The fit whose final mask the new one lies within; absent: all weights compete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Address>,
    /// Saliency score, if it is not the plan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criterion: Option<String>,
    /// Over what the budget is shared, if it is not the plan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// How much is pruned.
    pub target: Target,
}

/// Pruning while training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gradual {
    /// Saliency score by name.
    pub criterion: String,
    /// How scores become masks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub selection: Selection,
    /// How much at the end.
    pub target: Target,
    /// How the sparsity rises.
    pub schedule: Schedule,
    /// From when to when.
    pub window: Window,
    /// How often the masks change.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interval: Interval,
    /// Kept weights go back after every change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewind: Option<Rewind>,
}

impl Gradual {
    /// To `end`, in a training of so many iterations.
    pub fn schedule(&self, end: Sparsity, n_iterations: u64) -> SparsitySchedule {
        let every = match self.interval {
            Interval::Schedule => None,
            Interval::Batches(batches) => Some(batches),
            Interval::Papers => Some(update_interval(n_iterations)),
        };
        SparsitySchedule { window: self.window, every, ..SparsitySchedule::to(end, self.schedule.clone()) }
    }
}

/// How often a gradual pruning changes the masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interval {
    /// Whenever the schedule's sparsity does: before every batch where it is continuous.
    #[default]
    Schedule,
    /// So many batches apart.
    Batches(NonZeroU32),
    /// [`update_interval`] of the training: 100 batches apart, or fewer in a short one.
    Papers,
}

/// Looking for a mask that settles early in a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyBirdSearch {
    /// How weights become masks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub selection: Selection,
    /// How much is pruned.
    pub target: Target,
    /// When the mask has settled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settled: Settled,
}

/// How much is pruned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// What a level of the plan has, layer by layer where its levels are.
    Level(u32),
    /// So much of all prunable weights.
    Sparsity(Sparsity),
}

/// Whether the optimiser's averages outlive a fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerState {
    /// Every fit starts with a new optimiser.
    #[default]
    Fresh,
    /// A fit that starts from another's weights takes its optimiser's averages along.
    Carried,
}

/// `fresh` or `carried`, as in files.
impl std::fmt::Display for OptimizerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fresh => "fresh",
            Self::Carried => "carried",
        })
    }
}

impl std::str::FromStr for OptimizerState {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        [Self::Fresh, Self::Carried].into_iter().find(|state| state.to_string() == name).ok_or_else(|| Error::Plan {
            field: "state of the optimiser".into(),
            got: format!("`{name}`"),
            expected: "fresh or carried".into(),
        })
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// serde hands a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_start(step: &Step) -> bool {
    *step == Step::START
}

impl Start {
    /// The fit that it rests on.
    pub fn fit(&self) -> Option<&Address> {
        match self {
            Self::Initial | Self::Reinitialised(_) => None,
            Self::Rewound { fit, .. } | Self::End(fit) => Some(fit),
            Self::SignTransfer { signs, .. } => signs.fit(),
        }
    }

    /// The start whose weights are read, where this one is made of another.
    pub(crate) fn source(&self) -> &Self {
        match self {
            Self::SignTransfer { signs, .. } => signs.source(),
            own => own,
        }
    }
}

impl MaskFrom {
    /// The fits that it rests on.
    pub fn fits(&self) -> Vec<&Address> {
        match self {
            Self::Dense => Vec::new(),
            Self::Same(fit) | Self::Random(fit) | Self::Shuffled(fit) => vec![fit],
            // A level is cut within the mask of the fit whose weights are scored.
            Self::Cut(cut) => {
                let within = cut.within.as_ref().filter(|within| cut.scored.fit() != Some(*within));
                cut.scored.fit().into_iter().chain(within).collect()
            }
        }
    }
}

impl Levels {
    /// How many levels there are besides the dense one; `None` if every number of them is one.
    pub fn n_levels(&self) -> Option<usize> {
        match self {
            Self::ByKind { .. } | Self::ByLayer { .. } => None,
            Self::Overall(sparsities) => Some(sparsities.len()),
        }
    }
}

impl FitPlan {
    /// All fits that it rests on, each once.
    pub fn rests_on(&self) -> BTreeSet<&Address> {
        self.start.fit().into_iter().chain(self.mask.fits()).chain(&self.after).collect()
    }
}

impl Plan {
    /// The fit at that address.
    pub fn fit(&self, address: &Address) -> Option<&FitPlan> {
        self.fits.iter().find(|fit| fit.address == *address)
    }

    /// Checks the plan by itself, before anything is trained.
    ///
    /// # Errors
    /// [`Error::Plan`] with the field, what it is and what it may be: two fits of one address, an arm without a record, a
    /// fit that rests on one that is not before it, a rewinding to a step that is not kept or lies outside the fit, a span
    /// that is empty, a level beyond the last, a moving mask that cannot move, a search beside pruning, a branch outside
    /// the fit, a path between fits that the plan does not have.
    pub fn check(&self, n_batches: u32) -> Result<(), Error> {
        let mut before: Vec<&FitPlan> = Vec::new();
        for fit in &self.fits {
            let refuse = |field: &str, got: String, expected: String| {
                Err(Error::Plan { field: format!("{field} of fit {}", fit.address), got, expected })
            };
            if self.arms.iter().all(|arm| arm.name != fit.address.arm) {
                let known: Vec<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
                return refuse(
                    "arm",
                    format!("`{}`", fit.address.arm),
                    format!("one of the plan's arms: {}", known.join(", ")),
                );
            }
            if before.iter().any(|other| other.address == fit.address) {
                return refuse("address", "that of a fit before it".into(), "an address for each".into());
            }
            for needed in fit.rests_on() {
                if before.iter().all(|other| other.address != *needed) {
                    return refuse("start or mask", format!("that of {needed}"), "a fit that comes before it".into());
                }
            }
            let steps = |step: Step| step.iterations(n_batches);
            let length = fit.length.unwrap_or(self.training.length);
            let (from, to) = (steps(fit.from), steps(fit.to));
            if from > to || to > steps(length) {
                let got = format!("{} to {}", fit.from, fit.to);
                return refuse(
                    "span",
                    got,
                    format!("a rising one within the training's {length} ({n_batches} batches an epoch)"),
                );
            }
            if let Some(step) = fit.keep.iter().find(|step| !(from..=to).contains(&steps(**step))) {
                return refuse("kept step", step.to_string(), format!("a step of the fit, {} to {}", fit.from, fit.to));
            }
            let scored = match &fit.mask {
                MaskFrom::Cut(cut) => Some(&cut.scored),
                _ => None,
            };
            for start in [Some(&fit.start), scored].into_iter().flatten().map(Start::source) {
                if let Start::Rewound { fit: kept, step } = start
                    && let Some(kept) = before.iter().find(|other| other.address == *kept)
                    && !kept.keep.contains(step)
                {
                    let expected = match kept.keep.as_slice() {
                        [] => format!("a step that {} keeps: it keeps none", kept.address),
                        steps => format!("a step that {} keeps: {}", kept.address, spelled(steps)),
                    };
                    return refuse("rewinding", step.to_string(), expected);
                }
            }
            let cut = match &fit.mask {
                MaskFrom::Cut(cut) => Some(cut.target),
                _ => None,
            };
            let gradual = fit.gradual.as_ref().map(|gradual| gradual.target);
            let search = fit.early_bird.as_ref().map(|search| search.target);
            for target in [cut, gradual, search].into_iter().flatten() {
                let n = self.pruning.levels.n_levels().unwrap_or(u32::MAX as usize);
                if let Target::Level(level) = target
                    && (level == 0 || level as usize > n)
                {
                    return refuse("level", level.to_string(), format!("1 to {n}"));
                }
            }
            if let Some(branch) = &fit.branch
                && !(from..to).contains(&steps(branch.at))
            {
                let expected = format!("a step of the fit before its end, {} to {}", fit.from, fit.to);
                return refuse("branch", branch.at.to_string(), expected);
            }
            self.check_dynamic(fit, steps(length))?;
            self.check_early_bird(fit)?;
            before.push(fit);
        }
        self.check_paths()
    }
}

fn spelled(steps: &[Step]) -> String {
    steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
