//! `lth report`: the reports of an experiment, made again from its summary.

use std::path::PathBuf;

use clap::Args;
use lth_runs::experiment::Summary;

use crate::console::Console;
use crate::failure::{Blame, Result};

/// Makes report.html and report.md of an experiment again, from its summary.json alone.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth report runs/lenet-digits-5f0c1a2b
  lth report runs/*/summary.json")]
pub struct Options {
    /// Folders of experiments, or their summary.json
    #[arg(required = true, value_name = "DIR")]
    experiments: Vec<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(false);
    for path in &options.experiments {
        let file = if path.is_dir() { path.join("summary.json") } else { path.clone() };
        let summary = Summary::read(&file).data()?;
        let folder = file.parent().map(PathBuf::from).unwrap_or_default();
        for (name, text) in lth_runs::report::files(&summary) {
            let path = folder.join(name);
            lth_files::write_atomic(&path, |file| file.write_all(text.as_bytes())).data()?;
            console.line(path.display().to_string());
        }
    }
    console.finish()
}
