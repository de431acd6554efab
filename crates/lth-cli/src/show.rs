//! `lth show`: what an experiment, or one fit of it, came to.

use std::path::PathBuf;

use clap::Args;
use lth_files::on_one_line;
use lth_runs::experiment::{Ending, Evaluated, FitRecord, Part, Summary};
use lth_runs::lines::{grouped, layer_table, measurement_header, measurement_line};
use lth_runs::table::{Align, Table};
use lth_runs::{Address, report};

use crate::console::Console;
use crate::failure::{Blame, Failure, Result};

/// Shows what an experiment came to, or the record of one of its fits.
///
/// Of a fit: what it started from, how it ended, its figures, its layers and its files.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth show runs/lenet-digits-5f0c1a2b
  lth show runs/lenet-digits-5f0c1a2b ticket/3/0")]
pub struct Options {
    /// Folder of the experiment, or its summary.json
    #[arg(value_name = "DIR")]
    experiment: PathBuf,
    /// A fit: ARM/LEVEL/SEED
    #[arg(value_name = "FIT")]
    fit: Option<Address>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// More lines would run off a screen.
const MOST_MEASUREMENTS: usize = 24;

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(options.json);
    let path = &options.experiment;
    let summary = Summary::read(&if path.is_dir() { path.join("summary.json") } else { path.clone() }).data()?;
    match &options.fit {
        None => {
            console.line(report::overview(&summary).trim_end());
            console.line(format!("\nfits: {}", on_one_line(&addresses(&summary))));
            console.json(summary.to_json().data()?.trim_end());
        }
        Some(address) => {
            let fit = summary.fit(address).ok_or_else(|| {
                Failure::usage(format!("there is no fit {address}; there are {}", addresses(&summary)))
            })?;
            let is_earlier = summary.earlier.contains(address);
            console.line(text(fit, is_earlier).trim_end());
            console.json(&serde_json::to_string_pretty(fit).data()?);
        }
    }
    console.finish()
}

/// "dense/0, ticket/1 to 5, random/1 to 5; seeds 0, 1, 2"
fn addresses(summary: &Summary) -> String {
    let of_arm = |name: &str| {
        let levels = || summary.fits.iter().filter(|fit| fit.address.arm == name).map(|fit| fit.address.level);
        match (levels().min(), levels().max()) {
            (Some(first), Some(last)) if first < last => format!("{name}/{first} to {last}"),
            (Some(only), _) => format!("{name}/{only}"),
            _ => name.to_owned(),
        }
    };
    let arms: Vec<String> = summary.arms.iter().map(|arm| of_arm(&arm.name)).collect();
    let seeds: Vec<String> = summary.seeds().iter().map(u64::to_string).collect();
    format!("{}; seeds {}", arms.join(", "), seeds.join(", "))
}

fn text(fit: &FitRecord, is_earlier: bool) -> String {
    let mut text = on_one_line(&format!("{}: {}", fit.address, fit.description)) + "\n\n";
    let mut row = |what: &str, value: String| text += &format!("{what:14} {}\n", on_one_line(&value));
    let start = fit.starts_from.as_ref().map_or_else(|| "initial weights".to_owned(), ToString::to_string);
    row("starts from", start);
    if !fit.mask_from.is_empty() {
        row("mask from", fit.mask_from.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    }
    row("steps", format!("{} to {}", grouped(fit.span.0), grouped(fit.span.1)));
    row(
        "ended",
        match &fit.ending {
            Ending::Done => "done".into(),
            Ending::Stopped { reason } => format!("stopped: {reason}"),
            Ending::Failed { reason } => format!("failed: {reason}"),
        },
    );
    if is_earlier {
        row("of", "an earlier command; the last one did not ask for it".into());
    }
    let sparsity = fit.measured_sparsity().unwrap_or(fit.sparsity);
    row("sparsity", format!("{:.2} %", 100.0 * sparsity));
    for (what, evaluated) in [("at the end", &fit.at_end), ("at its best", &fit.at_best)] {
        if let Some(evaluated) = evaluated {
            row(what, figures(evaluated));
        }
    }
    if let Some(best) = fit.best() {
        row("best step", grouped(best.step));
    }
    let others = format!("{:.2} s else", fit.overhead_seconds);
    row("time", format!("{:.2} s of training, {others}", fit.seconds()));
    if !fit.history.is_empty() {
        text += &format!("\n{}\n", measurement_header());
        // Evenly from the last backwards: a screen of them.
        let n = fit.history.len();
        let every = n.div_ceil(MOST_MEASUREMENTS);
        let shown = fit.history.iter().enumerate().filter(|(index, _)| (n - 1 - index).is_multiple_of(every));
        shown.for_each(|(_, at)| text += &format!("{}\n", on_one_line(&measurement_line(at))));
        if every > 1 {
            text += &format!("(one of {every} of {n} measurements; all are in metrics.jsonl)\n");
        }
    }
    if !fit.layers.is_empty() {
        text += &format!("\n{}", layer_table(&fit.layers).plain());
    }
    if !fit.files.is_empty() {
        let mut table = Table::new([("file", Align::Left), ("bytes", Align::Right), ("content", Align::Left)]);
        for file in fit.files.values() {
            let content = file.content.as_ref().unwrap_or(&file.sha256);
            table.push([file.path.clone(), grouped(file.bytes), content.clone()]);
        }
        text += &format!("\n{}", table.plain());
    }
    text
}

/// "test loss 0.1234, accuracy 0.9700, of 360"
fn figures(evaluated: &Evaluated) -> String {
    let part = match evaluated.on {
        Part::Test => "test",
        Part::Validation => "validation",
    };
    let metrics: String = evaluated.metrics.iter().map(|(name, value)| format!(", {name} {value:.4}")).collect();
    format!("{part} loss {:.4}{metrics}, of {} examples", evaluated.loss, grouped(evaluated.n_examples))
}
