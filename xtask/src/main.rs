//! The project's commands: `cargo xtask reproduce`, and those that open what it leaves behind.

mod bench;
mod console;
mod failure;
mod infer;
mod inspect;
mod layers;
mod prune;
mod reproduce;
mod system;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Kind;

/// Find, test and keep lottery tickets.
///
/// Results go to standard output, progress and logs to standard error. Exit codes: 0 done, 2 wrong usage, 3 data or
/// network, 4 training failed.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Reproduce(Box<reproduce::Options>),
    Infer(infer::Options),
    Inspect(inspect::Options),
    Prune(prune::Options),
    Bench(Box<bench::Options>),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Wrong usage, or the help that was asked for.
        Err(said) => {
            let code = if said.use_stderr() { Kind::Usage.code() } else { 0 };
            let unseen = said.print().is_err_and(|error| error.kind() != ErrorKind::BrokenPipe);
            return ExitCode::from(if code == 0 && unseen { Kind::Data.code() } else { code });
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("LTH_LOG").unwrap_or_else(|_| "warn,lth_data=info".into()),
        )
        .init();
    let outcome = match cli.command {
        Command::Reproduce(options) => reproduce::run(&options),
        Command::Infer(options) => infer::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Prune(options) => prune::run(&options),
        Command::Bench(options) => bench::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            console::log_line(&format!("error: {failure}"));
            failure.exit_code()
        }
    }
}
