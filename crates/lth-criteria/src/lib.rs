//! Which weights matter: saliency scores for pruning neural networks, from named candle tensors.
//!
//! A [`Criterion`] turns the tensors that belong to a weight ([`Inputs`]) into one score per element; the higher, the
//! more the element should be kept. What is then pruned is somebody else's business: this crate knows nothing of masks,
//! budgets, networks or training.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use candle_core::{Device, Tensor};
//! use lth_criteria::{LargeFinal, NamedInputs, score_all};
//!
//! let weights = BTreeMap::from([
//!     ("conv1.weight".to_owned(), Tensor::new(&[[0.5f32, -2.0]], &Device::Cpu)?),
//!     ("fc.weight".to_owned(), Tensor::new(&[[0.1f32], [-0.2]], &Device::Cpu)?),
//! ]);
//! let scores = score_all(&LargeFinal, &NamedInputs::of(&weights))?;
//! assert_eq!(scores["conv1.weight"].to_vec2::<f32>()?, [[0.5, 2.0]]);
//! # Ok::<(), lth_criteria::Error>(())
//! ```

mod criterion;
mod define;
mod error;
mod finite;
mod inputs;
mod magnitude;
mod random;

pub use criterion::{Criterion, score_all};
pub use error::Error;
pub use inputs::{Checked, Input, Inputs, NamedInputs, Requirements};
pub use magnitude::{
    LargeFinal, LargeInit, LargeInitLargeFinal, SmallFinal, SmallInit, SmallInitSmallFinal, SquaredFinal,
};
pub use random::Random;
