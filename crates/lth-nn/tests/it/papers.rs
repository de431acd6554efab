//! The papers' networks by name: sizes as published, values and gradients as PyTorch's.

use candle_core::{DType, Device, Tensor};
use lth_kernels::Layout;
use lth_nn::{
    BlockKind, Head, InitScheme, NamedNetwork, NetworkName, NetworkSpec, ResNet, ResNetConfig, ResNetWidths, Setup,
    Shortcut, Stem, Vgg, VggConfig, VggDepth,
};
use lth_train::{Network, Pass, Role};

use crate::named::{Result, bits, fill, golden, input, values};

/// 10 outputs for CIFAR or MNIST, 1000 for ImageNet.
pub(crate) fn spec(name: &str) -> Result<NetworkSpec> {
    let name: NetworkName = name.parse()?;
    Ok(match name {
        NetworkName::LeNet300100 => NetworkSpec::new(name, 10, [1, 28, 28]),
        NetworkName::ResNet { stem: Stem::ImageNet, .. } => NetworkSpec::new(name, 1000, [3, 224, 224]),
        _ => NetworkSpec::new(name, 10, [3, 32, 32]),
    })
}

/// Every network at the smallest size that tells its kinds of layers apart, for three classes.
pub(crate) fn small(name: NetworkName) -> NetworkSpec {
    let side = match name {
        NetworkName::ResNet { stem: Stem::ImageNet, .. } => 33,
        NetworkName::Vgg(_) => 16,
        _ => 9,
    };
    NetworkSpec::new(name, 3, [3, side, side + 3])
}

/// Networks that together have every kind of stem, block, shortcut and pooling. The others differ in depth alone.
pub(crate) fn one_of_each_kind() -> Result<Vec<NetworkSpec>> {
    let words =
        ["lenet-300-100", "conv-4", "resnet-20", "resnet-20-b", "resnet-18", "resnet-18-cifar", "resnet-50", "vgg-11"];
    words.into_iter().map(|word| Ok(small(word.parse()?))).collect()
}

#[test]
fn networks_have_as_many_parameters_as_published() -> Result<()> {
    for (name, expected) in [
        ("lenet-300-100", 266_610),
        // He et al. 2016, table 6, in millions: 0.27, 0.46, 0.66, 0.85, 1.7. Counted over the usual implementation in PyTorch.
        ("resnet-20", 269_722),
        ("resnet-32", 464_154),
        ("resnet-44", 658_586),
        ("resnet-56", 853_018),
        ("resnet-110", 1_727_962),
        // Two projections with their norms more: 16·32 + 64 and 32·64 + 128. Frankle et al. 2020, table 1: 274K.
        ("resnet-20-b", 272_474),
        // torchvision's.
        ("resnet-18", 11_689_512),
        ("resnet-34", 21_797_672),
        ("resnet-50", 25_557_032),
        // Frankle et al. 2020, table 1: 14.7M. open_lth's has a bias before each norm, 4,224 in all, and 14,728,266 parameters.
        ("vgg-16", 14_728_266 - 4_224),
    ] {
        let network = spec(name)?.build(&Setup::new(0))?;
        assert_eq!(network.parameters().n_trainable(), expected, "{name}");
    }
    Ok(())
}

#[test]
fn convolutions_are_as_many_as_the_names_say() -> Result<()> {
    for name in NetworkName::all() {
        let network = small(name).build(&Setup::new(0))?;
        let layers = network.parameters().prunable(&[2, 4]).filter(|(name, _)| !name.contains("downsample")).count();
        let word = name.to_string();
        let said: usize = match word.split('-').nth(1).and_then(|n| n.parse().ok()) {
            Some(300) => 3,
            Some(n) if word.starts_with("conv") => n + 3,
            // Three linear layers are one.
            Some(n) if word.starts_with("vgg") => n - 2,
            n => n.unwrap_or(0),
        };
        assert_eq!(layers, said, "{name}");
    }
    Ok(())
}

/// As the script beside the file: the length, and the product with numbers from the name.
fn summary(name: &str, tensor: &Tensor) -> Result<[f64; 2]> {
    let probe = values(&input(&format!("probe.{name}"), &[tensor.elem_count()])?)?;
    let values = values(tensor)?;
    let dot = values.iter().zip(probe).map(|(v, p)| v * p).sum();
    Ok([values.iter().map(|v| v * v).sum::<f64>().sqrt(), dot])
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64).collect()
}

/// Both sides compute in f64, in another order: rounding stays far below this, and any wrong operator far above.
fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    const TOLERANCE: f64 = 1e-8;
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f64, |largest, v| largest.max(v.abs()));
    for (a, b) in got.iter().zip(expected) {
        assert!((a - b).abs() <= TOLERANCE * largest, "{what}: {got:?}, expected {expected:?}");
    }
}

/// In both layouts: logits of an evaluation pass, then logits, loss, all gradients and statistics of a training pass.
fn equals_pytorchs(name: &str) -> Result<()> {
    let text = std::fs::read_to_string(golden("networks.json")).expect("committed file");
    let facts: serde_json::Value = serde_json::from_str(&text).expect("committed file");
    let facts = &facts[name];
    let side = facts["side"].as_u64().expect("committed file") as usize;
    let x = input("input", &[4, 3, side, side])?.to_dtype(DType::F64)?;
    // 16 samples take the other layout; repeated four times each they leave loss, statistics of the batch and
    // gradients as they are.
    for repeat in [1, 4] {
        let x = Tensor::cat(&vec![&x; repeat], 0)?;
        let targets = Tensor::new([0u32, 1, 4, 3].repeat(repeat), &Device::Cpu)?;
        let setup = Setup { dtype: DType::F64, ..Setup::new(0) };
        let network = NetworkSpec::new(name.parse()?, 5, [3, side, side]).build(&setup)?;
        fill(&network)?;
        let first = |logits: &Tensor| values(&logits.narrow(0, 0, 4)?);
        let evaluated = network.forward(&x, &Pass::eval())?;
        assert_close("evaluation", &first(&evaluated)?, &numbers(&facts["eval_logits"]));
        let logits = network.forward(&x, &Pass::train(0, 0))?;
        assert_close("training", &first(&logits)?, &numbers(&facts["train_logits"]));
        let loss = lth_kernels::cross_entropy(&logits, &targets)?;
        assert_close("loss", &values(&loss)?, &[facts["loss"].as_f64().expect("committed file")]);

        let gradients = lth_kernels::backward(&loss)?;
        let expected = facts["gradients"].as_object().expect("committed file");
        assert_eq!(network.parameters().trainable().map(|(name, _)| name).collect::<Vec<_>>(), {
            let mut names: Vec<_> = expected.keys().collect();
            names.sort();
            names
        });
        for (name, parameter) in network.parameters().trainable() {
            let gradient = gradients.get(parameter.var()).unwrap_or_else(|| panic!("`{name}` has no gradient"));
            assert_close(name, &summary(name, gradient)?, &numbers(&expected[name]));
        }
        // The unbiased variance knows how large the batch is.
        if repeat == 1 {
            for (name, expected) in facts["statistics"].as_object().expect("committed file") {
                let statistic = network.parameters().require(name)?.var().as_detached_tensor();
                assert_close(name, &summary(name, &statistic)?, &numbers(expected));
            }
        }
    }
    Ok(())
}

#[test]
fn resnet20_with_option_a_equals_pytorchs() -> Result<()> {
    equals_pytorchs("resnet-20")
}

#[test]
fn resnet20_with_option_b_equals_pytorchs() -> Result<()> {
    equals_pytorchs("resnet-20-b")
}

#[test]
fn vgg16_equals_torchvisions() -> Result<()> {
    equals_pytorchs("vgg-16")
}

#[test]
fn resnet50_equals_torchvisions() -> Result<()> {
    equals_pytorchs("resnet-50")
}

#[test]
fn every_gradient_reaches_its_parameter() -> Result<()> {
    for name in NetworkName::all() {
        let spec = small(name);
        let network = spec.build(&Setup::new(1))?;
        let x = input("x", &[4, 3, spec.input[1], spec.input[2]])?;
        let logits = network.forward(&x, &Pass::train(0, 0))?;
        if name.to_string().starts_with("conv-") {
            let nothing = Tensor::zeros((0, 3, spec.input[1], spec.input[2]), DType::F32, &Device::Cpu)?;
            assert_eq!(network.forward(&nothing, &Pass::eval())?.dims()[0], 0, "{name}: an empty batch");
        }
        let loss = lth_kernels::cross_entropy(&logits, &Tensor::new(&[0u32, 1, 2, 1], &Device::Cpu)?)?;
        assert_eq!(lth_kernels::foreign_operator(&loss), None, "{name}: the backward pass would be candle's");
        let gradients = lth_kernels::backward(&loss)?;
        for (parameter_name, parameter) in network.parameters().trainable() {
            let gradient = gradients.get(parameter.var());
            let length =
                gradient.map(|gradient| summary(parameter_name, gradient)).transpose()?.map(|[length, _]| length);
            assert!(
                length.is_some_and(|length| length > 0. && length.is_finite()),
                "{name}: {parameter_name}: {length:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn finite_differences_find_no_fault_in_any_kind_of_block() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let setup = Setup { dtype: DType::F64, ..Setup::new(2) };
    let cifar = |shortcut| ResNetConfig { width: 4, ..ResNetConfig::cifar(1, shortcut, 3) };
    let bottleneck = ResNetConfig { width: 2, block: BlockKind::Bottleneck, ..cifar(Shortcut::Projection) };
    for config in [cifar(Shortcut::Padding), cifar(Shortcut::Projection), bottleneck] {
        let network = ResNet::new(&config, &setup)?;
        let batch =
            (input("x", &[6, 3, 8, 8])?.to_dtype(DType::F64)?, Tensor::new(&[0u32, 1, 2, 1, 0, 2], &Device::Cpu)?);
        let report = lth_train::check_gradients(&network, &batch)?;
        assert_eq!(report.parameters.len(), network.parameters().trainable().count());
        assert!(report.parameters.iter().filter(|one| one.verdict == lth_train::Verdict::Agrees).count() > 10);
    }
    Ok(())
}

#[test]
fn padding_shows_every_other_pixel_between_channels_of_zeros() -> Result<()> {
    // Blocks that add nothing: what comes out is what goes around.
    let config = ResNetConfig { init: InitScheme::He, ..ResNetConfig::cifar(1, Shortcut::Padding, 2) };
    for n in [2, 16] {
        let network = ResNet::new(&config, &Setup::new(0))?;
        for (name, parameter) in network.parameters().iter() {
            if name.ends_with("bn2.weight") {
                parameter.var().set(&parameter.var().zeros_like()?)?;
            }
        }
        let x = input("x", &[n, 3, 9, 12])?;
        let got = network.feature_maps(&x, &Pass::eval())?;
        let mut stem = None;
        lth_nn::TappedNetwork::forward_with_tap(&network, &x, &Pass::eval(), &mut |layer, x| {
            if layer == "layer1.0.conv1" {
                stem = Some(x.copy()?);
            }
            Ok(())
        })?;
        let halved = |x: &Tensor| -> Result<Tensor> {
            let every_other = |n: usize| Tensor::arange_step(0u32, n as u32, 2, &Device::Cpu);
            let (_, channels, height, width) = x.dims4()?;
            let x = x.contiguous()?.index_select(&every_other(height)?, 2)?.index_select(&every_other(width)?, 3)?;
            Ok(x.pad_with_zeros(1, channels / 2, channels / 2)?)
        };
        let expected = halved(&halved(&stem.expect("layer1.0.conv1 has an input"))?)?;
        assert_eq!(got.dims(), [n, 64, 3, 3]);
        assert_eq!(bits(&got)?, bits(&expected)?);
    }
    Ok(())
}

#[test]
fn options_a_and_b_share_all_names_but_the_projections() -> Result<()> {
    let names = |word: &str| -> Result<Vec<String>> {
        Ok(spec(word)?.build(&Setup::new(0))?.parameters().names().map(str::to_owned).collect())
    };
    let mut b = names("resnet-20-b")?;
    assert!(b.iter().any(|name| name == "layer2.0.downsample.1.running_var"));
    b.retain(|name| !name.contains("downsample"));
    assert_eq!(names("resnet-20")?, b);
    assert!(
        b.iter()
            .all(|name| ["conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "fc."].iter().any(|p| name.starts_with(p)))
    );
    Ok(())
}

#[test]
fn networks_start_as_their_papers_say() -> Result<()> {
    // Standard deviation of a weight, then the least and the largest scale of a norm.
    for (word, weight, expected, norm, [low, high]) in [
        ("lenet-300-100", "fc1.weight", 2. / (784. + 300.), None, [0.; 2]),
        ("conv-2", "conv2.weight", 2. / (9. * 128.), None, [0.; 2]),
        ("resnet-20", "layer3.2.conv2.weight", 2. / (9. * 64.), Some("layer3.2.bn2.weight"), [0., 1.]),
        ("vgg-16", "features.40.weight", 2. / (9. * 512.), Some("features.41.weight"), [0., 1.]),
        ("resnet-50", "layer1.0.conv3.weight", 2. / 256., Some("layer1.0.bn3.weight"), [1., 1.]),
    ] {
        let network = spec(word)?.build(&Setup::new(7))?;
        let values_of = |name: &str| values(&network.parameters().require(name)?.var().as_detached_tensor());
        let weights = values_of(weight)?;
        let variance = weights.iter().map(|v| v * v).sum::<f64>() / weights.len() as f64;
        // 16,384 weights or more: a standard error of their variance is 1.1 %.
        assert!((variance / expected - 1.).abs() < 0.05, "{word}: variance {variance}, expected {expected}");
        if let Some(norm) = norm {
            let scales = values_of(norm)?;
            let (least, most) = scales.iter().fold((f64::MAX, f64::MIN), |(l, m), &v| (l.min(v), m.max(v)));
            assert!((least - low).abs() < 0.1 && (most - high).abs() < 0.1, "{word}: scales from {least} to {most}");
        }
    }
    Ok(())
}

#[test]
fn a_network_for_one_channel_refuses_three() -> Result<()> {
    for word in ["resnet-20", "resnet-18-cifar", "vgg-11", "conv-2"] {
        let network = NetworkSpec::new(word.parse()?, 10, [1, 28, 28]).build(&Setup::new(0))?;
        assert_eq!(network.forward(&input("x", &[2, 1, 28, 28])?, &Pass::eval())?.dims(), [2, 10]);
        let error = network.forward(&input("x", &[2, 3, 28, 28])?, &Pass::eval()).expect_err("three channels");
        assert!(error.to_string().contains("expected [N, 1, "), "{error}");
    }
    Ok(())
}

#[test]
fn a_frozen_body_leaves_norms_and_the_output_layer() -> Result<()> {
    for name in NetworkName::all() {
        let spec = small(name);
        let network = spec.build(&Setup::new(0))?;
        network.freeze(lth_nn::Freeze::Body);
        let trained: Vec<_> =
            network.parameters().trainable().filter(|(_, p)| p.role() == Role::Weight).map(|(name, _)| name).collect();
        assert_eq!(trained, [spec.output_weight()], "{name}");
    }
    let fastai = NetworkSpec { head: Some(Head::Fastai), ..spec("resnet-50")? };
    let network = fastai.build(&Setup::new(0))?;
    assert_eq!(network.parameters().require(fastai.output_weight())?.var().dims()[0], 1000);
    Ok(())
}

#[test]
fn a_network_as_wide_as_its_tensors_computes_the_same() -> Result<()> {
    for spec in one_of_each_kind()? {
        let name = spec.name;
        let network = spec.build(&Setup::new(3))?;
        let tensors = network.parameters().snapshot(|_, _| true)?;
        let same = spec.from_tensors(&tensors, &Setup::new(4))?;
        let x = input("x", &[2, 3, spec.input[1], spec.input[2]])?;
        let logits = |network: &dyn NamedNetwork| -> Result<_> { bits(&network.forward(&x, &Pass::eval())?) };
        assert_eq!(logits(&*network)?, logits(&*same)?, "{name}");

        let fewer = NetworkSpec { n_outputs: 2, ..spec.clone() };
        let message = fewer.from_tensors(&tensors, &Setup::new(4)).map_err(|error| error.to_string()).err();
        assert!(message.is_some_and(|m| m.contains("n_outputs is 2, expected 3, as many as")), "{name}");
    }
    Ok(())
}

#[test]
fn widths_that_do_not_fit_are_refused() -> Result<()> {
    let setup = Setup::new(0);
    let refused = |config: &ResNetConfig, change: &dyn Fn(&mut ResNetWidths)| {
        let mut widths = ResNetWidths::usual(config);
        change(&mut widths);
        ResNet::with_widths(config, &widths, &setup).map_err(|error| error.to_string()).err().unwrap_or_default()
    };
    let a = ResNetConfig::cifar(3, Shortcut::Padding, 10);
    let fewer = "padding shortcut is from 32 to 31 channels, expected at least as many channels out as in";
    assert_eq!(refused(&a, &|widths| widths.streams[2] = 31), fewer);
    let stem = "width of the stem is 8, expected that of the first stage";
    assert_eq!(refused(&a, &|widths| widths.stem = 8), stem);
    let inner = "number of inner widths is 8, expected one for each convolution of each block but its last";
    assert_eq!(refused(&a, &|widths| widths.inner.truncate(8)), inner);
    let resnet50 = ResNetConfig { layout: Some(Layout::Nchw), ..ResNetConfig::resnet50(2, Head::Fc) };
    assert_eq!(ResNetWidths::usual(&resnet50).inner.len(), 32);
    assert_eq!(
        refused(&resnet50, &|widths| widths.streams.truncate(1)),
        "number of streams is 1, expected one for each stage"
    );
    let no_channels = VggConfig { channels: 0, ..VggConfig::new(VggDepth::Eleven, 2) };
    assert!(Vgg::new(&no_channels, &setup).is_err());
    Ok(())
}
