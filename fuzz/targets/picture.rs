//! JPEG, PNG, GIF, BMP, WebP.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(decoded) = lth_data::decode(bytes) {
        assert_eq!(decoded.rgb.len(), 3 * decoded.width * decoded.height);
    }
});
