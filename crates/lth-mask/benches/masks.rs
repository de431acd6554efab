//! Selecting the masks of ResNet-50's 23.5 million convolution weights, and applying those of ResNet-18.
//!
//! `cargo bench -p lth-mask`, or for the profile that tests and commands use `cargo test -p lth-mask --bench masks -- --bench`.

#![allow(clippy::print_stdout, missing_docs)] // the peak of memory, which criterion does not measure

use std::collections::BTreeMap;
use std::hint::black_box;

use candle_core::{Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use lth_mask::{Granularity, MaskSet, Result, Scope, Selection, ThresholdRule, random_like, select};

/// Convolution weights of a ResNet: blocks per stage, and the kernels of a block by (outputs, inputs, kernel) for a
/// stage's width and the block's inputs.
fn resnet(blocks: [usize; 4], expansion: usize) -> Vec<(String, Vec<usize>)> {
    let mut layers = vec![("conv1.weight".to_owned(), vec![64, 3, 7, 7])];
    let mut inputs = 64;
    for (stage, n_blocks) in blocks.into_iter().enumerate() {
        let width = 64 << stage;
        for block in 0..n_blocks {
            let prefix = format!("layer{}.{block}", stage + 1);
            let outputs = width * expansion;
            let convs = if expansion == 1 {
                vec![(width, inputs, 3), (width, width, 3)]
            } else {
                vec![(width, inputs, 1), (width, width, 3), (outputs, width, 1)]
            };
            for (i, (o, i_, k)) in (1..).zip(convs) {
                layers.push((format!("{prefix}.conv{i}.weight"), vec![o, i_, k, k]));
            }
            if block == 0 && inputs != outputs {
                layers.push((format!("{prefix}.downsample.0.weight"), vec![outputs, inputs, 1, 1]));
            }
            inputs = outputs;
        }
    }
    layers
}

/// Magnitudes spread as those of trained weights roughly are: many small ones, few large.
fn magnitudes(layers: &[(String, Vec<usize>)]) -> Result<BTreeMap<String, Tensor>> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let mut tensors = BTreeMap::new();
    for (name, shape) in layers {
        let n = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..n).map(|_| (uniform() + uniform() + uniform() - 1.5).abs() * 0.05).collect();
        tensors.insert(name.clone(), Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?);
    }
    Ok(tensors)
}

fn selection(criterion: &mut Criterion) -> Result<()> {
    let scores = magnitudes(&resnet([3, 4, 6, 3], 4))?;
    let weights: usize = scores.values().map(Tensor::elem_count).sum();
    let bytes = 4 * weights as u64;
    let mut group = criterion.benchmark_group(format!("select {:.1} million, 90 %", weights as f64 / 1e6));
    group.sample_size(10);
    let selections = [
        ("global", Selection { scope: Scope::Global, ..Selection::default() }),
        (
            "global, kth value",
            Selection { scope: Scope::Global, rule: ThresholdRule::KthValue, ..Selection::default() },
        ),
        ("local", Selection::default()),
        ("local, quantile", Selection::fasterai_2021()),
        ("erk", Selection { scope: Scope::ErdosRenyiKernel, ..Selection::default() }),
        (
            "global filters",
            Selection { scope: Scope::Global, granularity: Granularity::Filter, ..Selection::default() },
        ),
        ("lamp", Selection { scope: Scope::Lamp, ..Selection::default() }),
    ];
    for (name, selection) in selections {
        black_box(select(&scores, 0.9, &selection)?);
        if let Some(peak) = peak_memory() {
            println!("{name}: peak memory so far {:.2} times the weights", peak as f64 / bytes as f64);
        }
        group.bench_function(name, |b| b.iter(|| select(&scores, 0.9, &selection)));
    }
    group.finish();
    Ok(())
}

fn application(criterion: &mut Criterion) -> Result<()> {
    let mut layers = resnet([2, 2, 2, 2], 1);
    layers.push(("fc.weight".to_owned(), vec![1000, 512]));
    let weights = magnitudes(&layers)?;
    let mut group = criterion.benchmark_group("resnet18");
    for sparsity in [0.5, 0.9] {
        let masks = select(&weights, sparsity, &Selection::default())?;
        let name = format!("apply in place, {} %", 100.0 * sparsity);
        let by_name: Vec<_> = weights.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        group.bench_function(name, |b| b.iter(|| masks.apply_in_place(by_name.iter().copied())));
        group.bench_function(format!("apply to new tensors, {} %", 100.0 * sparsity), |b| {
            b.iter(|| masks.apply(&mut weights.clone()));
        });
    }
    let masks = select(&weights, 0.8, &Selection::default())?;
    let bytes = masks.to_bytes()?;
    group.bench_function("random mask like it", |b| b.iter(|| random_like(&masks, 1)));
    group.bench_function("mask file", |b| b.iter(|| masks.to_bytes()));
    group.bench_function("mask file read", |b| b.iter(|| MaskSet::from_bytes(&bytes)));
    group.finish();
    Ok(())
}

/// The most memory that this process ever held, where the system says.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn benches(criterion: &mut Criterion) {
    let done = selection(criterion).and_then(|()| application(criterion));
    done.expect("the benchmark's own scores are finite");
}

criterion_group!(masks, benches);
criterion_main!(masks);
