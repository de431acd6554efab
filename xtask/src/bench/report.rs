//! What a run found: as JSON, and as tables.

use std::collections::BTreeMap;

use lth_runs::table::{Align, Table};
use serde::{Deserialize, Serialize};

use super::options::{Engine, Figure};

/// All that `--json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) threads: u32,
    pub(crate) rounds: u32,
    /// Package → version, this program's among them.
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) rows: Vec<Row>,
    /// Reports of earlier versions have none.
    #[serde(default)]
    pub(crate) language: Vec<LanguageRow>,
    pub(crate) toolkit: Vec<ToolkitRow>,
}

/// One engine at one figure and sparsity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) figure: Figure,
    pub(crate) engine: Engine,
    pub(crate) sparsity: f64,
    pub(crate) median_ms: f64,
    pub(crate) min_ms: f64,
    pub(crate) max_ms: f64,
    /// Peak memory of a process that does nothing else, in units of 10^6 bytes.
    pub(crate) peak_mb: Option<f64>,
}

/// One engine at one layer of a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LanguageRow {
    pub(crate) figure: String,
    /// Tokens that go through it together.
    pub(crate) n_rows: usize,
    /// Of ours, 0 = dense; candle's own operators have none.
    pub(crate) sparsity: Option<f64>,
    pub(crate) median_ms: f64,
    pub(crate) min_ms: f64,
    pub(crate) max_ms: f64,
}

/// One figure of the pruning toolkit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToolkitRow {
    pub(crate) figure: String,
    pub(crate) median_ms: f64,
    pub(crate) min_ms: f64,
    pub(crate) max_ms: f64,
    /// Memory beyond the weights at the peak, over the weights' size.
    pub(crate) extra_memory: Option<f64>,
}

/// Median, smallest and largest; the median of an even number is the mean of the middle two.
pub(crate) fn spread(times: &[f64]) -> (f64, f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    let n = sorted.len();
    let median = if n % 2 == 1 { at(n / 2) } else { (at((n / 2).wrapping_sub(1)) + at(n / 2)) / 2. };
    (median, at(0), at(n.wrapping_sub(1)))
}

impl Report {
    /// A heading and a table for each figure, as a terminal shows them.
    pub(crate) fn text(&self) -> String {
        let tables = self.tables().map(|(title, table)| format!("\n{title}\n\n{}", table.plain()));
        format!("{}\n{}\n{}", self.machine, self.how(), tables.collect::<String>())
    }

    /// The same in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let tables = self.tables().map(|(title, table)| format!("\n**{title}**\n\n{}", table.markdown()));
        format!("{}; {}.\n{}", self.machine, self.how(), tables.collect::<String>())
    }

    /// The last word of [`Report::machine`].
    pub(crate) fn instruction_set(&self) -> &str {
        self.machine.rsplit(' ').next().unwrap_or_default()
    }

    fn how(&self) -> String {
        let versions: Vec<_> = self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let (threads, rounds) = (self.threads, self.rounds);
        format!("{threads} threads each, medians of {rounds} interleaved rounds; {}", versions.join(", "))
    }

    fn tables(&self) -> impl Iterator<Item = (&'static str, Table)> {
        let of = |figure: Figure| {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.figure == figure).collect();
            (!rows.is_empty()).then(|| (figure.title(), table(&rows)))
        };
        let toolkit = (!self.toolkit.is_empty()).then(|| (Figure::Toolkit.title(), self.toolkit_table()));
        let language = (!self.language.is_empty()).then(|| (Figure::Language.title(), self.language_table()));
        Figure::NETWORK.into_iter().filter_map(of).chain(language).chain(toolkit)
    }

    /// A line for each layer and number of tokens, a column for each engine; how many times faster than candle our dense
    /// layers are.
    fn language_table(&self) -> Table {
        let mut engines: Vec<Option<f64>> = Vec::new();
        let mut figures: Vec<(&str, usize)> = Vec::new();
        for row in &self.language {
            if !engines.contains(&row.sparsity) {
                engines.push(row.sparsity);
            }
            if !figures.contains(&(&row.figure, row.n_rows)) {
                figures.push((&row.figure, row.n_rows));
            }
        }
        let name = |engine: &Option<f64>| match engine {
            None => "candle".to_owned(),
            Some(0.) => "ours, dense".to_owned(),
            Some(sparsity) => format!("{} %", lossless(100. * sparsity)),
        };
        let columns = [("what".to_owned(), Align::Left), ("tokens".to_owned(), Align::Right)];
        let engine_columns = engines.iter().map(|engine| (name(engine), Align::Right));
        let last = ("dense × candle".to_owned(), Align::Right);
        let mut table = Table::new(columns.into_iter().chain(engine_columns).chain([last]));
        for (figure, n_rows) in figures {
            let of = |engine: &Option<f64>| {
                let row = |row: &&LanguageRow| row.figure == figure && row.n_rows == n_rows && row.sparsity == *engine;
                self.language.iter().find(row).map(|row| row.median_ms)
            };
            let times = of(&None).zip(of(&Some(0.))).map(|(candle, ours)| format!("{:.2}", candle / ours));
            let cells = engines.iter().map(|engine| of(engine).map_or_else(String::new, ms));
            let begin = [figure.to_owned(), n_rows.to_string()];
            table.push(begin.into_iter().chain(cells).chain([times.unwrap_or_default()]));
        }
        table
    }

    fn toolkit_table(&self) -> Table {
        let mut table = Table::new([
            ("what", Align::Left),
            ("ms", Align::Right),
            ("least", Align::Right),
            ("most", Align::Right),
            ("extra memory / weights", Align::Right),
        ]);
        for row in &self.toolkit {
            let extra = row.extra_memory.map_or_else(String::new, |extra| format!("{extra:.2}"));
            table.push([row.figure.clone(), ms(row.median_ms), ms(row.min_ms), ms(row.max_ms), extra]);
        }
        table
    }
}

/// Every engine of one figure, with how many times faster it is than PyTorch's faster layout, than SparseProp at the same
/// sparsity, and than our own dense network, as it is and without Winograd's algorithm.
fn table(rows: &[&Row]) -> Table {
    let find = |engine, sparsity: f64| {
        rows.iter().find(|row| row.engine == engine && row.sparsity == sparsity).map(|row| row.median_ms)
    };
    let torch = [Engine::Torch, Engine::TorchNhwc].into_iter().filter_map(|engine| find(engine, 0.)).reduce(f64::min);
    let (dense, direct) = (find(Engine::Ours, 0.), find(Engine::OursDirect, 0.));
    let mut table = Table::new([
        ("engine", Align::Left),
        ("sparsity", Align::Right),
        ("ms", Align::Right),
        ("least", Align::Right),
        ("most", Align::Right),
        ("× PyTorch", Align::Right),
        ("× SparseProp", Align::Right),
        ("× ours dense", Align::Right),
        ("× ours direct", Align::Right),
        ("peak MB", Align::Right),
    ]);
    for row in rows {
        let times =
            |other: Option<f64>| other.map_or_else(String::new, |other| format!("{:.2}", other / row.median_ms));
        let sparseprop = if row.engine == Engine::Ours { find(Engine::Sparseprop, row.sparsity) } else { None };
        table.push([
            row.engine.name().to_owned(),
            if row.sparsity > 0. { format!("{} %", lossless(100. * row.sparsity)) } else { "dense".to_owned() },
            ms(row.median_ms),
            ms(row.min_ms),
            ms(row.max_ms),
            times(torch),
            times(sparseprop),
            times(dense),
            times(direct),
            row.peak_mb.map_or_else(String::new, |mb| format!("{mb:.0}")),
        ]);
    }
    table
}

/// Three or more digits.
pub(crate) fn ms(milliseconds: f64) -> String {
    let digits = if milliseconds >= 100. {
        0
    } else if milliseconds >= 10. {
        1
    } else if milliseconds >= 1. {
        2
    } else {
        3
    };
    format!("{milliseconds:.digits$}")
}

/// A percentage without the noise of its computation.
pub(crate) fn lossless(percent: f64) -> f64 {
    (percent * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(engine: Engine, sparsity: f64, median_ms: f64) -> Row {
        let figure = Figure::TrainAll;
        Row { figure, engine, sparsity, median_ms, min_ms: median_ms, max_ms: median_ms, peak_mb: Some(100.) }
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(spread(&[3., 1., 2.]), (2., 1., 3.));
        assert_eq!(spread(&[4., 1., 3., 2.]), (2.5, 1., 4.));
    }

    #[test]
    fn ratios_are_to_the_faster_layout_the_same_sparsity_and_our_dense_network() {
        let rows = [
            row(Engine::Ours, 0., 400.),
            row(Engine::OursDirect, 0., 500.),
            row(Engine::Ours, 0.9, 100.),
            row(Engine::Torch, 0., 800.),
            row(Engine::TorchNhwc, 0., 600.),
            row(Engine::Sparseprop, 0.9, 250.),
        ];
        let text = table(&rows.iter().collect::<Vec<_>>()).plain();
        let line = text.lines().find(|line| line.contains("90 %")).unwrap_or_default();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["ours", "90", "%", "100", "100", "100", "6.00", "2.50", "4.00", "5.00", "100"]
        );
    }

    #[test]
    fn the_report_survives_json() -> serde_json::Result<()> {
        let report = Report {
            machine: "a machine".to_owned(),
            threads: 2,
            rounds: 15,
            versions: BTreeMap::from([("lth".to_owned(), "0.1.0".to_owned())]),
            rows: vec![row(Engine::TorchNhwc, 0., 1.)],
            language: vec![LanguageRow {
                figure: "a layer".to_owned(),
                n_rows: 2,
                sparsity: None,
                median_ms: 3.,
                min_ms: 2.,
                max_ms: 4.,
            }],
            toolkit: Vec::new(),
        };
        let json = serde_json::to_value(&report)?;
        assert_eq!(json["rows"][0]["figure"], "train_all");
        assert_eq!(json["rows"][0]["engine"], "torch_nhwc");
        assert_eq!(serde_json::from_value::<Report>(json)?, report);
        Ok(())
    }
}
