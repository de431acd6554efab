//! The tables that a result rests on.

use crate::experiment::{Analysis, ArmFigures, ArmRole, Summary};
use crate::page::Block;
use crate::statistics::{Claim, Scale, VerdictKind};
use crate::table::{Align, Table};

use super::format::{difference, duration, mean, metric, metric_title, p_value, share, steps, with_interval};
use super::{chosen, table};

/// A longer table of comparisons is shown on demand.
const MOST_ROWS: usize = 40;

/// A longer table of arms is shown for a few levels, and whole on demand.
const MOST_ARM_ROWS: usize = 24;

/// Arm by level: what was measured. `is_shown`: whether a level is in it.
pub(super) fn figures(summary: &Summary, analysis: &Analysis, is_shown: impl Fn(u32) -> bool) -> Table {
    let scale = &analysis.measure.scale;
    let rows: Vec<&ArmFigures> = analysis.figures.iter().filter(|figures| is_shown(figures.level)).collect();
    let has_best = rows.iter().any(|figures| figures.best_step.is_some());
    let mut columns = vec![
        ("arm".to_owned(), Align::Left),
        ("level".to_owned(), Align::Right),
        ("weights, %".to_owned(), Align::Right),
        ("seeds".to_owned(), Align::Right),
        (metric_title(&analysis.measure.name, scale), Align::Right),
    ];
    if has_best {
        columns.push((format!("early-stop {}", unit(summary)), Align::Right));
        columns.push((format!("at that {}", unit(summary)), Align::Right));
    }
    let mut table = Table::new(columns);
    for figures in rows {
        let value = |value: f64| metric(value, scale);
        let mut cells = vec![
            figures.arm.clone(),
            figures.level.to_string(),
            mean(figures.density.as_ref(), share),
            figures.seeds.len().to_string(),
            with_interval(figures.metric.as_ref(), value),
        ];
        if has_best {
            cells.push(with_interval(figures.best_step.as_ref(), |value| steps(value.max(0.0))));
            cells.push(with_interval(figures.metric_at_best.as_ref(), value));
        }
        table.push(cells);
    }
    table
}

/// The levels to show where all would take more than `most` rows: 0, the first, the middle one and the last, or without the
/// middle one; `None` if all fit.
pub(super) fn cut(analysis: &Analysis, most: usize) -> Option<Vec<u32>> {
    // A row for each; a race has none for searches.
    let rows: Vec<u32> = match analysis.race.as_slice() {
        [] => analysis.figures.iter().map(|figures| figures.level).collect(),
        racers => racers.iter().map(|racer| racer.level).collect(),
    };
    let levels: std::collections::BTreeSet<u32> = rows.iter().copied().collect();
    let pruned: Vec<u32> = levels.iter().copied().filter(|level| *level > 0).collect();
    let mut few = chosen(&pruned);
    let n_rows = |few: &[u32]| rows.iter().filter(|level| **level == 0 || few.contains(level)).count();
    if n_rows(&few) > most && few.len() > 2 {
        few.remove(1);
    }
    let is_cut = rows.len() > most && few.len() < pruned.len();
    is_cut.then(|| std::iter::once(0).chain(few).collect())
}

/// "step", or "epoch" for summaries of the first schema, which counted no steps.
pub(super) fn unit(summary: &Summary) -> &'static str {
    if summary.experiment.identity.is_empty() { "epoch" } else { "step" }
}

/// Every comparison with its numbers.
pub(super) fn comparisons(analysis: &Analysis) -> Vec<Block> {
    let is_race = !analysis.race.is_empty();
    let mut all = Table::new([
        (if is_race { "arm" } else { "ticket" }, Align::Left),
        ("against", Align::Left),
        ("in", Align::Left),
        ("seeds", Align::Right),
        ("difference or ratio", Align::Right),
        ("interval", Align::Right),
        ("p", Align::Right),
        ("p, corrected", Align::Right),
        ("verdict", Align::Left),
    ]);
    let mut tests = 0;
    for comparison in &analysis.comparisons {
        let verdict = &comparison.verdict;
        let scale = &verdict.measure.scale;
        let unit = if *scale == Scale::Points { " points" } else { "" };
        let word = match verdict.kind {
            VerdictKind::Higher => verdict.measure.higher.clone(),
            VerdictKind::Lower => verdict.measure.lower.clone(),
            VerdictKind::Equivalent => "equivalent".into(),
            VerdictKind::AtLeastAsGood => "at least as good".into(),
            VerdictKind::Identical => "identical".into(),
            VerdictKind::NotSupported => "not supported".into(),
            VerdictKind::TooFewSeeds => "too few seeds".into(),
        };
        let asked = match verdict.claim {
            Claim::Differs => verdict.measure.name.clone(),
            Claim::Equivalent { .. } => format!("{}: equivalent", verdict.measure.name),
            Claim::AtLeastAsGood { .. } => format!("{}: at least as good", verdict.measure.name),
        };
        let interval = verdict.interval.filter(|_| verdict.kind != VerdictKind::TooFewSeeds).map_or_else(
            || "–".to_owned(),
            |interval| {
                let (low, high) = (difference(interval.low, scale), difference(interval.high, scale));
                format!("{low} to {high} ({} %)", share(interval.confidence))
            },
        );
        tests = tests.max(verdict.n_comparisons);
        all.push([
            named(analysis, &comparison.ticket, comparison.level),
            verdict.reference.clone(),
            asked,
            verdict.n_seeds.to_string(),
            format!("{}{unit}", difference(verdict.mean, scale)),
            interval,
            verdict.p_value.map_or_else(|| "–".into(), p_value),
            verdict.adjusted.map_or_else(|| "–".into(), p_value),
            word,
        ]);
    }
    let what = if is_race { "Arm less dense" } else { "Ticket less the other arm" };
    let mut caption = format!("{what}, paired by seed; times and early-stop steps as ratios.");
    if tests > 0 {
        caption += &format!(" Student's t; p-values corrected by Holm's method over {tests} tests.");
    }
    let n_rows = all.rows().len();
    let all = table(&caption, all).map(|block| match n_rows {
        0..=MOST_ROWS => block,
        n => Block::Details { summary: format!("All {n} comparisons"), blocks: vec![block] },
    });
    all.into_iter().chain(single(analysis)).collect()
}

/// "ticket 13.4 %", or "dense-budget, level 3" for an arm that has all weights at a level.
pub(super) fn named(analysis: &Analysis, arm: &str, level: u32) -> String {
    match analysis.figures_of(arm, level).and_then(|figures| figures.density) {
        _ if level == 0 => arm.to_owned(),
        Some(density) if density.mean < 1.0 => format!("{arm} {} %", share(density.mean)),
        _ => format!("{arm}, level {level}"),
    }
}

fn single(analysis: &Analysis) -> Option<Block> {
    let mut all = Table::new([
        ("ticket", Align::Left),
        ("against", Align::Left),
        ("both right", Align::Right),
        ("ticket only", Align::Right),
        ("other only", Align::Right),
        ("neither", Align::Right),
        ("p", Align::Right),
        ("p, corrected", Align::Right),
    ]);
    for single in &analysis.single {
        let test = &single.test;
        let count = |n: u64| crate::lines::grouped(n);
        all.push([
            named(analysis, &single.ticket.arm, single.ticket.level),
            single.arm.arm.clone(),
            count(test.both_right),
            count(test.only_second),
            count(test.only_first),
            count(test.both_wrong),
            p_value(test.p_value),
            p_value(single.adjusted),
        ]);
    }
    table(
        "One seed: the same examples under two networks (McNemar's exact test). It speaks of these networks alone.",
        all,
    )
}

/// Published figures, ours, and what lies between.
pub(super) fn beside(summary: &Summary, analysis: &Analysis) -> Vec<Block> {
    let Some(reference) = &summary.reference else { return Vec::new() };
    let mut all = Table::new([
        ("arm".to_owned(), Align::Left),
        ("level".to_owned(), Align::Right),
        ("figure".to_owned(), Align::Left),
        (reference.title.clone(), Align::Right),
        ("here".to_owned(), Align::Right),
        ("difference".to_owned(), Align::Right),
    ]);
    for beside in &analysis.beside {
        let is_step = beside.metric == "best_step";
        let scale = if beside.metric.contains("accuracy") { Scale::Points } else { Scale::Unit(String::new()) };
        let write = |value: f64| if is_step { steps(value) } else { metric(value, &scale) };
        let name = if is_step { "early-stop step".to_owned() } else { metric_title(&beside.metric, &scale) };
        let apart = beside.difference.map_or_else(
            || "–".into(),
            |apart| match is_step {
                true if apart > 0.0 => format!("+{}", steps(apart)),
                true => steps(apart),
                false => difference(apart, &scale),
            },
        );
        all.push([
            beside.arm.clone(),
            beside.level.to_string(),
            name,
            write(beside.published),
            with_interval(beside.here.as_ref(), write),
            apart,
        ]);
    }
    let mut blocks = vec![Block::Paragraph(format!("{}: {}.", reference.title, reference.source))];
    if !reference.caveats.is_empty() {
        blocks.push(Block::Caveats(reference.caveats.clone()));
    }
    blocks.extend(table(
        "Ours as means over the seeds with their 95 % intervals; the difference is ours less the published.",
        all,
    ));
    blocks
}

/// Steps, times, and the search's share; of many levels a few, and all on demand.
pub(super) fn costs(summary: &Summary, analysis: &Analysis) -> Vec<Block> {
    let has_overhead = analysis.figures.iter().any(|figures| figures.overhead_share.is_some());
    let overhead = if has_overhead {
        " Overhead is what is no training (pruning, rewinding, saving, testing), as a share of all the fit's time."
    } else {
        ""
    };
    let caption = format!(
        "Means over the seeds. Training is without validation; \"in all\" counts every fit that this one needed: the search \
         for a ticket is part of its cost.{overhead}"
    );
    few_and_all(summary, analysis, &caption, |is_shown| cost_rows(summary, analysis, has_overhead, is_shown))
}

/// A table of all arms and levels, or, where that is long, of a few levels with the whole table behind it.
pub(super) fn few_and_all(
    summary: &Summary,
    analysis: &Analysis,
    caption: &str,
    rows: impl Fn(&dyn Fn(u32) -> bool) -> Table,
) -> Vec<Block> {
    let whole = table(caption, rows(&|_| true));
    let Some(levels) = cut(analysis, MOST_ARM_ROWS) else { return whole.into_iter().collect() };
    let few = table(caption, rows(&|level| levels.contains(&level)));
    let heading = format!("All {} levels", summary.levels().len());
    let whole = whole.map(|whole| Block::Details { summary: heading, blocks: vec![whole] });
    few.into_iter().chain(whole).collect()
}

fn cost_rows(summary: &Summary, analysis: &Analysis, has_overhead: bool, is_shown: &dyn Fn(u32) -> bool) -> Table {
    let unit = unit(summary);
    let mut columns = vec![
        ("arm".to_owned(), Align::Left),
        ("level".to_owned(), Align::Right),
        (format!("{unit}s"), Align::Right),
        (format!("time per {unit}"), Align::Right),
        ("training".to_owned(), Align::Right),
        (format!("{unit}s in all"), Align::Right),
        ("training in all".to_owned(), Align::Right),
    ];
    if has_overhead {
        columns.push(("overhead, %".to_owned(), Align::Right));
    }
    let mut all = Table::new(columns);
    for figures in analysis.figures.iter().filter(|figures| is_shown(figures.level)) {
        let arm = if figures.role == ArmRole::Search && !figures.arm.contains("search") {
            format!("{} (search)", figures.arm)
        } else {
            figures.arm.clone()
        };
        let mut cells = vec![
            arm,
            figures.level.to_string(),
            mean(figures.n_steps.as_ref(), steps),
            with_interval(figures.seconds_per_step.as_ref(), |value| duration(value.max(0.0))),
            mean(figures.seconds.as_ref(), duration),
            mean(figures.n_steps_in_all.as_ref(), steps),
            mean(figures.seconds_in_all.as_ref(), duration),
        ];
        if has_overhead {
            cells.push(mean(figures.overhead_share.as_ref(), share));
        }
        all.push(cells);
    }
    all
}
