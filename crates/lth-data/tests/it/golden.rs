//! Against Pillow: files made by `golden/make_pictures.py`, and resizes by the script named in `golden/resize.json`.

use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use lth_data::{Format, Resizer, Square, decode};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    assert_eq!(tensor.dtype(), DType::U8);
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn resize_is_pillows_byte_for_byte() {
    let tensors = candle_core::safetensors::load(golden("resize.safetensors"), &Device::Cpu).unwrap();
    let cases: serde_json::Value = serde_json::from_slice(&fs::read(golden("resize.json")).unwrap()).unwrap();
    let cases = cases["resize"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let (width, height, size, index) = (number("width"), number("height"), number("size"), number("index"));
        let u = [0, 1].map(|idx| case["u"][idx].as_f64().unwrap());
        let square = Square::largest(width, height, (u[0], u[1]));
        assert_eq!(square, Square { left: number("left"), top: number("top"), side: number("square") }, "case {index}");
        let mut out = vec![0; size * size * 3];
        Resizer::new(size).resize(&bytes(&tensors[&format!("{index}.picture")]), width, 3, square, &mut out);
        assert_eq!(out, bytes(&tensors[&format!("{index}.resized")]), "case {index}");
    }
}

/// The largest difference of a byte, and the mean.
fn differences(got: &[u8], expected: &[u8]) -> (u8, f64) {
    let differences = got.iter().zip(expected).map(|(got, expected)| got.abs_diff(*expected));
    let sum: f64 = differences.clone().map(f64::from).sum();
    (differences.max().unwrap_or(0), sum / got.len() as f64)
}

#[test]
fn every_kind_of_picture_becomes_the_rgb_that_pillow_makes() {
    let expected = candle_core::safetensors::load(golden("pictures.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(expected.len(), 20);
    for (name, expected) in &expected {
        let decoded = decode(&fs::read(golden("pictures").join(name)).unwrap())
            .unwrap_or_else(|reason| panic!("{name}: {reason}"));
        assert_eq!(Some(decoded.format), Format::from_name(name));
        assert_eq!(expected.dims(), [decoded.height, decoded.width, 3], "{name}");
        let (largest, mean) = differences(&decoded.rgb, &bytes(expected));
        if decoded.format == Format::Jpeg {
            // Two decoders, each within the JPEG standard's tolerance.
            let (largest_allowed, mean_allowed) = if name == "subsampled.jpg" { SUBSAMPLED } else { FULL };
            assert!(largest <= largest_allowed && mean <= mean_allowed, "{name}: {largest} {mean}");
        } else {
            assert_eq!(largest, 0, "{name}: lossless formats have one right answer");
        }
    }
}

/// Largest and mean difference in levels of 255 to libjpeg-turbo, full colour resolution. Measured: 2, 0.012.
const FULL: (u8, f64) = (2, 0.02);
/// Halved colour resolution: the decoders smooth it differently. Measured: 3, 0.21.
const SUBSAMPLED: (u8, f64) = (3, 0.25);

#[test]
fn a_picture_cut_anywhere_is_an_error_and_never_a_panic() {
    for name in [
        "plain.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "thumbnail.jpg",
        "junk_before_end.jpg",
        "rgb.png",
        "two_frames.gif",
    ] {
        let whole = fs::read(golden("pictures").join(name)).unwrap();
        // What follows the first frame of a GIF is not looked at (it ends with byte 580), and a PNG needs no end chunk.
        let end = match name {
            "two_frames.gif" => 580,
            "rgb.png" => whole.len() - 12 - 4,
            _ => whole.len(),
        };
        for length in 0..end {
            assert!(decode(&whole[..length]).is_err(), "{name} cut to {length} of {}", whole.len());
        }
    }
}

#[test]
fn what_is_wrong_with_a_picture_is_said() {
    let whole = fs::read(golden("pictures/plain.jpg")).unwrap();
    assert_eq!(decode(&whole[..whole.len() / 2]).unwrap_err(), "cut short: no end-of-image marker");
    assert_eq!(decode(b"").unwrap_err(), "the file is empty");
    assert_eq!(decode(b"MATLAB 5.0 MAT-file").unwrap_err(), "the content is no picture");
    assert_eq!(decode(b"II*\0........").unwrap_err(), "format tiff is not supported");
}

#[test]
fn a_picture_that_claims_gigabytes_is_refused() {
    let mut bomb = fs::read(golden("pictures/plain.bmp")).unwrap();
    bomb[18..22].copy_from_slice(&60_000i32.to_le_bytes());
    bomb[22..26].copy_from_slice(&60_000i32.to_le_bytes());
    assert!(decode(&bomb).unwrap_err().contains("60000 x 60000 pixels are more than the limit"));
}

#[test]
fn damage_inside_a_picture_never_panics() {
    // A flipped byte may leave a picture that decodes; it may not end the program.
    for name in ["plain.jpg", "progressive.jpg", "subsampled.jpg", "palette.png", "transparent.gif", "lossless.webp"] {
        let whole = fs::read(golden("pictures").join(name)).unwrap();
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut damaged = whole.clone();
                damaged[at] ^= flip;
                if let Ok(decoded) = decode(&damaged) {
                    assert_eq!(decoded.rgb.len(), decoded.width * decoded.height * 3, "{name}, byte {at}");
                }
            }
        }
    }
}
