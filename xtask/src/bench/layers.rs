//! Each convolution by itself: which kernel runs it, and how long.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use lth_kernels::{Conv2dKernels, Conv2dParams, Layout, Pattern, conv2d, conv2d_kernels};
use lth_mask::{Mask, MaskSet, random_like};
use lth_runs::table::{Align, Table};

use super::convolutions::{Convolution, resnet18};
use super::options::{Figure, Options};
use super::ours::{Ours, noise};
use super::report::{lossless, ms, spread};
use crate::console::Console;

/// Milliseconds of the passes of one convolution; a pass that was not asked for is missing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passes {
    pub(crate) forward: f64,
    pub(crate) input_gradient: Option<f64>,
    pub(crate) weight_gradient: Option<f64>,
}

impl Passes {
    fn sum(self) -> f64 {
        self.forward + self.input_gradient.unwrap_or(0.) + self.weight_gradient.unwrap_or(0.)
    }
}

/// A convolution with its input, to be timed.
pub(crate) struct Layer {
    x: Var,
    weight: Var,
    pattern: Option<Pattern>,
    params: Conv2dParams,
    density: f64,
}

impl Layer {
    /// With a uniform random mask, unless the sparsity is 0.
    pub(crate) fn new(conv: &Convolution, batch: usize, sparsity: f64) -> anyhow::Result<Self> {
        let layout = Layout::for_batch(batch, &Device::Cpu);
        let x = lth_kernels::to_layout(&noise(&[batch, conv.inputs, conv.side, conv.side], 1)?, Layout::Nchw, layout)?;
        let mut weight = noise(&conv.weight_shape(), 2)?;
        let mut pattern = None;
        let mut density = 1.;
        if sparsity > 0. {
            let zeros = (sparsity * conv.n_weights() as f64).round() as usize;
            let mut masks = MaskSet::new();
            masks.insert("weight", Mask::from_fn(conv.weight_shape(), |i| i >= zeros)?);
            let masks = random_like(&masks, 3);
            weight = masks.apply_to("weight", &weight)?;
            density = 1. - masks.sparsity();
            pattern = masks.to_tensors(&Device::Cpu)?.get("weight").map(Pattern::new).transpose()?;
        }
        let params = Conv2dParams {
            stride: (conv.stride, conv.stride),
            padding: (conv.kernel / 2, conv.kernel / 2),
            layout,
            ..Conv2dParams::default()
        };
        Ok(Self { x: Var::from_tensor(&x)?, weight: Var::from_tensor(&weight)?, pattern, params, density })
    }

    /// What the kernel crate picks for it.
    pub(crate) fn kernels(&self) -> anyhow::Result<Conv2dKernels> {
        Ok(conv2d_kernels(self.x.dims(), self.weight.dims(), self.density, &self.params)?)
    }

    fn run(&self, x: &Tensor, weight: &Tensor) -> anyhow::Result<Tensor> {
        Ok(conv2d(x, weight, self.pattern.as_ref(), &self.params)?)
    }

    /// The median of each pass.
    pub(crate) fn time(&self, rounds: u32, gradients: bool) -> anyhow::Result<Passes> {
        let (x, weight) = (self.x.as_detached_tensor(), self.weight.as_detached_tensor());
        let forward = median(rounds, || timed(|| self.run(&x, &weight)))?;
        if !gradients {
            return Ok(Passes { forward, ..Passes::default() });
        }
        // Backward starts by making a gradient of ones, which is no part of the convolution.
        let y = self.run(&x, &weight)?;
        let ones = median(rounds, || timed(|| Ok(y.ones_like()?.contiguous()?)))?;
        let backward = |x: &Tensor, weight: &Tensor| {
            median(rounds, || {
                let y = self.run(x, weight)?;
                timed(|| Ok(lth_kernels::backward(&y)?))
            })
        };
        Ok(Passes {
            forward,
            input_gradient: Some((backward(&self.x, &weight)? - ones).max(0.)),
            weight_gradient: Some((backward(&x, &self.weight)? - ones).max(0.)),
        })
    }
}

fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let start = Instant::now();
    let result = work()?;
    let taken = 1e3 * start.elapsed().as_secs_f64();
    black_box(result);
    Ok(taken)
}

/// The median of `rounds` after one that does not count.
fn median(rounds: u32, mut work: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    work()?;
    let times = (0..rounds).map(|_| work()).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(spread(&times).0)
}

/// Times of layers of the same shape are taken once.
type Cache = BTreeMap<[usize; 5], (Conv2dKernels, Passes, Passes)>;

/// Prints every convolution of ResNet-18 at batch 64, all three passes, and at batch 1, forward.
pub(crate) fn explain(options: &Options, console: &Console) -> anyhow::Result<()> {
    let sparsities = if options.sparsity.is_empty() { vec![0.9] } else { options.sparsities() };
    for figure in [Figure::TrainAll, Figure::EvalB1] {
        if !options.has(figure) {
            continue;
        }
        for &sparsity in &sparsities {
            explain_at(figure, sparsity, options.rounds, console)?;
        }
    }
    Ok(())
}

fn explain_at(figure: Figure, sparsity: f64, rounds: u32, console: &Console) -> anyhow::Result<()> {
    let gradients = figure.is_training();
    let batch = figure.batch();
    let mut columns = vec![
        ("layer", Align::Left),
        ("weight", Align::Left),
        ("input", Align::Left),
        ("density", Align::Right),
        ("forward", Align::Left),
        ("ms", Align::Right),
        ("dense", Align::Right),
    ];
    if gradients {
        for pass in ["input gradient", "weight gradient"] {
            columns.extend([(pass, Align::Left), ("ms", Align::Right), ("dense", Align::Right)]);
        }
    }
    let mut table = Table::new(columns);
    let mut cache = Cache::new();
    let (mut total, mut dense_total) = (0., 0.);
    let convolutions = resnet18();
    let bar = console.bar("layers", convolutions.len() as u64);
    for conv in &convolutions {
        let (kernels, passes, dense) = match cache.get(&conv.shape()) {
            Some(&known) => known,
            None => {
                let layer = Layer::new(conv, batch, sparsity)?;
                let dense = Layer::new(conv, batch, 0.)?.time(rounds, gradients)?;
                let measured = (layer.kernels()?, layer.time(rounds, gradients)?, dense);
                cache.insert(conv.shape(), measured);
                measured
            }
        };
        // Nobody asks for the gradient of the pictures.
        let is_stem = conv.name == "conv1";
        let passes = if is_stem { Passes { input_gradient: None, ..passes } } else { passes };
        let dense = if is_stem { Passes { input_gradient: None, ..dense } } else { dense };
        total += passes.sum();
        dense_total += dense.sum();
        let [outputs, inputs, height, width] = conv.weight_shape();
        let mut cells = vec![
            conv.name.clone(),
            format!("{outputs}×{inputs}×{height}×{width}"),
            format!("{batch}×{inputs}×{0}×{0}", conv.side),
            format!("{} %", lossless(100. * (1. - sparsity))),
            kernels.forward.to_string(),
            ms(passes.forward),
            ms(dense.forward),
        ];
        if gradients {
            for (kernel, time, dense) in [
                (kernels.input_gradient, passes.input_gradient, dense.input_gradient),
                (kernels.weight_gradient, passes.weight_gradient, dense.weight_gradient),
            ] {
                match (time, dense) {
                    (Some(time), Some(dense)) => cells.extend([kernel.to_string(), ms(time), ms(dense)]),
                    _ => cells.extend(["-".to_owned(), String::new(), String::new()]),
                }
            }
        }
        table.push(cells);
        bar.inc(1);
    }
    bar.finish_and_clear();
    console.line(format!("\nbatch {batch}, sparsity {} %\n\n{}", lossless(100. * sparsity), table.plain()));
    let (step, dense_step) = (step_time(figure, sparsity, rounds)?, step_time(figure, 0., rounds)?);
    for (what, convolutions, step) in [("masked", total, step), ("dense", dense_total, dense_step)] {
        console.line(format!(
            "{what}: convolutions {} ms of {} ms, {:.1} % outside them",
            ms(convolutions),
            ms(step),
            100. * (1. - convolutions / step)
        ));
    }
    Ok(())
}

fn step_time(figure: Figure, sparsity: f64, rounds: u32) -> anyhow::Result<f64> {
    let mut ours = Ours::new(figure, sparsity)?;
    ours.step()?;
    median(rounds, || timed(|| ours.step()))
}
