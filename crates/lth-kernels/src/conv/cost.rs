//! Dense or sparse: a pure function of shape, density and instruction set.
//!
//! Costs are in multiplications of one vector at full speed. `cargo xtask bench --fit-cost-model` measures the layers of
//! ResNet-18 on one thread with either kernel and prints the coefficients, and what the choice loses. Nothing here looks
//! at a clock.

use std::cell::Cell;

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

thread_local! {
    static FORCED: Cell<Option<Kernel>> = const { Cell::new(None) };
}

impl Kernel {
    /// Runs `work` with masked convolutions called from this thread on this kernel, whatever the cost model says, to
    /// test it and to measure what the model chooses between.
    pub fn run<R>(self, work: impl FnOnce() -> R) -> R {
        struct Restore(Option<Kernel>);
        impl Drop for Restore {
            fn drop(&mut self) {
                FORCED.set(self.0);
            }
        }
        let _restore = Restore(FORCED.replace(Some(self)));
        work()
    }
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

/// The coefficients of one pass: per multiplication inside the picture, per vector of input and output, per weight.
struct Coefficients {
    dense: f64,
    dense_vector: f64,
    /// Reading or writing it, and looking whether it is masked.
    dense_weight: f64,
    sparse: f64,
    sparse_vector: f64,
    /// Per kept weight: fetching its value, or writing its gradient.
    entry: f64,
    sparse_weight: f64,
}

/// The coefficients of the three kinds of passes.
struct Model {
    /// Forward, and the input gradient of a convolution without stride.
    map: Coefficients,
    /// The input gradient of a strided one: several small convolutions that each pack the gradient.
    strided_gradient: Coefficients,
    weight_gradient: Coefficients,
}

const AVX512: Model = Model {
    map: Coefficients {
        dense: 1.35,
        dense_vector: 23.7,
        dense_weight: 2.62,
        sparse: 2.88,
        sparse_vector: 62.1,
        entry: 3.62,
        sparse_weight: 0.33,
    },
    strided_gradient: Coefficients {
        dense: 1.45,
        dense_vector: 44.3,
        dense_weight: 3.94,
        sparse: 3.8,
        sparse_vector: 104.8,
        entry: 15.36,
        sparse_weight: 2.23,
    },
    weight_gradient: Coefficients {
        dense: 1.33,
        dense_vector: 37.0,
        dense_weight: 7.4,
        sparse: 4.08,
        sparse_vector: 44.2,
        entry: 3.75,
        sparse_weight: 2.49,
    },
};

/// Fitted with AVX2, taken for portable code and NEON, too.
const AVX2: Model = Model {
    map: Coefficients {
        dense: 1.5,
        dense_vector: 25.8,
        dense_weight: 2.83,
        sparse: 3.12,
        sparse_vector: 22.3,
        entry: 2.48,
        sparse_weight: 0.44,
    },
    strided_gradient: Coefficients {
        dense: 1.59,
        dense_vector: 43.7,
        dense_weight: 3.89,
        sparse: 3.13,
        sparse_vector: 42.1,
        entry: 11.27,
        sparse_weight: 2.38,
    },
    weight_gradient: Coefficients {
        dense: 1.46,
        dense_vector: 19.4,
        dense_weight: 10.11,
        sparse: 4.91,
        sparse_vector: 7.5,
        entry: 1.89,
        sparse_weight: 3.04,
    },
};

/// The model is off by a quarter on average: where the two are close, the dense kernel cannot lose.
const SPARSE_MUST_COST: f64 = 0.92;

impl InstructionSet {
    fn model(self) -> Model {
        if self == Self::Avx512 { AVX512 } else { AVX2 }
    }
}

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
    let model = set.model();
    let (map, by) = match pass {
        Pass::Map(Direction::InputGradient) if g.stride != [1, 1] => {
            (g.map(Direction::InputGradient), model.strided_gradient)
        }
        Pass::Map(direction) => (g.map(direction), model.map),
        Pass::WeightGradient => (g.map(Direction::Forward), model.weight_gradient),
    };
    let vectors = |n: usize| n as f64 * (g.batch as f64 / lanes(set)).ceil();
    let work = inside(&map) * vectors(map.rows * map.depth * g.groups);
    let moved = vectors(g.in_channels * g.n_inputs() + g.out_channels * g.n_outputs());
    let weights = (g.weights_per_group() * g.groups) as f64;
    let dense = by.dense * work + by.dense_vector * moved + by.dense_weight * weights;
    let sparse =
        (by.sparse * work + by.entry * weights) * density + by.sparse_vector * moved + by.sparse_weight * weights;
    [dense, sparse]
}

/// Which kernel runs a pass over a weight of `density`.
pub(crate) fn choose(g: &Geometry, density: f64, pass: Pass, set: InstructionSet) -> Kernel {
    if let Some(forced) = FORCED.get() {
        return forced;
    }
    let [dense, sparse] = costs(g, density, pass, set);
    if sparse < SPARSE_MUST_COST * dense { Kernel::Sparse } else { Kernel::Dense }
}

/// As [`choose`] where the kept values are packed already, and the weights masked.
pub(crate) fn choose_packed(g: &Geometry, density: f64, pass: Pass, set: InstructionSet) -> Kernel {
    if let Some(forced) = FORCED.get() {
        return forced;
    }
    let [dense, sparse] = costs(g, density, pass, set);
    let model = set.model();
    let fetch = model.map.entry * density * (g.weights_per_group() * g.groups) as f64;
    if sparse - fetch < SPARSE_MUST_COST * dense { Kernel::Sparse } else { Kernel::Dense }
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
