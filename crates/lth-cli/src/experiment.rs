//! What the commands that train have in common: progress, signals, the end, exit codes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use indicatif::ProgressBar;
use lth_experiment::{Error, Notice, Observer, Outcome, TensorBoard};
use lth_runs::experiment::{Ending, Measurement, Summary};
use lth_runs::{MachineRecord, lines};

use crate::console::Console;
use crate::failure::{Blame, Failure, Kind, Result};
use crate::system;

/// Whether somebody asked the process to stop. The first call begins to listen to SIGINT, SIGTERM and SIGUSR1; a second
/// SIGINT ends the process at once.
pub(crate) fn interrupted() -> bool {
    static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| {
        let asked = Arc::new(AtomicBool::new(false));
        #[cfg(unix)]
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGUSR1] {
            if signal == signal_hook::consts::SIGINT {
                let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked));
            }
            let _ = signal_hook::flag::register(signal, Arc::clone(&asked));
        }
        asked
    });
    asked.load(Ordering::Relaxed)
}

/// Shows what a runner does: a bar for each fit, lines for its figures.
pub(crate) struct Progress<'a> {
    console: &'a Console,
    bar: Option<ProgressBar>,
    n_skipped: usize,
    has_header: bool,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(console: &'a Console) -> Self {
        Self { console, bar: None, n_skipped: 0, has_header: false }
    }

    /// Says what was there already, if anything was.
    pub(crate) fn finish(&mut self) {
        self.clear();
        if self.n_skipped > 0 {
            self.console.note(format!("{} fits were there already", self.n_skipped));
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn measured(&mut self, at: &Measurement) {
        // Lines for every epoch; in between the bar has them.
        let is_epoch = (at.epoch - at.epoch.round()).abs() < 1e-9;
        if !is_epoch {
            return;
        }
        if !std::mem::replace(&mut self.has_header, true) {
            self.console.line(lines::measurement_header());
        }
        self.console.line(lines::measurement_line(at));
    }
}

impl Observer for Progress<'_> {
    fn on(&mut self, notice: &Notice<'_>) {
        match notice {
            Notice::Skipped { .. } => self.n_skipped += 1,
            Notice::LeftOut { fit, needed } => {
                self.console.note(format!("{} is left out: it rests on {needed}, which failed", fit.address));
            }
            Notice::Started { fit, index, n_fits, n_steps } => {
                self.clear();
                self.has_header = false;
                self.console.line(format!("\n{} ({} of {n_fits}): {}", fit.address, index + 1, fit.description));
                self.bar = Some(self.console.bar(&fit.address.to_string(), *n_steps));
            }
            Notice::Resumed { fit, step } => {
                self.console.note(format!("{fit} goes on from its checkpoint, at step {step}"));
            }
            Notice::BegunAnew { fit, reason } => {
                self.console.note(format!("{fit} begins anew: {reason}"));
            }
            Notice::Stepped { n_done, loss, .. } => {
                if let Some(bar) = &self.bar {
                    bar.set_position(*n_done);
                    if let Some(loss) = loss {
                        bar.set_message(format!("loss {loss:.4}"));
                    }
                }
            }
            Notice::Pruned { notice, .. } if !matches!(notice, lth_ticket::Notice::Pruned { .. }) => {
                self.console.line(notice.to_string());
            }
            Notice::Measured { at, .. } => self.measured(at),
            Notice::PathMeasured { record } => {
                let [first, last] = &record.ends;
                // Of other tasks than classification there is no error in [0, 1].
                let found =
                    record.errors("accuracy").and_then(|errors| lth_runs::statistics::instability(&errors).ok());
                let found = found
                    .map_or_else(String::new, |found| format!(": instability {:.2} points", 100.0 * found.instability));
                self.console.line(format!("path from {first} to {last}{found}"));
            }
            Notice::Ended { record } => {
                self.clear();
                if let Ending::Failed { reason } = &record.ending {
                    self.console.note(format!("{} failed: {reason}", record.address));
                }
            }
            _ => {}
        }
    }
}

/// The option of commands that train: figures for TensorBoard.
#[derive(clap::Args)]
pub(crate) struct TensorBoardOption {
    /// Write event files for TensorBoard beside each fit's record: tensorboard --logdir DIR/fits
    #[arg(long)]
    pub(crate) tensorboard: bool,
}

impl TensorBoardOption {
    /// Lets `run` tell what happens to `progress`, and writes it as event files of the experiment in `folder` where the option
    /// asks for them.
    pub(crate) fn watch<T>(
        &self,
        folder: &Path,
        progress: &mut dyn Observer,
        run: impl FnOnce(&mut dyn Observer) -> Result<T>,
    ) -> Result<T> {
        if !self.tensorboard {
            return run(progress);
        }
        let mut events = TensorBoard::new(folder, progress);
        let done = run(&mut events)?;
        events.finish().data()?;
        Ok(done)
    }
}

/// Shows the result as `shown` puts it, or says how to go on after an interruption.
pub(crate) fn conclude(
    summary: &Summary,
    outcome: &Outcome,
    folder: &Path,
    shown: fn(&Summary) -> String,
    console: &Console,
) -> Result {
    if !outcome.is_done {
        console.note("interrupted: the same command line goes on where it was cut");
        return Err(Failure::new(Kind::Interrupted, anyhow::anyhow!("interrupted before all fits were done")));
    }
    console.line(format!("\n{}", shown(summary).trim_end()));
    console.line(format!("\nreport: {}", folder.join("report.html").display()));
    console.json(summary.to_json().data()?.trim_end());
    expect_whole(summary)?;
    console.finish()
}

/// Fails where a fit of the experiment did.
pub(crate) fn expect_whole(summary: &Summary) -> Result {
    let n_failed = summary.fits.iter().filter(|fit| !fit.is_whole()).count();
    if n_failed == 0 {
        return Ok(());
    }
    let n = summary.fits.len();
    Err(Failure::new(Kind::Training, anyhow::anyhow!("{n_failed} of {n} fits failed; the report says which")))
}

/// What the records say of the machine.
pub(crate) fn machine() -> MachineRecord {
    MachineRecord {
        device: "cpu".into(),
        model: system::processor(),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        n_threads: rayon::current_num_threads(),
        instruction_set: Some(format!("{:?}", lth_kernels::InstructionSet::active()).to_lowercase()),
    }
}

pub(crate) fn out_failure(error: lth_runs::Error, force: bool) -> Failure {
    match error {
        lth_runs::Error::Occupied { .. } if !force => {
            Failure::usage(format!("{error}: choose another --out, or replace the experiment there with --force"))
        }
        lth_runs::Error::Occupied { .. } | lth_runs::Error::NotAFolder { .. } => Failure::new(Kind::Usage, error),
        _ => Failure::new(of_records(&error), error),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = kind(&error);
        Self::new(kind, error)
    }
}

/// Records that are damaged stay so; everything else about files may pass.
fn of_records(error: &lth_runs::Error) -> Kind {
    match error {
        lth_runs::Error::Damaged { .. } | lth_runs::Error::Invalid { .. } | lth_runs::Error::SchemaVersion { .. } => {
            Kind::Contradiction
        }
        _ => Kind::Data,
    }
}

fn kind(error: &Error) -> Kind {
    match error {
        Error::Fit { source, .. } => kind(source),
        Error::Plan { .. }
        | Error::OtherData { .. }
        | Error::OtherExperiment { .. }
        | Error::Scores { .. }
        | Error::Schedule(_) => Kind::Usage,
        Error::Network(lth_nn::Error::File(_)) => Kind::Data,
        Error::Network(_) => Kind::Usage,
        Error::Subject { source, .. } => source.downcast_ref::<Failure>().map_or(Kind::Data, Failure::kind),
        Error::Damaged { .. } | Error::Contradiction { .. } => Kind::Contradiction,
        Error::Runs(lth_runs::Error::Occupied { .. } | lth_runs::Error::NotAFolder { .. }) => Kind::Usage,
        Error::Runs(error) => of_records(error),
        Error::NotKept { .. } | Error::Files(_) | Error::Data(_) | Error::Dataset(_) => Kind::Data,
        Error::Train(lth_train::Error::Data(_) | lth_train::Error::Checkpoint(_) | lth_train::Error::Files(_))
        | Error::Ticket(lth_ticket::Error::File(_)) => Kind::Data,
        Error::Train(lth_train::Error::Hook { hook, .. }) if hook == lth_experiment::RECORDING => Kind::Data,
        _ => Kind::Training,
    }
}

#[cfg(test)]
mod tests {
    use lth_runs::Address;

    use super::*;

    #[test]
    fn a_full_disk_is_no_fault_of_training() {
        let full =
            |what: &str| lth_files::Error::io("write", what)(std::io::Error::from(std::io::ErrorKind::StorageFull));
        let all = [
            Error::Ticket(lth_ticket::Error::from(full("ticket"))),
            Error::Train(lth_train::Error::from(full("checkpoint"))),
            Error::Runs(lth_runs::Error::from(full("record"))),
        ];
        for source in all {
            let error = Error::Fit { address: Address::new("dense", 0, 0), source: Box::new(source) };
            assert_eq!(kind(&error), Kind::Data, "{error}");
        }
        let diverged = Error::Train(lth_train::Error::LossShape { got: vec![2] });
        assert_eq!(kind(&diverged), Kind::Training);
    }
}
