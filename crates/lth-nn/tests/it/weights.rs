//! Weights in files.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lth_nn::{Error, Head, LeNet, LeNetConfig, Part, ResNet, ResNetConfig, Setup, Skipped, Weights};
use lth_train::Network;

use crate::named::{Result, bits, golden, value};

const SMALL: LeNetConfig = LeNetConfig { inputs: 5, hidden: (4, 3), classes: 2 };

fn small(seed: u64) -> Result<LeNet> {
    LeNet::new(&SMALL, &Setup::new(seed))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for temporary files")
}

/// What a stock checkpoint of torchvision's ResNet-18 with 1,000 classes holds.
fn stock() -> Result<Weights> {
    let network = ResNet::new(&ResNetConfig::resnet18(1000, Head::Fc), &Setup::new(1))?;
    let mut weights = Weights::of(network.parameters())?;
    let norms: Vec<_> =
        weights.tensors.keys().filter_map(|n| n.strip_suffix("running_var").map(str::to_owned)).collect();
    for norm in norms {
        weights.tensors.insert(format!("{norm}num_batches_tracked"), Tensor::new(0i64, &Device::Cpu)?);
    }
    Ok(weights)
}

#[test]
fn what_is_written_is_read_back() -> Result<()> {
    let folder = folder();
    let path = folder.path().join("lenet.safetensors");
    let network = small(1)?;
    let mut weights = Weights::of(network.parameters())?;
    weights.metadata =
        BTreeMap::from([("stage".to_owned(), "tränen \"ticket\"".to_owned()), ("a".to_owned(), String::new())]);
    weights.write(&path)?;
    let back = Weights::read(&path)?;
    assert_eq!(back.metadata, weights.metadata);
    let other = small(2)?;
    let report = back.load_into(other.parameters(), Part::All)?;
    assert_eq!(report.loaded, network.parameters().names().collect::<Vec<_>>());
    assert!(report.skipped.is_empty() && report.kept.is_empty() && report.converted.is_empty());
    for (name, parameter) in network.parameters().iter() {
        assert_eq!(bits(parameter.var())?, bits(other.parameters().require(name)?.var())?, "{name}");
    }
    let files: Vec<_> = std::fs::read_dir(folder.path()).expect("it is there").collect();
    assert_eq!(files.len(), 1, "only the finished file is left: {files:?}");
    Ok(())
}

#[test]
fn equal_weights_make_equal_bytes_with_sorted_names() -> Result<()> {
    let metadata: BTreeMap<_, _> = (0..20).map(|i| (format!("key{i}"), i.to_string())).collect();
    let bytes = || Weights { metadata: metadata.clone(), ..Weights::of(small(1)?.parameters())? }.to_bytes();
    let first = bytes()?;
    assert_eq!(first, bytes()?);
    let text = String::from_utf8_lossy(&first);
    let places: Vec<_> = ["fc1.bias", "fc1.weight", "fc2.bias", "fc3.weight"].map(|name| text.find(name)).into();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
    Ok(())
}

#[test]
fn tensors_of_mixed_types_stay_aligned() -> Result<()> {
    let tensor = |dtype, n| Tensor::ones(n, dtype, &Device::Cpu);
    let tensors = BTreeMap::from([
        ("a".to_owned(), tensor(DType::U8, 3)?),
        ("b".to_owned(), tensor(DType::F32, 3)?),
        ("c".to_owned(), tensor(DType::F64, 1)?),
        ("d".to_owned(), tensor(DType::F16, 1)?.reshape(())?),
    ]);
    let bytes = Weights { tensors: tensors.clone(), ..Weights::default() }.to_bytes()?;
    let file = safetensors::SafeTensors::deserialize(&bytes).map_err(candle_core::Error::wrap)?;
    for (name, tensor) in &tensors {
        let view = file.tensor(name).map_err(candle_core::Error::wrap)?;
        assert_eq!(view.shape(), tensor.dims());
        let offset = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(offset % tensor.dtype().size_in_bytes(), 0, "{name}");
    }
    Ok(())
}

#[test]
fn a_snapshot_does_not_follow_the_network() -> Result<()> {
    let network = small(1)?;
    let snapshot = Weights::of(network.parameters())?;
    let before = bits(&snapshot.tensors["fc1.weight"])?;
    Weights::of(small(2)?.parameters())?.load_into(network.parameters(), Part::All)?;
    assert_eq!(bits(&snapshot.tensors["fc1.weight"])?, before);
    Ok(())
}

#[test]
fn stock_resnet18_loads_into_a_body_with_another_head() -> Result<()> {
    let stock = stock()?;
    assert_eq!(stock.tensors.len(), 122);
    for head in [Head::Fastai, Head::Fc] {
        let network = ResNet::new(&ResNetConfig::resnet18(2, head), &Setup::new(2))?;
        let before = network.parameters().snapshot(|_, _| true)?;
        let report = stock.load_into(network.parameters(), Part::Body)?;
        assert_eq!(report.loaded.len(), 100);
        let head_names: Vec<_> =
            network.parameters().names().filter(|n| !report.loaded.iter().any(|l| l == n)).collect();
        assert_eq!(report.kept, head_names);
        for name in &report.kept {
            assert_eq!(bits(network.parameters().require(name)?.var())?, bits(&before[name])?, "{name}");
        }
        for name in &report.loaded {
            assert_eq!(bits(network.parameters().require(name)?.var())?, bits(&stock.tensors[name])?, "{name}");
        }
        let skipped = |name: &str, reason: &str| Skipped { name: name.to_owned(), reason: reason.to_owned() };
        assert!(report.skipped.contains(&skipped("fc.weight", "part of a head")));
        assert!(report.skipped.contains(&skipped("bn1.num_batches_tracked", "PyTorch's count of batches")));
        assert_eq!(report.skipped.len(), 22);
    }
    Ok(())
}

#[test]
fn stock_resnet18_loads_whole_into_the_same_shape() -> Result<()> {
    let network = ResNet::new(&ResNetConfig::resnet18(1000, Head::Fc), &Setup::new(2))?;
    let report = stock()?.load_into(network.parameters(), Part::All)?;
    assert_eq!((report.loaded.len(), report.skipped.len(), report.kept.len()), (102, 20, 0));
    Ok(())
}

/// The error of loading `change`d weights into a network that must stay as it was.
fn refused(change: impl FnOnce(&mut BTreeMap<String, Tensor>) -> Result<()>) -> Result<Error> {
    let network = small(1)?;
    let before = network.parameters().snapshot(|_, _| true)?;
    let mut weights = Weights::of(small(2)?.parameters())?;
    change(&mut weights.tensors)?;
    let error = weights.load_into(network.parameters(), Part::All).expect_err("it does not fit");
    for (name, parameter) in network.parameters().iter() {
        assert_eq!(bits(parameter.var())?, bits(&before[name])?, "{name} changed");
    }
    Ok(error)
}

#[test]
fn names_must_agree_both_ways() -> Result<()> {
    let error = refused(|tensors| {
        let tensor = tensors.remove("fc2.bias").expect("there is one");
        tensors.insert("fc2.bais".to_owned(), tensor);
        Ok(())
    })?;
    assert_eq!(error.to_string(), "weights do not fit the network: 1 missing (fc2.bias), 1 unexpected (fc2.bais)");
    let error = refused(|tensors| {
        tensors.clear();
        Ok(())
    })?;
    assert_eq!(error.to_string(), "weights do not fit the network: 6 missing (fc1.bias, fc1.weight, fc2.bias, …)");
    Ok(())
}

#[test]
fn shapes_types_and_values_are_checked() -> Result<()> {
    let set = |tensor: candle_core::Result<Tensor>| {
        refused(|tensors| {
            tensors.insert("fc3.bias".to_owned(), tensor?);
            Ok(())
        })
    };
    assert_eq!(
        set(Tensor::zeros(3, DType::F32, &Device::Cpu))?.to_string(),
        "weights for `fc3.bias` has shape [3], expected [2]"
    );
    assert_eq!(
        set(Tensor::zeros(2, DType::I64, &Device::Cpu))?.to_string(),
        "weights for `fc3.bias` has type I64, expected F16, BF16, F32 or F64"
    );
    for bad in [f32::NAN, f32::INFINITY] {
        let error = set(Tensor::new(&[0., bad], &Device::Cpu))?;
        assert_eq!(error.to_string(), "weights for `fc3.bias` hold values that are not finite");
    }
    // Finite in f64, infinite in the network's f32.
    assert!(matches!(set(Tensor::new(&[0f64, 1e300], &Device::Cpu))?, Error::NotFinite { .. }));
    Ok(())
}

#[test]
fn half_precision_is_converted_and_reported() -> Result<()> {
    let network = small(1)?;
    let mut weights = Weights::of(network.parameters())?;
    for (name, dtype) in [("fc1.weight", DType::F16), ("fc2.weight", DType::BF16)] {
        let half = weights.tensors[name].to_dtype(dtype)?;
        weights.tensors.insert(name.to_owned(), half);
    }
    let other = small(2)?;
    let report = weights.load_into(other.parameters(), Part::All)?;
    let expected = [("fc1.weight".to_owned(), DType::F16), ("fc2.weight".to_owned(), DType::BF16)];
    assert_eq!(report.converted, expected);
    let got = other.parameters().require("fc2.weight")?.var().as_tensor().clone();
    assert_eq!(bits(&got)?, bits(&weights.tensors["fc2.weight"].to_dtype(DType::F32)?)?);
    Ok(())
}

/// Element i of every storage in the sample is i / 2 - 3.
fn sample(places: &[usize]) -> Vec<f32> {
    places.iter().map(|&i| i as f32 / 2. - 3.).collect()
}

#[test]
fn both_pytorch_formats_are_read() -> Result<()> {
    for file in ["state_dict.pth", "state_dict_legacy.pth"] {
        let weights = Weights::read(&golden(file))?;
        let f32s = |name: &str| weights.tensors[name].to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        assert_eq!(f32s("fc1.weight")?, sample(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), "{file}");
        assert_eq!(f32s("fc1.bias")?, sample(&[12, 13, 14, 15]));
        assert_eq!(f32s("transposed")?, sample(&[0, 3, 1, 4, 2, 5]));
        assert_eq!(f32s("strided")?, sample(&[1, 3, 5, 9, 11, 13]));
        assert_eq!(f32s("half")?, sample(&[0, 1, 2, 3]));
        assert_eq!(f32s("bfloat")?, sample(&[0, 1, 2]));
        assert_eq!(f32s("double")?, sample(&[0, 1]));
        assert_eq!(weights.tensors["bn.num_batches_tracked"].to_scalar::<i64>()?, 7);
        let shapes = ["fc1.weight", "transposed", "half", "bfloat"].map(|name| weights.tensors[name].dims().to_vec());
        assert_eq!(shapes, [vec![4, 3], vec![3, 2], vec![2, 2], vec![3]]);
        let dtypes = ["half", "bfloat", "double"].map(|name| weights.tensors[name].dtype());
        assert_eq!(dtypes, [DType::F16, DType::BF16, DType::F64]);
        assert_eq!(weights.ignored.len(), 1, "candle has no boolean tensors");
        assert_eq!(weights.ignored[0].name, "flags");
    }
    Ok(())
}

#[test]
fn our_pickle_reader_agrees_with_candles() -> Result<()> {
    // candle cannot read the strided one, and skips booleans.
    let ours = Weights::read(&golden("state_dict.pth"))?.tensors;
    let candles = candle_core::pickle::PthTensors::new(golden("state_dict.pth"), None)?;
    for name in ours.keys().filter(|name| *name != "strided") {
        let theirs = candles.get(name)?.unwrap_or_else(|| panic!("candle finds no {name}"));
        let same = (theirs.to_dtype(DType::F32)?, ours[name].to_dtype(DType::F32)?);
        assert_eq!((theirs.dtype(), bits(&same.0)?), (ours[name].dtype(), bits(&same.1)?), "{name}");
    }
    Ok(())
}

fn read_bytes(folder: &Path, bytes: &[u8]) -> Result<Weights> {
    let path = folder.join("damaged");
    std::fs::write(&path, bytes).expect("a temporary file");
    Weights::read(&path)
}

#[test]
fn damaged_files_are_errors_wherever_the_damage_is() -> Result<()> {
    let folder = folder();
    let safetensors = Weights::of(small(1)?.parameters())?.to_bytes()?;
    let files = [
        ("safetensors", safetensors),
        ("zip", std::fs::read(golden("state_dict.pth")).expect("committed file")),
        ("legacy", std::fs::read(golden("state_dict_legacy.pth")).expect("committed file")),
    ];
    for (kind, bytes) in files {
        // Cut anywhere: always an error.
        for length in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
            let result = read_bytes(folder.path(), &bytes[..length]);
            assert!(matches!(result, Err(Error::Format { .. })), "{kind} cut at {length}: {result:?}");
        }
        // Any byte changed: an error or other values, but it returns, and takes no more memory than the file allows.
        for place in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[place] ^= [0xff, 0x01, 0x80][place % 3];
            if let Ok(weights) = read_bytes(folder.path(), &bytes) {
                let size: usize = weights.tensors.values().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum();
                assert!(size <= 4 * bytes.len(), "{kind}, byte {place}: {size} bytes of tensors");
            }
        }
    }
    Ok(())
}

/// A zip file in PyTorch's format around `pickle`, with 8 bytes as the data of storage `0`.
fn zip_around(pickle: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, data) in [("a/data.pkl", pickle), ("a/data/0", &[0; 8])] {
        archive.start_file(name, stored).and_then(|()| Ok(archive.write_all(data)?)).expect("in memory");
    }
    archive.finish().expect("in memory").into_inner()
}

/// The pickle of {"w": a tensor of float32 with the given size and stride}.
fn pickle_of(size: &[u8], stride: &[u8]) -> Vec<u8> {
    let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ";
    let head = [b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(".as_slice(), storage, b"K\x00"].concat();
    [head.as_slice(), size, stride, b"\x89}tRs."].concat()
}

#[test]
fn hostile_pickles_are_errors_and_cost_nothing() -> Result<()> {
    let folder = folder();
    let read = |pickle: &[u8]| read_bytes(folder.path(), &zip_around(pickle));
    let good = read(&pickle_of(b"K\x02\x85", b"K\x01\x85"))?;
    assert_eq!(good.tensors["w"].dims(), [2]);

    let many = b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7ft";
    let zeros = b"(K\0K\0K\0t";
    for (what, pickle, expected) in [
        ("a shape larger than memory", pickle_of(many, zeros), "larger than any memory"),
        ("billions of elements in two", pickle_of(b"J\xff\xff\xff\x7f\x85", b"K\0\x85"), "far more tensor data"),
        ("a view past the end", pickle_of(b"K\x02\x85", b"K\x02\x85"), "past the end of its data"),
        ("a text of 4 GiB", b"\x80\x02X\xff\xff\xff\xffabc.".to_vec(), "in the middle"),
        ("a tuple of nothing", b"\x80\x02\x87.".to_vec(), "stack is empty"),
        ("a call of os.system", b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.".to_vec(), "no dictionary of tensors"),
        ("an unknown op-code", b"\x80\x02\xff.".to_vec(), "op-code 0xff"),
    ] {
        let error = read(&pickle).expect_err(what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
    // A tuple in a tuple, a million deep, and one that refers to itself twice, sixty times over: both overwhelm a reader
    // that owns its objects as a tree.
    let deep = [b"\x80\x02)".to_vec(), vec![0x85; 1_000_000], b".".to_vec()].concat();
    assert!(read(&deep).is_err());
    let doubling: Vec<u8> = (0..60u8).flat_map(|i| [b'q', i, b'0', b'h', i, b'h', i, 0x86]).collect();
    assert!(read(&[b"\x80\x02)".to_vec(), doubling, b".".to_vec()].concat()).is_err());
    Ok(())
}

#[test]
fn other_files_are_named_in_the_error() -> Result<()> {
    let folder = folder();
    let error = read_bytes(folder.path(), b"hello, this is no checkpoint").expect_err("text");
    assert!(error.to_string().contains("not a readable safetensors or PyTorch file"), "{error}");
    let missing = folder.path().join("missing.safetensors");
    let error = Weights::read(&missing).expect_err("missing");
    assert!(matches!(&error, Error::File(lth_files::Error::Io { path, .. }) if *path == missing), "{error}");
    let error = Weights::default().write(&folder.path().join("no/such/folder.safetensors")).expect_err("no folder");
    assert!(matches!(error, Error::File(_)), "{error}");
    Ok(())
}

#[test]
fn a_state_dict_may_lie_inside_a_checkpoint() -> Result<()> {
    let folder = folder();
    let inner = pickle_of(b"K\x02\x85", b"K\x01\x85");
    let inner = &inner[2..inner.len() - 1];
    let outer = [b"\x80\x02}(X\x05\0\0\0epochK\x05X\x0a\0\0\0state_dict".as_slice(), inner, b"u."].concat();
    let weights = read_bytes(folder.path(), &zip_around(&outer))?;
    assert_eq!(weights.tensors.keys().collect::<Vec<_>>(), ["w"]);
    Ok(())
}

#[test]
fn golden_values_load_strictly() -> Result<()> {
    // The formula's shapes are torchvision's: a network filled from names is a network loaded by name.
    let network = ResNet::new(&ResNetConfig::resnet18(8, Head::Fc), &Setup::new(0))?;
    crate::named::fill(&network)?;
    let weight = network.parameters().require("layer2.0.downsample.0.weight")?;
    assert_eq!(bits(weight.var())?, bits(&value("layer2.0.downsample.0.weight", &[128, 64, 1, 1])?)?);
    Ok(())
}
