//! Masks that prune a network: which weights go, given a score for each.
//!
//! [`select`] turns named scores into a [`MaskSet`] at a sparsity. What is pruned as one is the [`Granularity`]
//! ([`Groups`] of one's own among them), over what the sparsity is shared the [`Scope`], how it becomes a cut the
//! [`ThresholdRule`]; any goes with any. A [`Mask`] is a bit per weight. Scores are f32; f16 and bf16 are widened, f64
//! is rounded to f32. This crate knows nothing of where scores come from, of training, or of networks.
//!
//! ```
//! use std::collections::BTreeMap;
//! use candle_core::{Device, Tensor};
//! use lth_mask::{Scope, Selection, select};
//!
//! # fn main() -> lth_mask::Result<()> {
//! let weight = Tensor::new(&[[0.5f32, -0.1, 0.9], [-2.0, 0.3, 0.0]], &Device::Cpu)?;
//! let mut weights = BTreeMap::from([("fc.weight".to_owned(), weight)]);
//! let scores = BTreeMap::from([("fc.weight".to_owned(), weights["fc.weight"].abs()?)]);
//!
//! let selection = Selection { scope: Scope::Global, ..Selection::default() };
//! let masks = select(&scores, 0.5, &selection)?;
//! masks.apply(&mut weights)?;
//!
//! assert_eq!(weights["fc.weight"].to_vec2::<f32>()?, [[0.5, 0.0, 0.9], [-2.0, 0.0, 0.0]]);
//! assert_eq!(masks.sparsity(), 0.5);
//! # Ok(())
//! # }
//! ```

mod apply;
mod apportion;
pub mod compact;
mod cut;
mod error;
mod granularity;
mod group;
mod layerwise;
mod mask;
mod nm;
mod overlap;
mod own;
mod pattern;
mod random;
mod rank;
mod rule;
mod scope;
mod selection;
mod set;
mod stats;
mod storage;
mod text;
mod values;

pub use compact::{Axis, Channels, CompactionPlan, Connections};
pub use error::{Error, Result};
pub use granularity::{Granularity, Layer};
pub use group::Reduction;
pub use mask::Mask;
pub use overlap::{Overlap, Overlaps};
pub use own::{Groups, OwnGroups};
pub use pattern::matches;
pub use random::{random_like, shuffle_within};
pub use rule::ThresholdRule;
pub use scope::Scope;
pub use selection::{Selection, Streamed, select, select_streamed, select_within};
pub use set::MaskSet;
pub use stats::{LayerStats, Stats};
