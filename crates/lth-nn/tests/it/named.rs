//! Tensors computed from names, as in `tests/golden/resnet18_named.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use lth_nn::{Head, Part, ResNet, ResNetConfig, Setup, Weights};
use lth_train::Network;

/// What tests return: any error on the way is the test's failure.
pub(crate) type Result<T> = std::result::Result<T, lth_nn::Error>;

/// A file of `tests/golden`.
pub(crate) fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// Values of [0, 1): the top 24 bits of splitmix64 over the name's FNV-1a hash.
fn uniform(name: &str, n: usize) -> impl Iterator<Item = f32> {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (1..=n as u64).map(move |i| {
        let z = hash.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    })
}

/// The golden value of the parameter `name`.
pub(crate) fn value(name: &str, shape: &[usize]) -> Result<Tensor> {
    let u = uniform(name, shape.iter().product());
    let values: Vec<f32> = if name.ends_with("running_var") || (name.ends_with("weight") && shape.len() == 1) {
        u.map(|u| 0.5 + u).collect()
    } else if shape.len() == 1 {
        u.map(|u| (u - 0.5) * 0.25).collect()
    } else {
        let fan_in: usize = shape[1..].iter().product();
        let scale = 2f32.powi((24. / fan_in as f64).sqrt().log2().round() as i32);
        u.map(|u| (u - 0.5) * scale).collect()
    };
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// An input of values in [-2, 2).
pub(crate) fn input(name: &str, shape: &[usize]) -> Result<Tensor> {
    let values: Vec<f32> = uniform(name, shape.iter().product()).map(|u| (u - 0.5) * 4.).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// Gives every parameter of a network its golden value.
pub(crate) fn fill(network: &dyn Network) -> Result<()> {
    let value =
        |(name, parameter): (&str, &lth_train::Parameter)| Ok((name.to_owned(), value(name, parameter.var().dims())?));
    let tensors = network.parameters().iter().map(value).collect::<Result<BTreeMap<_, _>>>()?;
    Weights { tensors, ..Weights::default() }.load_into(network.parameters(), Part::All)?;
    Ok(())
}

/// The golden ResNet-18, with another head or layout where wanted.
pub(crate) fn resnet18(config: impl FnOnce(&mut ResNetConfig)) -> Result<ResNet> {
    let mut settings = ResNetConfig::resnet18(8, Head::Fc);
    config(&mut settings);
    let network = ResNet::new(&settings, &Setup::new(0))?;
    fill(&network)?;
    Ok(network)
}

/// The largest difference, relative to the largest absolute value expected.
pub(crate) fn relative_error(got: &Tensor, expected: &Tensor) -> Result<f64> {
    let (got, expected) = (values(got)?, values(expected)?);
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
    let off =
        got.iter().zip(&expected).fold(0f64, |m, (a, b)| if a.is_nan() { f64::NAN } else { m.max((a - b).abs()) });
    Ok(off / largest)
}

/// All values in order.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1()?)
}

/// The bits of an f32 tensor.
pub(crate) fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}
