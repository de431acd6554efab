//! Safetensors: places in a header.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((_, tensors)) = lth_files::open_safetensors(bytes) {
        let n_bytes: usize = tensors.iter().map(|(_, view)| view.data().len()).sum();
        assert!(n_bytes <= bytes.len());
    }
});
