//! Convolution for inference: the weight no longer changes, so its kept values are packed once.

use std::mem::MaybeUninit;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout as Strides, Result, Shape, Tensor};

use super::cost::{self, Kept, Kernel, Pass};
use super::epilogue::Epilogue;
use super::flat::FlatProgram;
use super::geometry::{Direction, Geometry};
use super::kernel::table::{Number, ProgramKind};
use super::program::{Program, ProgramKey};
use super::scratch::with_buffers;
use super::{Conv2dParams, compact, dense, dots, geometry, mend, native_layout, sparse, unfold, whole};
use crate::error::{expect_dtype, expect_rank, expect_shape};
use crate::layout::{Layout, to_layout};
use crate::parallel::all_written;
use crate::pattern::{Cache, Pattern, cached};

/// A convolution with a constant f32 weight on the CPU, followed by bias, residual and ReLU in one pass. It has no
/// backward pass; for training see [`conv2d`](super::conv2d).
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use lth_kernels::{Conv2dParams, PackedConv2d, Pattern};
///
/// # fn main() -> candle_core::Result<()> {
/// let weight = Tensor::ones((4, 3, 3, 3), DType::F32, &Device::Cpu)?;
/// let mask = Tensor::ones((4, 3, 3, 3), DType::U8, &Device::Cpu)?;
/// let bias = Tensor::full(-20f32, 4, &Device::Cpu)?;
/// let params = Conv2dParams { padding: (1, 1), ..Default::default() };
/// let conv = PackedConv2d::new(&weight, Some(&bias), Some(&Pattern::new(&mask)?), true, &params)?;
/// let y = conv.forward(&Tensor::ones((1, 3, 4, 4), DType::F32, &Device::Cpu)?, None)?;
/// assert_eq!(y.get(0)?.get(0)?.get(0)?.to_vec1::<f32>()?, [0.0, 0.0, 0.0, 0.0]);
/// assert_eq!(y.get(0)?.get(0)?.get(1)?.to_vec1::<f32>()?, [0.0, 7.0, 7.0, 0.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PackedConv2d {
    inner: Arc<Inner>,
    layout: Layout,
}

#[derive(Debug)]
struct Inner {
    weight_shape: Vec<usize>,
    weight: Vec<f32>,
    /// Whether all of the weight is.
    is_finite: bool,
    bias: Option<Vec<f32>>,
    pattern: Option<Pattern>,
    relu: bool,
    params: Conv2dParams,
    /// By layout too, since handles of several layouts share it.
    packed: Cache<(ProgramKey, Layout), Lists>,
}

#[derive(Debug)]
enum Lists {
    Chwn(Arc<Program>, Vec<f32>),
    Nchw(Arc<FlatProgram>, Vec<f32>),
}

/// Shapes whose packed values are kept.
const MAX_SHAPES: usize = 4;

impl PackedConv2d {
    /// `weight` `[O, I / groups, KH, KW]` and `bias` `[O]` are copied. Where `pattern` has zeros the weight counts as 0.
    ///
    /// # Errors
    /// If a tensor is not f32 or has a wrong shape.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        pattern: Option<&Pattern>,
        relu: bool,
        params: &Conv2dParams,
    ) -> Result<Self> {
        let op = "PackedConv2d::new";
        expect_rank(op, "weight", weight, 4)?;
        Self::of_values(op, weight, bias, pattern, relu, params)
    }

    /// As `new`, with a weight of rank 2 for pictures of one pixel, too.
    fn of_values(
        op: &'static str,
        weight: &Tensor,
        bias: Option<&Tensor>,
        pattern: Option<&Pattern>,
        relu: bool,
        params: &Conv2dParams,
    ) -> Result<Self> {
        expect_dtype(op, "weight", weight, DType::F32)?;
        if let Some(bias) = bias {
            expect_dtype(op, "bias", bias, DType::F32)?;
            expect_shape(op, "bias", bias, &weight.dims()[..1])?;
        }
        if let Some(pattern) = pattern {
            pattern.expect_fits(op, weight)?;
        }
        let values = weight.flatten_all()?.to_vec1::<f32>()?;
        let is_finite = mend::are_finite(&values);
        let mut weight_shape = weight.dims().to_vec();
        weight_shape.resize(4, 1);
        Ok(Self {
            inner: Arc::new(Inner {
                weight_shape,
                weight: match pattern {
                    Some(pattern) => pattern.masked(&values).into_owned(),
                    None => values,
                },
                is_finite,
                bias: bias.map(Tensor::to_vec1).transpose()?,
                pattern: pattern.cloned(),
                relu,
                params: *params,
                packed: Cache::default(),
            }),
            layout: params.layout,
        })
    }

    /// The same convolution for feature maps in another layout; both share what is packed.
    #[must_use]
    pub fn with_layout(&self, layout: Layout) -> Self {
        Self { inner: self.inner.clone(), layout }
    }

    /// `relu(conv(x) + bias + residual)`, without the parts that were not asked for, in `x`'s layout.
    ///
    /// # Errors
    /// If `x` does not fit the weight, or `residual` the output.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let op = "PackedConv2d::forward";
        let params = &Conv2dParams { layout: self.layout, ..self.inner.params };
        expect_rank(op, "x", x, 4)?;
        expect_dtype(op, "x", x, DType::F32)?;
        let geometry = geometry(op, x.dims(), &self.inner.weight_shape, params)?;
        let Geometry { batch, out_channels, output, .. } = geometry;
        if batch * out_channels == 0 {
            let shape = params.layout.shape(batch, out_channels, output[0], output[1]);
            return Tensor::zeros(&shape, DType::F32, x.device());
        }
        // Vectors run over positions or over the batch: a linear layer has one position.
        let is_flat = geometry.batch > 1 && 2 * geometry.n_outputs() <= geometry.batch;
        let mut layout = if is_flat { Layout::Chwn } else { native_layout(geometry.batch, params.layout) };
        let few = dots::pass(&geometry, f32::kernels().lanes);
        let pass = few.unwrap_or(Pass::Map(Direction::Forward));
        if few.is_some() && self.inner.kernel(&geometry, layout, pass) == Kernel::Dense {
            layout = Layout::Nchw;
        }
        let into = |t: &Tensor| to_layout(&t.detach(), params.layout, layout)?.contiguous();
        let residual = match residual {
            Some(residual) => {
                let g = &geometry;
                let shape = params.layout.shape(g.batch, g.out_channels, g.output[0], g.output[1]);
                expect_shape(op, "residual", residual, &shape)?;
                expect_dtype(op, "residual", residual, DType::F32)?;
                Some(into(residual)?)
            }
            None => None,
        };
        let run = Run { inner: &self.inner, geometry, layout, pass };
        let y = match residual {
            // Added by the finishing pass, which reads it beside the sums.
            Some(residual) => into(x)?.apply_op2_no_bwd(&residual, &run)?,
            None => into(x)?.apply_op1_no_bwd(&run)?,
        };
        to_layout(&y, layout, params.layout)
    }
}

/// A linear layer with a constant f32 weight on the CPU, followed by bias and ReLU: what [`PackedConv2d`] is for pictures
/// of one pixel.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use lth_kernels::PackedLinear;
///
/// # fn main() -> candle_core::Result<()> {
/// let weight = Tensor::new(&[[1f32, 2.], [-1., 0.]], &Device::Cpu)?;
/// let y = PackedLinear::new(&weight, None, None, true)?.forward(&Tensor::new(&[[3f32, 4.]], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[11., 0.]]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PackedLinear(PackedConv2d);

impl PackedLinear {
    /// `weight` `[O, I]` and `bias` `[O]` are copied. Where `pattern` has zeros the weight counts as 0.
    ///
    /// # Errors
    /// If a tensor is not f32 or has a wrong shape.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, pattern: Option<&Pattern>, relu: bool) -> Result<Self> {
        let op = "PackedLinear::new";
        expect_rank(op, "weight", weight, 2)?;
        PackedConv2d::of_values(op, weight, bias, pattern, relu, &Conv2dParams::default()).map(Self)
    }

    /// The output `[N, O]` for `x` `[N, I]`.
    ///
    /// # Errors
    /// If `x` does not fit the weight.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        expect_rank("PackedLinear::forward", "x", x, 2)?;
        let (n, inputs) = x.dims2()?;
        let y = self.0.forward(&x.reshape((n, inputs, 1, 1))?, None)?;
        y.reshape((n, self.0.inner.weight_shape[0]))
    }
}

struct Run<'a> {
    inner: &'a Inner,
    geometry: Geometry,
    layout: Layout,
    pass: Pass,
}

impl Run<'_> {
    fn run(&self, x: &[f32], residual: Option<&[f32]>) -> (CpuStorage, Shape) {
        let g = &self.geometry;
        let len = g.batch * g.out_channels * g.n_outputs();
        let mut out: Vec<f32> = Vec::with_capacity(len);
        let spare = &mut out.spare_capacity_mut()[..len];
        let epilogue = Epilogue { bias: self.inner.bias.as_deref(), residual, relu: self.inner.relu };
        let is_ended = self.layout == Layout::Chwn
            && self.inner.is_whole(g, self.pass)
            && whole::apply_ended(g, &self.inner.weight, x, &epilogue, spare);
        if !is_ended {
            self.inner.apply(g, self.layout, self.pass, x, spare);
        }
        // SAFETY: the kernels have written all `len` elements.
        unsafe { out.set_len(len) };
        if !is_ended {
            // In both layouts a channel's numbers lie together, for the whole batch or for a picture.
            let per_block = match self.layout {
                Layout::Chwn => g.n_outputs() * g.batch,
                Layout::Nchw => g.n_outputs(),
            };
            epilogue.apply(&mut out, g.out_channels, per_block);
        }
        (CpuStorage::F32(out), Shape::from(&self.layout.shape(g.batch, g.out_channels, g.output[0], g.output[1])))
    }
}

impl Inner {
    /// What runs the layer, where its maps are in `layout`.
    fn kernel(&self, g: &Geometry, layout: Layout, pass: Pass) -> Kernel {
        let Some(pattern) = &self.pattern else { return Kernel::Dense };
        let set = f32::kernels().set;
        // A small batch is unfolded first, and its columns are no channels.
        match layout {
            Layout::Chwn => cost::choose_packed(g, &pattern.kept(), pass, set),
            Layout::Nchw => cost::choose_packed(&unfold::unfolded(g), &Kept::irregular(pattern.density()), pass, set),
        }
    }

    /// Whether every weight is multiplied where maps are in `[C, H, W, N]`, on a kernel for all of them.
    fn is_whole(&self, g: &Geometry, pass: Pass) -> bool {
        let is_whole = |pattern: &Pattern| match self.kernel(g, Layout::Chwn, pass) {
            Kernel::Sparse => false,
            Kernel::Compact => pattern.kept().channels.is_none(),
            _ => true,
        };
        g.in_channels > 0 && self.pattern.as_ref().is_none_or(is_whole)
    }

    fn apply(&self, g: &Geometry, layout: Layout, pass: Pass, x: &[f32], out: &mut [MaybeUninit<f32>]) {
        if g.in_channels == 0 {
            out.fill(MaybeUninit::new(0.0));
            return;
        }
        let mend = |out: &mut [MaybeUninit<f32>]| {
            // SAFETY: the kernels have written every element.
            let out = unsafe { all_written(out) };
            let bits = self.pattern.as_ref().map(Pattern::bits);
            mend::map(g, Direction::Forward, bits, (&self.weight, x), out, layout);
        };
        // Zeros of padding are read by every kernel but the dense one in its own layout.
        let padding_counts = mend::has_padding(g) && !self.is_finite;
        let is_masked = self.pattern.as_ref().is_some_and(|pattern| pattern.density() < 1.0);
        if let Some(pattern) = &self.pattern {
            match (self.kernel(g, layout, pass), pattern.kept().channels) {
                (Kernel::Sparse, _) => {
                    match &*self.packed(pattern, g, layout) {
                        Lists::Chwn(program, values) => sparse::apply_packed(program, values, x, out),
                        Lists::Nchw(program, values) => program.apply(values, x, out),
                    }
                    if padding_counts {
                        mend(out);
                    }
                    return;
                }
                (Kernel::Compact, Some(kept)) => {
                    if !compact::apply(kept, g, Direction::Forward, &self.weight, x, out) {
                        mend(out);
                    }
                    return;
                }
                _ => {}
            }
        }
        let is_right = match layout {
            Layout::Nchw if matches!(pass, Pass::Few { .. }) => {
                dots::apply(g, &self.weight, x, out) || !(is_masked || padding_counts)
            }
            Layout::Chwn => whole::apply(g, Direction::Forward, &self.weight, x, out) || !is_masked,
            Layout::Nchw => {
                with_buffers::<f32, _>(g.in_channels * g.n_taps() * g.batch * g.n_outputs(), 0, |columns, _| {
                    let inner = unfold::unfolded(g);
                    let mut is_finite = true;
                    unfold::unfold(g, x, inner.batch, columns);
                    unfold::by_picture(g, inner.batch, out, |out| {
                        is_finite = dense::apply(&inner, Direction::Forward, &self.weight, columns, out);
                    });
                    is_finite || !(is_masked || padding_counts)
                })
            }
        };
        if !is_right {
            mend(out);
        }
    }

    fn packed(&self, pattern: &Pattern, g: &Geometry, layout: Layout) -> Arc<Lists> {
        let key = (ProgramKey::new::<f32>(g, Direction::Forward, ProgramKind::Rows), layout);
        cached(&self.packed, MAX_SHAPES, key, || match layout {
            Layout::Chwn => {
                let program = pattern.products::<f32>(g, Direction::Forward);
                let values = sparse::packed(&program, &pattern.places().gathered(&self.weight));
                Lists::Chwn(program, values)
            }
            Layout::Nchw => {
                let program = pattern.flat_program::<f32>(g);
                let mut values = vec![0.0; program.n_entries()];
                program.pack(&self.weight, &mut values);
                Lists::Nchw(program, values)
            }
        })
    }
}

fn numbers<'a>(storage: &'a CpuStorage, strides: &Strides) -> Result<&'a [f32]> {
    let op = "PackedConv2d::forward";
    let (from, to) = strides.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op })?;
    Ok(&storage.as_slice::<f32>()?[from..to])
}

impl CustomOp1 for Run<'_> {
    fn name(&self) -> &'static str {
        "packed conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, strides: &Strides) -> Result<(CpuStorage, Shape)> {
        Ok(self.run(numbers(x, strides)?, None))
    }
}

impl CustomOp2 for Run<'_> {
    fn name(&self) -> &'static str {
        "packed conv2d with residual"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Strides, r: &CpuStorage, lr: &Strides) -> Result<(CpuStorage, Shape)> {
        Ok(self.run(numbers(x, lx)?, Some(numbers(r, lr)?)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_sparse_linear_layer_runs_along_the_batch_from_two_rows_on() -> Result<()> {
        // A vector over the single position of a linear layer would do one multiplication at a time.
        let one = Device::Cpu;
        let bits: Vec<u8> = (0..64 * 64).map(|i| u8::from(i % 50 == 0)).collect();
        let pattern = Pattern::new(&Tensor::from_vec(bits, (64, 64), &one)?)?;
        for batch in [2, 3, 4, 8, 15, 16, 17] {
            let layer = PackedLinear::new(&Tensor::ones((64, 64), DType::F32, &one)?, None, Some(&pattern), false)?;
            layer.forward(&Tensor::ones((batch, 64), DType::F32, &one)?)?;
            let made = layer.0.inner.packed.lock().expect("no panic before");
            let along: Vec<_> =
                made.iter().map(|((_, layout), lists)| (*layout, matches!(**lists, Lists::Chwn(..)))).collect();
            assert_eq!(along, [(Layout::Chwn, true)], "batch {batch}");
        }
        Ok(())
    }
}
