//! Network A beside tickets B, with the controls that tell whether the ticket is the reason.

use serde::{Deserialize, Serialize};

use crate::record::{EpochRecord, Role, RunRecord};
use crate::statistics::{CONFIDENCE, Difference, Estimate, paired_difference};

/// A beside every ticket B, over all seeds; a pure function of the runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Network A at the end of its fit.
    pub baseline: Figures,
    /// One entry per sparsity, rising.
    pub tickets: Vec<TicketComparison>,
}

/// The figures of one fit, over the seeds that ran it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The runs' name.
    pub name: String,
    /// The seeds, in order.
    pub seeds: Vec<u64>,
    /// Epochs of the fit itself.
    pub n_epochs: usize,
    /// Epochs that its weights have seen, with those of the fits that it started from.
    pub n_epochs_in_all: usize,
    /// Accuracy after the last epoch.
    pub accuracy: Estimate,
    /// Validation loss after the last epoch.
    pub valid_loss: Estimate,
    /// Training seconds per epoch: each run's mean, over the seeds.
    pub seconds: Estimate,
    /// Validation seconds per epoch, likewise.
    pub valid_seconds: Estimate,
}

/// One ticket B beside A.
///
/// a: accuracy; t: training seconds of the epoch, without validation. Curves have one entry per epoch of the fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TicketComparison {
    /// The ticket's sparsity.
    pub sparsity: f64,
    /// Accuracy of A per epoch.
    #[serde(rename = "a_A")]
    pub accuracy_a: Vec<Estimate>,
    /// Accuracy of B per epoch.
    #[serde(rename = "a_B")]
    pub accuracy_b: Vec<Estimate>,
    /// Training seconds of A per epoch.
    #[serde(rename = "t_A")]
    pub seconds_a: Vec<Estimate>,
    /// Training seconds of B per epoch.
    #[serde(rename = "t_B")]
    pub seconds_b: Vec<Estimate>,
    /// The fit that found the mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Figures>,
    /// B at the end of its fit.
    pub ticket: Figures,
    /// a_B − a_A at the last epochs, paired by seed.
    pub accuracy_difference: Difference,
    /// a_B / a_A at the last epochs, each seed by itself; absent if an a_A is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_ratio: Option<Estimate>,
    /// t_B / t_A: mean training seconds per epoch, each seed by itself; absent if a t_A is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ratio: Option<Estimate>,
    /// A trained until it has seen as many epochs as B.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longer: Option<Control>,
    /// Search and ticket again with a random mask of the same per-layer sparsity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<Control>,
}

/// A control beside a ticket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// The control; `longer` after as many epochs in all as B, even if it ran on.
    pub figures: Figures,
    /// a_B − a_control, paired by seed: what the ticket adds to what the control already has.
    pub accuracy_difference: Difference,
}

impl Comparison {
    /// The comparison of `runs`; `None` unless they hold a baseline and a ticket with a seed in common.
    ///
    /// By [`Role`] and `control`, whatever the names: the first baseline is A; each sparsity's first ticket is B.
    pub fn of(runs: &[RunRecord]) -> Option<Comparison> {
        let baseline = Fit::find(runs, Role::Baseline, false, None)?;
        let mut sparsities: Vec<f64> = runs
            .iter()
            .filter(|run| run.role == Role::Ticket && !run.control && run.sparsity.is_finite())
            .map(|run| run.sparsity)
            .collect();
        sparsities.sort_by(f64::total_cmp);
        sparsities.dedup();
        let tickets: Vec<_> = sparsities.iter().filter_map(|sparsity| compare(runs, &baseline, *sparsity)).collect();
        if tickets.is_empty() {
            return None;
        }
        Some(Comparison { baseline: baseline.figures(None)?, tickets })
    }
}

fn compare(runs: &[RunRecord], baseline: &Fit<'_>, sparsity: f64) -> Option<TicketComparison> {
    let ticket = Fit::find(runs, Role::Ticket, false, Some(sparsity))?;
    let figures = ticket.figures(None)?;
    let n_epochs_in_all = figures.n_epochs_in_all;
    let last = |fit: &Fit<'_>| fit.per_seed(|_, own| Some(own.last()?.accuracy));
    let seconds = |fit: &Fit<'_>| fit.per_seed(|_, own| mean_of(own, |epoch| epoch.seconds));
    let ratio = |pairs: Vec<(f64, f64)>| {
        let ratios: Vec<f64> = pairs.iter().map(|(a, b)| b / a).collect();
        Estimate::of(&ratios)
    };
    let accuracies = paired(&last(baseline), &last(&ticket));

    let at_same_age = |fit: &Fit<'_>| fit.per_seed(|all, _| Some(all.get(n_epochs_in_all - 1)?.accuracy));
    let longer = Fit::all(runs, Role::Baseline, true, None)
        .into_iter()
        .filter(|fit| fit.n_epochs_in_all() >= n_epochs_in_all)
        .min_by_key(Fit::n_epochs_in_all)
        .and_then(|fit| {
            let pairs = paired(&at_same_age(&fit), &last(&ticket));
            Some(Control {
                figures: fit.figures(Some(n_epochs_in_all))?,
                accuracy_difference: paired_difference(&pairs, CONFIDENCE)?,
            })
        });
    let random = Fit::find(runs, Role::Ticket, true, Some(sparsity)).and_then(|fit| {
        let pairs = paired(&last(&fit), &last(&ticket));
        Some(Control { figures: fit.figures(None)?, accuracy_difference: paired_difference(&pairs, CONFIDENCE)? })
    });

    Some(TicketComparison {
        sparsity,
        accuracy_a: baseline.curve(|epoch| epoch.accuracy),
        accuracy_b: ticket.curve(|epoch| epoch.accuracy),
        seconds_a: baseline.curve(|epoch| epoch.seconds),
        seconds_b: ticket.curve(|epoch| epoch.seconds),
        search: Fit::find(runs, Role::Search, false, Some(sparsity)).and_then(|fit| fit.figures(None)),
        accuracy_difference: paired_difference(&accuracies, CONFIDENCE)?,
        accuracy_ratio: ratio(accuracies),
        time_ratio: ratio(paired(&seconds(baseline), &seconds(&ticket))),
        ticket: figures,
        longer,
        random,
    })
}

/// The figures of every fit in `runs`, each with its first run, in the order of those. Runs without an epoch are
/// left out.
pub fn figures_by_name(runs: &[RunRecord]) -> Vec<(&RunRecord, Figures)> {
    let fits = Fit::group(runs, |_| true);
    fits.iter().filter_map(|fit| Some((fit.runs[0].0, fit.figures(None)?))).collect()
}

/// The epochs that a run's weights have seen: those of the runs it started from, then its own.
pub fn epochs_in_all(runs: &[RunRecord], run: &RunRecord) -> Vec<EpochRecord> {
    let mut chain = vec![run];
    // A chain longer than the runs would be a circle; `Summary::validate` refuses those.
    while let Some(before) = chain[chain.len() - 1].starts_from.as_deref()
        && chain.len() <= runs.len()
        && let Some(found) = runs.iter().find(|other| other.name == before && other.seed == run.seed)
    {
        chain.push(found);
    }
    chain.iter().rev().flat_map(|run| run.epochs.iter().copied()).collect()
}

/// The runs of one name, a seed each, with the epochs that their weights have seen.
struct Fit<'a> {
    runs: Vec<(&'a RunRecord, Vec<EpochRecord>)>,
}

impl<'a> Fit<'a> {
    /// The fits of that part, in the order of their first runs.
    fn all(runs: &'a [RunRecord], role: Role, control: bool, sparsity: Option<f64>) -> Vec<Fit<'a>> {
        Fit::group(runs, |run| {
            run.role == role && run.control == control && sparsity.is_none_or(|sparsity| run.sparsity == sparsity)
        })
    }

    /// The wanted runs that have an epoch, by name.
    fn group(runs: &'a [RunRecord], wanted: impl Fn(&RunRecord) -> bool) -> Vec<Fit<'a>> {
        let mut fits: Vec<Fit<'a>> = Vec::new();
        for run in runs.iter().filter(|run| !run.epochs.is_empty() && wanted(run)) {
            let entry = (run, epochs_in_all(runs, run));
            match fits.iter_mut().find(|fit| fit.runs[0].0.name == run.name) {
                Some(fit) => fit.runs.push(entry),
                None => fits.push(Fit { runs: vec![entry] }),
            }
        }
        for fit in &mut fits {
            fit.runs.sort_by_key(|(run, _)| run.seed);
        }
        fits
    }

    fn find(runs: &'a [RunRecord], role: Role, control: bool, sparsity: Option<f64>) -> Option<Fit<'a>> {
        Fit::all(runs, role, control, sparsity).into_iter().next()
    }

    /// Over the seeds, the least.
    fn n_epochs_in_all(&self) -> usize {
        self.runs.iter().map(|(_, all)| all.len()).min().unwrap_or(0)
    }

    /// `value(epochs in all, own epochs)` for each seed that has one.
    fn per_seed(&self, value: impl Fn(&[EpochRecord], &[EpochRecord]) -> Option<f64>) -> Vec<(u64, f64)> {
        let of = |(run, all): &(&RunRecord, Vec<EpochRecord>)| Some((run.seed, value(all, &run.epochs)?));
        self.runs.iter().filter_map(of).collect()
    }

    /// Over the seeds, at each epoch of the fit itself.
    fn curve(&self, value: impl Fn(&EpochRecord) -> f64) -> Vec<Estimate> {
        let at = |index| self.per_seed(|_, own| own.get(index).map(&value));
        (0..).map_while(|index| Estimate::of(&at(index).iter().map(|(_, value)| *value).collect::<Vec<_>>())).collect()
    }

    /// The figures at the end, or after `n_epochs_in_all` epochs.
    fn figures(&self, n_epochs_in_all: Option<usize>) -> Option<Figures> {
        let n_epochs_in_all = n_epochs_in_all.unwrap_or_else(|| self.n_epochs_in_all());
        let estimate =
            |values: Vec<(u64, f64)>| Estimate::of(&values.iter().map(|(_, value)| *value).collect::<Vec<_>>());
        let at_end = |value: fn(&EpochRecord) -> f64| {
            estimate(self.per_seed(|all, _| all.get(n_epochs_in_all.checked_sub(1)?).map(value)))
        };
        let mean = |value: fn(&EpochRecord) -> f64| estimate(self.per_seed(|_, own| mean_of(own, value)));
        Some(Figures {
            name: self.runs[0].0.name.clone(),
            seeds: self.runs.iter().map(|(run, _)| run.seed).collect(),
            n_epochs: self.runs.iter().map(|(run, _)| run.epochs.len()).min()?,
            n_epochs_in_all,
            accuracy: at_end(|epoch| epoch.accuracy)?,
            valid_loss: at_end(|epoch| epoch.valid_loss)?,
            seconds: mean(|epoch| epoch.seconds)?,
            valid_seconds: mean(|epoch| epoch.valid_seconds)?,
        })
    }
}

fn mean_of(epochs: &[EpochRecord], value: impl Fn(&EpochRecord) -> f64) -> Option<f64> {
    Estimate::of(&epochs.iter().map(value).collect::<Vec<_>>()).map(|estimate| estimate.mean)
}

/// The values of the seeds that both have.
fn paired(first: &[(u64, f64)], second: &[(u64, f64)]) -> Vec<(f64, f64)> {
    let of = |seed: u64| second.iter().find(|(other, _)| *other == seed).map(|(_, value)| *value);
    first.iter().filter_map(|(seed, value)| Some((*value, of(*seed)?))).collect()
}
