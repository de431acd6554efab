//! Compaction: a network pruned by filters or input channels, rebuilt physically smaller.
//!
//! Masks that prune whole filters ([`Granularity::Filter`](crate::Granularity), `Row` of a linear layer) or whole input
//! channels (`SharedKernel`, `Column`) leave channels that are always zero, or that nothing reads. Such channels can be cut
//! out of every tensor they run through. Which tensors these are is the network's affair: it describes them as
//! [`Connections`], plain data by parameter name, and a [`CompactionPlan`] computes what is kept and cuts it out.
//!
//! ```
//! use std::collections::BTreeMap;
//! use candle_core::{DType, Device, Tensor};
//! use lth_mask::{Channels, CompactionPlan, Connections, Granularity, Selection, select};
//!
//! # fn main() -> lth_mask::Result<()> {
//! // Two layers: four hidden channels, with a bias.
//! let cpu = &Device::Cpu;
//! let mut weights = BTreeMap::from([
//!     ("fc1.weight".to_owned(), Tensor::new(&[[1f32, 2.], [0.1, 0.], [3., 1.], [0., 0.2]], cpu)?),
//!     ("fc1.bias".to_owned(), Tensor::ones(4, DType::F32, cpu)?),
//!     ("fc2.weight".to_owned(), Tensor::ones((5, 4), DType::F32, cpu)?),
//! ]);
//! let hidden = Channels::new("hidden").producer("fc1.weight").bias("fc1.bias").consumer("fc2.weight");
//! let connections = Connections::new([hidden]);
//!
//! let scores = BTreeMap::from([("fc1.weight".to_owned(), weights["fc1.weight"].abs()?)]);
//! let masks = select(&scores, 0.5, &Selection { granularity: Granularity::Row, ..Selection::default() })?;
//! let plan = CompactionPlan::new(&connections, &masks, &weights)?;
//! plan.masks().apply(&mut weights)?; // the bias of a pruned channel too
//! let small = plan.apply(&weights)?;
//! assert_eq!(plan.kept("hidden"), Some(&[0, 2][..]));
//! assert_eq!(small["fc1.weight"].dims(), [2, 2]);
//! assert_eq!(small["fc2.weight"].dims(), [5, 2]);
//! # Ok(())
//! # }
//! ```

mod connections;
mod plan;

pub use connections::{Axis, Channels, Connections};
pub use plan::CompactionPlan;
