//! `lth verify`: whether an experiment's files are whole, and whether two experiments are the same to the bit.

use std::path::{Path, PathBuf};

use clap::Args;
use lth_runs::Summary;
use lth_runs::experiment::{Discrepancy, damaged_files, differences};

use crate::console::Console;
use crate::failure::{Blame, Failure, Kind, Result};

/// Checks that an experiment's files are what its records say and, with a second one, that both are the same to the bit:
/// plans, figures, masks and weights of every fit that both have.
///
/// Runs of one experiment with one program are, whatever the number of threads and however often they were interrupted, on
/// machines with the same vector instructions. Times are no part of it. Exit code 3 if anything is not as it should be.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth verify runs/lenet-digits-5f0c1a2b            its files, by their checksums
  lth verify runs/a runs/b                         the same experiment, run twice")]
pub struct Options {
    /// The experiment
    first: PathBuf,
    /// Another run of it
    second: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(false);
    let first = read(&options.first)?;
    let mut found = damaged_files(&options.first, &first);
    let mut what = format!("{} fits of {}", first.fits.len(), options.first.display());
    if let Some(folder) = &options.second {
        let second = read(folder)?;
        found.extend(damaged_files(folder, &second));
        let (differ, alone) = differences(&first, &second);
        found.extend(differ);
        let n_both = first.fits.len() + second.fits.len() - alone.len();
        what = format!("{} fits that both have", n_both / 2);
        if let [one, ..] = alone.as_slice() {
            console.note(format!("{} fits are in one of them only, {one} for one", alone.len()));
        }
        if n_both == 0 {
            return Err(Failure::new(Kind::Data, anyhow::anyhow!("they have no fit in common")));
        }
    }
    for Discrepancy { fit, what, got, expected } in &found {
        console.line(format!("{fit}: {what} is {got}, expected {expected}"));
    }
    if !found.is_empty() {
        return Err(Failure::new(Kind::Data, anyhow::anyhow!("{} discrepancies in {what}", found.len())));
    }
    console.line(format!("verified: {what}"));
    console.finish()
}

fn read(folder: &Path) -> Result<Summary> {
    Summary::read(&folder.join("summary.json")).data()
}
