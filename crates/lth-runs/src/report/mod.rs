//! The report of an experiment, made from its summary alone: one HTML file, and the same in Markdown.
//!
//! [`page()`] describes it once; [`files`] draws it twice; [`overview`] is what a terminal shows. What other crates measure
//! on tensors (mask overlap, histograms, paths between networks, pictures) comes in as plain data: [`Extras`].

mod about;
mod caveats;
mod charts;
mod connectivity;
mod curves;
mod extras;
mod format;
mod overview;
mod race;
mod records;
mod result;
mod tables;

use crate::experiment::{Analysis, Summary};
use crate::page::{Block, Page, Section};

use format::{counted, listed, share};

pub use connectivity::stability;
pub use extras::{Extras, Overlap, WeightHistogram};
pub(crate) use format::share as share_text;
pub use overview::overview;

/// The report's files, by name: `report.md` and `report.html`. A pure function of the summary.
///
/// `lth_experiment::extras` gives [`files_with`] the rest: what is measured on the networks that the fits left.
pub fn files(summary: &Summary) -> Vec<(&'static str, String)> {
    files_with(summary, &Extras::default())
}

/// The same, with what was measured on tensors besides.
pub fn files_with(summary: &Summary, extras: &Extras) -> Vec<(&'static str, String)> {
    let page = page(summary, extras);
    vec![("report.md", page.markdown()), ("report.html", page.html())]
}

/// The report as a description: the result first, then what limits it, figures, comparisons, costs, and all that is needed
/// to do it again.
pub fn page(summary: &Summary, extras: &Extras) -> Page {
    let analysis = Analysis::of(summary);
    let sections = [
        ("Race", race::blocks(summary, &analysis)),
        ("Result", result::blocks(summary, &analysis)),
        ("Figures", charts::blocks(summary, &analysis)),
        ("Linear mode connectivity", connectivity::blocks(summary, &analysis)),
        ("Masks, weights and pictures", extras.blocks()),
        ("Comparisons", tables::comparisons(&analysis)),
        ("Beside published figures", tables::beside(summary, &analysis)),
        ("Costs", tables::costs(summary, &analysis)),
        ("What was run", about::blocks(summary)),
        ("Records", records::blocks(summary, &analysis)),
    ];
    let sections = sections
        .into_iter()
        .filter(|(_, blocks)| !blocks.is_empty())
        .map(|(heading, blocks)| Section { heading: heading.into(), blocks })
        .collect();
    Page { title: title(summary), lead: lead(summary, &analysis), sections }
}

/// "Lottery tickets on digits (imp)"
fn title(summary: &Summary) -> String {
    if summary.is_race {
        return format!("A race to dense accuracy on {}", summary.dataset.name);
    }
    format!("Lottery tickets on {} ({})", summary.dataset.name, summary.experiment.name)
}

/// How many seeds, levels and weights, in one or two sentences.
fn lead(summary: &Summary, analysis: &Analysis) -> String {
    let seeds = summary.seeds();
    if seeds.is_empty() {
        return "No fit has ended yet.".into();
    }
    let named: Vec<String> = seeds.iter().take(12).map(u64::to_string).collect();
    let more = if seeds.len() > 12 { ", …" } else { "" };
    let mut text = format!("{} ({}{more})", counted(seeds.len(), "seed"), named.join(", "));
    let tickets = || analysis.figures.iter().filter(|figures| figures.role == crate::experiment::ArmRole::Ticket);
    let densities: Vec<f64> = tickets().filter_map(|figures| Some(figures.density?.mean)).collect();
    let levels: std::collections::BTreeSet<u32> = tickets().map(|figures| figures.level).collect();
    match (densities.iter().copied().reduce(f64::max), densities.iter().copied().reduce(f64::min)) {
        (Some(most), Some(least)) if levels.len() > 2 => {
            text += &format!(
                ", {} from {} % to {} % of weights",
                counted(levels.len(), "level"),
                share(most),
                share(least)
            );
        }
        (Some(_), Some(_)) => {
            let shares: Vec<String> = densities.iter().map(|density| format!("{} %", share(*density))).collect();
            text += &format!(", tickets of {} of weights", listed(&shares));
        }
        _ => {}
    }
    let arms: Vec<String> = summary
        .arms
        .iter()
        .filter(|arm| analysis.figures.iter().any(|has| has.arm == arm.name))
        .map(|arm| arm.name.clone())
        .collect();
    format!("{text}. Arms: {}. Compared by {}.", listed(&arms), analysis.measure.name)
}

/// The levels that stand for all: the first, the middle one and the last.
fn chosen(levels: &[u32]) -> Vec<u32> {
    match levels {
        [] | [_] | [_, _] => levels.to_vec(),
        all => vec![all[0], all[(all.len() - 1) / 2], all[all.len() - 1]],
    }
}

/// A table, unless it is empty.
fn table(caption: &str, table: crate::table::Table) -> Option<Block> {
    (!table.is_empty()).then(|| Block::Table { caption: caption.into(), table })
}
