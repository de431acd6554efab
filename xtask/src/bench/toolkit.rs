//! Selecting masks over a large network, and applying them.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use candle_core::Tensor;
use lth_mask::{Scope, Selection, select};

use super::convolutions::{Convolution, resnet18, resnet50};
use super::options::Options;
use super::ours::{SIDE, noise};
use super::peak;
use super::report::{ToolkitRow, spread};
use lth_cli::system;

const SPARSITY: f64 = 0.9;

/// Weights under the names of `convolutions`.
fn weights(convolutions: &[Convolution]) -> anyhow::Result<BTreeMap<String, Tensor>> {
    let tensors = convolutions
        .iter()
        .zip(1..)
        .map(|(conv, seed)| Ok((format!("{}.weight", conv.name), noise(&conv.weight_shape(), seed)?)));
    tensors.collect()
}

fn magnitudes(weights: &BTreeMap<String, Tensor>) -> candle_core::Result<BTreeMap<String, Tensor>> {
    weights.iter().map(|(name, weight)| Ok((name.clone(), weight.abs()?))).collect()
}

fn global() -> Selection {
    Selection { scope: Scope::Global, ..Selection::default() }
}

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<ToolkitRow>> {
    let convolutions = resnet50(SIDE);
    let scores = magnitudes(&weights(&convolutions)?)?;
    let n_weights: usize = convolutions.iter().map(Convolution::n_weights).sum();
    let mut rows = Vec::new();
    let times = rounds(options.rounds, || {
        black_box(select(&scores, SPARSITY, &global())?);
        Ok(())
    })?;
    let extra = if options.no_peak { None } else { peak::of_selection(options.threads)? };
    rows.push(ToolkitRow {
        extra_memory: extra.map(|bytes| bytes as f64 / (4 * n_weights) as f64),
        ..row(format!("select globally, ResNet-50, {:.1} million weights, 90 %", n_weights as f64 / 1e6), &times)
    });
    drop(scores);

    let mut weights = weights(&resnet18(SIDE))?;
    let masks = select(&magnitudes(&weights)?, SPARSITY, &Selection::default())?;
    let by_name: Vec<_> = weights.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let times = rounds(options.rounds, || Ok(masks.apply_in_place(by_name.iter().copied())?))?;
    rows.push(row("apply in place, ResNet-18's convolutions, 90 %".to_owned(), &times));
    let times = rounds(options.rounds, || Ok(masks.apply(&mut weights)?))?;
    rows.push(row("apply to new tensors, ResNet-18's convolutions, 90 %".to_owned(), &times));
    Ok(rows)
}

fn row(figure: String, times: &[f64]) -> ToolkitRow {
    let (median_ms, min_ms, max_ms) = spread(times);
    ToolkitRow { figure, median_ms, min_ms, max_ms, extra_memory: None }
}

fn rounds(n: u32, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    work()?;
    let mut times = Vec::new();
    for _ in 0..n {
        let start = Instant::now();
        work()?;
        times.push(1e3 * start.elapsed().as_secs_f64());
    }
    Ok(times)
}

/// Memory at the peak of scoring and selecting beyond what the process and the weights had before, in bytes.
pub(crate) fn selection_memory() -> anyhow::Result<Option<u64>> {
    let weights = weights(&resnet50(SIDE))?;
    let Some(before) = system::peak_memory() else { return Ok(None) };
    let masks = select(&magnitudes(&weights)?, SPARSITY, &global())?;
    let after = system::peak_memory();
    drop((masks, weights));
    Ok(after.map(|after| after.saturating_sub(before)))
}
