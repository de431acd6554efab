use std::fmt;
use std::path::PathBuf;

use lth_schedule::Step;

use crate::{Event, GradientReport};

/// An error of somebody else's: a hook's or a data source's.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What can go wrong while a network trains.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// candle could not do an operation.
    #[error(transparent)]
    Candle(candle_core::Error),

    /// The training loss became infinite or NaN: the run cannot recover.
    #[error(
        "training loss is {loss} at step {step}: {}",
        match parameter {
            Some(name) => format!("`{name}` has values that are not finite; lower the learning rate, or clip gradients"),
            None => "all parameters are finite; look for values that are not in the data, or lower the learning rate"
                .to_owned(),
        }
    )]
    LossNotFinite {
        /// The loss as computed.
        loss: f64,
        /// The step of the training before which it was computed.
        step: Step,
        /// The first parameter, in the order of names, with a value that is not finite.
        parameter: Option<String>,
    },

    /// A validation found what is infinite or NaN: the network has diverged.
    #[error("{what} is not finite at step {step}: lower the learning rate, or clip gradients")]
    NotFinite {
        /// "parameter `fc.weight`", "the validation loss".
        what: String,
        /// The step of the training before which it was found.
        step: Step,
    },

    /// A gradient that was to be clipped is infinite or NaN, with a loss that is not.
    #[error(
        "the gradient of `{parameter}` is not finite at step {step}: lower the learning rate, or look for an operator whose \
         backward pass divides by 0"
    )]
    GradientNotFinite {
        /// The first such parameter, in the order of names.
        parameter: String,
        /// The step of the training.
        step: Step,
    },

    /// A setting of a fit is out of its range.
    #[error("{what} is {got}, expected {expected}")]
    Setting {
        /// Which.
        what: &'static str,
        /// Its value.
        got: String,
        /// What it may be.
        expected: String,
    },

    /// A hook asked for something at a moment at which it has no effect.
    #[error("a hook can {what} at {expected:?}, not at {event:?}")]
    NotNow {
        /// What it wanted.
        what: &'static str,
        /// When it did.
        event: Event,
        /// When it may.
        expected: &'static [Event],
    },

    /// What a task gave as the loss of a batch is no number.
    #[error("the task's loss has shape {got:?}, expected a scalar: the mean over the batch's examples")]
    LossShape {
        /// Its shape.
        got: Vec<usize>,
    },

    /// A parameter that the operation needs is not there.
    #[error("there is no parameter `{name}`; {hint}")]
    NoParameter {
        /// The name that was looked up.
        name: String,
        /// What there is instead.
        hint: String,
    },

    /// Two tensors of one name differ in shape.
    #[error("{what} for `{name}` has shape {got:?}, expected {expected:?}")]
    Shape {
        /// What kind of tensor was given ("mask", "value", "first moment").
        what: &'static str,
        /// The parameter's name.
        name: String,
        /// The given shape.
        got: Vec<usize>,
        /// The parameter's shape.
        expected: Vec<usize>,
    },

    /// A mask is not of the type that masks have.
    #[error(
        "mask for `{name}` is {got:?}, expected U8 with 1 = keep (`mask.to_dtype(DType::U8)` if it holds zeros and ones)"
    )]
    MaskType {
        /// The parameter's name.
        name: String,
        /// The mask's type.
        got: candle_core::DType,
    },

    /// Parameters that the optimiser should move have no gradient after the first backward pass of a fit.
    #[error(
        "the loss has no gradient for {} of {n_trainable} trainable parameters ({}): they would never be trained. candle's \
         `layer_norm`, `rms_norm`, `softmax_last_dim` and `rope` end the graph without an error: `lth_nn::transformer` has \
         them with a backward pass. What is meant to stay still is frozen with `Parameter::set_trainable(false)`, or named in \
         `Trainer::allow_no_gradient`", names.len(), Listed(names)
    )]
    NoGradient {
        /// Those without a gradient, or with one that is 0 everywhere.
        names: Vec<String>,
        /// How many parameters are trainable.
        n_trainable: usize,
    },

    /// Two passes of one network with one seed over one batch differ.
    #[error(
        "two training passes of this network with the same seed over one batch differ by {difference}: it draws noise that \
         cannot be seeded, as candle's dropout does, and results would be others in each run. Take a dropout that is keyed \
         by `Pass::seed` and `Pass::step` (`lth_nn::Dropout`), set its probability to 0, or let a fit accept it with \
         `Trainer::allow_unseeded`"
    )]
    Unseeded {
        /// The largest difference of two outputs, or that of two losses.
        difference: f64,
    },

    /// Variables joined the `VarMap` after the network was made of it.
    #[error(
        "the VarMap has variables that were not there when the network was made: {}. They would never be trained, saved or \
         pruned: build the whole module before `ModuleNetwork::new`",
        Listed(names)
    )]
    NewVariables {
        /// Their names.
        names: Vec<String>,
    },

    /// What the network gives for a batch does not fit the task.
    #[error("the network gives {outputs:?} for targets {targets:?} of {dtype:?}: a {task} needs {expected}. {hint}")]
    Task {
        /// The task.
        task: &'static str,
        /// Shape of the network's output.
        outputs: Vec<usize>,
        /// Shape of the targets.
        targets: Vec<usize>,
        /// Type of the targets.
        dtype: candle_core::DType,
        /// What fits.
        expected: &'static str,
        /// What to do.
        hint: &'static str,
    },

    /// Something needs at least one batch and there was none.
    #[error("{what} has no batches: {hint}")]
    NoBatches {
        /// Which data were empty.
        what: &'static str,
        /// What to change.
        hint: &'static str,
    },

    /// The data promised more batches than they delivered, so that schedules over the whole fit would be wrong.
    #[error("epoch {epoch} has {got} training batches, expected {expected}")]
    BatchCount {
        /// Epoch of the training, from 0.
        epoch: usize,
        /// Batches delivered (counting stops one past the promise).
        got: usize,
        /// Batches promised.
        expected: usize,
    },

    /// The data source failed.
    #[error("reading a batch failed: {}", chain(&**.0))]
    Data(BoxError),

    /// A hook failed.
    #[error("{hook}: {}", chain(&**source))]
    Hook {
        /// The hook's name.
        hook: String,
        /// What it said.
        r#source: BoxError,
    },

    /// Two hooks of a fit have one name, under which only one of their states could be saved.
    #[error("two hooks of this fit are called `{name}`, expected a name for each: saved states are kept by it")]
    HookName {
        /// The name.
        name: String,
    },

    /// A checkpoint could not be written.
    #[error("writing a checkpoint failed: {}", chain(&**.0))]
    Checkpoint(BoxError),

    /// A checkpoint that is there is not what was written.
    #[error("checkpoint {} is damaged: {}", .path.display(), lth_files::on_one_line(reason))]
    DamagedCheckpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A checkpoint is of a run that differs from this one.
    #[error(
        "checkpoint {} is of another run: its {what} is {got}, this one's is {expected}; go on with the same settings, or \
         remove it to begin anew",
        .path.display()
    )]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// The first fact that differs.
        what: String,
        /// What the file says.
        got: String,
        /// What this run is.
        expected: String,
    },

    /// A file could not be read or written.
    #[error(transparent)]
    Files(#[from] lth_files::Error),

    /// Gradients are not those of the loss.
    #[error(
        "wrong gradients for {0}: an operator between them and the loss has a wrong backward pass or none, as candle's \
         max_pool2d, layer_norm, rms_norm, softmax_last_dim and rope; lth_kernels and lth_nn::transformer have right ones"
    )]
    Gradients(GradientReport),

    /// A saved state does not fit what it is loaded into.
    #[error("state cannot be restored: {0}")]
    State(String),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(without_backtrace(error))
    }
}

/// candle's error without the backtrace that `RUST_BACKTRACE=1` makes part of its message: twenty lines where one is read.
pub fn without_backtrace(error: candle_core::Error) -> candle_core::Error {
    use candle_core::Error as Candle;
    match error {
        Candle::WithBacktrace { inner, .. } => without_backtrace(*inner),
        Candle::Context { inner, context } => Candle::Context { inner: Box::new(without_backtrace(*inner)), context },
        Candle::WithPath { inner, path } => Candle::WithPath { inner: Box::new(without_backtrace(*inner)), path },
        error => error,
    }
}

/// An error and its causes in one line, each said once: what stands in a message is not given as its source besides.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = match cause.downcast_ref::<candle_core::Error>() {
            Some(mut error) => {
                while let candle_core::Error::WithBacktrace { inner, .. } = error {
                    error = inner;
                }
                error.to_string()
            }
            None => cause.to_string(),
        };
        if !said.contains(&text) {
            said.push_str(if said.is_empty() { "" } else { ": " });
            said.push_str(&text);
        }
        next = cause.source();
    }
    said
}

impl Error {
    pub(crate) fn no_parameter<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        Self::NoParameter { name: name.to_owned(), hint: Known(known.collect()).to_string() }
    }
}

/// The first names of a list.
struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 6;
        let shown = self.0.len().min(SHOWN);
        write!(f, "`{}`{}", self.0[..shown].join("`, `"), if self.0.len() > SHOWN { ", …" } else { "" })
    }
}

struct Known<'a>(Vec<&'a str>);

impl fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        if self.0.is_empty() {
            return write!(f, "the network has none");
        }
        write!(f, "there are {} others: {}", self.0.len(), self.0[..self.0.len().min(SHOWN)].join(", "))?;
        if self.0.len() > SHOWN {
            write!(f, ", …")?;
        }
        Ok(())
    }
}
