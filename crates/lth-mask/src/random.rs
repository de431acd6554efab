//! Masks without a criterion: the controls of a lottery ticket.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::error::{Named, Result};
use crate::granularity::Granularity;
use crate::mask::Mask;
use crate::selection::Selection;
use crate::set::MaskSet;

/// Masks with as many weights kept in each layer, anywhere: what a ticket's structure is worth is what it does better.
///
/// Each layer's draw depends on the seed and its name alone.
#[must_use]
pub fn random_like(masks: &MaskSet, seed: u64) -> MaskSet {
    masks.map(|name, mask| random_mask(mask, &mut stream(seed, "mask", name)))
}

/// The masks with the places of their groups shuffled within each layer: filters (say) are exchanged, the pattern inside
/// each stays. With [`Granularity::Weight`] it is another [`random_like`].
///
/// `selection`: the one that made the masks; it says what a group is, and how each layer's weight lies.
///
/// # Errors
/// If a layer does not have the granularity.
pub fn shuffle_within(masks: &MaskSet, selection: &Selection, seed: u64) -> Result<MaskSet> {
    let shuffled = masks.iter().map(|(name, mask)| {
        let mut random = stream(seed, "shuffle", name);
        let granularity = selection.granularity_of(name);
        if mask.is_empty() || *granularity == Granularity::Weight {
            return Ok((name.to_owned(), random_mask(mask, &mut random)));
        }
        let layer = selection.layer_of(name, mask.shape())?;
        let grouping = granularity.groups(mask.shape(), layer).named(name)?;
        let mut order: Vec<usize> = (0..grouping.n_groups()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, below(&mut random, last + 1));
        }
        Ok((name.to_owned(), grouping.exchange(mask, &order).named(name)?))
    });
    shuffled.collect()
}

/// As many kept as in `mask`, each choice of places equally likely (Knuth's algorithm S).
fn random_mask(mask: &Mask, random: &mut ChaCha8Rng) -> Mask {
    let (mut places, mut wanted) = (mask.len(), mask.kept());
    mask.same_shape(|| {
        let keep = wanted > 0 && (wanted == places || below(random, places) < wanted);
        places -= 1;
        wanted -= usize::from(keep);
        keep
    })
}

/// A number below `n`; a bias of `n` in 2^64, far below what any test could see.
fn below(random: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(random.next_u64()) * n as u128) >> 64) as usize
}

/// The stream of a seed, a purpose and a name.
fn stream(seed: u64, purpose: &str, name: &str) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(key(seed, purpose, fnv1a64(name), 0))
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

    fn masks() -> Result<MaskSet> {
        let thirds = |shape: [usize; 2]| Mask::from_fn(shape, |i| i % 3 == 0);
        Ok([("a".to_owned(), thirds([20, 30])?), ("b".to_owned(), thirds([20, 30])?)].into_iter().collect())
    }

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
    fn counts_stay_and_places_follow_seed_and_name() -> Result<()> {
        let masks = masks()?;
        let random = random_like(&masks, 1);
        for (name, mask) in masks.iter() {
            assert_eq!(random.get(name).map(Mask::kept), Some(mask.kept()));
        }
        assert_eq!(random, random_like(&masks, 1));
        assert_ne!(random, random_like(&masks, 2));
        assert_ne!(random.get("a"), random.get("b"));
        let alone: MaskSet = masks.clone().into_iter().filter(|(name, _)| name == "b").collect();
        assert_eq!(random_like(&alone, 1).get("b"), random.get("b"));
        Ok(())
    }

    #[test]
    fn every_place_is_equally_likely() -> Result<()> {
        let mask = Mask::from_fn([10], |i| i < 3)?;
        let masks: MaskSet = [("w".to_owned(), mask)].into_iter().collect();
        let mut hits = [0; 10];
        for seed in 0..5_000 {
            let random = random_like(&masks, seed);
            random.get("w").into_iter().flat_map(Mask::kept_indices).for_each(|i| hits[i] += 1);
        }
        // 1,500 expected, standard deviation 32: five of them.
        assert!(hits.iter().all(|hits| (1_340..1_660).contains(hits)), "{hits:?}");
        Ok(())
    }

    #[test]
    fn shuffled_filters_stay_whole() -> Result<()> {
        let mask = Mask::from_fn([8, 3, 2, 2], |i| (i / 12) % 2 == 0 && i % 12 != 5)?;
        let masks: MaskSet = [("w".to_owned(), mask.clone())].into_iter().collect();
        let filters = Selection { granularity: Granularity::Filter, ..Selection::default() };
        let shuffled = shuffle_within(&masks, &filters, 3)?;
        let shuffled = shuffled.get("w").map(|m| m.iter().collect::<Vec<_>>()).unwrap_or_default();
        let mut before: Vec<Vec<bool>> = mask.iter().collect::<Vec<_>>().chunks(12).map(<[bool]>::to_vec).collect();
        let mut after: Vec<Vec<bool>> = shuffled.chunks(12).map(<[bool]>::to_vec).collect();
        assert_ne!(before, after);
        before.sort();
        after.sort();
        assert_eq!(before, after);
        Ok(())
    }
}
