//! Weights: safetensors, indexes of several, both formats of PyTorch.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lth_fuzz::with_file(bytes, |path| lth_nn::Weights::read(path).map(drop)));
