//! What a ticket is held against: a file for each arm, which says what differs from the ticket and what a comparison
//! against it means.

mod agp;
mod at_initialisation;
mod dense_longer;
mod dynamic;
mod early_bird;
mod one_shot;
mod random;
mod reinitialised;
mod shuffled;
mod sign_transfer;
mod supermask;

use std::fmt;
use std::str::FromStr;

use lth_runs::experiment::{ArmRecord, ArmRole};
use lth_ticket::Growth;
use serde::{Deserialize, Serialize};

use crate::imp::arm_record;
use crate::plan::FitPlan;
use crate::{Error, ImpConfig};

/// An arm of an experiment besides the dense network and the ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Arm {
    /// The ticket's mask on other initial weights.
    Reinitialised,
    /// The ticket's mask and signs on the magnitudes of other initial weights.
    SignTransfer,
    /// The ticket's start under a mask drawn at random with as many weights in all.
    Random,
    /// The ticket's start under its mask shuffled within each layer.
    Shuffled,
    /// The dense network trained for as many steps as the search and the last ticket together.
    DenseLonger,
    /// All levels' weights cut at once from the trained dense network.
    OneShot,
    /// Cut by magnitude before training.
    MagnitudeInit,
    /// Cut before training by the loss's sensitivity to each weight.
    Snip,
    /// SNIP's mask shuffled within each layer.
    SnipShuffled,
    /// SNIP's mask on other initial weights.
    SnipReinitialised,
    /// Cut before training by what keeps the gradient's flow.
    Grasp,
    /// Cut before training by synaptic flow, without data.
    SynFlow,
    /// SynFlow's mask shuffled within each layer.
    SynFlowShuffled,
    /// SynFlow's mask on other initial weights.
    SynFlowReinitialised,
    /// Pruned gradually in one training.
    Agp,
    /// Sparse from the start, under a mask that moves to where gradients are largest.
    RigL,
    /// Sparse from the start, under a mask that moves at random.
    Set,
    /// Cut from a dense training that ended as soon as its mask had settled.
    EarlyBird,
    /// The ticket's mask on its untrained weights: nothing is trained.
    Supermask,
}

impl Arm {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 19] = [
        Self::Reinitialised,
        Self::SignTransfer,
        Self::Random,
        Self::Shuffled,
        Self::DenseLonger,
        Self::OneShot,
        Self::MagnitudeInit,
        Self::Snip,
        Self::SnipShuffled,
        Self::SnipReinitialised,
        Self::Grasp,
        Self::SynFlow,
        Self::SynFlowShuffled,
        Self::SynFlowReinitialised,
        Self::Agp,
        Self::RigL,
        Self::Set,
        Self::EarlyBird,
        Self::Supermask,
    ];

    /// The paper's own control, and those without which nothing can be said of a ticket.
    pub const FIRST_RANK: [Self; 5] =
        [Self::Reinitialised, Self::Random, Self::Shuffled, Self::DenseLonger, Self::OneShot];

    /// Its name in addresses and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reinitialised => "reinitialised",
            Self::SignTransfer => "sign-transfer",
            Self::Random => "random",
            Self::Shuffled => "shuffled",
            Self::DenseLonger => "dense-longer",
            Self::OneShot => "one-shot",
            Self::MagnitudeInit => "magnitude-init",
            Self::Snip => "snip",
            Self::SnipShuffled => "snip-shuffled",
            Self::SnipReinitialised => "snip-reinitialised",
            Self::Grasp => "grasp",
            Self::SynFlow => "synflow",
            Self::SynFlowShuffled => "synflow-shuffled",
            Self::SynFlowReinitialised => "synflow-reinitialised",
            Self::Agp => "agp",
            Self::RigL => "rigl",
            Self::Set => "set",
            Self::EarlyBird => "early-bird",
            Self::Supermask => "supermask",
        }
    }

    /// What the arm is, and what it says if the ticket is better.
    fn words(self) -> (&'static str, &'static str) {
        use at_initialisation as init;
        match self {
            Self::Reinitialised => reinitialised::WORDS,
            Self::SignTransfer => sign_transfer::WORDS,
            Self::Random => random::WORDS,
            Self::Shuffled => shuffled::WORDS,
            Self::DenseLonger => dense_longer::WORDS,
            Self::OneShot => one_shot::WORDS,
            Self::MagnitudeInit => init::MAGNITUDE,
            Self::Snip => init::SNIP,
            Self::Grasp => init::GRASP,
            Self::SynFlow => init::SYNFLOW,
            Self::SnipShuffled => init::SNIP_SHUFFLED,
            Self::SnipReinitialised => init::SNIP_REINITIALISED,
            Self::SynFlowShuffled => init::SYNFLOW_SHUFFLED,
            Self::SynFlowReinitialised => init::SYNFLOW_REINITIALISED,
            Self::Agp => agp::WORDS,
            Self::RigL => dynamic::RIGL,
            Self::Set => dynamic::SET,
            Self::EarlyBird => early_bird::WORDS,
            Self::Supermask => supermask::WORDS,
        }
    }

    /// The arm as the records have it.
    pub fn record(self) -> ArmRecord {
        let (title, meaning) = self.words();
        arm_record(self.name(), ArmRole::Control, title, meaning)
    }

    /// The arm that looks for its masks, if that is one of its own.
    pub fn search(self) -> Option<ArmRecord> {
        match self {
            Self::EarlyBird => Some(arm_record(early_bird::SEARCH, ArmRole::Search, early_bird::SEARCH_TITLE, "")),
            _ => None,
        }
    }

    /// The arm whose fits this one's rest on, if it is none that every experiment has.
    pub fn needs(self) -> Option<Self> {
        match self {
            Self::SnipShuffled | Self::SnipReinitialised => Some(Self::Snip),
            Self::SynFlowShuffled | Self::SynFlowReinitialised => Some(Self::SynFlow),
            _ => None,
        }
    }

    /// Its fits for one seed, level by level.
    pub fn fits(self, config: &ImpConfig, seed: u64) -> Vec<FitPlan> {
        use at_initialisation as init;
        let each = |fit: &dyn Fn(u32) -> FitPlan| (1..=config.n_levels).map(fit).collect();
        match self {
            Self::Reinitialised => each(&|level| reinitialised::fit(config, level, seed)),
            Self::SignTransfer => each(&|level| sign_transfer::fit(config, level, seed)),
            Self::Random => each(&|level| random::fit(config, level, seed)),
            Self::Shuffled => each(&|level| shuffled::fit(config, level, seed)),
            Self::DenseLonger => vec![dense_longer::fit(config, seed)],
            Self::OneShot => each(&|level| one_shot::fit(config, level, seed)),
            Self::MagnitudeInit => each(&|level| init::fit(config, self, "large_final", level, seed)),
            Self::Snip => each(&|level| init::fit(config, self, "snip", level, seed)),
            Self::Grasp => each(&|level| init::fit(config, self, "grasp", level, seed)),
            Self::SynFlow => each(&|level| init::fit(config, self, "synflow", level, seed)),
            Self::SnipShuffled | Self::SynFlowShuffled => each(&|level| init::shuffled(config, self, level, seed)),
            Self::SnipReinitialised | Self::SynFlowReinitialised => {
                each(&|level| init::reinitialised(config, self, level, seed))
            }
            Self::Agp => each(&|level| agp::fit(config, level, seed)),
            Self::RigL => each(&|level| dynamic::fit(config, self, Growth::Gradient, level, seed)),
            Self::Set => each(&|level| dynamic::fit(config, self, Growth::Random, level, seed)),
            Self::EarlyBird => (1..=config.n_levels).flat_map(|level| early_bird::fits(config, level, seed)).collect(),
            Self::Supermask => each(&|level| supermask::fit(config, level, seed)),
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|arm| arm.name() == text).ok_or_else(|| Error::Plan {
            field: "arm".into(),
            got: format!("`{text}`"),
            expected: format!("one of {}", Self::ALL.map(Self::name).join(", ")),
        })
    }
}

impl TryFrom<String> for Arm {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Arm> for String {
    fn from(arm: Arm) -> Self {
        arm.to_string()
    }
}
