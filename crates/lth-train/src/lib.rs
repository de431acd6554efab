//! A small trainer for candle networks whose weights have names.
//!
//! candle gives tensors, gradients and layers; it leaves the training loop to its user. This crate is that loop, made so
//! that pruning, rewinding, recording and checkpoints can hang on it without the loop knowing of any of them:
//!
//! * [`Network`]: a forward pass plus [`Parameters`], the network's tensors under sorted names. [`ModuleNetwork`] makes
//!   one of any candle `ModuleT` and its `VarMap`.
//! * [`Optimizer`]: Adam, AdamW and SGD with momentum, by fastai's rules and by PyTorch's, which can be saved and which keep
//!   a pruned weight at exactly 0.
//! * [`Task`]: from a batch of any type to a loss and named metrics; [`Classification`] and [`Regression`] are there.
//! * [`Trainer`]: the loop over any span of a training ([`FitConfig`]). It announces [`Event`]s to [`Hook`]s, keeps every
//!   mask applied after every step, and ends with its history and the reason ([`Fitted`]).
//! * [`Checkpoint`]: the file of a fit's state, with which another process goes on to the same bits.
//! * [`EarlyStopping`]: the hook that stops a fit which no longer gets better.
//! * [`evaluate`]: loss and metrics over a whole data set.
//! * [`check_gradients`]: whether a network's gradients are right, by finite differences.
//!
//! # Operators of candle's with a wrong backward pass, or none
//! A model made of these trains wrongly, without an error; [`check_gradients`] finds it.
//!
//! | operator of candle or candle-nn | its backward pass | take instead |
//! |---|---|---|
//! | `layer_norm`, `rms_norm`, `softmax_last_dim`, `rope`, `rope_i`, `rope_thd`, `sdpa` | none: what is before gets no gradient | `lth_nn::transformer` |
//! | `Tensor::max_pool2d` | 1/k² of the gradient of a k×k window | `lth_kernels::max_pool2d` |
//! | `Tensor::avg_pool2d` where the windows do not fill the input | wrong | `lth_kernels::avg_pool2d` |
//! | `Tensor::conv1d` over more than one example | a wrong gradient of the weight | `lth_kernels::conv1d`, `lth_nn::drop_in` |
//! | `Tensor::conv2d` with a stride, on some sizes | an error | `lth_kernels::conv2d`, `lth_nn::drop_in` |
//! | `Tensor::relu` at exactly 0 | 1, in PyTorch 0 | `lth_kernels::relu` |
//! | `Tensor::max`, `maximum` on ties | to all of the largest; half of it | |
//!
//! # Models of your own
//! A fit begins with what goes wrong silently elsewhere, and refuses it by name: parameters that no gradient reaches,
//! noise that cannot be seeded (candle's dropout), variables that joined the `VarMap` later, outputs that do not fit the
//! task. Initial values of a plain `VarBuilder` differ in every run on a CPU; `lth_nn::seeded_builder` gives the same
//! for a seed.
//!
//! In cargo's `dev` profile dependencies are not optimised and training is many times slower. Put
//! ```toml
//! [profile.dev.package."*"]
//! opt-level = 3
//! debug-assertions = false
//! overflow-checks = false
//! ```
//! into the program's `Cargo.toml`; a fit warns by `tracing` where that is missing.
//!
//! This crate knows nothing of pictures, of scores or of tickets.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{VarBuilder, VarMap};
//! use lth_train::{Data, FitConfig, ModuleNetwork, Optimizer, OptimizerConfig, Trainer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let variables = VarMap::new();
//! let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let network = ModuleNetwork::new(candle_nn::linear(2, 2, builder)?, &variables)?;
//!
//! // Four points, the class is the sign of the first coordinate.
//! let x = Tensor::new(&[[1f32, 0.3], [-1., 0.2], [2., -0.1], [-2., -0.4]], &Device::Cpu)?;
//! let y = Tensor::new(&[1u32, 0, 1, 0], &Device::Cpu)?;
//! let batches = || std::iter::once(Ok::<_, candle_core::Error>((x.clone(), y.clone())));
//! let data = Data { train: |_epoch| batches(), n_train_batches: 1, valid: batches };
//!
//! let optimizer = Optimizer::new(OptimizerConfig::adam());
//! let mut trainer = Trainer::new(network, optimizer, 42);
//! let fitted = trainer.fit(&FitConfig { learning_rate: &|_| 0.1, ..FitConfig::new(100) }, &data, &mut [])?;
//! assert_eq!(fitted.last().and_then(lth_train::Record::accuracy), Some(1.0));
//! # Ok(()) }
//! ```

mod check;
mod checkpoint;
mod clip;
mod double;
mod early_stopping;
mod error;
mod evaluate;
mod fit;
mod hook;
mod network;
mod optimizer;
mod parameters;
mod run;
mod safetensors_file;
mod state;
mod task;
mod trainer;

pub use check::{CheckedGradient, GradientReport, Verdict, check_gradients};
pub use checkpoint::Checkpoint;
pub use clip::Clip;
pub use early_stopping::EarlyStopping;
pub use error::{BoxError, Error, without_backtrace};
pub use evaluate::{Evaluation, evaluate};
pub use fit::{Data, End, FitConfig, FitSpan, Fitted, Record, Validate, WriteState};
pub use hook::{Event, Fit, Hook, HookState};
pub use network::{ModuleNetwork, Network, Pass};
pub use optimizer::{Decays, Optimizer, OptimizerConfig};
pub use parameters::{Parameter, Parameters, Role};
pub use safetensors_file::{save_safetensors, tensor_bytes, write_safetensors};
pub use state::{Counters, Position, Smooth, State};
pub use task::{ACCURACY, BatchEvaluation, Classification, MEAN_ABSOLUTE_ERROR, Regression, Task};
pub use trainer::Trainer;
