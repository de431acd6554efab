//! Each convolution by itself: which kernel runs it, and how long.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use lth_kernels::{Conv2dKernels, Conv2dParams, Kernel, Layout, Pattern, conv2d, conv2d_kernels};
use lth_mask::{Mask, MaskSet, random_like};
use lth_runs::table::{Align, Table};

use super::convolutions::{Convolution, resnet18};
use super::options::{Figure, Options};
use super::ours::{Ours, noise};
use super::report::{lossless, ms, spread};
use lth_cli::console::Console;

/// Milliseconds of the passes of one convolution; a pass that was not asked for is missing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passes {
    pub(crate) forward: f64,
    pub(crate) input_gradient: Option<f64>,
    pub(crate) weight_gradient: Option<f64>,
    /// Asked for together, as in a training step.
    pub(crate) gradients: Option<f64>,
}

impl Passes {
    const MOST: Self = Self {
        forward: f64::INFINITY,
        input_gradient: Some(f64::INFINITY),
        weight_gradient: Some(f64::INFINITY),
        gradients: Some(f64::INFINITY),
    };

    fn least(self, other: Self) -> Self {
        let least = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a.min(b));
        Self {
            forward: self.forward.min(other.forward),
            input_gradient: least(self.input_gradient, other.input_gradient),
            weight_gradient: least(self.weight_gradient, other.weight_gradient),
            gradients: least(self.gradients, other.gradients),
        }
    }

    /// Of a training step.
    fn sum(self) -> f64 {
        self.forward + self.gradients.or(self.weight_gradient).unwrap_or(0.)
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
        let mut all: Vec<Passes> = (0..=rounds).map(|_| self.once(gradients)).collect::<anyhow::Result<_>>()?;
        // The first does not count.
        all.remove(0);
        let median = |of: &dyn Fn(&Passes) -> Option<f64>| {
            let times: Option<Vec<f64>> = all.iter().map(of).collect();
            times.map(|times| spread(&times).0)
        };
        Ok(Passes {
            forward: median(&|passes| Some(passes.forward)).unwrap_or_default(),
            input_gradient: median(&|passes| passes.input_gradient),
            weight_gradient: median(&|passes| passes.weight_gradient),
            gradients: median(&|passes| passes.gradients),
        })
    }

    /// The least of each pass on each kernel, in turns.
    pub(crate) fn time_on<const N: usize>(&self, kernels: [Kernel; N], rounds: u32) -> anyhow::Result<[Passes; N]> {
        let mut least = [Passes::MOST; N];
        for _ in 0..=rounds {
            for (kernel, least) in kernels.into_iter().zip(&mut least) {
                *least = least.least(kernel.run(|| self.once(true))?);
            }
        }
        Ok(least)
    }

    fn once(&self, gradients: bool) -> anyhow::Result<Passes> {
        let (x, weight) = (self.x.as_detached_tensor(), self.weight.as_detached_tensor());
        let (forward, y) = timed(|| self.run(&x, &weight))?;
        if !gradients {
            return Ok(Passes { forward, ..Passes::default() });
        }
        // Backward starts by making a gradient of ones, which is no part of the convolution.
        let (ones, _) = timed(|| Ok(y.ones_like()?.contiguous()?))?;
        let backward = |x: &Tensor, weight: &Tensor| {
            let y = self.run(x, weight)?;
            anyhow::Ok((timed(|| Ok(lth_kernels::backward(&y)?))?.0 - ones).max(0.))
        };
        Ok(Passes {
            forward,
            input_gradient: Some(backward(&self.x, &weight)?),
            weight_gradient: Some(backward(&x, &self.weight)?),
            gradients: Some(backward(&self.x, &self.weight)?),
        })
    }
}

/// The milliseconds that `work` takes, and its result.
fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let start = Instant::now();
    let result = black_box(work()?);
    Ok((1e3 * start.elapsed().as_secs_f64(), result))
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
            explain_at(figure, sparsity, options, console)?;
        }
    }
    Ok(())
}

fn explain_at(figure: Figure, sparsity: f64, options: &Options, console: &Console) -> anyhow::Result<()> {
    let (rounds, gradients) = (options.rounds, figure.is_training());
    let batch = if gradients { options.batch_size as usize } else { figure.batch() };
    let side = options.image_size as usize;
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
        columns.extend([("both: ms", Align::Right), ("dense", Align::Right)]);
    }
    let mut table = Table::new(columns);
    let mut cache = Cache::new();
    let (mut total, mut dense_total) = (0., 0.);
    let convolutions = resnet18(side);
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
        let passes = if is_stem { Passes { input_gradient: None, gradients: None, ..passes } } else { passes };
        let dense = if is_stem { Passes { input_gradient: None, gradients: None, ..dense } } else { dense };
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
            cells.extend([passes.gradients, dense.gradients].map(|time| time.map_or_else(|| "-".to_owned(), ms)));
        }
        table.push(cells);
        bar.inc(1);
    }
    bar.finish_and_clear();
    console.line(format!(
        "\nbatch {batch}, {side}×{side} pixels, sparsity {} %\n\n{}",
        lossless(100. * sparsity),
        table.plain()
    ));
    let step_time = |sparsity: f64| -> anyhow::Result<f64> {
        let mut ours = Ours::with_batch(figure, sparsity, super::ours::Spread::Even, super::ours::batch(batch, side)?)?;
        (0..2).try_for_each(|_| ours.step())?;
        let times: Vec<f64> = (0..rounds).map(|_| Ok(timed(|| ours.step())?.0)).collect::<anyhow::Result<_>>()?;
        Ok(spread(&times).0)
    };
    let (step, dense_step) = (step_time(sparsity)?, step_time(0.)?);
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
