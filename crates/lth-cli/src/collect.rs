//! `lth collect`: one experiment of the folders that its shards left.

use std::path::PathBuf;

use clap::Args;
use lth_experiment::{Collected, collect};

use crate::build::build;
use crate::console::Console;
use crate::experiment::expect_whole;
use crate::failure::{Blame, Failure, Kind, Result};
use crate::system;

/// Brings folders of one experiment together in one, and writes its summary and reports as a run in one piece would.
///
/// The folders may be shards of `lth run`, or hold seeds, levels and arms that were trained apart; they are only read. All must
/// be of one experiment, with the same data, and say the same of a fit that two of them have: or else nothing is written
/// (exit codes 2 and 5). Made again, it brings what is new. Exit code 75 while fits are missing, 4 where one failed.
#[derive(Args)]
#[command(after_help = "\
Example:
  lth collect runs/lenet-mnist-5f0c1a2b runs/lenet-mnist-5f0c1a2b-*-of-4")]
pub struct Options {
    /// The folder of the whole
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Folders of the same experiment
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Print summary.json to standard output, and everything else to standard error
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(options.json);
    let about = (&build(), system::command_line());
    let Collected { summary, n_copied, missing, n_paths_missing, left_out } =
        collect(&options.out, &options.folders, (about.0, &about.1), &lth_runs::report::files_with)?;
    for (folder, fit) in &left_out {
        console.note(format!(
            "{fit} of {} is left out: it is not what the plan of the whole has there, or what it rests on is not there",
            folder.display()
        ));
    }
    console.line(lth_runs::report::overview(&summary).trim_end());
    let n_there = summary.fits.len() - n_copied.min(summary.fits.len());
    console.line(format!("\n{n_copied} fits were brought, {n_there} were there already"));
    console.line(format!("report: {}", options.out.join("report.html").display()));
    console.json(summary.to_json().data()?.trim_end());
    if let [first, ..] = missing.as_slice() {
        let n = missing.len();
        return Err(Failure::new(Kind::Interrupted, anyhow::anyhow!("{n} fits are not there yet, {first} first")));
    }
    if n_paths_missing > 0 {
        let reason = anyhow::anyhow!("{n_paths_missing} paths between networks are not there yet");
        return Err(Failure::new(Kind::Interrupted, reason));
    }
    expect_whole(&summary)?;
    console.finish()
}
