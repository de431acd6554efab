//! Order statistics by radix selection: counts instead of sorting, no copy of the scores, the same answer whatever the
//! number of threads.
//!
//! A finite f32 maps to a u32 [`Key`] of the same order. Three passes over the scores count how many fall in each of
//! 2,048 (2,048, 1,024) ranges of the key's leading bits and narrow the range that holds the rank asked for. The counts
//! fit the first-level cache, and integers add up to the same sum in any order.

use std::convert::Infallible;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::layerwise::Layerwise;
use crate::mask::packed;

/// A score as an integer of the same order; −0.0 and 0.0 are one.
pub(crate) type Key = u32;

/// Scores that one thread takes at a time.
const CHUNK: usize = 1 << 16;

/// Ranges told apart in one pass.
const BINS: usize = 1 << 11;

#[inline]
pub(crate) fn key(score: f32) -> Key {
    let bits = (score + 0.0).to_bits(); // −0.0 + 0.0 is 0.0
    // Positive: set the sign bit. Negative: turn all bits around.
    bits ^ ((bits.cast_signed() >> 31).cast_unsigned() | 1 << 31)
}

/// The key at `rank` (0 = lowest) of the scores; `None` if there are not so many.
pub(crate) fn nth_smallest(scores: &[f32], rank: usize) -> Option<Key> {
    if rank >= scores.len() {
        return None;
    }
    let Ok(found) = narrow(rank, |bins| Ok::<_, Infallible>(bins.count(scores)));
    found
}

/// The key at `rank` from the top (0 = highest).
pub(crate) fn nth_largest(scores: &[f32], rank: usize) -> Option<Key> {
    nth_smallest(scores, scores.len().checked_sub(rank + 1)?)
}

/// The key at `rank` from the top (0 = highest) of all scores of these layers together, which are `n`; `None` if there
/// are not so many.
pub(crate) fn nth_largest_of<L>(layers: &L, which: &[usize], n: usize, rank: usize) -> Result<Option<Key>>
where
    L: Layerwise + ?Sized,
{
    match n.checked_sub(rank + 1) {
        Some(rank) => nth_smallest_of(layers, which, n, rank),
        None => Ok(None),
    }
}

/// The key at `rank` (0 = lowest) of all scores of these layers together, which are `n`; `None` if there are not so many.
pub(crate) fn nth_smallest_of<L>(layers: &L, which: &[usize], n: usize, rank: usize) -> Result<Option<Key>>
where
    L: Layerwise + ?Sized,
{
    if rank >= n {
        return Ok(None);
    }
    let found = narrow(rank, |bins| {
        let counts = layers.look(which, |_, scores| Ok(bins.count(scores.groups)))?;
        Ok::<_, Error>(counts.into_iter().reduce(added).unwrap_or_else(none))
    });
    found?.ok_or(Error::Changed).map(Some)
}

/// The key at `rank`, where `count` says how many scores fall in each bin; `None` if they are fewer than at an earlier look.
fn narrow<E>(mut rank: usize, mut count: impl FnMut(&Bins) -> Result<Vec<usize>, E>) -> Result<Option<Key>, E> {
    let mut bins = Bins { found: 0, known: 0, width: 0 };
    for width in [11, 11, 10] {
        bins.width = width;
        let counts = count(&bins)?;
        let mut bin = 0;
        while rank >= counts[bin] {
            rank -= counts[bin];
            bin += 1;
            if bin == 1 << width {
                return Ok(None);
            }
        }
        bins.found |= (bin as Key) << bins.shift();
        bins.known += width;
    }
    Ok(Some(bins.found))
}

/// The ranges of keys that are told apart in one pass.
struct Bins {
    /// The leading bits that are decided, then zeros.
    found: Key,
    known: u32,
    /// The bits told apart.
    width: u32,
}

impl Bins {
    fn shift(&self) -> u32 {
        32 - self.known - self.width
    }

    /// How many scores fall in each.
    fn count(&self, scores: &[f32]) -> Vec<usize> {
        let count = |mut counts: Vec<usize>, chunk: &[f32]| {
            for &score in chunk {
                let key = key(score);
                // A shift by 32 (nothing is known yet) is 0: every key is inside.
                if self.known == 0 || (key ^ self.found) >> (32 - self.known) == 0 {
                    counts[(key >> self.shift() & ((1 << self.width) - 1)) as usize % BINS] += 1;
                }
            }
            counts
        };
        if scores.len() <= CHUNK {
            return count(none(), scores);
        }
        scores.par_chunks(CHUNK).fold(none, count).reduce(none, added)
    }
}

fn none() -> Vec<usize> {
    vec![0; BINS]
}

fn added(mut a: Vec<usize>, b: Vec<usize>) -> Vec<usize> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

/// How many scores are above and how many equal to `threshold`.
pub(crate) fn above_and_equal(scores: &[f32], threshold: Key) -> (usize, usize) {
    let count = |chunk: &[f32]| {
        let (above, equal) = chunk.iter().fold((0u32, 0u32), |(above, equal), &score| {
            let key = key(score);
            // Without overflow checks, which a chunk cannot need, this takes several scores at a time.
            (above.wrapping_add((key > threshold).into()), equal.wrapping_add((key == threshold).into()))
        });
        (above as usize, equal as usize)
    };
    scores.par_chunks(CHUNK).map(count).reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
}

/// Where a tensor of scores is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Keeps exactly this many, the highest; of equal ones those with the lower index.
    Count(usize),
    /// Keeps all at least as high.
    AtLeast(Key),
    /// Keeps all that are higher, and this many of those equal, the ones with the lower indices.
    Above(Key, usize),
}

impl Cut {
    /// The kept bits, packed, lowest first.
    pub(crate) fn apply(self, scores: &[f32]) -> Vec<u64> {
        match self {
            Self::AtLeast(threshold) => packed(scores, |score, _| key(score) >= threshold),
            Self::Above(threshold, 0) => packed(scores, |score, _| key(score) > threshold),
            Self::Above(threshold, ties) => match nth_equal(scores, threshold, ties - 1) {
                None => packed(scores, |score, _| key(score) >= threshold),
                Some(last) => packed(scores, |score, i| {
                    let key = key(score);
                    key > threshold || (key == threshold && i <= last)
                }),
            },
            Self::Count(0) => vec![0; scores.len().div_ceil(64)],
            Self::Count(count) => match nth_largest(scores, count - 1) {
                None => packed(scores, |_, _| true), // as many as there are, or more
                Some(threshold) => {
                    let (above, equal) = above_and_equal(scores, threshold);
                    if above + equal == count {
                        return Self::AtLeast(threshold).apply(scores);
                    }
                    Self::Above(threshold, count - above).apply(scores)
                }
            },
        }
    }
}

/// The index of the `n`-th (from 0) score equal to `threshold`; `None` if there are not more than `n`.
fn nth_equal(scores: &[f32], threshold: Key, mut n: usize) -> Option<usize> {
    let equal: Vec<usize> = scores.par_chunks(CHUNK).map(|c| above_and_equal(c, threshold).1).collect();
    for (chunk_idx, equal) in equal.into_iter().enumerate() {
        if n < equal {
            let mut places = (chunk_idx * CHUNK..scores.len()).filter(|&i| key(scores[i]) == threshold);
            return places.nth(n);
        }
        n -= equal;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize) -> Vec<f32> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * 10f32.powi((state >> 33 & 7) as i32 - 4)
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn keys_order_as_the_scores_do() {
        let ascending = [f32::NEG_INFINITY, f32::MIN, -1.5, -1e-40, 0.0, 1e-40, 1.5, f32::MAX, f32::INFINITY];
        assert!(ascending.windows(2).all(|w| key(w[0]) < key(w[1])));
        assert_eq!(key(-0.0), key(0.0));
    }

    #[test]
    fn every_rank_is_that_of_a_sort() -> Result<()> {
        let scores = noise(999);
        let (head, tail) = scores.split_at(300);
        let parts = [head, tail];
        let mut sorted = scores.clone();
        sorted.sort_by(f32::total_cmp);
        for (rank, &score) in sorted.iter().enumerate() {
            assert_eq!(nth_smallest_of(&parts[..], &[0, 1], 999, rank)?, Some(key(score)));
            assert_eq!(nth_largest_of(&parts[..], &[0, 1], 999, 998 - rank)?, Some(key(score)));
            assert_eq!(nth_largest(&scores, 998 - rank), Some(key(score)));
        }
        assert_eq!(nth_smallest(&scores, 999), None);
        assert_eq!(nth_largest(&scores, 999), None);
        assert_eq!(nth_smallest_of(&parts[..], &[0, 1], 999, 999)?, None);
        assert_eq!(nth_largest_of(&parts[..], &[], 0, 0)?, None);
        Ok(())
    }

    #[test]
    fn large_inputs_agree_with_a_sort() {
        let scores = noise(5 * CHUNK + 7);
        let mut sorted = scores.clone();
        sorted.sort_by(f32::total_cmp);
        for rank in [0, 1, 12_345, scores.len() / 2, scores.len() - 1] {
            assert_eq!(nth_smallest(&scores, rank), Some(key(sorted[rank])));
        }
    }

    #[test]
    fn ties_keep_the_lower_index_in_any_chunk() {
        let mut scores = vec![1.0; 3 * CHUNK];
        scores[2 * CHUNK + 5] = 2.0;
        for kept in [1, 2, 64, CHUNK, 2 * CHUNK + 6, 3 * CHUNK] {
            let words = Cut::Count(kept).apply(&scores);
            let keeps = |i: usize| words[i / 64] >> (i % 64) & 1 == 1;
            assert_eq!(words.iter().map(|w| w.count_ones() as usize).sum::<usize>(), kept);
            let low = if kept > 2 * CHUNK + 5 { kept } else { kept - 1 };
            assert!((0..low).all(keeps) && keeps(2 * CHUNK + 5));
        }
    }
}
