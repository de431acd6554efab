//! What a person sees while a command runs.

use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lth_files::{on_its_lines, on_one_line};

use crate::failure::{Blame, Result};

/// Results as text on standard output, or, with `--json`, everything but the final JSON on standard error. Bars are drawn
/// on standard error, on a terminal only.
///
/// Nothing that cannot be shown ends a command halfway: what it computes is kept. Results that standard output does not
/// take are an error at its end, which [`Console::finish`] gives; progress that standard error does not take is none.
pub struct Console {
    json: bool,
    bars: MultiProgress,
    /// The first error of standard output.
    failed: Mutex<Option<io::Error>>,
}

impl Console {
    /// For a command that was, or was not, asked for JSON.
    pub fn new(json: bool) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { json, bars, failed: Mutex::new(None) }
    }

    /// A line of the results, or several. Nothing in it moves the cursor; that a name begins no line is the caller's to see
    /// to ([`on_one_line`]).
    pub fn line(&self, text: impl AsRef<str>) {
        let text = on_its_lines(text.as_ref());
        if self.json {
            self.hide_bars();
            log_line(&text);
        } else {
            self.result(&text);
        }
    }

    /// A line about what is going on.
    pub fn note(&self, text: impl AsRef<str>) {
        self.hide_bars();
        log_line(&on_one_line(text.as_ref()));
    }

    /// The JSON that `--json` asked for.
    pub fn json(&self, text: &str) {
        if self.json {
            self.result(text);
        }
    }

    /// Whether standard output took all results. A reader of text who has gone has seen enough
    /// (`lth inspect FILE | head`); JSON is whole or worth nothing.
    pub fn finish(&self) -> Result {
        self.keep(io::stdout().flush());
        match self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) if self.json || error.kind() != ErrorKind::BrokenPipe => {
                Err(error).context("the results could not be written to standard output").data()
            }
            _ => Ok(()),
        }
    }

    fn result(&self, text: &str) {
        self.hide_bars();
        self.keep(print_line(text));
    }

    fn keep(&self, written: io::Result<()>) {
        if let Err(error) = written {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// Their next step draws them again. Not `suspend`, which panics where the terminal has gone.
    fn hide_bars(&self) {
        let _ = self.bars.clear();
    }

    /// A bar over `n` things with the time left.
    pub fn bar(&self, what: &str, n: u64) -> ProgressBar {
        self.styled(what, n, "{prefix:24!} {bar:30} {pos:>6}/{len} {elapsed_precise} left {eta_precise} {msg}")
    }

    /// A bar over `n` bytes with the rate.
    pub fn bytes(&self, what: &str, n: u64) -> ProgressBar {
        self.styled(what, n, "{prefix:24!} {bar:30} {bytes:>10}/{total_bytes} {bytes_per_sec} left {eta_precise} {msg}")
    }

    fn styled(&self, what: &str, n: u64, template: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.bars.add(ProgressBar::new(n).with_style(style).with_prefix(what.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    }
}

/// As `println`, which panics when nobody takes the line.
pub fn print_line(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// As `eprintln`, which panics when nobody takes the line.
pub fn log_line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
