//! Learning curves.

use std::collections::BTreeMap;

use crate::experiment::{Analysis, ArmRole, FitRecord, Measurement, Summary, whole_fits};
use crate::figure::{Axis, Figure, LineChart, Point, Series, Spread};
use crate::statistics::{CONFIDENCE, Estimate, Scale};

use super::charts::{shown, spread_caption};
use super::records::ticket_levels;
use super::tables::{named, unit};

/// More points than these are thinned: a figure is 480 pixels wide.
const MOST_POINTS: usize = 160;

/// With more arms than these, the ticket is shown at one level only.
const MOST_ARMS: usize = 6;

/// The metric and the validation loss over training: dense, the ticket at some of its levels, and the controls beside the
/// middle one.
pub(super) fn figures(summary: &Summary, analysis: &Analysis) -> Vec<(Figure, String)> {
    let lines = lines(summary, analysis);
    let mut figures = Vec::new();
    if let Some(metric) = &analysis.metric {
        let label = format!("validation {metric}");
        let axis = if analysis.measure.scale == Scale::Points { Axis::percent(label) } else { Axis::linear(label) };
        figures.extend(figure(summary, "Learning curves", axis, &lines, |at| at.metrics.get(metric).copied()));
    }
    let axis = Axis::linear("validation loss");
    figures.extend(figure(summary, "Validation loss", axis, &lines, |at| at.valid_loss));
    figures
}

/// Name and fits of each line.
fn lines<'a>(summary: &'a Summary, analysis: &Analysis) -> Vec<(String, Vec<&'a FitRecord>)> {
    let Some((_, levels)) = ticket_levels(summary, analysis) else {
        return shown(summary).map(|arm| (arm.name.clone(), whole_fits(summary, &arm.name, 0))).collect();
    };
    let beside = levels.get(levels.len() / 2).copied().unwrap_or(0);
    // Of many arms one line each, which then has the arm's colour in the other figures.
    let of_ticket = if shown(summary).count() > MOST_ARMS { vec![beside] } else { levels };
    let mut lines = Vec::new();
    for arm in shown(summary) {
        let own: Vec<u32> = match arm.role {
            ArmRole::Ticket => of_ticket.clone(),
            ArmRole::Control => vec![0, beside],
            ArmRole::Dense | ArmRole::Search | ArmRole::Branch => vec![0],
        };
        for level in own {
            let fits = whole_fits(summary, &arm.name, level);
            lines.push((named(analysis, &arm.name, level), fits));
        }
    }
    lines
}

fn figure(
    summary: &Summary,
    title: &str,
    y: Axis,
    lines: &[(String, Vec<&FitRecord>)],
    value: impl Fn(&Measurement) -> Option<f64>,
) -> Option<(Figure, String)> {
    let line = |(name, fits): &(String, Vec<&FitRecord>)| {
        let points = mean_curve(fits, &value);
        (!points.is_empty()).then(|| Series { name: name.clone(), points })
    };
    let series: Vec<Series> = lines.iter().filter_map(line).collect();
    let chart = LineChart {
        title: title.into(),
        description: String::new(),
        x: Axis::linear(unit(summary)),
        y,
        series,
        spread: Spread::Band,
    };
    // One point each is no curve.
    chart.series.iter().any(|series| series.points.len() > 1).then(|| (chart.figure(), spread_caption(summary)))
}

/// Means over the fits at every step that all of them have.
fn mean_curve(fits: &[&FitRecord], value: impl Fn(&Measurement) -> Option<f64>) -> Vec<Point> {
    let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (at, value) in fits.iter().flat_map(|fit| &fit.history).filter_map(|at| Some((at, value(at)?))) {
        by_step.entry(at.step).or_default().push(value);
    }
    let points: Vec<Point> = by_step
        .into_iter()
        .filter(|(_, values)| values.len() == fits.len())
        .filter_map(|(step, values)| {
            let estimate = Estimate::of(&values)?;
            let interval = estimate.interval(CONFIDENCE);
            let (low, high) = (interval.map(|interval| interval.low), interval.map(|interval| interval.high));
            Some(Point { x: step as f64, y: estimate.mean, low, high })
        })
        .collect();
    let every = points.len().div_ceil(MOST_POINTS).max(1);
    let last = points.len().saturating_sub(1);
    points
        .into_iter()
        .enumerate()
        .filter(|(index, _)| index % every == 0 || *index == last)
        .map(|(_, point)| point)
        .collect()
}
