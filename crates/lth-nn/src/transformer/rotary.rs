use candle_core::{D, Device, Result, Tensor};

use super::widened;
use crate::Error;

/// The turns of a rotary position embedding, by position.
///
/// Source: Su et al. 2021. Pair `i` of a head of `size` values turns by position · theta^(−2i / size).
#[derive(Clone, Debug)]
pub struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// Tables `[length, size / 2]` for heads of `size` values; `theta` is 10,000 in the paper. They are computed in f64
    /// and kept in f32.
    /// # Errors
    /// If `size` is odd or 0, or candle fails.
    pub fn new(size: usize, length: usize, theta: f64, device: &Device) -> Result<Self> {
        if size == 0 || size % 2 == 1 {
            let got = size.to_string();
            return Err(Error::Config { what: "size of a head with rotary embedding", got, expected: "even" }.into());
        }
        let speeds = (0..size / 2).map(|i| theta.powf(-2.0 * i as f64 / size as f64));
        let speeds: Vec<f64> = speeds.collect();
        let angles = (0..length).flat_map(|at| speeds.iter().map(move |speed| at as f64 * speed));
        let angles: Vec<f64> = angles.collect();
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&angle| f(angle) as f32).collect();
            Tensor::from_vec(values, (length, size / 2), device)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }

    /// `x` `[…, T, size]` with its positions counted from `first` on, turned as [`rope`] does.
    /// # Errors
    /// If the tables end before the last position, the head's size is another, or candle fails.
    pub fn turn(&self, x: &Tensor, first: usize) -> Result<Tensor> {
        let (positions, length) = (x.dim(D::Minus2)?, self.cos.dim(0)?);
        if first.checked_add(positions).is_none_or(|end| end > length) {
            let got = format!("{positions} from {first} on, of a table of {length}");
            return Err(Error::Config { what: "positions to turn", got, expected: "inside the table" }.into());
        }
        rope(x, &self.cos.narrow(0, first, positions)?, &self.sin.narrow(0, first, positions)?)
    }
}

/// `x` `[…, T, size]` with value `i` and value `i + size / 2` of each position turned by the angle `i` of the position:
/// `cos` and `sin` `[T, size / 2]`, or any shape that broadcasts to `[…, T, size / 2]`.
/// # Errors
/// If `size` is odd, shapes do not fit, or candle fails.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = half(x)?;
    let wide = widened(x)?;
    let (first, second) = (wide.narrow(D::Minus1, 0, half)?, wide.narrow(D::Minus1, half, half)?);
    let (first, second) = turned(&first, &second, cos, sin)?;
    Tensor::cat(&[first, second], D::Minus1)?.to_dtype(x.dtype())
}

/// As [`rope`], for values 2i and 2i + 1 of each position.
/// # Errors
/// As [`rope`].
pub fn rope_interleaved(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = half(x)?;
    let mut pairs = x.dims().to_vec();
    pairs.pop();
    pairs.extend([half, 2]);
    let wide = widened(x)?.reshape(pairs)?;
    let value = |which| wide.narrow(D::Minus1, which, 1)?.squeeze(D::Minus1);
    let (first, second) = turned(&value(0)?, &value(1)?, cos, sin)?;
    Tensor::stack(&[first, second], D::Minus1)?.reshape(x.shape())?.to_dtype(x.dtype())
}

/// Half of the last axis' length.
fn half(x: &Tensor) -> Result<usize> {
    let size = x.dim(D::Minus1)?;
    if size % 2 == 1 {
        let got = format!("{size} values, of shape {:?}", x.dims());
        return Err(Error::Config { what: "last axis to turn", got, expected: "an even number of values" }.into());
    }
    Ok(size / 2)
}

fn turned(first: &Tensor, second: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<(Tensor, Tensor)> {
    let table = |table: &Tensor| table.to_dtype(first.dtype())?.broadcast_as(first.shape())?.contiguous();
    let (cos, sin) = (table(cos)?, table(sin)?);
    Ok((((first * &cos)? - (second * &sin)?)?, ((first * &sin)? + (second * &cos)?)?))
}
