//! Archives, plain and gzipped, of class folders.
#![no_main]

use libfuzzer_sys::fuzz_target;

use lth_data::{DamagedPolicy, OpenOptions, Source, open_folder};

fuzz_target!(|bytes: &[u8]| {
    lth_fuzz::with_file(bytes, |path| {
        let options = OpenOptions { cache_dir: path.with_file_name("cache"), damaged: DamagedPolicy::Skip };
        open_folder(&Source::Archives(vec![path.to_owned()]), &options, &mut |_| {}).map(drop)
    });
});
