//! `lth compare`: two experiments side by side.

use std::path::{Path, PathBuf};

use clap::Args;
use lth_runs::experiment::config_differences;
use lth_runs::statistics::Estimate;
use lth_runs::table::{Align, Table};
use lth_runs::{Analysis, ArmFigures, Summary};

use crate::console::Console;
use crate::failure::{Blame, Result};

/// Lays two experiments side by side: which options differ, and the figures of every arm and level that both have.
///
/// It compares what was measured and says nothing of chance: seeds of two experiments are no pairs.
#[derive(Args)]
#[command(after_help = "\
Example:
  lth compare runs/lenet-digits-5f0c1a2b runs/lenet-digits-77aa01c4")]
pub struct Options {
    /// The first experiment
    first: PathBuf,
    /// The second
    second: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(false);
    let (first, second) = (read(&options.first)?, read(&options.second)?);
    let differences = config_differences(&first.experiment.config, &second.experiment.config);
    if differences.is_empty() {
        console.line("The same options.");
    }
    let mut table = Table::new([("option", Align::Left), ("first", Align::Left), ("second", Align::Left)]);
    for (field, one, other) in differences {
        table.push([field, one, other]);
    }
    if !table.is_empty() {
        console.line(table.plain());
    }
    console.line(figures(&first, &second).plain().trim_end());
    console.finish()
}

fn read(path: &Path) -> Result<Summary> {
    let file = if path.is_dir() { path.join("summary.json") } else { path.to_path_buf() };
    Summary::read(&file).data()
}

/// The figures of every arm and level that both have: means over the seeds of each.
fn figures(first: &Summary, second: &Summary) -> Table {
    let mut table = Table::new([
        ("arm", Align::Left),
        ("level", Align::Right),
        ("density %, first", Align::Right),
        ("second", Align::Right),
        ("metric, first", Align::Right),
        ("second", Align::Right),
        ("seconds, first", Align::Right),
        ("second", Align::Right),
    ]);
    let (first, second) = (Analysis::of(first), Analysis::of(second));
    let mean = |estimate: Option<Estimate>, scale: f64, decimals: usize| {
        estimate.map_or_else(String::new, |estimate| format!("{:.decimals$}", scale * estimate.mean))
    };
    for one in &first.figures {
        let same = |other: &&ArmFigures| (&other.arm, other.level) == (&one.arm, one.level);
        let Some(other) = second.figures.iter().find(same) else { continue };
        table.push([
            one.arm.clone(),
            one.level.to_string(),
            mean(one.density, 100.0, 2),
            mean(other.density, 100.0, 2),
            mean(one.metric, 1.0, 4),
            mean(other.metric, 1.0, 4),
            mean(one.seconds, 1.0, 1),
            mean(other.seconds, 1.0, 1),
        ]);
    }
    table
}
