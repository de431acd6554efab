//! Networks with masks.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use lth_kernels::Layout;
use lth_nn::{
    Builder, Context, Conv2d, Conv2dConfig, ConvNet, ConvNetConfig, ConvNetDepth, Head, Init, LeNet, LeNetConfig,
    Linear, Patterns, ResNet, ResNetConfig, Setup, Sparse, Vgg, VggConfig, VggDepth,
};
use lth_train::{Network, Parameters, Pass};

use crate::named::{Result, fill, input, relative_error};
use crate::papers::one_of_each_kind;

/// Keeps about a tenth of every weight, spread irregularly.
pub(crate) fn masks(network: &dyn Network) -> Result<BTreeMap<String, Tensor>> {
    let mask = |(name, parameter): (&str, &lth_train::Parameter)| {
        let n = parameter.var().elem_count() as u64;
        let keep = (0..n).map(|i| u8::from((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0xff < 26));
        Ok((name.to_owned(), Tensor::from_iter(keep, &Device::Cpu)?.reshape(parameter.var().dims())?))
    };
    network.parameters().prunable(&[2, 4]).map(mask).collect()
}

/// Logits and the gradients of all weights, in evaluation mode (where nothing amplifies rounding).
fn pass(network: &dyn Network, x: &Tensor) -> Result<(Tensor, BTreeMap<String, Tensor>)> {
    let logits = network.forward(x, &Pass { train: false, ..Pass::train(0, 0) })?;
    let targets = Tensor::zeros(x.dim(0)?, DType::U32, &Device::Cpu)?;
    let gradients = lth_kernels::cross_entropy(&logits, &targets)?.backward()?;
    let of = |(name, parameter): (&str, &lth_train::Parameter)| {
        Some((name.to_owned(), gradients.get(parameter.var())?.clone()))
    };
    Ok((logits, network.parameters().trainable().filter_map(of).collect()))
}

/// A masked network must compute what the dense one computes with zeros in its weights, forward and, at the kept
/// weights, backward; and without masks it must be dense again.
fn check(network: &mut dyn Network, x: &Tensor) -> Result<()> {
    fill(network)?;
    let masks = masks(network)?;
    network.parameters().apply_masks(&masks)?;
    let (dense, dense_gradients) = pass(network, x)?;
    network.set_masks(&masks)?;
    let (sparse, sparse_gradients) = pass(network, x)?;
    assert!(relative_error(&sparse, &dense)? < 1e-5);
    assert_eq!(dense_gradients.len(), sparse_gradients.len());
    for (name, dense) in &dense_gradients {
        let (mut dense, mut sparse) = (dense.clone(), sparse_gradients[name].clone());
        if let Some(mask) = masks.get(name) {
            let mask = mask.to_dtype(DType::F32)?;
            (dense, sparse) = ((dense * &mask)?, (sparse * mask)?);
        }
        let error = relative_error(&sparse, &dense)?;
        assert!(error < 1e-4, "gradient of {name} is off by {error}");
    }
    network.set_masks(&BTreeMap::new())?;
    let (again, _) = pass(network, x)?;
    assert_eq!(dense.to_vec2::<f32>()?, again.to_vec2::<f32>()?);
    Ok(())
}

#[test]
fn a_masked_resnet_computes_what_the_dense_one_does_with_zeros() -> Result<()> {
    for (layout, n) in [(Layout::Nchw, 2), (Layout::Chwn, 16)] {
        for head in [Head::Fc, Head::Fastai] {
            let config = ResNetConfig { layout: Some(layout), ..ResNetConfig::resnet18(3, head) };
            let mut network = ResNet::new(&config, &Setup::new(0))?;
            check(&mut network, &input("x", &[n, 3, 33, 40])?)?;
        }
    }
    Ok(())
}

#[test]
fn masked_small_networks_compute_what_the_dense_ones_do_with_zeros() -> Result<()> {
    let setup = Setup::new(0);
    check(&mut LeNet::new(&LeNetConfig::default(), &setup)?, &input("x", &[5, 1, 28, 28])?)?;
    let mut vgg = Vgg::new(&VggConfig::new(VggDepth::Eleven, 3), &setup)?;
    let config = ConvNetConfig { depth: ConvNetDepth::Four, input: (3, 16, 12), classes: 3 };
    let mut convolutional = ConvNet::new(&config, &setup)?;
    for n in [3, 16] {
        check(&mut vgg, &input("x", &[n, 3, 16, 24])?)?;
        check(&mut convolutional, &input("x", &[n, 3, 16, 12])?)?;
    }
    Ok(())
}

#[test]
fn every_kind_of_network_masked_computes_what_the_dense_one_does_with_zeros() -> Result<()> {
    for spec in one_of_each_kind()? {
        let mut network = spec.build(&Setup::new(0))?;
        for n in [3, 16] {
            check(&mut network, &input("x", &[n, spec.input[0], spec.input[1], spec.input[2]])?)?;
        }
    }
    Ok(())
}

#[test]
fn a_mask_of_a_bias_is_taken_and_changes_no_operator() -> Result<()> {
    let mut network = LeNet::new(&LeNetConfig::default(), &Setup::new(0))?;
    let x = Tensor::ones((2, 1, 28, 28), DType::F32, &Device::Cpu)?;
    let before = network.forward(&x, &Pass::eval())?.to_vec2::<f32>()?;
    network.set_masks(&BTreeMap::from([("fc1.bias".to_owned(), Tensor::zeros(300, DType::U8, &Device::Cpu)?)]))?;
    assert_eq!(network.forward(&x, &Pass::eval())?.to_vec2::<f32>()?, before);
    Ok(())
}

#[test]
fn masks_that_do_not_fit_are_refused() -> Result<()> {
    let mut network = LeNet::new(&LeNetConfig::default(), &Setup::new(0))?;
    let mut refused = |name: &str, shape: &[usize], dtype, expected: &str| {
        let mask = Tensor::ones(shape, dtype, &Device::Cpu)?;
        let error = network.set_masks(&BTreeMap::from([(name.to_owned(), mask)])).expect_err("it does not fit");
        // candle may append where it happened.
        assert!(error.to_string().starts_with(expected), "{error}");
        Ok::<_, lth_nn::Error>(())
    };
    let unknown = "mask for `fc9.weight`: the network has no parameter of that name";
    refused("fc9.weight", &[10, 100], DType::U8, unknown)?;
    refused("fc1.bias", &[299], DType::U8, "mask for `fc1.bias` has shape [299], expected [300]")?;
    let shape = "mask for `fc3.weight` has shape [100, 10], expected [10, 100]";
    refused("fc3.weight", &[100, 10], DType::U8, shape)?;
    refused("fc3.weight", &[10, 100], DType::F32, "mask for `fc3.weight` has type F32, expected U8")
}

/// The derivative of the dense network's loss along the gradient of pruned weights alone, by central differences.
fn check_dense_gradients(network: &mut dyn Network, x: &Tensor) -> Result<()> {
    fill(network)?;
    let masks = masks(network)?;
    network.parameters().apply_masks(&masks)?;
    network.set_masks(&masks)?;
    let targets = Tensor::arange(0, x.dim(0)? as u32, &Device::Cpu)?;
    let loss = |network: &dyn Network, dense_gradients| -> Result<Tensor> {
        let pass = Pass { train: false, dense_gradients, ..Pass::train(0, 0) };
        Ok(lth_kernels::cross_entropy(&network.forward(x, &pass)?, &targets)?)
    };
    let (sparse, dense) = (loss(network, false)?, loss(network, true)?);
    assert!(relative_error(&sparse, &dense)? < 1e-5);
    let (sparse, dense) = (lth_kernels::backward(&sparse)?, lth_kernels::backward(&dense)?);
    let weights = network.parameters().snapshot(|name, _| masks.contains_key(name))?;
    network.set_masks(&BTreeMap::new())?;
    for (name, start) in weights {
        let var = network.parameters().require(&name)?.var();
        let pruned = (1.0 - masks[&name].to_dtype(DType::F32)?)?;
        let of = |store: &candle_core::backprop::GradStore| -> Result<Tensor> {
            Ok((store.get(var).expect("every weight is used") * &pruned)?)
        };
        assert_eq!(of(&sparse)?.abs()?.max_all()?.to_scalar::<f32>()?, 0.0, "{name}: sparse operators leave them out");
        let gradient = of(&dense)?;
        let length = f64::from(gradient.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?);
        assert!(length > 0.0, "{name}");
        let step = 0.002 * f64::from(start.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?);
        let at = |side: f64| -> Result<f64> {
            var.set(&(&start + (&gradient * (side * step / length))?)?)?;
            Ok(f64::from(loss(network, false)?.to_scalar::<f32>()?))
        };
        let measured = (at(1.0)? - at(-1.0)?) / (2.0 * step);
        var.set(&start)?;
        assert!((measured - length).abs() < 0.03 * length, "{name}: {length}, by finite differences {measured}");
    }
    Ok(())
}

/// A convolution and a linear layer with nothing between, whose loss has no kinks for a finite difference to meet.
struct Smooth {
    conv: Conv2d,
    fc: Linear,
    parameters: Parameters,
}

impl Network for Smooth {
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        let mut context = Context::nchw(pass);
        let maps = self.conv.forward(x, &mut context)?;
        self.fc.forward(&maps.flatten_from(1)?, &mut context)
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn set_masks(&mut self, masks: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        let patterns = Patterns::new(&self.parameters, masks).map_err(candle_core::Error::wrap)?;
        self.conv.set_patterns(&patterns);
        self.fc.set_patterns(&patterns);
        Ok(())
    }
}

#[test]
fn a_pass_gives_the_gradients_of_pruned_weights_where_it_is_asked_to() -> Result<()> {
    let (setup, mut parameters) = (Setup::new(0), Parameters::new());
    let (weight, bias) = (Init::Constant(0.0), Some(Init::Constant(0.0)));
    let shape = Conv2dConfig { inputs: 3, outputs: 64, kernel: 3, stride: 1, padding: 1, weight, bias };
    let mut builder = Builder::new(&setup, &mut parameters);
    let conv = Conv2d::new(&mut builder.at("conv"), &shape)?;
    let fc = Linear::new(&mut builder.at("fc"), 64 * 16 * 12, 4, weight, bias)?;
    check_dense_gradients(&mut Smooth { conv, fc, parameters }, &input("x", &[4, 3, 16, 12])?)
}
