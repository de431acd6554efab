//! Where the kept values of a masked tensor are.

use candle_core::{DType, Result, Tensor};

use std::mem::MaybeUninit;

use crate::bits::{WORD, count, pack, packed};
use crate::compress::{compress, expand};
use crate::error::{expect_dtype, expect_shape};
use crate::parallel::{PIECE, Shared, all_ranges, all_written, for_ranges};
use crate::real::{Real, has_kernels, tensor, with_real, with_values};

/// Elements whose values are moved at a time: they stay in the first cache.
pub(crate) const BLOCK: usize = 1024;

/// Where the kept values of a masked tensor are, a bit for each: what lets averages of the kept values alone be kept, one
/// behind the other in row-major order.
///
/// ```
/// # use candle_core::{Device, Tensor};
/// # use lth_kernels::optim::KeptPlaces;
/// let mask = Tensor::new(&[[1u8, 0, 0], [0, 1, 0]], &Device::Cpu)?;
/// let places = KeptPlaces::new(&mask, 3)?.expect("two are kept");
/// let kept = places.gather(&Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.]], &Device::Cpu)?)?;
/// assert_eq!(kept.to_vec1::<f32>()?, [1., 5.]);
/// assert_eq!(places.scatter(&kept)?.to_vec2::<f32>()?, [[1., 0., 0.], [0., 5., 0.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPlaces {
    dims: Vec<usize>,
    /// Lowest bit first.
    words: Vec<u64>,
    /// Kept values before each piece of [`PIECE`] elements, and all of them at the end.
    before: Vec<usize>,
}

impl KeptPlaces {
    /// Those of `mask`, u8 on the CPU, 0 = pruned; `None` if more than `most` are kept.
    ///
    /// # Errors
    /// If the mask is not u8 or not on the CPU.
    pub fn new(mask: &Tensor, most: usize) -> Result<Option<Self>> {
        expect_dtype("KeptPlaces::new", "mask", mask, DType::U8)?;
        with_values(mask, |bits: &[u8]| {
            if count(bits) > most {
                return Ok(None);
            }
            Ok(Some(Self::of_bytes(mask.dims().to_vec(), bits)))
        })
    }

    /// Of a byte for each element, 0 = pruned.
    pub(crate) fn of_bytes(dims: Vec<usize>, bytes: &[u8]) -> Self {
        let words = pack(bytes);
        let mut before = vec![0];
        for piece in words.chunks(PIECE / WORD) {
            before.push(before[before.len() - 1] + n_kept(piece));
        }
        Self { dims, words, before }
    }

    /// Whether they are those of `mask`.
    ///
    /// # Errors
    /// As [`KeptPlaces::new`].
    pub fn are_of(&self, mask: &Tensor) -> Result<bool> {
        expect_dtype("KeptPlaces::are_of", "mask", mask, DType::U8)?;
        if mask.dims() != self.dims {
            return Ok(false);
        }
        with_values(mask, |bits: &[u8]| {
            Ok(all_ranges(bits.len(), |at| {
                let words = &self.words[at.start / WORD..at.end.div_ceil(WORD)];
                words.iter().zip(bits[at].chunks(WORD)).all(|(word, bits)| *word == packed(bits))
            }))
        })
    }

    /// The mask's shape.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// How many values are kept.
    pub fn n_kept(&self) -> usize {
        self.before[self.before.len() - 1]
    }

    /// The kept values of `dense`, which has the mask's shape: `[n_kept]`.
    ///
    /// # Errors
    /// If `dense` has another shape, or is not f32 or f64 on the CPU.
    pub fn gather(&self, dense: &Tensor) -> Result<Tensor> {
        self.expect("KeptPlaces::gather", dense, &self.dims)?;
        with_real!(dense.dtype(), T => with_values(dense, |dense: &[T]| {
            tensor(self.gathered(dense), &[self.n_kept()])
        }))
    }

    /// The kept values of `dense`.
    pub(crate) fn gathered<T: Copy + Default + Send + Sync>(&self, dense: &[T]) -> Vec<T> {
        let mut kept = vec![T::default(); self.n_kept()];
        self.gather_to(dense, &mut kept);
        kept
    }

    /// Writes the kept values of `dense` to `kept`.
    pub(crate) fn gather_to<T: Copy + Default + Send + Sync>(&self, dense: &[T], kept: &mut [T]) {
        assert_eq!((dense.len(), kept.len()), (self.dims.iter().product(), self.n_kept()));
        let shared = Shared::new(kept);
        for_ranges(dense.len(), |at| {
            // SAFETY: the kept values of disjoint ranges.
            let kept = unsafe { shared.part(self.range(at.start)) };
            compress(self.words_of(at.start), &dense[at], kept);
        });
    }

    /// The inverse of [`KeptPlaces::gather`]: `kept` at its places, 0 everywhere else.
    ///
    /// # Errors
    /// If `kept` is not `[n_kept]`, or is not f32 or f64 on the CPU.
    pub fn scatter(&self, kept: &Tensor) -> Result<Tensor> {
        self.expect("KeptPlaces::scatter", kept, &[self.n_kept()])?;
        with_real!(kept.dtype(), T => with_values(kept, |kept: &[T]| {
            tensor(self.scattered(kept), &self.dims)
        }))
    }

    /// `kept` at its places, 0 everywhere else.
    pub(crate) fn scattered<T: Copy + Default + Send + Sync>(&self, kept: &[T]) -> Vec<T> {
        let len = self.dims.iter().product();
        let mut dense = Vec::with_capacity(len);
        self.scatter_to(kept, &mut dense.spare_capacity_mut()[..len]);
        // SAFETY: all of it was written.
        unsafe { dense.set_len(len) };
        dense
    }

    /// Writes all of `dense`: `kept` at its places, 0 everywhere else.
    pub(crate) fn scatter_to<T: Copy + Default + Send + Sync>(&self, kept: &[T], dense: &mut [MaybeUninit<T>]) {
        assert_eq!((dense.len(), kept.len()), (self.dims.iter().product(), self.n_kept()));
        let (len, shared) = (dense.len(), Shared::new(dense));
        for_ranges(len, |at| {
            // SAFETY: the ranges are disjoint.
            let dense = unsafe { shared.part(at.clone()) };
            dense.fill(MaybeUninit::new(T::default()));
            // SAFETY: just now.
            let dense = unsafe { all_written(dense) };
            expand(self.words_of(at.start), &kept[self.range(at.start)], dense);
        });
    }

    /// A bit for each element, 64 to a word, lowest first.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// What `values`, those of these places, are at the places of `to`, a mask of the same shape: 0 where there was none.
    /// To the bit `to.gather(&self.scatter(values)?)`, without the tensor of the whole shape.
    ///
    /// # Errors
    /// If the masks differ in shape, `values` is not `[n_kept]`, or is not f32 or f64 on the CPU.
    pub fn moved(&self, values: &Tensor, to: &KeptPlaces) -> Result<Tensor> {
        let op = "KeptPlaces::moved";
        self.expect(op, values, &[self.n_kept()])?;
        if self.dims != to.dims {
            candle_core::bail!("{op}: a mask of shape {:?}, expected {:?}", to.dims, self.dims);
        }
        with_real!(values.dtype(), T => with_values(values, |values: &[T]| {
            let mut moved = vec![T::ZERO; to.n_kept()];
            let shared = Shared::new(&mut moved);
            for_ranges(self.dims.iter().product(), |at| {
                // SAFETY: the kept values of disjoint ranges.
                let mut moved = unsafe { shared.part(to.range(at.start)) };
                let mut values = &values[self.range(at.start)];
                let mut dense = [T::ZERO; BLOCK];
                let words = self.words_of(at.start).chunks(BLOCK / WORD).zip(to.words_of(at.start).chunks(BLOCK / WORD));
                for (start, (old, new)) in at.clone().step_by(BLOCK).zip(words) {
                    let dense = &mut dense[..BLOCK.min(at.end - start)];
                    let (of_block, others) = values.split_at(n_kept(old));
                    expand(old, of_block, dense);
                    values = others;
                    let (of_block, others) = std::mem::take(&mut moved).split_at_mut(n_kept(new));
                    compress(new, dense, of_block);
                    moved = others;
                }
            });
            tensor(moved, &[to.n_kept()])
        }))
    }

    fn expect(&self, op: &'static str, values: &Tensor, dims: &[usize]) -> Result<()> {
        expect_shape(op, "values", values, dims)?;
        if !has_kernels(values) {
            candle_core::bail!(
                "{op}: values are {:?} on {:?}, expected f32 or f64 on the CPU",
                values.dtype(),
                values.device()
            );
        }
        Ok(())
    }

    /// Which of the kept values are of the piece that begins with element `start`.
    pub(crate) fn range(&self, start: usize) -> std::ops::Range<usize> {
        let piece = start / PIECE;
        self.before[piece]..self.before[piece + 1]
    }

    /// The words of the piece that begins with element `start`.
    pub(crate) fn words_of(&self, start: usize) -> &[u64] {
        let first = start / WORD;
        &self.words[first..self.words.len().min(first + PIECE / WORD)]
    }
}

/// How many values `words` keep.
pub(crate) fn n_kept(words: &[u64]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}
