//! Where a sorted list of scores is cut.

use crate::error::{Error, Result};

/// How a sparsity `s` of `n` scores becomes a cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdRule {
    /// Keeps at least as high as the `s`-quantile (interpolated linearly, in f64), lowered to a layer's highest score
    /// where it is above: `ceil(s·(n−1))` are pruned, fewer where scores tie at the cut.
    ///
    /// Nothing lies strictly between two neighbours in order, so what is at least a value interpolated between them is
    /// what is at least the upper one, and the threshold is the score of rank `ceil(s·(n−1))` itself.
    ///
    /// Source: fasterai, February 2021, `torch.quantile`. Differs: PyTorch rounds `s` to f32 first and interpolates in
    /// f32, which moves a layer's count by one where `s·(n−1)` is nearly whole.
    Quantile,
    /// Keeps at least as high as the k-th lowest, k = max(1, floor(s·n)): n − k + 1 are kept, more where scores tie at the
    /// cut, and nothing is pruned while floor(s·n) is at most 1.
    ///
    /// Source: fasterai 0.3.3, `Sparsifier._kth_value`.
    KthValue,
    /// Prunes exactly `round(s·n)` (half away from zero); of equal scores the one with the lower flat index, and over
    /// several tensors that of the first name in order, is kept.
    #[default]
    ExactCount,
}

impl ThresholdRule {
    /// How many of `n` groups are kept when no scores tie; for [`ThresholdRule::ExactCount`] in any case.
    ///
    /// # Errors
    /// If the sparsity is not in [0, 1].
    pub fn kept(self, sparsity: f64, n: usize) -> Result<usize> {
        check_sparsity(sparsity)?;
        Ok(match (self, n) {
            (_, 0) => 0,
            (Self::ExactCount, _) => n - (sparsity * n as f64).round() as usize,
            (Self::Quantile | Self::KthValue, _) => n - self.threshold_rank(sparsity, n),
        })
    }

    /// The rank (0 = lowest) of the score at the cut; `n` is at least 1 and the sparsity in [0, 1].
    pub(crate) fn threshold_rank(self, sparsity: f64, n: usize) -> usize {
        let last = n - 1;
        let rank = match self {
            Self::Quantile => (sparsity * last as f64).ceil() as usize,
            Self::KthValue => ((sparsity * n as f64) as usize).max(1) - 1,
            Self::ExactCount => (sparsity * n as f64).round() as usize,
        };
        rank.min(last)
    }
}

pub(crate) fn check_sparsity(sparsity: f64) -> Result<()> {
    if (0.0..=1.0).contains(&sparsity) { Ok(()) } else { Err(Error::Sparsity(sparsity)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_counts_as_its_source_does() -> Result<()> {
        let kept = |sparsity| -> Result<[usize; 3]> {
            Ok([
                ThresholdRule::Quantile.kept(sparsity, 288)?,
                ThresholdRule::KthValue.kept(sparsity, 288)?,
                ThresholdRule::ExactCount.kept(sparsity, 288)?,
            ])
        };
        assert_eq!(kept(0.0)?, [288, 288, 288]);
        assert_eq!(kept(0.3)?, [201, 203, 202]);
        assert_eq!(kept(0.5)?, [144, 145, 144]);
        assert_eq!(kept(1.0)?, [1, 1, 0]);
        Ok(())
    }

    #[test]
    fn a_sparsity_is_a_fraction() {
        for odd in [-0.1, 1.5, 50.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(ThresholdRule::ExactCount.kept(odd, 5), Err(Error::Sparsity(_))));
        }
    }
}
