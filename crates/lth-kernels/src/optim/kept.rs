//! Where the kept values of a masked tensor are.

use candle_core::{DType, Result, Tensor};

use super::compress::{compress, expand};
use crate::bits::{WORD, count, pack, packed};
use crate::error::{expect_dtype, expect_shape};
use crate::parallel::{PIECE, Shared, for_ranges};
use crate::real::{Real, has_kernels, tensor, with_real, with_values};

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
            let words = pack(bits);
            let mut before = vec![0];
            for piece in words.chunks(PIECE / WORD) {
                let in_piece: usize = piece.iter().map(|word| word.count_ones() as usize).sum();
                before.push(before[before.len() - 1] + in_piece);
            }
            Ok(Some(Self { dims: mask.dims().to_vec(), words, before }))
        })
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
            let is_other = std::sync::atomic::AtomicBool::new(false);
            for_ranges(bits.len(), |at| {
                let words = &self.words[at.start / WORD..at.end.div_ceil(WORD)];
                if words.iter().zip(bits[at].chunks(WORD)).any(|(word, bits)| *word != packed(bits)) {
                    is_other.store(true, std::sync::atomic::Ordering::Relaxed);
                }
            });
            Ok(!is_other.into_inner())
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
            let mut kept = vec![T::ZERO; self.n_kept()];
            let shared = Shared::new(&mut kept);
            for_ranges(dense.len(), |at| {
                // SAFETY: the kept values of disjoint ranges.
                let kept = unsafe { shared.part(self.range(at.start)) };
                compress(self.words_of(at.start), &dense[at], kept);
            });
            tensor(kept, &[self.n_kept()])
        }))
    }

    /// The inverse of [`KeptPlaces::gather`]: `kept` at its places, 0 everywhere else.
    ///
    /// # Errors
    /// If `kept` is not `[n_kept]`, or is not f32 or f64 on the CPU.
    pub fn scatter(&self, kept: &Tensor) -> Result<Tensor> {
        self.expect("KeptPlaces::scatter", kept, &[self.n_kept()])?;
        with_real!(kept.dtype(), T => with_values(kept, |kept: &[T]| {
            let mut dense = vec![T::ZERO; self.dims.iter().product()];
            let (len, shared) = (dense.len(), Shared::new(&mut dense));
            for_ranges(len, |at| {
                // SAFETY: the ranges are disjoint.
                let dense = unsafe { shared.part(at.clone()) };
                expand(self.words_of(at.start), &kept[self.range(at.start)], dense);
            });
            tensor(dense, &self.dims)
        }))
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
                let moved = unsafe { shared.part(to.range(at.start)) };
                let (mut from, mut n) = (&values[self.range(at.start)], 0);
                for (old, new) in self.words_of(at.start).iter().zip(to.words_of(at.start)) {
                    let mut left = *new;
                    while left != 0 {
                        let bit = left & left.wrapping_neg();
                        if old & bit != 0 {
                            moved[n] = from[(old & (bit - 1)).count_ones() as usize];
                        }
                        left &= left - 1;
                        n += 1;
                    }
                    from = &from[old.count_ones() as usize..];
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
    pub(super) fn range(&self, start: usize) -> std::ops::Range<usize> {
        let piece = start / PIECE;
        self.before[piece]..self.before[piece + 1]
    }

    /// The words of the piece that begins with element `start`.
    pub(super) fn words_of(&self, start: usize) -> &[u64] {
        let first = start / WORD;
        &self.words[first..self.words.len().min(first + PIECE / WORD)]
    }
}
