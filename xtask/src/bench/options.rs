//! The command line of `bench`, and what can be measured.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lth_cli::share::Share;
use serde::{Deserialize, Serialize};

use super::ours::SIDE;

/// Measures training steps, evaluation, layers of a language model and the pruning toolkit, beside candle's own operators
/// and, if asked, PyTorch.
///
/// ResNet-18 with fastai's head, pictures of 64×64, batches of 64 and 1; the lottery ticket paper's Conv-4; linear layers and a block of the shape of Llama's,
/// beside candle alone; f32 on the CPU. All engines take turns, so that
/// what else the machine does meets them alike; each figure is the median of the rounds. Peak memory is that of a process
/// of its own.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench                                      ours, dense and sparse, and candle's operators
  cargo xtask bench --torch .venv/bin/python             PyTorch and SparseProp in turns with ours
  cargo xtask bench --only train_all --sparsity 0.9 --rounds 5
  cargo xtask bench --torch .venv/bin/python --write docs/benchmarks.md
  cargo xtask bench --explain --sparsity 0.9             which kernel each layer runs on, and how long it takes")]
pub(crate) struct Options {
    /// Rounds: turns of every engine
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: u32,
    /// Threads of every engine
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: u32,
    /// Only these figures
    #[arg(long, value_enum, value_name = "FIGURE", num_args = 1..)]
    pub(crate) only: Vec<Figure>,
    /// Sparsities of the pruned networks: 0.9 or 90% [default: 50% 80% 90% 95% 98%]
    #[arg(long, value_name = Share::VALUE_NAME, num_args = 1..)]
    pub(crate) sparsity: Vec<Share>,
    /// A Python with torch and torchvision, and sparseprop if it is to take part
    #[arg(long, value_name = "PYTHON")]
    pub(crate) torch: Option<PathBuf>,
    /// Leave candle's own operators out of the network's figures: they take longer than all the others
    #[arg(long)]
    pub(crate) no_candle: bool,
    /// Do not measure peak memory
    #[arg(long)]
    pub(crate) no_peak: bool,
    /// Print each convolution with its kernels and milliseconds instead
    #[arg(long, conflicts_with_all = ["torch", "fit_cost_model"])]
    pub(crate) explain: bool,
    /// Height and width of the pictures that --explain looks at
    #[arg(long, value_name = "PIXELS", default_value_t = 64, requires = "explain",
        value_parser = clap::value_parser!(u32).range(32..=1024))]
    pub(crate) image_size: u32,
    /// Pictures in the training batch that --explain looks at
    #[arg(long, value_name = "N", default_value_t = 64, requires = "explain",
        value_parser = clap::value_parser!(u32).range(2..=1024))]
    pub(crate) batch_size: u32,
    /// Measure the convolution kernels on one thread and print the cost model's coefficients for this machine instead
    #[arg(long, conflicts_with = "torch")]
    pub(crate) fit_cost_model: bool,
    /// Print JSON to standard output, and everything else to standard error
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write the JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Put the tables into this Markdown file, between its marks for this machine's instruction set
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Take the figures that an earlier run wrote with --out, and measure nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["torch", "explain", "fit_cost_model"])]
    pub(crate) from: Option<PathBuf>,
    /// Run one engine briefly and print its peak memory
    #[arg(long, value_enum, hide = true)]
    pub(crate) peak_of: Option<PeakOf>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Training step, everything trains
    TrainAll,
    /// Training step, the body's convolutions frozen
    TrainFrozen,
    /// Training step of Conv-4, pictures of 32×32, batch of 60
    TrainConv4,
    /// Evaluation of a batch of 64
    EvalB64,
    /// Evaluation of one picture
    EvalB1,
    /// Linear layers and a block of a language model
    Language,
    /// Selecting and applying masks
    Toolkit,
}

impl Figure {
    /// The figures of a network.
    pub(crate) const NETWORK: [Self; 5] =
        [Self::TrainAll, Self::TrainFrozen, Self::TrainConv4, Self::EvalB64, Self::EvalB1];

    /// The name on the command line and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TrainAll => "train_all",
            Self::TrainFrozen => "train_frozen",
            Self::TrainConv4 => "train_conv4",
            Self::EvalB64 => "eval_b64",
            Self::EvalB1 => "eval_b1",
            Self::Language => "language",
            Self::Toolkit => "toolkit",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::TrainAll => "training step, all trainable, batch 64",
            Self::TrainFrozen => "training step, frozen body, batch 64",
            Self::TrainConv4 => "training step, Conv-4, 32×32, batch 60",
            Self::EvalB64 => "evaluation, batch 64",
            Self::EvalB1 => "evaluation, batch 1",
            Self::Language => "layers of a language model, milliseconds",
            Self::Toolkit => "pruning toolkit",
        }
    }

    pub(crate) fn batch(self) -> usize {
        match self {
            Self::EvalB1 => 1,
            Self::TrainConv4 => 60,
            _ => 64,
        }
    }

    /// Height and width of the pictures.
    pub(crate) fn side(self) -> usize {
        if self == Self::TrainConv4 { 32 } else { SIDE }
    }

    pub(crate) fn is_training(self) -> bool {
        matches!(self, Self::TrainAll | Self::TrainFrozen | Self::TrainConv4)
    }

    /// Steps of a turn that are not timed, and those that are: short ones are repeated, with warm caches.
    pub(crate) fn steps(self) -> (usize, usize) {
        match self {
            Self::TrainAll | Self::TrainFrozen | Self::Language | Self::Toolkit => (0, 1),
            Self::TrainConv4 => (1, 3),
            Self::EvalB64 => (1, 2),
            Self::EvalB1 => (3, 15),
        }
    }
}

/// Who computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Engine {
    Ours,
    /// Ours dense, without Winograd's algorithm.
    OursDirect,
    /// Ours, under masks of which every four filters keep the same places.
    OursBlocks,
    Candle,
    Torch,
    TorchNhwc,
    Sparseprop,
}

impl Engine {
    /// The name in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursDirect => "ours_direct",
            Self::OursBlocks => "ours_blocks",
            Self::Candle => "candle",
            Self::Torch => "torch",
            Self::TorchNhwc => "torch_nhwc",
            Self::Sparseprop => "sparseprop",
        }
    }
}

/// What a child process is to measure the peak memory of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PeakOf {
    Ours,
    OursDirect,
    OursBlocks,
    Candle,
    Selection,
}

impl Options {
    pub(crate) fn has(&self, figure: Figure) -> bool {
        self.only.is_empty() || self.only.contains(&figure)
    }

    /// The sparsities of the pruned networks, in the order given.
    pub(crate) fn sparsities(&self) -> Vec<f64> {
        if self.sparsity.is_empty() {
            return vec![0.5, 0.8, 0.9, 0.95, 0.98];
        }
        self.sparsity.iter().map(|share| share.0).filter(|&sparsity| sparsity > 0.).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json_and_command_line() {
        for figure in Figure::value_variants() {
            assert_eq!(serde_json::to_value(figure).ok(), Some(figure.name().into()));
            assert_eq!(Figure::from_str(figure.name(), false).as_ref(), Ok(figure));
        }
        for engine in [
            Engine::Ours,
            Engine::OursDirect,
            Engine::OursBlocks,
            Engine::Candle,
            Engine::Torch,
            Engine::TorchNhwc,
            Engine::Sparseprop,
        ] {
            assert_eq!(serde_json::to_value(engine).ok(), Some(engine.name().into()));
        }
    }
}
