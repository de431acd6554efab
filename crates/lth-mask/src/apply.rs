//! Masks on tensors: what is pruned becomes exactly 0.

use candle_core::{CpuStorage, CustomOp1, DType, InplaceOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::error::Result;
use crate::mask::Mask;

/// Values that one thread takes at a time; a multiple of 64.
const CHUNK: usize = 1 << 16;

impl Mask {
    /// The tensor with what is pruned as exactly 0.0, NaN and infinity too; gradients pass through what is kept. It shares
    /// no storage with `tensor`, also where nothing is pruned: it does not change where that is a variable that is set.
    ///
    /// # Errors
    /// If the shapes differ, or the dtype is no float.
    pub fn apply(&self, tensor: &Tensor) -> Result<Tensor> {
        self.check(tensor)?;
        if self.zeros() == 0 {
            return Ok(tensor.copy()?);
        }
        if tensor.device().is_cpu() {
            return Ok(tensor.contiguous()?.apply_op1(Masked(self.clone()))?);
        }
        let mask = self.to_tensor(tensor.device())?;
        Ok(mask.where_cond(tensor, &tensor.zeros_like()?)?)
    }

    /// Sets what is pruned to exactly 0.0 in the tensor's own storage: every tensor that shares it changes, a
    /// `candle_core::Var` among them. On the CPU nothing is allocated.
    ///
    /// # Errors
    /// If the shapes differ, the dtype is no float, or the tensor is a view that is not contiguous.
    pub fn apply_in_place(&self, tensor: &Tensor) -> Result<()> {
        self.check(tensor)?;
        if self.zeros() == 0 {
            return Ok(());
        }
        if tensor.device().is_cpu() {
            return Ok(tensor.inplace_op1(&Masking(self))?);
        }
        let masked = self.apply(&tensor.detach())?.contiguous()?;
        Ok(tensor.slice_set(&masked, 0, 0)?)
    }

    fn check(&self, tensor: &Tensor) -> Result<()> {
        self.check_shape(tensor.dims())?;
        match tensor.dtype() {
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => Ok(()),
            got => Err(crate::Error::Dtype { got, expected: "a float" }),
        }
    }
}

/// Out of place, with a backward pass.
struct Masked(Mask);

impl CustomOp1 for Masked {
    fn name(&self) -> &'static str {
        "mask"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (start, end) = range(layout)?;
        let words = self.0.words();
        let out = match storage {
            CpuStorage::F32(v) => CpuStorage::F32(masked(&v[start..end], words, clear_word_f32)),
            CpuStorage::F64(v) => CpuStorage::F64(masked(&v[start..end], words, clear_word)),
            CpuStorage::F16(v) => CpuStorage::F16(masked(&v[start..end], words, clear_word)),
            CpuStorage::BF16(v) => CpuStorage::BF16(masked(&v[start..end], words, clear_word)),
            _ => candle_core::bail!("mask: expected a float tensor"),
        };
        Ok((out, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.0.apply(grad).map(Some).map_err(candle_core::Error::wrap)
    }
}

/// In place.
struct Masking<'a>(&'a Mask);

impl InplaceOp1 for Masking<'_> {
    fn name(&self) -> &'static str {
        "mask"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (start, end) = range(layout)?;
        let words = self.0.words();
        match storage {
            CpuStorage::F32(v) => clear(&mut v[start..end], words, clear_word_f32),
            CpuStorage::F64(v) => clear(&mut v[start..end], words, clear_word),
            CpuStorage::F16(v) => clear(&mut v[start..end], words, clear_word),
            CpuStorage::BF16(v) => clear(&mut v[start..end], words, clear_word),
            _ => candle_core::bail!("mask: expected a float tensor"),
        }
        Ok(())
    }
}

fn range(layout: &Layout) -> candle_core::Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some(range) => Ok(range),
        None => candle_core::bail!("mask: expected a contiguous tensor"),
    }
}

/// Sets each value whose bit is 0 to zero; at most 64 values.
fn clear_word<T: Default>(values: &mut [T], word: u64) {
    for (i, value) in values.iter_mut().enumerate() {
        if word >> i & 1 == 0 {
            *value = T::default();
        }
    }
}

/// The same eight at a time: a third of the time of asking for each bit.
fn clear_word_f32(values: &mut [f32], word: u64) {
    for (values, byte) in values.chunks_mut(8).zip(word.to_le_bytes()) {
        let keep = &KEEP[usize::from(byte)];
        match values.as_chunks_mut::<8>() {
            ([eight], []) => *eight = std::array::from_fn(|i| f32::from_bits(eight[i].to_bits() & keep[i])),
            (_, few) => few.iter_mut().zip(keep).for_each(|(v, k)| *v = f32::from_bits(v.to_bits() & k)),
        }
    }
}

/// For each byte of a mask, what is left of the bits of eight f32 values: all or nothing.
static KEEP: [[u32; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut i = 0;
        while i < 8 {
            table[byte][i] = if byte >> i & 1 == 1 { u32::MAX } else { 0 };
            i += 1;
        }
        byte += 1;
    }
    table
};

fn masked<T: Copy + Default + Send + Sync>(
    values: &[T],
    words: &[u64],
    clear_word: impl Fn(&mut [T], u64) + Sync,
) -> Vec<T> {
    // Zeroed memory is mapped when it is first written, so that the threads share that work too.
    let mut out = vec![T::default(); values.len()];
    let chunks = out.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).zip(words.par_chunks(CHUNK / 64));
    chunks.for_each(|((out, values), words)| {
        out.copy_from_slice(values);
        out.chunks_mut(64).zip(words).for_each(|(values, &word)| clear_word(values, word));
    });
    out
}

fn clear<T: Send>(values: &mut [T], words: &[u64], clear_word: impl Fn(&mut [T], u64) + Sync) {
    let chunks = values.par_chunks_mut(CHUNK).zip(words.par_chunks(CHUNK / 64));
    chunks.for_each(|(values, words)| {
        values.chunks_mut(64).zip(words).for_each(|(values, &word)| clear_word(values, word));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn every_third(n: usize) -> Result<Mask> {
        Mask::from_fn([n], |i| i % 3 == 0)
    }

    #[test]
    fn pruned_values_are_positive_zero_whatever_they_were() -> Result<()> {
        let mask = Mask::from_fn([5], |i| i == 0)?;
        let odd = Tensor::new(&[-2f32, -3., f32::NAN, f32::INFINITY, -0.0], &Device::Cpu)?;
        let bits: Vec<u32> = mask.apply(&odd)?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect();
        assert_eq!(bits, [(-2f32).to_bits(), 0, 0, 0, 0]);
        Ok(())
    }

    #[test]
    fn every_float_type_and_length_is_masked() -> Result<()> {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            for n in [1, 63, 64, 65, 3 * CHUNK + 1] {
                let mask = every_third(n)?;
                let ones = Tensor::ones(n, dtype, &Device::Cpu)?;
                let masked = mask.apply(&ones)?;
                assert_eq!(Mask::from_tensor(&masked)?, mask);
                mask.apply_in_place(&ones)?;
                assert_eq!(Mask::from_tensor(&ones)?, mask);
            }
        }
        let whole = Tensor::ones(3, DType::U32, &Device::Cpu)?;
        assert!(matches!(every_third(3)?.apply(&whole), Err(crate::Error::Dtype { .. })));
        Ok(())
    }

    #[test]
    fn views_are_masked_by_their_own_order() -> Result<()> {
        let mask = Mask::from_fn([3, 2], |i| i < 2)?;
        let transposed = Tensor::arange(1f32, 7., &Device::Cpu)?.reshape((2, 3))?.t()?;
        assert_eq!(mask.apply(&transposed)?.to_vec2::<f32>()?, [[1., 4.], [0., 0.], [0., 0.]]);
        assert!(mask.apply_in_place(&transposed).is_err());
        let rows = Tensor::ones((4, 2), DType::F32, &Device::Cpu)?;
        mask.apply_in_place(&rows.narrow(0, 1, 3)?)?;
        assert_eq!(rows.to_vec2::<f32>()?, [[1., 1.], [1., 1.], [0., 0.], [0., 0.]]);
        Ok(())
    }

    #[test]
    fn a_variable_is_masked_in_its_own_storage() -> Result<()> {
        let var = Var::from_tensor(&Tensor::ones(4, DType::F32, &Device::Cpu)?)?;
        let shared = var.as_tensor().clone();
        every_third(4)?.apply_in_place(&var)?;
        assert_eq!(shared.to_vec1::<f32>()?, [1., 0., 0., 1.]);
        Ok(())
    }

    #[test]
    fn gradients_pass_only_through_what_is_kept() -> Result<()> {
        let var = Var::from_tensor(&Tensor::new(&[1f32, 2., 3., 4.], &Device::Cpu)?)?;
        let loss = every_third(4)?.apply(&var)?.sqr()?.sum_all()?;
        let grads = loss.backward()?;
        let grad = grads.get(&var).map(Tensor::to_vec1::<f32>).transpose()?;
        assert_eq!(grad, Some(vec![2., 0., 0., 8.]));
        Ok(())
    }
}
