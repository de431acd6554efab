use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::{Checked, Criterion, Error, Inputs, Requirements};

/// w² / Σ v² over the layer's weights v from w up: magnitude made comparable between layers.
///
/// The largest weight of a layer scores 1, so global selection never empties a layer before all others are down to their
/// last weight. Of equal weights the one with the lower flat index counts as the larger, also where many are the largest:
/// k equal weights score 1, 1/2, … 1/k. Within a layer the order is that of |w| as f32. A zero weight scores 0. Sums are
/// taken in f64.
///
/// Source: Lee et al. 2021, "Layer-adaptive sparsity for the Magnitude-based Pruning", §2, whose weights are sorted with
/// ties "broken arbitrarily". If equal weights shared one score, a layer of a thousand of them would lose all but its
/// least to one of a hundred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lamp;

impl Criterion for Lamp {
    fn name(&self) -> &str {
        "lamp"
    }

    fn requires(&self) -> Requirements {
        Requirements::NONE
    }

    fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error> {
        let checked = Checked::new(self.name(), weight_name, inputs);
        let weight = checked.weight()?;
        if u32::try_from(weight.elem_count()).is_err() {
            return Err(Error::Parameter {
                parameter: "number of weights of one tensor scored by LAMP",
                got: weight.elem_count().to_string(),
                expected: "at most 4294967295",
            });
        }
        let magnitudes = weight.to_dtype(DType::F64)?.abs()?.flatten_all()?.to_vec1::<f64>()?;
        let scores = Tensor::from_vec(lamp_scores(&magnitudes), weight.shape(), &Device::Cpu)?;
        checked.finish(&scores)
    }
}

/// `magnitudes`: finite, at least 0.
fn lamp_scores(magnitudes: &[f64]) -> Vec<f32> {
    // Scaled by a power of two to at most 1: exact, the quotient is the same, and no square or sum overflows.
    let largest = magnitudes.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return vec![0.0; magnitudes.len()];
    }
    let scale = (-largest.log2().ceil()).exp2();
    // Positive floats are ordered as their bits are, negated: the largest first, of equal ones the first. One integer
    // with the position in its low half sorts faster than pairs: 1.0 against 1.3 CPU seconds for 12.6 million weights.
    let key = |(idx, m): (usize, &f64)| u64::from(!((m * scale) as f32).to_bits()) << 32 | idx as u64;
    let mut keys: Vec<u64> = magnitudes.iter().enumerate().map(key).collect();
    keys.par_sort_unstable();
    let mut scores = vec![0.0; magnitudes.len()];
    let mut sum = 0.0;
    for key in keys {
        let magnitude = f64::from(f32::from_bits(!(key >> 32) as u32));
        let square = magnitude * magnitude;
        sum += square;
        scores[key as u32 as usize] = if sum > 0.0 { (square / sum) as f32 } else { 0.0 };
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(values: &[f32]) -> Vec<f32> {
        let weight = Tensor::new(values, &Device::Cpu).unwrap();
        Lamp.score("w", &Inputs::of(&weight)).unwrap().to_vec1().unwrap()
    }

    #[test]
    fn scores_are_the_definition() {
        // Squares 1, 4, 9, 16: sums of those at least as large are 30, 29, 25, 16.
        assert_eq!(scores(&[-3.0, 1.0, 4.0, 2.0]), [9.0 / 25.0, 1.0 / 30.0, 1.0, 4.0 / 29.0]);
    }

    #[test]
    fn of_equal_weights_the_first_counts_as_larger_and_zeros_have_zero() {
        assert_eq!(scores(&[2.0, 0.0, -2.0, 0.0]), [1.0, 0.0, 0.5, 0.0]);
        assert_eq!(scores(&[1.0, 2.0, -1.0]), [1.0 / 5.0, 1.0, 1.0 / 6.0]);
        assert_eq!(scores(&[0.0, -0.0]), [0.0, 0.0]);
        assert!(scores(&[]).is_empty());
    }

    #[test]
    fn the_scale_of_the_layer_does_not_matter_down_to_denormals() {
        let plain = scores(&[3.0, 1.0, 4.0, 2.0]);
        // Powers of two, so that the scaled weights are exact; the first is denormal.
        for scale in [f32::MIN_POSITIVE / 1024.0, 2f32.powi(-100), 2f32.powi(100)] {
            assert_eq!(scores(&[3.0 * scale, scale, 4.0 * scale, 2.0 * scale]), plain, "{scale}");
        }
    }
}
