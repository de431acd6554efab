//! Every criterion but `random` against PyTorch's own autograd (torch 2.15.0, float64), on a network of convolutions,
//! BatchNorm, ReLU and max pooling, and on two transformer blocks; `golden/make_autograd.py` makes the values.
//!
//! The networks are written in operators whose gradients candle has right: its own max pool is not among them.
//!
//! Tolerances, relative to the largest score of a tensor: 1e-6, which is the rounding of both to f32, and 1e-5 for GraSP,
//! a difference of gradients over a step of 1e-9.

use std::collections::{BTreeMap, HashMap};

use candle_core::{D, DType, Device, Result, Tensor, Var};
use lth_criteria::{
    ActivationNorms, GateStatistics, GradientStatistics, NamedInputs, Reads, all, flow_gradients, gradients,
    hessian_gradient_product, score_all,
};

use crate::{assert_close, values};

type Golden = HashMap<String, Tensor>;

fn golden() -> Golden {
    candle_core::safetensors::load_buffer(include_bytes!("../golden/autograd.safetensors"), &Device::Cpu).unwrap()
}

/// The tensors whose names start with `prefix`, by the rest.
fn under(golden: &Golden, prefix: &str) -> BTreeMap<String, Tensor> {
    let named = golden.iter().filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_owned(), t.clone())));
    named.collect()
}

struct Pass<'a> {
    variables: &'a BTreeMap<String, Var>,
    norms: Option<&'a mut ActivationNorms>,
    train: bool,
}

impl Pass<'_> {
    fn var(&self, name: &str) -> Result<Tensor> {
        let var = self.variables.get(name).ok_or_else(|| candle_core::Error::Msg(format!("no `{name}`")))?;
        Ok(var.as_tensor().clone())
    }

    fn observe(&mut self, name: &str, x: &Tensor, reads: Reads) -> Result<()> {
        let channel_dim = if x.rank() == 3 { 2 } else { 1 };
        match &mut self.norms {
            Some(norms) => norms.observe_as(name, x, channel_dim, reads).map_err(candle_core::Error::wrap),
            None => Ok(()),
        }
    }

    fn linear(&mut self, layer: &str, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (self.var(&format!("{layer}.weight"))?, self.var(&format!("{layer}.bias"))?);
        self.observe(&format!("{layer}.weight"), x, Reads::All)?;
        x.broadcast_matmul(&weight.t()?)?.broadcast_add(&bias)
    }

    fn stage(&mut self, idx: usize, x: &Tensor, groups: usize) -> Result<Tensor> {
        let reads = if groups == 1 { Reads::All } else { Reads::Groups(groups) };
        self.observe(&format!("conv{idx}.weight"), x, reads)?;
        let x = x.conv2d(&self.var(&format!("conv{idx}.weight"))?, 1, 1, 1, groups)?;
        let channels = |t: Tensor| t.reshape((1, (), 1, 1));
        let norm = |what: &str| channels(self.var(&format!("bn{idx}.{what}"))?);
        let (mean, var) = if self.train {
            let mean = x.mean_keepdim((0, 2, 3))?;
            let var = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim((0, 2, 3))?;
            (mean, var)
        } else {
            (norm("running_mean")?.detach(), norm("running_var")?.detach())
        };
        let x = x.broadcast_sub(&mean)?.broadcast_div(&(var + 1e-5)?.sqrt()?)?;
        let x = x.broadcast_mul(&norm("weight")?)?.broadcast_add(&norm("bias")?)?.relu()?;
        let (n, c, h, w) = x.dims4()?;
        let windows = x.reshape((n, c, h / 2, 2, w / 2, 2))?.transpose(3, 4)?.reshape((n, c, h / 2, w / 2, 4))?;
        // One of equal ones passes the gradient, as in PyTorch: on a constant picture windows are full of ties.
        windows.gather(&windows.argmax_keepdim(D::Minus1)?, D::Minus1)?.squeeze(D::Minus1)
    }

    fn layer_norm(&self, layer: &str, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let var = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let x = centred.broadcast_div(&(var + 1e-5)?.sqrt()?)?;
        x.broadcast_mul(&self.var(&format!("{layer}.weight"))?)?.broadcast_add(&self.var(&format!("{layer}.bias"))?)
    }

    fn block(&mut self, block: &str, x: &Tensor) -> Result<Tensor> {
        let (n, t, d) = x.dims3()?;
        let hidden = self.layer_norm(&format!("{block}.ln1"), x)?;
        let mut heads = |layer: &str| -> Result<Tensor> {
            let out = self.linear(&format!("{block}.{layer}"), &hidden)?;
            out.reshape((n, t, 2, d / 2))?.transpose(1, 2)?.contiguous()
        };
        let (query, key, value) = (heads("query")?, heads("key")?, heads("value")?);
        let logits = (query.matmul(&key.transpose(2, 3)?.contiguous()?)? / (d as f64 / 2.0).sqrt())?;
        let weights = candle_nn::ops::softmax(&logits, D::Minus1)?;
        let mixed = weights.matmul(&value)?.transpose(1, 2)?.reshape((n, t, d))?;
        let x = (x + self.linear(&format!("{block}.out"), &mixed)?)?;
        let hidden = self.layer_norm(&format!("{block}.ln2"), &x)?;
        let wide = self.linear(&format!("{block}.up"), &hidden)?.relu()?;
        x + self.linear(&format!("{block}.down"), &wide)?
    }
}

fn convnet(pass: &mut Pass<'_>, x: &Tensor) -> Result<Tensor> {
    let x = pass.stage(1, x, 1)?;
    let x = pass.stage(2, &x, 2)?;
    pass.linear("fc", &x.flatten_from(1)?)
}

fn transformer(pass: &mut Pass<'_>, x: &Tensor) -> Result<Tensor> {
    let x = x.broadcast_add(&pass.var("position")?)?;
    let x = pass.block("block0", &x)?;
    let x = pass.block("block1", &x)?;
    pass.linear("head", &x.mean(1)?)
}

type Forward = fn(&mut Pass<'_>, &Tensor) -> Result<Tensor>;

/// Compares every criterion that PyTorch's file holds for the network, by weight; how many were compared.
fn check(net: &str, forward: Forward) -> usize {
    let golden = golden();
    let variables: BTreeMap<String, Var> = under(&golden, &format!("{net}.weight."))
        .iter()
        .map(|(name, weight)| (name.clone(), Var::from_tensor(weight).unwrap()))
        .collect();
    let trainable: BTreeMap<String, Var> =
        variables.iter().filter(|(name, _)| !name.contains("running")).map(|(n, v)| (n.clone(), v.clone())).collect();
    let batches: Vec<(Tensor, Tensor)> = (0..3)
        .map(|idx| {
            let targets = golden[&format!("{net}.y{idx}")].to_dtype(DType::U32).unwrap();
            (golden[&format!("{net}.x{idx}")].clone(), targets)
        })
        .collect();
    let run = |x: &Tensor, train: bool, norms: Option<&mut ActivationNorms>| {
        forward(&mut Pass { variables: &variables, norms, train }, x)
    };

    let (mut statistics, mut norms) = (GradientStatistics::new(), ActivationNorms::new());
    let mut gates = GateStatistics::new();
    for (x, targets) in &batches {
        let loss = candle_nn::loss::cross_entropy(&run(x, true, Some(&mut norms)).unwrap(), targets).unwrap();
        let gradients = gradients(&loss, &trainable).unwrap();
        for name in under(&golden, &format!("{net}.initial.")).keys() {
            // PyTorch's gates are behind the BatchNorm, where there is one.
            let layer = name.trim_end_matches(".weight").replace("conv", "bn");
            let parts = ["weight", "bias"].map(|part| format!("{layer}.{part}"));
            let parts = parts.iter().map(|part| (variables[part].as_tensor(), &gradients[part]));
            gates.observe(name, parts).unwrap();
        }
        statistics.observe(&gradients).unwrap();
    }
    let all_x = Tensor::cat(&batches.iter().map(|(x, _)| x).collect::<Vec<_>>(), 0).unwrap();
    let all_targets = Tensor::cat(&batches.iter().map(|(_, y)| y).collect::<Vec<_>>(), 0).unwrap();
    let product = hessian_gradient_product(&trainable, || {
        candle_nn::loss::cross_entropy(&(run(&all_x, true, None)? / 200.0)?, &all_targets)
    });
    let ones = batches[0].0.narrow(0, 0, 1).unwrap().ones_like().unwrap();
    let flow = flow_gradients(&variables, || run(&ones, false, None)).unwrap();

    let (initial, previous) = (under(&golden, &format!("{net}.initial.")), under(&golden, &format!("{net}.previous.")));
    let weights: BTreeMap<String, Tensor> =
        initial.keys().map(|name| (name.clone(), variables[name].as_detached_tensor())).collect();
    let scales: BTreeMap<String, Tensor> = ["1", "2"]
        .into_iter()
        .filter_map(|idx| {
            Some((format!("conv{idx}.weight"), variables.get(&format!("bn{idx}.weight"))?.as_detached_tensor()))
        })
        .collect();
    let (mean, squares, norms) =
        (statistics.mean().unwrap(), statistics.mean_of_squares().unwrap(), norms.norms().unwrap());
    let gates = gates.mean_of_squares().unwrap();
    let inputs = NamedInputs {
        initial: Some(&initial),
        previous: Some(&previous),
        gradient: Some(&mean),
        squared_gradient: Some(&squares),
        hessian_gradient: Some(product.as_ref().unwrap()),
        flow_gradient: Some(&flow),
        activation_norm: Some(&norms),
        batch_norm_scale: Some(&scales),
        squared_gate_gradient: Some(&gates),
        ..NamedInputs::of(&weights)
    };
    let mut n_compared = 0;
    for criterion in all(0) {
        let expected = under(&golden, &format!("{net}.score.{}.", criterion.name()));
        let weights = weights.iter().filter(|(name, _)| expected.contains_key(*name));
        let weights: BTreeMap<String, Tensor> = weights.map(|(n, w)| (n.clone(), w.clone())).collect();
        let scores = score_all(criterion.as_ref(), &NamedInputs { weight: &weights, ..inputs }).unwrap();
        let tolerance = if criterion.name() == "grasp" { 1e-5 } else { 1e-6 };
        for (name, expected) in &expected {
            let what = format!("{} of {name}", criterion.name());
            assert_close(&values(&scores[name]), &values(expected), tolerance, &what);
            n_compared += 1;
        }
    }
    n_compared
}

#[allow(clippy::redundant_closure_for_method_calls)] // the path is less general than the closure
#[test]
fn every_criterion_is_pytorchs_on_convolutions_batch_norm_relu_and_max_pool() {
    // 21 criteria of three weights, the batch-norm scale of two.
    assert_eq!(check("convnet", convnet), 21 * 3 + 2);
}

#[allow(clippy::redundant_closure_for_method_calls)] // the path is less general than the closure
#[test]
fn every_criterion_is_pytorchs_on_two_transformer_blocks() {
    // 21 criteria of six weights in each block and the head.
    assert_eq!(check("transformer", transformer), 21 * 13);
}
