//! The cost model's coefficients, measured on this machine.
//!
//! The model (`lth_kernels`, module `conv::cost`) chooses between the dense and the sparse kernel by a cost that is linear
//! in what a pass does: multiplications, vectors moved, kept weights visited. Here those coefficients are found by least
//! squares of relative errors over every shape of ResNet-18. The choice itself cannot be overridden, so the sparse kernel is
//! seen at the densities where it runs now: start from a model that is willing to choose it.

use lth_kernels::{InstructionSet, Kernel};

use super::convolutions::{Convolution, resnet18};
use super::layers::Layer;
use super::options::Options;
use crate::console::Console;

const BATCH: usize = 64;
const SPARSITIES: [f64; 8] = [0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3];

/// The model's constants: forward and input gradient, input gradient of a strided layer, weight gradient.
const NAMES: [&str; 3] = ["MAP", "STRIDED_GRADIENT", "WEIGHT"];
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
    dense: Vec<Sample<2>>,
    sparse: Vec<Sample<3>>,
}

/// Measures and prints the constants of `conv/cost.rs`.
pub(crate) fn run(options: &Options, console: &Console) -> anyhow::Result<()> {
    let set = InstructionSet::active();
    let lanes = match set {
        InstructionSet::Avx512 => 16.,
        InstructionSet::Neon => 4.,
        _ => 8.,
    };
    let mut samples = [PassSamples::default(), PassSamples::default(), PassSamples::default()];
    let mut shapes = Vec::new();
    let convolutions: Vec<Convolution> = resnet18()
        .into_iter()
        .filter(|conv| {
            let is_new = !shapes.contains(&conv.shape());
            shapes.push(conv.shape());
            is_new
        })
        .collect();
    let bar = console.bar("shapes", (convolutions.len() * (SPARSITIES.len() + 1)) as u64);
    for conv in &convolutions {
        let positions = conv.inputs * conv.side.pow(2) + conv.outputs * conv.out_side().pow(2);
        let moved = (positions * BATCH) as f64 / lanes;
        for sparsity in std::iter::once(0.).chain(SPARSITIES) {
            let layer = Layer::new(conv, BATCH, sparsity)?;
            let (kernels, times) = (layer.kernels()?, layer.time(options.rounds, true)?);
            let work = kernels.dense_multiplications as f64 / lanes;
            let density = 1. - sparsity;
            let sparse_does = [work * density, moved, density * conv.n_weights() as f64];
            let input_gradient = if conv.stride == 1 { MAP } else { STRIDED_GRADIENT };
            for (pass, kernel, time) in [
                (MAP, kernels.forward, Some(times.forward)),
                (input_gradient, kernels.input_gradient, times.input_gradient),
                (WEIGHT, kernels.weight_gradient, times.weight_gradient),
            ] {
                let samples = &mut samples[pass];
                let Some(time) = time.filter(|&time| time > 0.) else { continue };
                if sparsity == 0. {
                    samples.dense.push(Sample { does: [work, moved], time });
                } else if kernel == Kernel::Sparse {
                    samples.sparse.push(Sample { does: sparse_does, time });
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();

    // One multiplication of one vector in the fastest layer.
    let unit = samples[MAP].dense.iter().map(|sample| sample.time / sample.does[0]).fold(f64::INFINITY, f64::min);
    console.line(format!(
        "// Fitted with {set:?} on one thread, batch {BATCH}, ResNet-18's shapes; a unit is {:.4} ns.",
        1e6 * unit
    ));
    for (name, samples) in NAMES.into_iter().zip(&samples) {
        if samples.dense.len() < 2 || samples.sparse.len() < 3 {
            console
                .line(format!("// {name}: the sparse kernel ran in too few of the measurements; keep what is there."));
            continue;
        }
        let (dense, sparse) = (least_squares(&samples.dense), least_squares(&samples.sparse));
        let [dense_work, dense_vector] = dense.map(|c| c / unit);
        let [sparse_work, sparse_vector, entry] = sparse.map(|c| c / unit);
        console.line(format!(
            "const {name}: Coefficients = Coefficients {{ dense: {dense_work:.2}, dense_vector: {dense_vector:.1}, \
             sparse: {sparse_work:.2}, sparse_vector: {sparse_vector:.1}, entry: {entry:.1} }};"
        ));
        console.line(format!(
            "// relative error, mean: dense {:.0} % of {} times, sparse {:.0} % of {}",
            100. * error(&samples.dense, dense),
            samples.dense.len(),
            100. * error(&samples.sparse, sparse),
            samples.sparse.len()
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
