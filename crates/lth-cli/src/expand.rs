//! `lth expand`: a ticket in the form that other software loads.

use std::path::PathBuf;

use candle_core::Device;
use clap::Args;
use lth_ticket::Ticket;

use crate::console::Console;
use crate::failure::{Blame, Failure, Result};

/// Writes a ticket or trained network as plain safetensors: every parameter under its own name, pruned weights as 0.
///
/// Fits leave networks that have a mask in the compact form, a bit for each weight and the kept values, which this project's
/// commands and scripts/read_ticket.py read. PyTorch, candle and whatever else loads safetensors take the plain form. It
/// remains a ticket: masks and origin are in its header, and its content has the same SHA-256.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth expand runs/toy-pets-5f0c1a2b/fits/ticket/level-01/seed-42/trained.safetensors resnet.safetensors
  lth expand resnet.safetensors small.safetensors --compact")]
pub struct Options {
    /// The ticket, in either form
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Where it goes: NAME.safetensors
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// The other way: write the compact form
    #[arg(long)]
    compact: bool,
    /// Replace OUT
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(options: &Options) -> Result {
    let Options { input, output, compact, force } = options;
    if output.exists() && !force {
        return Err(Failure::usage(format!(
            "{} is there already: name another file, or add --force",
            output.display()
        )));
    }
    let ticket = Ticket::read(input, &Device::Cpu).data()?;
    let written = if *compact { ticket.write_compact(output) } else { ticket.write(output) }.data()?;
    let before = std::fs::metadata(input).map_or(0, |file| file.len());
    let grouped = lth_runs::lines::grouped;
    let console = Console::new(false);
    console.line(format!(
        "{}: {} bytes, from {} bytes; content {}",
        output.display(),
        grouped(written.bytes),
        grouped(before),
        written.content_sha256
    ));
    console.finish()
}
