//! Flipped and shifted pictures, so that training does not see the same one every epoch.

use crate::error::{Error, Result};
use crate::random::{Purpose, stream, unit};

/// What training does to a picture after it was scaled; nothing by default. Validation and test see it as it is.
///
/// The padded crop is torchvision's `RandomCrop(size, padding=n)`: `padding` pixels are put around the picture, and a
/// square of the old size is cut out anywhere, all places equally likely. The flip, left to right, is torchvision's
/// `RandomHorizontalFlip(p)`. PARITY: the draws are this crate's, addressed by seed, epoch and picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// How often a picture is flipped, in [0, 1]; 0 is never.
    #[serde(default)]
    pub flip_probability: f64,
    /// Pixels put on every side; 0 shifts nothing.
    #[serde(default)]
    pub padding: usize,
    /// What they are.
    #[serde(default)]
    pub fill: Fill,
}

/// What is around a padded picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// Bytes of 0, normalised as the picture is: torchvision's crop before `ToTensor` and `Normalize`.
    #[default]
    Black,
    /// The value 0 after normalisation, which is the mean: a crop after `Normalize`.
    Mean,
}

/// How one picture is changed: which square of the padded picture is cut out, and whether it is flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// First column in the padded picture, 0 to 2·padding.
    pub left: usize,
    /// First row in the padded picture, 0 to 2·padding.
    pub top: usize,
    /// Whether what was cut out is flipped, left to right.
    pub flipped: bool,
}

impl Augmentation {
    /// That of the papers on CIFAR: four black pixels around, flipped every other time.
    ///
    /// Source: He et al. 2016, *Deep Residual Learning for Image Recognition*, §4.2.
    #[must_use]
    pub fn cifar() -> Self {
        Self { flip_probability: 0.5, padding: 4, fill: Fill::Black }
    }

    /// Whether pictures stay as they are.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.flip_probability == 0.0 && self.padding == 0
    }

    /// Whether it can be used for pictures of `size` by `size`.
    ///
    /// # Errors
    /// If the probability is not in [0, 1], or a padding as large as the picture could push it out of sight.
    pub fn check(&self, size: usize) -> Result<()> {
        if !(0.0..=1.0).contains(&self.flip_probability) {
            let got = self.flip_probability.to_string();
            return Err(Error::BadSetting { what: "flip probability", got, expected: "0 to 1".into() });
        }
        if self.padding > 0 && self.padding >= size {
            let (got, expected) = (self.padding.to_string(), format!("below the image size, {size}"));
            return Err(Error::BadSetting { what: "padding", got, expected });
        }
        Ok(())
    }

    /// The change of picture `picture` in `epoch`: a pure function of its arguments, so neither threads nor the order of
    /// the batches nor a resumed run change it.
    #[must_use]
    pub fn draw(&self, seed: u64, epoch: usize, picture: usize) -> Change {
        // The stream's first two numbers are those of `training_draw`. Each draw has its place, used or not.
        let mut random = stream(seed, Purpose::Crop, epoch as u64, picture as u64);
        let [_, _, flip, left, top] = std::array::from_fn(|_| unit(&mut random));
        let n_places = 2 * self.padding + 1;
        let place = |u: f64| ((u * n_places as f64) as usize).min(n_places - 1);
        Change { left: place(left), top: place(top), flipped: flip < self.flip_probability }
    }

    /// Writes the values of a changed picture to `x`, channels outermost. `bytes`: `size` rows of `size` pixels,
    /// channels innermost. `tables`: the value of each byte, one per channel.
    pub(crate) fn normalise(&self, change: Change, tables: &[[f32; 256]], bytes: &[u8], size: usize, x: &mut [f32]) {
        let n_channels = tables.len();
        // Columns of the result, before the flip, that lie inside the picture.
        let (first, last) = (self.padding.saturating_sub(change.left), (self.padding + size - change.left).min(size));
        for ((channel, table), x) in tables.iter().enumerate().zip(x.chunks_exact_mut(size * size)) {
            let filling = match self.fill {
                Fill::Black => table[0],
                Fill::Mean => 0.0,
            };
            for (row, x) in x.chunks_exact_mut(size).enumerate() {
                let Some(row) = (row + change.top).checked_sub(self.padding).filter(|row| *row < size) else {
                    x.fill(filling);
                    continue;
                };
                x[..first].fill(filling);
                x[last..].fill(filling);
                let start = (row * size + first + change.left - self.padding) * n_channels + channel;
                for (x, byte) in x[first..last].iter_mut().zip(bytes[start..].iter().step_by(n_channels)) {
                    *x = table[usize::from(*byte)];
                }
                if change.flipped {
                    x.reverse();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte b of channel c becomes b + 100·c, but 0 becomes −1.
    fn tables(n_channels: usize) -> Vec<[f32; 256]> {
        let value = |channel: usize, byte: usize| if byte == 0 { -1.0 } else { (byte + 100 * channel) as f32 };
        (0..n_channels).map(|channel| std::array::from_fn(|byte| value(channel, byte))).collect()
    }

    fn changed(augmentation: Augmentation, change: Change, bytes: &[u8], n_channels: usize) -> Vec<f32> {
        let mut x = vec![f32::NAN; bytes.len()];
        augmentation.normalise(change, &tables(n_channels), bytes, 3, &mut x);
        x
    }

    #[test]
    fn pictures_by_hand_are_shifted_flipped_and_filled() {
        let picture = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let shift = Augmentation { padding: 2, ..Augmentation::default() };
        for (change, expected) in [
            (Change { left: 2, top: 2, flipped: false }, [1., 2., 3., 4., 5., 6., 7., 8., 9.]),
            (Change { left: 2, top: 2, flipped: true }, [3., 2., 1., 6., 5., 4., 9., 8., 7.]),
            (Change { left: 0, top: 2, flipped: false }, [-1., -1., 1., -1., -1., 4., -1., -1., 7.]),
            (Change { left: 3, top: 4, flipped: false }, [8., 9., -1., -1., -1., -1., -1., -1., -1.]),
            (Change { left: 3, top: 1, flipped: true }, [-1., -1., -1., -1., 3., 2., -1., 6., 5.]),
        ] {
            assert_eq!(changed(shift, change, &picture, 1), expected, "{change:?}");
            let mean = Augmentation { fill: Fill::Mean, ..shift };
            let expected = expected.map(|value| if value == -1. { 0. } else { value });
            assert_eq!(changed(mean, change, &picture, 1), expected, "{change:?}");
        }
    }

    #[test]
    fn channels_are_changed_alike() {
        let bytes: Vec<u8> = (1..=18).collect();
        let shift = Augmentation { padding: 1, ..Augmentation::default() };
        let x = changed(shift, Change { left: 2, top: 1, flipped: true }, &bytes, 2);
        assert_eq!(x[..9], [-1., 5., 3., -1., 11., 9., -1., 17., 15.]);
        assert_eq!(x[9..], [-1., 106., 104., -1., 112., 110., -1., 118., 116.]);
    }

    #[test]
    fn places_and_flips_are_equally_likely_and_independent() {
        let (augmentation, n) = (Augmentation { padding: 1, ..Augmentation::cifar() }, 18_000);
        let mut counts = [[0_u32; 9]; 2];
        for picture in 0..n {
            let Change { left, top, flipped } = augmentation.draw(7, 3, picture);
            counts[usize::from(flipped)][3 * top + left] += 1;
        }
        // Expected 1000 each with a standard deviation of 31; 160 is five of them.
        assert!(counts.as_flattened().iter().all(|&count| count.abs_diff(1_000) < 160), "{counts:?}");
        let rare = Augmentation { flip_probability: 0.1, ..Augmentation::default() };
        let n_flipped = (0..n).filter(|&picture| rare.draw(7, 3, picture).flipped).count();
        assert!(n_flipped.abs_diff(1_800) < 202, "{n_flipped}"); // five standard deviations
    }

    #[test]
    fn a_change_is_a_function_of_seed_epoch_and_picture() {
        let draws = |seed, epoch| (0..40).map(|p| Augmentation::cifar().draw(seed, epoch, p)).collect::<Vec<_>>();
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(2, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
        // A shift changes no flip.
        let flips = Augmentation { padding: 0, ..Augmentation::cifar() };
        for picture in 0..40 {
            assert_eq!(flips.draw(1, 2, picture).flipped, Augmentation::cifar().draw(1, 2, picture).flipped);
        }
        let always = Augmentation { flip_probability: 1.0, ..flips };
        assert!((0..40).all(|picture| always.draw(1, 2, picture) == Change { left: 0, top: 0, flipped: true }));
    }

    #[test]
    fn settings_outside_their_range_are_errors() {
        let message = |augmentation: Augmentation| augmentation.check(8).unwrap_err().to_string();
        let flip = |flip_probability| Augmentation { flip_probability, ..Augmentation::default() };
        assert_eq!(message(flip(1.5)), "flip probability is 1.5, expected 0 to 1");
        assert!(message(flip(f64::NAN)).starts_with("flip probability is NaN"));
        let wide = Augmentation { padding: 8, ..Augmentation::default() };
        assert_eq!(message(wide), "padding is 8, expected below the image size, 8");
        Augmentation::cifar().check(32).unwrap();
        Augmentation::default().check(1).unwrap();
    }
}
