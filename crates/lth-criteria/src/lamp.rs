use candle_core::{DType, Tensor};

use crate::{Checked, Criterion, Error, Inputs, Requirements};

/// w² / Σ v² over the layer's weights v at least as large as w: magnitude made comparable between layers.
///
/// The largest weight of a layer scores 1, so global selection never empties a layer before all others are down to their
/// last weight. Within a layer the order is that of |w|. A zero weight scores 0. Sums are taken in f64.
///
/// Source: Lee et al. 2021, "Layer-adaptive sparsity for the Magnitude-based Pruning", eq. 3. Differs from it where
/// weights tie: there an arbitrary order of the equal ones decides, here they all get the same score (the sum includes
/// all of them), so that it is a function of the values alone.
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
        let magnitudes = weight.to_dtype(DType::F64)?.abs()?.flatten_all()?.to_vec1::<f64>()?;
        let scores = Tensor::from_vec(lamp_scores(&magnitudes), weight.shape(), weight.device())?;
        checked.finish(&scores)
    }
}

fn lamp_scores(magnitudes: &[f64]) -> Vec<f32> {
    // Scaled by the largest: squares of very small or large weights then stay in range, and the quotient is the same.
    let largest = magnitudes.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return vec![0.0; magnitudes.len()];
    }
    let mut order: Vec<(f64, usize)> = magnitudes.iter().enumerate().map(|(idx, m)| (m / largest, idx)).collect();
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut scores = vec![0.0; magnitudes.len()];
    let mut sum = 0.0;
    for ties in order.chunk_by(|a, b| a.0 == b.0) {
        let square = ties[0].0 * ties[0].0;
        sum += square * ties.len() as f64;
        for (_, idx) in ties {
            scores[*idx] = (square / sum) as f32;
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

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
    fn equal_weights_have_equal_scores_and_zeros_have_zero() {
        assert_eq!(scores(&[2.0, 0.0, -2.0, 0.0]), [0.5, 0.0, 0.5, 0.0]);
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
