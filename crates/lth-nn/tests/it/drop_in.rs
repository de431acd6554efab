//! The layers that take the place of candle-nn's, against candle-nn's own.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{Conv1dConfig, Conv2dConfig, VarBuilder, VarMap};
use lth_kernels::Conv1dParams;
use lth_nn::{drop_in, seeded_builder};
use lth_train::{ModuleNetwork, Network, Pass};

use crate::named::values;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A layer that is candle's or ours.
struct Layer(Box<dyn Module>);

impl Module for Layer {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.0.forward(x)
    }
}

type Make<'a> = &'a dyn Fn(VarBuilder<'_>) -> candle_core::Result<Box<dyn Module>>;

fn network(make: Make<'_>, dtype: DType) -> Result<ModuleNetwork<Layer>> {
    let variables = VarMap::new();
    let layer = make(seeded_builder(&variables, 42, dtype, &Device::Cpu).pp("layer"))?;
    Ok(ModuleNetwork::new(Layer(layer), &variables)?)
}

fn wave(shape: &[usize], dtype: DType) -> Result<Tensor> {
    let n = shape.iter().product::<usize>() as f64;
    Ok((Tensor::arange(0f64, n, &Device::Cpu)? * 0.7)?.sin()?.reshape(shape)?.to_dtype(dtype)?)
}

/// The largest difference over the largest value of what is expected.
fn error(got: &Tensor, expected: &Tensor) -> Result<f64> {
    assert_eq!((got.dims(), got.dtype()), (expected.dims(), expected.dtype()));
    let (got, expected) = (values(got)?, values(expected)?);
    let scale = expected.iter().fold(1e-3_f64, |most, value| most.max(value.abs()));
    Ok(got.iter().zip(&expected).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / scale)
}

fn passed(network: &impl Network, x: &Tensor, pass: &Pass) -> Result<(Tensor, GradStore)> {
    let y = network.forward(x, pass)?;
    let loss = (y.to_dtype(DType::F64)? * wave(y.dims(), DType::F64)?)?.sum_all()?;
    Ok((y, loss.backward()?))
}

fn gradient<'a>(network: &impl Network, gradients: &'a GradStore, name: &str) -> Result<&'a Tensor> {
    Ok(gradients.get(network.parameters().require(name)?.var()).ok_or("no gradient")?)
}

/// Every weight but each third.
fn mask(weight: &Tensor) -> Result<Tensor> {
    let bits: Vec<u8> = (0..weight.elem_count()).map(|at| u8::from(at % 3 != 0)).collect();
    Ok(Tensor::from_vec(bits, weight.dims(), &Device::Cpu)?)
}

/// Dense and masked, values and gradients are those of candle's layer, whose weight is multiplied with the mask.
fn check(ours: Make<'_>, candles: Make<'_>, inputs: &[&[usize]]) -> Result {
    // Sums of sines cancel: what is left is a small part of what was added.
    for (dtype, tolerance) in [(DType::F32, 5e-5), (DType::F64, 1e-12)] {
        for shape in inputs {
            let x = wave(shape, dtype)?;
            let (mut ours, theirs) = (network(ours, dtype)?, network(candles, dtype)?);
            let names: Vec<String> = theirs.parameters().iter().map(|(name, _)| name.to_owned()).collect();
            assert_eq!(names, ours.parameters().iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>());
            for name in &names {
                let [one, other] = [ours.parameters(), theirs.parameters()].map(|all| all.require(name));
                assert_eq!(values(one?.var())?, values(other?.var())?, "{name}: its initial values");
            }
            let (y, gradients) = passed(&ours, &x, &Pass::train(1, 0))?;
            let (expected, expected_gradients) = passed(&theirs, &x, &Pass::train(1, 0))?;
            assert!(error(&y, &expected)? < tolerance, "{shape:?} {dtype:?}: {}", error(&y, &expected)?);
            for name in &names {
                let error = error(gradient(&ours, &gradients, name)?, gradient(&theirs, &expected_gradients, name)?)?;
                assert!(error < tolerance, "{name}, {shape:?} {dtype:?}: {error}");
            }

            let weight = theirs.parameters().require("layer.weight")?.var();
            let mask = mask(weight)?;
            ours.set_masks(&BTreeMap::from([("layer.weight".to_owned(), mask.clone())]))?;
            weight.set(&weight.mul(&mask.to_dtype(dtype)?)?)?;
            let (expected, expected_gradients) = passed(&theirs, &x, &Pass::train(1, 0))?;
            // Our weight was left whole: what is pruned is not read.
            let (y, gradients) = passed(&ours, &x, &Pass::train(1, 0))?;
            assert!(error(&y, &expected)? < tolerance, "masked, {shape:?} {dtype:?}");
            let whole = gradient(&theirs, &expected_gradients, "layer.weight")?;
            let kept = gradient(&ours, &gradients, "layer.weight")?;
            assert!(error(kept, &whole.mul(&mask.to_dtype(dtype)?)?)? < tolerance, "masked, {shape:?} {dtype:?}");

            // Where gradients of pruned weights are asked for, they are there.
            let own = ours.parameters().require("layer.weight")?.var();
            own.set(weight.as_tensor())?;
            let (_, gradients) = passed(&ours, &x, &Pass { dense_gradients: true, ..Pass::train(1, 0) })?;
            assert!(error(gradient(&ours, &gradients, "layer.weight")?, whole)? < tolerance, "{shape:?} {dtype:?}");
            // A mask that goes leaves a dense layer.
            ours.set_masks(&BTreeMap::new())?;
            let (_, gradients) = passed(&ours, &x, &Pass::train(1, 0))?;
            assert!(error(gradient(&ours, &gradients, "layer.weight")?, whole)? < tolerance, "{shape:?} {dtype:?}");
        }
    }
    Ok(())
}

/// A candle `Conv1d` as matrix products, place by place of its kernel: candle's own gradient of its weight is wrong for batches
/// of more than one.
struct Products(candle_nn::Conv1d);

impl Module for Products {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (weight, config) = (self.0.weight(), self.0.config());
        let (out, per_group, taps) = weight.dims3()?;
        let x = x.pad_with_zeros(2, config.padding, config.padding)?;
        let n = (x.dim(2)? - taps) / config.stride + 1;
        let group = |group: usize| -> candle_core::Result<Tensor> {
            let x = x.narrow(1, group * per_group, per_group)?.contiguous()?;
            let weight = weight.narrow(0, group * (out / config.groups), out / config.groups)?;
            let tap = |tap: usize| -> candle_core::Result<Tensor> {
                let places: Vec<u32> = (0..n).map(|at| (at * config.stride + tap) as u32).collect();
                let x = x.index_select(&Tensor::new(places, x.device())?, 2)?;
                weight.narrow(2, tap, 1)?.squeeze(2)?.broadcast_matmul(&x)
            };
            (1..taps).try_fold(tap(0)?, |sum, at| sum + tap(at)?)
        };
        Tensor::cat(&(0..config.groups).map(group).collect::<candle_core::Result<Vec<_>>>()?, 1)
    }
}

#[test]
fn linear_layers_are_candles() -> Result {
    let inputs: [&[usize]; 5] = [&[1, 12], &[5, 12], &[3, 7, 12], &[2, 3, 4, 12], &[70, 12]];
    check(
        &|builder| Ok(Box::new(drop_in::linear(12, 9, builder)?)),
        &|builder| Ok(Box::new(candle_nn::linear(12, 9, builder)?)),
        &inputs,
    )?;
    check(
        &|builder| Ok(Box::new(drop_in::linear_no_bias(12, 9, builder)?)),
        &|builder| Ok(Box::new(candle_nn::linear_no_bias(12, 9, builder)?)),
        &inputs,
    )
}

#[test]
fn convolutions_are_candles() -> Result {
    for (config, kernel) in [
        (Conv2dConfig::default(), 3),
        // Of a width that the stride covers: of others candle's own backward pass fails.
        (Conv2dConfig { padding: 1, stride: 2, ..Conv2dConfig::default() }, 3),
        (Conv2dConfig { padding: 2, dilation: 2, groups: 2, ..Conv2dConfig::default() }, 3),
        (Conv2dConfig { groups: 4, ..Conv2dConfig::default() }, 1),
    ] {
        check(
            &|builder| Ok(Box::new(drop_in::conv2d(4, 8, kernel, config, builder)?)),
            &|builder| Ok(Box::new(candle_nn::conv2d(4, 8, kernel, config, builder)?)),
            &[&[1, 4, 7, 7], &[3, 4, 7, 7], &[20, 4, 7, 7]],
        )?;
    }
    for config in
        [Conv1dConfig::default(), Conv1dConfig { padding: 2, stride: 2, groups: 2, ..Conv1dConfig::default() }]
    {
        check(
            &|builder| Ok(Box::new(drop_in::conv1d_no_bias(4, 6, 3, config, builder)?)),
            &|builder| Ok(Box::new(Products(candle_nn::conv1d_no_bias(4, 6, 3, config, builder)?))),
            &[&[1, 4, 9], &[17, 4, 9]],
        )?;
    }
    Ok(())
}

#[test]
fn half_types_are_computed_in_f32() -> Result {
    for dtype in [DType::F16, DType::BF16] {
        let make = |builder: VarBuilder<'_>| Ok(Box::new(drop_in::linear(64, 8, builder)?) as Box<dyn Module>);
        let (half, wide) = (network(&make, dtype)?, network(&make, DType::F32)?);
        for (name, parameter) in wide.parameters().iter() {
            parameter.var().set(&half.parameters().require(name)?.var().to_dtype(DType::F32)?)?;
        }
        let x = wave(&[5, 64], dtype)?;
        // Computed in f32 throughout, and rounded once.
        let expected = wide.forward(&x.to_dtype(DType::F32)?, &Pass::eval())?;
        let got = half.forward(&x, &Pass::eval())?.to_dtype(DType::F32)?;
        let rounding = if dtype == DType::F16 { 5e-4 } else { 4e-3 };
        assert!(error(&got, &expected)? < rounding, "{dtype:?}: {}", error(&got, &expected)?);
    }
    Ok(())
}

#[test]
fn a_mask_that_does_not_fit_changes_none() -> Result {
    let variables = VarMap::new();
    let builder = seeded_builder(&variables, 7, DType::F32, &Device::Cpu);
    let layers = [drop_in::linear(3, 3, builder.pp("a"))?, drop_in::linear(3, 3, builder.pp("b"))?];
    let model = candle_nn::seq().add(layers[0].clone()).add(layers[1].clone());
    let mut network = ModuleNetwork::new(model, &variables)?;
    let x = wave(&[2, 3], DType::F32)?;
    let before = values(&network.forward(&x, &Pass::eval())?)?;
    let zeros = Tensor::zeros((3, 3), DType::U8, &Device::Cpu)?;
    for (wrong, expected) in [
        (Tensor::zeros((3, 2), DType::U8, &Device::Cpu)?, "mask of `b.weight` is u8 [3, 2], expected u8 [3, 3]"),
        (zeros.to_dtype(DType::F32)?, "mask of `b.weight` is f32 [3, 3], expected u8 [3, 3]"),
    ] {
        let masks = BTreeMap::from([("a.weight".to_owned(), zeros.clone()), ("b.weight".to_owned(), wrong)]);
        let error = network.set_masks(&masks).expect_err("it does not fit").to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(values(&network.forward(&x, &Pass::eval())?)?, before);
    }
    let (x, weight) = (wave(&[2, 5, 9], DType::F32)?, wave(&[6, 4, 3], DType::F32)?);
    let error = lth_kernels::conv1d(&x, &weight, None, &Conv1dParams::default());
    assert!(error.is_err_and(|error| error.to_string().contains("[2, 4, 9]")));
    let error = drop_in::conv2d(4, 4, 3, Conv2dConfig { groups: 0, ..Conv2dConfig::default() }, builder.pp("c"));
    assert!(error.is_err_and(|error| error.to_string().contains("number of groups")));
    Ok(())
}

#[test]
fn masks_go_with_the_network_that_set_them() -> Result {
    let variables = VarMap::new();
    let layer = drop_in::linear(3, 3, seeded_builder(&variables, 7, DType::F32, &Device::Cpu).pp("layer"))?;
    let x = wave(&[2, 3], DType::F32)?;
    let dense = values(&layer.forward(&x)?)?;
    let masks = BTreeMap::from([("layer.weight".to_owned(), Tensor::zeros((3, 3), DType::U8, &Device::Cpu)?)]);
    let mut network = ModuleNetwork::new(layer.clone(), &variables)?;
    network.set_masks(&masks)?;
    assert_ne!(values(&layer.forward(&x)?)?, dense);
    drop(network);
    assert_eq!(values(&layer.forward(&x)?)?, dense);
    // Another network on the same variables begins without.
    let mut network = ModuleNetwork::new(layer.clone(), &variables)?;
    network.set_masks(&masks)?;
    let other = ModuleNetwork::new(layer.clone(), &variables)?;
    assert_eq!(values(&other.forward(&x, &Pass::eval())?)?, dense);
    Ok(())
}
