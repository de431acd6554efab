//! Files that lth-nn writes, in candle-transformers and candle-nn.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{DType, Device, Module, ModuleT, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::resnet;
use lth_nn::{Head, LeNet, LeNetConfig, ResNet, ResNetConfig, Setup, Weights};
use lth_train::{Network, Parameter, Pass};

/// Values that look like pictures, normalised: no two alike, around 0.
fn input(shape: &[usize]) -> Result<Tensor> {
    let n: usize = shape.iter().product();
    let values = (0..n).map(|i| ((i as f32 * 0.7).sin() + (i as f32 * 0.013).cos() - (i as f32 * 0.31).sin()) * 0.9);
    Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape(shape)?)
}

/// A network whose norms have seen data: running statistics, scales and shifts are none of them the initial ones.
fn trained(head: Head, blocks: [usize; 4]) -> Result<ResNet> {
    let config = ResNetConfig { blocks: blocks.to_vec(), ..ResNetConfig::resnet18(7, head) };
    let network = ResNet::new(&config, &Setup::new(3))?;
    for (name, parameter) in network.parameters().iter() {
        if parameter.var().rank() == 1 && parameter.is_trainable() {
            let offset = if name.ends_with("weight") { 1. } else { 0. };
            let n = parameter.var().elem_count();
            let values = (0..n).map(|i| offset + 0.3 * (i as f32 * 1.7 + name.len() as f32).sin());
            parameter.var().set(&Tensor::from_iter(values, &Device::Cpu)?)?;
        }
    }
    for step in 0..3 {
        network.forward(&(input(&[16, 3, 48, 48])? * (1. + 0.1 * step as f64))?, &Pass::train(1, step))?;
    }
    Ok(network)
}

/// Writes a network's weights and opens the file as any user of candle would.
fn stock(network: &dyn Network) -> Result<VarBuilder<'static>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("network.safetensors");
    Weights::of(network.parameters())?.write(&path)?;
    Ok(VarBuilder::from_buffered_safetensors(std::fs::read(path)?, DType::F32, &Device::Cpu)?)
}

fn assert_close(got: &Tensor, expected: &Tensor) -> Result<()> {
    assert_eq!(got.dims(), expected.dims());
    let largest = |tensor: &Tensor| -> Result<f32> { Ok(tensor.abs()?.flatten_all()?.max(0)?.to_scalar()?) };
    let off = largest(&(got - expected)?)? / largest(expected)?;
    assert!(off < 1e-4, "off by {off} of the largest value");
    Ok(())
}

/// Zeroes two thirds of every weight and tells the network.
fn prune(network: &mut dyn Network) -> Result<()> {
    let mask = |(name, parameter): (&str, &Parameter)| {
        let n = parameter.var().elem_count() as u64;
        let keep = (0..n).map(|i| u8::from((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33 & 0xff < 85));
        Ok((name.to_owned(), Tensor::from_iter(keep, &Device::Cpu)?.reshape(parameter.var().dims())?))
    };
    let masks = network.parameters().prunable(&[2, 4]).map(mask).collect::<Result<BTreeMap<_, _>>>()?;
    network.parameters().apply_masks(&masks)?;
    Ok(network.set_masks(&masks)?)
}

#[test]
fn resnet18_gives_the_logits_of_candle_transformers() -> Result<()> {
    let mut network = trained(Head::Fc, [2; 4])?;
    // Small batches and large ones take different layouts here; pruned weights take sparse operators.
    for pruned in [false, true] {
        if pruned {
            prune(&mut network)?;
        }
        let stock = resnet::resnet18(7, stock(&network)?)?;
        for shape in [[2, 3, 64, 64], [17, 3, 48, 33]] {
            let x = input(&shape)?;
            assert_close(&network.forward(&x, &Pass::eval())?, &stock.forward_t(&x, false)?)?;
        }
    }
    Ok(())
}

#[test]
fn resnet34_gives_the_logits_of_candle_transformers() -> Result<()> {
    let network = trained(Head::Fc, [3, 4, 6, 3])?;
    let x = input(&[3, 3, 64, 64])?;
    assert_close(&network.forward(&x, &Pass::eval())?, &resnet::resnet34(7, stock(&network)?)?.forward_t(&x, false)?)
}

#[test]
fn a_body_with_fastais_head_gives_the_features_of_candle_transformers() -> Result<()> {
    let network = trained(Head::Fastai, [2; 4])?;
    let stock = resnet::resnet18_no_final_layer(stock(&network)?)?;
    for n in [2, 16] {
        let x = input(&[n, 3, 64, 64])?;
        assert_close(&network.features(&x, &Pass::eval())?, &stock.forward_t(&x, false)?)?;
    }
    Ok(())
}

#[test]
fn lenet_gives_the_logits_of_candles_linear_layers() -> Result<()> {
    let mut network = LeNet::new(&LeNetConfig::default(), &Setup::new(5))?;
    prune(&mut network)?;
    let weights = stock(&network)?;
    let stock = candle_nn::seq()
        .add(candle_nn::linear(784, 300, weights.pp("fc1"))?)
        .add_fn(Tensor::relu)
        .add(candle_nn::linear(300, 100, weights.pp("fc2"))?)
        .add_fn(Tensor::relu)
        .add(candle_nn::linear(100, 10, weights.pp("fc3"))?);
    let x = input(&[9, 784])?;
    assert_close(&network.forward(&x, &Pass::eval())?, &stock.forward(&x)?)
}
