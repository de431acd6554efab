use std::fmt;

use lth_schedule::Sparsity;

/// What a pruning hook did, for whoever wants to tell it. `Display` gives the notebook's own lines.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// The weights at the start of this epoch were saved: rewinding goes back to them.
    Saved {
        /// Epoch of the fit, from 0.
        epoch: usize,
    },
    /// New masks are in force.
    Pruned {
        /// The sparsity asked for.
        sparsity: Sparsity,
    },
    /// The kept weights went back to their saved values.
    Reset {
        /// The epoch of those values.
        epoch: usize,
    },
    /// An epoch ended.
    EpochEnd {
        /// Epoch of the fit, from 0.
        epoch: usize,
        /// The sparsity asked for.
        sparsity: Sparsity,
    },
    /// The fit ended.
    FitEnd {
        /// The sparsity asked for.
        sparsity: Sparsity,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saved { epoch } => write!(f, "Saving weights at epoch {epoch}"),
            Self::Pruned { sparsity } => write!(f, "Pruning to a sparsity of {sparsity}"),
            Self::Reset { epoch } => write!(f, "Resetting weights to their epoch {epoch} values"),
            Self::EpochEnd { epoch, sparsity } => write!(f, "Sparsity at the end of epoch {epoch}: {sparsity}"),
            Self::FitEnd { sparsity } => write!(f, "Final sparsity: {sparsity}"),
        }
    }
}
