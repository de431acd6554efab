//! A backward pass with fewer passes over memory than candle's.
//!
//! candle adds every gradient to a tensor of zeros that it allocates first, three passes over a
//! tensor and two allocations for each argument of each operator, on one thread. What an operator
//! of this crate was applied to is therefore noted here as well, under the identity of its result,
//! for as long as that result's graph lives; [`backward`] then hands gradients on as they are.

use crate::error::Error;
use crate::forced::Forced;
use crate::gradients::Gradients;
use crate::pattern::Pattern;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, TensorId};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

type One = dyn CustomOp1 + Send + Sync;
type Two = dyn CustomOp2 + Send + Sync;
type Three = dyn CustomOp3 + Send + Sync;

/// An application of an operator. The operator itself belongs to candle's graph; its end removes
/// the note.
#[derive(Clone)]
enum Note {
    One(Tensor, Weak<Box<One>>),
    /// With the mask of the second argument, if it has one.
    Two([Tensor; 2], Weak<Box<Two>>, Option<Pattern>),
    Three([Tensor; 3], Weak<Box<Three>>, Option<Pattern>),
}

static NOTES: LazyLock<Mutex<HashMap<TensorId, Note>>> = LazyLock::new(Mutex::default);

/// A panic elsewhere cannot leave the map half changed: every use is one insertion or removal.
fn notes() -> MutexGuard<'static, HashMap<TensorId, Note>> {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fails where a graph of the gradients is wanted: gradients of this crate's operators have none, so that a second
/// derivative would lack everything that goes through them. candle builds one only where the environment variable
/// `CANDLE_GRAD_DO_NOT_DETACH` says so.
fn expect_first_derivative(op: &'static str, dy: &Tensor) -> Result<()> {
    static KEEPS_GRAPHS: LazyLock<bool> = LazyLock::new(|| {
        std::env::var("CANDLE_GRAD_DO_NOT_DETACH").is_ok_and(|value| !value.is_empty() && value != "0")
    });
    if *KEEPS_GRAPHS || dy.track_op() {
        return Err(Error::SecondDerivative { op }.into());
    }
    Ok(())
}

/// An operator that removes its note when candle drops it.
struct Noted<C> {
    op: C,
    result: Arc<OnceLock<TensorId>>,
}

impl<C> Drop for Noted<C> {
    fn drop(&mut self) {
        if let Some(id) = self.result.get() {
            // The note's tensors may hold the last link to operators before this one, whose notes
            // go in turn: not while the map is locked.
            let note = notes().remove(id);
            drop(note);
        }
    }
}

impl<C: CustomOp1> CustomOp1 for Noted<C> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        self.op.cpu_fwd(s, l)
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        expect_first_derivative(self.op.name(), dy)?;
        self.op.bwd(x, y, dy)
    }
}

impl<C: CustomOp2> CustomOp2 for Noted<C> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.op.cpu_fwd(s1, l1, s2, l2)
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        expect_first_derivative(self.op.name(), dy)?;
        self.op.bwd(a, b, y, dy)
    }
}

impl<C: CustomOp3> CustomOp3 for Noted<C> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.op.cpu_fwd(s1, l1, s2, l2, s3, l3)
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        expect_first_derivative(self.op.name(), dy)?;
        self.op.bwd(a, b, c, y, dy)
    }
}

/// Notes an application whose result is `y`, if backward will ever come to it.
fn note(y: &Tensor, result: &OnceLock<TensorId>, note: impl FnOnce() -> Note) {
    if y.track_op() && result.set(y.id()).is_ok() {
        notes().insert(y.id(), note());
    }
}

/// `x.apply_op1(op)`, noted.
pub(crate) fn apply1<C: CustomOp1 + Send + Sync + 'static>(x: &Tensor, op: C) -> Result<Tensor> {
    let result = Arc::new(OnceLock::new());
    let op: Arc<Box<One>> = Arc::new(Box::new(Noted { op, result: Arc::clone(&result) }));
    let y = x.apply_op1_arc(Arc::clone(&op))?;
    note(&y, &result, || Note::One(x.clone(), Arc::downgrade(&op)));
    Ok(y)
}

/// `a.apply_op2(b, op)`, noted.
pub(crate) fn apply2<C: CustomOp2 + Send + Sync + 'static>(a: &Tensor, b: &Tensor, op: C) -> Result<Tensor> {
    apply_masked(a, b, None, op)
}

/// `x.apply_op2(weight, op)`, noted. With a `pattern` the weight's gradient may be that of the kept weights alone, `[n_kept]`, where
/// [`Forced::keeps_gradients`].
pub(crate) fn apply_masked<C: CustomOp2 + Send + Sync + 'static>(
    a: &Tensor,
    b: &Tensor,
    pattern: Option<&Pattern>,
    op: C,
) -> Result<Tensor> {
    let result = Arc::new(OnceLock::new());
    let op: Arc<Box<Two>> = Arc::new(Box::new(Noted { op, result: Arc::clone(&result) }));
    let y = a.apply_op2_arc(b, Arc::clone(&op))?;
    note(&y, &result, || Note::Two([a.clone(), b.clone()], Arc::downgrade(&op), pattern.cloned()));
    Ok(y)
}

/// `a.apply_op3(b, c, op)`, noted.
pub(crate) fn apply3<C: CustomOp3 + Send + Sync + 'static>(
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    op: C,
) -> Result<Tensor> {
    apply3_masked([a, b, c], None, op)
}

/// `x.apply_op3(weight, bias, op)`, noted. The `pattern` as that of [`apply_masked`].
pub(crate) fn apply3_masked<C: CustomOp3 + Send + Sync + 'static>(
    [a, b, c]: [&Tensor; 3],
    pattern: Option<&Pattern>,
    op: C,
) -> Result<Tensor> {
    let result = Arc::new(OnceLock::new());
    let op: Arc<Box<Three>> = Arc::new(Box::new(Noted { op, result: Arc::clone(&result) }));
    let y = a.apply_op3_arc(b, c, Arc::clone(&op))?;
    note(&y, &result, || Note::Three([a, b, c].map(Tensor::clone), Arc::downgrade(&op), pattern.cloned()));
    Ok(y)
}

/// Nodes of a graph that candle's backward pass, which calls itself for each, can walk on one of rayon's threads: their
/// stacks have 2 MiB, of which a call takes less than half a KiB. A deeper graph is walked where the caller made it.
const SHALLOW: usize = 2000;

/// The gradients of every variable that `loss` (a scalar) depends on: what `loss.backward()` gives.
///
/// Where every operator between them is one of this crate's, gradients are handed on without the
/// zeros and additions of candle's backward pass; with any other operator among them this is
/// `loss.backward()`. Gradients have no graph of their own.
///
/// # Errors
/// If an operator's backward pass fails, or if candle is told to build a graph of the gradients for second derivatives
/// (`CANDLE_GRAD_DO_NOT_DETACH`).
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    backward_with(loss, false)?.into_whole()
}

/// [`backward`], with gradients of masked weights for the kept ones alone where the kernels have them so: an optimiser that keeps no
/// more ([`adam_step_kept`](crate::optim::adam_step_kept)) then neither writes nor reads the zeros between. The same numbers.
///
/// # Errors
/// As [`backward`].
pub fn backward_kept(loss: &Tensor) -> Result<Gradients> {
    backward_with(loss, true)
}

fn backward_with(loss: &Tensor, keeps_gradients: bool) -> Result<Gradients> {
    let nodes = loss.sorted_nodes();
    let n_nodes = nodes.len();
    let steps: Option<Vec<(&Tensor, Note)>> = {
        let notes = notes();
        let inner = nodes.into_iter().filter(|node| !node.is_variable());
        inner.map(|node| Some((node, notes.get(&node.id())?.clone()))).collect()
    };
    match steps {
        Some(steps) => crate::in_pool(|| Forced { keeps_gradients, ..Forced::get() }.run(|| walk(loss, steps))),
        None if n_nodes <= SHALLOW => crate::in_pool(|| loss.backward()).map(Gradients::from),
        None => loss.backward().map(Gradients::from),
    }
}

/// The shape of the first result, in the order of computation, that is of none of this crate's operators: because of it
/// [`backward`] is candle's for all of the graph. `None`: there is none.
///
/// ```
/// # fn main() -> candle_core::Result<()> {
/// use candle_core::{Device, Tensor, Var};
///
/// let x = Var::zeros((2, 3), candle_core::DType::F32, &Device::Cpu)?;
/// assert_eq!(lth_kernels::foreign_operator(&lth_kernels::relu(&x)?), None);
/// let foreign = lth_kernels::relu(&x.t()?)?; // candle's transposition
/// assert_eq!(lth_kernels::foreign_operator(&foreign), Some(vec![3, 2]));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn foreign_operator(loss: &Tensor) -> Option<Vec<usize>> {
    let nodes = loss.sorted_nodes();
    let notes = notes();
    let is_foreign = |node: &&&Tensor| !node.is_variable() && !notes.contains_key(&node.id());
    nodes.iter().rev().find(is_foreign).map(|node| node.dims().to_vec())
}

fn walk(loss: &Tensor, steps: Vec<(&Tensor, Note)>) -> Result<Gradients> {
    let mut all = Gradients::from(GradStore::default());
    all.add(loss, &loss.ones_like()?.contiguous()?)?;
    for (y, note) in steps {
        let Some(dy) = all.take(y) else {
            continue; // no operator after it wanted its gradient
        };
        let gone = || candle_core::Error::msg("backward: an operator of a living graph is gone").bt();
        let mut add = |x: &Tensor, gradient: Option<Tensor>, pattern: Option<Pattern>| match (
            gradient.filter(|_| x.track_op()),
            pattern,
        ) {
            (Some(kept), Some(pattern)) if kept.dims() != x.dims() => all.add_kept(x, pattern, kept),
            (Some(gradient), _) => all.add(x, &gradient),
            (None, _) => Ok(()),
        };
        match note {
            Note::One(x, op) => {
                let dx = op.upgrade().ok_or_else(gone)?.bwd(&x, y, &dy)?;
                add(&x, dx, None)?;
            }
            Note::Two([a, b], op, pattern) => {
                let (da, db) = op.upgrade().ok_or_else(gone)?.bwd(&a, &b, y, &dy)?;
                add(&a, da, None)?;
                add(&b, db, pattern)?;
            }
            Note::Three([a, b, c], op, pattern) => {
                let (da, db, dc) = op.upgrade().ok_or_else(gone)?.bwd(&a, &b, &c, y, &dy)?;
                add(&a, da, None)?;
                add(&b, db, pattern)?;
                add(&c, dc, None)?;
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchNormParams, batch_norm_train, cross_entropy, global_avg_pool, relu};
    use candle_core::{Device, Var};

    /// A little residual network with a branch, so that gradients add up: its loss.
    fn network(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let params = BatchNormParams::default();
        let first = relu(&batch_norm_train(x, weight, bias, None, &params)?.0)?;
        let second = batch_norm_train(&first, weight, bias, Some(&first), &params)?.0;
        let logits = global_avg_pool(&second, params.layout)?;
        cross_entropy(&logits, &Tensor::new(&[2u32, 0], &Device::Cpu)?)
    }

    fn inputs() -> Result<[Var; 3]> {
        let values: Vec<f64> = (0..2 * 3 * 4 * 4).map(|i| f64::from(i).sin()).collect();
        Ok([
            Var::from_vec(values, (2, 3, 4, 4), &Device::Cpu)?,
            Var::new(&[1.0, 0.5, -0.7], &Device::Cpu)?,
            Var::new(&[0.1, 0.2, -0.3], &Device::Cpu)?,
        ])
    }

    #[test]
    fn gradients_are_candles_and_no_note_is_left() -> Result<()> {
        let [x, weight, bias] = inputs()?;
        let ids: Vec<TensorId> = {
            let loss = network(&x, &weight, &bias)?;
            let (ours, candles) = (backward(&loss)?, loss.backward()?);
            for var in [&x, &weight, &bias] {
                let of = |store: &GradStore| -> Result<Vec<f64>> {
                    store.get(var).expect("a gradient").flatten_all()?.to_vec1()
                };
                for (a, b) in of(&ours)?.iter().zip(of(&candles)?) {
                    assert!((a - b).abs() <= 1e-12, "{a} and {b}");
                }
            }
            let nodes = loss.sorted_nodes();
            nodes.iter().filter(|n| !n.is_variable()).map(|n| n.id()).collect()
        };
        assert!(ids.len() > 5);
        assert!(ids.iter().all(|id| !notes().contains_key(id)));
        Ok(())
    }

    #[test]
    fn other_operators_fall_back_to_candle() -> Result<()> {
        let [x, weight, bias] = inputs()?;
        let doubled = (x.as_tensor() * 2.0)?;
        let loss = network(&doubled, &weight, &bias)?;
        let (ours, candles) = (backward(&loss)?, loss.backward()?);
        let of =
            |store: &GradStore| -> Result<Vec<f64>> { store.get(&x).expect("a gradient").flatten_all()?.to_vec1() };
        assert_eq!(of(&ours)?, of(&candles)?);
        Ok(())
    }

    #[test]
    fn frozen_tensors_are_not_noted() -> Result<()> {
        let [x, weight, bias] = inputs()?;
        let y = network(&x.detach(), &weight.detach(), &bias.detach())?;
        assert!(!notes().contains_key(&y.id()));
        Ok(())
    }
}
