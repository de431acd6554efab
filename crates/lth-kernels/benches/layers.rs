//! Everything outside convolutions at the sizes of a ResNet-18 step (batch 64, 64 x 64).

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lth_kernels::optim::{AdamStep, Decay, adam_step};
use lth_kernels::{
    BatchNormParams, Layout, Pool2dParams, batch_norm_train, cross_entropy, global_avg_pool, max_pool2d, relu,
    to_layout,
};
use std::hint::black_box;

/// Values from a formula: benchmarks must not depend on a generator.
fn filled(shape: &[usize]) -> Result<Tensor> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i % 1013) as f32 / 500.0 - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// Forward and backward of `f` on a variable of shape `shape`, floats counted once.
fn both(c: &mut Criterion, name: &str, shape: &[usize], f: impl Fn(&Tensor) -> Result<Tensor>) {
    let layout = Layout::Chwn;
    let targets = Tensor::zeros(64, DType::U32, &Device::Cpu).expect("a vector");
    let x = Var::from_tensor(&filled(shape).expect("a shape")).expect("a variable");
    let mut group = c.benchmark_group(name);
    group.sample_size(20).throughput(Throughput::Elements(x.elem_count() as u64));
    group.bench_function("forward", |b| b.iter(|| black_box(f(&x.detach()).expect("runs"))));
    for (name, backward) in [
        ("forward and backward", lth_kernels::backward as fn(&Tensor) -> Result<GradStore>),
        ("forward and candle's backward", Tensor::backward),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                // Pool and loss hand back a contiguous gradient, one pass; candle's sum would hand
                // back a broadcast one, whose addition takes ten times as long as the layer.
                let pooled = f(&x).and_then(|y| global_avg_pool(&y, layout)).expect("runs");
                let loss = cross_entropy(&pooled, &targets).expect("runs");
                black_box(backward(&loss).expect("runs"))
            });
        });
    }
    group.finish();
}

fn layers(c: &mut Criterion) {
    lth_kernels::keep_freed_memory();
    let stem = [64, 32, 32, 64];
    let layout = Layout::Chwn;
    let weight = Tensor::ones(64, DType::F32, &Device::Cpu).expect("a vector");
    let bias = weight.zeros_like().expect("a vector");
    let norm = BatchNormParams { layout, relu: true, ..Default::default() };
    both(c, "batch norm and relu, stem", &stem, |x| Ok(batch_norm_train(x, &weight, &bias, None, &norm)?.0));
    both(c, "batch norm, residual and relu, layer1", &[64, 16, 16, 64], |x| {
        Ok(batch_norm_train(x, &weight, &bias, Some(x), &norm)?.0)
    });
    let pool = Pool2dParams { kernel: (3, 3), stride: (2, 2), padding: (1, 1), layout };
    both(c, "max pool, stem", &stem, |x| max_pool2d(x, &pool));
    both(c, "relu, stem", &stem, relu);
    both(c, "to layout, input", &[64, 3, 64, 64], |x| to_layout(x, Layout::Nchw, layout));

    let n = 11_689_512;
    let vars: Vec<Var> =
        (0..3).map(|_| filled(&[n]).and_then(|t| Var::from_tensor(&t.abs()?)).expect("a variable")).collect();
    let gradient = filled(&[n]).expect("a gradient");
    let bits = (0..n).map(|i| u8::from(i % 10 == 0)).collect();
    let mask = Tensor::from_vec(bits, n, &Device::Cpu).expect("a mask");
    let decay = Decay::Decoupled;
    let step = AdamStep { lr: 1e-3, beta1: 0.9, beta2: 0.99, eps: 1e-5, weight_decay: 0.01, decay, step: 10 };
    let mut group = c.benchmark_group("adam, resnet18");
    group.sample_size(20).throughput(Throughput::Elements(n as u64));
    for (name, mask) in [("dense", None), ("masked", Some(&mask))] {
        group.bench_function(name, |b| {
            b.iter(|| {
                adam_step(&vars[0], &gradient, &vars[1], &vars[2], mask, &step).expect("runs");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, layers);
criterion_main!(benches);
