//! What a ticket is held against: a file for each arm, which says what differs from the ticket and what a comparison
//! against it means.

mod agp;
mod at_initialisation;
mod dense_longer;
mod dense_shorter;
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
use crate::plan::{FitPlan, Training};
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
    /// The dense network trained for half of the steps, a quarter, and so on: half as many at every level.
    DenseShorter,
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
    pub const ALL: [Self; 20] = [
        Self::Reinitialised,
        Self::SignTransfer,
        Self::Random,
        Self::Shuffled,
        Self::DenseLonger,
        Self::DenseShorter,
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

    /// The ways to a sparse network that race against dense training, and the dense network that is simply done sooner.
    pub const RACE: [Self; 6] = [Self::DenseShorter, Self::Snip, Self::SynFlow, Self::Agp, Self::RigL, Self::EarlyBird];

    /// Its name in addresses and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reinitialised => "reinitialised",
            Self::SignTransfer => "sign-transfer",
            Self::Random => "random",
            Self::Shuffled => "shuffled",
            Self::DenseLonger => "dense-longer",
            Self::DenseShorter => "dense-shorter",
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
            Self::DenseShorter => dense_shorter::WORDS,
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
    ///
    /// # Errors
    /// [`Error::Plan`] if the training cannot be made as long, or as short, as the arm is.
    pub fn fits(self, config: &ImpConfig, seed: u64) -> Result<Vec<FitPlan>, Error> {
        use at_initialisation as init;
        let each = |fit: &dyn Fn(u32) -> FitPlan| (1..=config.n_levels).map(fit).collect();
        Ok(match self {
            Self::Reinitialised => each(&|level| reinitialised::fit(config, level, seed)),
            Self::SignTransfer => each(&|level| sign_transfer::fit(config, level, seed)),
            Self::Random => each(&|level| random::fit(config, level, seed)),
            Self::Shuffled => each(&|level| shuffled::fit(config, level, seed)),
            Self::DenseLonger => vec![dense_longer::fit(config, seed)?],
            Self::DenseShorter => dense_shorter::fits(config, seed)?,
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
        })
    }
}

/// `fit` with its own length as that of a training of its own, over which the learning rate is stretched, milestones and
/// warm-up too.
fn stretched(config: &ImpConfig, fit: FitPlan) -> Result<FitPlan, Error> {
    let Training { length, learning_rate, .. } = &config.training;
    let relative = learning_rate.relative_to(*length).map_err(|error| Error::Plan {
        field: format!("learning rate of {}", fit.address),
        got: learning_rate.to_string(),
        expected: format!("one that can be stretched: {error}"),
    })?;
    let learning_rate = (relative != *learning_rate).then_some(relative);
    Ok(FitPlan { length: Some(fit.to), learning_rate, ..fit })
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

#[cfg(test)]
mod tests {
    use lth_schedule::{Sparsity, Step, TrainingLength};

    use super::*;
    use crate::preset;

    #[test]
    fn gradual_pruning_changes_its_mask_at_a_papers_interval() -> Result<(), Error> {
        let experiment = preset("lenet-digits")?;
        let fits = Arm::Agp.fits(&experiment.imp, 0)?;
        let n_changes = |n_batches_per_epoch: u32| -> Result<usize, Error> {
            let length = TrainingLength::until(Step::epoch(12), n_batches_per_epoch)?;
            let Some(gradual) = fits.first().and_then(|fit| fit.gradual.as_ref()) else { return Ok(0) };
            let plan = gradual.schedule(Sparsity::EMPTY, length.iterations()).plan(length)?;
            Ok((1..length.iterations()).filter(|it| plan.sparsity(*it) != plan.sparsity(it - 1)).count())
        };
        // 264 batches, every 13; 24,000 batches, every 100.
        assert_eq!((n_changes(22)?, n_changes(2_000)?), (20, 239));
        Ok(())
    }

    #[test]
    fn dense_trainings_of_another_length_stretch_their_milestones() -> Result<(), Error> {
        let mut experiment = preset("resnet-20-cifar-10")?;
        experiment.imp.n_levels = 2;
        let rate = |fit: &FitPlan| fit.learning_rate.as_ref().map(ToString::to_string);
        let [longer] = Arm::DenseLonger.fits(&experiment.imp, 0)?.try_into().map_err(|_| Error::Plan {
            field: "fits".into(),
            got: "others".into(),
            expected: "1".into(),
        })?;
        // 63,000 steps, then twice 61,000.
        assert_eq!(longer.to.to_string(), "185000it");
        let expected = experiment.imp.training.learning_rate.relative_to(experiment.imp.training.length);
        assert_eq!(rate(&longer), expected.ok().map(|rate| rate.to_string()));
        assert!(rate(&longer).is_some_and(|rate| !rate.contains("it")));
        let shorter = Arm::DenseShorter.fits(&experiment.imp, 0)?;
        assert_eq!(shorter.iter().map(|fit| fit.to.to_string()).collect::<Vec<_>>(), ["31500it", "15750it"]);
        assert_eq!(rate(&shorter[0]), rate(&longer));
        // A rate without moments is the plan's own: what is on record keeps its name.
        let mut digits = preset("lenet-digits")?;
        assert!(Arm::DenseLonger.fits(&digits.imp, 0)?.iter().all(|fit| fit.learning_rate.is_none()));
        // The longest length that can be said is not passed.
        digits.imp.training.length = Step { epoch: 0, iteration: u32::MAX };
        let most = Arm::DenseLonger.fits(&digits.imp, 0)?;
        assert!(most.iter().all(|fit| fit.to == digits.imp.training.length));
        Ok(())
    }

    #[test]
    fn a_training_that_cannot_be_halved_or_stretched_is_refused() -> Result<(), Error> {
        let mut experiment = preset("lenet-digits")?;
        (experiment.imp.n_levels, experiment.imp.training.length) = (9, "12ep".parse()?);
        let shorter = Arm::DenseShorter.fits(&experiment.imp, 0)?;
        assert_eq!(shorter.iter().map(|fit| fit.to.to_string()).collect::<Vec<_>>(), ["6ep", "3ep", "1ep"]);
        for length in ["1ep", "3ep5it"] {
            experiment.imp.training.length = length.parse()?;
            let error = Arm::DenseShorter.fits(&experiment.imp, 0).expect_err("it cannot be halved").to_string();
            assert!(error.contains("for the arm dense-shorter") && error.contains(length), "{error}");
        }
        experiment.imp.training.length = "12ep".parse()?;
        experiment.imp.training.learning_rate = "step(0.1, 0.1, 100it)".parse()?;
        let error = Arm::DenseLonger.fits(&experiment.imp, 0).expect_err("epochs and iterations");
        assert!(error.to_string().contains("100it in a training of 12ep"), "{error}");
        Ok(())
    }

    #[test]
    fn every_preset_can_be_raced() -> Result<(), Error> {
        for (name, _) in crate::PRESETS {
            let race = preset(name)?.race();
            let plan = race.plan()?;
            plan.check(100)?;
            let n_seeds = race.imp.seeds.len();
            // Dense; three levels of the ticket, of five arms, and of one with its search.
            assert_eq!((plan.is_race, plan.fits.len()), (true, n_seeds * (1 + 3 + 3 * 5 + 6)), "{name}");
        }
        Ok(())
    }
}
