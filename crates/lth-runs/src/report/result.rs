//! What came out, in sentences.

use std::collections::BTreeSet;

use crate::experiment::{Analysis, Compared, Comparison, Summary};
use crate::page::Block;
use crate::statistics::{Better, Claim, LEAST_SEEDS, Scale, VerdictKind};

use super::format::{counted, difference, listed, sentence, share};
use super::{caveats, tables};

/// More verdicts than these are gathered into one sentence for each arm.
const MOST_SENTENCES: usize = 12;

/// The sentences, what limits them, and the figures that they rest on.
pub(super) fn blocks(summary: &Summary, analysis: &Analysis) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let said = said(summary, analysis);
    blocks.extend(said.introduction.map(Block::Paragraph));
    if !said.sentences.is_empty() {
        blocks.push(Block::List(said.sentences));
    }
    if !said.all.is_empty() {
        let heading = format!("Each of the {} verdicts as a sentence", said.all.len());
        blocks.push(Block::Details { summary: heading, blocks: vec![Block::List(said.all)] });
    }
    let caveats = caveats::caveats(summary, analysis);
    if !caveats.is_empty() {
        blocks.push(Block::Caveats(caveats));
    }
    let caption = "Means over the seeds, in brackets their 95 % intervals (Student's t). Failed fits are left out.";
    blocks.extend(tables::few_and_all(summary, analysis, caption, |is_shown| {
        tables::figures(summary, analysis, is_shown)
    }));
    blocks
}

/// What may be said.
pub(super) struct Said {
    /// Why there is no verdict, or that nothing was compared.
    pub(super) introduction: Option<String>,
    /// The result.
    pub(super) sentences: Vec<String>,
    /// Every verdict, where `sentences` gathers them.
    pub(super) all: Vec<String>,
}

pub(super) fn said(summary: &Summary, analysis: &Analysis) -> Said {
    let answered =
        || analysis.comparisons.iter().filter(|comparison| comparison.verdict.kind != VerdictKind::TooFewSeeds);
    if analysis.comparisons.is_empty() {
        let introduction =
            Some("There is no ticket with a dense network or a control beside it: nothing is compared.".into());
        return Said { introduction, sentences: Vec::new(), all: Vec::new() };
    }
    if answered().next().is_none() {
        let most = analysis.comparisons.iter().map(|comparison| comparison.verdict.n_seeds).max().unwrap_or(0);
        let alone = if analysis.single.is_empty() {
            "The table has what was measured."
        } else {
            "What the networks of this seed answered on the same examples says something of these networks, not of their arms:"
        };
        let introduction =
            format!("No verdict from {}: at least {LEAST_SEEDS} are needed. {alone}", counted(most, "seed"));
        let sentences = analysis.single.iter().map(|single| sentence(&single.to_string())).collect();
        return Said { introduction: Some(introduction), sentences, all: Vec::new() };
    }
    let all: Vec<String> = answered().map(|comparison| full(summary, comparison)).collect();
    let few = analysis.comparisons.len() - all.len();
    let introduction = (few > 0).then(|| {
        format!("No verdict from fewer than {LEAST_SEEDS} seeds: {} left without.", counted(few, "comparison"))
    });
    if all.len() <= MOST_SENTENCES {
        Said { introduction, sentences: all, all: Vec::new() }
    } else {
        Said { introduction, sentences: gathered(summary, analysis), all }
    }
}

/// A verdict with what it means.
fn full(summary: &Summary, comparison: &Comparison) -> String {
    let meaning = meaning(summary, comparison).map(|meaning| format!(": {meaning}")).unwrap_or_default();
    sentence(&format!("{}{meaning}", comparison.verdict))
}

/// What the control says where the ticket is better than it.
fn meaning<'a>(summary: &'a Summary, comparison: &Comparison) -> Option<&'a str> {
    let verdict = &comparison.verdict;
    let is_better = match verdict.measure.better {
        Better::Higher => verdict.kind == VerdictKind::Higher,
        Better::Lower => verdict.kind == VerdictKind::Lower,
    };
    let meaning = summary.arm(&comparison.arm)?.meaning.as_str();
    (is_better && comparison.compared == Compared::Metric && !meaning.is_empty()).then_some(meaning)
}

/// One sentence for each pair of arms, measure and claim, over all levels.
fn gathered(summary: &Summary, analysis: &Analysis) -> Vec<String> {
    let key = |comparison: &Comparison| {
        let claims = matches!(comparison.verdict.claim, Claim::Differs);
        (comparison.ticket.clone(), comparison.arm.clone(), comparison.compared as u8, claims)
    };
    let mut seen = BTreeSet::new();
    let mut sentences = Vec::new();
    for first in &analysis.comparisons {
        if seen.insert(key(first)) {
            let alike: Vec<&Comparison> =
                analysis.comparisons.iter().filter(|other| key(other) == key(first)).collect();
            sentences.push(over_levels(summary, analysis, &alike));
        }
    }
    sentences
}

fn over_levels(summary: &Summary, analysis: &Analysis, alike: &[&Comparison]) -> String {
    // A difference that is the same in every seed has no deviation, so that no test can judge it.
    let untested = |comparison: &Comparison| {
        comparison.verdict.kind == VerdictKind::NotSupported && comparison.verdict.interval.is_none()
    };
    const KINDS: [VerdictKind; 7] = [
        VerdictKind::Higher,
        VerdictKind::Lower,
        VerdictKind::AtLeastAsGood,
        VerdictKind::Equivalent,
        VerdictKind::Identical,
        VerdictKind::NotSupported,
        VerdictKind::TooFewSeeds,
    ];
    let mut parts = Vec::new();
    for kind in KINDS {
        let of_kind: Vec<&&Comparison> =
            alike.iter().filter(|comparison| comparison.verdict.kind == kind && !untested(comparison)).collect();
        let Some(first) = of_kind.first() else { continue };
        let places = places(analysis, &of_kind);
        let span = span(&of_kind);
        let measure = &first.verdict.measure;
        let margin = match first.verdict.claim {
            Claim::Differs => String::new(),
            Claim::Equivalent { margin } | Claim::AtLeastAsGood { margin } => match &measure.scale {
                Scale::Points => format!("{:.2} points", 100.0 * margin),
                _ => crate::statistics::plain(margin),
            },
        };
        let means = meaning(summary, first).map(|meaning| format!(": there, {meaning}")).unwrap_or_default();
        parts.push(match kind {
            VerdictKind::Higher => format!("{} {places} ({span}){means}", measure.higher),
            VerdictKind::Lower => format!("{} {places} ({span}){means}", measure.lower),
            VerdictKind::AtLeastAsGood => format!("at least as good, within a margin of {margin}, {places}"),
            VerdictKind::Equivalent => format!("equivalent within {margin} {places}"),
            VerdictKind::Identical => format!("identical in all seeds {places}"),
            VerdictKind::NotSupported if margin.is_empty() => format!("no difference shown {places} ({span})"),
            VerdictKind::NotSupported => format!("not shown to be as good within a margin of {margin} {places}"),
            VerdictKind::TooFewSeeds => format!("too few seeds {places}"),
        });
    }
    let same: Vec<&&Comparison> = alike.iter().filter(|comparison| untested(comparison)).collect();
    if !same.is_empty() {
        let (places, span) = (places(analysis, &same), span(&same));
        parts.push(format!("the same in every seed, which no test can judge, {places} ({span})"));
    }
    let verdict = &alike[0].verdict;
    sentence(&format!(
        "{} of {} against {}: {}",
        verdict.measure.name,
        verdict.subject,
        verdict.reference,
        parts.join("; ")
    ))
}

/// "at 51.2 %, 26.2 % and 13.4 % of weights", "at 12 levels from 80 % to 1.2 % of weights", "at level 1 and 2" where all weights
/// remain
fn places(analysis: &Analysis, comparisons: &[&&Comparison]) -> String {
    let density = |comparison: &Comparison| {
        analysis.figures_of(&comparison.ticket, comparison.level)?.density.map(|density| density.mean)
    };
    if comparisons.iter().all(|comparison| density(comparison).is_some_and(|density| density >= 1.0)) {
        let levels: Vec<String> = comparisons.iter().map(|comparison| comparison.level.to_string()).collect();
        return format!("at level {}", listed(&levels));
    }
    let densities: Vec<String> = comparisons
        .iter()
        .filter_map(|comparison| analysis.figures_of(&comparison.ticket, comparison.level)?.density)
        .map(|density| format!("{} %", share(density.mean)))
        .collect();
    match densities.as_slice() {
        [first, .., last] if densities.len() > 5 => {
            format!("at {} levels between {first} and {last} of weights", densities.len())
        }
        all => format!("at {} of weights", listed(all)),
    }
}

/// "+0.31 to +1.20 points", "0.710 to 0.850 times"
fn span(comparisons: &[&&Comparison]) -> String {
    let means = || comparisons.iter().map(|comparison| comparison.verdict.mean);
    let (low, high) = (means().fold(f64::INFINITY, f64::min), means().fold(f64::NEG_INFINITY, f64::max));
    let scale = &comparisons[0].verdict.measure.scale;
    let unit = match scale {
        Scale::Points => " points".to_owned(),
        Scale::Unit(unit) if unit.is_empty() => String::new(),
        Scale::Unit(unit) => format!(" {unit}"),
        Scale::Ratio => " times".to_owned(),
    };
    let (low, high) = (difference(low, scale), difference(high, scale));
    if low == high { format!("{low}{unit}") } else { format!("{low} to {high}{unit}") }
}
