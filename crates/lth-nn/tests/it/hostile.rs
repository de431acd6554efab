//! Weights that are damaged or mean harm, in every form in which they are read.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use lth_nn::Weights;

use crate::mutations::{Memory, check};
use crate::named::Result;

/// A file of PyTorch's may have tensors that share their values, see `MAX_EXPANSION`, and objects of forty bytes each.
const MEMORY: Memory = Memory { base: 256 << 10, per_byte: 128 };

fn small() -> Result<Weights> {
    let tensor = Tensor::new(&[[1f32, -2., 0.], [0., 0.5, 3.]], &Device::Cpu)?;
    let tensors = [("fc.weight".to_owned(), tensor), ("fc.bias".to_owned(), Tensor::new(&[1u8, 2], &Device::Cpu)?)];
    Ok(Weights { tensors: tensors.into(), metadata: [("a".to_owned(), "b".to_owned())].into(), ..Weights::default() })
}

fn survives(path: &Path, valid: &[u8], n_random: usize) {
    check(valid, n_random, MEMORY, |bytes| {
        std::fs::write(path, bytes).expect("a small file");
        Weights::read(path).map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn weights_survive_any_damage() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = folder.path().join("weights");
    survives(&path, &small()?.to_bytes()?, 5_000);
    for name in ["state_dict.pth", "state_dict_legacy.pth"] {
        let golden = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        survives(&path, &std::fs::read(golden).expect("it is there"), 10_000);
    }
    Ok(())
}

#[test]
fn an_index_of_several_files_survives_any_damage_and_names_no_file_elsewhere() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let inside = folder.path().join("model");
    std::fs::create_dir(&inside).expect("a folder");
    // What must never be read: nothing in it is a name of the index.
    std::fs::write(folder.path().join("s"), b"outside").expect("a small file");
    let weights = small()?;
    let files: BTreeMap<&str, &str> = [("fc.weight", "one.safetensors"), ("fc.bias", "two.safetensors")].into();
    for (name, file) in &files {
        let tensors = [((*name).to_owned(), weights.tensors[*name].clone())].into();
        Weights { tensors, ..Weights::default() }.write(&inside.join(file))?;
    }
    let index = serde_json::json!({ "metadata": { "total_size": 26 }, "weight_map": files }).to_string();
    survives(&inside.join("model.safetensors.index.json"), index.as_bytes(), 10_000);
    for file in ["../s", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "c:s"] {
        let index = serde_json::json!({ "weight_map": { "fc.weight": file } }).to_string();
        let path = inside.join("hostile.json");
        std::fs::write(&path, index).expect("a small file");
        let text = Weights::read(&path).expect_err("it lies elsewhere").to_string();
        assert!(text.contains("expected the name of a file beside the index"), "{text}");
    }
    Ok(())
}

#[test]
fn names_in_weights_are_no_lines_of_ours() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = folder.path().join("hostile.json");
    let index = serde_json::json!({ "weight_map": { "a\nverified: all\u{1b}[2K": "../s\n" } }).to_string();
    std::fs::write(&path, index).expect("a small file");
    let text = Weights::read(&path).expect_err("it lies elsewhere").to_string();
    assert!(!text.contains(char::is_control) && text.contains(r"a\u{a}verified: all\u{1b}[2K"), "{text:?}");
    Ok(())
}
