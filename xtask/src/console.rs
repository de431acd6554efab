//! What a person sees while a command runs.

use std::io::Write;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Results as text on standard output, or, with `--json`, everything but the final JSON on standard error. Bars are drawn
/// on standard error, on a terminal only.
pub(crate) struct Console {
    json: bool,
    bars: MultiProgress,
}

impl Console {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()) }
    }

    /// A line of the results.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        self.bars.suspend(|| if self.json { eprintln!("{text}") } else { print_line(text) });
    }

    /// A line about what is going on.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        self.bars.suspend(|| eprintln!("{text}"));
    }

    /// The JSON that `--json` asked for.
    pub(crate) fn json(&self, text: &str) {
        if self.json {
            self.bars.suspend(|| print_line(text));
        }
    }

    /// A bar over `n` things with the time left.
    pub(crate) fn bar(&self, what: &str, n: u64) -> ProgressBar {
        self.styled(what, n, "{prefix:24!} {bar:30} {pos:>6}/{len} {elapsed_precise} left {eta_precise} {msg}")
    }

    /// A bar over `n` bytes with the rate.
    pub(crate) fn bytes(&self, what: &str, n: u64) -> ProgressBar {
        self.styled(what, n, "{prefix:24!} {bar:30} {bytes:>10}/{total_bytes} {bytes_per_sec} left {eta_precise} {msg}")
    }

    fn styled(&self, what: &str, n: u64, template: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.bars.add(ProgressBar::new(n).with_style(style).with_prefix(what.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    }
}

/// As `println`, which panics when the reader has gone: `cargo xtask inspect FILE | head`.
fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
