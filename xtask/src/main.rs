//! The project's commands: those of `lth`, and what its developers need besides.

mod bench;
mod scale;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Feature maps lie as vectors want them.
#[global_allocator]
static ALLOCATOR: lth_kernels::Allocator = lth_kernels::Allocator;

/// Find, test and keep lottery tickets.
///
/// Results go to standard output, progress and logs to standard error. Exit codes: 0 done; trying again
/// helps: 3 data, files or network, 75 interrupted (the same command line goes on); it does not: 2 wrong usage, 4 training
/// failed, 5 files that are damaged or contradict one another.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Lth(lth_cli::Command),
    Bench(Box<bench::Options>),
    Scale(scale::Options),
    Torture(torture::Options),
}

fn main() -> ExitCode {
    lth_cli::main(|cli: Cli| match cli.command {
        Command::Lth(command) => command.run::<Cli>(),
        Command::Bench(options) => bench::run(&options),
        Command::Scale(options) => scale::run(&options),
        Command::Torture(options) => torture::run(&options),
    })
}
