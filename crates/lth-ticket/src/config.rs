//! What a pruning hook is asked to do.

use std::num::NonZeroU32;

use lth_criteria::{Criterion, LargeFinal};
use lth_mask::{Connections, Selection};
use lth_schedule::SparsitySchedule;
use serde::{Deserialize, Serialize};

use crate::Rewind;

/// What to prune, by which score, when, and what becomes of the rest.
pub struct PruningConfig {
    /// Saliency score. The loop offers weights, their values at the start of the fit and at the last pruning, masks,
    /// gradients and squared gradients.
    ///
    /// A criterion that needs gradients cuts after the backward pass of a batch and before the optimiser's step, not
    /// before the batch: that pass still goes through the weights of before, and its gradients are those that score.
    pub criterion: Box<dyn Criterion>,
    /// How scores become masks. Targets of [`Scope::PerLayer`](lth_mask::Scope) are what the schedule leads those layers
    /// to, as `schedule.end` is for the others.
    pub selection: Selection,
    /// How much to prune when.
    pub schedule: SparsitySchedule,
    /// Set the kept weights back after each change of sparsity; `None` fine-tunes instead.
    pub rewind: Option<Rewind>,
    /// Ranks of the weights to prune: 4 for convolutions, 2 for linear layers.
    pub ranks: Vec<usize>,
    /// Whether what was pruned stays pruned.
    pub regrowth: Regrowth,
    /// Optimiser steps (batches, unless the fit accumulates) over which gradients are averaged before a cut. Training goes
    /// on through them, so that with more than one the weights have moved between the first and the last.
    pub gradient_batches: NonZeroU32,
    /// The network's channels, so that pruning a filter prunes all that belongs to it: the bias and the norms' scales and
    /// shifts of every channel that is always zero are pruned as well, and compaction is then exact.
    ///
    /// `None`: where whole outputs are pruned (filters, rows, blocks of rows, heads, layers) the layer's own bias goes with
    /// them, but not with groups of one's own; which norm follows which layer is not known.
    pub connections: Option<Connections>,
}

/// Whether a pruned weight can come back at a later cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Regrowth {
    /// No: masks are nested while the sparsity rises.
    #[default]
    Nested,
    /// Yes: every cut chooses among all weights, to the exact count (pruned weights are all 0, a tie which the quantile rule
    /// would keep whole). A criterion by gradients then sees those of pruned weights, too, of the batches that it collects;
    /// by one of weights alone, what is 0 hardly comes back.
    Free,
}

impl PruningConfig {
    /// The papers' choices for the rest: the weights of every convolution and linear layer, single and layer by layer, by
    /// magnitude to the exact count, without rewinding.
    ///
    /// Source: Frankle & Carbin 2019, §2.
    pub fn new(schedule: SparsitySchedule) -> Self {
        Self {
            criterion: Box::new(LargeFinal),
            selection: Selection::default(),
            schedule,
            rewind: None,
            ranks: vec![2, 3, 4, 5],
            regrowth: Regrowth::Nested,
            gradient_batches: NonZeroU32::MIN,
            connections: None,
        }
    }

    /// The choices of the 2021 notebook: only convolutions of rank 4, under the quantile rule. Its rewinding is
    /// [`Rewind::notebook`].
    pub fn notebook(schedule: SparsitySchedule) -> Self {
        Self { selection: Selection::fasterai_2021(), ranks: vec![4], ..Self::new(schedule) }
    }
}
