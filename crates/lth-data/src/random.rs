//! Random numbers that are addressed, not consumed: every draw is a function of what it is for.
//!
//! A ChaCha8 stream is keyed by (seed, purpose, two numbers), so that neither the number of threads nor the order of
//! reading nor a resumed run shifts any other draw.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a stream is for. The words are part of every published result: never change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Split,
    Shuffle,
    Crop,
    /// What a drawn pet looks like, and what is around it.
    Look,
    Scene,
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Shuffle => "order",
            Self::Crop => "crop",
            Self::Look => "look",
            Self::Scene => "scene",
        }
    }
}

/// The stream of one purpose and two numbers: an epoch, an index.
pub(crate) fn stream(seed: u64, purpose: Purpose, first: u64, second: u64) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(key(seed, purpose.word(), first, second))
}

/// The key of a stream by this project's one rule: four u64, little-endian: the seed, FNV-1a-64 of the purpose's word, and
/// two numbers, for which a name enters as its FNV-1a-64.
fn key(seed: u64, purpose: &str, first: u64, second: u64) -> [u8; 32] {
    let mut key = [0; 32];
    for (part, number) in key.chunks_exact_mut(8).zip([seed, fnv1a64(purpose), first, second]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    key
}

fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A number in [0, 1): the upper 53 bits of one 64-bit draw, divided by 2^53.
pub(crate) fn unit(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A permutation of `0..n`: Fisher-Yates from the last place down to the second; the partner of place i is the upper
/// half of the 128-bit product of one 64-bit draw and i + 1.
pub(crate) fn permutation(n: usize, random: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for place in (1..n).rev() {
        let draw = u128::from(random.next_u64()) * (place as u128 + 1);
        order.swap(place, (draw >> 64) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same lines stand in every crate that draws: the rule is one. Its key and its draws went into published numbers.
    #[test]
    fn the_rule_of_streams_is_frozen() {
        let key = key(42, "order", 3, fnv1a64("conv1.weight"));
        let (order, name) = ([247, 41, 168, 129, 114, 13, 230, 107], [84, 210, 71, 238, 44, 154, 162, 105]);
        let numbers = [[42, 0, 0, 0, 0, 0, 0, 0], order, [3, 0, 0, 0, 0, 0, 0, 0], name];
        assert_eq!(key, numbers.concat()[..]);
        // From ChaCha with eight rounds as Bernstein 2008 has it, written out in Python.
        let mut stream = ChaCha8Rng::from_seed(key);
        assert_eq!([stream.next_u64(), stream.next_u64()], [0x87d5_48c8_9354_0085, 0xd74c_5cd7_c101_056f]);
        // The published test vector.
        assert_eq!(fnv1a64("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn streams_differ_in_every_part_of_their_key() {
        let first = |seed, purpose, a, b| stream(seed, purpose, a, b).next_u64();
        let base = first(1, Purpose::Crop, 2, 3);
        assert_eq!(base, first(1, Purpose::Crop, 2, 3));
        for other in [
            first(2, Purpose::Crop, 2, 3),
            first(1, Purpose::Shuffle, 2, 3),
            first(1, Purpose::Crop, 3, 3),
            first(1, Purpose::Crop, 2, 4),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn permutation_holds_every_number_once() {
        for n in [0, 1, 2, 3, 100] {
            let mut order = permutation(n, &mut stream(7, Purpose::Split, 0, 0));
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn permutation_puts_every_number_at_every_place_about_equally_often() {
        let (n, rounds) = (5, 5_000);
        let mut counts = vec![0u32; n * n];
        for round in 0..rounds {
            for (place, number) in permutation(n, &mut stream(round, Purpose::Shuffle, 0, 0)).into_iter().enumerate() {
                counts[place * n + number] += 1;
            }
        }
        // Expected 1000 with a standard deviation of 28; 150 is five of them.
        assert!(counts.iter().all(|&count| count.abs_diff(1_000) < 150), "{counts:?}");
    }

    #[test]
    fn unit_is_at_least_zero_and_below_one_and_fills_the_range() {
        let mut random = stream(3, Purpose::Crop, 0, 0);
        let draws: Vec<f64> = (0..10_000).map(|_| unit(&mut random)).collect();
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}"); // seven standard deviations
    }
}
