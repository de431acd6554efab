//! The cost model's coefficients, measured on this machine.
//!
//! The model (`lth_kernels`, module `conv::cost`) chooses between the dense and the sparse kernel by a cost that is linear
//! in what a pass does: multiplications, vectors moved, weights read or written. Here each shape of ResNet-18 is run on
//! both kernels, in turns, at many densities; least squares of relative errors, where the two kernels are close, give the
//! coefficients; and what the model in force loses by its choices is printed beside them.

use lth_kernels::{InstructionSet, Kernel};

use super::convolutions::{Convolution, resnet18};
use super::layers::Layer;
use super::options::Options;
use lth_cli::console::Console;

/// Batches and sides of the pictures: feature maps from 32×32 down to 1×1.
const INPUTS: [(usize, usize); 2] = [(64, 64), (32, 32)];
const SPARSITIES: [f64; 7] = [0.98, 0.95, 0.9, 0.8, 0.65, 0.5, 0.3];
/// A sparse time counts for the fit if it is within this factor of the dense one: far from it the choice is plain.
const CLOSE: f64 = 2.5;
/// Loss beyond which a choice is printed.
const MUCH: f64 = 0.03;

/// The model's three kinds of passes.
const NAMES: [&str; 3] = ["map", "strided_gradient", "weight_gradient"];
const MAP: usize = 0;
const STRIDED_GRADIENT: usize = 1;
const WEIGHT: usize = 2;

/// A measured time and what the pass did.
#[derive(Clone, Copy, Debug)]
struct Sample<const N: usize> {
    does: [f64; N],
    time: f64,
}

#[derive(Default)]
struct PassSamples {
    dense: Vec<Sample<3>>,
    winograd: Vec<Sample<3>>,
    sparse: Vec<Sample<4>>,
}

/// A pass at a density on all kernels.
struct Choice {
    what: String,
    chosen: Kernel,
    dense: f64,
    sparse: f64,
    winograd: Option<f64>,
}

impl Choice {
    /// Of the faster kernel that multiplies every weight.
    fn whole(&self) -> f64 {
        self.winograd.unwrap_or(f64::INFINITY).min(self.dense)
    }

    fn least(&self) -> f64 {
        self.whole().min(self.sparse)
    }

    fn time(&self) -> f64 {
        match (self.chosen, self.winograd) {
            (Kernel::Sparse, _) => self.sparse,
            (Kernel::Winograd, Some(winograd)) => winograd,
            _ => self.dense,
        }
    }

    /// By what fraction the chosen kernel is slower than the fastest.
    fn loss(&self) -> f64 {
        self.time() / self.least() - 1.
    }
}

/// Measures and prints the constants of `conv/cost.rs`, for every instruction set of this machine.
pub(crate) fn run(options: &Options, console: &Console) -> anyhow::Result<()> {
    for set in [InstructionSet::Avx512, InstructionSet::Avx2, InstructionSet::Neon] {
        if let Some(fitted) = set.run(|| fit(set, options, console)) {
            fitted?;
        }
    }
    Ok(())
}

fn fit(set: InstructionSet, options: &Options, console: &Console) -> anyhow::Result<()> {
    let lanes = match set {
        InstructionSet::Avx512 => 16.,
        InstructionSet::Neon => 4.,
        _ => 8.,
    };
    let mut samples = [PassSamples::default(), PassSamples::default(), PassSamples::default()];
    let mut choices = Vec::new();
    let mut convolutions: Vec<(usize, Convolution)> = Vec::new();
    for (batch, side) in INPUTS {
        for conv in resnet18(side) {
            if !convolutions.iter().any(|(b, other)| *b == batch && other.shape() == conv.shape()) {
                convolutions.push((batch, conv));
            }
        }
    }
    let bar = console.bar(&format!("{set:?}"), (convolutions.len() * SPARSITIES.len()) as u64);
    for (batch, conv) in &convolutions {
        let vectors = (*batch as f64 / lanes).ceil();
        let moved = (conv.inputs * conv.side.pow(2) + conv.outputs * conv.out_side().pow(2)) as f64 * vectors;
        let n_weights = conv.n_weights() as f64;
        for sparsity in SPARSITIES {
            let layer = Layer::new(conv, *batch, sparsity)?;
            let kernels = layer.kernels()?;
            let [dense, sparse, winograd] =
                layer.time_on([Kernel::Dense, Kernel::Sparse, Kernel::Winograd], options.rounds)?;
            let by_tiles = conv.winograd();
            let work = kernels.dense_multiplications as f64 / *batch as f64 * vectors;
            let density = 1. - sparsity;
            let input_gradient = if conv.stride == 1 { MAP } else { STRIDED_GRADIENT };
            let all = [dense, sparse, winograd];
            for (pass, name, chosen, times) in [
                (MAP, "forward", kernels.forward, all.map(|passes| Some(passes.forward))),
                (input_gradient, "input gradient", kernels.input_gradient, all.map(|passes| passes.input_gradient)),
                (WEIGHT, "weight gradient", kernels.weight_gradient, all.map(|passes| passes.weight_gradient)),
            ] {
                let [Some(dense), Some(sparse), Some(winograd)] = times else { continue };
                // Nobody asks for the gradient of the pictures; a difference of 0 is no measurement.
                if (conv.name == "conv1" && name == "input gradient") || dense.min(sparse).min(winograd) <= 0. {
                    continue;
                }
                let samples = &mut samples[pass];
                samples.dense.push(Sample { does: [work, moved, n_weights], time: dense });
                let does = [work * density, moved, density * n_weights, n_weights];
                if sparse > dense / CLOSE && sparse < dense * CLOSE {
                    samples.sparse.push(Sample { does, time: sparse });
                }
                if let Some([products, transformed]) = by_tiles {
                    let does = [products * vectors, transformed * vectors, n_weights];
                    samples.winograd.push(Sample { does, time: winograd });
                }
                let what = format!("{batch} x {} at {} pixels, {name}, density {density:.2}", conv.name, conv.side);
                choices.push(Choice { what, chosen, dense, sparse, winograd: by_tiles.map(|_| winograd) });
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();

    // One multiplication of one vector in the fastest layer.
    let unit = samples[MAP].dense.iter().map(|sample| sample.time / sample.does[0]).fold(f64::INFINITY, f64::min);
    console.line(format!("// {set:?}, one thread; a unit is {:.4} ns.", 1e6 * unit));
    for (name, samples) in NAMES.into_iter().zip(&samples) {
        let (dense, sparse) = (least_squares(&samples.dense), least_squares(&samples.sparse));
        let [dense_work, dense_vector, dense_weight] = dense.map(|c| c / unit);
        let [sparse_work, sparse_vector, entry, sparse_weight] = sparse.map(|c| c / unit);
        console.line(format!(
            "{name}: Coefficients {{ dense: {dense_work:.2}, dense_vector: {dense_vector:.1}, dense_weight: \
             {dense_weight:.2}, sparse: {sparse_work:.2}, sparse_vector: {sparse_vector:.1}, entry: {entry:.2}, \
             sparse_weight: {sparse_weight:.2} }},"
        ));
        console.line(format!(
            "// relative error, mean: dense {:.0} % of {} times, sparse {:.0} % of {}",
            100. * error(&samples.dense, dense),
            samples.dense.len(),
            100. * error(&samples.sparse, sparse),
            samples.sparse.len()
        ));
        if !samples.winograd.is_empty() {
            let winograd = least_squares(&samples.winograd);
            let [product, vector, weight] = winograd.map(|c| c / unit);
            console.line(format!(
                "{name}: Winograd {{ product: {product:.2}, vector: {vector:.1}, weight: {weight:.1} }}, // {:.0} % of {}",
                100. * error(&samples.winograd, winograd),
                samples.winograd.len()
            ));
        }
    }
    let sum = |of: &dyn Fn(&Choice) -> f64| choices.iter().map(of).sum::<f64>();
    console.line(format!(
        "// the model in force: {:.1} ms in all; every weight multiplied {:.1}, always the fastest {:.1}",
        sum(&Choice::time),
        sum(&Choice::whole),
        sum(&Choice::least)
    ));
    // Both multiply every weight, whatever the density.
    let last = format!("density {:.2}", 1. - SPARSITIES[SPARSITIES.len() - 1]);
    for Choice { what, dense, winograd, .. } in choices.iter().filter(|choice| choice.what.ends_with(&last)) {
        if let Some(winograd) = winograd {
            let (layer, times) = (what.trim_end_matches(&last), dense / winograd);
            console.line(format!("//   {layer}Winograd {winograd:.3} ms, dense {dense:.3}, {times:.2} times"));
        }
    }
    choices.sort_by(|a, b| b.loss().total_cmp(&a.loss()));
    for choice in choices.iter().filter(|choice| choice.loss() > MUCH) {
        let Choice { what, chosen, dense, sparse, .. } = choice;
        let winograd = choice.winograd.map_or_else(String::new, |time| format!(", Winograd {time:.3}"));
        console.line(format!(
            "//   {what}: {chosen} is {:.0} % slower than the fastest: sparse {sparse:.3} ms, dense {dense:.3}{winograd}",
            100. * choice.loss()
        ));
    }
    Ok(())
}

fn predicted<const N: usize>(does: [f64; N], coefficients: [f64; N]) -> f64 {
    does.iter().zip(coefficients).map(|(does, c)| does * c).sum()
}

fn error<const N: usize>(samples: &[Sample<N>], coefficients: [f64; N]) -> f64 {
    let errors = samples.iter().map(|sample| (predicted(sample.does, coefficients) / sample.time - 1.).abs());
    errors.sum::<f64>() / samples.len().max(1) as f64
}

/// The coefficients, none negative, with the least sum of squared relative errors: of all choices of which are 0 (few, with
/// so few coefficients) the best one without a negative.
fn least_squares<const N: usize>(samples: &[Sample<N>]) -> [f64; N] {
    let scaled: Vec<[f64; N]> = samples.iter().map(|sample| sample.does.map(|does| does / sample.time)).collect();
    let loss =
        |coefficients: [f64; N]| scaled.iter().map(|does| (predicted(*does, coefficients) - 1.).powi(2)).sum::<f64>();
    let mut best = [0.; N];
    for used in 1..1_usize << N {
        let Some(found) = solve(&scaled, |i| used >> i & 1 == 1) else { continue };
        if found.iter().all(|&c| c >= 0.) && loss(found) < loss(best) {
            best = found;
        }
    }
    best
}

/// The normal equations for a target of 1, over the coefficients in use; the others are 0.
fn solve<const N: usize>(rows: &[[f64; N]], used: impl Fn(usize) -> bool) -> Option<[f64; N]> {
    let mut matrix = [[0.; N]; N];
    let mut right = [0.; N];
    for i in 0..N {
        for j in 0..N {
            let both = used(i) && used(j);
            matrix[i][j] =
                if both { rows.iter().map(|row| row[i] * row[j]).sum() } else { f64::from(u8::from(i == j)) };
        }
        right[i] = if used(i) { rows.iter().map(|row| row[i]).sum() } else { 0. };
    }
    for i in 0..N {
        let pivot = (i..N).max_by(|&a, &b| matrix[a][i].abs().total_cmp(&matrix[b][i].abs()))?;
        matrix.swap(i, pivot);
        right.swap(i, pivot);
        if matrix[i][i] == 0. {
            return None;
        }
        for k in 0..N {
            if k != i {
                let factor = matrix[k][i] / matrix[i][i];
                let row = matrix[i];
                matrix[k].iter_mut().zip(row).for_each(|(value, above)| *value -= factor * above);
                right[k] -= factor * right[i];
            }
        }
    }
    Some(std::array::from_fn(|i| right[i] / matrix[i][i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(does: [f64; 2], time: f64) -> Sample<2> {
        Sample { does, time }
    }

    #[test]
    fn coefficients_that_made_the_times_are_found() {
        let does = [[1., 5.], [7., 2.], [100., 3.], [4., 40.]];
        let found = least_squares(&does.map(|does| sample(does, 3. * does[0] + 0.5 * does[1])));
        assert!((found[0] - 3.).abs() < 1e-9 && (found[1] - 0.5).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn no_coefficient_is_negative() {
        let does = [[1., 5.], [7., 2.], [100., 3.], [4., 4.]];
        let found = least_squares(&does.map(|does| sample(does, 3. * does[0] - 0.1 * does[1])));
        assert!(found[0] > 2. && found[1] == 0., "{found:?}");
    }
}
