//! Linear mode connectivity: error along paths, and instability against the step from which orders differ.

use crate::experiment::{Analysis, Stability, Summary};
use crate::figure::{Axis, Figure, LineChart, Point, Series, Spread};
use crate::page::Block;
use crate::statistics::{CONFIDENCE, Estimate, Scale};
use crate::table::{Align, Table};

use super::format::{difference, metric, share, steps, with_interval};
use super::{chosen, table};

/// More paths would hide each other.
const MOST_PATHS: usize = 8;

pub(super) fn blocks(summary: &Summary, analysis: &Analysis) -> Vec<Block> {
    if analysis.stability.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![Block::Paragraph(
        "Two copies of a network see their data in other orders, with other augmentation, from a step on; all else is the \
         same. Instability is the highest error on the straight path between them less the mean of its ends'; below 2 \
         points the paper calls them stable. Subnetworks are rewound to that step (Frankle, Dziugaite, Roy & Carbin 2020)."
            .into(),
    )];
    let figures: Vec<(Figure, String)> =
        against_step(analysis).into_iter().chain(along_paths(summary, analysis)).collect();
    blocks.push(Block::Figures(figures));
    let caption = "Instability by weights and step: means over seeds with 95 % intervals. Stable, or not: where the \
                   interval leaves out 2 points, from three seeds on.";
    blocks.extend(table(caption, stability(analysis)));
    blocks
}

/// A row for each level and step.
pub fn stability(analysis: &Analysis) -> Table {
    let mut table = Table::new([
        ("weights, %", Align::Right),
        ("from step", Align::Right),
        ("seeds", Align::Right),
        ("error of the ends, %", Align::Right),
        ("above dense, points", Align::Right),
        ("instability, points", Align::Right),
        ("stable", Align::Left),
    ]);
    for row in &analysis.stability {
        let points = |value: f64| metric(value, &Scale::Points);
        table.push([
            row.density.map_or_else(|| "–".into(), |density| share(density.mean)),
            steps(row.step as f64),
            row.seeds.len().to_string(),
            with_interval(row.ends.as_ref(), points),
            // The dense network itself.
            if row.level == 0 {
                String::new()
            } else {
                with_interval(row.above_dense.as_ref(), |value| difference(value, &Scale::Points))
            },
            with_interval(row.instability.as_ref(), points),
            match row.is_stable() {
                Some(true) => "yes".into(),
                Some(false) => "no".into(),
                None if row.seeds.len() < 3 => "–".into(),
                None => "open".into(),
            },
        ]);
    }
    table
}

/// "dense", "8.3 % of weights"
fn named(row: &Stability) -> String {
    match row.density {
        Some(density) if row.level > 0 => format!("{} % of weights", share(density.mean)),
        _ if row.level > 0 => format!("level {}", row.level),
        _ => "dense".into(),
    }
}

fn point(x: f64, estimate: &Estimate) -> Point {
    let interval = estimate.interval(CONFIDENCE);
    let (low, high) = (interval.map(|interval| interval.low), interval.map(|interval| interval.high));
    Point { x, y: estimate.mean, low, high }
}

fn levels(analysis: &Analysis) -> Vec<u32> {
    let mut levels: Vec<u32> = analysis.stability.iter().map(|row| row.level).collect();
    levels.dedup();
    levels
}

fn caption(analysis: &Analysis) -> String {
    match analysis.stability.iter().map(|row| row.seeds.len()).max() {
        None | Some(0 | 1) => "One seed: no intervals.".into(),
        Some(n) => format!("Means over up to {n} seeds with their 95 % intervals."),
    }
}

fn against_step(analysis: &Analysis) -> Option<(Figure, String)> {
    let of_level = |level: u32| {
        let rows: Vec<&Stability> = analysis.stability.iter().filter(|row| row.level == level).collect();
        let points = rows.iter().filter_map(|row| Some(point(row.step as f64, &row.instability?)));
        Series { name: rows.first().map_or_else(String::new, |row| named(row)), points: points.collect() }
    };
    let chart = LineChart {
        title: "Instability against the step".into(),
        description: String::new(),
        x: Axis::linear("step from which the orders differ"),
        y: Axis::percent("instability"),
        series: levels(analysis).into_iter().map(of_level).collect(),
        spread: Spread::Whiskers,
    };
    Some((chart.figure(), caption(analysis)))
}

/// A figure for dense, and for the levels that stand for all.
fn along_paths(summary: &Summary, analysis: &Analysis) -> Vec<(Figure, String)> {
    let levels = levels(analysis);
    let (dense, sparse): (Vec<u32>, Vec<u32>) = levels.into_iter().partition(|level| *level == 0);
    let figure = |level: u32| {
        let rows: Vec<&Stability> = analysis.stability.iter().filter(|row| row.level == level).collect();
        let series = rows.iter().take(MOST_PATHS).map(|row| Series {
            name: format!("from step {}", steps(row.step as f64)),
            points: row.path.iter().map(|(place, error)| point(*place, error)).collect(),
        });
        let chart = LineChart {
            title: format!("Error between two copies: {}", rows.first().map_or_else(String::new, |row| named(row))),
            description: String::new(),
            x: Axis::linear("place on the straight path").over(0.0, 1.0),
            y: Axis::percent("error above the mean of the ends"),
            series: series.collect(),
            spread: Spread::Band,
        };
        let more = rows.len().saturating_sub(MOST_PATHS);
        let cut = if more == 0 { String::new() } else { format!(" {more} more steps are in the table.") };
        (chart.figure(), format!("The error is 1 less {}. {}{cut}", summary.metric, caption(analysis)))
    };
    dense.into_iter().chain(chosen(&sparse)).map(figure).collect()
}
