//! `check_gradients` on networks whose gradients are right, wrong and missing.

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{Conv2dConfig, VarBuilder, VarMap};
use lth_kernels::{Layout, Pool2dParams};
use lth_train::{CheckedGradient, Error, GradientReport, ModuleNetwork, Network, Verdict, check_gradients};

const POOL: Pool2dParams = Pool2dParams { kernel: (2, 2), stride: (2, 2), padding: (0, 0), layout: Layout::Nchw };

/// Values in [-0.5, 0.5) from the golden ratio.
fn noise(shape: &[usize], seed: f64) -> Result<Tensor> {
    let values: Vec<f64> = (0..shape.iter().product()).map(|i: usize| (i as f64 * 0.618_034 + seed).fract()).collect();
    let scattered: Vec<f32> = values.into_iter().map(|v| ((v * 917.3).fract() - 0.5) as f32).collect();
    Tensor::from_vec(scattered, shape, &Device::Cpu)
}

/// What is between the layers.
type Between = fn(&Tensor) -> Result<Tensor>;

/// Convolution, `between`, twice; then a linear layer.
struct Pooled {
    first: candle_nn::Conv2d,
    second: candle_nn::Conv2d,
    last: candle_nn::Linear,
    between: Between,
}

impl Module for Pooled {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (self.between)(&self.first.forward(x)?)?;
        let x = (self.between)(&self.second.forward(&x)?)?;
        self.last.forward(&x.flatten_from(1)?)
    }
}

/// The network with its weights set to `noise`, in `dtype`, and a batch.
fn pooled(between: Between, dtype: DType) -> std::result::Result<(ModuleNetwork<Pooled>, (Tensor, Tensor)), Error> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, dtype, &Device::Cpu);
    let config = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
    let module = Pooled {
        first: candle_nn::conv2d(1, 4, 3, config, builder.pp("first"))?,
        second: candle_nn::conv2d(4, 6, 3, config, builder.pp("second"))?,
        last: candle_nn::linear(24, 3, builder.pp("last"))?,
        between,
    };
    let network = ModuleNetwork::new(module, &variables)?;
    for (at, (_, parameter)) in network.parameters().iter().enumerate() {
        parameter.var().set(&noise(parameter.var().dims(), at as f64 * 0.37)?.to_dtype(dtype)?)?;
    }
    let x = (noise(&[6, 1, 8, 8], 0.11)? * 2.0)?.to_dtype(dtype)?;
    Ok((network, (x, Tensor::new(&[0u32, 1, 2, 2, 1, 0], &Device::Cpu)?)))
}

fn report(result: std::result::Result<GradientReport, Error>) -> GradientReport {
    match result {
        Ok(report) | Err(Error::Gradients(report)) => report,
        Err(error) => panic!("{error}"),
    }
}

fn of<'a>(report: &'a GradientReport, name: &str) -> &'a CheckedGradient {
    report.parameters.iter().find(|one| one.name == name).expect("a parameter of the network")
}

#[test]
fn candles_max_pool_is_caught_and_ours_passes() -> std::result::Result<(), Error> {
    for dtype in [DType::F32, DType::F64] {
        let (network, batch) = pooled(|x| x.max_pool2d(2), dtype)?;
        let found = check_gradients(&network, &batch).expect_err("the gradient before a pool is a quarter");
        let message = found.to_string();
        assert!(message.contains("`first.weight`") && message.contains("`second.bias`"), "{message}");
        assert!(!message.contains("`last."), "{message}");
        let found = report(Err(found));
        // Each pool leaves a quarter of the gradient.
        for (name, share) in [("first.weight", 16.0), ("second.weight", 4.0), ("last.weight", 1.0)] {
            let one = of(&found, name);
            assert_eq!(one.verdict == Verdict::Agrees, share == 1.0, "{one:?}");
            assert!((one.measured / one.backward / share - 1.0).abs() < 0.1, "{one:?}");
        }

        let (network, batch) = pooled(|x| lth_kernels::max_pool2d(x, &POOL), dtype)?;
        let found = check_gradients(&network, &batch)?;
        assert_eq!(found.parameters.len(), 6);
        assert!(found.parameters.iter().all(|one| one.verdict == Verdict::Agrees), "{found:?}");
    }
    Ok(())
}

#[test]
fn an_operator_without_backward_is_caught() -> std::result::Result<(), Error> {
    let (network, batch) = pooled(
        |x| candle_nn::ops::softmax_last_dim(&lth_kernels::max_pool2d(x, &POOL)?.affine(3.0, 0.0)?),
        DType::F32,
    )?;
    let found = report(check_gradients(&network, &batch));
    for name in ["first.weight", "second.weight"] {
        assert_eq!(of(&found, name).verdict, Verdict::Missing, "{found:?}");
        assert_eq!(of(&found, name).backward, 0.0);
    }
    assert_eq!(of(&found, "last.weight").verdict, Verdict::Agrees);
    // A softmax does not change with a shift of its input: that there is no gradient is right.
    assert_eq!(of(&found, "second.bias").verdict, Verdict::Agrees, "{found:?}");
    Ok(())
}

#[test]
fn a_parameter_without_influence_is_no_fault() -> std::result::Result<(), Error> {
    let (network, batch) = pooled(|x| lth_kernels::max_pool2d(&x.zeros_like()?, &POOL), DType::F32)?;
    let found = check_gradients(&network, &batch)?;
    assert_eq!(of(&found, "first.weight").verdict, Verdict::Agrees);
    assert_eq!(of(&found, "first.weight").backward, 0.0);
    Ok(())
}

/// Linear layer, batch norm, ReLU, linear layer.
struct Normed(candle_nn::Linear, candle_nn::BatchNorm, candle_nn::Linear);

impl candle_core::ModuleT for Normed {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.2.forward(&lth_kernels::relu(&self.1.forward_t(&self.0.forward(x)?, train)?)?)
    }
}

/// The network with weights of `seed`, and a batch.
fn normed(seed: f64) -> std::result::Result<(ModuleNetwork<Normed>, (Tensor, Tensor)), Error> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let module = Normed(
        candle_nn::linear(5, 7, builder.pp("first"))?,
        candle_nn::batch_norm(7, 1e-5, builder.pp("norm"))?,
        candle_nn::linear(7, 3, builder.pp("last"))?,
    );
    let network = ModuleNetwork::new(module, &variables)?;
    for (at, (name, parameter)) in network.parameters().iter().enumerate() {
        if !name.starts_with("norm") {
            parameter.var().set(&noise(parameter.var().dims(), at as f64 * 0.37 + seed)?)?;
        }
    }
    Ok((network, (noise(&[9, 5], 0.3)?, Tensor::new(&[0u32, 1, 2, 2, 1, 0, 1, 1, 0], &Device::Cpu)?)))
}

#[test]
fn weights_and_statistics_keep_their_bits() -> std::result::Result<(), Error> {
    let (network, batch) = normed(0.0)?;
    let bits = || -> Result<Vec<u32>> {
        let all = network.parameters().iter().map(|(_, p)| p.var().flatten_all()?.to_vec1::<f32>());
        Ok(all.collect::<Result<Vec<_>>>()?.concat().into_iter().map(f32::to_bits).collect())
    };
    let before = bits()?;
    check_gradients(&network, &batch)?;
    assert_eq!(bits()?, before);
    // Nor does an error leave anything behind.
    let wrong = (batch.0.clone(), Tensor::new(&[7u32; 9], &Device::Cpu)?);
    assert!(check_gradients(&network, &wrong).is_err());
    assert_eq!(bits()?, before);
    Ok(())
}

#[test]
fn a_kink_beside_the_weights_is_no_fault() -> std::result::Result<(), Error> {
    // Some of these networks have a unit that is all but zero for one example: to the one side of it the loss changes
    // as the gradient says, to the other otherwise.
    for seed in (0..60).chain([719]) {
        let (network, batch) = normed(f64::from(seed) * 0.013)?;
        let found = report(check_gradients(&network, &batch));
        assert_eq!(found.faults().count(), 0, "network {seed}: {found}");
    }
    Ok(())
}

#[test]
fn a_loss_that_is_never_the_same_is_refused() -> std::result::Result<(), Error> {
    let (network, batch) = pooled(|x| candle_nn::ops::dropout(&lth_kernels::max_pool2d(x, &POOL)?, 0.5), DType::F32)?;
    let error = check_gradients(&network, &batch).expect_err("dropout draws anew");
    assert!(matches!(error, Error::Unseeded { .. }), "{error}");
    assert!(error.to_string().contains("dropout"), "{error}");
    Ok(())
}
