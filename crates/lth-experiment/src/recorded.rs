//! An experiment as its folder has it on record, from which its plan can be made again.

use lth_runs::Address;
use lth_runs::experiment::{ExperimentRecord, config_differences};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Error, Experiment, NotebookConfig, Plan};

/// The configuration of an experiment that `lth imp`, `race`, `connectivity` or `reproduce` has begun.
#[derive(Clone, Debug, PartialEq)]
pub enum Recorded {
    /// Of [`Experiment`].
    Imp(Box<Experiment>),
    /// Of [`NotebookConfig`], with what its fits depend on besides.
    Notebook(Box<NotebookConfig>, Value),
}

/// What `reproduce` has on record.
#[derive(Deserialize)]
struct NotebookRecord {
    notebook: NotebookConfig,
    subject: Value,
}

const IMP: &str = "imp";
const NOTEBOOK: &str = "notebook";

impl Recorded {
    /// What a record says. Where the data come from is no part of one.
    ///
    /// # Errors
    /// [`Error::Plan`] for an experiment of another kind, one whose configuration this version cannot read, or one that does
    /// not have the identity that its record says.
    pub fn of(record: &ExperimentRecord) -> Result<Self, Error> {
        let unreadable = |error: serde_json::Error| Error::Plan {
            field: format!("configuration of the experiment `{}`", record.name),
            got: format!("not readable ({error})"),
            expected: "one that this version of the program wrote".into(),
        };
        let config = record.config.clone();
        let recorded = match record.name.as_str() {
            IMP => Self::Imp(Box::new(serde_json::from_value(config).map_err(unreadable)?)),
            NOTEBOOK => {
                let NotebookRecord { notebook, subject } = serde_json::from_value(config).map_err(unreadable)?;
                Self::Notebook(Box::new(notebook), subject)
            }
            other => {
                return Err(Error::Plan {
                    field: "kind of the experiment".into(),
                    got: format!("`{other}`"),
                    expected: format!("{IMP} or {NOTEBOOK}"),
                });
            }
        };
        let identity = recorded.identity()?;
        if identity != record.identity {
            return Err(Error::Plan {
                field: "identity of the experiment".into(),
                got: record.identity.clone(),
                expected: format!("{identity}, which its configuration has in this version of the program"),
            });
        }
        Ok(recorded)
    }

    /// All that was asked for.
    ///
    /// # Errors
    /// As [`ImpConfig::plan`](crate::ImpConfig::plan) and [`NotebookConfig::plan`].
    pub fn plan(&self) -> Result<Plan, Error> {
        let plan = match self {
            Self::Imp(experiment) => experiment.imp.plan(experiment.subject()?)?,
            Self::Notebook(notebook, subject) => notebook.plan(subject.clone())?,
        };
        Ok(Plan { config: self.config()?, ..plan })
    }

    /// The plan with all seeds, levels and arms of `there` besides.
    ///
    /// # Errors
    /// As [`Recorded::plan`].
    pub fn wider_plan(&self, there: &[Address]) -> Result<Plan, Error> {
        match self {
            Self::Imp(experiment) => experiment.imp.wider_plan(there, &experiment.subject()?),
            Self::Notebook(notebook, subject) => notebook.wider_plan(there, subject.clone()),
        }
    }

    /// The record that it is of.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn record(&self) -> Result<ExperimentRecord, Error> {
        let name = match self {
            Self::Imp(_) => IMP,
            Self::Notebook(..) => NOTEBOOK,
        };
        Ok(ExperimentRecord { name: name.into(), identity: self.identity()?, config: self.config()? })
    }

    /// The seed of a replicate's split.
    pub(crate) fn split_seed(&self, seed: u64) -> u64 {
        match self {
            Self::Imp(experiment) => experiment.split_seed(seed),
            Self::Notebook(..) => seed,
        }
    }

    /// With the seeds, levels and arms of another one of the same identity besides its own; `Err` has what else differs, in
    /// words. The order of seeds is its own if it has all of them, or else rising, whichever of the two is asked.
    pub(crate) fn with(mut self, other: &Self) -> Result<Result<Self, String>, Error> {
        let united = match (&mut self, other) {
            (Self::Imp(own), Self::Imp(other)) => {
                own.imp.seeds = united(&own.imp.seeds, &other.imp.seeds);
                own.imp.n_levels = own.imp.n_levels.max(other.imp.n_levels);
                for arm in &other.imp.arms {
                    if !own.imp.arms.contains(arm) {
                        own.imp.arms.push(*arm);
                    }
                }
                let mut other = other.clone();
                other.imp.seeds.clone_from(&own.imp.seeds);
                other.imp.n_levels = own.imp.n_levels;
                other.imp.arms.clone_from(&own.imp.arms);
                // Paths and copies that only one of them asked for.
                own.imp.instability = own.imp.instability.take().or_else(|| other.imp.instability.clone());
                other.imp.instability = other.imp.instability.take().or_else(|| own.imp.instability.clone());
                Self::Imp(other)
            }
            (Self::Notebook(own, _), Self::Notebook(other, subject)) => {
                own.seeds = united(&own.seeds, &other.seeds);
                own.controls |= other.controls;
                let (seeds, controls) = (own.seeds.clone(), own.controls);
                Self::Notebook(Box::new(NotebookConfig { seeds, controls, ..(**other).clone() }), subject.clone())
            }
            (_, other) => other.clone(),
        };
        let differ = differing(&united.config()?, &self.config()?);
        Ok(if differ.is_empty() { Ok(self) } else { Err(differ) })
    }

    fn identity(&self) -> Result<String, Error> {
        match self {
            Self::Imp(experiment) => experiment.identity(),
            Self::Notebook(notebook, subject) => notebook.identity(subject),
        }
    }

    fn config(&self) -> Result<Value, Error> {
        match self {
            Self::Imp(experiment) => experiment.config(),
            Self::Notebook(notebook, subject) => Ok(json!({ "notebook": notebook, "subject": subject })),
        }
    }
}

/// "imp.margin is 0.02, expected 0.01; …"
pub(crate) fn differing(got: &Value, expected: &Value) -> String {
    let one = |(field, got, expected): (String, String, String)| format!("{field} is {got}, expected {expected}");
    config_differences(got, expected).into_iter().map(one).collect::<Vec<_>>().join("; ")
}

fn united(own: &[u64], other: &[u64]) -> Vec<u64> {
    if other.iter().all(|seed| own.contains(seed)) {
        return own.to_vec();
    }
    let mut all = [own, other].concat();
    all.sort_unstable();
    all.dedup();
    all
}
