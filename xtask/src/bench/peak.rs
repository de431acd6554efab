//! Peak memory, measured in a process of its own: a process never forgets the most that it used.

use std::process::{Command, Stdio};

use anyhow::Context;

use lth_kernels::Kernel;

use super::candle_net::Candle;
use super::options::{Engine, Figure, Options, PeakOf};
use super::ours::{Ours, Spread};
use super::toolkit;
use super::torch::Torch;
use lth_cli::console::print_line;
use lth_cli::system;

/// Steps before the peak is read: the second is the first with all of the optimiser's state.
const N_STEPS: usize = 3;

/// Runs what `--peak-of` names and prints the peak in bytes.
pub(crate) fn run_child(what: PeakOf, options: &Options) -> anyhow::Result<()> {
    let figure = options.only.first().copied().unwrap_or(Figure::TrainAll);
    let sparsity = options.sparsity.first().map_or(0., |share| share.0);
    let bytes = match what {
        PeakOf::Ours | PeakOf::OursDirect | PeakOf::OursBlocks => {
            let spread = if what == PeakOf::OursBlocks { Spread::InBlocks } else { Spread::Even };
            let mut ours = Ours::new(figure, sparsity, spread)?;
            let mut steps = || (0..N_STEPS).try_for_each(|_| ours.step());
            if what == PeakOf::OursDirect { Kernel::Dense.run(steps) } else { steps() }?;
            system::peak_memory()
        }
        PeakOf::Candle => {
            let mut candle = Candle::new(figure)?;
            (0..N_STEPS).try_for_each(|_| candle.step())?;
            system::peak_memory()
        }
        PeakOf::Selection => toolkit::selection_memory()?,
    };
    Ok(print_line(&bytes.map_or_else(String::new, |bytes| bytes.to_string()))?)
}

/// The peak memory of an engine at a figure in bytes, where the system tells.
pub(crate) fn of(figure: Figure, engine: Engine, sparsity: f64, options: &Options) -> anyhow::Result<Option<u64>> {
    match (engine, &options.torch) {
        (Engine::Ours, _) => child("ours", Some((figure, sparsity)), options.threads),
        (Engine::OursDirect, _) => child("ours-direct", Some((figure, sparsity)), options.threads),
        (Engine::OursBlocks, _) => child("ours-blocks", Some((figure, sparsity)), options.threads),
        (Engine::Candle, _) => child("candle", Some((figure, sparsity)), options.threads),
        (Engine::Torch | Engine::TorchNhwc | Engine::Sparseprop, Some(python)) => {
            let mut torch = Torch::start(python, options.threads)?;
            let id = torch.build(figure, engine, sparsity)?;
            torch.turn(id, (N_STEPS - 1, 1))?;
            torch.peak()
        }
        (_, None) => Ok(None),
    }
}

/// Memory beyond the weights at the peak of a selection, in bytes.
pub(crate) fn of_selection(threads: u32) -> anyhow::Result<Option<u64>> {
    child("selection", None, threads)
}

/// This program again, with a part of the work.
fn child(what: &str, of: Option<(Figure, f64)>, threads: u32) -> anyhow::Result<Option<u64>> {
    let program = std::env::current_exe().context("finding this program to measure its memory")?;
    let mut command = Command::new(program);
    command.args(["bench", "--peak-of", what, "--threads", &threads.to_string()]);
    if let Some((figure, sparsity)) = of {
        command.args(["--only", figure.name(), "--sparsity", &sparsity.to_string()]);
    }
    let output = command.stderr(Stdio::inherit()).output().context("starting this program to measure its memory")?;
    anyhow::ensure!(output.status.success(), "measuring the memory of `{what}`: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let text = text.trim();
    if text.is_empty() { Ok(None) } else { Ok(Some(text.parse()?)) }
}
