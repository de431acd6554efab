//! Wanda: scores from the weight and the size of what it is multiplied with.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use crate::finite::{check_finite, on_cpu};
use crate::{Checked, Criterion, Error, Input, Inputs, Requirements};

/// |w| · ‖x‖ of the input channel that the weight reads.
///
/// The norm's shape says how the weight reads its channels ([`Reads`]), and must fit the weight exactly:
///
/// | layer | weight | norm |
/// |---|---|---|
/// | linear, convolution | \[O, I, …\] | \[I\] |
/// | grouped convolution | \[O, I / G, …\] | \[G, I / G\]: filter o reads the channels of group o · G / O |
/// | transposed convolution, grouped or not | \[I, O / G, …\] | \[I, 1\] |
///
/// The paper compares the weights of one output with each other, so select over each output by itself (`lth-mask`'s
/// scope per output); that it is the norm divided by √(samples) changes no order there. Source: Sun et al. 2024, "A Simple
/// and Effective Pruning Approach for Large Language Models", eq. 1; for convolutions fasterai's `wanda`, which has no
/// groups.
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
        let &[rows, columns, ref rest @ ..] = dims.as_slice() else {
            let expected = "one value per input channel of a weight of two or more dimensions".to_owned();
            return Err(checked.wrong_shape(Input::ActivationNorm, &norm, expected));
        };
        // Rows of the norm, and how many input channels each is for.
        let (n_groups, per_group) = match *norm.dims() {
            [n_channels] if n_channels == columns => (1, columns),
            [n_groups, per_group] if per_group == columns && n_groups > 0 && rows % n_groups == 0 => {
                (n_groups, per_group)
            }
            [n_channels, 1] if n_channels == rows => (rows, 1),
            _ => {
                let expected = format!(
                    "[{columns}]; [groups, {columns}] of a grouped convolution, [{rows}, 1] of a transposed one"
                );
                return Err(checked.wrong_shape(Input::ActivationNorm, &norm, expected));
            }
        };
        // [groups, rows / groups, columns, rest] · [groups, 1, columns or 1, 1]
        let rest = rest.iter().product::<usize>();
        let grouped = weight.abs()?.reshape((n_groups, rows / n_groups.max(1), columns, rest))?;
        let scores = grouped.broadcast_mul(&norm.reshape((n_groups, 1, per_group, 1))?)?;
        checked.finish(&scores.reshape(dims)?)
    }
}

/// How a layer's weight reads its input channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reads {
    /// A linear layer \[O, I\] or a convolution \[O, I, …\]: every output all channels.
    #[default]
    All,
    /// A grouped convolution \[O, I / groups, …\]: every output the channels of its group.
    Groups(usize),
    /// A transposed convolution \[I, O / groups, …\]: the first dimension is the channels.
    Transposed,
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
    reads: Reads,
}

impl ActivationNorms {
    /// Nothing observed yet.
    pub fn new() -> ActivationNorms {
        ActivationNorms::default()
    }

    /// Adds the input of one linear layer or convolution without groups for one batch, under the name of its weight.
    ///
    /// The channels are dimension 1 of \[N, C\], \[N, C, H, W\] and \[N, C, D, H, W\], and the last of \[N, T, C\], as a
    /// linear layer reads them. For a one-dimensional convolution's \[N, C, L\], and for layers with groups and transposed
    /// ones, say so with [`ActivationNorms::observe_as`].
    ///
    /// # Errors
    /// If `x` has fewer than two dimensions, other channels than before, no samples, or NaN or an infinite value.
    pub fn observe(&mut self, weight_name: &str, x: &Tensor) -> Result<(), Error> {
        let channel_dim = if x.rank() == 3 { 2 } else { 1 };
        self.observe_as(weight_name, x, channel_dim, Reads::All)
    }

    /// As [`ActivationNorms::observe`], with the channels in dimension `channel_dim` (not 0, which holds the samples), for
    /// a layer that reads them as `reads` says.
    ///
    /// # Errors
    /// As [`ActivationNorms::observe`], and if there is no such dimension, the layer was another before, or the channels
    /// do not divide into its groups.
    pub fn observe_as(&mut self, weight_name: &str, x: &Tensor, channel_dim: usize, reads: Reads) -> Result<(), Error> {
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
        let n_channels = x.dim(channel_dim)?;
        if let Reads::Groups(n_groups) = reads
            && (n_groups == 0 || n_channels % n_groups != 0)
        {
            return Err(wrong_shape(format!("channels in dimension {channel_dim} that divide into {n_groups} groups")));
        }
        if let Some(before) = self.sums.get(weight_name) {
            if before.per_channel.len() != n_channels {
                return Err(wrong_shape(format!("{} channels as before", before.per_channel.len())));
            }
            if before.reads != reads {
                let (got, expected) = (format!("{reads:?}"), "the same as in the batch before");
                return Err(Error::Parameter { parameter: "how the layer reads its channels", got, expected });
            }
        }
        let x = on_cpu(x)?;
        check_finite(&x, weight_name, || "activation".to_owned())?;
        // In f64: batches add up to sums that f32 would round away.
        let by_channel = x.to_dtype(DType::F64)?.transpose(0, channel_dim)?.contiguous()?.flatten_from(1)?;
        let squares = by_channel.sqr()?.sum(1)?.to_vec1::<f64>()?;
        let sums = self.sums.entry(weight_name.to_owned()).or_insert_with(|| SumOfSquares {
            per_channel: vec![0.0; n_channels],
            n_samples: 0,
            reads,
        });
        for (sum, square) in sums.per_channel.iter_mut().zip(squares) {
            *sum += square;
        }
        sums.n_samples += x.dim(0)? as u64;
        Ok(())
    }

    /// √(Σ x² / n) per channel, by weight name: [`Input::ActivationNorm`], f32, on the CPU, in the shape that [`Wanda`]
    /// reads.
    ///
    /// The sum is over samples and positions, n counts the samples (the first dimension) alone, as in fasterai.
    ///
    /// # Errors
    /// If candle fails.
    pub fn norms(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let norm = |sums: &SumOfSquares| -> Result<Tensor, Error> {
            let n_samples = sums.n_samples as f64;
            let norms: Vec<f32> = sums.per_channel.iter().map(|sum| (sum / n_samples).sqrt() as f32).collect();
            let n_channels = norms.len();
            let norms = Tensor::new(norms, &Device::Cpu)?;
            Ok(match sums.reads {
                Reads::All => norms,
                Reads::Groups(n_groups) => norms.reshape((n_groups, n_channels / n_groups))?,
                Reads::Transposed => norms.reshape((n_channels, 1))?,
            })
        };
        self.sums.iter().map(|(name, sums)| Ok((name.clone(), norm(sums)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones(dims: &[usize]) -> Tensor {
        Tensor::ones(dims, DType::F32, &Device::Cpu).unwrap()
    }

    fn score(weight: &Tensor, norm: &Tensor) -> Result<Tensor, Error> {
        Wanda.score("w", &Inputs { activation_norm: Some(norm), ..Inputs::of(weight) })
    }

    #[test]
    fn grouped_filters_read_the_channels_of_their_group() {
        let norm = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu).unwrap();
        let scores = score(&ones(&[4, 2, 1, 1]), &norm).unwrap().reshape((4, 2)).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(scores, [[1., 2.], [1., 2.], [3., 4.], [3., 4.]]);
    }

    #[test]
    fn a_transposed_convolution_reads_its_first_dimension() {
        let x = Tensor::new(&[[[[1f32]], [[-2.]], [[3.]]]], &Device::Cpu).unwrap();
        let mut norms = ActivationNorms::new();
        norms.observe_as("w", &x, 1, Reads::Transposed).unwrap();
        // Square in inputs and outputs: only the norm's shape can tell which is which.
        let scores = score(&ones(&[3, 3, 1, 1]), &norms.norms().unwrap()["w"]).unwrap();
        let scores = scores.reshape((3, 3)).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(scores, [[1., 1., 1.], [2., 2., 2.], [3., 3., 3.]]);
        // Observed as an ordinary layer's, it fits no other number of outputs.
        norms = ActivationNorms::new();
        norms.observe("w", &ones(&[2, 6, 4, 4])).unwrap();
        assert!(score(&ones(&[6, 3, 2, 2]), &norms.norms().unwrap()["w"]).is_err());
    }

    #[test]
    fn a_layer_keeps_its_way_of_reading_and_its_groups_divide_the_channels() {
        let mut norms = ActivationNorms::new();
        let error = norms.observe_as("w", &ones(&[1, 6]), 1, Reads::Groups(4)).unwrap_err().to_string();
        assert_eq!(
            error,
            "activation norm of `w` has shape [1, 6], expected channels in dimension 1 that divide into 4 groups"
        );
        assert!(norms.observe_as("w", &ones(&[1, 6]), 1, Reads::Groups(0)).is_err());
        norms.observe_as("w", &ones(&[1, 6]), 1, Reads::Groups(3)).unwrap();
        assert!(norms.observe_as("w", &ones(&[1, 6]), 1, Reads::Transposed).is_err());
        assert_eq!(norms.norms().unwrap()["w"].dims(), [3, 2]);
    }

    #[test]
    fn the_norm_of_another_layer_is_an_error() {
        let weight = ones(&[4, 2, 3, 3]);
        // Each a multiple of the two channels or a divisor of something: none fits.
        for dims in [&[0][..], &[1], &[3], &[4], &[6], &[8], &[16], &[3, 2], &[0, 2], &[8, 1], &[2, 1], &[4, 4]] {
            let error = score(&weight, &ones(dims)).unwrap_err();
            let expected = format!(
                "activation norm of `w` has shape {dims:?}, expected [2]; [groups, 2] of a grouped convolution, \
                 [4, 1] of a transposed one"
            );
            assert_eq!(error.to_string(), expected);
        }
        for dims in [&[2][..], &[1, 2], &[2, 2], &[4, 2], &[4, 1]] {
            assert!(score(&weight, &ones(dims)).is_ok(), "{dims:?}");
        }
    }

    #[test]
    fn tokens_are_counted_by_their_last_dimension() {
        let tokens = Tensor::new(&[[[1f32, 2.], [1., 2.], [1., 2.]]], &Device::Cpu).unwrap();
        let mut norms = ActivationNorms::new();
        norms.observe("tokens", &tokens).unwrap();
        norms.observe_as("signal", &tokens, 1, Reads::All).unwrap();
        let norms = norms.norms().unwrap();
        assert_eq!(norms["tokens"].to_vec1::<f32>().unwrap(), [3f32.sqrt(), 12f32.sqrt()]);
        assert_eq!(norms["signal"].to_vec1::<f32>().unwrap(), [5f32.sqrt(); 3]);
    }

    #[test]
    fn an_activation_that_does_not_fit_is_an_error_and_changes_nothing() {
        let mut norms = ActivationNorms::new();
        norms.observe("w", &ones(&[2, 3])).unwrap();
        assert!(norms.observe("w", &ones(&[2, 4])).is_err());
        assert!(norms.observe("v", &ones(&[3])).is_err());
        assert!(norms.observe("v", &ones(&[0, 3])).is_err());
        assert!(norms.observe_as("v", &ones(&[2, 3]), 0, Reads::All).is_err());
        let nan = Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu).unwrap();
        let error = norms.observe("v", &nan).unwrap_err().to_string();
        assert_eq!(error, "activation of `v` is NaN at flat index 1, expected a finite number");
        let norms = norms.norms().unwrap();
        assert_eq!(norms.len(), 1);
        assert_eq!(norms["w"].to_vec1::<f32>().unwrap(), [1.0; 3]);
    }
}
