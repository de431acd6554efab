//! Everything that is drawn or summed is the same every time.

use candle_core::{DType, Device, Tensor, Var};
use lth_kernels::Layout;
use lth_nn::{Builder, Context, Dropout, Error, Head, LeNet, LeNetConfig, ResNet, ResNetConfig, Setup};
use lth_train::{Network, Parameters, Pass};

use crate::named::{Result, bits, input};

fn dropped(probability: f64, name: &str, pass: &Pass, n: usize) -> Result<Vec<f32>> {
    let setup = Setup::new(0);
    let mut parameters = Parameters::new();
    let dropout = Dropout::new(&Builder::new(&setup, &mut parameters).at(name), probability)?;
    Ok(dropout.forward(&Tensor::ones(n, DType::F32, &Device::Cpu)?, &Context::nchw(pass))?.to_vec1()?)
}

#[test]
fn dropout_depends_on_seed_step_and_name() -> Result<()> {
    let first = dropped(0.5, "head.3", &Pass::train(1, 2), 100)?;
    assert_eq!(first, dropped(0.5, "head.3", &Pass::train(1, 2), 100)?);
    assert_ne!(first, dropped(0.5, "head.7", &Pass::train(1, 2), 100)?);
    assert_ne!(first, dropped(0.5, "head.3", &Pass::train(2, 2), 100)?);
    assert_ne!(first, dropped(0.5, "head.3", &Pass::train(1, 3), 100)?);
    Ok(())
}

#[test]
fn dropout_drops_its_share_and_keeps_the_mean() -> Result<()> {
    const N: usize = 100_000;
    for probability in [0.25, 0.5, 0.9] {
        let values = dropped(probability, "d", &Pass::train(1, 1), N)?;
        let scale = (1. / (1. - probability)) as f32;
        assert!(values.iter().all(|&v| v == 0. || v == scale));
        let zeros = values.iter().filter(|&&v| v == 0.).count() as f64 / N as f64;
        // Four standard errors of a share.
        let tolerance = 4. * (probability * (1. - probability) / N as f64).sqrt();
        assert!((zeros - probability).abs() < tolerance, "{zeros}, expected {probability}");
    }
    Ok(())
}

#[test]
fn dropout_does_nothing_in_evaluation_or_at_probability_0() -> Result<()> {
    assert_eq!(dropped(0.5, "d", &Pass::eval(), 50)?, [1.; 50]);
    assert_eq!(dropped(0., "d", &Pass::train(1, 1), 50)?, [1.; 50]);
    Ok(())
}

#[test]
fn dropouts_gradient_has_its_zeros() -> Result<()> {
    let setup = Setup::new(0);
    let mut parameters = Parameters::new();
    let dropout = Dropout::new(&Builder::new(&setup, &mut parameters).at("d"), 0.25)?;
    let x = Var::from_slice(&[2f32; 64], 64, &Device::Cpu)?;
    let y = dropout.forward(&x, &Context::nchw(&Pass::train(1, 1)))?;
    let gradients = y.sum_all()?.backward()?;
    let gradient = gradients.get(&x).expect("x enters").to_vec1::<f32>()?;
    assert_eq!(gradient, (y / 2.)?.to_vec1::<f32>()?);
    assert!(gradient.contains(&0.));
    Ok(())
}

#[test]
fn a_dropout_that_drops_all_is_refused() {
    let setup = Setup::new(0);
    let mut parameters = Parameters::new();
    let builder = Builder::new(&setup, &mut parameters);
    for probability in [1., -0.1, f64::NAN] {
        assert!(matches!(Dropout::new(&builder, probability), Err(Error::Config { .. })), "{probability}");
    }
}

#[test]
fn initial_values_depend_on_seed_and_name_alone() -> Result<()> {
    let first = |seed, head| {
        let network = ResNet::new(&ResNetConfig::resnet18(2, head), &Setup::new(seed))?;
        bits(&network.parameters().require("layer3.0.conv1.weight")?.var().narrow(0, 0, 1)?)
    };
    // Another head, so other parameters before and after.
    assert_eq!(first(1, Head::Fc)?, first(1, Head::Fastai)?);
    assert_ne!(first(1, Head::Fc)?, first(2, Head::Fc)?);
    Ok(())
}

#[test]
fn f64_parameters_are_the_f32_ones_before_rounding() -> Result<()> {
    let config = LeNetConfig { inputs: 5, hidden: (4, 3), classes: 2 };
    let narrow = LeNet::new(&config, &Setup::new(9))?;
    let wide = LeNet::new(&config, &Setup { dtype: DType::F64, ..Setup::new(9) })?;
    for (name, parameter) in narrow.parameters().iter() {
        let rounded = wide.parameters().require(name)?.var().to_dtype(DType::F32)?;
        assert_eq!(bits(parameter.var())?, bits(&rounded)?, "{name}");
    }
    Ok(())
}

#[test]
fn a_step_has_the_same_bits_on_any_number_of_threads() -> Result<()> {
    let step = |n_threads, layout| {
        let config = ResNetConfig { layout: Some(layout), ..ResNetConfig::resnet18(2, Head::Fastai) };
        let network = ResNet::new(&config, &Setup::new(11))?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().map_err(candle_core::Error::wrap)?;
        pool.install(|| {
            let logits = network.forward(&input("x", &[17, 3, 32, 32])?, &Pass::train(1, 5))?;
            let targets = Tensor::from_iter((0..17u32).map(|i| i % 2), &Device::Cpu)?;
            let gradients = lth_kernels::cross_entropy(&logits, &targets)?.backward()?;
            let mut all = bits(&logits)?;
            for (name, parameter) in network.parameters().iter() {
                let gradient = gradients.get(parameter.var());
                assert_eq!(gradient.is_some(), parameter.is_trainable(), "{name}");
                all.extend(bits(gradient.unwrap_or(parameter.var()))?);
            }
            Ok::<_, lth_nn::Error>(all)
        })
    };
    for layout in [Layout::Nchw, Layout::Chwn] {
        let one = step(1, layout)?;
        assert!(one == step(2, layout)?, "{layout:?}: two threads differ from one");
        assert!(one == step(4, layout)?, "{layout:?}: four threads differ from one");
    }
    Ok(())
}
