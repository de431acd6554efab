//! CIFAR as its makers have it: binary batches in an archive, plain or gzipped.
#![no_main]

use libfuzzer_sys::fuzz_target;

use lth_data::{CifarSet, Source, open_cifar};

fuzz_target!(|bytes: &[u8]| {
    lth_fuzz::with_file(bytes, |path| {
        for set in [CifarSet::Cifar10, CifarSet::Cifar100] {
            open_cifar(set, &Source::Archives(vec![path.to_owned()]), &mut |_| {})?;
        }
        Ok::<_, lth_data::Error>(())
    });
});
