use candle_core::Tensor;

use crate::{Checked, Criterion, Error, Input, Inputs, Requirements};

/// |γ| of the BatchNorm that follows, the same for every weight of a filter: for pruning filters.
///
/// Selecting groups of filters by mean, max or L2 of their scores then ranks them by |γ|. Meant for networks trained with
/// an L1 penalty on γ. Source: Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming", §3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchNormScale;

impl Criterion for BatchNormScale {
    fn name(&self) -> &str {
        "batch_norm_scale"
    }

    fn requires(&self) -> Requirements {
        Requirements::of(&[Input::BatchNormScale])
    }

    fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error> {
        let checked = Checked::new(self.name(), weight_name, inputs);
        let (weight, scale) = (checked.weight()?, checked.any_shape(Input::BatchNormScale)?);
        checked.finish(&checked.per_output(Input::BatchNormScale, &weight, &scale.abs()?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn every_weight_of_a_filter_has_the_filters_scale() {
        let weight = Tensor::ones((2, 3, 1, 2), DType::F32, &Device::Cpu).unwrap();
        let scale = Tensor::new(&[-2f32, 0.5], &Device::Cpu).unwrap();
        let inputs = Inputs { batch_norm_scale: Some(&scale), ..Inputs::of(&weight) };
        let scores = BatchNormScale.score("w", &inputs).unwrap();
        assert_eq!(scores.dims(), [2, 3, 1, 2]);
        assert_eq!(scores.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [[2f32; 6], [0.5; 6]].concat());
    }

    #[test]
    fn a_scale_of_another_length_is_an_error() {
        let weight = Tensor::ones((2, 3), DType::F32, &Device::Cpu).unwrap();
        let scale = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
        let error = BatchNormScale.score("w", &Inputs { batch_norm_scale: Some(&scale), ..Inputs::of(&weight) });
        let expected = "batch-norm scale of `w` has shape [3], expected [2], one value per output";
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
}
