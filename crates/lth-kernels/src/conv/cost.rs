//! Dense or sparse: a pure function of shape, density and instruction set.
//!
//! Costs are in multiplications of one vector at full speed. They were fitted to single-thread times of every layer
//! of ResNet-18 (batch 64, 64×64 pictures) at densities 0.02 to 1 with AVX-512; dividing the work by the vector's
//! lanes carries them over to the other instruction sets. Nothing here looks at a clock.

use super::geometry::{Direction, Geometry, Map};
use super::kernel::table::InstructionSet;

/// What computes a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// Every weight is multiplied.
    Dense,
    /// Only kept weights are multiplied.
    Sparse,
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dense => "dense",
            Self::Sparse => "sparse",
        })
    }
}

/// The three passes of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pass {
    Map(Direction),
    WeightGradient,
}

/// The coefficients of one pass: per multiplication inside the picture, and per vector of input and output.
struct Coefficients {
    dense: f64,
    dense_vector: f64,
    sparse: f64,
    sparse_vector: f64,
    /// Per kept weight: fetching its value, or writing its gradient.
    entry: f64,
}

const MAP: Coefficients =
    Coefficients { dense: 1.15, dense_vector: 20.0, sparse: 1.6, sparse_vector: 60.0, entry: 6.0 };
/// A strided input gradient is several small convolutions that each pack the gradient.
const STRIDED_GRADIENT: Coefficients = Coefficients { sparse: 4.0, sparse_vector: 130.0, ..MAP };
const WEIGHT: Coefficients =
    Coefficients { dense: 1.25, dense_vector: 40.0, sparse: 3.2, sparse_vector: 60.0, entry: 6.0 };

fn lanes(set: InstructionSet) -> f64 {
    match set {
        InstructionSet::Avx512 => 16.0,
        InstructionSet::Avx2 | InstructionSet::Portable => 8.0,
        InstructionSet::Neon => 4.0,
    }
}

/// Pairs of target position and tap that lie inside the picture.
fn inside(map: &Map) -> f64 {
    let along = |axis: usize| (0..map.target[axis]).map(|at| map.inside(axis, at).count()).sum::<usize>() as f64;
    along(0) * along(1)
}

/// Multiplications of a dense forward pass that lie inside the picture.
pub(crate) fn multiplications(g: &Geometry) -> u64 {
    let map = g.map(Direction::Forward);
    inside(&map) as u64 * (map.rows * map.depth * g.groups * g.batch) as u64
}

/// The costs of the dense and the sparse kernel.
pub(crate) fn costs(g: &Geometry, density: f64, pass: Pass, set: InstructionSet) -> [f64; 2] {
    let (map, by) = match pass {
        Pass::Map(Direction::InputGradient) if g.stride != [1, 1] => {
            (g.map(Direction::InputGradient), STRIDED_GRADIENT)
        }
        Pass::Map(direction) => (g.map(direction), MAP),
        Pass::WeightGradient => (g.map(Direction::Forward), WEIGHT),
    };
    let vectors = |n: usize| n as f64 * (g.batch as f64 / lanes(set)).ceil();
    let work = inside(&map) * vectors(map.rows * map.depth * g.groups);
    let moved = vectors(g.in_channels * g.n_inputs() + g.out_channels * g.n_outputs());
    let entries = density * (g.weights_per_group() * g.groups) as f64;
    let dense = by.dense * work + by.dense_vector * moved;
    let sparse = by.sparse * work * density + by.sparse_vector * moved + by.entry * entries;
    [dense, sparse]
}

/// Which kernel runs a pass over a weight of `density`.
pub(crate) fn choose(g: &Geometry, density: f64, pass: Pass, set: InstructionSet) -> Kernel {
    let [dense, sparse] = costs(g, density, pass, set);
    if sparse < dense { Kernel::Sparse } else { Kernel::Dense }
}

/// As [`choose`] where the kept values are packed already: a dense kernel would read all weights, which counts where
/// few positions share them.
pub(crate) fn choose_packed(g: &Geometry, density: f64, pass: Pass, set: InstructionSet) -> Kernel {
    let [dense, sparse] = costs(g, density, pass, set);
    let n_weights = (g.weights_per_group() * g.groups) as f64;
    let fetch = 6.0 * density * n_weights;
    if sparse - fetch < dense + n_weights { Kernel::Sparse } else { Kernel::Dense }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(channels: usize, side: usize) -> Geometry {
        Geometry {
            batch: 64,
            in_channels: channels,
            out_channels: channels,
            groups: 1,
            input: [side, side],
            kernel: [3, 3],
            output: [side, side],
            stride: [1, 1],
            padding: [1, 1],
            dilation: [1, 1],
        }
    }

    #[test]
    fn a_full_mask_runs_dense_and_a_thin_one_sparse() {
        for (channels, side) in [(64, 16), (128, 8), (256, 4), (512, 2)] {
            for set in [InstructionSet::Avx512, InstructionSet::Avx2, InstructionSet::Portable] {
                for pass in [Pass::Map(Direction::Forward), Pass::Map(Direction::InputGradient), Pass::WeightGradient] {
                    assert_eq!(choose(&layer(channels, side), 1.0, pass, set), Kernel::Dense);
                    assert_eq!(choose(&layer(channels, side), 0.1, pass, set), Kernel::Sparse);
                }
            }
        }
    }

    #[test]
    fn sparse_stays_chosen_as_density_falls() {
        let mut sparse_before = false;
        for percent in (0..=100).rev() {
            let kernel = choose(&layer(64, 16), percent as f64 / 100.0, Pass::WeightGradient, InstructionSet::Avx512);
            assert!(!sparse_before || kernel == Kernel::Sparse, "at {percent} %");
            sparse_before = kernel == Kernel::Sparse;
        }
    }
}
