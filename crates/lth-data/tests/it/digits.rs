//! The digits are the ones everybody else has.

use lth_data::digits::{CLASSES, Digits, PIXELS, WHITE};
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// smartcore 0.7.0 keeps the same data in `src/dataset/digits.xy`: two u64 (features, samples), then all pixels and
/// all labels as f32, little-endian. Rebuilt here, it must have that file's SHA-256.
#[test]
fn digits_equal_those_of_smartcore() {
    let digits = Digits::load().unwrap();
    let mut file = Vec::new();
    file.extend((PIXELS as u64).to_le_bytes());
    file.extend((digits.len() as u64).to_le_bytes());
    file.extend(digits.pixels.iter().flat_map(|pixel| f32::from(*pixel).to_le_bytes()));
    file.extend(digits.labels.iter().flat_map(|label| (*label as f32).to_le_bytes()));
    assert_eq!(hex(&Sha256::digest(&file)), "59da24565482d2eafeef38bbb76be99d6eab56fe0a21a0676256efae85428fe6");
}

#[test]
fn classes_have_the_counts_that_uci_gives() {
    let digits = Digits::load().unwrap();
    let mut counts = [0; CLASSES];
    for label in &digits.labels {
        counts[*label as usize] += 1;
    }
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    assert!(digits.pixels.iter().all(|pixel| *pixel <= WHITE));
    assert_eq!(digits.picture(0).unwrap()[..8], [0, 0, 5, 13, 9, 1, 0, 0]);
    assert_eq!(digits.picture(digits.len()), None);
}

#[test]
fn a_split_depends_on_its_seed_alone_and_loses_nothing() {
    let digits = Digits::load().unwrap();
    let (train, test) = digits.split(0.2, 1);
    assert_eq!((train.len(), test.len()), (1_438, 359));
    assert_eq!(digits.split(0.2, 1), (train.clone(), test.clone()));
    assert_ne!(digits.split(0.2, 2).1, test);
    let rows = |digits: &Digits| -> Vec<(u32, Vec<u8>)> {
        digits.labels.iter().copied().zip(digits.pixels.chunks(PIXELS).map(<[u8]>::to_vec)).collect()
    };
    let mut parts = [rows(&train), rows(&test)].concat();
    let mut all = rows(&digits);
    parts.sort();
    all.sort();
    assert_eq!(parts, all);
}

#[test]
fn shares_beyond_the_ends_are_the_ends() {
    let digits = Digits::load().unwrap();
    assert_eq!(digits.split(-1.0, 0).1.len(), 0);
    assert_eq!(digits.split(7.0, 0).0.len(), 0);
    assert_eq!(digits.split(f64::NAN, 0).1.len(), 0);
}
