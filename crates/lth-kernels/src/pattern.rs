//! Which weights of a layer are kept.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{DType, Device, Result, Tensor};

use crate::bits::unpack;
use crate::composed;
use crate::conv::compact::KeptChannels;
use crate::conv::cost::{Kept, program_kind};
use crate::conv::flat::FlatProgram;
use crate::conv::kernel::table::ProgramKind;
use crate::conv::kernel::tile::QUAD;
use crate::conv::program::{Program, ProgramKey};
use crate::conv::single::adjoint_weight;
use crate::conv::{Direction, Float, Geometry, Number};
use crate::dispatch::multiversion;
use crate::error::Error;
use crate::kept::KeptPlaces;
use crate::parallel::{Shared, all_ranges, for_ranges};
use crate::real::with_values;

/// The kept positions of a masked weight. Cheap to clone; built once per mask.
#[derive(Clone, Debug)]
pub struct Pattern {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    places: KeptPlaces,
    n_weights: usize,
    /// A byte for each, for the kernels that look at them in every pass.
    bytes: OnceLock<Vec<u8>>,
    /// Of a mask with outputs and inputs; found when a convolution first asks.
    kept_channels: OnceLock<KeptChannels>,
    /// Whether every four outputs keep the same places.
    in_blocks: OnceLock<bool>,
    /// The lists for the shapes that were used last.
    programs: Cache<ProgramKey, Program>,
    flat_programs: Cache<ProgramKey, FlatProgram>,
    /// Of a convolution's mask, that of the convolution that its input gradient is.
    adjoint: Cache<(), Pattern>,
}

/// Of the same mask.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (&*self.inner, &*other.inner);
        std::ptr::eq(one, other) || one.places == other.places
    }
}

/// Shapes that a pattern keeps lists for: forward and backward of two batch sizes, in training and in evaluation.
const MAX_PROGRAMS: usize = 8;

impl Pattern {
    /// The pattern of a u8 mask of the weight's shape, 1 = keep.
    ///
    /// # Errors
    /// If the mask is not u8.
    pub fn new(mask: &Tensor) -> Result<Pattern> {
        if mask.dtype() != DType::U8 {
            let (expected, got) = ("u8", mask.dtype());
            return Err(Error::DType { op: "Pattern::new", tensor: "mask", expected, got }.into());
        }
        let on_cpu = mask.to_device(&Device::Cpu)?;
        with_values(&on_cpu, |bytes: &[u8]| Ok(Self::of_bytes(mask.dims().to_vec(), bytes)))
    }

    /// Of a byte for each weight, 0 = pruned.
    fn of_bytes(dims: Vec<usize>, bytes: &[u8]) -> Pattern {
        Pattern {
            inner: Arc::new(Inner {
                places: KeptPlaces::of_bytes(dims, bytes),
                n_weights: bytes.len(),
                bytes: OnceLock::new(),
                kept_channels: OnceLock::new(),
                in_blocks: OnceLock::new(),
                programs: Mutex::default(),
                flat_programs: Mutex::default(),
                adjoint: Mutex::default(),
            }),
        }
    }

    /// The kept fraction, in [0, 1]; 1 for an empty mask.
    pub fn density(&self) -> f64 {
        let n = self.inner.n_weights;
        if n == 0 { 1.0 } else { self.inner.places.n_kept() as f64 / n as f64 }
    }

    /// Where the kept weights are.
    pub fn places(&self) -> &KeptPlaces {
        &self.inner.places
    }

    /// Fails unless `weight` has the mask's shape.
    pub(crate) fn expect_fits(&self, op: &'static str, weight: &Tensor) -> Result<()> {
        Ok(crate::error::expect_shape(op, "weight", weight, self.inner.places.dims())?)
    }

    /// `weight` with exact zeros at the pruned positions.
    pub(crate) fn apply(&self, op: &'static str, weight: &Tensor) -> Result<Tensor> {
        self.expect_fits(op, weight)?;
        let mask = Tensor::from_slice(&self.looked_at(), self.inner.places.dims(), weight.device())?;
        composed::keep(weight, &mask)
    }

    /// A byte for each weight, 0 = pruned.
    pub(crate) fn bits(&self) -> &[u8] {
        self.inner.bytes.get_or_init(|| unpack(self.inner.places.words(), self.inner.n_weights))
    }

    /// The same for a look now and then: not kept for it.
    fn looked_at(&self) -> Cow<'_, [u8]> {
        match self.inner.bytes.get() {
            Some(bytes) => Cow::Borrowed(bytes),
            None => Cow::Owned(unpack(self.inner.places.words(), self.inner.n_weights)),
        }
    }

    /// The outputs and inputs of which anything is kept.
    pub(crate) fn kept_channels(&self) -> Option<&KeptChannels> {
        let &[outputs, inputs, ..] = self.inner.places.dims() else { return None };
        Some(self.inner.kept_channels.get_or_init(|| KeptChannels::new(&self.looked_at(), outputs, inputs)))
    }

    /// What the choice of a kernel depends on.
    pub(crate) fn kept(&self) -> Kept<'_> {
        Kept { density: self.density(), channels: self.kept_channels(), in_blocks: self.in_blocks() }
    }

    /// Whether every four outputs keep the same places.
    fn in_blocks(&self) -> bool {
        *self.inner.in_blocks.get_or_init(|| {
            let per_output = self.inner.places.dims().iter().skip(1).product::<usize>();
            let block = per_output * QUAD;
            let is_block = |bits: &[u8]| {
                let first = &bits[..per_output];
                bits.chunks_exact(per_output).all(|other| other.iter().zip(first).all(|(a, b)| (*a == 0) == (*b == 0)))
            };
            per_output > 0
                && self.inner.n_weights.is_multiple_of(block)
                && self.looked_at().chunks_exact(block).all(is_block)
        })
    }

    /// `weight` with exact zeros at the pruned positions: itself if they are there already, as they are while a masked
    /// network trains (looking costs a quarter of copying).
    pub(crate) fn masked<'a, T: Float>(&self, weight: &'a [T]) -> Cow<'a, [T]> {
        if all_ranges(weight.len(), |at| is_masked(&weight[at.clone()], &self.bits()[at])) {
            return Cow::Borrowed(weight);
        }
        let keep = |(&value, &bit): (&T, &u8)| if bit == 0 { T::default() } else { value };
        Cow::Owned(weight.iter().zip(self.bits()).map(keep).collect())
    }

    /// Writes exact zeros to the pruned positions.
    pub(crate) fn clear_pruned<T: Float>(&self, values: &mut [T]) {
        clear_all_pruned(values, self.bits());
    }

    /// The lists to multiply by in one direction of a convolution, made at the first call.
    pub(crate) fn products<T: Number>(&self, geometry: &Geometry, direction: Direction) -> Arc<Program> {
        let kind = program_kind(geometry, direction, &self.kept(), T::kernels().set);
        self.program::<T>(geometry, direction, kind)
    }

    /// The lists for one direction of a convolution, made at the first call.
    pub(crate) fn program<T: Number>(
        &self,
        geometry: &Geometry,
        direction: Direction,
        kind: ProgramKind,
    ) -> Arc<Program> {
        cached(&self.inner.programs, MAX_PROGRAMS, ProgramKey::new::<T>(geometry, direction, kind), || {
            Program::new::<T>(geometry, direction, kind, self.places(), self.density())
        })
    }

    /// The pattern of `[O, I, H, W]` for the convolution that its input gradient is, made at the first call.
    pub(crate) fn adjoint(&self, geometry: &Geometry) -> Arc<Pattern> {
        let &Geometry { in_channels, out_channels, kernel: [height, width], .. } = geometry;
        cached(&self.inner.adjoint, 1, (), || {
            let bytes = adjoint_weight([out_channels, in_channels, height * width], &self.looked_at());
            Self::of_bytes(vec![in_channels, out_channels, height, width], &bytes)
        })
    }

    /// The lists for a small batch, made at the first call.
    pub(crate) fn flat_program<T: Number>(&self, geometry: &Geometry) -> Arc<FlatProgram> {
        cached(
            &self.inner.flat_programs,
            MAX_PROGRAMS,
            ProgramKey::new::<T>(geometry, Direction::Forward, ProgramKind::Rows),
            || FlatProgram::new::<T>(geometry, &self.looked_at()),
        )
    }
}

multiversion! {
    /// Whether every pruned value is 0.
    fn is_masked[T: Float][T](values: &[T], bits: &[u8]) -> bool {
        // Without branches, so that it becomes vectors.
        !values.iter().zip(bits).fold(false, |found, (&value, &bit)| found | ((value != T::default()) & (bit == 0)))
    }
}

multiversion! {
    /// Writes exact zeros where the bit is 0. A branch would be wrong half the time at a density of one half.
    pub(crate) fn clear_pruned[T: Float][T](values: &mut [T], bits: &[u8]) {
        for (value, &bit) in values.iter_mut().zip(bits) {
            *value = if bit == 0 { T::default() } else { *value };
        }
    }
}

/// [`clear_pruned`] of a whole tensor, in parallel.
pub(crate) fn clear_all_pruned<T: Float>(values: &mut [T], bits: &[u8]) {
    let (len, values) = (values.len(), Shared::new(values));
    for_ranges(len, |at| {
        // SAFETY: the ranges are disjoint.
        clear_pruned(unsafe { values.part(at.clone()) }, &bits[at]);
    });
}

/// What was made for the keys that were asked for last, the latest at the end.
pub(crate) type Cache<K, V> = Mutex<Vec<(K, Arc<V>)>>;

/// What the cache has for `key`, or what `make` gives. Of more than `most`, that goes which was asked for longest ago.
pub(crate) fn cached<K: PartialEq, V>(cache: &Cache<K, V>, most: usize, key: K, make: impl FnOnce() -> V) -> Arc<V> {
    let find = |all: &mut Vec<(K, Arc<V>)>| {
        let at = all.iter().position(|(one, _)| *one == key)?;
        all[at..].rotate_left(1);
        all.last().map(|(_, value)| value.clone())
    };
    // A panic elsewhere leaves complete entries only.
    let lock = || cache.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(value) = find(&mut lock()) {
        return value;
    }
    // Made without the lock, since that is parallel work: a worker that waits inside `make` may take up work that asks for
    // this very lock. Two callers at once make equal values, and the first to end keeps its own.
    let value = Arc::new(make());
    let mut all = lock();
    if let Some(first) = find(&mut all) {
        return first;
    }
    if all.len() == most {
        all.remove(0);
    }
    all.push((key, value.clone()));
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstructionSet;

    #[test]
    fn four_channels_run_together_where_that_gains() -> Result<()> {
        let geometry = |side: usize, groups: usize| Geometry {
            batch: 16,
            in_channels: 4 * groups,
            out_channels: 8,
            groups,
            input: [side, side],
            kernel: [3, 3],
            output: [side, side],
            stride: [1, 1],
            padding: [1, 1],
            dilation: [1, 1],
        };
        type Bit = dyn Fn(usize, usize) -> bool;
        let kind = |set: InstructionSet, bit: &Bit, geometry: &Geometry, direction: Direction| {
            let bits: Vec<u8> = (0..8 * 36).map(|at| u8::from(bit(at / 36, at % 36))).collect();
            let pattern = Pattern::new(&Tensor::from_vec(bits, (8, 4, 3, 3), &Device::Cpu)?)?;
            let program = || pattern.products::<f32>(geometry, direction);
            // What the machine lacks is not tried.
            Ok::<_, candle_core::Error>(set.run(|| program().kind))
        };
        let blocks = |output: usize, place: usize| !(output / 4 + place).is_multiple_of(3);
        let half = |output: usize, place: usize| (output + place).is_multiple_of(2);
        let few = |output: usize, place: usize| (output + place).is_multiple_of(3);
        let (forward, gradient) = (Direction::Forward, Direction::InputGradient);
        let (avx2, avx512) = (InstructionSet::Avx2, InstructionSet::Avx512);
        let cases: [(InstructionSet, &Bit, Geometry, Direction, ProgramKind); 11] = [
            (avx512, &half, geometry(5, 1), forward, ProgramKind::Quads),
            (avx512, &half, geometry(5, 1), gradient, ProgramKind::Quads),
            (avx512, &few, geometry(5, 1), forward, ProgramKind::Rows),
            (avx512, &blocks, geometry(5, 1), forward, ProgramKind::Quads),
            // Around the padding of a small picture go the kernels of single channels; a group of two outputs is too small.
            (avx512, &half, geometry(4, 1), forward, ProgramKind::Rows),
            (avx512, &blocks, geometry(5, 4), forward, ProgramKind::Rows),
            // With fewer registers all four have to keep the same.
            (avx2, &half, geometry(5, 1), forward, ProgramKind::Rows),
            (avx2, &blocks, geometry(5, 1), forward, ProgramKind::Quads),
            (avx2, &blocks, geometry(5, 1), gradient, ProgramKind::Rows),
            (avx2, &blocks, geometry(2, 1), forward, ProgramKind::Rows),
            (avx2, &blocks, geometry(5, 4), forward, ProgramKind::Rows),
        ];
        for (at, (set, bit, geometry, direction, expected)) in cases.into_iter().enumerate() {
            assert!(kind(set, bit, &geometry, direction)?.is_none_or(|kind| kind == expected), "case {at}");
        }
        Ok(())
    }

    #[test]
    fn nobody_waits_for_what_is_being_made() {
        let cache = Cache::default();
        let outer = cached(&cache, 2, 1, || {
            // What a worker takes up while it waits for the others may ask for this very cache.
            assert!(cache.try_lock().is_ok(), "held while `make` works");
            *cached(&cache, 2, 2, || 20) + 1
        });
        assert_eq!((*outer, *cached(&cache, 2, 2, || 0)), (21, 20));
    }

    #[test]
    fn what_was_asked_for_longest_ago_goes() {
        let cache = Cache::default();
        let made = |key: u32| {
            let mut is_made = false;
            let value = cached(&cache, 2, key, || {
                is_made = true;
                key
            });
            assert_eq!(*value, key);
            is_made
        };
        let keys = [(1, true), (2, true), (1, false), (3, true), (1, false), (2, true), (3, true), (2, false)];
        for (key, expected) in keys {
            assert_eq!(made(key), expected, "{key}");
        }
    }
}
