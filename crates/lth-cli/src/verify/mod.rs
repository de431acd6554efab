//! `lth verify`: whether an experiment's files are whole, whether two experiments are the same to the bit, and whether a
//! ticket is what its step makes.

mod step;

use std::path::{Path, PathBuf};

use clap::Args;
use lth_files::on_one_line;
use lth_runs::Summary;
use lth_runs::experiment::{damaged_files, differences};

use crate::console::Console;
use crate::data::SourceOptions;
use crate::failure::{Blame, Failure, Kind, Result};

/// Checks that an experiment's files are what its records say and, with a second one, that both are the same to the bit:
/// plans, figures, masks and weights of every fit that both have. Of a ticket or trained network in an experiment's folder,
/// does the fit that made it again and compares every bit.
///
/// Runs of one experiment with one program are the same, whatever the number of threads and however often they were
/// interrupted, on machines with the same vector instructions. Times are no part of it. Exit code 3 if anything is not as it
/// should be.
///
/// A ticket's fit begins with what the fit before it left: verified from there back to the initial weights, it is a chain
/// from the data to the mask.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth verify runs/lenet-digits-5f0c1a2b            its files, by their checksums
  lth verify runs/a runs/b                         the same experiment, run twice
  lth verify runs/lenet-digits-5f0c1a2b/fits/ticket/level-01/seed-0/ticket.safetensors")]
pub struct Options {
    /// The experiment's folder, or the file of a ticket or trained network in it
    #[arg(value_name = "DIR|FILE")]
    first: PathBuf,
    /// Another run of it
    #[arg(value_name = "DIR")]
    second: Option<PathBuf>,
    /// Where the data of a ticket's fit lie, if not where they are fetched to
    #[command(flatten)]
    source: SourceOptions,
    /// Where the starting weights of a fit of `lth reproduce` lie, if not where they were
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(false);
    if options.second.is_none() && options.first.is_file() {
        return step::verify(&options.first, options, &console);
    }
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
    found.iter().for_each(|found| console.line(on_one_line(&found.to_string())));
    if !found.is_empty() {
        return Err(Failure::new(Kind::Data, anyhow::anyhow!("{} discrepancies in {what}", found.len())));
    }
    console.line(format!("verified: {what}"));
    console.finish()
}

fn read(folder: &Path) -> Result<Summary> {
    Summary::read(&folder.join("summary.json")).data()
}
