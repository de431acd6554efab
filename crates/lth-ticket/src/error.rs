use std::path::PathBuf;

/// What can go wrong between a network and its ticket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// candle could not do an operation.
    #[error(transparent)]
    Candle(candle_core::Error),

    /// The criterion could not score a weight.
    #[error(transparent)]
    Criteria(#[from] lth_criteria::Error),

    /// A mask could not be made or does not fit.
    #[error(transparent)]
    Mask(#[from] lth_mask::Error),

    /// The schedule does not fit the fit.
    #[error(transparent)]
    Schedule(#[from] lth_schedule::Error),

    /// The trainer refused.
    #[error(transparent)]
    Train(#[from] lth_train::Error),

    /// Weights cannot go back to an epoch that has not begun when they are first pruned.
    #[error(
        "pruning starts in epoch {start_epoch}, before epoch {rewind_epoch} to which the weights are rewound: \
         start in epoch {rewind_epoch} or later, or rewind to epoch {start_epoch} or earlier"
    )]
    RewindAfterStart {
        /// Epoch in which the schedule's window begins.
        start_epoch: u64,
        /// Epoch to rewind to.
        rewind_epoch: u64,
    },

    /// Weights cannot go back to before the fit.
    #[error(
        "the fit begins at step {from} of the training, after the start of epoch {rewind_epoch} to which the weights are \
         rewound: begin it there or earlier, or rewind to a later epoch"
    )]
    RewindBeforeSpan {
        /// Where the fit begins.
        from: lth_schedule::Step,
        /// Epoch to rewind to.
        rewind_epoch: u64,
    },

    /// Rewinding before every batch leaves nothing that could be learnt.
    #[error(
        "the schedule `{schedule}` changes the sparsity before every batch, and each change rewinds the weights: give it \
         an update frequency (`every`) of at least 2 iterations, take a schedule of rounds such as iterative(3) or \
         geometric(3), or do not rewind"
    )]
    RewindEveryBatch {
        /// The schedule's shape.
        schedule: String,
    },

    /// A hook that rewinds the whole network beside another that prunes it.
    #[error(
        "hook `{hook}` rewinds the whole network, which hook `{other}` prunes as well: rewind only the layers that each \
         prunes (Extent::PrunedLayers)"
    )]
    RewindOthers {
        /// The hook that rewinds.
        hook: String,
        /// The other hook.
        other: String,
    },

    /// The selection cannot make what the schedule will ask for.
    #[error("the schedule leads to a sparsity of {sparsity}, for which there are no masks: {reason}")]
    Unreachable {
        /// The sparsity that will be asked for.
        sparsity: lth_schedule::Sparsity,
        /// Why not. Not as `source`: the message says it already.
        reason: Box<lth_mask::Error>,
    },

    /// The criterion needs something that a training loop does not have at hand.
    #[error(
        "criterion `{criterion}` needs the {input}, which is not collected while training: collect it over batches, \
         score with `lth_criteria::score_all`, and give the masks to the trainer"
    )]
    NotCollected {
        /// The criterion's name.
        criterion: String,
        /// What it needs.
        input: lth_criteria::Input,
    },

    /// There is nothing to prune.
    #[error(
        "the network has no weight of rank {ranks:?} to prune that is not kept dense; its parameters are {names:?}"
    )]
    NothingToPrune {
        /// The ranks asked for.
        ranks: Vec<usize>,
        /// The first parameters there are.
        names: Vec<String>,
    },

    /// A setting is out of range.
    #[error("{what} is {got}, expected {expected}")]
    Setting {
        /// Which one.
        what: &'static str,
        /// What it is.
        got: String,
        /// What it may be.
        expected: String,
    },

    /// There is no mask that dynamic sparse training could move.
    #[error(
        "no weight that is trained has a mask with anything pruned, and dynamic sparse training moves masks: give the \
         trainer some before the fit; it has masks of {masked:?}"
    )]
    NothingToMove {
        /// The names of the masks there are.
        masked: Vec<String>,
    },

    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] lth_files::Error),

    /// A file has no ticket's header.
    #[error(
        "{} has no ticket's header: it holds plain weights, or other software saved a ticket again and left the header \
         out; load it with `lth_nn::Weights::read`, or as any safetensors file, and take what is 0 for pruned \
         (`lth_mask::MaskSet::from_nonzero`)",
        path.display()
    )]
    PlainWeights {
        /// The file.
        path: PathBuf,
    },

    /// A file was written by a later version of this crate.
    #[error("{} was written by a later version: its schema is {found}, expected at most {known}", path.display())]
    LaterSchema {
        /// The file.
        path: PathBuf,
        /// The schema in the file.
        found: u32,
        /// The latest that this version reads.
        known: u32,
    },

    /// A file is no ticket, or a damaged one.
    #[error("{} is no intact ticket: {}", path.display(), lth_files::on_one_line(reason))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The masks of a ticket of schema 1 are not where they belong.
    #[error(
        "{} is a ticket without its masks: expected them in {}, which is not there; copy both files together",
        path.display(), masks.display()
    )]
    NoMasks {
        /// The ticket.
        path: PathBuf,
        /// Where its masks should lie.
        masks: PathBuf,
    },

    /// A ticket was given where a trained network is needed.
    #[error(
        "{} is a ticket, the rewound weights that training starts from, and its answers mean nothing yet: give the \
         trained network that came of it (trained.safetensors in its fit's folder)",
        path.display()
    )]
    Untrained {
        /// The file.
        path: PathBuf,
    },

    /// A saved hook state is not this hook's.
    #[error("the saved state does not fit this pruning hook: {0}")]
    State(String),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(lth_train::without_backtrace(error))
    }
}

impl Error {
    pub(crate) fn damaged(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::Damaged { path: path.into(), reason: reason.to_string() }
    }
}
