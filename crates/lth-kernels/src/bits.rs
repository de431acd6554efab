//! Masks as bits, 64 to a word, lowest first: an eighth of their bytes.

use crate::dispatch::multiversion;
use crate::parallel::{PIECE, Shared, for_ranges};

/// Bits of a word.
pub(crate) const WORD: usize = 64;

// Pieces are whole words.
const _: () = assert!(PIECE.is_multiple_of(WORD));

/// A bit for each byte: whether it is not 0.
pub(crate) fn pack(bytes: &[u8]) -> Vec<u64> {
    let mut words = vec![0; bytes.len().div_ceil(WORD)];
    let shared = Shared::new(&mut words);
    for_ranges(bytes.len(), |at| {
        // SAFETY: the words of disjoint ranges.
        let words = unsafe { shared.part(at.start / WORD..at.end.div_ceil(WORD)) };
        words.iter_mut().zip(bytes[at].chunks(WORD)).for_each(|(word, bytes)| *word = packed(bytes));
    });
    words
}

/// A byte for each of the first `len` bits: 0 or 1. On one thread: who calls it may hold what others wait for.
pub(crate) fn unpack(words: &[u64], len: usize) -> Vec<u8> {
    let mut bytes = vec![0; words.len() * WORD];
    for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words.iter().flat_map(|word| word.to_le_bytes())) {
        *bytes = unpacked(word);
    }
    bytes.truncate(len);
    bytes
}

multiversion! {
    /// As many as are not 0.
    pub(crate) fn count[][](bytes: &[u8]) -> usize {
        // As many as a byte counts at a time: vectors then.
        bytes.chunks(255).map(|bytes| bytes.iter().fold(0u8, |n, &byte| n + u8::from(byte != 0))).map(usize::from).sum()
    }
}

/// A bit for each of up to 64 bytes.
pub(crate) fn packed(bytes: &[u8]) -> u64 {
    if let Ok(bytes) = bytes.try_into() {
        return whole_word(bytes);
    }
    let mut last = [0; WORD];
    last[..bytes.len()].copy_from_slice(bytes);
    whole_word(&last)
}

#[cfg(target_arch = "x86_64")]
fn whole_word(bytes: &[u8; WORD]) -> u64 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_setzero_si128};
    let zeros = bytes.as_chunks::<16>().0.iter().enumerate().fold(0, |word, (at, bytes)| {
        // SAFETY: every processor of this architecture has SSE2, and 16 bytes are read, as many as there are.
        let zeros =
            unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128(bytes.as_ptr().cast()), _mm_setzero_si128())) };
        word | (zeros as u64) << (16 * at)
    });
    !zeros
}

#[cfg(not(target_arch = "x86_64"))]
fn whole_word(bytes: &[u8; WORD]) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let eight = |bytes: [u8; 8]| {
        let bytes = u64::from_le_bytes(bytes);
        // The highest bit of each byte that is not 0, then all of them side by side.
        let high = (bytes | ((bytes & LOW) + LOW)) & !LOW;
        (high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
    };
    bytes.as_chunks::<8>().0.iter().enumerate().fold(0, |word, (at, bytes)| word | eight(*bytes) << (8 * at))
}

/// A byte for each of eight bits.
fn unpacked(bits: u8) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Every byte has its own bit left, which then becomes 1.
    let own = (u64::from(bits) * ONES) & 0x8040_2010_0804_0201;
    ((own + 0x7f * ONES) >> 7 & ONES).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_the_bytes_that_are_not_zero() {
        for len in [0, 1, 7, 8, 63, 64, 65, PIECE, 5 * PIECE + 3] {
            let bytes: Vec<u8> = (0..len).map(|i| if i * i % 7 < 3 { (i % 255) as u8 + 1 } else { 0 }).collect();
            let words = pack(&bytes);
            let bit = |i: usize| words[i / WORD] >> (i % WORD) & 1 == 1;
            assert!((0..len).all(|i| bit(i) == (bytes[i] != 0)), "{len}");
            assert!(words.last().is_none_or(|last| len % WORD == 0 || last >> (len % WORD) == 0), "{len}");
            let ones: Vec<u8> = bytes.iter().map(|byte| u8::from(*byte != 0)).collect();
            assert_eq!(unpack(&words, len), ones, "{len}");
            assert_eq!(count(&bytes), ones.iter().filter(|one| **one == 1).count(), "{len}");
        }
    }
}
