//! fasterai's notebook as a plan: five fits, and the controls that it did not have.

use lth_mask::{Granularity, Selection};
use lth_runs::Address;
use lth_runs::experiment::{ArmRole, Reference, ReferenceFigure};
use lth_schedule::{LearningRate, Moment, Schedule, Sparsity, Step, Window};
use lth_ticket::Rewind;
use lth_train::OptimizerConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::imp::{DENSE, TICKET, arm_record};
use crate::plan::{
    FitPlan, Gradual, Interval, Levels, MaskFrom, OptimizerState, Plan, PruningRule, Start, Target, Training,
};
use crate::{Error, identity};

/// A dense baseline A; iterative pruning to 50 % with the weights reset to their initial values; training of that ticket
/// B; the same to 80 %, rewound to epoch 1. Then what tells whether a ticket is the reason: A trained as long as B, and
/// both searches and tickets again with a random mask of the same sparsity per layer.
///
/// The searches prune while they train, in three jumps from epoch 1 on; level 1 is 50 %, level 2 is 80 %.
///
/// Source: FasterAI-Labs/fasterai, the lottery-ticket notebook of 2021.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotebookConfig {
    /// Epochs of the five fits; the second and the fourth have at least 2.
    pub epochs: [u32; 5],
    /// Optimiser of all fits.
    pub optimizer: OptimizerConfig,
    /// Learning rate of all fits, each of which has a whole course of it.
    pub learning_rate: LearningRate,
    /// A new optimiser for every fit (what the paper means), or one through all (what the notebook did).
    #[serde(default)]
    pub optimizer_state: OptimizerState,
    /// What is pruned as one: the notebook's is each weight alone.
    #[serde(default, skip_serializing_if = "is_weight")]
    pub granularity: Granularity,
    /// Whether the controls are run.
    pub controls: bool,
    /// One replicate for each.
    pub seeds: Vec<u64>,
    /// How much of the accuracy a ticket may lose and still be called as good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Whether data and weights are the notebook's own, so that its figures belong beside these.
    #[serde(default)]
    pub is_original: bool,
}

fn is_weight(granularity: &Granularity) -> bool {
    *granularity == Granularity::Weight
}

/// The arm of the searches.
const SEARCH: &str = "search";
/// The arm of A trained as long as B.
const LONGER: &str = "dense-longer";
/// The arms with a random mask.
const RANDOM_SEARCH: &str = "random-search";
const RANDOM: &str = "random";

impl NotebookConfig {
    /// The notebook's own lengths: 6, 4, 6, 4, 6.
    pub const EPOCHS: [u32; 5] = [6, 4, 6, 4, 6];
    /// First epoch in which a search prunes, and its number of jumps.
    const START_EPOCH: u32 = 1;
    const N_JUMPS: u32 = 3;

    /// The fits, seed by seed. `subject`: the network and the data, as part of every fit's identity.
    ///
    /// # Errors
    /// [`Error::Plan`] if there are no seeds, a fit has no epochs, or a search fewer than 2.
    pub fn plan(&self, subject: Value) -> Result<Plan, Error> {
        let refuse = |field: &str, got: String, expected: &str| {
            Err(Error::Plan { field: field.into(), got, expected: expected.into() })
        };
        if self.seeds.is_empty() {
            return refuse("number of seeds", "0".into(), "at least 1");
        }
        for (index, n) in self.epochs.into_iter().enumerate() {
            let least = if index % 2 == 1 { Self::START_EPOCH + 1 } else { 1 };
            if n < least {
                let expected = format!("at least {least}");
                return refuse(&format!("epochs of fit {}", index + 1), n.to_string(), &expected);
            }
        }
        let sparsities = vec![Sparsity::from_percent(50.0)?, Sparsity::from_percent(80.0)?];
        let mut fits = Vec::new();
        for &seed in &self.seeds {
            fits.extend(self.fits(seed)?);
        }
        let mut arms = vec![
            arm_record(
                DENSE,
                ArmRole::Dense,
                "A, the whole network",
                "the ticket trains better than the whole network",
            ),
            arm_record(SEARCH, ArmRole::Search, "pruned while it trains, then rewound", ""),
            arm_record(TICKET, ArmRole::Ticket, "B, the ticket", ""),
        ];
        if self.controls {
            let longer = "more epochs alone do not explain the ticket";
            arms.push(arm_record(LONGER, ArmRole::Control, "A trained as long as B", longer));
            arms.push(arm_record(RANDOM_SEARCH, ArmRole::Search, "the same with a random mask", ""));
            let random = "which weights are kept matters, not their number per layer alone";
            arms.push(arm_record(RANDOM, ArmRole::Control, "random mask, same counts per layer", random));
            // An arm that no length of fits needs has no fits.
            arms.retain(|arm| fits.iter().any(|fit| fit.address.arm == arm.name));
        }
        let [length, ..] = self.epochs;
        Ok(Plan {
            name: "notebook".into(),
            subject,
            config: serde_json::to_value(self)?,
            training: Training {
                length: Step::epoch(length),
                optimizer: self.optimizer,
                learning_rate: self.learning_rate.clone(),
                validate_every: None,
                clip_norm: None,
            },
            pruning: PruningRule {
                criterion: "large_final".into(),
                selection: self.selection(),
                ranks: vec![4],
                levels: Levels::Overall(sparsities),
            },
            metric: "accuracy".into(),
            margin: self.margin,
            is_race: false,
            optimizer_state: self.optimizer_state,
            arms,
            paths: Vec::new(),
            fits,
            reference: (self.is_original && is_weight(&self.granularity)).then(published),
        })
    }

    /// The plan of the same experiment with all seeds and controls of `there`, the addresses of fits, besides its own.
    ///
    /// # Errors
    /// As [`NotebookConfig::plan`].
    pub fn wider_plan(&self, there: &[Address], subject: Value) -> Result<Plan, Error> {
        let mut wider = self.clone();
        for address in there {
            wider.controls |= [LONGER, RANDOM_SEARCH, RANDOM].contains(&address.arm.as_str());
            if !wider.seeds.contains(&address.seed) {
                wider.seeds.push(address.seed);
            }
        }
        wider.plan(subject)
    }

    /// SHA-256 of the configuration without seeds and controls, to which can be added later, and without the margin, which
    /// changes no fit.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn identity(&self, subject: &Value) -> Result<String, Error> {
        let Self { epochs, optimizer, learning_rate, optimizer_state, granularity, .. } = self;
        let mut config = serde_json::json!({
            "subject": subject, "epochs": epochs, "optimizer": optimizer, "learning_rate": learning_rate,
            "optimizer_state": optimizer_state,
        });
        if !is_weight(granularity) {
            config["granularity"] = serde_json::to_value(granularity)?;
        }
        identity::of(&config)
    }

    fn selection(&self) -> Selection {
        Selection { granularity: self.granularity.clone(), ..Selection::fasterai_2021() }
    }

    fn fits(&self, seed: u64) -> Result<Vec<FitPlan>, Error> {
        let [baseline, search_50, ticket_50, search_80, ticket_80] = self.epochs;
        let at = |arm: &str, level| Address::new(arm, level, seed);
        let fit = |address: Address, description: String, n_epochs: u32| FitPlan {
            length: Some(Step::epoch(n_epochs)),
            ..FitPlan::new(address, description, Step::epoch(n_epochs))
        };
        let dense =
            FitPlan { keeps_files: true, ..fit(at(DENSE, 0), "dense, from the initial weights".into(), baseline) };
        let lottery = |level: u32, rewind_epoch: u32, after: Address, lengths: (u32, u32), is_random: bool| {
            let (search, ticket) = if is_random { (RANDOM_SEARCH, RANDOM) } else { (SEARCH, TICKET) };
            let criterion = if is_random { "random" } else { "large_final" };
            let by = if is_random { "at random" } else { "by magnitude" };
            let percent = if level == 1 { 50 } else { 80 };
            let gradual = |schedule, window, rewind| Gradual {
                criterion: criterion.into(),
                selection: self.selection(),
                target: Target::Level(level),
                schedule,
                window,
                interval: Interval::Schedule,
                rewind,
            };
            let jumps = Schedule::iterative(Self::N_JUMPS)?;
            let window = Window::starting_at(Moment::epoch(Self::START_EPOCH))?;
            let rewind = Rewind { reset_end: true, ..Rewind::notebook(rewind_epoch as usize) };
            let description =
                format!("pruned {by} to {percent} %, rewound to epoch {rewind_epoch}, from the initial weights");
            let search = FitPlan {
                gradual: Some(gradual(jumps, window, Some(rewind))),
                after: Some(after),
                keeps_files: !is_random,
                ..fit(at(search, level), description, lengths.0)
            };
            let found = search.address.clone();
            let description = format!("the ticket of {percent} %, cut {by}, from where its search ended");
            let ticket = FitPlan {
                start: Start::End(found.clone()),
                mask: MaskFrom::Same(found.clone()),
                gradual: Some(gradual(Schedule::OneShot, Window::default(), None)),
                after: Some(found),
                keeps_files: !is_random,
                ..fit(at(ticket, level), description, lengths.1)
            };
            Ok::<_, Error>([search, ticket])
        };
        let mut fits = vec![dense];
        fits.extend(lottery(1, 0, at(DENSE, 0), (search_50, ticket_50), false)?);
        fits.extend(lottery(2, 1, at(TICKET, 1), (search_80, ticket_80), false)?);
        if self.controls {
            let longest = (search_50 + ticket_50).max(search_80 + ticket_80);
            if longest > baseline {
                fits.push(FitPlan {
                    start: Start::End(at(DENSE, 0)),
                    after: Some(at(DENSE, 0)),
                    // One longer fit in two pieces, if the learning rate is constant.
                    optimizer_state: Some(OptimizerState::Carried),
                    ..fit(at(LONGER, 0), "dense, trained on".into(), longest - baseline)
                });
            }
            fits.extend(lottery(1, 0, at(DENSE, 0), (search_50, ticket_50), true)?);
            fits.extend(lottery(2, 1, at(TICKET, 1), (search_80, ticket_80), true)?);
        }
        Ok(fits)
    }
}

/// What the notebook printed: one seed on a GPU.
fn published() -> Reference {
    let figures =
        [(DENSE, 0, 0.8701), (SEARCH, 1, 0.8627), (TICKET, 1, 0.8965), (SEARCH, 2, 0.8045), (TICKET, 2, 0.8654)];
    let figure = |(arm, level, value): (&str, u32, f64)| ReferenceFigure {
        arm: arm.into(),
        level,
        metric: "accuracy".into(),
        value,
    };
    Reference {
        title: "notebook".into(),
        source: "FasterAI-Labs/fasterai, lottery-ticket notebook of 2021: Oxford-IIIT PETS, ResNet-18 from ImageNet weights".into(),
        caveats: vec![
            "The notebook ran one seed; its split and its random draws cannot be recovered.".into(),
            "Its epochs took 6 to 7 s dense and 9 to 10 s pruned, on a GPU, training and validation together: its pruned \
             epochs were slower than its dense ones."
                .into(),
        ],
        figures: figures.map(figure).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(controls: bool) -> NotebookConfig {
        NotebookConfig {
            epochs: NotebookConfig::EPOCHS,
            optimizer: OptimizerConfig::adam(),
            learning_rate: LearningRate::constant(1e-3),
            optimizer_state: OptimizerState::Fresh,
            granularity: Granularity::Weight,
            controls,
            seeds: vec![42],
            margin: None,
            is_original: false,
        }
    }

    #[test]
    fn blocks_are_another_experiment_and_weights_the_same_as_ever() -> Result<(), Error> {
        let identity = |config: &NotebookConfig| config.identity(&Value::Null);
        let blocks = NotebookConfig { granularity: Granularity::OutputBlock { outputs: 4 }, ..config(false) };
        assert_ne!(identity(&blocks)?, identity(&config(false))?);
        assert!(!serde_json::to_string(&config(false))?.contains("granularity"));
        let plan = blocks.plan(Value::Null)?;
        assert!(
            plan.fits
                .iter()
                .filter_map(|fit| fit.gradual.as_ref())
                .all(|gradual| { gradual.selection.granularity == blocks.granularity })
        );
        Ok(())
    }

    #[test]
    fn the_five_fits_are_the_notebooks() -> Result<(), Error> {
        let plan = config(false).plan(Value::Null)?;
        let rows: Vec<_> =
            plan.fits.iter().map(|fit| (fit.address.to_string(), fit.to.epoch, fit.start.clone())).collect();
        let end = |text: &str| text.parse().map(Start::End);
        assert_eq!(
            rows,
            [
                ("dense/0/42".to_owned(), 6, Start::Initial),
                ("search/1/42".to_owned(), 4, Start::Initial),
                ("ticket/1/42".to_owned(), 6, end("search/1/42")?),
                ("search/2/42".to_owned(), 4, Start::Initial),
                ("ticket/2/42".to_owned(), 6, end("search/2/42")?),
            ]
        );
        plan.check(92)
    }

    #[test]
    fn a_control_differs_from_its_fit_in_one_thing() -> Result<(), Error> {
        let plan = config(true).plan(Value::Null)?;
        plan.check(92)?;
        let find = |arm: &str, level| plan.fit(&Address::new(arm, level, 42)).cloned().expect("it is in the plan");
        for level in [1, 2] {
            let (fit, control) = (find(SEARCH, level), find(RANDOM_SEARCH, level));
            let gradual = fit.gradual.clone().map(|gradual| Gradual { criterion: "random".into(), ..gradual });
            let expected = FitPlan {
                address: control.address.clone(),
                description: control.description.clone(),
                gradual,
                keeps_files: false,
                ..fit
            };
            assert_eq!(control, expected);
        }
        // A sees as many epochs as B: 6 + 4 of the control = 4 + 6.
        assert_eq!(find(LONGER, 0).to, Step::epoch(4));
        Ok(())
    }

    #[test]
    fn fits_that_are_too_short_are_refused_before_any_training() {
        for (epochs, expected) in [
            ([6, 1, 6, 4, 6], "epochs of fit 2 is 1, expected at least 2"),
            ([0, 4, 6, 4, 6], "epochs of fit 1 is 0, expected at least 1"),
        ] {
            let error = NotebookConfig { epochs, ..config(false) }.plan(Value::Null).expect_err("too short");
            assert_eq!(error.to_string(), expected);
        }
    }
}
