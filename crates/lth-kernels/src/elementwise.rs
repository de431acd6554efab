//! Element-wise operators and concatenation: candle's own would interrupt [`crate::backward`].

use crate::activation::{gate, rectified, relu};
use crate::dispatch::multiversion;
use crate::error::{Error, expect_dtype, expect_shape};
use crate::parallel::{Blank, Shared, all_written, filled, for_each, for_ranges};
use crate::real::{Real, has_kernels, is_half, slice, tensor, widened, with_real, with_values};
use crate::tape;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use std::mem::MaybeUninit;

/// `f` of each pair.
fn map2<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T + Sync) -> Vec<T> {
    let fill = |out: &Blank<'_, T>| {
        for_ranges(a.len(), |at| {
            // SAFETY: the ranges are disjoint.
            let y = unsafe { out.part(at.clone()) };
            for ((&a, &b), y) in a[at.clone()].iter().zip(&b[at]).zip(y) {
                y.write(f(a, b));
            }
        });
    };
    assert_eq!(a.len(), b.len(), "both operands have one shape");
    // SAFETY: the ranges cover all elements, of which both operands have as many.
    unsafe { filled(a.len(), fill) }
}

/// The sum of two gradients, without a graph.
pub(crate) fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !has_kernels(a) {
        return a.detach().add(&b.detach());
    }
    with_real!(a.dtype(), T => {
        let sum = with_values(a, |a: &[T]| with_values(b, |b| Ok(map2(a, b, |a, b| a + b))))?;
        tensor(sum, a.dims())
    })
}

/// `x` times `factor`, element by element; `factor` is a constant of `x`'s shape, such as the
/// noise of a dropout layer.
///
/// # Errors
/// If shapes or types differ.
pub fn multiply_by(x: &Tensor, factor: &Tensor) -> Result<Tensor> {
    let op = "multiply_by";
    expect_shape(op, "factor", factor, x.dims())?;
    expect_dtype(op, "factor", factor, x.dtype())?;
    let factor = factor.detach();
    if has_kernels(x) { tape::apply1(&x.contiguous()?, MultiplyBy(factor)) } else { x * factor }
}

struct MultiplyBy(Tensor);

impl CustomOp1 for MultiplyBy {
    fn name(&self) -> &'static str {
        "multiply_by"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = with_real!(x.dtype(), T => {
            let x = slice::<T>("multiply_by", x, layout)?;
            let y = with_values(&self.0, |factor: &[T]| Ok(map2(x, factor, |a, b| a * b)))?;
            <T as candle_core::WithDType>::to_cpu_storage_owned(y)
        });
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let dx = with_real!(x.dtype(), T => {
            let product = |a: T, b: T| a * b;
            let dx = with_values(dy, |dy: &[T]| with_values(&self.0, |f| Ok(map2(dy, f, product))))?;
            tensor(dx, x.dims())
        })?;
        Ok(Some(dx))
    }
}

/// `x` plus `bias`, a vector along `axis`: of a linear layer's `[N, O]` along 1, of feature maps along their channels.
///
/// # Errors
/// If the axis is none of `x`'s, or shapes or types do not fit.
pub fn add_bias(x: &Tensor, bias: &Tensor, axis: usize) -> Result<Tensor> {
    biased(x, bias, AddBias { axis, relu: false })
}

/// [`relu`](crate::relu()) of [`add_bias`] in one pass, to the same bits.
///
/// # Errors
/// As [`add_bias`].
pub fn add_bias_relu(x: &Tensor, bias: &Tensor, axis: usize) -> Result<Tensor> {
    biased(x, bias, AddBias { axis, relu: true })
}

fn biased(x: &Tensor, bias: &Tensor, add: AddBias) -> Result<Tensor> {
    let (op, axis) = (add.name(), add.axis);
    let Some(&n) = x.dims().get(axis) else {
        return Err(Error::Rank { op, tensor: "x", expected: axis.saturating_add(1), got: x.dims().to_vec() }.into());
    };
    expect_shape(op, "bias", bias, &[n])?;
    expect_dtype(op, "bias", bias, x.dtype())?;
    if has_kernels(x) {
        return tape::apply2(&x.contiguous()?, &bias.contiguous()?, add);
    }
    if is_half(x) {
        // The bias' gradient is a sum over the batch.
        return biased(&widened(x)?, &widened(bias)?, add)?.to_dtype(x.dtype());
    }
    let mut shape = vec![1; x.rank()];
    shape[axis] = n;
    let y = x.broadcast_add(&bias.reshape(shape)?)?;
    if add.relu { relu(&y) } else { Ok(y) }
}

/// The gradients of [`add_bias_relu`], of which `y` came out.
pub(crate) fn gradients_of_bias_relu(y: &Tensor, bias: &Tensor, dy: &Tensor, axis: usize) -> Result<(Tensor, Tensor)> {
    with_real!(y.dtype(), T => {
        let (dx, sums) = with_values(y, |y: &[T]| {
            with_values(dy, |of_y| Ok(AddBias { axis, relu: true }.gated(y, of_y, dy.dims())))
        })?;
        Ok((tensor(dx, dy.dims())?, tensor(sums, bias.dims())?))
    })
}

struct AddBias {
    axis: usize,
    /// Whether what is negative becomes 0.
    relu: bool,
}

multiversion! {
    /// Adds to eight sums side by side, for the additions' latency.
    fn add_to_lanes[T: Real][T](lanes: &mut [f64; 8], row: &[T]) {
        let (eights, rest) = row.as_chunks::<8>();
        for eight in eights {
            lanes.iter_mut().zip(eight).for_each(|(lane, v)| *lane += v.wide());
        }
        lanes.iter_mut().zip(rest).for_each(|(lane, v)| *lane += v.wide());
    }
}

multiversion! {
    /// Rows of `run` values, each with its bias; `relu`: what is negative becomes 0.
    fn add_to_rows[T: Real][T](x: &[T], bias: &[T], run: usize, relu: bool, y: &mut [MaybeUninit<T>]) {
        match (run, relu) {
            (1, false) => x.iter().zip(bias).zip(y).for_each(|((&x, &b), y)| _ = y.write(x + b)),
            (1, true) => x.iter().zip(bias).zip(y).for_each(|((&x, &b), y)| _ = y.write(rectified(x + b))),
            (_, false) => rows(x, bias, run, y, |v| v),
            (_, true) => rows(x, bias, run, y, rectified),
        }
    }
}

#[inline(always)]
fn rows<T: Real>(x: &[T], bias: &[T], run: usize, y: &mut [MaybeUninit<T>], end: impl Fn(T) -> T) {
    for ((x, &b), y) in x.chunks_exact(run).zip(bias).zip(y.chunks_exact_mut(run)) {
        x.iter().zip(y).for_each(|(&x, y)| _ = y.write(end(x + b)));
    }
}

multiversion! {
    /// Adds rows of `run` values to a sum each, value by value.
    fn add_to_sums[T: Real][T](sums: &mut [f64], rows: &[T], run: usize) {
        if run == 1 {
            return sums.iter_mut().zip(rows).for_each(|(sum, v)| *sum += v.wide());
        }
        for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(run)) {
            row.iter().for_each(|v| *sum += v.wide());
        }
    }
}

/// Values in a row above which a row is a piece of work of its own.
const LONG: usize = 64;

/// Values whose gradients are made and added at a time.
const GATED: usize = 1 << 11;

impl AddBias {
    /// Values side by side that have one bias.
    fn run(&self, dims: &[usize]) -> usize {
        dims[self.axis + 1..].iter().product()
    }

    fn forward<T: Real>(&self, x: &[T], bias: &[T], dims: &[usize]) -> CpuStorage {
        let run = self.run(dims);
        // Long rows one by one, short ones with all biases.
        let n_biases = if run < LONG { bias.len() } else { 1 };
        let piece = n_biases * run;
        let fill = |out: &Blank<'_, T>| {
            for_each(x.len() / piece.max(1), x.len(), |i| {
                let at = i * piece..(i + 1) * piece;
                let first = i * n_biases % bias.len();
                // SAFETY: the pieces are disjoint.
                let y = unsafe { out.part(at.clone()) };
                add_to_rows(&x[at], &bias[first..first + n_biases], run, self.relu, y);
            });
        };
        // SAFETY: the pieces cover the tensor.
        T::to_cpu_storage_owned(unsafe { filled(x.len(), fill) })
    }

    /// Of `dy`, over all axes but the bias'.
    fn sum<T: Real>(&self, dy: &[T], dims: &[usize]) -> Vec<T> {
        let (n, run) = (dims[self.axis], self.run(dims));
        let mut sums = vec![0.0; n];
        if run < LONG {
            for rows in dy.chunks_exact((n * run).max(1)) {
                add_to_sums(&mut sums, rows, run);
            }
        } else {
            let out = Shared::new(&mut sums);
            for_each(n, dy.len(), |channel| {
                let rows = dy.chunks_exact(run).skip(channel).step_by(n);
                let mut lanes = [0.0; 8];
                rows.for_each(|row| add_to_lanes(&mut lanes, row));
                // SAFETY: each channel's once.
                unsafe { out.set(channel, lanes.iter().sum()) };
            });
        }
        sums.into_iter().map(T::of).collect()
    }

    /// `dy` where `y` is positive, and its sums over all axes but the bias'.
    fn gated<T: Real>(&self, y: &[T], dy: &[T], dims: &[usize]) -> (Vec<T>, Vec<T>) {
        let (n, run) = (dims[self.axis], self.run(dims));
        if run < LONG {
            let fill = |out: &Blank<'_, T>| {
                // SAFETY: the ranges are disjoint.
                for_ranges(y.len(), |at| gate(&y[at.clone()], &dy[at.clone()], unsafe { out.part(at) }));
            };
            // SAFETY: the ranges cover the tensor.
            let dx = unsafe { filled(y.len(), fill) };
            let sums = self.sum(&dx, dims);
            return (dx, sums);
        }
        let mut sums = vec![0.0; n];
        let shared = Shared::new(&mut sums);
        let fill = |out: &Blank<'_, T>| {
            for_each(n, dy.len(), |channel| {
                let mut lanes = [0.0; 8];
                for row in (channel..dy.len() / run).step_by(n) {
                    // Pieces that are still in the cache when they are added: whole eights but the last of a row.
                    for start in (row * run..(row + 1) * run).step_by(GATED) {
                        let at = start..(start + GATED).min((row + 1) * run);
                        // SAFETY: the pieces are disjoint.
                        let dx = unsafe { out.part(at.clone()) };
                        gate(&y[at.clone()], &dy[at], dx);
                        // SAFETY: `gate` has written all of it.
                        add_to_lanes(&mut lanes, unsafe { all_written(dx) });
                    }
                }
                // SAFETY: each channel's once.
                unsafe { shared.set(channel, lanes.iter().sum()) };
            });
        };
        // SAFETY: the pieces cover the tensor.
        let dx = unsafe { filled(y.len(), fill) };
        (dx, sums.into_iter().map(T::of).collect())
    }
}

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        if self.relu { "add_bias_relu" } else { "add_bias" }
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, bias: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = with_real!(x.dtype(), T => {
            self.forward(slice::<T>(self.name(), x, lx)?, slice::<T>(self.name(), bias, lb)?, lx.dims())
        });
        Ok((y, lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, bias: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if self.relu {
            let (dx, sums) = gradients_of_bias_relu(y, bias, dy, self.axis)?;
            return Ok((x.track_op().then_some(dx), bias.track_op().then_some(sums)));
        }
        let of_bias = || {
            with_real!(x.dtype(), T => {
                let sums = with_values(dy, |dy: &[T]| Ok(self.sum(dy, x.dims())))?;
                tensor(sums, bias.dims())
            })
        };
        // candle adds what it gets here to zeros, `backward` hands it on: nobody writes to it.
        Ok((x.track_op().then(|| dy.clone()), bias.track_op().then(of_bias).transpose()?))
    }
}

/// `x` in another shape with as many elements, in the same order.
///
/// # Errors
/// If the shape has another number of elements.
pub fn reshape(x: &Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    // Without a graph nothing is copied.
    if !x.track_op() || !has_kernels(x) || shape.elem_count() != x.elem_count() {
        return x.reshape(shape);
    }
    tape::apply1(&x.contiguous()?, Reshape(shape))
}

struct Reshape(Shape);

impl CustomOp1 for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = with_real!(x.dtype(), T => {
            <T as candle_core::WithDType>::to_cpu_storage_owned(slice::<T>("reshape", x, layout)?.to_vec())
        });
        Ok((y, self.0.clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(dy.reshape(x.shape())?))
    }
}

/// `a` and `b` one after the other along `axis`.
///
/// # Errors
/// If the axis is none of theirs, or shapes (but for that axis) or types differ.
pub fn concat(a: &Tensor, b: &Tensor, axis: usize) -> Result<Tensor> {
    let op = "concat";
    let mut expected = a.dims().to_vec();
    if axis >= a.rank() || b.rank() != a.rank() {
        let (expected, got) = (axis.max(a.rank()), b.dims().to_vec());
        return Err(Error::Rank { op, tensor: "b", expected, got }.into());
    }
    expected[axis] = b.dims()[axis];
    expect_shape(op, "b", b, &expected)?;
    expect_dtype(op, "b", b, a.dtype())?;
    if has_kernels(a) {
        return tape::apply2(&a.contiguous()?, &b.contiguous()?, Concat { axis });
    }
    Tensor::cat(&[a, b], axis)
}

struct Concat {
    axis: usize,
}

impl Concat {
    /// Length of the runs that alternate.
    fn run(&self, dims: &[usize]) -> usize {
        dims[self.axis..].iter().product()
    }

    fn split<T: Real>(&self, a: &Tensor, b: &Tensor, dy: &[T]) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (run_a, run_b) = (self.run(a.dims()), self.run(b.dims()));
        let part = |x: &Tensor, from: usize, len: usize| {
            if !x.track_op() {
                return Ok(None);
            }
            let mut values = Vec::with_capacity(x.elem_count());
            for runs in dy.chunks_exact((run_a + run_b).max(1)) {
                values.extend_from_slice(&runs[from..from + len]);
            }
            tensor(values, x.dims()).map(Some)
        };
        Ok((part(a, 0, run_a)?, part(b, run_a, run_b)?))
    }
}

impl CustomOp2 for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut dims = a_layout.dims().to_vec();
        dims[self.axis] += b_layout.dims()[self.axis];
        let (run_a, run_b) = (self.run(a_layout.dims()), self.run(b_layout.dims()));
        let runs: usize = dims[..self.axis].iter().product();
        let y = with_real!(a.dtype(), T => {
            let (a, b) = (slice::<T>("concat", a, a_layout)?, slice::<T>("concat", b, b_layout)?);
            let mut y = Vec::with_capacity(a.len() + b.len());
            for i in 0..runs {
                y.extend_from_slice(&a[i * run_a..(i + 1) * run_a]);
                y.extend_from_slice(&b[i * run_b..(i + 1) * run_b]);
            }
            <T as candle_core::WithDType>::to_cpu_storage_owned(y)
        });
        Ok((y, dims.into()))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        with_real!(a.dtype(), T => with_values(dy, |dy: &[T]| self.split(a, b, dy)))
    }
}
