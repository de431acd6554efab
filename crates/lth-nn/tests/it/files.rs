//! Files as other software leaves them, and files that mean harm.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lth_nn::{Error, LeNet, LeNetConfig, Part, Setup, Weights};
use lth_train::Network;

use crate::named::{Result, bits};
use crate::writers::check_writer;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for temporary files")
}

fn network(seed: u64) -> Result<LeNet> {
    LeNet::new(&LeNetConfig { inputs: 5, hidden: (4, 3), classes: 2 }, &Setup::new(seed))
}

fn write(folder: &Path, name: &str, tensors: BTreeMap<String, Tensor>) -> Result<()> {
    Weights { tensors, ..Weights::default() }.write(&folder.join(name))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("it is there").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn places_near_the_largest_number_are_an_error() {
    let folder = folder();
    let path = folder.path().join("hostile.safetensors");
    // Eight tensors end at 2^64 - 8: added to the header's length, that is more than the largest number.
    let size = (1u64 << 61) - 1;
    let tensors = (0..8u64).map(|i| {
        let (from, to) = (i * size, (i + 1) * size);
        format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{from},{to}]}}"#)
    });
    let header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
    for data in [&[][..], &[0; 16]] {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
        std::fs::write(&path, bytes).expect("a temporary file");
        let error = Weights::read(&path).expect_err("nothing lies there");
        assert!(matches!(error, Error::Format { .. }), "{error}");
    }
}

#[test]
fn a_model_in_several_files_is_read_by_its_index() -> Result<()> {
    let folder = folder();
    let (network, other) = (network(1)?, network(2)?);
    let tensors = Weights::of(network.parameters())?.tensors;
    let (mut first, mut second) = (tensors.clone(), tensors.clone());
    first.retain(|name, _| name.starts_with("fc1"));
    second.retain(|name, _| !name.starts_with("fc1"));
    write(folder.path(), "model-00001-of-00002.safetensors", first)?;
    write(folder.path(), "model-00002-of-00002.safetensors", second)?;
    let file = |name: &str| format!("model-0000{}-of-00002.safetensors", if name.starts_with("fc1") { 1 } else { 2 });
    let index = |map: &[(String, String)]| {
        let map: BTreeMap<_, _> = map.iter().cloned().collect();
        let text = serde_json::json!({ "metadata": { "total_size": 0 }, "weight_map": map }).to_string();
        let path = folder.path().join("model.safetensors.index.json");
        std::fs::write(&path, text).expect("a temporary file");
        Weights::read(&path)
    };
    let map: Vec<(String, String)> = tensors.keys().map(|name| (name.clone(), file(name))).collect();
    let whole = index(&map)?;
    whole.load_into(other.parameters(), Part::All)?;
    for (name, parameter) in network.parameters().iter() {
        assert_eq!(bits(parameter.var())?, bits(other.parameters().require(name)?.var())?, "{name}");
    }

    let with = |name: &str, file: &str| [&map[..], &[(name.to_owned(), file.to_owned())]].concat();
    let message = |map: &[(String, String)]| index(map).expect_err("it does not fit").to_string();
    let absent = message(&with("fc4.weight", "model-00001-of-00002.safetensors"));
    assert!(absent.contains("model-00001-of-00002.safetensors: `fc4.weight` is not in it"), "{absent}");
    let missing = message(&with("fc4.weight", "model-00003-of-00002.safetensors"));
    assert!(missing.contains("model-00003-of-00002.safetensors: "), "{missing}");
    for elsewhere in ["../secret.safetensors", "/etc/passwd", "a/b", "", "C:x", "..\\x"] {
        let error = message(&with("fc4.weight", elsewhere));
        assert!(error.contains("expected the name of a file beside the index"), "{error}");
    }
    // One that is not named is left out, and said.
    let fewer = index(&map[1..])?;
    assert_eq!(fewer.tensors.len(), tensors.len() - 1);
    assert_eq!(fewer.ignored.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), [map[0].0.as_str()]);
    let not_one = |text: &str| {
        let path = folder.path().join("not.json");
        std::fs::write(&path, text).expect("a temporary file");
        Weights::read(&path).expect_err("no index").to_string()
    };
    assert!(
        not_one("{\"a\": 1, \"b\": 2}").contains("not the index of a model"),
        "{}",
        not_one("{\"a\": 1, \"b\": 2}")
    );
    assert!(not_one("{\"weight_map\": {}}").contains("names no tensor"));
    Ok(())
}

#[test]
fn masks_of_torchs_prune_are_folded_into_the_weights() -> Result<()> {
    let folder = folder();
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
    let tensors = BTreeMap::from([
        ("conv.weight_orig".to_owned(), tensor(&[1., -2., f32::INFINITY, 4.], &[2, 2])?),
        ("conv.weight_mask".to_owned(), tensor(&[1., 0., 0., 1.], &[2, 2])?),
        ("conv.bias".to_owned(), tensor(&[5., 6.], &[2])?),
        // Not torch's: of another shape, and beside a tensor of the name.
        ("odd.weight_orig".to_owned(), tensor(&[1., 2.], &[2])?),
        ("odd.weight_mask".to_owned(), tensor(&[0.], &[1])?),
        ("own.weight".to_owned(), tensor(&[1.], &[1])?),
        ("own.weight_orig".to_owned(), tensor(&[1.], &[1])?),
        ("own.weight_mask".to_owned(), tensor(&[0.], &[1])?),
    ]);
    write(folder.path(), "pruned.safetensors", tensors)?;
    let weights = Weights::read(&folder.path().join("pruned.safetensors"))?;
    assert_eq!(weights.folded, ["conv.weight"]);
    let expected = [
        "conv.bias",
        "conv.weight",
        "odd.weight_mask",
        "odd.weight_orig",
        "own.weight",
        "own.weight_mask",
        "own.weight_orig",
    ];
    assert_eq!(weights.tensors.keys().collect::<Vec<_>>(), expected);
    let folded = weights.tensors["conv.weight"].flatten_all()?.to_vec1::<f32>()?;
    assert_eq!(folded.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), [1f32, 0., 0., 4.].map(f32::to_bits));
    Ok(())
}

#[test]
fn what_a_wrapper_puts_before_every_name_is_taken_off_and_said() -> Result<()> {
    let network = network(1)?;
    let plain = Weights::of(network.parameters())?.tensors;
    let under = |prefix: &str| -> Weights {
        let tensors = plain.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect();
        Weights { tensors, ..Weights::default() }
    };
    for prefix in ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.model."] {
        let other = self::network(2)?;
        let report = under(prefix).load_into(other.parameters(), Part::All)?;
        assert_eq!(report.stripped.as_deref(), Some(prefix));
        assert_eq!(report.loaded, network.parameters().names().collect::<Vec<_>>());
        assert_eq!(bits(other.parameters().require("fc1.weight")?.var())?, bits(&plain["fc1.weight"])?);
        assert_eq!(under(prefix).wrapper().as_deref(), Some(prefix));
    }
    assert_eq!(under("").load_into(network.parameters(), Part::All)?.stripped, None);
    // Not before every name: nothing is guessed.
    let mut some = under("module.");
    some.tensors.insert("steps".to_owned(), Tensor::zeros(1, DType::F32, &Device::Cpu)?);
    assert!(matches!(some.load_into(network.parameters(), Part::All), Err(Error::Names { .. })));
    Ok(())
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() -> Result<()> {
    let weights = Weights::of(network(1)?.parameters())?;
    check_writer("a.safetensors", |path| weights.write(path).map_err(|error| error.to_string()));
    Ok(())
}

#[test]
fn what_others_keep_beside_a_file_is_left_alone() -> Result<()> {
    let folder = folder();
    // A name that an earlier version used for its own unfinished file may be the user's.
    std::fs::write(folder.path().join("a.safetensors.partial"), b"mine").expect("a temporary file");
    Weights::of(network(1)?.parameters())?.write(&folder.path().join("a.safetensors"))?;
    assert_eq!(std::fs::read(folder.path().join("a.safetensors.partial")).expect("it is there"), b"mine");
    assert_eq!(names(folder.path()), ["a.safetensors", "a.safetensors.partial"]);
    Ok(())
}
