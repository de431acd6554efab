use candle_core::{Device, Tensor};
use rand::RngCore;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::{Checked, Criterion, Error, Inputs, Requirements};

/// A random order of the weights: the control that every criterion has to beat.
///
/// The scores of a tensor of n elements are (k + ½) / n for a random permutation of k = 0 … n − 1, so uniform in (0, 1)
/// over all tensors; up to 2²³ elements no two in a tensor are equal. A pure function of the seed, the weight's name and
/// its number of elements: neither the order of the weights nor the number of threads matters.
///
/// Source: the baseline of Frankle et al. 2021, "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?".
/// Differs from fasterai, whose `random` draws normal numbers from the global generator; the order is as random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random {
    /// Which random order.
    pub seed: u64,
}

impl Criterion for Random {
    fn name(&self) -> &str {
        "random"
    }

    fn requires(&self) -> Requirements {
        Requirements::NONE
    }

    fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error> {
        let scores = permutation_scores(self.seed, weight_name, inputs.weight.elem_count());
        let scores = Tensor::from_vec(scores, inputs.weight.shape(), &Device::Cpu)?;
        Checked::new(self.name(), weight_name, inputs).finish(&scores)
    }
}

fn permutation_scores(seed: u64, weight_name: &str, n: usize) -> Vec<f32> {
    let mut rng = stream(seed, weight_name);
    let mut scores: Vec<f32> = (0..n).map(|k| ((k as f64 + 0.5) / n as f64) as f32).collect();
    // Fisher and Yates. Written out, since no version of a crate's `shuffle` promises the same order to the next.
    for last in (1..n).rev() {
        // High word of a 64 × 64 bit product: uniform in 0..=last to one part in 2^64 / n.
        let other = ((u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64) as usize;
        scores.swap(last, other);
    }
    scores
}

/// The stream for one weight.
fn stream(seed: u64, weight_name: &str) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(key(seed, "random", fnv1a64(weight_name), 0))
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

    #[test]
    fn the_order_depends_on_the_seed_and_the_name_alone() {
        let scores = |seed, name| permutation_scores(seed, name, 1000);
        assert_eq!(scores(1, "conv1.weight"), scores(1, "conv1.weight"));
        assert_ne!(scores(1, "conv1.weight"), scores(2, "conv1.weight"));
        assert_ne!(scores(1, "conv1.weight"), scores(1, "conv2.weight"));
        // Frozen: a recorded seed must give the same order in every later version.
        let ranks: Vec<usize> = permutation_scores(7, "fc.weight", 8).iter().map(|s| (s * 8.0) as usize).collect();
        assert_eq!(ranks, [4, 0, 7, 5, 1, 6, 3, 2]);
    }

    #[test]
    fn no_two_scores_are_equal_in_the_largest_layers() {
        let mut scores = permutation_scores(0, "classifier.weight", 1 << 23);
        scores.sort_by(f32::total_cmp);
        assert!(scores.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(scores[0] > 0.0 && scores[scores.len() - 1] <= 1.0);
    }

    #[test]
    fn every_position_is_equally_likely() {
        // 4,000 orders of four: each of the 16 cells expects 1,000, deviation 27; 150 is over five deviations.
        let mut counts = [[0i32; 4]; 4];
        for seed in 0..4000 {
            for (position, score) in permutation_scores(seed, "w", 4).iter().enumerate() {
                counts[position][(score * 4.0) as usize] += 1;
            }
        }
        assert!(counts.iter().flatten().all(|n| (n - 1000).abs() < 150), "{counts:?}");
    }

    #[test]
    fn an_empty_tensor_has_no_scores() {
        assert!(permutation_scores(0, "w", 0).is_empty());
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
}
