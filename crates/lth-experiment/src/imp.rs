//! Iterative magnitude pruning as a plan.

use lth_runs::Address;
use lth_runs::experiment::{ArmRecord, ArmRole, Reference};
use lth_schedule::{LearningRate, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::arms::Arm;
use crate::instability::InstabilityConfig;
use crate::plan::{Cut, FitPlan, MaskFrom, OptimizerState, Plan, PruningRule, Start, Target, Training};
use crate::{Error, identity};

/// A plan lists its fits: a number of levels with a few digits too many would fill the memory with them.
const MOST_FITS: u64 = 100_000;

/// The experiment of the lottery-ticket paper: train, prune, rewind, again and again, each level a complete training, and
/// beside every ticket the networks that it must beat.
///
/// Source: Frankle & Carbin 2019, §1 "iterative pruning" and appendix B; Frankle et al. 2020 for rewinding to a step
/// after the first; Renda et al. 2020 for [`Rewinding::LearningRate`] and [`Rewinding::FineTune`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImpConfig {
    /// How each level trains.
    pub training: Training,
    /// What is pruned and how much a level.
    pub pruning: PruningRule,
    /// Levels after the dense one.
    pub n_levels: u32,
    /// What becomes of the kept weights after a cut.
    #[serde(default, skip_serializing_if = "Rewinding::is_reset")]
    pub rewinding: Rewinding,
    /// The arms besides `dense` and `ticket`.
    pub arms: Vec<Arm>,
    /// One replicate for each.
    pub seeds: Vec<u64>,
    /// The metric that arms are compared by.
    pub metric: String,
    /// How much of it a ticket may lose and still be called as good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Instability analysis: copies of the networks that see other data orders from a step on, and the error between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instability: Option<InstabilityConfig>,
    /// Whether all arms race against dense: what is asked of each is to be as good in less time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_race: bool,
    /// Published figures of the same experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
}

/// What becomes of the kept weights after a cut. Whatever is rewound is everything that a fit has at that moment: weights,
/// biases, BatchNorm's scales, shifts and statistics; the learning rate and the order of the data go on from that step; the
/// optimiser starts anew.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rewinding {
    /// Back to their initial values: rewinding to step 0.
    #[default]
    Reset,
    /// Back to their values at this step of the dense training.
    Weights(Step),
    /// They stay as trained; training goes on with the learning rate of this step.
    LearningRate(Step),
    /// They stay as trained, and train on for as many steps at one learning rate.
    FineTune {
        /// How long.
        steps: Step,
        /// The rate, by the papers the last of the training.
        learning_rate: f64,
    },
}

impl Rewinding {
    fn is_reset(&self) -> bool {
        *self == Self::Reset
    }
}

/// The dense network's arm.
pub const DENSE: &str = "dense";
/// The ticket's arm.
pub const TICKET: &str = "ticket";

impl ImpConfig {
    /// The fits, seed by seed, level by level. `subject`: the network and the data, as part of every fit's identity.
    ///
    /// # Errors
    /// [`Error::Plan`] if there are no seeds, no levels, more fits than 100,000, or two of one seed or arm; for an instability analysis of what the
    /// experiment does not have.
    pub fn plan(&self, subject: Value) -> Result<Plan, Error> {
        let refuse = |field: &str, got: String, expected: &str| {
            Err(Error::Plan { field: field.into(), got, expected: expected.into() })
        };
        if self.seeds.is_empty() {
            return refuse("number of seeds", "0".into(), "at least 1");
        }
        let n_fits = (self.seeds.len() as u64)
            .saturating_mul(u64::from(self.n_levels).saturating_add(1))
            .saturating_mul(self.arms.len() as u64 + 2);
        if n_fits > MOST_FITS {
            return refuse("number of fits", format!("about {n_fits}"), &format!("at most {MOST_FITS}"));
        }
        let instability = self.instability.as_ref();
        // Of the dense network alone it needs no ticket.
        if self.n_levels == 0 && instability.is_none() {
            return refuse("number of levels", "0".into(), "at least 1");
        }
        instability.map(|instability| instability.check(self.n_levels)).transpose()?;
        if let Some(twice) = first_twice(&self.seeds) {
            return refuse("seed", format!("{twice}, twice"), "every seed once");
        }
        if let Some(twice) = first_twice(&self.arms) {
            return refuse("arm", format!("`{twice}`, twice"), "every arm once");
        }
        if let Some(n) = self.pruning.levels.n_levels()
            && self.n_levels as usize > n
        {
            return refuse(
                "number of levels",
                self.n_levels.to_string(),
                &format!("at most {n}, for which there are sparsities"),
            );
        }
        let mut fits = Vec::new();
        for &seed in &self.seeds {
            fits.push(self.dense(seed));
            fits.extend((1..=self.n_levels).map(|level| self.ticket(level, seed)));
            for arm in &self.arms {
                fits.extend(arm.fits(self, seed)?);
            }
            fits.extend(instability.into_iter().flat_map(|instability| instability.fits(self, seed)));
        }
        let mut records = vec![
            arm_record(DENSE, ArmRole::Dense, "dense", "the ticket trains better than the whole network"),
            arm_record(TICKET, ArmRole::Ticket, "ticket", ""),
        ];
        records.extend(self.arms.iter().flat_map(|arm| arm.search().into_iter().chain([arm.record()])));
        records.extend(instability.into_iter().flat_map(|instability| instability.arms(self)));
        let seeds = self.seeds.iter();
        let paths = seeds.flat_map(|seed| instability.into_iter().flat_map(|instability| instability.paths(*seed)));
        Ok(Plan {
            name: "imp".into(),
            subject,
            config: serde_json::to_value(self)?,
            training: self.training.clone(),
            pruning: self.pruning.clone(),
            metric: self.metric.clone(),
            margin: self.margin,
            is_race: self.is_race,
            optimizer_state: OptimizerState::Fresh,
            arms: records,
            paths: paths.collect(),
            fits,
            reference: self.reference.clone(),
        })
    }

    /// The plan of the same experiment with all seeds, levels and arms of `there` besides its own.
    ///
    /// # Errors
    /// As [`ImpConfig::plan`].
    pub(crate) fn wider_plan(&self, there: &[Address], subject: &Value) -> Result<Plan, Error> {
        let mut wider = self.clone();
        for address in there {
            wider.n_levels = wider.n_levels.max(address.level);
            if !wider.seeds.contains(&address.seed) {
                wider.seeds.push(address.seed);
            }
            let arm = address.arm.parse::<Arm>().ok();
            for arm in arm.and_then(Arm::needs).into_iter().chain(arm) {
                if !wider.arms.contains(&arm) {
                    wider.arms.push(arm);
                }
            }
        }
        // What is looked for is only what is there: an arm that could not be planned as deep stays as it is.
        let own = &self.arms;
        let can = |arm: &Arm| own.contains(arm) || arm.fits(&wider, 0).is_ok();
        let arms = wider.arms.iter().copied().filter(can).collect();
        wider.arms = arms;
        let mut plan = wider.plan(subject.clone())?;
        // A fit that depends on the number of levels is one of an experiment with as many.
        for address in there {
            if plan.fit(address).is_none() && address.level > 0 {
                let fewer = Self { n_levels: address.level, ..wider.clone() };
                plan.fits.extend(fewer.plan(subject.clone())?.fit(address).cloned());
            }
        }
        Ok(plan)
    }

    /// SHA-256 of the configuration without seeds, levels and arms: to those can be added later.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn identity(&self, subject: &Value) -> Result<String, Error> {
        let Self { training, pruning, rewinding, .. } = self;
        identity::of(
            &serde_json::json!({ "subject": subject, "training": training, "pruning": pruning, "rewinding": rewinding }),
        )
    }

    /// The step that tickets are rewound to.
    pub fn rewind_step(&self) -> Step {
        match self.rewinding {
            Rewinding::Reset | Rewinding::FineTune { .. } => Step::START,
            Rewinding::Weights(step) | Rewinding::LearningRate(step) => step,
        }
    }

    pub(crate) fn dense(&self, seed: u64) -> FitPlan {
        let mut keep = match self.rewinding {
            Rewinding::Weights(step) if step != Step::START => vec![step],
            _ => Vec::new(),
        };
        for step in self.instability.iter().flat_map(InstabilityConfig::kept) {
            if !keep.contains(&step) {
                keep.push(step);
            }
        }
        FitPlan { keep, ..FitPlan::new(Address::new(DENSE, 0, seed), "the whole network", self.training.length) }
    }

    pub(crate) fn ticket(&self, level: u32, seed: u64) -> FitPlan {
        let before = self.parent(level, seed);
        let within = (level > 1).then(|| before.clone());
        let cut =
            Cut { scored: Start::End(before), within, criterion: None, selection: None, target: Target::Level(level) };
        let description = format!("level {level} of iterative pruning");
        let fit = FitPlan {
            mask: MaskFrom::Cut(Box::new(cut)),
            keeps_files: true,
            ..FitPlan::new(Address::new(TICKET, level, seed), description, self.training.length)
        };
        self.rewound(fit, level, seed)
    }

    /// The fit that the ticket of a level is cut from.
    pub(crate) fn parent(&self, level: u32, seed: u64) -> Address {
        if level == 1 { Address::new(DENSE, 0, seed) } else { Address::new(TICKET, level - 1, seed) }
    }

    /// `fit` with the start, the span and the learning rate of a ticket of that level.
    pub(crate) fn rewound(&self, fit: FitPlan, level: u32, seed: u64) -> FitPlan {
        match &self.rewinding {
            Rewinding::Weights(step) if *step != Step::START => {
                let start = Start::Rewound { fit: Address::new(DENSE, 0, seed), step: *step };
                FitPlan { start, from: *step, ..fit }
            }
            Rewinding::Reset | Rewinding::Weights(_) => fit,
            Rewinding::LearningRate(step) => {
                FitPlan { start: Start::End(self.parent(level, seed)), from: *step, ..fit }
            }
            Rewinding::FineTune { steps, learning_rate } => FitPlan {
                start: Start::End(self.parent(level, seed)),
                to: *steps,
                length: Some(*steps),
                learning_rate: Some(LearningRate::constant(*learning_rate)),
                ..fit
            },
        }
    }
}

impl FitPlan {
    /// A dense fit from the seed's initial weights to `to`.
    pub fn new(address: Address, description: impl Into<String>, to: Step) -> Self {
        Self {
            address,
            description: description.into(),
            start: Start::Initial,
            mask: MaskFrom::Dense,
            from: Step::START,
            to,
            length: None,
            learning_rate: None,
            optimizer_state: None,
            gradual: None,
            dynamic: None,
            early_bird: None,
            branch: None,
            after: None,
            keep: Vec::new(),
            keeps_files: false,
        }
    }
}

pub(crate) fn arm_record(name: &str, role: ArmRole, title: &str, meaning: &str) -> ArmRecord {
    ArmRecord { name: name.into(), role, title: title.into(), meaning: meaning.into() }
}

pub(crate) fn first_twice<T: PartialEq>(all: &[T]) -> Option<&T> {
    all.iter().enumerate().find(|(index, one)| all[..*index].contains(one)).map(|(_, one)| one)
}
