//! CPU operators with backward passes for candle: convolution dense and sparse, pooling, batch
//! norm, loss, linear layers and in-place optimiser steps.
//!
//! candle's own operators lack what training a pruned convolutional network needs: its max pool
//! has a wrong gradient, its strided convolution fails in backward on some sizes, both gradients
//! of a convolution are always computed, an optimiser step is many passes over memory, and a
//! weight full of zeros costs as much as a dense one. The functions here have right gradients,
//! compute only those that are asked for, and use the zeros.
//!
//! The convolution [`conv2d`] takes a weight and, if the weight is masked, a [`Pattern`] built
//! once from the mask. Everything works on candle tensors and records candle's graph, so
//! `loss.backward()` works as everywhere:
//!
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use lth_kernels::{Conv2dParams, Pattern};
//!
//! # fn main() -> candle_core::Result<()> {
//! let x = Tensor::ones((2, 3, 8, 7), DType::F32, &Device::Cpu)?;
//! let weight = Var::ones((4, 3, 3, 3), DType::F32, &Device::Cpu)?;
//! let mask = Tensor::ones((4, 3, 3, 3), DType::U8, &Device::Cpu)?;
//! let params = Conv2dParams { stride: (2, 2), padding: (1, 1), ..Default::default() };
//! let y = lth_kernels::conv2d(&x, &weight, Some(&Pattern::new(&mask)?), &params)?;
//! let y = lth_kernels::global_avg_pool(&lth_kernels::relu(&y)?, params.layout)?;
//! let loss = lth_kernels::cross_entropy(&y, &Tensor::new(&[0u32, 3], &Device::Cpu)?)?;
//! let gradients = lth_kernels::backward(&loss)?;
//! assert_eq!(gradients.get(&weight).map(Tensor::dims), Some(&[4, 3, 3, 3][..]));
//! # Ok(())
//! # }
//! ```
//!
//! # Where it runs
//! `f32` and `f64` on the CPU run on the kernels of this crate; every other type and device runs
//! on candle's own operators (module `composed`), with the same gradients. `f16` and `bf16` are widened:
//! what is summed is computed in `f32` and rounded once, forward and backward.
//!
//! Gradients are first derivatives: where candle is told to build a graph of them (`CANDLE_GRAD_DO_NOT_DETACH`), the
//! operators of this crate refuse to be differentiated instead of leaving a part of the second derivative out.
//!
//! # Zeros
//! A masked convolution runs on one of three kernels ([`Kernel`]): dense, sparse (kept weights
//! alone are multiplied), or compact (filters and channels that are pruned whole are left out, the
//! rest is dense). Which one is a pure function of shape, mask and instruction set. N:M masks run
//! as unstructured ones of their density: broadcasting weights leaves an N:M kernel nothing to gain.
//! [`conv2d_kernels`] tells the choice, [`Kernel::run`] overrides it.
//!
//! # Values that are not finite
//! A NaN or an infinity reaches every output that a kept weight carries it to, and no other, on every kernel: a pruned
//! weight is not read, and neither is padding. Where nothing is masked that is what PyTorch does but for padding, whose
//! zeros it multiplies. Sums that are not finite are computed again one by one, so that a network that has diverged is
//! slow.
//!
//! # Fast
//! [`backward`] gives what `loss.backward()` gives, in fewer passes over memory, where all operators
//! between loss and variables are of this crate ([`concat()`], [`add_bias`], [`add_bias_relu`], [`multiply_by`] and [`reshape`] are
//! here for that; [`conv2d_bias_relu`] saves a pass more); [`foreign_operator`] finds the first that is not.
//! [`backward_kept`] leaves gradients of masked weights at their kept values, for an optimiser that keeps no more.
//! A program that trains calls [`keep_freed_memory`] first: returning feature maps to the operating
//! system after every layer costs more than the layers. It can take [`Allocator`] as its own besides, which lays tensors
//! as vectors want them. Threads of rayon's look for work for 200 µs before they sleep, since waking one takes as
//! long as a small operator; with one thread everything runs on the caller's.
//!
//! In cargo's `dev` profile, which does not optimise dependencies, everything is many times slower. Where a program is
//! run that way, its `Cargo.toml` needs
//! ```toml
//! [profile.dev.package."*"]
//! opt-level = 3
//! debug-assertions = false
//! overflow-checks = false
//! ```
//! [`IS_OPTIMISED`] tells; a trainer of `lth-train` warns by `tracing`.
//!
//! # Reproducible
//! Sums are taken in an order that depends on shapes only: the same bits come out for any number of
//! threads. Everything outside
//! the convolutions and linear layers uses no fused multiply-add either, so those operators give
//! the same bits on every instruction set of an architecture; convolutions may differ between
//! instruction sets by rounding.
#![allow(unsafe_code)] // vector instructions, buffers that are written before they are read, disjoint parallel writes
#![deny(unsafe_op_in_unsafe_fn)]

mod activation;
mod bits;
mod composed;
mod compress;
mod conv;
mod dispatch;
mod elementwise;
mod error;
mod forced;
mod gradients;
mod kept;
mod layout;
mod linear;
mod loss;
mod memory;
mod norm;
pub mod optim;
mod parallel;
mod pattern;
mod pool;
mod real;
mod slot;
mod tape;
mod transpose;

/// Whether this crate was compiled with optimisation (an `opt-level` of at least 1).
pub const IS_OPTIMISED: bool = cfg!(optimised);

pub use activation::relu;
pub use conv::{
    Conv1dParams, Conv2dKernels, Conv2dParams, InstructionSet, Kernel, PackedConv2d, PackedLinear, conv1d, conv2d,
    conv2d_bias_relu, conv2d_kernels,
};
pub use elementwise::{add_bias, add_bias_relu, concat, multiply_by, reshape};
pub use error::Error;
pub use gradients::Gradients;
pub use layout::{Layout, to_layout};
pub use linear::linear;
pub use loss::{cross_entropy, smoothed_cross_entropy};
pub use memory::{Allocator, keep_freed_memory};
pub use norm::{BatchNormParams, BatchStatistics, batch_norm_eval, batch_norm_train, batch_norm_train_max_pool};
pub use parallel::in_pool;
pub use pattern::Pattern;
pub use pool::{Pool2dParams, avg_pool2d, global_avg_pool, global_max_pool, max_pool2d};
pub use slot::{PatternSlot, with_dense_gradients};
pub use tape::{backward, backward_kept, foreign_operator};
