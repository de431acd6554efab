//! Why a command ended early, as one line and an exit code.

use std::fmt;
use std::process::ExitCode;

/// What kind of thing went wrong; each has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line does not make sense: 2.
    Usage,
    /// Data, files or the network: 3.
    Data,
    /// Training itself: 4.
    Training,
    /// Files that are there are damaged, or contradict one another: nothing changes until somebody looks. 5.
    Contradiction,
    /// Somebody asked it to stop, and the same command line goes on: 75.
    Interrupted,
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Data => 3,
            Self::Training => 4,
            Self::Contradiction => 5,
            Self::Interrupted => 75,
        }
    }
}

/// An error with its kind. `Display` is one line: what was being done, then the causes.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    error: anyhow::Error,
}

/// What a command comes to.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// An error of that kind.
    pub fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self { kind, error: error.into() }
    }

    /// A command line that does not make sense.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { kind: Kind::Usage, error: anyhow::anyhow!("{message}") }
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A transparent error repeats its source's message: say everything once, on one line.
        let mut said = String::new();
        for cause in self.error.chain() {
            let mut text = cause.to_string();
            if let Some(candle_core::Error::WithBacktrace { inner, .. }) = cause.downcast_ref() {
                text = inner.to_string();
            }
            let text = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
            if !said.contains(&text) {
                if !said.is_empty() {
                    said.push_str(": ");
                }
                said.push_str(&text);
            }
        }
        // Names in files may be anything: none moves the cursor or begins a line.
        f.write_str(&lth_files::on_one_line(&said))
    }
}

/// Gives the error of a result its kind.
pub trait Blame<T> {
    /// The command line is at fault.
    fn usage(self) -> Result<T>;
    /// Data, a file or the network is at fault.
    fn data(self) -> Result<T>;
    /// Training is at fault.
    fn training(self) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> Blame<T> for std::result::Result<T, E> {
    fn usage(self) -> Result<T> {
        self.map_err(|error| Failure::new(Kind::Usage, error))
    }

    fn data(self) -> Result<T> {
        self.map_err(|error| Failure::new(Kind::Data, error))
    }

    fn training(self) -> Result<T> {
        self.map_err(|error| Failure::new(Kind::Training, error))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_are_said_once_on_one_line() {
        let io = std::io::Error::other("no space\nleft");
        let failure = Err::<(), _>(io).context("writing `a`").data().expect_err("an error went in");
        assert_eq!(failure.to_string(), "writing `a`: no space left");
    }

    #[test]
    fn a_backtrace_is_no_part_of_the_message() {
        let inner = Box::new(candle_core::Error::Msg("no such kernel".to_owned()));
        let backtrace = Box::new(std::backtrace::Backtrace::force_capture());
        let error = candle_core::Error::WithBacktrace { inner, backtrace };
        let failure = Err::<(), _>(error).context("layer `a`").data().expect_err("an error went in");
        assert_eq!(failure.to_string(), "layer `a`: no such kernel");
    }
}
