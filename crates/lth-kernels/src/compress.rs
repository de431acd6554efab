//! The kept values of a masked slice moved together, and back to their places.

use crate::bits::WORD;

/// Copies the values that `words` keep, one behind the other, to `kept`, which holds just as many.
pub(crate) fn compress<T: Copy + Default>(words: &[u64], values: &[T], kept: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if avx512::has::<T>() {
        // SAFETY: the machine has AVX-512, and any four bytes are moved as a number is.
        return unsafe { avx512::compress(words, as_numbers(values), as_numbers_mut(kept)) };
    } else if avx2::pays::<T>(kept.len(), values.len()) {
        // SAFETY: the machine has AVX2, and any four bytes are moved as a number is.
        return unsafe { avx2::compress(words, as_numbers(values), as_numbers_mut(kept)) };
    }
    one_by_one(words, |n, at| kept[n] = values[at]);
}

/// Writes all of `values`: `kept` at the places that `words` keep, 0 everywhere else.
pub(crate) fn expand<T: Copy + Default>(words: &[u64], kept: &[T], values: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if avx512::has::<T>() {
        // SAFETY: the machine has AVX-512, and any four bytes are moved as a number is; four bytes of 0 are the number 0.
        return unsafe { avx512::expand(words, as_numbers(kept), as_numbers_mut(values)) };
    } else if avx2::pays::<T>(kept.len(), values.len()) {
        // SAFETY: the machine has AVX2, and any four bytes are moved as a number is; four bytes of 0 are the number 0.
        return unsafe { avx2::expand(words, as_numbers(kept), as_numbers_mut(values)) };
    }
    values.fill(T::default());
    one_by_one(words, |n, at| values[at] = kept[n]);
}

/// Gives `visit` the number of each kept value and its place.
fn one_by_one(words: &[u64], mut visit: impl FnMut(usize, usize)) {
    let mut n = 0;
    for (word, first) in words.iter().zip((0..).step_by(WORD)) {
        let mut word = *word;
        while word != 0 {
            visit(n, first + word.trailing_zeros() as usize);
            word &= word - 1;
            n += 1;
        }
    }
}

/// # Safety
/// T has four bytes.
#[cfg(target_arch = "x86_64")]
unsafe fn as_numbers<T>(values: &[T]) -> &[u32] {
    // SAFETY: as many bytes; the caller's promise.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

/// # Safety
/// T has four bytes, and any are a value of it.
#[cfg(target_arch = "x86_64")]
unsafe fn as_numbers_mut<T>(values: &mut [T]) -> &mut [u32] {
    // SAFETY: as many bytes; the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// Eight numbers of four bytes at a time: a table says for each pattern of eight bits which lane goes where.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm_loadl_epi64, _mm256_and_si256, _mm256_cmpeq_epi32, _mm256_cvtepu8_epi32, _mm256_loadu_si256,
        _mm256_permutevar8x32_epi32, _mm256_set1_epi32, _mm256_setr_epi32, _mm256_storeu_si256,
    };

    use super::{WORD, one_by_one};
    use crate::dispatch::{Isa, isa};

    const LANES: usize = 8;

    /// For every pattern of bits the lanes of its ones, lowest first, a byte each; the rest is 0.
    static TOGETHER: [[u8; LANES]; 256] = tables().0;
    /// For every pattern of bits how many ones are below each lane, a byte each.
    static BACK: [[u8; LANES]; 256] = tables().1;

    const fn tables() -> ([[u8; LANES]; 256], [[u8; LANES]; 256]) {
        let (mut together, mut back) = ([[0; LANES]; 256], [[0; LANES]; 256]);
        let mut bits = 0;
        while bits < 256 {
            let (mut n, mut lane) = (0, 0);
            while lane < LANES {
                back[bits][lane] = n as u8;
                if bits >> lane & 1 == 1 {
                    together[bits][n] = lane as u8;
                    n += 1;
                }
                lane += 1;
            }
            bits += 1;
        }
        (together, back)
    }

    /// Whether the machine can, and enough is kept: of few, one after the other is found sooner.
    pub(super) fn pays<T>(n_kept: usize, n_values: usize) -> bool {
        size_of::<T>() == size_of::<u32>() && 5 * n_kept >= n_values && isa() > Isa::Baseline
    }

    #[target_feature(enable = "avx2")]
    fn lanes(table: &[[u8; LANES]; 256], bits: u8) -> __m256i {
        // SAFETY: eight bytes are read, as many as an entry has.
        _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(table[usize::from(bits)].as_ptr().cast()) })
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn compress(words: &[u64], values: &[u32], kept: &mut [u32]) {
        let (whole, _) = values.as_chunks::<LANES>();
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        let mut n = 0;
        for (bits, values) in bytes.zip(whole) {
            match kept.get_mut(n..n + LANES) {
                // The lanes behind the kept ones are written over by the next, for which there is room.
                // SAFETY: eight numbers are read and written, as many as there are.
                Some(kept) => unsafe {
                    let values = _mm256_loadu_si256(values.as_ptr().cast());
                    let together = _mm256_permutevar8x32_epi32(values, lanes(&TOGETHER, bits));
                    _mm256_storeu_si256(kept.as_mut_ptr().cast(), together);
                },
                None => one_by_one(&[u64::from(bits)], |i, lane| kept[n + i] = values[lane]),
            }
            n += bits.count_ones() as usize;
        }
        let rest = whole.len() * LANES;
        if let Some(word) = words.get(rest / WORD) {
            one_by_one(&[word >> (rest % WORD)], |i, place| kept[n + i] = values[rest + place]);
        }
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn expand(words: &[u64], kept: &[u32], values: &mut [u32]) {
        let bit_of_lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        let (whole, rest) = values.as_chunks_mut::<LANES>();
        let first = whole.len() * LANES;
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        let mut n = 0;
        for (bits, values) in bytes.zip(whole) {
            match kept.get(n..n + LANES) {
                // SAFETY: eight numbers are read and written, as many as there are.
                Some(kept) => unsafe {
                    let kept = _mm256_loadu_si256(kept.as_ptr().cast());
                    let ones = _mm256_and_si256(_mm256_set1_epi32(i32::from(bits)), bit_of_lane);
                    let is_kept = _mm256_cmpeq_epi32(ones, bit_of_lane);
                    let back = _mm256_permutevar8x32_epi32(kept, lanes(&BACK, bits));
                    _mm256_storeu_si256(values.as_mut_ptr().cast(), _mm256_and_si256(back, is_kept));
                },
                None => {
                    values.fill(0);
                    one_by_one(&[u64::from(bits)], |i, lane| values[lane] = kept[n + i]);
                }
            }
            n += bits.count_ones() as usize;
        }
        rest.fill(0);
        if let Some(word) = words.get(first / WORD) {
            one_by_one(&[word >> (first % WORD)], |i, place| rest[place] = kept[n + i]);
        }
    }
}

/// Sixteen numbers of four bytes at a time, for which AVX-512 has instructions.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        _mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_maskz_compress_epi32, _mm512_maskz_expand_epi32,
        _mm512_maskz_loadu_epi32, _mm512_storeu_si512,
    };

    use super::{WORD, one_by_one};
    use crate::dispatch::{Isa, isa};
    use crate::memory::{AHEAD, prefetch};

    const LANES: usize = 16;

    /// Whether the machine can.
    pub(super) fn has<T>() -> bool {
        size_of::<T>() == size_of::<u32>() && isa() == Isa::Avx512
    }

    /// The bits of each group of [`LANES`] values, how many of them are kept, and as many ones, lowest first.
    #[inline(always)]
    fn groups(word: u64) -> [(u16, usize, u16); WORD / LANES] {
        std::array::from_fn(|group| {
            let bits = (word >> (group * LANES)) as u16;
            let n_kept = bits.count_ones();
            (bits, n_kept as usize, ((1u32 << n_kept) - 1) as u16)
        })
    }

    /// # Panics
    /// If `words` keep another number of values: whoever goes through them reads or writes as many.
    #[target_feature(enable = "avx512f,popcnt")]
    fn expect(words: &[u64], n_kept: usize) {
        assert_eq!(words.iter().map(|word| word.count_ones() as usize).sum::<usize>(), n_kept);
    }

    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) fn compress(words: &[u64], values: &[u32], kept: &mut [u32]) {
        expect(words, kept.len());
        let (whole, rest) = values.as_chunks::<WORD>();
        let mut n = 0;
        for (&word, values) in words.iter().zip(whole) {
            prefetch(values.as_ptr().wrapping_add(AHEAD), WORD);
            for (values, (bits, n_kept, ones)) in values.as_chunks::<LANES>().0.iter().zip(groups(word)) {
                // SAFETY: as many numbers are read as there are, and no more written in all than are kept.
                unsafe {
                    let together = _mm512_maskz_compress_epi32(bits, _mm512_loadu_si512(values.as_ptr().cast()));
                    _mm512_mask_storeu_epi32(kept.as_mut_ptr().add(n).cast(), ones, together);
                }
                n += n_kept;
            }
        }
        one_by_one(&words[whole.len()..], |i, place| kept[n + i] = rest[place]);
    }

    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) fn expand(words: &[u64], kept: &[u32], values: &mut [u32]) {
        expect(words, kept.len());
        let (whole, rest) = values.as_chunks_mut::<WORD>();
        let n_whole = whole.len();
        let mut n = 0;
        for (&word, values) in words.iter().zip(whole) {
            for (values, (bits, n_kept, ones)) in values.as_chunks_mut::<LANES>().0.iter_mut().zip(groups(word)) {
                // SAFETY: no more numbers are read in all than are kept, and as many written as there are.
                unsafe {
                    let together = _mm512_maskz_loadu_epi32(ones, kept.as_ptr().add(n).cast());
                    _mm512_storeu_si512(values.as_mut_ptr().cast(), _mm512_maskz_expand_epi32(bits, together));
                }
                n += n_kept;
            }
        }
        rest.fill(0);
        one_by_one(&words[n_whole..], |i, place| rest[place] = kept[n + i]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bits::pack;
    use crate::dispatch::tests::for_each_isa;

    proptest! {
        /// Every width and instruction set, over the ends of words and vectors: against one value after the other.
        #[test]
        fn values_go_together_and_back(
            bytes in prop::collection::vec(0..2u8, 0..300), share in 0..3u8
        ) {
            // Few, some or all are kept.
            let mask: Vec<u8> = bytes.iter().enumerate().map(|(i, byte)| match share {
                0 => byte & u8::from(i % 9 == 0),
                1 => *byte,
                _ => 1,
            }).collect();
            let words = pack(&mask);
            let values: Vec<f32> = (0..mask.len()).map(|i| i as f32 - 0.5).collect();
            let by_hand: Vec<f32> = values.iter().zip(&mask).filter(|(_, bit)| **bit == 1).map(|(v, _)| *v).collect();
            let back: Vec<f32> = values.iter().zip(&mask).map(|(v, bit)| if *bit == 1 { *v } else { 0.0 }).collect();
            let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|v| f64::from(*v)).collect() };
            for_each_isa(|_| {
                let mut kept = vec![f32::NAN; by_hand.len()];
                compress(&words, &values, &mut kept);
                assert_eq!(kept, by_hand);
                let mut all = vec![f32::NAN; mask.len()];
                expand(&words, &kept, &mut all);
                assert_eq!(all, back);
                let mut kept = vec![f64::NAN; by_hand.len()];
                compress(&words, &wide(&values), &mut kept);
                assert_eq!(kept, wide(&by_hand));
                let mut all = vec![f64::NAN; mask.len()];
                expand(&words, &kept, &mut all);
                assert_eq!(all, wide(&back));
            });
        }
    }
}
