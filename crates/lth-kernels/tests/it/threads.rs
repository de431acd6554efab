//! The same bits for every number of threads.

use crate::common::{assert_same_bits_on_threads, noise32, values};
use candle_core::{Device, Result, Tensor, Var};
use lth_kernels::optim::{AdamStep, Decay, adam_step};
use lth_kernels::{
    BatchNormParams, Layout, Pool2dParams, avg_pool2d, batch_norm_train, batch_norm_train_max_pool, cross_entropy,
    global_avg_pool, global_max_pool, max_pool2d, relu, to_layout,
};

/// Everything outside convolutions, forward, backward and one optimiser step, large enough that
/// work is shared among threads: the bits of all results.
fn bits(layout: Layout) -> Result<Vec<u64>> {
    let (n, c, side) = (32, 12, 24);
    let x = to_layout(&noise32(1, &[n, c, side, side]), Layout::Nchw, layout)?;
    let residual = to_layout(&noise32(2, &[n, c, side, side]), Layout::Nchw, layout)?;
    let mut vars = vec![Var::from_tensor(&x)?, Var::from_tensor(&residual)?];
    for seed in [3, 4] {
        vars.push(Var::from_tensor(&noise32(seed, &[c]))?);
    }
    let norm = BatchNormParams { layout, relu: true, ..Default::default() };
    let pool = Pool2dParams { kernel: (3, 3), stride: (2, 2), padding: (1, 1), layout };
    let (y, statistics) = batch_norm_train(&vars[0], &vars[2], &vars[3], Some(&vars[1]), &norm)?;
    let (pooled, _) = batch_norm_train_max_pool(&vars[1], &vars[2], &vars[3], &norm, &pool)?;
    let y = relu(&(y - 0.1)?)?;
    let y = max_pool2d(&avg_pool2d(&y, &pool)?, &pool)?;
    let y = ((global_max_pool(&y, layout)? + global_avg_pool(&y, layout)?)? + global_avg_pool(&pooled, layout)?)?;
    let targets = Tensor::from_vec((0..n as u32).map(|i| i % 12).collect(), n, &Device::Cpu)?;
    let loss = cross_entropy(&y, &targets)?;
    let gradients = loss.backward()?;
    let mut all = vec![loss, statistics.mean, statistics.var];
    for var in &vars {
        let gradient = gradients.get(var).expect("every variable has a gradient");
        let m = Var::from_tensor(&gradient.zeros_like()?)?;
        let v = Var::from_tensor(&gradient.zeros_like()?)?;
        let decay = Decay::Decoupled;
        let step = AdamStep { lr: 1e-3, beta1: 0.9, beta2: 0.99, eps: 1e-5, weight_decay: 0.01, decay, step: 1 };
        adam_step(var, gradient, &m, &v, None, &step)?;
        all.extend([gradient.clone(), var.as_tensor().clone(), v.as_tensor().clone()]);
    }
    Ok(all.iter().flat_map(values).map(f64::to_bits).collect())
}

#[test]
fn results_are_the_same_bits_on_every_number_of_threads() -> Result<()> {
    for layout in [Layout::Nchw, Layout::Chwn] {
        assert_same_bits_on_threads(|| bits(layout))?;
    }
    Ok(())
}
