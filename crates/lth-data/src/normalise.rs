//! From bytes to the numbers a network sees.

use candle_core::{Device, Tensor};

use crate::crop::Square;
use crate::decode::Decoded;
use crate::error::{Error, Result};
use crate::resize::Resizer;

/// Mean and standard deviation per channel, on values in 0..1: x = (byte / 255 − mean) / deviation.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Normalisation {
    /// Mean per channel.
    pub mean: Vec<f32>,
    /// Standard deviation per channel.
    pub std: Vec<f32>,
}

impl Normalisation {
    /// The constants of ImageNet, for three channels.
    pub fn imagenet() -> Normalisation {
        Normalisation { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }

    /// Mean 0 and deviation 1: bytes become 0..1 and nothing else.
    pub fn unit(n_channels: usize) -> Normalisation {
        Normalisation { mean: vec![0.0; n_channels], std: vec![1.0; n_channels] }
    }

    /// Number of channels.
    pub fn n_channels(&self) -> usize {
        self.mean.len()
    }

    /// Whether it can be used for pictures of `n_channels`.
    ///
    /// # Errors
    /// If there is not one finite mean and one finite deviation above zero for each of `n_channels` channels.
    pub fn check(&self, n_channels: usize) -> Result<()> {
        let bad = |what, got| Error::BadSetting { what, got, expected: format!("{n_channels} finite numbers") };
        if self.mean.len() != n_channels || self.mean.iter().any(|mean| !mean.is_finite()) {
            return Err(bad("normalisation mean", format!("{:?}", self.mean)));
        }
        if self.std.len() != n_channels || self.std.iter().any(|std| !std.is_finite() || *std <= 0.0) {
            return Err(Error::BadSetting {
                what: "normalisation deviation",
                got: format!("{:?}", self.std),
                expected: format!("{n_channels} finite numbers above 0"),
            });
        }
        Ok(())
    }

    /// A decoded picture as validation shows it to a network: its middle square scaled by `resizer`, then normalised. f32
    /// `[3, size, size]`; stack several to a batch.
    ///
    /// # Errors
    /// If there is not one finite mean and one finite deviation above zero for each of 3 channels, or the resizer's size
    /// is 0.
    ///
    /// ```
    /// use lth_data::{Decoded, Format, Normalisation, Resizer};
    ///
    /// # fn main() -> Result<(), lth_data::Error> {
    /// let grey = Decoded { format: Format::Png, width: 3, height: 2, rgb: vec![51; 18] };
    /// let x = Normalisation::unit(3).picture(&grey, &mut Resizer::new(4))?;
    /// assert_eq!(x.dims(), [3, 4, 4]);
    /// assert_eq!(x.flatten_all()?.to_vec1::<f32>()?, [0.2; 48]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn picture(&self, picture: &Decoded, resizer: &mut Resizer) -> Result<Tensor> {
        const CHANNELS: usize = 3;
        self.check(CHANNELS)?;
        let size = resizer.size();
        if size == 0 {
            return Err(Error::BadSetting { what: "image size", got: "0".into(), expected: "at least 1".into() });
        }
        let mut resized = vec![0; CHANNELS * size * size];
        let square = Square::centred(picture.width, picture.height);
        resizer.resize(&picture.rgb, picture.width, CHANNELS, square, &mut resized);
        let mut x = vec![0.; resized.len()];
        normalise(&self.tables(), &resized, &mut x);
        Ok(Tensor::from_vec(x, (CHANNELS, size, size), &Device::Cpu)?)
    }

    /// The value of each byte, one table per channel, computed in f32 in PyTorch's order of operations.
    pub(crate) fn tables(&self) -> Vec<[f32; 256]> {
        let table = |(&mean, &std): (&f32, &f32)| std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std);
        self.mean.iter().zip(&self.std).map(table).collect()
    }
}

/// Bytes with the channels innermost become values with the channels outermost.
pub(crate) fn normalise(tables: &[[f32; 256]], bytes: &[u8], x: &mut [f32]) {
    let n_channels = tables.len();
    let n_pixels = bytes.len() / n_channels;
    for ((channel, table), x) in tables.iter().enumerate().zip(x.chunks_exact_mut(n_pixels)) {
        for (x, byte) in x.iter_mut().zip(bytes[channel..].iter().step_by(n_channels)) {
            *x = table[usize::from(*byte)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_follow_the_formula() {
        let tables = Normalisation::imagenet().tables();
        assert_eq!(tables.len(), 3);
        assert_eq!(tables[0][0], -0.485 / 0.229);
        assert_eq!(tables[2][255], (1.0 - 0.406) / 0.225);
        assert_eq!(Normalisation::unit(1).tables()[0][51], 0.2);
    }

    #[test]
    fn wrong_channels_and_zero_deviation_are_errors() {
        assert!(Normalisation::imagenet().check(3).is_ok());
        assert!(Normalisation::imagenet().check(1).is_err());
        let zero = Normalisation { mean: vec![0.0], std: vec![0.0] };
        let message = zero.check(1).unwrap_err().to_string();
        assert_eq!(message, "normalisation deviation is [0.0], expected 1 finite numbers above 0");
    }
}
