//! The convolution as candle operators: forward, and the two gradients where they are asked for.
//!
//! The gradients run in `[C, H, W, N]`; a small batch in `[N, C, H, W]` is brought there first, but for a few pictures of many
//! positions, which run one by one.

use std::borrow::Cow;
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType};

use super::cost::{self, Kept, Kernel, Pass};
use super::epilogue::Epilogue;
use super::geometry::{Direction, Geometry};
use super::kernel::table::{Number, ProgramKind};
use super::product::SparseProduct;
use super::scratch::with_buffers;
use super::tiling::reads_once;
use super::{compact, dense, dots, mend, single, sparse, unfold, whole};
use crate::elementwise;
use crate::forced::Forced;
use crate::layout::{Layout as Order, to_layout, transposed_rows};
use crate::parallel::all_written;
use crate::pattern::Pattern;
use crate::real::{slice, tensor, with_real, with_values};
use crate::tape;

/// The convolution of `x` in `layout` with `weight`, both contiguous, of one type, on the CPU.
pub(super) fn convolve(
    x: &Tensor,
    weight: &Tensor,
    geometry: Geometry,
    pattern: Option<&Pattern>,
    layout: Order,
) -> Result<Tensor> {
    tape::apply_masked(
        x,
        weight,
        pattern,
        Forward { geometry, pattern: pattern.cloned(), layout, kept: KeptWeights::default() },
    )
}

/// `max(y + bias, 0)` for the convolution `y` of `x` in `[C, H, W, N]`, all contiguous, of one type, on the CPU.
pub(super) fn convolve_rectified(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    geometry: Geometry,
    pattern: Option<&Pattern>,
) -> Result<Tensor> {
    let forward = Forward { geometry, pattern: pattern.cloned(), layout: Order::Chwn, kept: KeptWeights::default() };
    tape::apply3_masked([x, weight, bias], pattern, Rectified(forward))
}

/// `x` [N, I] times the transpose of `weight` [O, I], both contiguous, of one type, on the CPU.
pub(crate) fn product(x: &Tensor, weight: &Tensor, pattern: Option<&Pattern>) -> Result<Tensor> {
    let ((batch, in_channels), out_channels) = (x.dims2()?, weight.dim(0)?);
    let geometry = Geometry {
        batch,
        in_channels,
        out_channels,
        groups: 1,
        input: [1, 1],
        kernel: [1, 1],
        output: [1, 1],
        stride: [1, 1],
        padding: [0, 0],
        dilation: [1, 1],
    };
    tape::apply_masked(
        x,
        weight,
        pattern,
        Product { geometry, pattern: pattern.cloned(), kept: KeptWeights::default() },
    )
}

/// Up to which density both gradients gain by sharing panels, rather than four channels at once in that of the input.
const SHARED_DENSITY: f64 = 0.15;

struct Forward {
    geometry: Geometry,
    pattern: Option<Pattern>,
    layout: Order,
    kept: KeptWeights,
}

/// What the first pass over a weight finds out, and the gradient of the input takes from it.
#[derive(Clone, Default)]
struct KeptWeights(Arc<Found>);

#[derive(Default)]
struct Found {
    /// The kept values, one behind the other.
    values: OnceLock<CpuStorage>,
    /// Whether all others were seen to be 0.
    is_masked: AtomicBool,
}

impl KeptWeights {
    fn with<T: Number, R>(&self, pattern: &Pattern, weight: &[T], work: impl FnOnce(&[T]) -> R) -> R {
        if let Some(storage) = self.0.values.get()
            && let Ok(kept) = T::cpu_storage_as_slice(storage)
        {
            return work(kept);
        }
        // Gathered without the cell's lock: that is parallel work, and a worker that waits for it may come here again.
        let kept = pattern.places().gathered(weight);
        let result = work(&kept);
        // Another may have been sooner, with the same.
        let _ = self.0.values.set(T::to_cpu_storage_owned(kept));
        result
    }

    /// `weight` with exact zeros where `pattern` prunes.
    fn masked<'a, T: Number>(&self, pattern: &Pattern, weight: &'a [T]) -> Cow<'a, [T]> {
        if self.0.is_masked.load(Ordering::Relaxed) {
            return Cow::Borrowed(weight);
        }
        let masked = pattern.masked(weight);
        self.0.is_masked.store(matches!(masked, Cow::Borrowed(_)), Ordering::Relaxed);
        masked
    }
}

/// A linear layer: a convolution of pictures of one pixel.
struct Product {
    geometry: Geometry,
    pattern: Option<Pattern>,
    kept: KeptWeights,
}

/// The weight gradient of a linear layer whose every weight is multiplied.
struct ProductWeightGradient {
    geometry: Geometry,
    pattern: Option<Pattern>,
}

struct InputGradient {
    geometry: Geometry,
    pattern: Option<Pattern>,
    kept: KeptWeights,
}

struct WeightGradient {
    geometry: Geometry,
    pattern: Option<Pattern>,
}

impl CustomOp2 for Forward {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let (g, pattern, kept) = (&self.geometry, self.pattern.as_ref(), &self.kept);
        let shape = self.layout.shape(g.batch, g.out_channels, g.output[0], g.output[1]);
        let (x, w) = ((x, lx), (w, lw));
        match self.layout {
            Order::Chwn => {
                let apply = Apply { geometry: g, pattern, kept, direction: Direction::Forward };
                both(self.name(), x, w, Shape::from(&shape), &apply)
            }
            Order::Nchw => both(self.name(), x, w, Shape::from(&shape), &Unfolded { geometry: g, pattern, kept }),
        }
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        gradients(self, x, w, grad)
    }
}

/// With a bias and a rectifier behind it.
struct Rectified(Forward);

impl CustomOp3 for Rectified {
    fn name(&self) -> &'static str {
        "conv2d_bias_relu"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        bias: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (op, Forward { geometry: g, pattern, layout, kept }) = (self.name(), &self.0);
        let shape = Shape::from(&layout.shape(g.batch, g.out_channels, g.output[0], g.output[1]));
        let apply = Apply { geometry: g, pattern: pattern.as_ref(), kept, direction: Direction::Forward };
        let y = with_real!(w.dtype(), T => {
            let (x, w, bias) = (slice::<T>(op, x, lx)?, slice::<T>(op, w, lw)?, slice::<T>(op, bias, lb)?);
            let epilogue = Epilogue { bias: Some(bias), residual: None, relu: true };
            // SAFETY: `apply_ended` writes every element.
            let y = unsafe { written(shape.elem_count(), |y| apply.apply_ended(x, w, &epilogue, y)) };
            T::to_cpu_storage_owned(y)
        });
        Ok((y, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad, of_bias) = elementwise::gradients_of_bias_relu(y, bias, grad, 0)?;
        let (of_x, of_w) = gradients(&self.0, x, w, &grad)?;
        Ok((of_x, of_w, bias.track_op().then_some(of_bias)))
    }
}

/// The gradients that are asked for; `x` and `grad` in the pass's layout.
fn gradients(of: &Forward, x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let (geometry, pattern, layout, kept) = (&of.geometry, of.pattern.as_ref(), of.layout, &of.kept);
    if layout == Order::Nchw && single::takes(geometry) {
        let (x, w, grad) = (x.contiguous()?, w.contiguous()?, grad.contiguous()?);
        return with_real!(w.dtype(), T => gradients_by_picture::<T>(geometry, pattern, &x, &w, &grad));
    }
    let chwn = |t: &Tensor| to_layout(&t.detach(), layout, Order::Chwn)?.contiguous();
    let grad = chwn(grad)?;
    if let Some(pattern) = pattern
        && x.track_op()
        && w.track_op()
        && with_real!(w.dtype(), T => share_panels::<T>(geometry, pattern))
    {
        let (of_x, of_w) =
            with_real!(w.dtype(), T => sparse_gradients::<T>(geometry, (pattern, kept), &chwn(x)?, w, &grad))?;
        return Ok((Some(to_layout(&of_x, Order::Chwn, layout)?), Some(of_w)));
    }
    let (geometry, pattern) = (*geometry, pattern.cloned());
    let of_x = || {
        let grad =
            grad.apply_op2_no_bwd(w, &InputGradient { geometry, pattern: pattern.clone(), kept: kept.clone() })?;
        to_layout(&grad, Order::Chwn, layout)
    };
    let of_w = || weight_gradient(&geometry, pattern.as_ref(), &chwn(x)?, w, &grad);
    Ok((x.track_op().then(of_x).transpose()?, w.track_op().then(of_w).transpose()?))
}

/// Whether both gradients run on the sparse kernel, and gain by sharing it: where a stride skips inputs, they would come
/// to many that no weight reads. Where much is kept, four channels at once gain more, which the weight gradient does not have.
fn share_panels<T: Number>(g: &Geometry, pattern: &Pattern) -> bool {
    let skips = g.stride[0] > g.kernel[0] || g.stride[1] > g.kernel[1];
    let passes = [Pass::Map(Direction::InputGradient), Pass::WeightGradient];
    let (kept, set) = (pattern.kept(), T::kernels().set);
    let gains = kept.density <= SHARED_DENSITY
        || cost::program_kind(g, Direction::InputGradient, &kept, set) == ProgramKind::Rows;
    gains && !skips && passes.into_iter().all(|pass| cost::choose(g, &kept, pass, set) == Kernel::Sparse)
}

/// Both gradients at once, all in `[C, H, W, N]`.
fn sparse_gradients<T: Number>(
    g: &Geometry,
    (pattern, kept): (&Pattern, &KeptWeights),
    x: &Tensor,
    w: &Tensor,
    grad: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let program = pattern.program::<T>(g, Direction::InputGradient, ProgramKind::Rows);
    let mut of_w = Vec::new();
    let of_x = with_values(x, |x: &[T]| {
        with_values(w, |w: &[T]| {
            with_values(grad, |grad: &[T]| {
                let mut is_finite = true;
                // SAFETY: `gradients` writes all of it.
                let mut of_x = unsafe {
                    written(x.len(), |of_x| {
                        (of_w, is_finite) = kept.with(pattern, w, |kept| {
                            sparse::gradients(&program, pattern.places(), kept, (x, grad), of_x)
                        });
                    })
                };
                if !is_finite {
                    let (direction, bits) = (Direction::InputGradient, Some(pattern.bits()));
                    mend::map(g, direction, bits, (w, grad), &mut of_x, Order::Chwn);
                }
                Ok(of_x)
            })
        })
    })?;
    Ok((tensor(of_x, x.dims())?, kept_gradient(w, pattern, of_w)?))
}

/// The gradient of `w`, of which `pattern` keeps that of `kept`: as it is where that is enough, else of all of it.
fn kept_gradient<T: Number>(w: &Tensor, pattern: &Pattern, kept: Vec<T>) -> Result<Tensor> {
    if Forced::get().keeps_gradients {
        let n_kept = [kept.len()];
        return tensor(kept, &n_kept);
    }
    tensor(pattern.places().scattered(&kept), w.dims())
}

/// The gradient of the weight, `x` and `grad` in `[C, H, W, N]`.
fn weight_gradient(g: &Geometry, pattern: Option<&Pattern>, x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<Tensor> {
    if let Some(pattern) = pattern
        && with_real!(w.dtype(), T => cost::choose(g, &pattern.kept(), Pass::WeightGradient, T::kernels().set))
            == Kernel::Sparse
    {
        return with_real!(w.dtype(), T => {
            let program = pattern.program::<T>(g, Direction::Forward, ProgramKind::Rows);
            let of_w = with_values(x, |x: &[T]| {
                with_values(grad, |grad: &[T]| Ok(sparse::weight_gradient(&program, pattern.places(), x, grad)))
            })?;
            kept_gradient(w, pattern, of_w)
        });
    }
    // A linear layer's weight has no taps.
    x.apply_op2_no_bwd(grad, &WeightGradient { geometry: *g, pattern: pattern.cloned() })?.reshape(w.shape())
}

/// The gradients that are asked for, all in `[N, C, H, W]`.
fn gradients_by_picture<T: Number>(
    g: &Geometry,
    pattern: Option<&Pattern>,
    x: &Tensor,
    w: &Tensor,
    grad: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let of_x = || {
        let adjoint = single::adjoint(g);
        let pattern = pattern.map(|pattern| pattern.adjoint(g));
        let kept = &KeptWeights::default();
        let forward = Unfolded { geometry: &adjoint, pattern: pattern.as_deref(), kept };
        let of_x = with_values(w, |w: &[T]| {
            let w = single::adjoint_weight([g.out_channels, g.in_channels, g.n_taps()], w);
            with_values(grad, |grad: &[T]| {
                // SAFETY: all pictures are written, and `Unfolded` writes all of each.
                Ok(unsafe {
                    written(x.elem_count(), |out: &mut [MaybeUninit<T>]| {
                        let pictures = out.chunks_mut(g.in_channels * g.n_inputs());
                        for (out, grad) in pictures.zip(grad.chunks(g.out_channels * g.n_outputs())) {
                            forward.compute(grad, &w, out);
                        }
                    })
                })
            })
        })?;
        tensor(of_x, x.dims())
    };
    let of_w = || {
        let of_w = with_values(x, |x: &[T]| {
            with_values(grad, |grad: &[T]| {
                // SAFETY: `weight_gradient` writes all of it.
                Ok(unsafe { written(w.elem_count(), |out| single::weight_gradient(g, (x, grad), pattern, out)) })
            })
        })?;
        tensor(of_w, w.dims())
    };
    Ok((x.track_op().then(of_x).transpose()?, w.track_op().then(of_w).transpose()?))
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let (g, pattern, kept) = (&self.geometry, self.pattern.as_ref(), &self.kept);
        let shape = (g.batch, g.out_channels).into();
        both(self.name(), (x, lx), (w, lw), shape, &Unfolded { geometry: g, pattern, kept })
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let samples = x.detach().contiguous()?;
        let grad = BySample { values: grad.detach().contiguous()?, columns: RefCell::default() };
        let of_x = || with_real!(w.dtype(), T => self.input_gradient::<T>(w, &grad));
        let of_w = || with_real!(w.dtype(), T => self.weight_gradient::<T>(&samples, w, &grad));
        Ok((x.track_op().then(of_x).transpose()?, w.track_op().then(of_w).transpose()?))
    }
}

/// An output's gradient `[N, O]`, and transposed where a kernel asks for that.
struct BySample {
    values: Tensor,
    columns: RefCell<Option<Tensor>>,
}

impl BySample {
    /// `[O, batch]`, with samples innermost, which is what a convolution of one pixel takes; zeros behind the last.
    fn columns(&self, batch: usize) -> Result<Tensor> {
        let mut made = self.columns.borrow_mut();
        match &*made {
            Some(columns) if columns.dim(1)? == batch => Ok(columns.clone()),
            _ => Ok(made.insert(transposed_rows(&self.values, self.values.dim(1)?, batch)?).clone()),
        }
    }
}

impl Product {
    /// What runs a pass, and the geometry that it runs with.
    fn kernel<T: Number>(&self, pass: Pass) -> (Kernel, Geometry) {
        let Some(pattern) = &self.pattern else { return (Kernel::Dense, self.geometry) };
        match cost::choose(&self.geometry, &pattern.kept(), pass, T::kernels().set) {
            Kernel::Sparse => (Kernel::Sparse, whole_vectors::<T>(self.geometry)),
            other => (other, self.geometry),
        }
    }

    /// `[N, I]`.
    fn input_gradient<T: Number>(&self, w: &Tensor, grad: &BySample) -> Result<Tensor> {
        let (kernel, padded) = self.kernel::<T>(Pass::Map(Direction::InputGradient));
        let Geometry { batch, in_channels, .. } = self.geometry;
        if let Some(pattern) = &self.pattern
            && kernel == Kernel::Sparse
        {
            let program = pattern.products::<T>(&self.geometry, Direction::InputGradient);
            if let Some(product) = SparseProduct::<T>::new(&program) {
                let of_x = with_values(w, |w: &[T]| {
                    with_values(&grad.values, |grad: &[T]| {
                        let apply = |of_x: &mut [_]| self.kept.with(pattern, w, |kept| product.apply(kept, grad, of_x));
                        // SAFETY: `apply` writes all of it.
                        Ok(unsafe { written(batch * in_channels, apply) })
                    })
                })?;
                return tensor(of_x, &[batch, in_channels]);
            }
        }
        let (pattern, kept) = (self.pattern.clone(), self.kept.clone());
        let of_x =
            grad.columns(padded.batch)?.apply_op2_no_bwd(w, &InputGradient { geometry: padded, pattern, kept })?;
        transposed_rows(&of_x.reshape((in_channels, padded.batch))?, batch, in_channels)
    }

    /// Of `w`, from `x` `[N, I]`.
    fn weight_gradient<T: Number>(&self, x: &Tensor, w: &Tensor, grad: &BySample) -> Result<Tensor> {
        let (kernel, padded) = self.kernel::<T>(Pass::WeightGradient);
        let (pattern, geometry) = (self.pattern.as_ref(), self.geometry);
        if let Some(pattern) = pattern
            && kernel == Kernel::Sparse
        {
            let program = pattern.program::<T>(&geometry, Direction::Forward, ProgramKind::Rows);
            let product = SparseProduct::<T>::new(&program);
            let of_w = with_values(x, |x: &[T]| {
                with_values(&grad.values, |grad: &[T]| Ok(product.and_then(|product| product.weight_gradient(x, grad))))
            })?;
            if let Some(of_w) = of_w {
                return kept_gradient(w, pattern, of_w);
            }
        }
        let grad = grad.columns(padded.batch)?;
        if kernel == Kernel::Dense {
            return x.apply_op2_no_bwd(&grad, &ProductWeightGradient { geometry, pattern: pattern.cloned() });
        }
        let x = transposed_rows(x, geometry.in_channels, padded.batch)?;
        weight_gradient(&padded, pattern, &x, w, &grad)
    }
}

impl CustomOp2 for ProductWeightGradient {
    fn name(&self) -> &'static str {
        "linear weight gradient"
    }

    /// `x` [N, I], `grad` [O, N].
    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, grad: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
        let Self { geometry: g, pattern } = self;
        // Another convolution of one pixel: samples are its channels, inputs its batch, and `x` lies as it wants it.
        let swapped = Geometry { batch: g.in_channels, in_channels: g.batch, ..*g };
        let compute = SwappedProduct { geometry: &swapped, pattern: pattern.as_ref() };
        both(self.name(), (x, lx), (grad, lg), (g.out_channels, g.in_channels).into(), &compute)
    }
}

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "conv2d input gradient"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, lg: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let (g, pattern, kept) = (&self.geometry, self.pattern.as_ref(), &self.kept);
        let [height, width] = g.input;
        both(
            self.name(),
            (grad, lg),
            (w, lw),
            (g.in_channels, height, width, g.batch).into(),
            &Apply { geometry: g, pattern, kept, direction: Direction::InputGradient },
        )
    }
}

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "conv2d weight gradient"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, grad: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
        let (g, pattern) = (&self.geometry, self.pattern.as_ref());
        let [height, width] = g.kernel;
        both(
            self.name(),
            (x, lx),
            (grad, lg),
            (g.out_channels, g.in_per_group(), height, width).into(),
            &ForWeight { geometry: g, pattern },
        )
    }
}

/// With zeros behind the batch to the end of its last vector, which the sparse kernels multiply anyway: they read it where it lies.
fn whole_vectors<T: Number>(g: Geometry) -> Geometry {
    Geometry { batch: g.batch.next_multiple_of(T::kernels().lanes), ..g }
}

/// What is computed from two slices, for any number type. Every element of `out` is written.
trait Compute {
    fn compute<T: Number>(&self, first: &[T], second: &[T], out: &mut [MaybeUninit<T>]);
}

struct Apply<'a> {
    geometry: &'a Geometry,
    pattern: Option<&'a Pattern>,
    kept: &'a KeptWeights,
    direction: Direction,
}

/// What multiplies a weight, which has exact zeros where it is pruned.
enum Way<'a, 'w, T: Number> {
    /// A kernel for all weights.
    Whole(Cow<'w, [T]>),
    /// The same for channels that are kept.
    Compact(&'a compact::KeptChannels, Cow<'w, [T]>),
    Sparse(&'a Pattern),
}

impl Apply<'_> {
    /// What multiplies `weight`.
    fn way<'w, T: Number>(&self, weight: &'w [T]) -> Way<'_, 'w, T> {
        let Some(pattern) = self.pattern else { return Way::Whole(Cow::Borrowed(weight)) };
        let kept = pattern.kept();
        match (cost::choose(self.geometry, &kept, Pass::Map(self.direction), T::kernels().set), kept.channels) {
            (Kernel::Sparse, _) => Way::Sparse(pattern),
            (Kernel::Compact, Some(channels)) => Way::Compact(channels, self.kept.masked(pattern, weight)),
            _ if pattern.density() == 1.0 => Way::Whole(Cow::Borrowed(weight)),
            _ => Way::Whole(self.kept.masked(pattern, weight)),
        }
    }

    /// Writes all of `out`, behind the `epilogue`. Of a forward pass.
    fn apply_ended<T: Number>(
        &self,
        source: &[T],
        weight: &[T],
        epilogue: &Epilogue<'_, T>,
        out: &mut [MaybeUninit<T>],
    ) {
        let g = self.geometry;
        if let Way::Whole(weight) = self.way(weight)
            && whole::apply_ended(g, &weight, source, epilogue, out)
        {
            return;
        }
        self.apply(source, weight, out);
        // SAFETY: every element was written.
        epilogue.apply(unsafe { all_written(out) }, g.out_channels, g.n_outputs() * g.batch);
    }

    /// Writes all of `out`. Whether nothing that is not finite was met comes back; it may say no where nothing was.
    fn apply<T: Number>(&self, source: &[T], weight: &[T], out: &mut [MaybeUninit<T>]) -> bool {
        let (g, direction) = (self.geometry, self.direction);
        let (is_finite, may_multiply_pruned) = match self.way(weight) {
            // Nothing but weights inside the picture is read.
            Way::Whole(weight) => (
                whole::apply(g, direction, &weight, source, out),
                self.pattern.is_some_and(|pattern| pattern.density() < 1.0),
            ),
            Way::Compact(channels, weight) => (compact::apply(channels, g, direction, &weight, source, out), true),
            Way::Sparse(pattern) => {
                let program = pattern.products::<T>(g, direction);
                (self.kept.with(pattern, weight, |kept| sparse::apply(&program, kept, source, out)), true)
            }
        };
        if !is_finite && may_multiply_pruned {
            // SAFETY: every element was written.
            let out = unsafe { all_written(out) };
            mend::map(g, direction, self.pattern.map(Pattern::bits), (weight, source), out, Order::Chwn);
        }
        is_finite
    }
}

impl Compute for Apply<'_> {
    fn compute<T: Number>(&self, source: &[T], weight: &[T], out: &mut [MaybeUninit<T>]) {
        self.apply(source, weight, out);
    }
}

/// The forward pass of a small batch in `[N, C, H, W]`.
struct Unfolded<'a> {
    geometry: &'a Geometry,
    pattern: Option<&'a Pattern>,
    kept: &'a KeptWeights,
}

impl Compute for Unfolded<'_> {
    fn compute<T: Number>(&self, x: &[T], weight: &[T], out: &mut [MaybeUninit<T>]) {
        let g = self.geometry;
        let inner = unfold::unfolded(g);
        let lanes = T::kernels().lanes;
        let few = dots::pass(g, lanes);
        let of_samples = g.is_pixel() && g.batch > 1 && reads_once(&inner.map(Direction::Forward), lanes);
        let pass = match few {
            Some(Pass::Few { vectors }) if of_samples => Pass::Samples { vectors },
            Some(pass) => pass,
            None => Pass::Map(Direction::Forward),
        };
        let is_sparse = self.pattern.is_some_and(|pattern| {
            let kept = Kept::irregular(pattern.density());
            cost::choose(&inner, &kept, pass, T::kernels().set) == Kernel::Sparse
        });
        if few.is_some() && !is_sparse {
            let masked = self.pattern.map(|pattern| self.kept.masked(pattern, weight));
            let is_finite = dots::apply(g, masked.as_deref().unwrap_or(weight), x, out);
            if !is_finite && (masked.is_some() || mend::has_padding(g)) {
                self.mend(weight, x, out);
            }
            return;
        }
        if let Some(pattern) = self.pattern
            // Several pictures of one position would leave the vectors empty.
            && (g.batch == 1 || g.n_outputs() > 1)
            && is_sparse
        {
            let program = pattern.flat_program::<T>(g);
            let is_right = with_buffers::<T, _>(program.n_entries(), 0, |values, _| {
                program.pack(weight, values);
                program.apply(values, x, out);
                !mend::has_padding(g) || mend::are_finite(values)
            });
            if !is_right {
                self.mend(weight, x, out);
            }
            return;
        }
        let &Self { pattern, kept, .. } = self;
        if let Some(pattern) = pattern
            && is_sparse
            && of_samples
        {
            let program = pattern.products::<T>(&inner, Direction::Forward);
            if let Some(product) = SparseProduct::<T>::new(&program) {
                return kept.with(pattern, weight, |kept| product.apply(kept, x, out));
            }
        }
        let inner = if is_sparse { whole_vectors::<T>(inner) } else { inner };
        let apply = Apply { geometry: &inner, pattern, kept, direction: Direction::Forward };
        with_buffers::<T, _>(inner.in_channels * inner.batch, 0, |columns, _| {
            unfold::unfold(g, x, inner.batch, columns);
            let mut is_finite = true;
            unfold::by_picture(g, inner.batch, out, |out| is_finite = apply.apply(columns, weight, out));
            // Taps outside the picture have become columns of zeros.
            if !is_finite && mend::has_padding(g) {
                self.mend(weight, x, out);
            }
        });
    }
}

impl Unfolded<'_> {
    /// `out` has been written.
    fn mend<T: Number>(&self, weight: &[T], x: &[T], out: &mut [MaybeUninit<T>]) {
        // SAFETY: as the callers say.
        let out = unsafe { all_written(out) };
        let bits = self.pattern.map(Pattern::bits);
        mend::map(self.geometry, Direction::Forward, bits, (weight, x), out, Order::Nchw);
    }
}

struct ForWeight<'a> {
    geometry: &'a Geometry,
    pattern: Option<&'a Pattern>,
}

impl Compute for ForWeight<'_> {
    fn compute<T: Number>(&self, x: &[T], grad: &[T], out: &mut [MaybeUninit<T>]) {
        let g = self.geometry;
        let Some(pattern) = self.pattern else {
            return whole::weight_gradient(g, x, grad, None, out);
        };
        let kept = pattern.kept();
        match (cost::choose(g, &kept, Pass::WeightGradient, T::kernels().set), kept.channels) {
            (Kernel::Compact, Some(kept)) => compact::weight_gradient(kept, g, x, grad, pattern.bits(), out),
            _ => whole::weight_gradient(g, x, grad, Some(pattern.bits()), out),
        }
    }
}

/// The forward pass of the convolution that a linear layer's weight gradient is; exact zeros where `pattern` prunes.
struct SwappedProduct<'a> {
    geometry: &'a Geometry,
    pattern: Option<&'a Pattern>,
}

impl Compute for SwappedProduct<'_> {
    fn compute<T: Number>(&self, x: &[T], grad: &[T], out: &mut [MaybeUninit<T>]) {
        dense::apply(self.geometry, Direction::Forward, grad, x, out);
        if let Some(pattern) = self.pattern {
            // SAFETY: the product has written every element.
            pattern.clear_pruned(unsafe { all_written(out) });
        }
    }
}

fn both(
    op: &'static str,
    (a, la): (&CpuStorage, &Layout),
    (b, lb): (&CpuStorage, &Layout),
    shape: Shape,
    compute: &impl Compute,
) -> Result<(CpuStorage, Shape)> {
    let storage = with_real!(a.dtype(), T => {
        let (a, b) = (slice::<T>(op, a, la)?, slice::<T>(op, b, lb)?);
        // SAFETY: `Compute` asks that every element be written.
        T::to_cpu_storage_owned(unsafe { written(shape.elem_count(), |out| compute.compute(a, b, out)) })
    });
    Ok((storage, shape))
}

/// `len` elements that `write` writes.
///
/// # Safety
/// `write` must write every element.
unsafe fn written<T>(len: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut out = Vec::with_capacity(len);
    write(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: the caller's promise.
    unsafe { out.set_len(len) };
    out
}
