//! Summaries of experiments, schemas 1 and 2, and what a terminal shows of them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    lth_fuzz::with_file(bytes, |path| {
        lth_runs::Summary::read(path).map(|summary| drop(lth_runs::report::overview(&summary)))
    });
});
