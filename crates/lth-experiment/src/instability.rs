//! Instability analysis as a part of an experiment: copies of its networks that see other data orders from a step on.

use std::fmt;
use std::str::FromStr;

use lth_runs::Address;
use lth_runs::experiment::{ArmRecord, ArmRole};
use lth_schedule::Step;
use serde::{Deserialize, Serialize};

use crate::imp::{DENSE, TICKET, arm_record};
use crate::plan::{Branch, FitPlan, MaskFrom, PathPlan, Start};
use crate::{Error, ImpConfig, Rewinding};

/// Which networks of an experiment are copied at which steps, and how the paths between the copies are measured.
///
/// Of the dense network, the experiment's own training is one copy; the other is the same training, to the bit, until the
/// step, and goes on with another order of the data and other augmentation. Of a level's subnetwork, both copies begin
/// with the weights that the dense training had at the step, under the ticket's mask, with a new optimiser and orders that
/// the search for the mask did not see.
///
/// Source: Frankle, Dziugaite, Roy & Carbin 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", §2 and §4,
/// algorithms 1 and 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstabilityConfig {
    /// The steps from which copies differ.
    pub steps: Vec<Step>,
    /// The levels that are looked at; 0 is the dense network.
    pub levels: Vec<u32>,
    /// Where a subnetwork's mask comes from.
    #[serde(default, skip_serializing_if = "MaskSearch::is_each_step")]
    pub masks: MaskSearch,
    /// Networks on a path, its ends included.
    #[serde(default = "paper_points", skip_serializing_if = "is_papers")]
    pub n_points: u32,
}

/// Where the mask of a subnetwork comes from that is rewound to a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskSearch {
    /// A search that rewinds to that step, one for every step: the paper's.
    #[default]
    EachStep,
    /// The experiment's own tickets, whatever they were rewound to: no more searches.
    Ticket,
}

impl fmt::Display for MaskSearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EachStep => "each-step",
            Self::Ticket => "ticket",
        })
    }
}

impl FromStr for MaskSearch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::EachStep, Self::Ticket].into_iter().find(|search| search.to_string() == text).ok_or_else(|| {
            Error::Plan {
                field: "search for masks".into(),
                got: format!("`{text}`"),
                expected: "one of each-step, ticket".into(),
            }
        })
    }
}

impl MaskSearch {
    // serde hands a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_each_step(&self) -> bool {
        *self == Self::EachStep
    }
}

/// Source: Frankle et al. 2020, §2.
const PAPER_POINTS: u32 = 30;

fn paper_points() -> u32 {
    PAPER_POINTS
}

// serde hands a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_papers(n_points: &u32) -> bool {
    *n_points == PAPER_POINTS
}

impl InstabilityConfig {
    /// At those steps, at those levels, as in the paper.
    pub fn new(steps: Vec<Step>, levels: Vec<u32>) -> Self {
        Self { steps, levels, masks: MaskSearch::default(), n_points: PAPER_POINTS }
    }

    /// # Errors
    /// [`Error::Plan`] for no steps or levels, one of them twice, a level beyond the experiment's last, or a path of
    /// fewer than 2 points.
    pub(crate) fn check(&self, n_levels: u32) -> Result<(), Error> {
        let refuse = |field: &str, got: String, expected: String| {
            Err(Error::Plan { field: format!("{field} of the instability analysis"), got, expected })
        };
        if self.steps.is_empty() {
            return refuse("number of steps", "0".into(), "at least 1".into());
        }
        if let Some(twice) = crate::imp::first_twice(&self.steps) {
            return refuse("step", format!("{twice}, twice"), "every step once".into());
        }
        if self.levels.is_empty() {
            return refuse("number of levels", "0".into(), "at least 1".into());
        }
        if let Some(twice) = crate::imp::first_twice(&self.levels) {
            return refuse("level", format!("{twice}, twice"), "every level once".into());
        }
        if let Some(level) = self.levels.iter().find(|level| **level > n_levels) {
            return refuse("level", level.to_string(), format!("0 (dense) to {n_levels}, the levels of the plan"));
        }
        if self.n_points < 2 {
            return refuse("number of points on a path", self.n_points.to_string(), "at least 2".into());
        }
        Ok(())
    }

    fn sparse_levels(&self) -> impl Iterator<Item = u32> {
        self.levels.iter().copied().filter(|level| *level > 0)
    }

    /// The steps that the dense training must keep for subnetworks.
    pub(crate) fn kept(&self) -> Vec<Step> {
        let is_needed = self.sparse_levels().next().is_some();
        self.steps.iter().copied().filter(|step| is_needed && *step != Step::START).collect()
    }

    /// The arms, in the order of the steps.
    pub(crate) fn arms(&self, config: &ImpConfig) -> Vec<ArmRecord> {
        let mut arms = Vec::new();
        for &step in &self.steps {
            if let Some(search) = self.search(config, step) {
                arms.push(arm_record(&search, ArmRole::Search, &format!("ticket, rewound to {step}"), ""));
            }
            let n_copies = if self.sparse_levels().next().is_some() { 2 } else { 1 };
            for number in 1..=n_copies {
                let title = format!("copy {number} with another data order from {step} on");
                arms.push(arm_record(&copy(step, number), ArmRole::Branch, &title, ""));
            }
        }
        arms
    }

    /// The fits of one seed, after those of the tickets.
    pub(crate) fn fits(&self, config: &ImpConfig, seed: u64) -> Vec<FitPlan> {
        let mut fits = Vec::new();
        for &step in &self.steps {
            if self.levels.contains(&0) {
                let fit = FitPlan::new(Address::new(copy(step, 1), 0, seed), "", config.training.length);
                fits.push(branched(fit, step, 1));
            }
            let rewound = ImpConfig { rewinding: Rewinding::Weights(step), ..config.clone() };
            let search = self.search(config, step);
            if let Some(arm) = &search {
                let last = self.sparse_levels().max().unwrap_or(0);
                fits.extend((1..=last).map(|level| renamed(rewound.ticket(level, seed), arm)));
            }
            for level in self.sparse_levels() {
                let mask = Address::new(search.as_deref().unwrap_or(TICKET), level, seed);
                for number in [1, 2] {
                    let address = Address::new(copy(step, number), level, seed);
                    let fit = FitPlan::new(address, "", config.training.length);
                    let fit = FitPlan { mask: MaskFrom::Same(mask.clone()), ..rewound.rewound(fit, level, seed) };
                    fits.push(branched(fit, step, number));
                }
            }
        }
        fits
    }

    /// The paths of one seed.
    pub(crate) fn paths(&self, seed: u64) -> Vec<PathPlan> {
        let path = |step: Step, level: u32| {
            let end = |number| Address::new(copy(step, number), level, seed);
            let ends = if level == 0 { [Address::new(DENSE, 0, seed), end(1)] } else { [end(1), end(2)] };
            PathPlan { ends, branched_at: step, n_points: self.n_points }
        };
        self.steps.iter().flat_map(|step| self.levels.iter().map(|level| path(*step, *level))).collect()
    }

    /// The arm that searches for masks with rewinding to `step`; `None` where the ticket's own are taken.
    fn search(&self, config: &ImpConfig, step: Step) -> Option<String> {
        let is_own = match config.rewinding {
            Rewinding::Reset => step == Step::START,
            Rewinding::Weights(own) => step == own,
            Rewinding::LearningRate(_) | Rewinding::FineTune { .. } => false,
        };
        let is_needed = self.masks == MaskSearch::EachStep && !is_own && self.sparse_levels().next().is_some();
        is_needed.then(|| format!("{TICKET}-{step}"))
    }
}

/// The arm of a copy.
fn copy(step: Step, number: u32) -> String {
    format!("copy-{number}-{step}")
}

fn branched(fit: FitPlan, step: Step, number: u32) -> FitPlan {
    FitPlan {
        description: format!("another data order from {step} on"),
        branch: Some(Branch { at: step, number }),
        ..fit
    }
}

/// A ticket's fit for a search of its own.
fn renamed(mut fit: FitPlan, arm: &str) -> FitPlan {
    let rename = |address: &mut Address| {
        if address.arm == TICKET {
            arm.clone_into(&mut address.arm);
        }
    };
    rename(&mut fit.address);
    if let MaskFrom::Cut(cut) = &mut fit.mask {
        if let Start::End(scored) = &mut cut.scored {
            rename(scored);
        }
        cut.within.iter_mut().for_each(rename);
    }
    fit
}
