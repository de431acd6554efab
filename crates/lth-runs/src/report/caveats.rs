//! What the numbers do not say.

use crate::experiment::{Analysis, ArmFigures, ArmRole, Ending, Summary};
use crate::lines::grouped;
use crate::provenance::{Checked, OptimizerState};
use crate::statistics::{CONFIDENCE, LEAST_SEEDS, Scale, wilson_interval};

use super::format::{counted, share, steps};
use super::tables::unit;

/// One or two sentences each, in the order of their weight.
pub(super) fn caveats(summary: &Summary, analysis: &Analysis) -> Vec<String> {
    let mut caveats: Vec<String> = Vec::new();
    caveats.extend(frozen(summary));
    caveats.extend(search(summary, analysis));
    caveats.extend(unsettled(summary));
    caveats.extend(failed(analysis));
    caveats.extend(seeds(summary, analysis));
    caveats.extend(controls(analysis));
    caveats.extend(optimizer(summary));
    caveats.extend(validation(summary, analysis));
    caveats.extend(examples(summary));
    if unit(summary) == "epoch" {
        caveats.push(
            "This summary was written in the first schema, which counted no steps and kept no plans: its steps are epochs, \
             and what a fit needed is known only as far as it started from another."
                .into(),
        );
    }
    caveats
}

/// That nothing pruned was trained, where that is so.
pub(super) fn frozen(summary: &Summary) -> Option<String> {
    summary.conditions.pruned_weights_are_frozen.then(|| {
        "Nothing that is pruned was ever trained: the body is frozen. So the mask is that of the starting weights, not one \
         that training found, and rewinding changes no pruned weight. With --freeze none everything is trained."
            .into()
    })
}

/// How much more training than dense a ticket took, its search included.
fn search(summary: &Summary, analysis: &Analysis) -> Option<String> {
    let dense = analysis.figures.iter().find(|figures| figures.role == ArmRole::Dense)?;
    let dense_steps = dense.n_steps_in_all?.mean;
    let tickets: Vec<&ArmFigures> =
        analysis.figures.iter().filter(|figures| figures.role == ArmRole::Ticket && figures.level > 0).collect();
    let mut shown: Vec<&ArmFigures> = tickets.first().into_iter().chain(tickets.last()).copied().collect();
    shown.dedup();
    let mut more = Vec::new();
    for ticket in shown {
        let in_all = ticket.n_steps_in_all?.mean;
        if in_all > ticket.n_steps?.mean && dense_steps > 0.0 {
            more.push(format!(
                "{:.1} times dense's {} up to the ticket at {} % of weights ({} against {}; {} of them its own)",
                in_all / dense_steps,
                plural(unit(summary)),
                share(ticket.density?.mean),
                steps(in_all),
                steps(dense_steps),
                steps(ticket.n_steps?.mean),
            ));
        }
    }
    (!more.is_empty()).then(|| {
        let what = format!("The search's training is part of a ticket's cost: {}.", more.join(", "));
        if has_longer(analysis, dense_steps) {
            what
        } else {
            format!("{what} No dense network was trained as long: a gain over dense may be a gain of more training.")
        }
    })
}

/// That an early-bird search went on to the end of a training, where one did.
fn unsettled(summary: &Summary) -> Option<String> {
    let searches = || summary.fits.iter().filter(|fit| fit.address.arm == "early-bird-search" && fit.is_whole());
    let n = searches().filter(|fit| fit.ending == Ending::Done).count();
    (n > 0).then(|| {
        format!(
            "In {n} of {} searches the early-bird mask had not settled when the training was over: such a search costs a whole \
             training.",
            searches().count()
        )
    })
}

fn plural(unit: &str) -> String {
    format!("{unit}s")
}

/// Whether there is a control with all weights that was trained longer than dense.
fn has_longer(analysis: &Analysis, dense_steps: f64) -> bool {
    let is_dense = |figures: &ArmFigures| figures.density.is_none_or(|density| density.mean >= 1.0);
    let is_longer = |figures: &ArmFigures| figures.n_steps_in_all.is_some_and(|in_all| in_all.mean > dense_steps);
    let mut controls = analysis.figures.iter().filter(|figures| figures.role == ArmRole::Control);
    controls.any(|figures| is_dense(figures) && is_longer(figures))
}

fn failed(analysis: &Analysis) -> Option<String> {
    let (n, first) = (analysis.left_out.len(), analysis.left_out.first()?);
    let rest = match n {
        1 => String::new(),
        2 => " and one more".to_owned(),
        n => format!(" and {} more", n - 1),
    };
    Some(format!("Left out: {} ({}){rest}. The records below have them all.", first.what, first.reason))
}

fn seeds(summary: &Summary, analysis: &Analysis) -> Option<String> {
    let n = summary.seeds().len();
    match n {
        0 => None,
        1 => Some("One seed has no deviation: whether a difference is more than chance cannot be told from it.".into()),
        n if n < LEAST_SEEDS => {
            Some(format!("{n} seeds give no verdict; their intervals are wide and are shown for what they are."))
        }
        n => {
            let missing = analysis.figures.iter().filter(|figures| figures.seeds.len() < n).count();
            (missing > 0)
                .then(|| format!("In {} fewer than the experiment's {n} seeds count.", counted(missing, "row")))
        }
    }
}

fn controls(analysis: &Analysis) -> Option<String> {
    let has = |role: ArmRole| analysis.figures.iter().any(|figures| figures.role == role);
    (has(ArmRole::Ticket) && !has(ArmRole::Control))
        .then(|| "No control was run: whether the choice of weights or their values matter is not known.".into())
}

fn optimizer(summary: &Summary) -> Option<String> {
    (summary.conditions.optimizer_state == OptimizerState::Carried).then(|| {
        "One optimiser lived through all fits of a seed and carried its averages from each to the next; the papers mean a \
         fresh one."
            .into()
    })
}

fn validation(summary: &Summary, analysis: &Analysis) -> Vec<String> {
    let dataset = &summary.dataset;
    let mut found = Vec::new();
    if analysis.measure.name.starts_with("validation") {
        found.push(
            "There is no test set: figures are of the validation set, which also tells the early-stop step.".into(),
        );
    }
    let is_test = analysis.measure.name.starts_with("test");
    let (part, n) = if is_test { ("test", dataset.n_test) } else { ("validation", dataset.n_valid) };
    let dense = analysis.figures.iter().find(|figures| figures.role == ArmRole::Dense).and_then(|dense| dense.metric);
    if let (Some(accuracy), true) = (dense, analysis.measure.scale == Scale::Points) {
        let right = (accuracy.mean * n as f64).round().max(0.0) as u64;
        if let Some(interval) = wilson_interval(right.min(n), n, CONFIDENCE) {
            found.push(format!(
                "The {part} set has {} examples: from their number alone, an accuracy of {:.2} % means {:.2} to {:.2} % (95 %, \
                 Wilson).",
                grouped(n),
                100.0 * accuracy.mean,
                100.0 * interval.low,
                100.0 * interval.high
            ));
        }
        if let Some(majority) = dataset.majority() {
            found.push(format!(
                "Always answering the commonest class would be right for {:.2} % of the validation set.",
                100.0 * majority
            ));
        }
    }
    found
}

fn examples(summary: &Summary) -> Vec<String> {
    let dataset = &summary.dataset;
    let list = |names: &[String]| {
        let more = names.len().saturating_sub(12);
        let rest = if more > 0 { format!(" and {more} more (all in summary.json)") } else { String::new() };
        format!("{}{rest}", names.iter().take(12).cloned().collect::<Vec<_>>().join(", "))
    };
    let mut found = Vec::new();
    if dataset.checked == Checked::No {
        found.push(format!("No checksum vouches for the data \"{}\": they are as they were found.", dataset.name));
    }
    if !dataset.skipped.is_empty() {
        let were = if dataset.skipped.len() == 1 { "was" } else { "were" };
        found.push(format!(
            "{} {were} left out: {}.",
            counted(dataset.skipped.len(), "damaged file"),
            list(&dataset.skipped)
        ));
    }
    if !dataset.left_out.is_empty() {
        let were = if dataset.left_out.len() == 1 { "was" } else { "were" };
        let n = counted(dataset.left_out.len(), "file");
        found.push(format!("{n} among the data {were} not looked at: {}.", list(&dataset.left_out)));
    }
    if !dataset.contradicted.is_empty() {
        found.push(format!(
            "The data set's own list gives {} another class than the file name, which was believed: {}.",
            counted(dataset.contradicted.len(), "example"),
            list(&dataset.contradicted)
        ));
    }
    if !dataset.odd.is_empty() {
        found.push(format!(
            "{} loaded although not what the name says or not quite whole: {}.",
            counted(dataset.odd.len(), "file"),
            list(&dataset.odd)
        ));
    }
    found
}
