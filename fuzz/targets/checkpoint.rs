//! Checkpoints of a fit.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;

use lth_train::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    lth_fuzz::with_file(bytes, |path| Checkpoint::new(path, BTreeMap::new()).read().map(drop));
});
