//! Scores of one layer on a scale that other layers share.

use std::fmt;

use candle_core::{DType, Device, Tensor};

use crate::finite::{check_finite, on_cpu};
use crate::{Checked, Criterion, Error, Inputs, Requirements};

/// What the scores of a tensor are measured in. No form changes the order within a tensor.
///
/// Source: fasterai 0.3.3, `Normalizer`; its `standardization` is `Range` here, its `gaussian` `Deviations`. Differs from
/// it in that no EPS is added to a denominator: where that is not positive there is no scale, and an error says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Normalization {
    /// s / Σ s: the share of the layer's total.
    Sum,
    /// s / mean(s).
    Mean,
    /// s / max(s).
    Max,
    /// (s − min) / (max − min): 0 for the lowest, 1 for the highest.
    Range,
    /// (s − mean) / standard deviation, with n − 1.
    Deviations,
}

impl Normalization {
    /// Every form.
    pub const ALL: [Normalization; 5] =
        [Normalization::Sum, Normalization::Mean, Normalization::Max, Normalization::Range, Normalization::Deviations];
}

impl fmt::Display for Normalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Normalization::Sum => "sum",
            Normalization::Mean => "mean",
            Normalization::Max => "max",
            Normalization::Range => "range",
            Normalization::Deviations => "deviations",
        })
    }
}

/// The scores of one tensor in units of `normalization`: same shape, f32, on the CPU. Sums are taken in f64.
///
/// Where all scores are 0, as of a layer that is all zeros, so are the normalised ones, in every form.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use lth_criteria::{Normalization, normalize};
///
/// let scores = Tensor::new(&[1f32, 3.0], &Device::Cpu)?;
/// assert_eq!(normalize("fc.weight", &scores, Normalization::Sum)?.to_vec1::<f32>()?, [0.25, 0.75]);
/// assert!(normalize("fc.weight", &scores.neg()?, Normalization::Sum).is_err());
/// # Ok::<(), lth_criteria::Error>(())
/// ```
/// # Errors
/// If a score is not finite, or what the scores should be divided by is not a positive finite number, as where all are
/// negative, or equal and not 0.
pub fn normalize(weight_name: &str, scores: &Tensor, normalization: Normalization) -> Result<Tensor, Error> {
    let scores = on_cpu(scores)?;
    check_finite(&scores, weight_name, || "score".to_owned())?;
    let values = scores.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    if values.iter().all(|value| *value == 0.0) {
        return Ok(Tensor::zeros(scores.shape(), DType::F32, &Device::Cpu)?);
    }
    let n = values.len() as f64;
    let sum: f64 = values.iter().sum();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (origin, scale) = match normalization {
        Normalization::Sum => (0.0, sum),
        Normalization::Mean => (0.0, sum / n),
        Normalization::Max => (0.0, greatest),
        Normalization::Range => (least, greatest - least),
        Normalization::Deviations => {
            let squares: f64 = values.iter().map(|value| (value - sum / n).powi(2)).sum();
            (sum / n, (squares / (n - 1.0)).sqrt())
        }
    };
    // Excludes NaN too, as of one score's deviation.
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::Scale { weight: weight_name.to_owned(), normalization, got: scale });
    }
    let normalized: Vec<f32> = values.iter().map(|value| ((value - origin) / scale) as f32).collect();
    Ok(Tensor::from_vec(normalized, scores.shape(), &Device::Cpu)?)
}

/// Any criterion with its scores normalised within each tensor; its name is `large_final/sum`, the criterion's and the
/// form's, which [`by_name`](crate::by_name) reads.
///
/// fasterai normalises what a granularity has reduced; for groups call [`normalize`] on the group scores instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalized<C> {
    criterion: C,
    normalization: Normalization,
    name: String,
}

impl<C: Criterion> Normalized<C> {
    /// The criterion, its scores in units of `normalization`.
    pub fn new(criterion: C, normalization: Normalization) -> Normalized<C> {
        let name = format!("{}/{normalization}", criterion.name());
        Normalized { criterion, normalization, name }
    }
}

impl<C: Criterion> Criterion for Normalized<C> {
    fn name(&self) -> &str {
        &self.name
    }

    fn requires(&self) -> Requirements {
        self.criterion.requires()
    }

    fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error> {
        let scores = self.criterion.score(weight_name, inputs)?;
        Checked::new(self.name(), weight_name, inputs).finish(&normalize(weight_name, &scores, self.normalization)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LargeFinal, by_name};

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn each_form_is_its_definition() {
        let expected: [[f32; 4]; 5] = [
            [0.1, 0.2, 0.3, 0.4],
            [0.4, 0.8, 1.2, 1.6],
            [0.25, 0.5, 0.75, 1.0],
            [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0],
            // Mean 2.5, squares 2.25 + 0.25 + 0.25 + 2.25 = 5, deviation √(5/3).
            [-1.5, -0.5, 0.5, 1.5].map(|x: f32| x / (5f32 / 3.0).sqrt()),
        ];
        for (normalization, expected) in Normalization::ALL.into_iter().zip(expected) {
            let criterion = Normalized::new(LargeFinal, normalization);
            let scores = criterion.score("w", &Inputs::of(&tensor(&[1.0, -2.0, 3.0, -4.0]))).unwrap();
            for (ours, expected) in scores.to_vec1::<f32>().unwrap().iter().zip(expected) {
                assert!((ours - expected).abs() < 1e-6, "{normalization:?}: {ours}, expected {expected}");
            }
        }
    }

    #[test]
    fn scores_without_a_scale_are_an_error_that_names_the_weight() {
        for normalization in Normalization::ALL {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let error = normalize("fc.weight", &tensor(&[1.0, bad]), normalization).unwrap_err().to_string();
                assert_eq!(error, format!("score of `fc.weight` is {bad} at flat index 1, expected a finite number"));
            }
        }
        // A negative sum would turn the order around.
        let error = normalize("fc.weight", &tensor(&[-1.0, -2.0]), Normalization::Mean).unwrap_err().to_string();
        assert!(error.starts_with("scores of `fc.weight` have no scale"), "{error}");
        assert!(normalize("w", &tensor(&[2.0, 2.0]), Normalization::Range).is_err());
        assert!(normalize("w", &tensor(&[1.0]), Normalization::Deviations).is_err());
    }

    #[test]
    fn a_layer_of_zeros_or_of_nothing_does_not_end_the_others() {
        for normalization in Normalization::ALL {
            for zeros in [&[0.0f32, -0.0][..], &[]] {
                let normalized = normalize("fc.weight", &tensor(zeros), normalization).unwrap();
                assert_eq!(normalized.to_vec1::<f32>().unwrap(), zeros);
            }
        }
    }

    #[test]
    fn the_name_says_what_the_scores_are_in_and_is_read_back() {
        for normalization in Normalization::ALL {
            let name = Normalized::new(LargeFinal, normalization).name().to_owned();
            assert_eq!(name, format!("large_final/{normalization}"));
            let scores = by_name(&name, 0).unwrap().score("w", &Inputs::of(&tensor(&[1.0, -3.0]))).unwrap();
            let expected = normalize("w", &tensor(&[1.0, 3.0]), normalization).unwrap();
            assert_eq!(scores.to_vec1::<f32>().unwrap(), expected.to_vec1::<f32>().unwrap());
        }
        let message = by_name("large_final/median", 0).err().unwrap().to_string();
        assert!(message.starts_with("`large_final/median` is no criterion, expected one of random"), "{message}");
        assert!(message.ends_with("alone or with /sum, /mean, /max, /range, /deviations"), "{message}");
    }
}
