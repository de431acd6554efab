//! `lth list`: the experiments in a folder.

use std::path::PathBuf;

use clap::Args;
use lth_runs::experiment::Summary;
use lth_runs::table::{Align, Table};

use crate::console::Console;
use crate::failure::{Blame, Result};

/// Lists the experiments in a folder: what they are, how many fits they have, how long they took.
#[derive(Args)]
pub struct Options {
    /// The folder with the experiments
    #[arg(default_value = "runs", value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(false);
    let entries = std::fs::read_dir(&options.folder)
        .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", options.folder.display()))
        .data()?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let mut table = Table::new([
        ("folder", Align::Left),
        ("experiment", Align::Left),
        ("data", Align::Left),
        ("seeds", Align::Right),
        ("levels", Align::Right),
        ("fits", Align::Right),
        ("failed", Align::Right),
        ("time", Align::Right),
    ]);
    for folder in folders {
        let path = folder.join("summary.json");
        if !path.is_file() {
            continue;
        }
        let name = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        match Summary::read(&path) {
            Ok(summary) => table.push([
                name,
                summary.experiment.name.clone(),
                summary.dataset.name.clone(),
                summary.seeds().len().to_string(),
                summary.levels().last().map_or(0, |last| *last).to_string(),
                summary.fits.len().to_string(),
                summary.fits.iter().filter(|fit| !fit.is_whole()).count().to_string(),
                summary.wall_seconds.map_or_else(String::new, lth_runs::lines::clock),
            ]),
            Err(error) => console.note(error.to_string()),
        }
    }
    console.line(table.plain().trim_end());
    console.finish()
}
