//! 1,797 handwritten digits of 8×8 pixels: a real data set that is part of the program.
//!
//! They are the test part of *Optical Recognition of Handwritten Digits* (E. Alpaydin, C. Kaynak, 1998, UCI Machine
//! Learning Repository, <https://doi.org/10.24432/C50P49>, CC BY 4.0): 13 writers, 32×32 bitmaps counted in blocks of
//! 4×4, so that a pixel is 0 to 16. scikit-learn's `load_digits` is the same set.
//!
//! The numbers are those that the crate `smartcore` carries; it comes with the feature `digits` only.
//!
//! ```
//! # fn main() -> Result<(), lth_data::digits::Error> {
//! let digits = lth_data::digits::Digits::load()?;
//! assert_eq!(digits.len(), 1_797);
//! let (train, test) = digits.split(0.2, 42);
//! let (x, y) = test.tensors(&candle_core::Device::Cpu)?;
//! assert_eq!((x.dims(), y.dims()), (&[359, 64][..], &[359][..]));
//! # assert_eq!(train.len(), 1_438);
//! # Ok(())
//! # }
//! ```

use candle_core::{Device, Tensor};

use crate::random::{Purpose, permutation, stream};

use crate::{MemoryPictures, Picture};

/// Pixels in a row and rows in a picture.
pub const SIDE: usize = 8;
/// Pixels in a picture.
pub const PIXELS: usize = SIDE * SIDE;
/// Digits 0 to 9.
pub const CLASSES: usize = 10;
/// The largest value of a pixel.
pub const WHITE: u8 = 16;

/// What went wrong with the digits.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The numbers that are part of the program are not digits of 8×8 pixels.
    #[error("digits: value {index} is {got}, expected {expected}")]
    Damaged {
        /// Place among all pixels or labels, from 0.
        index: usize,
        /// What is there.
        got: f32,
        /// What belongs there.
        expected: &'static str,
    },
    /// No tensor could be made.
    #[error("digits: {0}")]
    Tensor(candle_core::Error),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(crate::error::without_backtrace(error))
    }
}

/// Pictures and their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digits {
    /// [`PIXELS`] values of 0 to [`WHITE`] per picture, in row order, one picture after the other.
    pub pixels: Vec<u8>,
    /// A digit per picture.
    pub labels: Vec<u32>,
}

impl Digits {
    /// All 1,797 digits in UCI's order.
    ///
    /// # Errors
    /// If a number is no pixel or no digit.
    pub fn load() -> Result<Digits, Error> {
        let set = smartcore::dataset::digits::load_dataset();
        let whole = |values: Vec<f32>, most: u8, expected: &'static str| -> Result<Vec<u8>, Error> {
            let check = |(index, got): (usize, f32)| match got as u8 {
                value if f32::from(value) == got && value <= most => Ok(value),
                _ => Err(Error::Damaged { index, got, expected }),
            };
            values.into_iter().enumerate().map(check).collect()
        };
        let pixels = whole(set.data, WHITE, "a pixel of 0 to 16")?;
        let labels = whole(set.target, CLASSES as u8 - 1, "a digit")?;
        Ok(Digits { pixels, labels: labels.into_iter().map(u32::from).collect() })
    }

    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The pixels of one picture, row by row; `None` beyond the last.
    pub fn picture(&self, index: usize) -> Option<&[u8]> {
        self.pixels.chunks_exact(PIXELS).nth(index)
    }

    /// The pictures for a [`Loader`](crate::Loader): grey, 8×8, in UCI's order, named `digit 0000` and so on. A pixel's 0
    /// to 16 becomes a byte of 0 to 240.
    ///
    /// # Errors
    /// If there are more labels than pictures, or a label is no digit.
    pub fn pictures(&self) -> crate::Result<MemoryPictures> {
        let picture = |(index, &label): (usize, &u32)| Picture {
            name: format!("digit {index:04}"),
            label,
            width: SIDE,
            height: SIDE,
            bytes: self
                .picture(index)
                .unwrap_or_default()
                .iter()
                .map(|pixel| pixel.saturating_mul(u8::MAX / WHITE))
                .collect(),
        };
        let classes = (0..CLASSES).map(|digit| digit.to_string()).collect();
        MemoryPictures::new(1, classes, self.labels.iter().enumerate().map(picture).collect())
    }

    /// Shuffles by `seed` and splits: `(the rest, the first share)`, the share rounded down.
    /// `test_share` below 0 counts as 0, above 1 as 1.
    pub fn split(&self, test_share: f64, seed: u64) -> (Digits, Digits) {
        let order = permutation(self.len(), &mut stream(seed, Purpose::Split, 0, 0));
        let n_test = (self.len() as f64 * test_share.clamp(0.0, 1.0)) as usize;
        (self.select(&order[n_test..]), self.select(&order[..n_test]))
    }

    fn select(&self, indices: &[usize]) -> Digits {
        let mut chosen =
            Digits { pixels: Vec::with_capacity(indices.len() * PIXELS), labels: Vec::with_capacity(indices.len()) };
        for index in indices {
            chosen.pixels.extend_from_slice(&self.pixels[index * PIXELS..(index + 1) * PIXELS]);
            chosen.labels.push(self.labels[*index]);
        }
        chosen
    }

    /// `x` f32 `[n, 64]` in `0..=1` and `y` u32 `[n]`.
    ///
    /// # Errors
    /// If candle cannot make the tensors on `device`.
    pub fn tensors(&self, device: &Device) -> Result<(Tensor, Tensor), Error> {
        let values: Vec<f32> = self.pixels.iter().map(|pixel| f32::from(*pixel) / f32::from(WHITE)).collect();
        let x = Tensor::from_vec(values, (self.len(), PIXELS), device)?;
        let y = Tensor::from_slice(&self.labels, self.len(), device)?;
        Ok((x, y))
    }
}
