//! Seeded streams.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// `n` of `from`, each choice equally likely: the first steps of Fisher's and Yates' shuffle.
pub(crate) fn choose(mut from: Vec<usize>, n: usize, random: &mut ChaCha8Rng) -> Vec<usize> {
    let n = n.min(from.len());
    for first in 0..n {
        let other = first + below(random, from.len() - first);
        from.swap(first, other);
    }
    from.truncate(n);
    from
}

/// A number below `n`; a bias of `n` in 2^64, far below what any test could see.
fn below(random: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(random.next_u64()) * n as u128) >> 64) as usize
}

/// The stream of a seed, a purpose, a name and an iteration.
pub(crate) fn stream(seed: u64, purpose: &str, name: &str, iteration: u64) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(key(seed, purpose, fnv1a64(name), iteration))
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
    fn every_place_is_chosen_equally_often_and_none_twice() {
        let mut hits = [0; 10];
        for iteration in 0..5_000 {
            let mut chosen = choose((0..10).collect(), 3, &mut stream(1, "regrow", "w", iteration));
            chosen.iter().for_each(|place| hits[*place] += 1);
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), 3);
        }
        // 1,500 expected, standard deviation 32: five of them.
        assert!(hits.iter().all(|hits| (1_340..1_660).contains(hits)), "{hits:?}");
    }
}
