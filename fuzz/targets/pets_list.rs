//! `annotations/list.txt` of PETS, beside two pictures.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;

use lth_data::{DamagedPolicy, OpenOptions, Source, open_pets};

/// Of one pixel.
const GIF: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

fuzz_target!(|bytes: &[u8]| {
    lth_fuzz::with_file(bytes, |path| {
        let folder = path.with_file_name("pets");
        for name in ["images", "annotations"] {
            fs::create_dir_all(folder.join(name)).expect("a folder");
        }
        for name in ["Abyssinian_1.jpg", "beagle_2.jpg"] {
            fs::write(folder.join("images").join(name), GIF).expect("a small file");
        }
        fs::copy(path, folder.join("annotations/list.txt")).expect("a small file");
        let options = OpenOptions { cache_dir: path.with_file_name("cache"), damaged: DamagedPolicy::Fail };
        open_pets(&Source::Folder(folder), &options, &mut |_| {}).map(drop)
    });
});
