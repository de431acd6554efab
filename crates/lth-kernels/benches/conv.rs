//! Every convolution of a ResNet-18 (batch 64, 64×64 pictures), dense and at five densities, under a mask that changes at
//! every step, and at batch 1; and one of its layers by the size of the batch.

use candle_core::{Device, Result, Tensor, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lth_kernels::{Conv2dParams, Layout, Pattern, conv2d};
use std::hint::black_box;

/// Channels, filters, kernel, stride, padding, side of the input.
const LAYERS: [(&str, [usize; 6]); 11] = [
    ("stem", [3, 64, 7, 2, 3, 64]),
    ("layer1", [64, 64, 3, 1, 1, 16]),
    ("layer2 first", [64, 128, 3, 2, 1, 16]),
    ("layer2 shortcut", [64, 128, 1, 2, 0, 16]),
    ("layer2", [128, 128, 3, 1, 1, 8]),
    ("layer3 first", [128, 256, 3, 2, 1, 8]),
    ("layer3 shortcut", [128, 256, 1, 2, 0, 8]),
    ("layer3", [256, 256, 3, 1, 1, 4]),
    ("layer4 first", [256, 512, 3, 2, 1, 4]),
    ("layer4 shortcut", [256, 512, 1, 2, 0, 4]),
    ("layer4", [512, 512, 3, 1, 1, 2]),
];

/// Values from a formula: benchmarks must not depend on a generator.
fn filled(shape: &[usize]) -> Result<Tensor> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i * 7919 % 1013) as f32 / 500.0 - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

fn mask(shape: &[usize], percent: usize) -> Result<Tensor> {
    let n: usize = shape.iter().product();
    // A permutation of the residues modulo a prime spreads the kept weights evenly.
    let bits: Vec<u8> = (0..n).map(|i| u8::from(i * 7919 % 10_007 * 100 < percent * 10_007)).collect();
    Tensor::from_vec(bits, shape, &Device::Cpu)
}

fn layers(c: &mut Criterion) {
    // As a trainer does.
    lth_kernels::keep_freed_memory();
    for (name, [channels, filters, kernel, stride, padding, side]) in LAYERS {
        let output = (side + 2 * padding - kernel) / stride + 1;
        let shape = [filters, channels, kernel, kernel];
        let weight = Var::from_tensor(&filled(&shape).expect("a shape")).expect("a variable");
        for batch in [64, 1] {
            let layout = Layout::for_batch(batch, &Device::Cpu);
            let dims = match layout {
                Layout::Nchw => [batch, channels, side, side],
                Layout::Chwn => [channels, side, side, batch],
            };
            let x = Var::from_tensor(&filled(&dims).expect("a shape")).expect("a variable");
            let params =
                Conv2dParams { stride: (stride, stride), padding: (padding, padding), layout, ..Default::default() };
            let mut group = c.benchmark_group(format!("{name}, batch {batch}"));
            let multiplications = batch * output * output * filters * channels * kernel * kernel;
            group.sample_size(20).throughput(Throughput::Elements(multiplications as u64));
            for percent in [100, 50, 30, 20, 10, 5] {
                let pattern = (percent < 100)
                    .then(|| mask(&shape, percent).and_then(|mask| Pattern::new(&mask)).expect("a mask"));
                let run = |x: &Tensor, weight: &Tensor| conv2d(x, weight, pattern.as_ref(), &params).expect("runs");
                let (plain_x, plain_weight) = (x.detach(), weight.detach());
                group.bench_function(format!("forward, {percent} %"), |b| {
                    b.iter(|| black_box(run(&plain_x, &plain_weight)));
                });
                if batch == 1 {
                    continue;
                }
                // The gradient of the sum is a broadcast 1: making it contiguous is in the time of both.
                group.bench_function(format!("forward and input gradient, {percent} %"), |b| {
                    b.iter(|| black_box(run(&x, &plain_weight).sum_all().and_then(|y| y.backward()).expect("runs")));
                });
                group.bench_function(format!("forward and weight gradient, {percent} %"), |b| {
                    b.iter(|| black_box(run(&plain_x, &weight).sum_all().and_then(|y| y.backward()).expect("runs")));
                });
            }
            if batch > 1 {
                let mask = mask(&shape, 20).expect("a mask");
                let pattern = Pattern::new(&mask).expect("a mask");
                let step = |pattern: &Pattern| {
                    let y = conv2d(&x, &weight, Some(pattern), &params).expect("runs");
                    black_box(y.sum_all().and_then(|y| y.backward()).expect("runs"))
                };
                group.bench_function("forward and both gradients, 20 %", |b| b.iter(|| step(&pattern)));
                group.bench_function("the same under a new mask each time", |b| {
                    // What is made of a mask belongs to its pattern: another one begins with nothing.
                    b.iter(|| step(&Pattern::new(&mask).expect("a mask")));
                });
            }
            group.finish();
        }
    }
}

/// A training step of one layer by the size of the batch: criterion divides by the pictures.
fn batches(c: &mut Criterion) {
    lth_kernels::keep_freed_memory();
    let (channels, side) = (128, 28);
    let shape = [channels, channels, 3, 3];
    let weight = Var::from_tensor(&filled(&shape).expect("a shape")).expect("a variable");
    for percent in [100, 20] {
        let pattern =
            (percent < 100).then(|| mask(&shape, percent).and_then(|mask| Pattern::new(&mask)).expect("a mask"));
        let mut group = c.benchmark_group(format!("batches, 128 channels, 28×28, {percent} %"));
        for batch in [1, 8, 17, 32, 64] {
            let layout = Layout::for_batch(batch, &Device::Cpu);
            let dims = match layout {
                Layout::Nchw => [batch, channels, side, side],
                Layout::Chwn => [channels, side, side, batch],
            };
            let x = Var::from_tensor(&filled(&dims).expect("a shape")).expect("a variable");
            let params = Conv2dParams { padding: (1, 1), layout, ..Default::default() };
            group.sample_size(10).throughput(Throughput::Elements(batch as u64));
            group.bench_function(format!("forward and both gradients, batch {batch}"), |b| {
                b.iter(|| {
                    let y = conv2d(&x, &weight, pattern.as_ref(), &params).expect("runs");
                    black_box(y.sum_all().and_then(|y| y.backward()).expect("runs"))
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, layers, batches);
criterion_main!(benches);
