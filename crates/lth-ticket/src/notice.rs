use std::fmt;

use lth_schedule::Sparsity;

/// What a pruning hook did, for whoever wants to tell it. `Display` gives the notebook's own lines, and says
/// what was reached where that is a per cent or more away from what was asked for.
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
        /// The sparsity of the masks in force, over all that the hook prunes.
        measured: Sparsity,
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
        /// The sparsity asked for at the last cut; 0 before the first.
        sparsity: Sparsity,
        /// The sparsity of the masks in force, over all that the hook prunes.
        measured: Sparsity,
    },
    /// The fit ended.
    FitEnd {
        /// The sparsity asked for at the last cut; 0 if there was none.
        sparsity: Sparsity,
        /// The sparsity of the masks in force, over all that the hook prunes.
        measured: Sparsity,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saved { epoch } => write!(f, "Saving weights at epoch {epoch}"),
            Self::Pruned { sparsity, measured } => {
                write!(f, "Pruning to a sparsity of {}", Reached(*sparsity, *measured))
            }
            Self::Reset { epoch } => write!(f, "Resetting weights to their epoch {epoch} values"),
            Self::EpochEnd { epoch, sparsity, measured } => {
                write!(f, "Sparsity at the end of epoch {epoch}: {}", Reached(*sparsity, *measured))
            }
            Self::FitEnd { sparsity, measured } => write!(f, "Final sparsity: {}", Reached(*sparsity, *measured)),
        }
    }
}

/// What was asked for, and what was reached where that is another thing.
struct Reached(Sparsity, Sparsity);

impl Reached {
    /// In percent. Less is a rule's way of counting: the quantile rule is off by up to one weight a layer.
    const TOLERANCE: f64 = 1.0;
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(asked, measured) = self;
        write!(f, "{asked}")?;
        if (asked.percent() - measured.percent()).abs() >= Self::TOLERANCE {
            write!(f, " asked for, {measured} reached")?;
        }
        Ok(())
    }
}
