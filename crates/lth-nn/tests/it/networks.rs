//! Names, shapes, freezing and taps.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use lth_kernels::Layout;
use lth_nn::{
    ConvNet, ConvNetConfig, ConvNetDepth, Error, Freeze, Head, LeNet, LeNetConfig, ResNet, ResNetConfig, Setup,
    TappedNetwork, Vgg, VggConfig, VggDepth,
};
use lth_train::{Network, Parameters, Pass, Role};

use crate::named::{Result, bits, fill, input, relative_error, resnet18};

/// torchvision's rule: the stem, then per stage two blocks of two convolutions with norms, a downsampling pair in the
/// first block of stages 2 to 4, and `fc`; a norm has five entries.
fn torchvision_names() -> Vec<String> {
    let mut names = vec!["conv1.weight".to_owned(), "fc.weight".to_owned(), "fc.bias".to_owned()];
    let mut norms = vec!["bn1".to_owned()];
    for stage in 1..=4 {
        for block in 0..2 {
            let block_name = format!("layer{stage}.{block}");
            for layer in 1..=2 {
                names.push(format!("{block_name}.conv{layer}.weight"));
                norms.push(format!("{block_name}.bn{layer}"));
            }
            if stage > 1 && block == 0 {
                names.push(format!("{block_name}.downsample.0.weight"));
                norms.push(format!("{block_name}.downsample.1"));
            }
        }
    }
    for norm in norms {
        for entry in ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"] {
            names.push(format!("{norm}.{entry}"));
        }
    }
    names.sort();
    names
}

fn names(parameters: &Parameters) -> Vec<&str> {
    parameters.names().collect()
}

fn zeros(shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
}

#[test]
fn resnet18_has_torchvisions_names_and_sizes() -> Result<()> {
    let all = torchvision_names();
    assert_eq!(all.len(), 122);
    let ours = ResNet::new(&ResNetConfig::resnet18(1000, Head::Fc), &Setup::new(0))?;
    let expected: Vec<_> = all.iter().filter(|name| !name.ends_with("num_batches_tracked")).collect();
    assert_eq!(names(ours.parameters()), expected);
    assert_eq!(ours.parameters().n_trainable(), 11_689_512);
    Ok(())
}

#[test]
fn resnet34_has_as_many_values_as_torchvisions() -> Result<()> {
    let network = ResNet::new(&ResNetConfig::resnet34(1000, Head::Fc), &Setup::new(0))?;
    assert_eq!(network.parameters().n_trainable(), 21_797_672);
    Ok(())
}

#[test]
fn fastais_head_has_fastais_names() -> Result<()> {
    let network = ResNet::new(&ResNetConfig::resnet18(2, Head::Fastai), &Setup::new(0))?;
    let head: Vec<_> = network.parameters().names().filter(|name| name.starts_with("head.")).collect();
    assert_eq!(
        head,
        [
            "head.2.bias",
            "head.2.running_mean",
            "head.2.running_var",
            "head.2.weight",
            "head.4.weight",
            "head.6.bias",
            "head.6.running_mean",
            "head.6.running_var",
            "head.6.weight",
            "head.8.weight",
        ]
    );
    assert!(network.parameters().get("fc.weight").is_none());
    let shift = network.parameters().require("head.6.bias")?.var().to_vec1::<f32>()?;
    assert_eq!(shift, [1e-3; 512]);
    Ok(())
}

#[test]
fn a_frozen_body_trains_norms_and_head_alone() -> Result<()> {
    let network = ResNet::new(&ResNetConfig::resnet18(2, Head::Fastai), &Setup::new(0))?;
    network.freeze(Freeze::Body);
    assert_eq!(network.parameters().n_trainable(), 537_984);
    let logits = network.forward(&input("x", &[4, 3, 32, 32])?, &Pass::train(0, 0))?;
    let gradients = lth_kernels::cross_entropy(&logits, &Tensor::new(&[0u32, 1, 1, 0], &Device::Cpu)?)?.backward()?;
    for (name, parameter) in network.parameters().iter() {
        let expected = match parameter.role() {
            Role::Weight | Role::Embedding | Role::Bias => name.starts_with("head."),
            Role::Norm => true,
            Role::Buffer => false,
        };
        assert_eq!(gradients.get(parameter.var()).is_some(), expected, "{name}");
    }
    network.freeze(Freeze::None);
    assert_eq!(network.parameters().trainable().count(), 62 + 6 - 2);
    Ok(())
}

#[test]
fn an_evaluation_pass_changes_nothing_and_a_training_pass_only_buffers() -> Result<()> {
    let network = resnet18(|_| {})?;
    let x = input("x", &[2, 3, 32, 32])?;
    let snapshot = || network.parameters().snapshot(|_, _| true);
    let before = snapshot()?;
    network.forward(&x, &Pass::eval())?;
    let same = |after: &BTreeMap<String, Tensor>, name: &str| {
        Ok::<_, lth_nn::Error>(bits(&before[name])? == bits(&after[name])?)
    };
    let after = snapshot()?;
    for name in before.keys() {
        assert!(same(&after, name)?, "{name} changed in evaluation");
    }
    network.forward(&x, &Pass::train(0, 0))?;
    let after = snapshot()?;
    for (name, parameter) in network.parameters().iter() {
        assert_eq!(same(&after, name)?, parameter.role() != Role::Buffer, "{name}");
    }
    Ok(())
}

#[test]
fn features_are_what_enters_fc_whatever_the_head() -> Result<()> {
    let x = input("x", &[3, 3, 40, 33])?;
    let mut pooled = None;
    let network = resnet18(|_| {})?;
    network.forward_with_tap(&x, &Pass::eval(), &mut |layer, x| {
        if layer == "fc" {
            pooled = Some(x.copy()?);
        }
        Ok(())
    })?;
    let pooled = pooled.expect("fc has an input");
    assert_eq!(pooled.dims(), [3, ResNet::FEATURES]);
    assert_eq!(bits(&network.features(&x, &Pass::eval())?)?, bits(&pooled)?);
    let other = resnet18(|config| config.head = Head::Fastai)?;
    assert_eq!(bits(&other.features(&x, &Pass::eval())?)?, bits(&pooled)?);
    let maps = other.feature_maps(&x, &Pass::eval())?;
    assert_eq!(maps.dims(), [3, 512, 2, 2]);
    assert!(relative_error(&maps.mean((2, 3))?, &pooled)? < 1e-6);
    Ok(())
}

#[test]
fn taps_see_every_layer_once_in_the_outer_layout() -> Result<()> {
    let x = input("x", &[2, 3, 32, 48])?;
    let seen = |layout| {
        let network = resnet18(|config| config.layout = Some(layout))?;
        let mut seen = Vec::new();
        network.forward_with_tap(&x, &Pass::eval(), &mut |layer, x| {
            seen.push((layer.to_owned(), x.copy()?));
            Ok(())
        })?;
        Ok::<_, lth_nn::Error>((network, seen))
    };
    let ((network, nchw), (_, chwn)) = (seen(Layout::Nchw)?, seen(Layout::Chwn)?);
    assert_eq!(nchw.len(), network.parameters().prunable(&[2, 4]).count());
    assert_eq!(bits(&nchw[0].1)?, bits(&x)?);
    for ((layer, a), (other, b)) in nchw.iter().zip(&chwn) {
        assert_eq!(layer, other);
        let weight = network.parameters().require(&format!("{layer}.weight"))?;
        assert_eq!(a.dims()[..2], [2, weight.var().dims()[1]], "{layer}");
        assert!(relative_error(a, b)? < 1e-4, "{layer}");
    }
    Ok(())
}

#[test]
fn an_error_of_a_tap_ends_the_pass() -> Result<()> {
    let network = LeNet::new(&LeNetConfig::default(), &Setup::new(0))?;
    let result = network
        .forward_with_tap(&zeros(&[1, 784])?, &Pass::eval(), &mut |layer, _| candle_core::bail!("enough at {layer}"));
    assert!(result.is_err_and(|error| error.to_string().contains("enough at fc1")));
    Ok(())
}

#[test]
fn the_small_networks_have_the_papers_sizes() -> Result<()> {
    // Frankle & Carbin 2019, figure 2: 266K, 4.3M, 2.4M weights; VGG-19 with one linear layer: 20.0M.
    // PARITY: the figure has 1.7M for Conv-6, of them 1.1M in convolutions; its own list of layers gives 2.26M and 1.14M.
    let setup = Setup::new(0);
    let weights = |parameters: &Parameters| -> usize {
        parameters.prunable(&[2, 4]).map(|(_, parameter)| parameter.var().elem_count()).sum()
    };
    assert_eq!(weights(LeNet::new(&LeNetConfig::default(), &setup)?.parameters()), 266_200);
    for (depth, expected) in
        [(ConvNetDepth::Two, 4_300_992), (ConvNetDepth::Four, 2_425_024), (ConvNetDepth::Six, 2_261_184)]
    {
        let network = ConvNet::new(&ConvNetConfig::cifar10(depth), &setup)?;
        assert_eq!(weights(network.parameters()), expected, "{depth:?}");
    }
    let vgg = Vgg::new(&VggConfig::new(VggDepth::Nineteen, 10), &setup)?;
    assert_eq!(weights(vgg.parameters()), 20_024_000);
    Ok(())
}

#[test]
fn vgg_has_torchvisions_feature_names() -> Result<()> {
    let vgg = Vgg::new(&VggConfig::new(VggDepth::Eleven, 10), &Setup::new(0))?;
    let mut convolutions: Vec<_> = vgg.parameters().prunable(&[4]).map(|(name, _)| name.to_owned()).collect();
    convolutions.sort_by_key(|name| name.split('.').nth(1).and_then(|idx| idx.parse::<usize>().ok()));
    // torchvision.models.vgg11_bn
    let expected = [0, 4, 8, 11, 15, 18, 22, 25].map(|idx| format!("features.{idx}.weight"));
    assert_eq!(convolutions, expected);
    assert!(vgg.parameters().get("features.1.running_var").is_some());
    Ok(())
}

#[test]
fn the_small_networks_compute_the_same_in_both_layouts() -> Result<()> {
    let setup = Setup::new(3);
    let convolutional =
        ConvNet::new(&ConvNetConfig { depth: ConvNetDepth::Four, input: (1, 12, 9), classes: 4 }, &setup)?;
    let vgg = Vgg::new(&VggConfig::new(VggDepth::Eleven, 4), &setup)?;
    let networks: [(&dyn TappedNetwork, [usize; 3]); 2] = [(&convolutional, [1, 12, 9]), (&vgg, [3, 16, 20])];
    for (network, [c, h, w]) in networks {
        // Biases away from 0, so that they count.
        fill(network)?;
        let x = input("x", &[16, c, h, w])?;
        let whole = network.forward(&x, &Pass::eval())?;
        let halves = [x.narrow(0, 0, 8)?, x.narrow(0, 8, 8)?];
        let parts: Vec<_> =
            halves.iter().map(|x| network.forward(x, &Pass::eval())).collect::<candle_core::Result<_>>()?;
        assert!(relative_error(&whole, &Tensor::cat(&parts, 0)?)? < 1e-4);
    }
    Ok(())
}

#[test]
fn gradients_equal_differences_of_the_loss() -> Result<()> {
    // In f64, along the gradient itself: the loss must change by its squared norm per unit step.
    let setup = Setup { dtype: DType::F64, ..Setup::new(5) };
    let resnet = ResNet::new(&ResNetConfig::resnet18(3, Head::Fastai), &setup)?;
    let convolutional =
        ConvNet::new(&ConvNetConfig { depth: ConvNetDepth::Two, input: (3, 8, 8), classes: 3 }, &setup)?;
    let networks: [(&dyn Network, usize); 2] = [(&resnet, 64), (&convolutional, 8)];
    for (network, size) in networks {
        let x = input("x", &[8, 3, size, size])?.to_dtype(DType::F64)?;
        let y = Tensor::new(&[0u32, 1, 2, 1, 2, 0, 0, 1], &Device::Cpu)?;
        let loss = || lth_kernels::cross_entropy(&network.forward(&x, &Pass::train(0, 0))?, &y);
        let gradients = loss()?.backward()?;
        let mut directions = Vec::new();
        let mut squared_norm = 0.;
        for (name, parameter) in network.parameters().trainable() {
            let gradient = gradients.get(parameter.var()).unwrap_or_else(|| panic!("`{name}` has no gradient"));
            squared_norm += gradient.sqr()?.sum_all()?.to_scalar::<f64>()?;
            directions.push((parameter.var(), parameter.var().as_tensor().copy()?, gradient.detach()));
        }
        // Short, so that hardly a ReLU or a maximum changes sides; the loss's rounding stays below 1e-6 of the difference.
        let step = 1e-8 / squared_norm.sqrt();
        let at = |sign: f64| {
            for (var, start, gradient) in &directions {
                var.set(&(start + (gradient * (sign * step))?)?)?;
            }
            Ok::<_, lth_nn::Error>(loss()?.to_scalar::<f64>()?)
        };
        let slope = (at(1.)? - at(-1.)?) / (2. * step);
        assert!((slope / squared_norm - 1.).abs() < 1e-4, "slope {slope}, squared norm {squared_norm}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_built_or_fed_is_refused() -> Result<()> {
    let setup = Setup::new(0);
    let message = |error: Error| error.to_string();
    let no_classes = LeNet::new(&LeNetConfig { classes: 0, ..LeNetConfig::default() }, &setup).map_err(message);
    assert_eq!(no_classes.err().as_deref(), Some("number of classes is 0, expected at least 1"));
    let config = ConvNetConfig { depth: ConvNetDepth::Six, input: (3, 32, 7), classes: 2 };
    let too_small = ConvNet::new(&config, &setup).map_err(message);
    assert_eq!(
        too_small.err().as_deref(),
        Some("input shape is (3, 32, 7), expected large enough for a pooling per pair")
    );
    let config = ResNetConfig { blocks: vec![2, 0, 2, 2], ..ResNetConfig::resnet18(2, Head::Fc) };
    assert!(matches!(ResNet::new(&config, &setup), Err(Error::Config { what: "blocks of the stages", .. })));

    let resnet = ResNet::new(&ResNetConfig::resnet18(2, Head::Fc), &setup)?;
    let error = resnet.forward(&zeros(&[1, 1, 32, 32])?, &Pass::eval()).expect_err("one channel");
    assert!(error.to_string().contains("input has shape [1, 1, 32, 32], expected [N, 3, height, width]"), "{error}");
    // One picture of 32×32 has one value per channel at the end: there is no variance to train with.
    let error = resnet.forward(&zeros(&[1, 3, 32, 32])?, &Pass::train(0, 0)).expect_err("one value per channel");
    assert!(error.to_string().contains("layer4.0.bn1"), "{error}");
    Ok(())
}
