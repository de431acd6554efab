//! The fits of the comparison as data: what each starts from, prunes and is compared as.

use lth_criteria::{Criterion, LargeFinal, Random};
use lth_runs::Role;
use lth_schedule::{Moment, Schedule, Sparsity, SparsitySchedule, Window};
use lth_ticket::{PruningConfig, Rewind};

use super::options::Settings;

/// One fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) control: bool,
    pub(crate) n_epochs: usize,
    /// Whose optimiser, noise and order of pictures it goes on with; the first has none before it.
    pub(crate) after: Option<String>,
    pub(crate) start: Start,
    pub(crate) pruning: Option<PruningPlan>,
}

/// Which weights a fit starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The initial ones, without masks.
    Initial,
    /// Those that the fit before it left.
    Left,
    /// The same, and its optimiser, too: one longer fit in two pieces.
    Continued,
}

/// How a fit prunes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PruningPlan {
    pub(crate) sparsity: f64,
    pub(crate) is_random: bool,
    /// The epoch that a search rewinds to; a ticket is cut at once and not rewound.
    pub(crate) rewind_epoch: Option<usize>,
}

/// First epoch in which a search prunes, and its number of jumps: the notebook's.
const START_EPOCH: u32 = 1;
const N_JUMPS: u32 = 3;

/// The fits for one seed, in order: five, then the controls.
pub(crate) fn plans(settings: &Settings) -> Vec<Plan> {
    let [baseline, search_50, ticket_50, search_80, ticket_80] = settings.epochs.0;
    let lottery = |percent: u32, rewind_epoch, after: &str, n_search, n_ticket, is_random| {
        let suffix = if is_random { "-random" } else { "" };
        let search = format!("search-{percent}{suffix}");
        let sparsity = f64::from(percent) / 100.;
        let plan = |name: &str, role, n_epochs, after: &str, start, rewind_epoch| Plan {
            name: name.to_owned(),
            role,
            control: is_random,
            n_epochs,
            after: Some(after.to_owned()),
            start,
            pruning: Some(PruningPlan { sparsity, is_random, rewind_epoch }),
        };
        [
            plan(&search, Role::Search, n_search, after, Start::Initial, Some(rewind_epoch)),
            plan(&format!("ticket-{percent}{suffix}"), Role::Ticket, n_ticket, &search, Start::Left, None),
        ]
    };
    let dense = |name: &str, control, n_epochs, after: Option<&str>, start| Plan {
        name: name.to_owned(),
        role: Role::Baseline,
        control,
        n_epochs,
        after: after.map(str::to_owned),
        start,
        pruning: None,
    };
    let mut plans = vec![dense("baseline", false, baseline, None, Start::Initial)];
    plans.extend(lottery(50, 0, "baseline", search_50, ticket_50, false));
    plans.extend(lottery(80, 1, "ticket-50", search_80, ticket_80, false));
    if settings.controls {
        let longest = (search_50 + ticket_50).max(search_80 + ticket_80);
        if longest > baseline {
            plans.push(dense("baseline-longer", true, longest - baseline, Some("baseline"), Start::Continued));
        }
        plans.extend(lottery(50, 0, "baseline", search_50, ticket_50, true));
        plans.extend(lottery(80, 1, "ticket-50", search_80, ticket_80, true));
    }
    plans
}

impl PruningPlan {
    pub(crate) fn criterion(&self, seed: u64) -> Box<dyn Criterion> {
        if self.is_random { Box::new(Random { seed }) } else { Box::new(LargeFinal) }
    }

    /// The hook's configuration.
    pub(crate) fn config(&self, seed: u64) -> Result<PruningConfig, lth_schedule::Error> {
        let end = Sparsity::new(self.sparsity)?;
        let schedule = match self.rewind_epoch {
            Some(_) => SparsitySchedule {
                window: Window::starting_at(Moment::epoch(START_EPOCH))?,
                ..SparsitySchedule::to(end, Schedule::iterative(N_JUMPS)?)
            },
            None => SparsitySchedule::to(end, Schedule::OneShot),
        };
        let rewind = self.rewind_epoch.map(|epoch| Rewind { reset_end: true, ..Rewind::notebook(epoch) });
        Ok(PruningConfig { criterion: self.criterion(seed), rewind, ..PruningConfig::notebook(schedule) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reproduce::options::{
        DatasetName, DeviceName, Epochs, FreezeName, HeadName, OptimizerStateName, WeightsName,
    };

    fn settings(controls: bool) -> Settings {
        Settings {
            dataset: DatasetName::ToyPets,
            weights: WeightsName::None,
            freeze: FreezeName::None,
            head: HeadName::Fastai,
            seeds: vec![1],
            epochs: Epochs::NOTEBOOK,
            batch_size: 64,
            image_size: 64,
            device: DeviceName::Cpu,
            optimizer_state: OptimizerStateName::Fresh,
            controls,
            skip_damaged: false,
            learning_rate: 1e-3,
            optimizer: lth_train::OptimizerConfig::adam(),
        }
    }

    #[test]
    fn the_five_fits_are_the_notebooks() {
        let plans = plans(&settings(false));
        let row = |plan: &Plan| {
            (plan.name.clone(), plan.n_epochs, plan.start, plan.pruning.as_ref().map(|p| (p.sparsity, p.rewind_epoch)))
        };
        let expected = [
            ("baseline", 6, Start::Initial, None),
            ("search-50", 4, Start::Initial, Some((0.5, Some(0)))),
            ("ticket-50", 6, Start::Left, Some((0.5, None))),
            ("search-80", 4, Start::Initial, Some((0.8, Some(1)))),
            ("ticket-80", 6, Start::Left, Some((0.8, None))),
        ];
        assert_eq!(
            plans.iter().map(row).collect::<Vec<_>>(),
            expected.map(|(name, n, start, p)| (name.to_owned(), n, start, p))
        );
    }

    #[test]
    fn a_control_differs_from_its_fit_in_one_thing() {
        let plans = plans(&settings(true));
        let find = |name: &str| plans.iter().find(|plan| plan.name == name).expect(name);
        for name in ["search-50", "search-80"] {
            let (fit, control) = (find(name), find(&format!("{name}-random")));
            assert_eq!((fit.n_epochs, &fit.after, fit.start), (control.n_epochs, &control.after, control.start));
            let (fit, control) = (fit.pruning.clone().expect("prunes"), control.pruning.clone().expect("prunes"));
            assert_eq!(PruningPlan { is_random: true, ..fit }, control);
        }
        // A sees as many epochs as B: 6 + 4 of the control = 4 + 6.
        assert_eq!(find("baseline-longer").n_epochs, 4);
        assert!(plans.iter().filter(|plan| plan.control).count() == 5);
    }
}
