//! One optimiser step for one tensor, or its mask, in place.
//!
//! Masked positions of the parameter and of every moment are exactly 0 afterwards, whatever the
//! gradient, momentum or weight decay would have made of them. Since averages are 0 there, those of the kept values alone
//! say as much ([`KeptPlaces`], [`adam_step_kept`], [`sgd_step_kept`]): less memory, to the same bits.

mod kernel;

pub use crate::kept::KeptPlaces;

use crate::composed;
use crate::error::{Error, expect_dtype, expect_shape};
use crate::pattern::clear_all_pruned;
use crate::real::{Real, has_kernels, slice, with_real, with_values};
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Storage, Tensor, Var};
use std::cell::RefCell;

/// A step of Adam. With decoupled weight decay it is fastai's and PyTorch's `AdamW`: the parameter shrinks by
/// `1 - lr * weight_decay` first, then moves by `lr` times the bias-corrected average over the root of the bias-corrected
/// square average plus `eps`. With coupled decay it is PyTorch's `Adam`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the gradient's average (fastai's `mom`).
    pub beta1: f64,
    /// Decay of the squared gradient's average (fastai's `sqr_mom`).
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// Weight decay; 0 for none.
    pub weight_decay: f64,
    /// How weight decay enters.
    pub decay: Decay,
    /// Number of this step, from 1: corrects the averages' bias.
    pub step: u64,
}

/// How weight decay enters a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Decay {
    /// The parameter shrinks by `1 - lr * weight_decay` before the step (fastai's rule; PyTorch's `AdamW`).
    #[default]
    Decoupled,
    /// `weight_decay * p` is added to the gradient (PyTorch's `SGD` and `Adam`).
    Coupled,
}

/// A step of SGD with momentum: `buf = momentum * buf + grad`, `p -= lr * buf`, without dampening.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the buffer; 0 for plain gradient descent.
    pub momentum: f64,
    /// Weight decay; 0 for none.
    pub weight_decay: f64,
    /// How weight decay enters.
    pub decay: Decay,
    /// Whether the step looks ahead: `p -= lr * (grad + momentum * buf)`.
    pub nesterov: bool,
}

/// Checks the variables that change, the first of which is the parameter; `average`: the shape of all others.
fn check(
    op: &'static str,
    vars: &[(&'static str, &Var)],
    grad: &Tensor,
    average: &[usize],
    gradient: &[usize],
) -> std::result::Result<(), Error> {
    let p = vars[0].1;
    for (i, (name, var)) in vars.iter().enumerate() {
        expect_shape(op, name, var, if i == 0 { p.dims() } else { average })?;
        expect_dtype(op, name, var, p.dtype())?;
        if !var.is_contiguous() {
            return Err(Error::NotContiguous { op, tensor: name });
        }
        for (other_name, other) in &vars[..i] {
            if var.id() == other.id() {
                return Err(Error::Aliased { op, first: other_name, second: name });
            }
        }
    }
    expect_shape(op, "grad", grad, gradient)?;
    expect_dtype(op, "grad", grad, p.dtype())
}

fn check_mask(op: &'static str, p: &Var, mask: Option<&Tensor>) -> std::result::Result<(), Error> {
    let Some(mask) = mask else { return Ok(()) };
    expect_shape(op, "mask", mask, p.dims())?;
    expect_dtype(op, "mask", mask, DType::U8)
}

/// Checks a step over kept values, whose averages are `[n_kept]`, as the gradient may be.
fn check_kept(op: &'static str, vars: &[(&'static str, &Var)], grad: &Tensor, places: &KeptPlaces) -> Result<()> {
    let p = vars[0].1;
    expect_shape(op, "p", p, places.dims())?;
    let n_kept = [places.n_kept()];
    check(op, vars, grad, &n_kept, if grad.dims() == n_kept { &n_kept } else { p.dims() })?;
    if !has_kernels(p) {
        candle_core::bail!("{op}: `p` is {:?} on {:?}, expected f32 or f64 on the CPU", p.dtype(), p.device());
    }
    Ok(())
}

/// Takes one step of Adam: `p`, `m` (average) and `v` (average of squares) change in place.
/// `mask`: u8, `p`'s shape, 0 = pruned; there `p`, `m` and `v` become exactly 0.
///
/// # Errors
/// If a shape or type does not fit, a variable is given twice, or `step` is 0.
pub fn adam_step(p: &Var, grad: &Tensor, m: &Var, v: &Var, mask: Option<&Tensor>, step: &AdamStep) -> Result<()> {
    let op = "adam_step";
    check(op, &[("p", p), ("m", m), ("v", v)], grad, p.dims(), p.dims())?;
    check_mask(op, p, mask)?;
    if step.step == 0 {
        return Err(Error::Step { op }.into());
    }
    if !has_kernels(p) {
        return composed::adam_step(p, grad, m, v, mask, step);
    }
    with_real!(p.dtype(), T => operands::<T>(grad, mask, &[p, m, v], |grad, mask| {
        with_mut(p, |p: &mut [T]| {
            with_mut(m, |m| with_mut(v, |v| {
                kernel::adam([p, m, v], grad, mask, step);
                Ok(())
            }))
        })
    }))
}

/// [`adam_step`] of a masked parameter whose averages are those of its kept values alone: `m` and `v` are `[n_kept]`, and so may
/// `grad` be. All other values of `p` become exactly 0. To the bit what `adam_step` makes of averages that are 0 where nothing is kept.
///
/// # Errors
/// As [`adam_step`], and if `p` is not f32 or f64 on the CPU.
pub fn adam_step_kept(p: &Var, grad: &Tensor, m: &Var, v: &Var, places: &KeptPlaces, step: &AdamStep) -> Result<()> {
    let op = "adam_step_kept";
    check_kept(op, &[("p", p), ("m", m), ("v", v)], grad, places)?;
    if step.step == 0 {
        return Err(Error::Step { op }.into());
    }
    with_real!(p.dtype(), T => operands::<T>(grad, None, &[p, m, v], |grad, _| {
        with_mut(p, |p: &mut [T]| {
            with_mut(m, |m| with_mut(v, |v| {
                kernel::adam_kept([p, m, v], grad, places, step);
                Ok(())
            }))
        })
    }))
}

/// [`sgd_step`] of a masked parameter whose buffer, `[n_kept]`, is that of its kept values alone, as `grad` may be. All other values
/// of `p` become exactly 0.
///
/// # Errors
/// As [`sgd_step`], and if `p` is not f32 or f64 on the CPU.
pub fn sgd_step_kept(p: &Var, grad: &Tensor, buf: &Var, places: &KeptPlaces, step: &SgdStep) -> Result<()> {
    check_kept("sgd_step_kept", &[("p", p), ("buf", buf)], grad, places)?;
    with_real!(p.dtype(), T => operands::<T>(grad, None, &[p, buf], |grad, _| {
        with_mut(p, |p: &mut [T]| {
            with_mut(buf, |buf| {
                kernel::sgd_kept([p, buf], grad, places, step);
                Ok(())
            })
        })
    }))
}

/// Takes one step of SGD: `p` and `buf` (momentum) change in place. `mask`: u8, `p`'s shape,
/// 0 = pruned; there `p` and `buf` become exactly 0.
///
/// # Errors
/// If a shape or type does not fit, or a variable is given twice.
pub fn sgd_step(p: &Var, grad: &Tensor, buf: &Var, mask: Option<&Tensor>, step: &SgdStep) -> Result<()> {
    let op = "sgd_step";
    check(op, &[("p", p), ("buf", buf)], grad, p.dims(), p.dims())?;
    check_mask(op, p, mask)?;
    if !has_kernels(p) {
        return composed::sgd_step(p, grad, buf, mask, step);
    }
    with_real!(p.dtype(), T => operands::<T>(grad, mask, &[p, buf], |grad, mask| {
        with_mut(p, |p: &mut [T]| {
            with_mut(buf, |buf| {
                kernel::sgd([p, buf], grad, mask, step);
                Ok(())
            })
        })
    }))
}

/// Makes exact zeros of `p` in place where `mask` (u8, `p`'s shape) is 0, also of NaN and of −0; all other values stay.
///
/// ```
/// # use candle_core::{Device, Tensor, Var};
/// let p = Var::new(&[1f32, f32::NAN, -3.0], &Device::Cpu)?;
/// lth_kernels::optim::apply_mask(&p, &Tensor::new(&[1u8, 0, 0], &Device::Cpu)?)?;
/// assert_eq!(p.to_vec1::<f32>()?, [1.0, 0.0, 0.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the mask's shape or type does not fit.
pub fn apply_mask(p: &Var, mask: &Tensor) -> Result<()> {
    check_mask("apply_mask", p, Some(mask))?;
    if !has_kernels(p) || !p.is_contiguous() {
        return composed::apply_mask(p, mask);
    }
    with_real!(p.dtype(), T => with_values(mask, |mask| with_mut(p, |p: &mut [T]| {
        clear_all_pruned(p, mask);
        Ok(())
    })))
}

/// Runs `f` on the values of the gradient and the mask. A gradient that shares memory with a
/// variable to be written is copied first: its lock would never come free.
fn operands<T: Real>(
    grad: &Tensor,
    mask: Option<&Tensor>,
    vars: &[&Var],
    f: impl FnOnce(&[T], Option<&[u8]>) -> Result<()>,
) -> Result<()> {
    let mut grad = grad.contiguous()?;
    for var in vars {
        if start::<T>(&grad)? == start::<T>(var)? {
            grad = grad.copy()?;
        }
    }
    with_values(&grad, |grad| match mask {
        Some(mask) => with_values(mask, |mask| f(grad, Some(mask))),
        None => f(grad, None),
    })
}

/// Where the memory of a tensor starts (of the whole storage, not of this view).
fn start<T: Real>(x: &Tensor) -> Result<usize> {
    match &*x.storage_and_layout().0 {
        Storage::Cpu(storage) => Ok(T::cpu_storage_as_slice(storage)?.as_ptr() as usize),
        _ => Ok(0),
    }
}

/// Runs `f` on the values of a contiguous variable, to be changed.
fn with_mut<T: Real>(var: &Var, f: impl FnOnce(&mut [T]) -> Result<()>) -> Result<()> {
    var.inplace_op1(&InPlace { f: RefCell::new(Some(f)), element: std::marker::PhantomData::<fn(T)> })
}

/// candle hands out a variable's memory only to an operator, which this is.
struct InPlace<T, F> {
    f: RefCell<Option<F>>,
    element: std::marker::PhantomData<fn(T)>,
}

impl<T: Real, F: FnOnce(&mut [T]) -> Result<()>> InplaceOp1 for InPlace<T, F> {
    fn name(&self) -> &'static str {
        "optimiser step"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let len = slice::<T>("optimiser step", storage, layout)?.len();
        let start = layout.start_offset();
        let values = &mut T::values_mut(storage)?[start..start + len];
        match self.f.take() {
            Some(f) => f(values),
            None => Ok(()),
        }
    }
}
