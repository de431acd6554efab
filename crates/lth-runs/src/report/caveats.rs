//! What the numbers do not say.

use crate::comparison::{Control, TicketComparison};
use crate::lines::grouped;
use crate::published;
use crate::report::format::{percent, points};
use crate::report::tables::shortest_percent;
use crate::statistics::{CONFIDENCE, wilson_interval};
use crate::summary::{Checked, OptimizerState, Summary};
use crate::table::escape;

/// A lead below this is rounding: no validation set has a million pictures.
const LEAST: f64 = 1e-6;

/// One sentence or two each, in the order of their weight.
pub(super) fn caveats(summary: &Summary) -> Vec<String> {
    let tickets = || summary.comparison.iter().flat_map(|comparison| &comparison.tickets);
    let mut caveats: Vec<String> = Vec::new();
    caveats.extend(notebook(summary));
    caveats.extend(epochs(summary));
    caveats.extend(tickets().flat_map(controls));
    caveats.extend(seeds(summary));
    caveats.push(optimizer(summary));
    caveats.extend(validation_set(summary));
    caveats.extend(pictures(summary));
    let dense = published::FITS[0].seconds;
    let pruned = published::FITS[2].seconds;
    caveats.push(format!(
        "Times are of this machine; training and validation are told apart. The notebook's seconds are of a GPU, \
         hold both, and its pruned epochs were slower than its dense ones ({} s against {} to {} s).",
        pruned.0, dense.0, dense.1
    ));
    caveats
}

fn notebook(summary: &Summary) -> Option<String> {
    let dataset = &summary.dataset;
    if summary.is_notebook_setting() {
        let weights = summary.weights.as_ref().map(|weights| weights.checked);
        let whole = dataset.checked == Checked::Published && weights == Some(Checked::Published);
        let how = if whole { "checked against" } else { "checked in part, not in every byte, against" };
        return Some(format!(
            "The pictures and the starting weights are the notebook's, {how} their published checksums; its split and \
             its random draws cannot be recovered, and it ran one seed."
        ));
    }
    let pictures = match (dataset.name.as_str(), dataset.checked) {
        ("pets", checked) if checked.is_published() => "the pictures of PETS".into(),
        ("pets", _) => "pictures in the layout of PETS that no published checksum vouches for".into(),
        (name, _) => format!("the pictures \"{}\"", escape(name)),
    };
    let weights = match &summary.weights {
        None => "weights drawn at random".into(),
        Some(weights) => format!("the weights \"{}\"", escape(&weights.name)),
    };
    Some(format!(
        "The notebook's figures belong to the Oxford-IIIT PETS photographs and ImageNet weights. This run had {pictures} \
         and {weights}: its accuracies are not PETS accuracies and say nothing for or against the notebook's."
    ))
}

fn epochs(summary: &Summary) -> Option<String> {
    let comparison = summary.comparison.as_ref()?;
    let a = comparison.baseline.n_epochs_in_all;
    let more: Vec<String> = comparison
        .tickets
        .iter()
        .filter(|ticket| ticket.ticket.n_epochs_in_all > a)
        .map(|ticket| format!("{} epochs at {}", ticket.ticket.n_epochs_in_all, shortest_percent(ticket.sparsity)))
        .collect();
    (!more.is_empty()).then(|| {
        format!(
            "B has seen more training than A: {}, against A's {a}. The search rewinds the pruned weights, but what it \
             does not rewind (under the notebook's rule the BatchNorm layers) keeps what it learned.",
            more.join(", ")
        )
    })
}

fn controls(ticket: &TicketComparison) -> Vec<String> {
    let name = shortest_percent(ticket.sparsity);
    let mut found = Vec::new();
    match &ticket.longer {
        None => found.push(format!(
            "There is no control that trains A as long as the {name} ticket: a gain of B may be the gain of more epochs."
        )),
        Some(control) if ticket.accuracy_difference.mean > LEAST && control.accuracy_difference.mean <= LEAST => {
            found.push(format!(
                "A trained as long as the {name} ticket did as well or better ({} points): B's gain over A is no \
                 evidence for the ticket.",
                points(-control.accuracy_difference.mean)
            ));
        }
        Some(control) => found.extend(unsure(&name, "A trained as long", control)),
    }
    match &ticket.random {
        None => found.push(format!(
            "There is no random mask beside the {name} ticket: whether the choice of weights matters is not known."
        )),
        Some(control) if control.accuracy_difference.mean <= LEAST => found.push(format!(
            "A random mask of the same per-layer sparsity did as well as the {name} ticket or better ({} points): the \
             choice of weights is not what B's accuracy comes from.",
            points(-control.accuracy_difference.mean)
        )),
        Some(control) => found.extend(unsure(&name, "a random mask", control)),
    }
    found
}

/// Says that a lead over a control is within the spread of the seeds, if it is.
fn unsure(ticket: &str, what: &str, control: &Control) -> Option<String> {
    let difference = &control.accuracy_difference;
    let within = difference.mean > LEAST && difference.interval.as_ref()?.contains(0.0);
    within.then(|| {
        format!(
            "The {ticket} ticket's lead over {what} ({} points) is within the spread of the seeds.",
            points(difference.mean)
        )
    })
}

fn seeds(summary: &Summary) -> Option<String> {
    let n_seeds = summary.seeds().len();
    match n_seeds {
        0 => None,
        1 => Some(
            "One seed has no deviation: whether a difference is more than chance cannot be told from this run. Repeat it \
             over several seeds."
                .into(),
        ),
        _ => Some(format!(
            "± is the sample standard deviation over {n_seeds} seeds. Differences are paired by seed; their intervals \
             and p-values are Student's t and are not corrected for the number of comparisons."
        )),
    }
}

fn optimizer(summary: &Summary) -> String {
    match summary.optimizer_state {
        OptimizerState::Fresh => "Every fit began with a fresh optimiser, as the paper means it. In the notebook one \
                                  optimiser lived through all five fits and carried its moments along."
            .into(),
        OptimizerState::Carried => {
            "One optimiser lived through all fits and carried its moments from each to the next, \
                                    as in the notebook. The paper means a fresh one."
                .into()
        }
    }
}

fn validation_set(summary: &Summary) -> Vec<String> {
    let n_valid = summary.dataset.n_valid;
    let mut found = Vec::new();
    if let Some(comparison) = &summary.comparison
        && n_valid > 0
    {
        let accuracy = comparison.baseline.accuracy.mean;
        let right = (accuracy * n_valid as f64).round().max(0.0) as u64;
        if let Some(interval) = wilson_interval(right.min(n_valid), n_valid, CONFIDENCE) {
            found.push(format!(
                "The validation set has {} pictures; from its size alone, an accuracy of {} % means {} to {} % (95 %, \
                 Wilson). A and B answer the same pictures, so their difference is known better than either.",
                grouped(n_valid),
                percent(accuracy),
                percent(interval.low),
                percent(interval.high)
            ));
        }
    }
    if let Some(majority) = summary.dataset.majority() {
        found.push(format!("Always answering the commonest class would be right for {} % of it.", percent(majority)));
    }
    found
}

fn pictures(summary: &Summary) -> Vec<String> {
    let dataset = &summary.dataset;
    let list = |names: &[String]| {
        let shown: Vec<String> = names.iter().take(12).map(|name| escape(name)).collect();
        let more = names.len() - shown.len();
        let rest = if more > 0 { format!(" and {more} more (all in summary.json)") } else { String::new() };
        format!("{}{rest}", shown.join(", "))
    };
    let mut found = Vec::new();
    if !dataset.skipped.is_empty() {
        found.push(format!(
            "{} damaged {} left out: {}.",
            dataset.skipped.len(),
            if dataset.skipped.len() == 1 { "picture was" } else { "pictures were" },
            list(&dataset.skipped)
        ));
    }
    if !dataset.left_out.is_empty() {
        let (n, list) = (dataset.left_out.len(), list(&dataset.left_out));
        found.push(match n {
            1 => format!("One file among the pictures was not looked at: {list}."),
            _ => format!("{n} files among the pictures were not looked at: {list}."),
        });
    }
    if !dataset.contradicted.is_empty() {
        let n = match dataset.contradicted.len() {
            1 => "one picture".to_owned(),
            n => format!("{n} pictures"),
        };
        found.push(format!(
            "The data set's own list gives {n} another class than the file name, which was believed: {}.",
            list(&dataset.contradicted)
        ));
    }
    if !dataset.odd.is_empty() {
        found.push(format!(
            "{} loaded although not what their names say or not quite whole: {}.",
            if dataset.odd.len() == 1 { "One picture".into() } else { format!("{} pictures", dataset.odd.len()) },
            list(&dataset.odd)
        ));
    }
    found
}
