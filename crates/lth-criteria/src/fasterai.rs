//! fasterai's rule on top of a score, for comparisons with it: nowhere applied unless asked for.

use candle_core::{DType, Tensor};

use crate::{Checked, Criterion, Error, Input, Inputs, Requirements};

/// fasterai's `EPS`, the f32 machine epsilon, added to every score.
pub const EPS: f32 = f32::EPSILON;

/// Scores as fasterai 0.3.3 makes them from plain ones: if the smallest is negative its absolute value is added to all,
/// then [`EPS`] is added, then they are multiplied with the old mask, if there is one.
///
/// So a pruned weight scores 0 and any other at least EPS. In f32 like fasterai, where EPS vanishes beside scores above
/// about 2. `scores`: any floating-point type, rounded to f32; `old_mask`: the same shape, any type. The mean over a
/// granularity's dimensions comes after.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use lth_criteria::fasterai::{EPS, rescale};
///
/// let scores = Tensor::new(&[-1f32, 0.0, 1.0], &Device::Cpu)?;
/// let mask = Tensor::new(&[1u8, 1, 0], &Device::Cpu)?;
/// assert_eq!(rescale(&scores, Some(&mask))?.to_vec1::<f32>()?, [EPS, 1.0 + EPS, 0.0]);
/// # Ok::<(), lth_criteria::Error>(())
/// ```
/// # Errors
/// If the shapes differ.
///
/// Source: fasterai 0.3.3 (868348e), `Criteria.__call__` and `_rescale`.
pub fn rescale(scores: &Tensor, old_mask: Option<&Tensor>) -> Result<Tensor, Error> {
    let scores = &scores.to_dtype(DType::F32)?;
    if scores.elem_count() == 0 {
        return Ok(scores.clone());
    }
    let smallest = scores.flatten_all()?.min(0)?.to_scalar::<f32>()?;
    // Two roundings, as fasterai has them: first the shift, then EPS.
    let shifted = if smallest < 0.0 { (scores - f64::from(smallest))? } else { scores.clone() };
    let scores = (shifted + f64::from(EPS))?;
    Ok(match old_mask {
        Some(mask) => (scores * mask.to_dtype(DType::F32)?)?,
        None => scores,
    })
}

/// Any criterion under fasterai's rule: its scores go through [`rescale`] with the mask in force, if there is one. Its
/// name is `large_final+fasterai`.
///
/// fasterai's `grad_crit` (here [`Taylor`](crate::Taylor)) is exempt from the rule: use it plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FasteraiRule<C> {
    criterion: C,
    name: String,
}

impl<C: Criterion> FasteraiRule<C> {
    /// The criterion with plain scores, under the rule.
    pub fn new(criterion: C) -> FasteraiRule<C> {
        let name = format!("{}+fasterai", criterion.name());
        FasteraiRule { criterion, name }
    }
}

impl<C: Criterion> Criterion for FasteraiRule<C> {
    fn name(&self) -> &str {
        &self.name
    }

    /// What the criterion needs; the mask is used where it is given.
    fn requires(&self) -> Requirements {
        self.criterion.requires()
    }

    fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error> {
        let checked = Checked::new(self.name(), weight_name, inputs);
        let mask = inputs.mask.map(|_| checked.like_weight(Input::Mask)).transpose()?;
        checked.finish(&rescale(&self.criterion.score(weight_name, inputs)?, mask.as_ref())?)
    }
}
