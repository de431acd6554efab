//! Who is done first: whole times beside dense training's.

use crate::experiment::{Analysis, ArmRole, Compared, Racer, Summary};
use crate::page::Block;
use crate::statistics::{LEAST_SEEDS, Ratio, Scale, Verdict, VerdictKind};
use crate::table::{Align, Table};

use super::format::{duration, metric, metric_title, share, with_interval};
use super::{charts, tables};

/// Who won, and the table of all; nothing where there was no race.
pub(super) fn blocks(summary: &Summary, analysis: &Analysis) -> Vec<Block> {
    let Some(result) = result(summary, analysis) else { return Vec::new() };
    let caption = "The time in all is of everything that an arm's network needed: search, training, pruning, rewinding and \
                   saving; without validation and testing, which measure. Means over the seeds, times as geometric means \
                   of ratios to dense's of the same seed, with 95 % intervals. To the target: until a validation of the network, as \
                   sparse as it ends, first was as good as dense's last one less the margin, over the seeds in which it was; \
                   what is no training of its own counts before; no correction is made there.";
    let mut blocks = vec![Block::Paragraph(result)];
    blocks.extend(charts::time(summary, analysis).map(|figure| Block::Figures(vec![figure])));
    blocks.extend(tables::few_and_all(summary, analysis, caption, |is_shown| standings(analysis, is_shown)));
    blocks
}

/// A row for each arm and level that is shown.
pub(super) fn standings(analysis: &Analysis, is_shown: impl Fn(u32) -> bool) -> Table {
    let scale = &analysis.measure.scale;
    let mut table = Table::new([
        ("arm".to_owned(), Align::Left),
        ("seeds".to_owned(), Align::Right),
        (metric_title(&analysis.measure.name, scale), Align::Right),
        ("as good".to_owned(), Align::Left),
        ("time in all".to_owned(), Align::Right),
        ("times dense's".to_owned(), Align::Right),
        ("to the target".to_owned(), Align::Right),
        ("times dense's".to_owned(), Align::Right),
        ("reached".to_owned(), Align::Right),
    ]);
    for racer in analysis.race.iter().filter(|racer| is_shown(racer.level)) {
        let figures = analysis.figures_of(&racer.arm, racer.level);
        let ratio = |ratio: Option<&Ratio>| match ratio {
            _ if racer.role == ArmRole::Dense => "1".to_owned(),
            Some(ratio) => written(ratio),
            None => "–".to_owned(),
        };
        let n_reached = racer.seconds_to_target.map_or(0, |seconds| seconds.n);
        table.push([
            tables::named(analysis, &racer.arm, racer.level),
            racer.seeds.len().to_string(),
            with_interval(figures.and_then(|figures| figures.metric.as_ref()), |value| metric(value, scale)),
            match verdict(analysis, racer, Compared::Metric).map(|verdict| verdict.kind) {
                Some(VerdictKind::AtLeastAsGood | VerdictKind::Identical) => "yes",
                Some(VerdictKind::TooFewSeeds) => "–",
                Some(_) => "not shown",
                None => "",
            }
            .to_owned(),
            racer.seconds.map_or_else(|| "–".to_owned(), |seconds| duration(seconds.mean)),
            ratio(racer.ratio.as_ref()),
            racer.seconds_to_target.map_or_else(|| "–".to_owned(), |seconds| duration(seconds.mean)),
            ratio(racer.ratio_to_target.as_ref()),
            format!("{n_reached} of {}", racer.seeds.len()),
        ]);
    }
    table
}

/// "0.612 (0.580 to 0.645)"
fn written(ratio: &Ratio) -> String {
    match ratio.interval {
        Some(interval) => format!("{:.3} ({:.3} to {:.3})", ratio.mean, interval.low, interval.high),
        None => format!("{:.3}", ratio.mean),
    }
}

fn verdict<'a>(analysis: &'a Analysis, racer: &Racer, compared: Compared) -> Option<&'a Verdict> {
    let is_of = |of: &&crate::experiment::Comparison| {
        of.ticket == racer.arm && of.level == racer.level && of.compared == compared
    };
    analysis.comparisons.iter().find(is_of).map(|comparison| &comparison.verdict)
}

/// The arm that is as good as dense in the least time, or that none is shown to be; `None` where there was no race.
pub(super) fn result(summary: &Summary, analysis: &Analysis) -> Option<String> {
    let racers = || analysis.race.iter().filter(|racer| racer.role != ArmRole::Dense);
    let most = racers().map(|racer| racer.seeds.len()).max()?;
    let Some(margin) = summary.margin.filter(|margin| *margin > 0.0) else {
        return Some(
            "Nobody said how much an arm may lose and still be as good (the margin): there is no winner.".into(),
        );
    };
    let margin = match analysis.measure.scale {
        Scale::Points => format!("{:.2} points", 100.0 * margin),
        _ => crate::statistics::plain(margin),
    };
    let goal = format!("as good as dense within {margin}");
    if most < LEAST_SEEDS {
        return Some(format!(
            "No verdict from fewer than {LEAST_SEEDS} seeds: which arms are {goal} in less time is open."
        ));
    }
    let wins = |racer: &&Racer| {
        let is_good = verdict(analysis, racer, Compared::Metric)
            .is_some_and(|found| matches!(found.kind, VerdictKind::AtLeastAsGood | VerdictKind::Identical));
        is_good && verdict(analysis, racer, Compared::TotalTime).is_some_and(|found| found.kind == VerdictKind::Lower)
    };
    let mut winners: Vec<(&Racer, &Ratio)> =
        racers().filter(wins).filter_map(|racer| Some((racer, racer.ratio.as_ref()?))).collect();
    winners.sort_by(|(_, one), (_, other)| one.mean.total_cmp(&other.mean));
    let said = |(racer, ratio): &(&Racer, &Ratio)| {
        format!("{} in {} times dense's", tables::named(analysis, &racer.arm, racer.level), written(ratio))
    };
    Some(match winners.as_slice() {
        [] => format!("No arm is shown to be {goal} in less time, search included."),
        [first, rest @ ..] => {
            let sparse =
                rest.iter().find(|(racer, _)| !is_whole(analysis, racer)).filter(|_| is_whole(analysis, first.0));
            let sparse = sparse.map(|sparse| format!("; the first sparse one is {}", said(sparse))).unwrap_or_default();
            let others = match rest.len() {
                0 => "No other is shown to be as good in less time than dense.".to_owned(),
                n => format!("{n} more are as good in less time than dense; between these nothing was tested."),
            };
            let first = said(first);
            format!("By the mean, the least time to a network {goal}, search included, takes {first}{sparse}. {others}")
        }
    })
}

/// Whether all of its weights remain.
fn is_whole(analysis: &Analysis, racer: &Racer) -> bool {
    let density = analysis.figures_of(&racer.arm, racer.level).and_then(|figures| figures.density);
    density.is_none_or(|density| share(density.mean) == "100")
}
