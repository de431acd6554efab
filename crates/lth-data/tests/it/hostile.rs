//! Files that are damaged or mean harm: an error or pictures, never a panic, never more memory than they are worth.

use std::io::{Cursor, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::{ImageFormat, RgbImage};
use lth_data::{
    CifarSet, DamagedPolicy, Error, IdxFiles, IdxSet, MAX_PIXELS, OpenOptions, Pictures, Source, decode, open_cifar,
    open_folder, open_idx,
};

use crate::mutations::{Memory, check, peak_of};
use crate::support::{folder, gzip, options, picture, tar, write};

/// What a header of a small file may make a decoder take: four million pixels, in up to four forms at once.
const DECODER: Memory = Memory { base: 100 << 20, per_byte: 64 };

#[test]
fn pictures_of_every_format_survive_any_damage() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::WebP] {
        let valid = picture(7, 5, 3, format);
        check(&valid, 3_000, DECODER, |bytes| {
            let decoded = decode(bytes)?;
            let n = decoded.width * decoded.height;
            assert!(n > 0 && decoded.rgb.len() == 3 * n);
            Ok(())
        });
    }
}

/// A PNG with this chunk behind its header.
fn png_with(chunk: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let png = picture(7, 5, 3, ImageFormat::Png);
    let (head, rest) = png.split_at(8 + 25);
    let mut hash = crc32fast::Hasher::new();
    hash.update(chunk);
    hash.update(data);
    let length = (data.len() as u32).to_be_bytes();
    [head, &length, chunk, data, &hash.finalize().to_be_bytes(), rest].concat()
}

fn zlib_of_zeros(n: usize) -> Vec<u8> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::best());
    for _ in 0..n >> 20 {
        out.write_all(&[0; 1 << 20]).unwrap();
    }
    out.finish().unwrap()
}

#[test]
fn profiles_and_texts_that_unpack_to_gigabytes_are_not_unpacked() {
    // 256 MiB in a quarter of one.
    let bomb = zlib_of_zeros(256 << 20);
    let expected = decode(&picture(7, 5, 3, ImageFormat::Png)).unwrap();
    for (chunk, head) in [(b"iCCP", &b"profile\0\0"[..]), (b"zTXt", b"Comment\0\0"), (b"iTXt", b"Comment\0\x01\0\0\0")]
    {
        let png = png_with(chunk, &[head, &bomb].concat());
        let (decoded, peak) = peak_of(|| decode(&png));
        assert!(peak < 64 << 20, "{}: {peak} bytes", String::from_utf8_lossy(chunk));
        assert_eq!(decoded.as_ref(), Ok(&expected), "{}", String::from_utf8_lossy(chunk));
    }
}

#[test]
fn a_small_file_that_claims_many_pixels_is_refused_before_they_are_taken() {
    let mut png = picture(7, 5, 3, ImageFormat::Png);
    png[16..24].copy_from_slice(&[8_000_u32, 8_000].map(u32::to_be_bytes).concat());
    let crc = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    let mut bmp = picture(7, 5, 3, ImageFormat::Bmp);
    bmp[18..26].copy_from_slice(&[8_000_u32, 8_000].map(u32::to_le_bytes).concat());
    let mut gif = picture(7, 5, 3, ImageFormat::Gif);
    gif[6..10].copy_from_slice(&[8_000_u16, 8_000].map(u16::to_le_bytes).concat());
    let mut jpeg = picture(7, 5, 3, ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[8_000_u16, 8_000].map(u16::to_be_bytes).concat());
    for (name, bytes) in [("PNG", png), ("BMP", bmp), ("GIF", gif), ("JPEG", jpeg)] {
        let (decoded, peak) = peak_of(|| decode(&bytes));
        let reason = decoded.unwrap_err();
        assert!(
            reason.contains(&format!("8000 x 8000 pixels are more than {} bytes can have", bytes.len())),
            "{name}: {reason}"
        );
        assert!(peak < 1 << 20, "{name}: {peak} bytes");
    }
    const { assert!(8_000 * 8_000 < MAX_PIXELS) };
    // A picture of one colour, as large as a photograph, is none of these.
    let mut plain = Vec::new();
    RgbImage::new(3_000, 2_000).write_to(&mut Cursor::new(&mut plain), ImageFormat::Png).unwrap();
    assert_eq!(decode(&plain).unwrap().width, 3_000);
}

/// One class of one picture of one pixel, and a list: as little as an archive can hold.
fn small_tar() -> Vec<u8> {
    let gif = picture(1, 1, 3, ImageFormat::Gif);
    tar(&[("a/x.gif".into(), gif)])
}

#[test]
fn archives_survive_any_damage_and_write_nothing_outside() {
    for (name, valid) in [("plain", small_tar()), ("gzipped", gzip(&small_tar()))] {
        let place = folder();
        let path = place.path().join("archive");
        let skip = OpenOptions { damaged: DamagedPolicy::Skip, ..options(place.path()) };
        let memory = Memory { base: 8 << 20, per_byte: 64 };
        check(&valid, 1_000, memory, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            match open_folder(&Source::Archives(vec![path.clone()]), &skip, &mut |_| {}) {
                // One class is all that such a small archive holds.
                Ok(_) | Err(Error::NoPictures { .. } | Error::DamagedPictures { .. }) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        });
        let names = |folder: &std::path::Path| -> Vec<String> {
            let entries = std::fs::read_dir(folder).unwrap().flatten();
            let mut names: Vec<String> =
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(place.path()), ["archive", "cache"], "{name}");
        assert_eq!(names(&place.path().join("cache")), ["pictures"], "{name}");
    }
}

#[test]
fn idx_files_survive_any_damage() {
    let files = [
        ("train-images-idx3-ubyte", crate::mnist::images(1, 10)),
        ("train-labels-idx1-ubyte", crate::mnist::labels(&[5])),
        ("t10k-images-idx3-ubyte", gzip(&crate::mnist::images(2, 20))),
        ("t10k-labels-idx1-ubyte", gzip(&crate::mnist::labels(&[7, 2]))),
    ];
    let place = folder();
    let write_all = || files.iter().for_each(|(name, bytes)| drop(write(place.path(), name, bytes)));
    for (name, valid) in &files {
        write_all();
        // Buffers to read with, twice, and what deflate may unpack to: a thousand times as much.
        check(valid, 1_000, Memory { base: 1 << 20, per_byte: 2_100 }, |bytes| {
            std::fs::write(place.path().join(name), bytes).unwrap();
            let files = IdxFiles::in_folder(place.path()).map_err(|error| error.to_string())?;
            let (pictures, _) = open_idx(IdxSet::Mnist, &files).map_err(|error| error.to_string())?;
            assert_eq!(pictures.len(), 3);
            Ok(())
        });
    }
}

#[test]
fn cifars_archives_survive_any_damage() {
    let place = folder();
    let path = place.path().join("cifar.tar.gz");
    let valid = gzip(&tar(&crate::support::under("cifar-10-batches-bin/", &crate::cifar::cifar_10())));
    check(&valid, 300, Memory { base: 8 << 20, per_byte: 64 }, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let opened = open_cifar(CifarSet::Cifar10, &Source::Archives(vec![path.clone()]), &mut |_| {});
        opened.map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn names_in_an_archive_are_no_lines_of_ours() {
    let place = folder();
    let name = "images/\u{1b}[2Kpug_1\nverified: all\u{202e}.jpg";
    let archive = tar(&[(name.into(), b"no picture".to_vec())]);
    let path = write(place.path(), "pets.tar", &archive);
    let text = lth_data::open_pets(&Source::Archives(vec![path]), &options(place.path()), &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(!text.contains(['\n', '\u{1b}', '\u{202e}']) && text.contains(r"\u{1b}[2Kpug_1\u{a}verified"), "{text:?}");
    // Nor what an archive says of itself in a refusal.
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..12].copy_from_slice(b"/a\nverified\n");
    header.set_size(0);
    header.set_cksum();
    let path = write(place.path(), "hostile.tar", &[header.as_bytes().as_slice(), &[0; 1_024]].concat());
    let text = lth_data::open_pets(&Source::Archives(vec![path]), &options(place.path()), &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(!text.contains('\n') && text.contains(r"/a\u{a}verified"), "{text:?}");
}
