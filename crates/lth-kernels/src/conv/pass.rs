//! A pass over slices, for any number type: which kernel runs it, and what it leaves to be mended.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use candle_core::CpuStorage;

use super::cost::{self, Kept, Kernel, Pass};
use super::epilogue::Epilogue;
use super::geometry::{Direction, Geometry};
use super::kernel::table::Number;
use super::product::SparseProduct;
use super::scratch::with_buffers;
use super::tiling::reads_once;
use super::{compact, dense, dots, mend, sparse, unfold, whole};
use crate::layout::Layout as Order;
use crate::parallel::all_written;
use crate::pattern::Pattern;

/// What the first pass over a weight finds out, and the gradient of the input takes from it.
#[derive(Clone, Default)]
pub(super) struct KeptWeights(Arc<Found>);

#[derive(Default)]
struct Found {
    /// The kept values, one behind the other.
    values: OnceLock<CpuStorage>,
    /// Whether all others were seen to be 0.
    is_masked: AtomicBool,
}

impl KeptWeights {
    pub(super) fn with<T: Number, R>(&self, pattern: &Pattern, weight: &[T], work: impl FnOnce(&[T]) -> R) -> R {
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
    pub(super) fn masked<'a, T: Number>(&self, pattern: &Pattern, weight: &'a [T]) -> Cow<'a, [T]> {
        if self.0.is_masked.load(Ordering::Relaxed) {
            return Cow::Borrowed(weight);
        }
        let masked = pattern.masked(weight);
        self.0.is_masked.store(matches!(masked, Cow::Borrowed(_)), Ordering::Relaxed);
        masked
    }
}

/// With zeros behind the batch to the end of its last vector, which the sparse kernels multiply anyway: they read it where it lies.
pub(super) fn whole_vectors<T: Number>(g: Geometry) -> Geometry {
    Geometry { batch: g.batch.next_multiple_of(T::kernels().lanes), ..g }
}

/// What is computed from two slices, for any number type. Every element of `out` is written.
pub(super) trait Compute {
    fn compute<T: Number>(&self, first: &[T], second: &[T], out: &mut [MaybeUninit<T>]);
}

pub(super) struct Apply<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) pattern: Option<&'a Pattern>,
    pub(super) kept: &'a KeptWeights,
    pub(super) direction: Direction,
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
    pub(super) fn apply_ended<T: Number>(
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
    pub(super) fn apply<T: Number>(&self, source: &[T], weight: &[T], out: &mut [MaybeUninit<T>]) -> bool {
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
pub(super) struct Unfolded<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) pattern: Option<&'a Pattern>,
    pub(super) kept: &'a KeptWeights,
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

pub(super) struct ForWeight<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) pattern: Option<&'a Pattern>,
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
pub(super) struct SwappedProduct<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) pattern: Option<&'a Pattern>,
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

/// `len` elements that `write` writes.
///
/// # Safety
/// `write` must write every element.
pub(super) unsafe fn written<T>(len: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut out = Vec::with_capacity(len);
    write(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: the caller's promise.
    unsafe { out.set_len(len) };
    out
}
