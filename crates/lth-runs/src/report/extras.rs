//! What is measured on tensors, handed over as plain numbers.

use crate::figure::{Axis, HeatMap, Histogram, Picture, PictureGrid, TickFormat};
use crate::page::Block;

use super::format::share;

/// Figures that a summary alone cannot give. All may be empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras {
    /// How far masks overlap.
    pub overlaps: Vec<Overlap>,
    /// Weights at the start and at the end.
    pub histograms: Vec<WeightHistogram>,
    /// Examples, with what a network said of them.
    pub pictures: Vec<Picture>,
    /// Which examples those are, or why there are none.
    pub about_pictures: String,
    /// What could not be measured, and why: a sentence each.
    pub notes: Vec<String>,
}

/// How far the masks of several fits overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlap {
    /// "between seeds at level 3", "between levels of seed 42"
    pub title: String,
    /// What rows and columns are: "seed 42".
    pub names: Vec<String>,
    /// Shared kept weights / weights kept by either, in [0, 1], a row for each name; what is not finite is left out.
    pub values: Vec<Vec<f64>>,
    /// What masks of as many weights in each layer, drawn at random, would share on average; absent where that is no measure.
    pub by_chance: Option<f64>,
}

/// Weights counted by size.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightHistogram {
    /// Whose: "ticket/3/42, all layers".
    pub title: String,
    /// Ends of the bins, rising: one more than there are counts.
    pub edges: Vec<f64>,
    /// Name and counts of each series: "at the start", "at the end".
    pub series: Vec<(String, Vec<f64>)>,
}

impl Extras {
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut figures = Vec::new();
        for overlap in &self.overlaps {
            let map = HeatMap {
                title: format!("Mask overlap {}", overlap.title),
                description: String::new(),
                columns: overlap.names.clone(),
                rows: overlap.names.clone(),
                values: overlap.values.clone(),
                range: Some((0.0, 1.0)),
                format: TickFormat::Percent,
            };
            let by_chance = overlap.by_chance.map_or_else(String::new, |by_chance| {
                format!(" Masks drawn at random with as many weights in each layer: {} %.", share(by_chance))
            });
            figures.push((map.figure(), format!("Weights kept by both, of those kept by either.{by_chance}")));
        }
        for histogram in &self.histograms {
            let chart = Histogram {
                title: format!("Weights of {}", histogram.title),
                description: String::new(),
                x: Axis::linear("weight"),
                y: Axis::log("number of weights"),
                edges: histogram.edges.clone(),
                series: histogram.series.clone(),
            };
            figures.push((chart.figure(), "Kept weights only, of all prunable layers together.".to_owned()));
        }
        if !self.pictures.is_empty() {
            // As many in a row as their captions leave room for.
            let lines = self.pictures.iter().flat_map(|picture| picture.caption.lines());
            let n_columns = match lines.map(|line| line.chars().count()).max() {
                Some(0..=9) | None => 6,
                Some(10..=15) => 4,
                Some(_) => 3,
            };
            let grid = PictureGrid {
                title: "Examples".into(),
                description: String::new(),
                n_columns,
                pictures: self.pictures.clone(),
            };
            figures.push((grid.figure(), self.about_pictures.clone()));
        }
        let mut blocks = Vec::new();
        if !figures.is_empty() {
            blocks.push(Block::Figures(figures));
        }
        let no_pictures = Some(&self.about_pictures).filter(|text| self.pictures.is_empty() && !text.is_empty());
        blocks.extend(no_pictures.into_iter().chain(&self.notes).cloned().map(Block::Paragraph));
        blocks
    }
}
