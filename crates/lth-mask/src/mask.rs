//! One tensor's mask: a bit per weight.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};

/// Words that one thread makes at a time.
const WORDS: usize = 1 << 10;

/// One bit per weight of a tensor, 1 = keep, in row-major order.
///
/// Bit `i` is bit `i % 64` of word `i / 64`; in bytes (see [`Mask::to_bytes`]) bit `i % 8` of byte `i / 8`, which is
/// `numpy.unpackbits(…, bitorder="little")`. Bits after the last weight are 0.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Mask {
    shape: Vec<usize>,
    words: Vec<u64>,
    len: usize,
    kept: usize,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask {:?}, {} of {} kept", self.shape, self.kept, self.len)
    }
}

impl Mask {
    /// A mask that keeps everything.
    ///
    /// # Errors
    /// If the shape has more elements than `usize` counts.
    pub fn all_kept(shape: impl Into<Vec<usize>>) -> Result<Self> {
        let (shape, len) = count(shape.into())?;
        let mut words = vec![u64::MAX; len.div_ceil(64)];
        clear_padding(&mut words, len);
        Ok(Self { shape, words, len, kept: len })
    }

    /// A mask that prunes everything.
    ///
    /// # Errors
    /// If the shape has more elements than `usize` counts.
    pub fn all_pruned(shape: impl Into<Vec<usize>>) -> Result<Self> {
        let (shape, len) = count(shape.into())?;
        let words = vec![0; len.div_ceil(64)];
        Ok(Self { shape, words, len, kept: 0 })
    }

    /// A mask that keeps the flat indices for which `keep` says so; asked once for each, in order.
    ///
    /// # Errors
    /// If the shape has more elements than `usize` counts.
    pub fn from_fn(shape: impl Into<Vec<usize>>, mut keep: impl FnMut(usize) -> bool) -> Result<Self> {
        let (shape, len) = count(shape.into())?;
        let words = (0..len.div_ceil(64))
            .map(|word_idx| {
                let start = word_idx * 64;
                (start..len.min(start + 64)).fold(0, |word, i| word | (u64::from(keep(i)) << (i - start)))
            })
            .collect();
        Ok(Self::from_words(shape, words, len))
    }

    /// The mask that a tensor of zeros and ones stands for.
    ///
    /// # Errors
    /// If a value is neither 0 nor 1.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        // On the CPU, where every type exists: Metal has no f64.
        let tensor = tensor.to_device(&Device::Cpu)?;
        if tensor.dtype() == DType::U8 {
            let flat = tensor.flatten_all()?.to_vec1::<u8>()?;
            if let Some(index) = flat.iter().position(|&v| v > 1) {
                let value = f64::from(flat[index]);
                return Err(Error::MaskValue { index, value });
            }
            return Self::from_fn(tensor.dims(), |i| flat[i] == 1);
        }
        let flat = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        if let Some(index) = flat.iter().position(|&v| v != 0.0 && v != 1.0) {
            let value = flat[index];
            return Err(Error::MaskValue { index, value });
        }
        Self::from_fn(tensor.dims(), |i| flat[i] == 1.0)
    }

    /// The mask that keeps what is not 0 in `weight` (f32, f64, f16 or bf16): how a pruned weight says what was pruned.
    ///
    /// # Errors
    /// If the dtype is another.
    pub fn from_nonzero(weight: &Tensor) -> Result<Self> {
        let weight = weight.to_device(&Device::Cpu)?.contiguous()?;
        let (storage, layout) = weight.storage_and_layout();
        let (start, end) = layout.contiguous_offsets().unwrap_or_default();
        // All bits but the sign: −0.0 is 0, NaN is not.
        let words = match &*storage {
            Storage::Cpu(CpuStorage::F32(values)) => packed(&values[start..end], |v, _| v.to_bits() << 1 != 0),
            Storage::Cpu(CpuStorage::F64(values)) => packed(&values[start..end], |v, _| v.to_bits() << 1 != 0),
            Storage::Cpu(CpuStorage::F16(values)) => packed(&values[start..end], |v, _| v.to_bits() << 1 != 0),
            Storage::Cpu(CpuStorage::BF16(values)) => packed(&values[start..end], |v, _| v.to_bits() << 1 != 0),
            _ => return Err(Error::Dtype { got: weight.dtype(), expected: "f32 (or f16, bf16, f64)" }),
        };
        Self::from_packed(weight.dims(), words)
    }

    /// The mask of a shape from its words, which have no bits after the last weight.
    pub(crate) fn from_packed(shape: &[usize], words: Vec<u64>) -> Result<Self> {
        let (shape, len) = count(shape.to_vec())?;
        Ok(Self::from_words(shape, words, len))
    }

    /// A mask of this one's shape; `keep` is asked once for each weight, in order.
    pub(crate) fn same_shape(&self, mut keep: impl FnMut() -> bool) -> Self {
        let mut left = self.len;
        let words = self.words.iter().map(|_| {
            let bits = left.min(64);
            left -= bits;
            (0..bits).fold(0, |word, i| word | u64::from(keep()) << i)
        });
        Self::from_words(self.shape.clone(), words.collect(), self.len)
    }

    fn from_words(shape: Vec<usize>, words: Vec<u64>, len: usize) -> Self {
        debug_assert_eq!(words.len(), len.div_ceil(64));
        let kept = words.iter().map(|w| w.count_ones() as usize).sum();
        Self { shape, words, len, kept }
    }

    /// The mask as a tensor of its shape, u8, 1 = keep: how masks travel between crates.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        let mut values = vec![0u8; self.len];
        for (chunk, &word) in values.chunks_mut(64).zip(&self.words) {
            for (i, value) in chunk.iter_mut().enumerate() {
                *value = (word >> i & 1) as u8;
            }
        }
        Ok(Tensor::from_vec(values, self.shape.as_slice(), device)?)
    }

    /// The bits packed in bytes, lowest bit first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8));
        bytes
    }

    /// The mask that [`Mask::to_bytes`] packed.
    ///
    /// # Errors
    /// If the bytes are not as many as the shape needs, or bits after the last weight are set.
    pub fn from_bytes(shape: impl Into<Vec<usize>>, bytes: &[u8]) -> Result<Self> {
        let (shape, len) = count(shape.into())?;
        let expected = len.div_ceil(8);
        if bytes.len() != expected {
            let got = bytes.len();
            return Err(Error::PackedLength { got, expected });
        }
        let mut words: Vec<u64> = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(word)
            })
            .collect();
        let last = words.last().copied();
        clear_padding(&mut words, len);
        if words.last().copied() != last {
            return Err(Error::PaddingBits);
        }
        Ok(Self::from_words(shape, words, len))
    }

    /// The parameter's shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Weights in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no weight at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Weights kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Weights pruned.
    #[must_use]
    pub fn zeros(&self) -> usize {
        self.len - self.kept
    }

    /// Pruned / all, in [0, 1]; 0 of no weights.
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        if self.len == 0 { 0.0 } else { self.zeros() as f64 / self.len as f64 }
    }

    /// Kept / all: 1 − sparsity.
    #[must_use]
    pub fn density(&self) -> f64 {
        1.0 - self.sparsity()
    }

    /// Whether the weight at this flat index is kept; `None` past the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<bool> {
        (index < self.len).then(|| self.bit(index))
    }

    /// Whether each weight is kept, in row-major order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = bool> + '_ {
        (0..self.len).map(|i| self.bit(i))
    }

    /// The flat indices kept, ascending.
    pub fn kept_indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(word_idx, &word)| ones(word).map(move |bit| word_idx * 64 + bit))
    }

    /// The bits, 64 to a word, lowest first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    fn bit(&self, index: usize) -> bool {
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    /// Keeps what either keeps.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn union(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| a | b)
    }

    /// Keeps what both keep.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn intersection(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| a & b)
    }

    /// Keeps what this one prunes.
    #[must_use]
    pub fn invert(&self) -> Self {
        let mut words: Vec<u64> = self.words.iter().map(|w| !w).collect();
        clear_padding(&mut words, self.len);
        Self::from_words(self.shape.clone(), words, self.len)
    }

    /// The lowest flat index that this mask keeps and `other` does not; `None` if it is nested in `other`.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn first_outside(&self, other: &Self) -> Result<Option<usize>> {
        let outside = self.zip(other, |a, b| a & !b)?;
        let index = outside.kept_indices().next();
        Ok(index)
    }

    fn zip(&self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Result<Self> {
        self.check_shape(&other.shape)?;
        let words = self.words.iter().zip(&other.words).map(|(&a, &b)| op(a, b)).collect();
        Ok(Self::from_words(self.shape.clone(), words, self.len))
    }

    pub(crate) fn check_shape(&self, expected: &[usize]) -> Result<()> {
        if self.shape == expected {
            return Ok(());
        }
        Err(Error::Shape { got: self.shape.clone(), expected: expected.to_vec() })
    }
}

/// The positions of the bits that are set, ascending.
fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(bit)
    })
}

/// A bit for each value of which `keep` says so, 64 to a word, lowest first; `keep` is given the value and its index.
pub(crate) fn packed<T: Copy + Sync>(values: &[T], keep: impl Fn(T, usize) -> bool + Sync) -> Vec<u64> {
    let word = |(word_idx, values): (usize, &[T])| {
        // A byte each, which several values at a time can give, then eight bytes' lowest bits side by side: the product has
        // bit 8·i in its bit 56 + i, and nothing else there.
        let mut bytes = [0u8; 64];
        for (i, (byte, &value)) in bytes.iter_mut().zip(values).enumerate() {
            *byte = keep(value, word_idx * 64 + i).into();
        }
        let eights = bytes.as_chunks::<8>().0.iter().rev();
        eights.fold(0, |word, eight| word << 8 | u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56)
    };
    values.par_chunks(64).with_min_len(WORDS).enumerate().map(word).collect()
}

fn count(shape: Vec<usize>) -> Result<(Vec<usize>, usize)> {
    match shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) {
        Some(len) => Ok((shape, len)),
        None => Err(Error::TooManyElements(shape)),
    }
}

fn clear_padding(words: &mut [u64], len: usize) {
    if !len.is_multiple_of(64)
        && let Some(last) = words.last_mut()
    {
        *last &= (1 << (len % 64)) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_lie_lowest_first_in_bytes() -> Result<()> {
        let mask = Mask::from_fn([2, 5], |i| [0, 3, 8].contains(&i))?;
        assert_eq!(mask.to_bytes(), [0b0000_1001, 0b1]);
        assert_eq!(Mask::from_bytes([2, 5], &mask.to_bytes())?, mask);
        assert_eq!(mask.kept_indices().collect::<Vec<_>>(), [0, 3, 8]);
        assert_eq!((mask.kept(), mask.zeros(), mask.sparsity()), (3, 7, 0.7));
        Ok(())
    }

    #[test]
    fn inverting_leaves_no_bits_after_the_last_weight() -> Result<()> {
        for len in [0, 1, 63, 64, 65, 130] {
            let mask = Mask::from_fn([len], |i| i % 3 == 0)?;
            let inverse = mask.invert();
            assert_eq!(inverse.kept(), mask.zeros());
            assert_eq!(Mask::from_bytes([len], &inverse.to_bytes())?, inverse);
            assert_eq!(mask.union(&inverse)?, Mask::all_kept([len])?);
            assert_eq!(mask.intersection(&inverse)?, Mask::all_pruned([len])?);
        }
        Ok(())
    }

    #[test]
    fn bits_after_the_last_weight_are_refused() {
        assert!(matches!(Mask::from_bytes([3], &[0b1000]), Err(Error::PaddingBits)));
        assert!(matches!(Mask::from_bytes([9], &[0]), Err(Error::PackedLength { got: 1, expected: 2 })));
        assert!(matches!(Mask::from_bytes([usize::MAX, 2], &[0]), Err(Error::TooManyElements(_))));
    }

    #[test]
    fn tensors_hold_only_zeros_and_ones() -> Result<()> {
        let tensor = Tensor::new(&[[0u8, 1], [1, 1]], &Device::Cpu)?;
        let mask = Mask::from_tensor(&tensor)?;
        assert_eq!(mask, Mask::from_tensor(&tensor.to_dtype(DType::F32)?)?);
        assert_eq!(mask.to_tensor(&Device::Cpu)?.to_vec2::<u8>()?, tensor.to_vec2::<u8>()?);
        let two = Tensor::new(&[1u8, 0, 2], &Device::Cpu)?;
        assert!(matches!(Mask::from_tensor(&two), Err(Error::MaskValue { index: 2, value: 2.0 })));
        let half = Tensor::new(&[1f32, f32::NAN], &Device::Cpu)?;
        assert!(matches!(Mask::from_tensor(&half), Err(Error::MaskValue { index: 1, .. })));
        Ok(())
    }

    #[test]
    fn the_first_weight_outside_is_named() -> Result<()> {
        let large = Mask::from_fn([70], |i| i % 2 == 0)?;
        let small = Mask::from_fn([70], |i| i % 4 == 0)?;
        assert_eq!(small.first_outside(&large)?, None);
        assert_eq!(large.first_outside(&small)?, Some(2));
        assert!(matches!(small.union(&Mask::all_kept([7, 10])?), Err(Error::Shape { .. })));
        Ok(())
    }
}
