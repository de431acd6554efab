//! Safetensors that are damaged or mean harm.

use std::collections::BTreeMap;

use lth_files::{Dtype, RawTensor, on_one_line, open_safetensors, write_safetensors};

use crate::mutations::{Memory, check};

#[test]
fn safetensors_survive_any_damage() {
    let tensor =
        |dtype, shape: &[usize], data: &'static [u8]| RawTensor { dtype, shape: shape.to_vec(), data: data.into() };
    let tensors = BTreeMap::from([
        ("a.weight".to_owned(), tensor(Dtype::F32, &[2, 1], &[0, 0, 128, 63, 0, 0, 0, 64])),
        ("b".to_owned(), tensor(Dtype::U8, &[3], &[1, 2, 3])),
        ("c".to_owned(), tensor(Dtype::BF16, &[], &[0, 1])),
    ]);
    let mut valid = Vec::new();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(&mut valid, &tensors, &metadata).expect("in memory");
    check(&valid, 20_000, Memory { base: 64 << 10, per_byte: 64 }, |bytes| {
        let (_, tensors) = open_safetensors(bytes).map_err(|error| on_one_line(&error.to_string()))?;
        for (_, view) in tensors.iter() {
            // What a tensor shows lies in the file.
            let places = bytes.as_ptr_range();
            let data = view.data().as_ptr_range();
            assert!(data.start == data.end || places.start <= data.start && data.end <= places.end);
        }
        Ok(())
    });
}
