//! Pictures as PNG files, for reports.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::error::{Error, Result};

/// The bytes of a PNG file. `bytes`: rows from the top, pixels from the left, channels innermost; `n_channels` is 1 (grey) or
/// 3 (red, green, blue).
///
/// # Errors
/// If there are other than 1 or 3 channels, no pixels, or not as many bytes as the sizes say.
pub fn encode_png(bytes: &[u8], n_channels: usize, width: usize, height: usize) -> Result<Vec<u8>> {
    let bad = |what, got: String, expected: String| Err(Error::BadSetting { what, got, expected });
    let colour = match n_channels {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => return bad("number of a picture's channels", n_channels.to_string(), "1 or 3".into()),
    };
    let sizes = (u32::try_from(width), u32::try_from(height));
    let (Ok(columns @ 1..), Ok(rows @ 1..)) = sizes else {
        return bad("size of a picture", format!("{width}×{height}"), "at least one pixel, at most 2^32 a side".into());
    };
    if Some(bytes.len()) != n_channels.checked_mul(width).and_then(|row| row.checked_mul(height)) {
        return bad("bytes of a picture", bytes.len().to_string(), format!("{n_channels}×{width}×{height}"));
    }
    let mut file = Vec::new();
    let written = PngEncoder::new(&mut file).write_image(bytes, columns, rows, colour);
    match written {
        Ok(()) => Ok(file),
        Err(error) => bad("picture", error.to_string(), "one that a PNG file can hold".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_comes_back_from_its_file_as_it_was() -> Result<()> {
        let pixels: Vec<u8> = (0..18).map(|value| value * 13).collect();
        let rgb = |file: &[u8]| image::load_from_memory(file).expect("a PNG file").to_rgb8();
        let colour = rgb(&encode_png(&pixels, 3, 3, 2)?);
        assert_eq!((colour.width(), colour.height(), colour.into_raw()), (3, 2, pixels.clone()));
        let grey = rgb(&encode_png(&pixels, 1, 6, 3)?);
        assert_eq!(grey.into_raw(), pixels.iter().flat_map(|value| [*value; 3]).collect::<Vec<_>>());
        Ok(())
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for (n, channels, width, height) in [(12, 2, 3, 2), (0, 3, 0, 2), (11, 3, 2, 2), (0, 1, usize::MAX, 2)] {
            assert!(encode_png(&vec![0; n], channels, width, height).is_err(), "{n} {channels} {width} {height}");
        }
    }
}
