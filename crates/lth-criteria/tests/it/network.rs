//! The gradient criteria on a network of candle-nn's own layers: convolution, BatchNorm, ReLU or tanh, linear.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, Module, ModuleT, VarBuilder, VarMap};
use lth_criteria::{
    ActivationNorms, Criterion, GradientStatistics, Grasp, NamedInputs, Snip, SynFlow, SynFlowRounds, Taylor, Wanda,
    flow_gradients, gradients, hessian_gradient_product, hessian_gradient_product_at, hessian_vector_product,
    score_all, synflow,
};

use crate::{assert_close, values};

struct Network {
    variables: BTreeMap<String, Var>,
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    fc: Linear,
    smooth: bool,
}

impl Network {
    /// Weights are waves by name, since candle's generator cannot be seeded.
    fn new(smooth: bool) -> candle_core::Result<Network> {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu);
        let config = Conv2dConfig { padding: 1, ..Default::default() };
        let conv1 = candle_nn::conv2d_no_bias(2, 4, 3, config, vb.pp("conv1"))?;
        let bn1 = candle_nn::batch_norm(4, 1e-5, vb.pp("bn1"))?;
        let conv2 = candle_nn::conv2d_no_bias(4, 3, 3, config, vb.pp("conv2"))?;
        let fc = candle_nn::linear(3, 2, vb.pp("fc"))?;
        let variables: BTreeMap<String, Var> = map.data().lock().unwrap().clone().into_iter().collect();
        for (name, var) in variables.iter().filter(|(name, _)| name.starts_with("conv") || name.starts_with("fc")) {
            let phase = name.len() as f64;
            let wave = (0..var.elem_count()).map(|i| 0.4 * (1.7 * i as f64 + phase).sin()).collect::<Vec<_>>();
            var.set(&Tensor::from_vec(wave, var.shape(), &Device::Cpu)?)?;
        }
        Ok(Network { variables, conv1, bn1, conv2, fc, smooth })
    }

    fn forward(&self, x: &Tensor, norms: Option<&mut ActivationNorms>) -> candle_core::Result<Tensor> {
        let bend = |x: Tensor| if self.smooth { x.tanh() } else { x.relu() };
        let hidden = bend(self.bn1.forward_t(&self.conv1.forward(x)?, false)?)?;
        if let Some(norms) = norms {
            norms.observe("conv1.weight", x).map_err(candle_core::Error::wrap)?;
            norms.observe("conv2.weight", &hidden).map_err(candle_core::Error::wrap)?;
        }
        self.fc.forward(&bend(self.conv2.forward(&hidden)?)?.mean((2, 3))?)
    }

    fn loss(&self) -> candle_core::Result<Tensor> {
        let x = (0..3 * 2 * 5 * 4).map(|i| (0.9 * i as f64).cos()).collect::<Vec<_>>();
        let logits = self.forward(&Tensor::from_vec(x, (3, 2, 5, 4), &Device::Cpu)?, None)?;
        let targets = Tensor::new(&[0u32, 1, 0], &Device::Cpu)?;
        candle_nn::loss::cross_entropy(&logits, &targets)
    }

    /// All but the running statistics, which no gradient reaches.
    fn trainable(&self) -> BTreeMap<String, Var> {
        let trainable = self.variables.iter().filter(|(name, _)| !name.contains("running"));
        trainable.map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    fn prunable(&self) -> BTreeMap<String, Tensor> {
        let is_prunable = |name: &str| name.starts_with("conv") || name == "fc.weight";
        let weights = self.variables.iter().filter(|(name, _)| is_prunable(name));
        weights.map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect()
    }
}

fn dot(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> f64 {
    a.iter().map(|(name, a)| values(a).iter().zip(values(&b[name])).map(|(a, b)| a * b).sum::<f64>()).sum()
}

#[test]
fn the_hessian_gradient_product_is_the_slope_of_half_the_squared_gradient_norm() {
    // d/dt ½‖g(w + t·u)‖² at t = 0 is u · Hg, for any direction u: a check that shares no formula with the product.
    let network = Network::new(true).unwrap();
    let variables = network.trainable();
    let product = hessian_gradient_product(&variables, || network.loss()).unwrap();
    let start: BTreeMap<String, Tensor> =
        variables.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor().copy().unwrap())).collect();
    for phase in [0.0, 1.0, 2.0] {
        let direction: BTreeMap<String, Tensor> = start
            .iter()
            .map(|(name, w)| {
                let wave = (0..w.elem_count()).map(|i| (2.3 * i as f64 + phase).sin()).collect::<Vec<_>>();
                (name.clone(), Tensor::from_vec(wave, w.shape(), &Device::Cpu).unwrap())
            })
            .collect();
        let half_norm = |t: f64| {
            for (name, var) in &variables {
                var.set(&(&start[name] + (&direction[name] * t).unwrap()).unwrap()).unwrap();
            }
            let gradients = gradients(&network.loss().unwrap(), &variables).unwrap();
            0.5 * dot(&gradients, &gradients)
        };
        let slope = (half_norm(1e-5) - half_norm(-1e-5)) / 2e-5;
        let expected = dot(&direction, &product);
        assert!((slope - expected).abs() <= 1e-6 * expected.abs().max(1e-3), "{slope}, expected {expected}");
        half_norm(0.0);
    }
}

#[test]
fn snip_is_the_slope_of_the_loss_along_each_gate() {
    // |∂L/∂c| at c = 1 for a gate c on one weight, by a difference of losses.
    let network = Network::new(false).unwrap();
    let mut statistics = GradientStatistics::new();
    statistics.observe(&gradients(&network.loss().unwrap(), &network.trainable()).unwrap()).unwrap();
    let (weights, gradient) = (network.prunable(), statistics.mean().unwrap());
    let squared = statistics.mean_of_squares().unwrap();
    let inputs =
        NamedInputs { gradient: Some(&gradient), squared_gradient: Some(&squared), ..NamedInputs::of(&weights) };
    let (snip, taylor) = (score_all(&Snip, &inputs).unwrap(), score_all(&Taylor, &inputs).unwrap());
    for (name, at) in [("conv1.weight", 0), ("conv1.weight", 40), ("conv2.weight", 17), ("fc.weight", 5)] {
        let var = &network.variables[name];
        let start = values(var);
        let loss = |gate: f64| {
            let mut gated = start.clone();
            gated[at] *= gate;
            var.set(&Tensor::from_vec(gated, var.shape(), &Device::Cpu).unwrap()).unwrap();
            network.loss().unwrap().to_scalar::<f64>().unwrap()
        };
        let slope = (loss(1.0 + 1e-5) - loss(1.0 - 1e-5)) / 2e-5;
        loss(1.0);
        assert!((values(&snip[name])[at] - slope.abs()).abs() <= 1e-5 * slope.abs().max(1e-3), "{name} {at}: {slope}");
        assert!((values(&taylor[name])[at] - slope * slope).abs() <= 1e-5 * (slope * slope).max(1e-6), "{name} {at}");
    }
}

#[test]
fn every_collected_criterion_scores_the_network() {
    let network = Network::new(false).unwrap();
    let mut statistics = GradientStatistics::new();
    statistics.observe(&gradients(&network.loss().unwrap(), &network.trainable()).unwrap()).unwrap();
    let mut norms = ActivationNorms::new();
    network.forward(&Tensor::ones((2, 2, 5, 4), DType::F64, &Device::Cpu).unwrap(), Some(&mut norms)).unwrap();
    let (mean, norms) = (statistics.mean().unwrap(), norms.norms().unwrap());
    let squares = statistics.mean_of_squares().unwrap();
    let product = hessian_gradient_product(&network.trainable(), || network.loss()).unwrap();
    let mut weights = network.prunable();
    weights.remove("fc.weight");
    let inputs = NamedInputs {
        gradient: Some(&mean),
        squared_gradient: Some(&squares),
        hessian_gradient: Some(&product),
        activation_norm: Some(&norms),
        ..NamedInputs::of(&weights)
    };
    for criterion in [&Taylor as &dyn Criterion, &Snip, &Grasp, &Wanda] {
        let scores = score_all(criterion, &inputs).unwrap();
        for (name, weight) in &weights {
            assert_eq!(scores[name].dims(), weight.dims(), "{name}");
            assert!(values(&scores[name]).iter().any(|score| *score != 0.0), "{} of {name}", criterion.name());
        }
    }
}

#[test]
fn synflow_runs_through_convolutions_and_batch_norm_and_moves_nothing() {
    let network = Network::new(false).unwrap();
    let before: Vec<Vec<f64>> = network.variables.values().map(|var| values(var)).collect();
    let ones = Tensor::ones((1, 2, 5, 4), DType::F64, &Device::Cpu).unwrap();
    // The flow carries no layer's bias or shift here but fc's, which is after all of them: what enters a layer leaves it.
    assert_eq!(values(&network.variables["bn1.bias"]), [0.0; 4]);
    let flow = flow_gradients(&network.variables, || network.forward(&ones, None)).unwrap();
    let weights = network.prunable();
    let scores = score_all(&SynFlow, &NamedInputs { flow_gradient: Some(&flow), ..NamedInputs::of(&weights) }).unwrap();
    let sums: Vec<f64> = scores.values().map(|scores| values(scores).iter().sum()).collect();
    assert!(sums.iter().all(|sum| (sum - sums[0]).abs() < 1e-5 * sums[0]), "{sums:?}");

    let n_weights: usize = weights.values().map(Tensor::elem_count).sum();
    let select = |scores: &BTreeMap<String, Tensor>, sparsity: f64| {
        let mut all: Vec<f64> = scores.values().flat_map(values).collect();
        all.sort_by(f64::total_cmp);
        let threshold = all[(sparsity * all.len() as f64).round() as usize];
        scores.iter().map(|(name, scores)| Ok((name.clone(), scores.ge(threshold as f32)?))).collect()
    };
    let outputs = || network.forward(&ones, None);
    let masks = synflow(&network.variables, weights.keys(), SynFlowRounds::to(0.9), outputs, select).unwrap();
    let kept: Vec<f64> = masks.values().map(|mask| values(mask).iter().sum()).collect();
    assert!(kept.iter().all(|kept| *kept >= 1.0), "a layer collapsed: {kept:?}");
    assert_eq!(kept.iter().sum::<f64>(), n_weights as f64 - (0.9 * n_weights as f64).round());
    let after: Vec<Vec<f64>> = network.variables.values().map(|var| values(var)).collect();
    assert_eq!(after, before);
}

/// LeNet-300-100 by waves of two phases, on 128 pictures most of which is black; logits over 200, as GraSP takes them.
fn lenet_loss(variables: &BTreeMap<String, Var>, phase: f64) -> candle_core::Result<Tensor> {
    let pixel = |i: usize| ((0.37 * i as f64 + phase).sin() * (0.011 * i as f64).cos()).max(0.0);
    let mut x = Tensor::from_vec((0..128 * 784).map(pixel).collect(), (128, 784), &Device::Cpu)?;
    for layer in ["fc1", "fc2", "fc3"] {
        let (weight, bias) = (&variables[&format!("{layer}.weight")], &variables[&format!("{layer}.bias")]);
        x = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
        if layer != "fc3" {
            x = x.relu()?;
        }
    }
    let targets = Tensor::from_vec((0..128u32).map(|i| i * 7 % 10).collect(), 128, &Device::Cpu)?;
    candle_nn::loss::cross_entropy(&(x / 200.0)?, &targets)
}

#[test]
fn the_hessian_of_a_network_with_relu_is_symmetric() {
    // u · Hg = g · Hu for any u: with a step over which units change sides it is far from it.
    for phase in [0.0, 1.0, 2.0] {
        let wave = |layer: usize, dims: &[usize]| -> Tensor {
            let n = dims.iter().product::<usize>();
            // No period in common with the shape; of a variance of 2 / inputs.
            let scale = (4.0 / dims[dims.len() - 1] as f64).sqrt();
            let value = |i: usize| scale * (12.9898 * (i + 7919 * layer) as f64 + phase).sin();
            Tensor::from_vec((0..n).map(value).collect::<Vec<_>>(), dims, &Device::Cpu).unwrap()
        };
        let mut variables = BTreeMap::new();
        let mut direction = BTreeMap::new();
        for (layer, (name, inputs, outputs)) in
            [("fc1", 784, 300), ("fc2", 300, 100), ("fc3", 100, 10)].into_iter().enumerate()
        {
            let weight = Var::from_tensor(&wave(layer, &[outputs, inputs])).unwrap();
            let bias = Var::from_tensor(&Tensor::zeros(outputs, DType::F64, &Device::Cpu).unwrap()).unwrap();
            direction.insert(format!("{name}.weight"), wave(layer + 10, &[outputs, inputs]));
            direction.insert(format!("{name}.bias"), wave(layer + 20, &[outputs]));
            variables.insert(format!("{name}.weight"), weight);
            variables.insert(format!("{name}.bias"), bias);
        }
        let gradient = gradients(&lenet_loss(&variables, phase).unwrap(), &variables).unwrap();
        let by_gradient = hessian_gradient_product(&variables, || lenet_loss(&variables, phase)).unwrap();
        let weights = variables.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect();
        let by_direction = hessian_vector_product(&weights, &direction, |shifted| {
            let variables: BTreeMap<String, Var> = shifted
                .iter()
                .map(|(name, w)| Ok((name.clone(), Var::from_tensor(w)?)))
                .collect::<candle_core::Result<_>>()?;
            gradients(&lenet_loss(&variables, phase)?, &variables).map_err(candle_core::Error::wrap)
        })
        .unwrap();
        let (ours, expected) = (dot(&direction, &by_gradient), dot(&gradient, &by_direction));
        let size = (dot(&direction, &direction) * dot(&by_gradient, &by_gradient)).sqrt();
        assert!((ours - expected).abs() <= 1e-6 * size, "{ours}, expected {expected} of {size}");
    }
}

#[test]
fn weights_in_single_and_half_precision_are_widened_for_a_network_built_anew() {
    let wave = |phase: f64, dims: &[usize]| {
        let value = |i: usize| (12.9898 * i as f64 + phase).sin() * 0.5;
        Tensor::from_vec((0..dims.iter().product()).map(value).collect::<Vec<_>>(), dims, &Device::Cpu).unwrap()
    };
    let (x, targets) = (wave(1.0, &[32, 20]), (0..32u32).map(|i| i * 7 % 5).collect());
    let targets = Tensor::from_vec(targets, 32, &Device::Cpu).unwrap();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let mut weights = BTreeMap::new();
        for (name, outputs, inputs) in [("fc1", 16, 20), ("fc2", 5, 16)] {
            weights.insert(format!("{name}.weight"), wave(2.0, &[outputs, inputs]).to_dtype(dtype).unwrap());
            weights.insert(format!("{name}.bias"), wave(3.0, &[outputs]).to_dtype(dtype).unwrap());
        }
        let product = hessian_gradient_product_at(&weights, |variables| {
            let tensors = variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
            let vb = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
            let (fc1, fc2) = (candle_nn::linear(20, 16, vb.pp("fc1"))?, candle_nn::linear(16, 5, vb.pp("fc2"))?);
            candle_nn::loss::cross_entropy(&fc2.forward(&fc1.forward(&x)?.relu()?)?, &targets)
        });
        let product = product.unwrap();
        // By hand, in f64 from the start, at the same numbers.
        let wide = |name: &String| Var::from_tensor(&weights[name].to_dtype(DType::F64).unwrap()).unwrap();
        let variables: BTreeMap<String, Var> = weights.keys().map(|name| (name.clone(), wide(name))).collect();
        let expected = hessian_gradient_product(&variables, || {
            let layer = |x: &Tensor, name: &str| {
                x.matmul(&variables[&format!("{name}.weight")].t()?)?
                    .broadcast_add(variables[&format!("{name}.bias")].as_tensor())
            };
            candle_nn::loss::cross_entropy(&layer(&layer(&x, "fc1")?.relu()?, "fc2")?, &targets)
        });
        for (name, expected) in expected.unwrap() {
            assert_close(&values(&product[&name]), &values(&expected), 1e-5, &name);
            assert_eq!(weights[&name].dtype(), dtype);
        }
    }
    let counts = BTreeMap::from([("n".to_owned(), Tensor::zeros(3, DType::U32, &Device::Cpu).unwrap())]);
    let error = hessian_gradient_product_at(&counts, |_| candle_core::bail!("not called")).unwrap_err();
    assert!(error.to_string().starts_with("weight `n` is u32"), "{error}");
}
