//! Wanda: scores from the weight and the size of what it is multiplied with.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use crate::finite::check_finite;
use crate::{Checked, Criterion, Error, Input, Inputs, Requirements};

/// |w| · ‖x‖ of the input channel that the weight reads.
///
/// For a weight \[O, I, …\] the norm is \[I\]. For a grouped convolution \[O, I / groups, …\] it is \[I\] too: the number
/// of groups is its length over the weight's second dimension, and filter o reads the channels of its group.
///
/// The paper compares the weights of one output with each other, so select within rows; that it is the norm divided by
/// √(samples) changes no order there. Source: Sun et al. 2024, "A Simple and Effective Pruning Approach for Large
/// Language Models", eq. 1; for convolutions fasterai's `wanda`, which has no groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanda;

impl Criterion for Wanda {
    fn name(&self) -> &str {
        "wanda"
    }

    fn requires(&self) -> Requirements {
        Requirements::of(&[Input::ActivationNorm])
    }

    fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error> {
        let checked = Checked::new(self.name(), weight_name, inputs);
        let (weight, norm) = (checked.weight()?, checked.any_shape(Input::ActivationNorm)?);
        let dims = weight.dims().to_vec();
        let n_groups = match (dims.as_slice(), norm.dims()) {
            (&[n_filters, per_group, ..], &[n_channels]) if per_group > 0 && n_channels % per_group == 0 => {
                Some(n_channels / per_group).filter(|n_groups| *n_groups > 0 && n_filters % n_groups == 0)
            }
            _ => None,
        };
        let Some(n_groups) = n_groups else {
            let expected = match dims.get(1) {
                Some(per_group) => format!("[{per_group}], or that times the number of groups"),
                None => "one value per input channel of a weight of two or more dimensions".to_owned(),
            };
            return Err(checked.wrong_shape(Input::ActivationNorm, &norm, expected));
        };
        // [groups, O / groups, I / groups, rest] · [groups, 1, I / groups, 1]
        let (n_filters, per_group) = (dims[0], dims[1]);
        let rest = dims[2..].iter().product::<usize>();
        let grouped = weight.abs()?.reshape((n_groups, n_filters / n_groups, per_group, rest))?;
        let scores = grouped.broadcast_mul(&norm.reshape((n_groups, 1, per_group, 1))?)?;
        checked.finish(&scores.reshape(dims)?)
    }
}

/// Norms of activations per channel, collected over batches: what [`Wanda`] needs.
///
/// candle has no hooks on layers, so the network (or its author) hands over the input of each layer, under the name of
/// the layer's weight.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use lth_criteria::{ActivationNorms, Criterion, Inputs, Wanda};
///
/// let (weight, x) = (Tensor::new(&[[1f32, 1.0]], &Device::Cpu)?, Tensor::new(&[[3f32, 0.0], [-4.0, 1.0]], &Device::Cpu)?);
/// let mut norms = ActivationNorms::new();
/// norms.observe("fc.weight", &x)?;
/// let norm = &norms.norms()?["fc.weight"];
/// assert_eq!(norm.to_vec1::<f32>()?, [(25f32 / 2.0).sqrt(), (1f32 / 2.0).sqrt()]);
/// let scores = Wanda.score("fc.weight", &Inputs { activation_norm: Some(norm), ..Inputs::of(&weight) })?;
/// # assert_eq!(scores.dims(), [1, 2]);
/// # Ok::<(), lth_criteria::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ActivationNorms {
    sums: BTreeMap<String, SumOfSquares>,
}

#[derive(Clone, Debug)]
struct SumOfSquares {
    per_channel: Vec<f64>,
    n_samples: u64,
    device: Device,
}

impl ActivationNorms {
    /// Nothing observed yet.
    pub fn new() -> ActivationNorms {
        ActivationNorms::default()
    }

    /// Adds the input of one layer for one batch, under the name of the layer's weight.
    ///
    /// The channels are dimension 1 of \[N, C\], \[N, C, H, W\] and \[N, C, D, H, W\], and the last of \[N, T, C\], as a
    /// linear layer reads them. For a one-dimensional convolution's \[N, C, L\] say so with
    /// [`ActivationNorms::observe_channels`].
    ///
    /// # Errors
    /// if `x` has fewer than two dimensions, other channels than before, no samples, or NaN or an infinite value.
    pub fn observe(&mut self, weight_name: &str, x: &Tensor) -> Result<(), Error> {
        let channel_dim = if x.rank() == 3 { 2 } else { 1 };
        self.observe_channels(weight_name, x, channel_dim)
    }

    /// As [`ActivationNorms::observe`], with the channels in dimension `channel_dim` (not 0, which holds the samples).
    ///
    /// # Errors
    /// as [`ActivationNorms::observe`], and if there is no such dimension.
    pub fn observe_channels(&mut self, weight_name: &str, x: &Tensor, channel_dim: usize) -> Result<(), Error> {
        let wrong_shape = |expected: String| Error::Shape {
            weight: weight_name.to_owned(),
            input: Input::ActivationNorm,
            got: x.dims().to_vec(),
            expected,
        };
        if channel_dim == 0 || channel_dim >= x.rank() || x.elem_count() == 0 {
            return Err(wrong_shape(format!(
                "an activation with samples first and channels in dimension {channel_dim}"
            )));
        }
        let x = x.detach();
        check_finite(&x, weight_name, || "activation".to_owned())?;
        let n_channels = x.dim(channel_dim)?;
        if let Some(before) = self.sums.get(weight_name).filter(|sums| sums.per_channel.len() != n_channels) {
            return Err(wrong_shape(format!("{} channels as before", before.per_channel.len())));
        }
        // In f64: batches add up to sums that f32 would round away.
        let by_channel = x.to_dtype(DType::F64)?.transpose(0, channel_dim)?.contiguous()?.flatten_from(1)?;
        let squares = by_channel.sqr()?.sum(1)?.to_vec1::<f64>()?;
        let sums = self.sums.entry(weight_name.to_owned()).or_insert_with(|| SumOfSquares {
            per_channel: vec![0.0; n_channels],
            n_samples: 0,
            device: x.device().clone(),
        });
        for (sum, square) in sums.per_channel.iter_mut().zip(squares) {
            *sum += square;
        }
        sums.n_samples += x.dim(0)? as u64;
        Ok(())
    }

    /// √(Σ x² / n) per channel, by weight name: [`Input::ActivationNorm`], f32.
    ///
    /// The sum is over samples and positions, n counts the samples (the first dimension) alone, as in fasterai.
    ///
    /// # Errors
    /// if a tensor cannot be put on the activation's device.
    pub fn norms(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let norm = |sums: &SumOfSquares| -> Result<Tensor, Error> {
            let n_samples = sums.n_samples as f64;
            let norms: Vec<f32> = sums.per_channel.iter().map(|sum| (sum / n_samples).sqrt() as f32).collect();
            Ok(Tensor::new(norms, &sums.device)?)
        };
        self.sums.iter().map(|(name, sums)| Ok((name.clone(), norm(sums)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouped_filters_read_the_channels_of_their_group() {
        let weight = Tensor::ones((4, 2, 1, 1), DType::F32, &Device::Cpu).unwrap();
        let norm = Tensor::new(&[1f32, 2., 3., 4.], &Device::Cpu).unwrap();
        let scores = Wanda.score("w", &Inputs { activation_norm: Some(&norm), ..Inputs::of(&weight) }).unwrap();
        let scores = scores.reshape((4, 2)).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(scores, [[1., 2.], [1., 2.], [3., 4.], [3., 4.]]);
    }

    #[test]
    fn a_norm_that_fits_no_grouping_is_an_error() {
        let weight = Tensor::ones((4, 2, 3, 3), DType::F32, &Device::Cpu).unwrap();
        for n_channels in [0usize, 1, 3, 6, 16] {
            let norm = Tensor::ones(n_channels, DType::F32, &Device::Cpu).unwrap();
            let error = Wanda.score("w", &Inputs { activation_norm: Some(&norm), ..Inputs::of(&weight) }).unwrap_err();
            let expected = format!(
                "activation norm of `w` has shape [{n_channels}], expected [2], or that times the number of groups"
            );
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn tokens_are_counted_by_their_last_dimension() {
        let tokens = Tensor::new(&[[[1f32, 2.], [1., 2.], [1., 2.]]], &Device::Cpu).unwrap();
        let mut norms = ActivationNorms::new();
        norms.observe("tokens", &tokens).unwrap();
        norms.observe_channels("signal", &tokens, 1).unwrap();
        let norms = norms.norms().unwrap();
        assert_eq!(norms["tokens"].to_vec1::<f32>().unwrap(), [3f32.sqrt(), 12f32.sqrt()]);
        assert_eq!(norms["signal"].to_vec1::<f32>().unwrap(), [5f32.sqrt(); 3]);
    }

    #[test]
    fn an_activation_that_does_not_fit_is_an_error_and_changes_nothing() {
        let ones = |dims: &[usize]| Tensor::ones(dims, DType::F32, &Device::Cpu).unwrap();
        let mut norms = ActivationNorms::new();
        norms.observe("w", &ones(&[2, 3])).unwrap();
        assert!(norms.observe("w", &ones(&[2, 4])).is_err());
        assert!(norms.observe("v", &ones(&[3])).is_err());
        assert!(norms.observe("v", &ones(&[0, 3])).is_err());
        assert!(norms.observe_channels("v", &ones(&[2, 3]), 0).is_err());
        let nan = Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu).unwrap();
        let error = norms.observe("v", &nan).unwrap_err().to_string();
        assert_eq!(error, "activation of `v` is NaN at flat index 1, expected a finite number");
        let norms = norms.norms().unwrap();
        assert_eq!(norms.len(), 1);
        assert_eq!(norms["w"].to_vec1::<f32>().unwrap(), [1.0; 3]);
    }
}
