//! The figures that a summary alone can give.

use crate::experiment::{Analysis, ArmFigures, ArmRecord, ArmRole, Racer, Summary, whole_fits};
use crate::figure::{Axis, BarChart, BarRow, Figure, LineChart, Point, Scatter, ScatterPoint, Series, Spread};
use crate::page::Block;
use crate::statistics::{CONFIDENCE, Estimate, Scale};

use super::format::{listed, share};
use super::records::{LayerDensity, densities, ticket_levels};
use super::tables::{named, unit};
use super::{chosen, curves};

/// More bars would make a figure longer than a page.
const MOST_LAYERS: usize = 40;

/// More named points would hide each other.
const MOST_POINTS: usize = 12;

pub(super) fn blocks(summary: &Summary, analysis: &Analysis) -> Vec<Block> {
    let metric = against_weights(summary, analysis, metric_axis(analysis), |figures| figures.metric);
    let figures = [metric, early_stop(summary, analysis)].into_iter().flatten();
    let figures = figures.chain(curves::figures(summary, analysis));
    // A race has it beside its table.
    let time = if summary.is_race { None } else { time(summary, analysis) };
    let figures = figures.chain([time, layers(summary, analysis), step_time(summary, analysis)].into_iter().flatten());
    let figures: Vec<(Figure, String)> = figures.collect();
    if figures.is_empty() { Vec::new() } else { vec![Block::Figures(figures)] }
}

/// The axis of what arms are compared by.
pub(super) fn metric_axis(analysis: &Analysis) -> Axis {
    let name = analysis.measure.name.clone();
    if analysis.measure.scale == Scale::Points { Axis::percent(name) } else { Axis::linear(name) }
}

/// The arms that figures show, in the order that gives each its colour.
pub(super) fn shown(summary: &Summary) -> impl Iterator<Item = &ArmRecord> {
    summary.arms.iter().filter(|arm| !matches!(arm.role, ArmRole::Search | ArmRole::Branch))
}

/// "Means over 3 seeds with their 95 % intervals."
pub(super) fn spread_caption(summary: &Summary) -> String {
    match summary.seeds().len() {
        1 => "One seed: no intervals.".into(),
        n => format!("Means over up to {n} seeds with their 95 % intervals."),
    }
}

fn point(x: f64, estimate: &Estimate) -> Point {
    let interval = estimate.interval(CONFIDENCE);
    Point {
        x,
        y: estimate.mean,
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
    }
}

fn title(summary: &Summary, what: &str) -> String {
    format!("{} on {}", capital(what), summary.dataset.name)
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// Where an arm's level stands among the weights that remain: where it has all weights for a level's budget, at those of
/// the level's ticket.
fn place(summary: &Summary, analysis: &Analysis, figures: &ArmFigures) -> Option<f64> {
    let own = figures.density?.mean;
    if figures.level == 0 || own < 1.0 {
        return Some(own);
    }
    let ticket = summary.arm_of(ArmRole::Ticket).and_then(|ticket| analysis.figures_of(&ticket.name, figures.level));
    Some(ticket.and_then(|ticket| ticket.density).map_or(own, |density| density.mean))
}

/// The early-stop step of the arms that train about as long as the ticket: beside one that trains many times as long, the
/// differences between all others could not be seen.
fn early_stop(summary: &Summary, analysis: &Analysis) -> Option<(Figure, String)> {
    const LONGER: f64 = 1.5;
    let n_steps = |figures: &ArmFigures| figures.n_steps.map_or(0.0, |n_steps| n_steps.mean);
    let of_ticket = analysis.figures.iter().filter(|figures| figures.role == ArmRole::Ticket).map(n_steps);
    let most = of_ticket.fold(0.0, f64::max);
    let is_longer =
        |figures: &ArmFigures| figures.role == ArmRole::Control && most > 0.0 && n_steps(figures) > LONGER * most;
    let axis = Axis::linear(format!("early-stop {}", unit(summary)));
    let shown = |figures: &ArmFigures| figures.best_step.filter(|_| !is_longer(figures));
    let (figure, mut caption) = against_weights(summary, analysis, axis, shown)?;
    let mut longer: Vec<String> =
        analysis.figures.iter().filter(|figures| is_longer(figures)).map(|figures| figures.arm.clone()).collect();
    longer.dedup();
    if !longer.is_empty() {
        caption += &format!(" Without {}, trained much longer than the ticket.", listed(&longer));
    }
    Some((figure, caption))
}

/// All arms over the weights that remain. An arm of level 0 alone is a line across: it has all weights at every level.
fn against_weights(
    summary: &Summary,
    analysis: &Analysis,
    y: Axis,
    value: impl Fn(&ArmFigures) -> Option<Estimate>,
) -> Option<(Figure, String)> {
    let sparsest = analysis.figures.iter().filter_map(|figures| Some(figures.density?.mean)).reduce(f64::min)?;
    let mut has_line = false;
    let mut series = Vec::new();
    for arm in shown(summary) {
        let own: Vec<&ArmFigures> = analysis.figures.iter().filter(|figures| figures.arm == arm.name).collect();
        let at = |figures: &&ArmFigures| Some(point(place(summary, analysis, figures)?, &value(figures)?));
        let mut points: Vec<Point> = own.iter().filter_map(at).collect();
        if let ([only], [figures]) = (points.as_slice(), own.as_slice())
            && figures.level == 0
        {
            has_line = true;
            points.push(Point::new(sparsest, only.y));
        }
        if !points.is_empty() {
            series.push(Series { name: arm.name.clone(), points });
        }
    }
    if series.is_empty() {
        return None;
    }
    let across = if has_line { " Lines across: arms of level 0, which have all weights." } else { "" };
    let chart = LineChart {
        title: title(summary, &y.label),
        description: String::new(),
        x: Axis::weights_remaining(),
        y,
        series,
        spread: Spread::Whiskers,
    };
    Some((chart.figure(), format!("{}{across}", spread_caption(summary))))
}

/// What was reached for how much training, in a race for how much time in all, the search included: named points, or of
/// many arms a line each.
pub(super) fn time(summary: &Summary, analysis: &Analysis) -> Option<(Figure, String)> {
    let levels = chosen(&ticket_levels(summary, analysis).map(|(_, levels)| levels).unwrap_or_default());
    let seconds = |figures: &ArmFigures| {
        let is_of = |racer: &&Racer| racer.arm == figures.arm && racer.level == figures.level;
        if summary.is_race { analysis.race.iter().find(is_of)?.seconds } else { figures.seconds_in_all }
    };
    let shown: Vec<(&ArmFigures, f64, Estimate)> = analysis
        .figures
        .iter()
        .filter(|figures| figures.role != ArmRole::Search)
        .filter_map(|figures| Some((figures, seconds(figures)?.mean, figures.metric?)))
        .filter(|(_, seconds, _)| *seconds > 0.0)
        .collect();
    let most = shown.iter().map(|(_, seconds, _)| *seconds).reduce(f64::max)?;
    let least = shown.iter().map(|(_, seconds, _)| *seconds).reduce(f64::min)?;
    let label =
        if summary.is_race { "seconds in all, search included" } else { "seconds of training, search included" };
    let x = if most > 8.0 * least { Axis::log(label) } else { Axis::linear(label) };
    let title = format!("Time against {}", analysis.measure.name);
    let few: Vec<_> =
        shown.iter().filter(|(figures, ..)| figures.level == 0 || levels.contains(&figures.level)).collect();
    if few.len() <= MOST_POINTS {
        let scattered = |(figures, seconds, metric): &&(&ArmFigures, f64, Estimate)| ScatterPoint {
            name: named(analysis, &figures.arm, figures.level),
            x: *seconds,
            y: metric.mean,
            x_interval: None,
            y_interval: metric.interval(CONFIDENCE).map(|interval| (interval.low, interval.high)),
        };
        let points = few.iter().map(scattered).collect();
        let scatter = Scatter { title, description: String::new(), x, y: metric_axis(analysis), points };
        return Some((scatter.figure(), "Every fit that an arm needed is counted.".into()));
    }
    let line = |arm: &ArmRecord| {
        let own = shown.iter().filter(|(figures, ..)| figures.arm == arm.name);
        Series { name: arm.name.clone(), points: own.map(|(_, seconds, metric)| point(*seconds, metric)).collect() }
    };
    let series = self::shown(summary).map(line).filter(|series| !series.points.is_empty()).collect();
    let y = metric_axis(analysis);
    let chart = LineChart { title, description: String::new(), x, y, series, spread: Spread::Whiskers };
    let caption =
        "A point for each level, the longer searched the further right. Every fit that an arm needed is counted.";
    Some((chart.figure(), caption.into()))
}

/// What remains of each layer at the levels that stand for all.
fn layers(summary: &Summary, analysis: &Analysis) -> Option<(Figure, String)> {
    let (ticket, levels) = ticket_levels(summary, analysis)?;
    let by_level: Vec<Vec<LayerDensity>> =
        levels.iter().map(|level| densities(&whole_fits(summary, &ticket, *level))).collect();
    let names: Vec<String> = levels
        .iter()
        .filter_map(|level| Some(format!("{} %", share(analysis.figures_of(&ticket, *level)?.density?.mean))))
        .collect();
    let first = by_level.first().filter(|layers| !layers.is_empty())?;
    if names.len() != levels.len() {
        return None;
    }
    let row = |layer: &LayerDensity| BarRow {
        label: layer.name.clone(),
        values: by_level
            .iter()
            .map(|layers| layers.iter().find(|other| other.name == layer.name).map_or(f64::NAN, |other| other.density))
            .collect(),
    };
    let chart = BarChart {
        title: match names.as_slice() {
            [only] => format!("Weights that remain in each layer of {ticket} at {only}"),
            _ => format!("Weights that remain in each layer of {ticket}"),
        },
        description: String::new(),
        axis: Axis::percent("weights remaining").over(0.0, 1.0),
        names,
        rows: first.iter().take(MOST_LAYERS).map(row).collect(),
    };
    let more = first.len().saturating_sub(MOST_LAYERS);
    let caption = match more {
        0 => "By the weights that remain in all layers together.".to_owned(),
        more => format!("By the weights that remain in all layers together; {more} more layers are in the records."),
    };
    Some((chart.figure(), caption))
}

/// How long a step takes as weights go.
fn step_time(summary: &Summary, analysis: &Analysis) -> Option<(Figure, String)> {
    let longest =
        analysis.figures.iter().filter_map(|figures| Some(figures.seconds_per_step?.mean)).reduce(f64::max)?;
    let (factor, name) = if longest < 1.0 { (1000.0, "milliseconds") } else { (1.0, "seconds") };
    let mut top: f64 = 0.0;
    let mut series = Vec::new();
    for arm in shown(summary).filter(|arm| matches!(arm.role, ArmRole::Dense | ArmRole::Ticket)) {
        let own = analysis.figures.iter().filter(|figures| figures.arm == arm.name);
        let at = |figures: &ArmFigures| {
            let Point { x, y, low, high } = point(1.0 - figures.density?.mean, &figures.seconds_per_step?);
            let (low, high) = (low.map(|low| factor * low), high.map(|high| factor * high));
            Some(Point { x, y: factor * y, low, high })
        };
        let points: Vec<Point> = own.filter_map(at).collect();
        top = points.iter().flat_map(|point| [point.y, point.high.unwrap_or(0.0)]).fold(top, f64::max);
        if !points.is_empty() {
            series.push(Series { name: arm.name.clone(), points });
        }
    }
    let chart = LineChart {
        title: format!("Time of a training {}", unit(summary)),
        description: String::new(),
        x: Axis::percent("sparsity"),
        y: Axis::linear(format!("{name} per {}", unit(summary))).over(0.0, 1.08 * top),
        series,
        spread: Spread::Whiskers,
    };
    (top > 0.0).then(|| (chart.figure(), format!("{} Training alone, without validation.", spread_caption(summary))))
}
