//! The commands of `lth`, which `cargo xtask` has as well: one module each, thin over the libraries.

pub mod console;
pub mod failure;
pub mod share;
pub mod system;

mod build;
mod cache;
mod checked;
mod collect;
mod compare;
mod connectivity;
mod data;
mod expand;
mod experiment;
mod fetch;
mod imp;
mod infer;
mod inspect;
mod layers;
mod list;
#[cfg(test)]
#[path = "../../lth-files/tests/it/mutations.rs"]
mod mutations;
mod prune;
mod race;
mod report;
mod reproduce;
mod sensitivity;
mod show;
mod verify;
mod work;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{CommandFactory, Subcommand};

pub use build::VERSION;
use console::{Console, log_line};
use failure::{Kind, Result};

/// What `lth` can do.
#[derive(Subcommand)]
pub enum Command {
    /// Runs the notebook's whole comparison: a dense network A, tickets B of 50 % and 80 % sparsity, and the controls
    Reproduce(Box<reproduce::Options>),
    /// Finds winning tickets as the papers do, beside the controls that they must beat
    Imp(Box<imp::Options>),
    /// Races the ways to a sparse network against dense training: whole times, search included, and who ends as good
    Race(Box<race::Options>),
    /// Measures from which step on networks are stable to the order of their data: linear mode connectivity
    Connectivity(Box<connectivity::Options>),
    /// Prunes each layer of a trained network alone, and says how far each can go
    Sensitivity(Box<sensitivity::Options>),
    /// Lists the work items of an experiment: what several machines can share
    Plan(work::PlanOptions),
    /// Does one of several shards of an experiment
    Run(work::RunOptions),
    /// Makes one experiment of the folders that its shards left
    Collect(collect::Options),
    /// Makes the reports of an experiment again, from its folder
    Report(report::Options),
    /// Shows what an experiment, or one fit of it, came to
    Show(show::Options),
    /// Lays two experiments side by side
    Compare(compare::Options),
    /// Checks an experiment's files, that two runs of it are the same to the bit, or the step that made a ticket
    Verify(verify::Options),
    /// Lists the experiments in a folder
    List(list::Options),
    /// Shows what a ticket or checkpoint holds, layer by layer
    Inspect(inspect::Options),
    /// Writes a ticket in the form that other software loads
    Expand(expand::Options),
    /// Prunes a checkpoint by any criterion that needs no data
    Prune(prune::Options),
    /// Classifies pictures with a trained network, dense or sparse
    Infer(infer::Options),
    /// Puts data sets into the cache
    Fetch(fetch::Options),
    /// Lists or removes what the cache holds
    Cache(cache::Options),
    /// Prints completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Does it. `C`: the command line that it is part of, for completions.
    ///
    /// # Errors
    /// With the kind that decides the exit code.
    pub fn run<C: CommandFactory>(&self) -> Result {
        match self {
            Self::Reproduce(options) => reproduce::run(options, None),
            Self::Imp(options) => imp::run(options, None),
            Self::Race(options) => race::run(options, None),
            Self::Connectivity(options) => connectivity::run(options, None),
            Self::Sensitivity(options) => sensitivity::run(options),
            Self::Plan(options) => work::plan(options),
            Self::Run(options) => work::run(options),
            Self::Collect(options) => collect::run(options),
            Self::Report(options) => report::run(options),
            Self::Show(options) => show::run(options),
            Self::Compare(options) => compare::run(options),
            Self::Verify(options) => verify::run(options),
            Self::List(options) => list::run(options),
            Self::Inspect(options) => inspect::run(options),
            Self::Expand(options) => expand::run(options),
            Self::Prune(options) => prune::run(options),
            Self::Infer(options) => infer::run(options),
            Self::Fetch(options) => fetch::run(options),
            Self::Cache(options) => cache::run(options),
            Self::Completions { shell } => {
                let mut command = C::command();
                let name = command.get_bin_name().unwrap_or("lth").to_owned();
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut command, name, &mut script);
                let console = Console::new(false);
                console.line(String::from_utf8_lossy(&script).trim_end());
                console.finish()
            }
        }
    }
}

/// Parses the command line, sets up logging, runs, and turns the outcome into an exit code: 0 done, 2 wrong usage, 3 data
/// or network, 4 training failed, 5 files that are not what they should be, 75 interrupted and can go on.
pub fn main<C: clap::Parser>(run: impl FnOnce(C) -> Result) -> ExitCode {
    let cli = match C::try_parse() {
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
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log_line(&format!("error: {failure}"));
            failure.exit_code()
        }
    }
}
