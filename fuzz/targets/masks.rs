//! Mask files.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = lth_mask::MaskSet::from_bytes(bytes);
});
