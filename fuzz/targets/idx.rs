//! IDX files, plain and gzipped: the bytes stand for all four.
#![no_main]

use libfuzzer_sys::fuzz_target;

use lth_data::{IdxFiles, IdxSet, open_idx};

fuzz_target!(|bytes: &[u8]| {
    lth_fuzz::with_file(bytes, |path| {
        let folder = path.with_file_name("set");
        std::fs::create_dir(&folder).expect("a folder");
        for part in ["train", "t10k"] {
            for what in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
                std::fs::copy(path, folder.join(format!("{part}-{what}"))).expect("a small file");
            }
        }
        open_idx(IdxSet::Mnist, &IdxFiles::in_folder(&folder)?).map(drop)
    });
});
