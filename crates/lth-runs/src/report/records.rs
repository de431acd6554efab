//! The records themselves: fits, layers, epochs, files, and what failed.

use crate::experiment::{Analysis, ArmRole, Ending, FitRecord, LayerRecord, Summary};
use crate::lines::{epoch, grouped};
use crate::page::Block;
use crate::table::{Align, Table};

use super::format::{counted, duration, metric, metric_title, share, steps};
use super::tables::unit;
use super::{chosen, table};

/// Beyond so many measurements the report names the file that has them instead of listing them.
const MOST_MEASUREMENTS: usize = 240;

pub(super) fn blocks(summary: &Summary, analysis: &Analysis) -> Vec<Block> {
    let mut blocks = Vec::new();
    blocks.extend(table("What could not be used, and why", left_out(analysis)));
    let mut details = |heading: String, block: Option<Block>| {
        blocks.extend(block.map(|block| Block::Details { summary: heading, blocks: vec![block] }));
    };
    details(format!("Fits ({})", summary.fits.len()), table("", fits(summary, analysis)));
    details(
        "Layers".into(),
        table("Weights that remain at the end, in percent: means over the seeds.", layers(summary, analysis)),
    );
    let n: usize = summary.fits.iter().map(|fit| fit.history.len()).sum();
    if n <= MOST_MEASUREMENTS {
        details(counted(n, "measurement"), table("", measurements(summary)));
    }
    let n_files: usize = summary.fits.iter().map(|fit| fit.files.len()).sum();
    details(format!("Files ({n_files})"), table("", files(summary)));
    if n > MOST_MEASUREMENTS {
        blocks.push(Block::Paragraph(format!("All {} are in metrics.jsonl.", counted(n, "measurement"))));
    }
    if !blocks.is_empty() {
        blocks.push(Block::Paragraph(
            "This report was made from the files of its folder alone: lth report makes it again.".into(),
        ));
    }
    blocks
}

fn left_out(analysis: &Analysis) -> Table {
    let mut table = Table::new([("what", Align::Left), ("why", Align::Left)]);
    for left_out in &analysis.left_out {
        table.push([&left_out.what, &left_out.reason]);
    }
    table
}

fn fits(summary: &Summary, analysis: &Analysis) -> Table {
    let scale = &analysis.measure.scale;
    let mut table = Table::new([
        ("fit".to_owned(), Align::Left),
        ("what it did".to_owned(), Align::Left),
        ("starts from".to_owned(), Align::Left),
        ("weights, %".to_owned(), Align::Right),
        (format!("{}s", unit(summary)), Align::Right),
        (metric_title(&analysis.measure.name, scale), Align::Right),
        (format!("early-stop {}", unit(summary)), Align::Right),
        ("training".to_owned(), Align::Right),
        ("ended".to_owned(), Align::Left),
    ]);
    for fit in &summary.fits {
        let value = match &analysis.metric {
            Some(name) => fit.metric(name),
            None => fit
                .at_end
                .as_ref()
                .map(|at_end| at_end.loss)
                .or_else(|| fit.history.iter().rev().find_map(|at| at.valid_loss)),
        };
        table.push([
            fit.address.to_string(),
            fit.description.clone(),
            fit.starts_from.as_ref().map_or_else(|| "initial weights".into(), ToString::to_string),
            share(1.0 - fit.measured_sparsity().unwrap_or(fit.sparsity)),
            steps(fit.n_steps() as f64),
            value.map_or_else(|| "–".into(), |value| metric(value, scale)),
            fit.best().map_or_else(|| "–".into(), |best| steps(best.step as f64)),
            duration(fit.seconds()),
            ending(&fit.ending),
        ]);
    }
    table
}

fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Done => "done".into(),
        Ending::Stopped { reason } => format!("stopped: {reason}"),
        Ending::Failed { reason } => format!("failed: {reason}"),
    }
}

/// A layer's mean density over seeds.
pub(super) struct LayerDensity {
    pub(super) name: String,
    pub(super) weights: u64,
    pub(super) density: f64,
}

/// The densities of the layers of `fits`, in the order of the first fit's.
pub(super) fn densities(fits: &[&FitRecord]) -> Vec<LayerDensity> {
    let Some(first) = fits.first() else { return Vec::new() };
    let density = |layer: &LayerRecord| {
        let alike = fits.iter().filter_map(|fit| fit.layers.iter().find(|other| other.name == layer.name));
        let values: Vec<f64> = alike.map(|layer| 1.0 - layer.sparsity()).collect();
        let density = values.iter().sum::<f64>() / values.len().max(1) as f64;
        LayerDensity { name: layer.name.clone(), weights: layer.weights, density }
    };
    first.layers.iter().map(density).collect()
}

/// The first ticket's name and its levels that stand for all.
pub(super) fn ticket_levels(summary: &Summary, analysis: &Analysis) -> Option<(String, Vec<u32>)> {
    let ticket = summary.arm_of(ArmRole::Ticket)?;
    let of_ticket = |figures: &&crate::experiment::ArmFigures| figures.arm == ticket.name;
    let levels: Vec<u32> = analysis.figures.iter().filter(of_ticket).map(|figures| figures.level).collect();
    Some((ticket.name.clone(), chosen(&levels)))
}

fn layers(summary: &Summary, analysis: &Analysis) -> Table {
    let Some((ticket, _)) = ticket_levels(summary, analysis) else { return Table::new([("layer", Align::Left)]) };
    let levels: Vec<u32> = summary.levels();
    let by_level: Vec<(u32, Vec<LayerDensity>)> = levels
        .into_iter()
        .map(|level| (level, densities(&crate::experiment::whole_fits(summary, &ticket, level))))
        .filter(|(_, layers)| !layers.is_empty())
        .collect();
    let mut columns = vec![("layer".to_owned(), Align::Left), ("weights".to_owned(), Align::Right)];
    columns.extend(by_level.iter().map(|(level, _)| (format!("level {level}"), Align::Right)));
    let mut table = Table::new(columns);
    for layer in by_level.first().map(|(_, layers)| layers.as_slice()).unwrap_or_default() {
        let at = |(_, layers): &(u32, Vec<LayerDensity>)| {
            let alike = layers.iter().find(|other| other.name == layer.name);
            alike.map_or_else(|| "–".into(), |other| share(other.density))
        };
        table.push([layer.name.clone(), grouped(layer.weights)].into_iter().chain(by_level.iter().map(at)));
    }
    table
}

fn measurements(summary: &Summary) -> Table {
    let names: std::collections::BTreeSet<&String> =
        summary.fits.iter().flat_map(|fit| &fit.history).flat_map(|at| at.metrics.keys()).collect();
    let mut columns = vec![
        ("fit".to_owned(), Align::Left),
        ("epoch".to_owned(), Align::Right),
        ("step".to_owned(), Align::Right),
        ("training loss".to_owned(), Align::Right),
        ("validation loss".to_owned(), Align::Right),
    ];
    columns.extend(names.iter().map(|name| ((*name).clone(), Align::Right)));
    columns.push(("weights, %".to_owned(), Align::Right));
    columns.push(("training".to_owned(), Align::Right));
    let mut table = Table::new(columns);
    for fit in &summary.fits {
        for at in &fit.history {
            let number = |value: Option<f64>| value.map_or_else(|| "–".into(), |value| format!("{value:.4}"));
            let start = [
                fit.address.to_string(),
                epoch(at.epoch),
                steps(at.step as f64),
                number(Some(at.train_loss)),
                number(at.valid_loss),
            ];
            let values = names.iter().map(|name| number(at.metrics.get(*name).copied()));
            table.push(start.into_iter().chain(values).chain([share(1.0 - at.sparsity), duration(at.seconds)]));
        }
    }
    table
}

fn files(summary: &Summary) -> Table {
    let mut table = Table::new([
        ("fit", Align::Left),
        ("what", Align::Left),
        ("file", Align::Left),
        ("bytes", Align::Right),
        ("SHA-256 of the file", Align::Left),
        ("SHA-256 of its content", Align::Left),
    ]);
    for fit in &summary.fits {
        for (what, file) in &fit.files {
            table.push([
                fit.address.to_string(),
                what.clone(),
                file.path.clone(),
                grouped(file.bytes),
                file.sha256.clone(),
                file.content.clone().unwrap_or_else(|| "–".into()),
            ]);
        }
    }
    table
}
