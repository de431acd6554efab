//! The lottery: prune a network while it trains, rewind what is left, keep the ticket.
//!
//! A *ticket* is a mask and the weights that training starts from. [`Pruning`] is the hook that finds one: at each change
//! of a sparsity schedule it scores the weights, cuts the mask, and, if it plays the lottery, sets what is kept back to
//! its values at an earlier epoch ([`Rewind`], [`ResetRule`]). [`Ticket`] is the file that keeps it: a safetensors file
//! under the network's own names that other software opens unchanged, with a header that says what it is and which of
//! its zeros are pruned; or, to be kept, a compact one of kept values and bits.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{VarBuilder, VarMap};
//! use lth_schedule::{Schedule, Sparsity, SparsitySchedule};
//! use lth_ticket::{Pruning, PruningConfig, Rewind, layer_records};
//! use lth_train::{Data, FitConfig, ModuleNetwork, Network, Optimizer, OptimizerConfig, Trainer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let variables = VarMap::new();
//! let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let network = ModuleNetwork::new(candle_nn::linear(8, 2, builder)?, &variables)?;
//! let x = Tensor::arange(0f32, 32., &Device::Cpu)?.reshape((4, 8))?.sin()?;
//! let y = Tensor::new(&[0u32, 1, 1, 0], &Device::Cpu)?;
//! let (x, y) = (&x, &y);
//! let batches = || (0..5).map(move |_| Ok::<_, candle_core::Error>((x.clone(), y.clone())));
//! let data = Data { train: |_epoch| batches(), n_train_batches: 5, valid: batches };
//!
//! // To 50 % in three jumps from epoch 1 on; after each jump the kept weights go back to their initial values.
//! let schedule = SparsitySchedule {
//!     window: "1ep..end".parse()?,
//!     ..SparsitySchedule::to(Sparsity::from_percent(50.)?, Schedule::iterative(3)?)
//! };
//! let config = PruningConfig {
//!     rewind: Some(Rewind { reset_end: true, ..Rewind::to_epoch(0) }),
//!     ranks: vec![2],
//!     ..PruningConfig::new(schedule)
//! };
//! let mut pruning = Pruning::new(config);
//! let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::adam()), 42);
//! trainer.fit(&FitConfig::new(4), &data, &mut [&mut pruning])?;
//! let layers = layer_records(trainer.network().parameters(), &[2])?;
//! assert_eq!((layers[0].weights, layers[0].zeros), (16, 8));
//! # Ok(()) }
//! ```

mod collected;
mod compact;
mod config;
mod content;
mod dynamic;
mod early_bird;
mod elements;
mod error;
mod exchange;
mod file;
mod header;
mod identity;
mod layers;
mod masks;
mod notice;
mod pruning;
mod random;
mod recorded;
mod reset;
mod stream;
mod target;

pub use config::{PruningConfig, Regrowth};
pub use dynamic::{Dynamic, DynamicConfig, Growth};
pub use early_bird::{EarlyBird, Settled};
pub use error::Error;
pub use file::{Identified, Ticket, Written};
pub use header::{DatasetInfo, NetworkInfo, Preprocessing, PruningInfo, Stage, TicketHeader};
pub use layers::layer_records;
pub use notice::Notice;
pub use pruning::Pruning;
pub use reset::{Extent, ResetRule, Rewind};
