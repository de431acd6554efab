//! A picture file's bytes become RGB as Pillow's `convert("RGB")` makes them.
//!
//! Alpha is dropped, not blended; palettes are looked up; grey is repeated; CMYK is converted without a colour profile,
//! stored inverted as Adobe does; of an animation the first frame counts; an EXIF orientation is ignored; 16 bits lose
//! their lower 8. The content decides the format, never the name: ten pictures of PETS are GIF or PNG called `.jpg`.
//!
//! PARITY: Pillow decodes JPEG with libjpeg-turbo, we with zune-jpeg; both are right within the standard's tolerance,
//! and their bytes differ by what the crate's documentation says.

use std::any::Any;
use std::cell::Cell;
use std::io::Cursor;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::jpeg;

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What the content is, whatever the file's name says.
    pub format: Format,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Rows from the top, pixels from the left, red, green and blue innermost.
    pub rgb: Vec<u8>,
}

/// A picture file's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Format {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// GIF.
    Gif,
    /// BMP.
    Bmp,
    /// WebP.
    WebP,
}

/// Pictures of more pixels are refused as damaged: a few kilobytes can claim gigabytes. Pillow warns at 89 million.
pub const MAX_PIXELS: u64 = 64 << 20;

/// So many pixels a file may claim whatever its size, and so many for each of its bytes: an unpacked picture takes memory
/// before its first pixel is read. Large pictures of one colour can have more in a byte, as WebP or PNG of one bit; no
/// photograph has a hundredth as many.
const FREE_PIXELS: u64 = 4 << 20;
const PIXELS_PER_BYTE: u64 = 4_096;

/// What a PNG's colour profile and texts may take when they are unpacked, beside a few times the file.
const FREE_BYTES: u64 = 16 << 20;

/// The picture in a file's bytes.
///
/// # Errors
/// A reason in lower case, without the picture's name: no known format, damaged, cut short, over [`MAX_PIXELS`], or of more
/// pixels than a file of its size can honestly have.
/// A panic of the decoder is one of them.
pub fn decode(bytes: &[u8]) -> Result<Decoded, String> {
    let format = Format::of(bytes)?;
    caught(|| decode_as(format, bytes)).unwrap_or_else(|message| Err(format!("its decoder failed: {message}")))
}

/// The size of the picture in a file's bytes, from its header alone.
pub(crate) fn dimensions(bytes: &[u8]) -> Result<(usize, usize), String> {
    let format = Format::of(bytes)?;
    caught(|| {
        let (width, height) = reader(format, bytes).into_dimensions().map_err(reason)?;
        check_dimensions(width, height, bytes.len())
    })
    .unwrap_or_else(|message| Err(format!("its decoder failed: {message}")))
}

fn decode_as(format: Format, bytes: &[u8]) -> Result<Decoded, String> {
    if format == Format::Jpeg {
        jpeg::check_end(bytes)?;
    }
    let decoder = reader(format, bytes).into_decoder().map_err(reason)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = check_dimensions(width, height, bytes.len())?;
    let rgb = rgb(DynamicImage::from_decoder(decoder).map_err(reason)?);
    Ok(Decoded { format, width, height, rgb })
}

/// The most pixels that a file of so many bytes may have.
fn most_pixels(n_bytes: usize) -> u64 {
    (n_bytes as u64).saturating_mul(PIXELS_PER_BYTE).clamp(FREE_PIXELS, MAX_PIXELS)
}

/// A reader whose decoder takes no more memory than in proportion to the file.
fn reader(format: Format, bytes: &[u8]) -> ImageReader<Cursor<&[u8]>> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format.image());
    let mut limits = Limits::default();
    limits.max_alloc = Some(match format {
        // Pixels are not among it.
        Format::Png => FREE_BYTES + 4 * bytes.len() as u64,
        // A GIF's frame may be larger than the picture that it is a part of.
        _ => 4 * most_pixels(bytes.len()),
    });
    reader.limits(limits);
    reader
}

fn check_dimensions(width: u32, height: u32, n_bytes: usize) -> Result<(usize, usize), String> {
    match u64::from(width) * u64::from(height) {
        0 => Err("it has no pixels".into()),
        n @ 1..=MAX_PIXELS if n <= most_pixels(n_bytes) => Ok((width as usize, height as usize)),
        1..=MAX_PIXELS => Err(format!("{width} x {height} pixels are more than {n_bytes} bytes can have")),
        _ => Err(format!("{width} x {height} pixels are more than the limit of {MAX_PIXELS}")),
    }
}

fn rgb(image: DynamicImage) -> Vec<u8> {
    fn first_three<const N: usize>(bytes: &[u8]) -> Vec<u8> {
        bytes.as_chunks::<N>().0.iter().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
    }
    fn repeated<'a>(grey: impl Iterator<Item = &'a u8>) -> Vec<u8> {
        grey.flat_map(|&grey| [grey; 3]).collect()
    }
    // Pillow keeps the upper byte of 16 bits; the image crate's own conversion rounds.
    fn upper(values: &[u16]) -> Vec<u8> {
        values.iter().map(|value| (value >> 8) as u8).collect()
    }
    match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => first_three::<4>(image.as_raw()),
        DynamicImage::ImageLuma8(image) => repeated(image.as_raw().iter()),
        DynamicImage::ImageLumaA8(image) => repeated(image.as_raw().iter().step_by(2)),
        DynamicImage::ImageRgb16(image) => upper(image.as_raw()),
        DynamicImage::ImageRgba16(image) => first_three::<4>(&upper(image.as_raw())),
        DynamicImage::ImageLuma16(image) => repeated(upper(image.as_raw()).iter()),
        DynamicImage::ImageLumaA16(image) => repeated(upper(image.as_raw()).iter().step_by(2)),
        other => other.into_rgb8().into_raw(),
    }
}

fn reason(error: image::ImageError) -> String {
    let text = match error {
        // The decoders' own words carry the format twice.
        image::ImageError::Decoding(error) => {
            std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
        }
        error => error.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Format {
    /// The format that the content's first bytes name.
    fn of(bytes: &[u8]) -> Result<Format, String> {
        if bytes.is_empty() {
            return Err("the file is empty".into());
        }
        match image::guess_format(bytes) {
            Ok(ImageFormat::Jpeg) => Ok(Format::Jpeg),
            Ok(ImageFormat::Png) => Ok(Format::Png),
            Ok(ImageFormat::Gif) => Ok(Format::Gif),
            Ok(ImageFormat::Bmp) => Ok(Format::Bmp),
            Ok(ImageFormat::WebP) => Ok(Format::WebP),
            Ok(other) => Err(format!("format {} is not supported", other.extensions_str()[0])),
            Err(_) => Err("the content is no picture".into()),
        }
    }

    fn image(self) -> ImageFormat {
        match self {
            Format::Jpeg => ImageFormat::Jpeg,
            Format::Png => ImageFormat::Png,
            Format::Gif => ImageFormat::Gif,
            Format::Bmp => ImageFormat::Bmp,
            Format::WebP => ImageFormat::WebP,
        }
    }

    /// The format that a file's extension names; None if it is none that is read here.
    pub fn from_name(name: &str) -> Option<Format> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" => Some(Format::Jpeg),
            "png" => Some(Format::Png),
            "gif" => Some(Format::Gif),
            "bmp" => Some(Format::Bmp),
            "webp" => Some(Format::WebP),
            _ => None,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::Gif => "GIF",
            Format::Bmp => "BMP",
            Format::WebP => "WebP",
        })
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `work` returns, or its panic's message. The panic hook stays silent about panics in here: they are reported as
/// a damaged picture, and a backtrace on the terminal would say that the program failed.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    result.map_err(|panic| panic_message(&*panic))
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic").to_string()
}
