//! How much a network minds the pruning of each of its parts alone: the record, and the page made of it.

use serde::{Deserialize, Serialize};

use crate::experiment::Part;
use crate::figure::{Axis, LineChart, Point, Series, Spread};
use crate::page::{Block, Page, Section};
use crate::report::share_text;
use crate::table::{Align, Table};

/// More lines would hide each other.
const MOST_LINES: usize = 12;

/// What pruning each part of a network alone costs: the contents of `sensitivity.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SensitivityRecord {
    /// The software, with its version.
    pub software: String,
    /// The network's name.
    pub network: String,
    /// The file of its weights.
    pub weights: String,
    /// SHA-256 of that file.
    pub weights_sha256: String,
    /// The data set.
    pub dataset: String,
    /// Which part of it.
    pub on: Part,
    /// Examples of it.
    pub n_examples: u64,
    /// Saliency score that chose what was pruned.
    pub criterion: String,
    /// What was pruned as one.
    pub granularity: String,
    /// The metric, a fraction; higher is better.
    pub metric: String,
    /// What the whole network has of it.
    pub whole: f64,
    /// How much of it a part may lose by the suggestion.
    pub tolerance: f64,
    /// The parts: layers, or kinds of layers.
    pub parts: Vec<PartRecord>,
    /// The levels over which the suggestion is spread.
    pub n_levels: u32,
    /// The suggestion as a plan of `lth imp` takes it (TOML).
    pub plan: String,
}

/// A layer, or all layers of a kind, pruned alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Its name: "fc1.weight", "linear".
    pub name: String,
    /// The weights that it is made of.
    pub layers: Vec<String>,
    /// How many numbers those are.
    pub n_weights: u64,
    /// By rising sparsity.
    pub at: Vec<SensitivityPoint>,
    /// The highest of the sparsities up to which none loses more than the tolerance; 0 if the first one does.
    pub suggested: f64,
}

/// The network with one part pruned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SensitivityPoint {
    /// Of the part.
    pub sparsity: f64,
    /// The metric.
    pub value: f64,
    /// Mean loss; absent where it is not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

impl SensitivityRecord {
    /// Its files, by name: `sensitivity.json`, `sensitivity.md` and `sensitivity.html`.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if a number cannot be written as JSON.
    pub fn files(&self) -> Result<Vec<(&'static str, String)>, crate::Error> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| crate::Error::Invalid { record: "sensitivity".into(), reason: error.to_string() })?;
        let page = self.page();
        Ok(vec![
            ("sensitivity.json", json + "\n"),
            ("sensitivity.md", page.markdown()),
            ("sensitivity.html", page.html()),
        ])
    }

    /// A row for each part: what it loses at each sparsity, in points, and what is suggested.
    pub fn table(&self) -> Table {
        let sparsities = self.parts.first().map(|part| part.at.as_slice()).unwrap_or_default();
        let head = [("part".to_owned(), Align::Left), ("weights".to_owned(), Align::Right)];
        let titles = sparsities.iter().map(|at| (format!("{} %", share_text(at.sparsity)), Align::Right));
        let mut table = Table::new(head.into_iter().chain(titles).chain([("suggested, %".to_owned(), Align::Right)]));
        for part in &self.parts {
            let lost = part.at.iter().map(|at| {
                let text = format!("{:.2}", 100.0 * (self.whole - at.value));
                if text == "-0.00" { "0.00".into() } else { text }
            });
            let named = [part.name.clone(), part.n_weights.to_string()];
            table.push(named.into_iter().chain(lost).chain([share_text(part.suggested)]));
        }
        table
    }

    /// The page: figure, table, and the suggestion to be pasted.
    pub fn page(&self) -> Page {
        let part = match self.on {
            Part::Validation => "validation",
            Part::Test => "test",
        };
        let metric = &self.metric;
        let shown = &self.parts[..self.parts.len().min(MOST_LINES)];
        let line = |part: &PartRecord| Series {
            name: part.name.clone(),
            points: std::iter::once(Point::new(0.0, self.whole))
                .chain(part.at.iter().map(|at| Point::new(at.sparsity, at.value)))
                .collect(),
        };
        let chart = LineChart {
            title: format!("{} with one part pruned", self.network),
            description: String::new(),
            x: Axis::percent("sparsity of the part"),
            y: Axis::percent(format!("{part} {metric}")),
            series: shown.iter().map(line).collect(),
            spread: Spread::Band,
        };
        let more = match self.parts.len() - shown.len() {
            0 => String::new(),
            more => format!(" {more} more parts are in the table."),
        };
        let caption = format!("One network, not trained after the cut: no intervals.{more}");
        let table = Block::Table {
            caption: format!("Points of {part} {metric} that are lost with the part pruned to the column's sparsity."),
            table: self.table(),
        };
        let suggestion = format!(
            "Each part at the highest sparsity up to which pruning it alone loses no more than {:.2} points, spread over {} \
             {}. Parts that are pruned together lose more than each alone, and training wins some of it back: a place to \
             begin, not a promise. In a plan of lth imp it takes the place of imp.pruning.levels:",
            100.0 * self.tolerance,
            self.n_levels,
            if self.n_levels == 1 { "level" } else { "levels" },
        );
        let about = vec![
            format!("Weights: {}, SHA-256 {}.", self.weights, self.weights_sha256),
            format!("Data: {}, {} {part} examples.", self.dataset, self.n_examples),
            format!("Pruned by {}, as one: {}.", self.criterion, self.granularity),
            format!("Software: {}.", self.software),
        ];
        let section = |heading: &str, blocks: Vec<Block>| Section { heading: heading.into(), blocks };
        Page {
            title: format!("Sensitivity of {} on {}", self.network, self.dataset),
            lead: format!(
                "Each part pruned alone, all else whole. The whole network has {:.2} % {part} {metric}.",
                100.0 * self.whole
            ),
            sections: vec![
                section("Parts pruned alone", vec![Block::Figures(vec![(chart.figure(), caption)]), table]),
                section("Suggested", vec![Block::Paragraph(suggestion), Block::Code(self.plan.clone())]),
                section("What was run", vec![Block::List(about)]),
            ],
        }
    }
}
