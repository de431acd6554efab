//! Networks made ready for inference.

use candle_core::{DType, Device, Module, Tensor};
use lth_kernels::Layout;
use lth_nn::{
    ConvNet, ConvNetConfig, ConvNetDepth, Head, LeNet, LeNetConfig, PackedNetwork, ResNet, ResNetConfig, Setup, Vgg,
    VggConfig, VggDepth,
};
use lth_train::{Network, Pass};

use crate::named::{Result, fill, input, relative_error};
use crate::papers::one_of_each_kind;
use crate::sparse::masks;

/// Dense and masked, batch by batch, the packed network must compute what an evaluation pass computes.
fn check<N: Network>(mut network: N, packed: impl Fn(&N) -> Result<PackedNetwork>, shape: [usize; 3]) -> Result<()> {
    fill(&network)?;
    for masked in [false, true] {
        if masked {
            let masks = masks(&network)?;
            network.parameters().apply_masks(&masks)?;
            network.set_masks(&masks)?;
        }
        let packed = packed(&network)?;
        for n in [1, 3, 16, 1, 40] {
            let x = input("x", &[n, shape[0], shape[1], shape[2]])?;
            let error = relative_error(&packed.forward(&x)?, &network.forward(&x, &Pass::eval())?)?;
            assert!(error < 1e-5, "batch {n}, masked {masked}: {error}");
        }
    }
    Ok(())
}

#[test]
fn every_network_computes_what_its_evaluation_pass_does() -> Result<()> {
    let setup = Setup::new(0);
    for head in [Head::Fc, Head::Fastai] {
        check(ResNet::new(&ResNetConfig::resnet18(3, head), &setup)?, ResNet::packed, [3, 33, 40])?;
    }
    for layout in [Layout::Nchw, Layout::Chwn] {
        let config = ResNetConfig { layout: Some(layout), ..ResNetConfig::resnet18(3, Head::Fc) };
        check(ResNet::new(&config, &setup)?, ResNet::packed, [3, 32, 32])?;
    }
    check(LeNet::new(&LeNetConfig::default(), &setup)?, LeNet::packed, [1, 28, 28])?;
    check(Vgg::new(&VggConfig::new(VggDepth::Eleven, 3), &setup)?, Vgg::packed, [3, 16, 24])?;
    let config = ConvNetConfig { depth: ConvNetDepth::Four, input: (3, 16, 12), classes: 3 };
    check(ConvNet::new(&config, &setup)?, ConvNet::packed, [3, 16, 12])
}

#[test]
fn every_kind_of_network_packed_computes_what_its_evaluation_pass_does() -> Result<()> {
    for spec in one_of_each_kind()? {
        let shape = [spec.input[0], spec.input[1], spec.input[2]];
        check(spec.build(&Setup::new(0))?, |network| network.packed(), shape)?;
    }
    Ok(())
}

#[test]
fn it_does_not_follow_the_network() -> Result<()> {
    let network = LeNet::new(&LeNetConfig { inputs: 4, ..LeNetConfig::default() }, &Setup::new(0))?;
    let packed = network.packed()?;
    let x = input("x", &[2, 4])?;
    let before = packed.forward(&x)?.to_vec2::<f32>()?;
    for (_, parameter) in network.parameters().iter() {
        parameter.var().set(&parameter.var().zeros_like()?)?;
    }
    assert_eq!(packed.forward(&x)?.to_vec2::<f32>()?, before);
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let setup = Setup { dtype: DType::F64, ..Setup::new(0) };
    let network = LeNet::new(&LeNetConfig { inputs: 4, ..LeNetConfig::default() }, &setup)?;
    assert!(network.packed().expect_err("f64 has no packed form").to_string().contains("F64"));
    let packed = LeNet::new(&LeNetConfig { inputs: 4, ..LeNetConfig::default() }, &Setup::new(0))?.packed()?;
    assert!(packed.forward(&Tensor::zeros((2, 5), DType::F32, &Device::Cpu)?).is_err());
    assert!(packed.forward(&Tensor::zeros((2, 4), DType::F64, &Device::Cpu)?).is_err());
    Ok(())
}
