//! `lth`: find, test, keep and use sparse winning tickets.

use std::process::ExitCode;

use clap::Parser;

/// Feature maps lie as vectors want them.
#[global_allocator]
static ALLOCATOR: lth_kernels::Allocator = lth_kernels::Allocator;

/// Find, test and keep lottery tickets.
///
/// Results go to standard output, progress and logs to standard error. Exit codes: 0 done; trying again
/// helps: 3 data, files or network, 75 interrupted (the same command line goes on); it does not: 2 wrong usage, 4 training
/// failed, 5 files that are damaged or contradict one another.
#[derive(Parser)]
#[command(name = "lth", version, long_version = lth_cli::VERSION, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: lth_cli::Command,
}

fn main() -> ExitCode {
    lth_cli::main(|cli: Cli| cli.command.run::<Cli>())
}
