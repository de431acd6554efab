//! The convolution as candle operators: forward, and the two gradients where they are asked for.
//!
//! The gradients run in `[C, H, W, N]`; a small batch in `[N, C, H, W]` is brought there first, but for a few pictures of many
//! positions, which run one by one.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType};

use super::cost::{self, Kernel, Pass};
use super::epilogue::Epilogue;
use super::geometry::{Direction, Geometry};
use super::kernel::table::{Number, ProgramKind};
use super::pass::{Apply, Compute, ForWeight, KeptWeights, SwappedProduct, Unfolded, whole_vectors, written};
use super::product::SparseProduct;
use super::{mend, single, sparse};
use crate::elementwise;
use crate::forced::Forced;
use crate::layout::{Layout as Order, to_layout, transposed_rows};
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
