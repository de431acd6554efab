//! `lth report`: the reports of an experiment, made again from its folder.

use std::path::{Path, PathBuf};

use clap::Args;
use lth_runs::experiment::Summary;
use lth_runs::page::Block;
use lth_runs::report::Extras;

use crate::console::Console;
use crate::failure::{Blame, Result};

/// Makes report.html and report.md of an experiment again, from its summary.json, the networks beside it and pictures.json.
///
/// Neither the data nor any training is needed. Networks that are not there any more are left out of the figures.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth report runs/lenet-digits-5f0c1a2b
  lth report runs/*/summary.json
  lth report --figures runs/lenet-digits-5f0c1a2b          its figures as SVG files besides")]
pub struct Options {
    /// Folders of experiments, or their summary.json
    #[arg(required = true, value_name = "DIR")]
    experiments: Vec<PathBuf>,
    /// Write each figure as an SVG file besides, into figures/
    #[arg(long)]
    figures: bool,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(false);
    for path in &options.experiments {
        let file = if path.is_dir() { path.join("summary.json") } else { path.clone() };
        let summary = Summary::read(&file).data()?;
        let folder = file.parent().map(PathBuf::from).unwrap_or_default();
        let extras = lth_experiment::extras(&folder, &summary);
        for (name, text) in lth_runs::report::files_with(&summary, &extras) {
            let path = folder.join(name);
            lth_files::write_atomic(&path, |file| file.write_all(text.as_bytes())).data()?;
            console.line(path.display().to_string());
        }
        if options.figures {
            write_figures(&summary, &folder.join("figures"), &console)?;
        }
    }
    console.finish()
}

/// Every figure of the report, named after its title: `test-accuracy-on-digits.svg`.
fn write_figures(summary: &Summary, folder: &Path, console: &Console) -> Result {
    std::fs::create_dir_all(folder).map_err(lth_files::Error::io("create", folder)).data()?;
    let page = lth_runs::report::page(summary, &Extras::default());
    for block in page.sections.iter().flat_map(|section| &section.blocks) {
        let Block::Figures(figures) = block else { continue };
        for (figure, _) in figures {
            let words = figure.title().split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
            let name = words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-");
            let path = folder.join(format!("{name}.svg"));
            lth_files::write_atomic(&path, |file| file.write_all(figure.svg().as_bytes())).data()?;
            console.line(path.display().to_string());
        }
    }
    Ok(())
}
