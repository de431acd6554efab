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
//!
//! | criterion | score | needs beside the weight w |
//! |---|---|---|
//! | [`Random`] | a random order | a seed |
//! | [`LargeFinal`], [`SquaredFinal`], [`SmallFinal`] | \|w\|, w², −\|w\| | |
//! | [`LargeInit`], [`SmallInit`] | \|w₀\|, −\|w₀\| | initial weight w₀ |
//! | [`LargeInitLargeFinal`], [`SmallInitSmallFinal`] | min(\|w₀\|, \|w\|), −max(\|w₀\|, \|w\|) | w₀ |
//! | [`MagnitudeIncrease`], [`Movement`], [`Movmag`] | \|w\| − \|w₀\|, \|w − w₀\|, \|w(w − w₀)\| | w₀ |
//! | [`UpdatingMagnitudeIncrease`], [`UpdatingMovement`], [`UpdatingMovmag`] | the same | previous weight |
//! | [`Snip`] | \|w·g\| | gradient g |
//! | [`Taylor`], [`EmpiricalFisher`] | w² mean(g²), ½ w² mean(g²) | squared gradient |
//! | [`TaylorGate`] | mean((Σ w·g)²), the sum over the weight's output | squared gate gradient |
//! | [`Grasp`] | w · Hg | Hessian-gradient product |
//! | [`SynFlow`] | \|w\| · ∂R/∂\|w\| | flow gradient |
//! | [`Wanda`] | \|w\| · ‖x‖ | activation norm |
//! | [`BatchNormScale`] | \|γ\| of the filter | batch-norm scale γ |
//! | [`Lamp`] | w² / Σ of the layer's squares ≥ w² | |
//!
//! What they need is collected by [`GradientStatistics`], [`GateStatistics`], [`ActivationNorms`],
//! [`hessian_gradient_product`] (of a network in f64; [`hessian_gradient_product_at`] widens weights of other types) and
//! [`flow_gradients`]; [`synflow`] runs the whole iterative method. [`Normalized`] puts the scores of different layers
//! on one scale, for selection over all of them.

mod criterion;
mod define;
mod error;
mod finite;
mod inputs;

mod activation;
mod batch_norm;
mod flow;
mod gate;
mod gradient;
mod lamp;
mod magnitude;
mod movement;
mod random;

mod collect;
mod hessian;
mod normalize;
mod spelling;

pub mod fasterai;

pub use activation::{ActivationNorms, Reads, Wanda};
pub use batch_norm::BatchNormScale;
pub use collect::{GradientStatistics, gradients};
pub use criterion::{Criterion, score_all};
pub use error::{Error, Names};
pub use flow::{SynFlow, SynFlowRounds, flow_gradients, synflow};
pub use gate::{GateStatistics, TaylorGate};
pub use gradient::{EmpiricalFisher, Grasp, Snip, Taylor};
pub use hessian::{hessian_gradient_product, hessian_gradient_product_at, hessian_vector_product};
pub use inputs::{Checked, Input, Inputs, NamedInputs, Requirements};
pub use lamp::Lamp;
pub use magnitude::{
    LargeFinal, LargeInit, LargeInitLargeFinal, SmallFinal, SmallInit, SmallInitSmallFinal, SquaredFinal,
};
pub use movement::{MagnitudeIncrease, Movement, Movmag, UpdatingMagnitudeIncrease, UpdatingMovement, UpdatingMovmag};
pub use normalize::{Normalization, Normalized, normalize};
pub use random::Random;
pub use spelling::{all, by_name};
