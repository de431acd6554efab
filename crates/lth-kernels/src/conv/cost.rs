//! Dense or sparse: a pure function of shape, instruction set, and how much of a weight is kept and how that lies.
//!
//! Costs are in multiplications of one vector at full speed. `cargo xtask bench --fit-cost-model` measures the layers of
//! ResNet-18 on one thread with either kernel and prints the coefficients, and what the choice loses. Nothing here looks
//! at a clock.

use super::compact::KeptChannels;
use super::geometry::{Direction, Geometry, Map};
use super::kernel::table::{InstructionSet, ProgramKind};
use super::kernel::tile;
use super::tiling::reads_once;
use super::{dense_weight, winograd};
use crate::forced::Forced;

/// What computes a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// Every weight is multiplied.
    Dense,
    /// Only kept weights are multiplied.
    Sparse,
    /// Filters and channels that are pruned whole are left out; every other weight is multiplied.
    Compact,
    /// Every weight is multiplied, by Winograd's F(4×4, 3×3): four by four outputs take 36 multiplications instead of 144, and
    /// rounding errors are two to three times those of [`Kernel::Dense`] (root mean square, 64 channels). Of 3×3 convolutions
    /// without stride and dilation. Source: Lavin and Gray, CVPR 2016, with the points of Barabasz et al., ACM TOMS 46 (2020).
    Winograd,
}

impl Kernel {
    /// Runs `work` with convolutions called from this thread on this kernel, whatever the cost model says, to test it and to
    /// measure what the model chooses between. [`Kernel::Compact`] is [`Kernel::Dense`] where no filter or channel is pruned
    /// whole, [`Kernel::Winograd`] is where it does not apply; without a mask, [`Kernel::Sparse`] and [`Kernel::Compact`] leave
    /// the model its choice.
    pub fn run<R>(self, work: impl FnOnce() -> R) -> R {
        Forced { kernel: Some(self), ..Forced::get() }.run(work)
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dense => "dense",
            Self::Sparse => "sparse",
            Self::Compact => "compact",
            Self::Winograd => "Winograd",
        })
    }
}

/// The three passes of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pass {
    Map(Direction),
    WeightGradient,
    /// The unfolded forward pass where there are so few positions that dense vectors run along the reduction, and of the vectors
    /// that the sparse kernels have for them.
    Few {
        vectors: usize,
    },
    /// The same of a linear layer for several samples, each of so many vectors, whose kept weights are gathered first.
    Samples {
        vectors: usize,
    },
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

/// The coefficients of Winograd's kernels: per multiplication of a product, per vector of it that is transformed, per weight. By
/// layers of 64 channels and more the first two cannot be told apart: layers of 3, 8 and 16 channels were looked at, too.
struct Winograd {
    product: f64,
    /// Reading a filter's number, which up to four vectors share.
    filter: f64,
    vector: f64,
    weight: f64,
}

/// The coefficients of the three kinds of passes.
struct Model {
    /// What a multiplication of a forward pass costs where four output channels keep the same places, as a part of what it costs
    /// otherwise.
    block: f64,
    /// The same, in either direction, where four channels run together and keep different places.
    quad: f64,
    /// Forward, and the input gradient of a convolution without stride.
    map: Coefficients,
    /// The input gradient of a strided one: several small convolutions that each pack the gradient.
    strided_gradient: Coefficients,
    weight_gradient: Coefficients,
    /// Of either map, and of the weight gradient.
    winograd: [Winograd; 2],
    /// Of vectors along the reduction: per weight, and per weight and position. Weights come from memory.
    few: [f64; 2],
    samples: Samples,
}

/// The coefficients of the sparse product of a linear layer: each list is read once.
struct Samples {
    /// Gathering the kept weights: per kept one, but no more than so much per weight.
    gather: [f64; 2],
    /// Per kept weight, and per kept weight and vector.
    entry: [f64; 2],
    /// Reading a mask's bits.
    weight: f64,
}

const AVX512: Model = Model {
    // 3×3 layers of 64 and 128 channels at densities of 0.35 and 0.5.
    block: 0.68,
    // 3×3 layers of 64 and 128 channels at densities of 0.05 to 0.5.
    quad: 0.6,
    map: Coefficients {
        dense: 1.35,
        dense_vector: 17.0,
        dense_weight: 1.96,
        sparse: 2.92,
        sparse_vector: 18.0,
        entry: 0.37,
        sparse_weight: 1.38,
    },
    strided_gradient: Coefficients {
        dense: 1.33,
        dense_vector: 16.3,
        dense_weight: 2.69,
        sparse: 3.39,
        sparse_vector: 32.8,
        entry: 3.35,
        sparse_weight: 2.27,
    },
    weight_gradient: Coefficients {
        dense: 1.14,
        dense_vector: 15.7,
        dense_weight: 3.44,
        sparse: 2.61,
        sparse_vector: 6.7,
        entry: 4.74,
        sparse_weight: 2.08,
    },
    winograd: [
        Winograd { product: 1.49, filter: 1.4, vector: 18.0, weight: 16.0 },
        Winograd { product: 1.67, filter: 1.4, vector: 10.2, weight: 4.1 },
    ],
    few: [0.95, 0.125],
    // 784 to 300 channels, 16 to 64 samples, densities of 0.02 to 0.6.
    samples: Samples { gather: [14.0, 1.7], entry: [2.0, 4.0], weight: 0.25 },
};

/// Fitted with AVX2, taken for portable code and NEON, too.
const AVX2: Model = Model {
    // 3×3 layers of 64, 128 and 256 channels at densities of 0.2 to 0.5.
    block: 0.82,
    quad: 1.0,
    map: Coefficients {
        dense: 1.12,
        dense_vector: 21.0,
        dense_weight: 1.87,
        sparse: 2.12,
        sparse_vector: 0.1,
        entry: 4.05,
        sparse_weight: 0.23,
    },
    strided_gradient: Coefficients {
        dense: 1.26,
        dense_vector: 18.2,
        dense_weight: 2.43,
        sparse: 2.07,
        sparse_vector: 12.7,
        entry: 4.84,
        sparse_weight: 2.39,
    },
    weight_gradient: Coefficients {
        dense: 0.98,
        dense_vector: 11.0,
        dense_weight: 8.42,
        sparse: 2.17,
        sparse_vector: 3.1,
        entry: 0.0,
        sparse_weight: 4.67,
    },
    winograd: [
        Winograd { product: 1.42, filter: 0.0, vector: 16.4, weight: 12.1 },
        Winograd { product: 1.84, filter: 0.0, vector: 10.0, weight: 5.4 },
    ],
    few: [0.95, 0.145],
    // As above, on a machine that has AVX-512 besides.
    samples: Samples { gather: [10.0, 1.15], entry: [2.0, 1.8], weight: 0.4 },
};

/// The model is off by 12 to 20 % on average: where the two are close, the dense kernel cannot lose. With AVX2 what it chooses for
/// ResNet-18's layers took 5 % more in sum than the faster kernel of each, and 1.8 times less than dense for all; single layers of
/// half density were up to 27 % slower than dense. With AVX-512 it took 6 % more than the faster kernel of each.
const SPARSE_MUST_COST: f64 = 0.8;

/// The same bound where four channels run together, whose times lie closer together: where they keep the same places, AVX2 needs
/// 0.69 to 0.82 of dense at a density of one half; where they do not, AVX-512 0.75 to 0.78.
const QUADS_MUST_COST: f64 = 0.85;

/// Weights that a row keeps for four rows to run together.
const QUAD_WEIGHTS: f64 = 16.0;

/// What a multiplication of the dense weight gradient costs where its columns are taps, as a part of what it costs otherwise.
const UNFOLDED: f64 = 1.38;

/// Of a vector that is copied because channels are left out.
const COPY: f64 = 20.0;

/// What is kept of a weight, as far as the choice of a kernel depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept<'a> {
    pub(crate) density: f64,
    /// The outputs and inputs of which anything is kept, if that is known.
    pub(crate) channels: Option<&'a KeptChannels>,
    /// Whether every four outputs keep the same places.
    pub(crate) in_blocks: bool,
}

impl Kept<'_> {
    /// Spread irregularly.
    pub(crate) fn irregular(density: f64) -> Self {
        Self { density, channels: None, in_blocks: false }
    }
}

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
pub(crate) fn costs(g: &Geometry, kept: &Kept<'_>, pass: Pass, set: InstructionSet) -> [f64; 2] {
    let density = kept.density;
    let model = set.model();
    let (map, by) = match pass {
        Pass::Map(Direction::InputGradient) if g.stride != [1, 1] => {
            (g.map(Direction::InputGradient), model.strided_gradient)
        }
        Pass::Map(direction) => (g.map(direction), model.map),
        Pass::WeightGradient => (g.map(Direction::Forward), model.weight_gradient),
        Pass::Few { .. } | Pass::Samples { .. } => (g.map(Direction::Forward), model.map),
    };
    let vectors = |n: usize| n as f64 * (g.batch as f64 / lanes(set)).ceil();
    let work = inside(&map) * vectors(map.rows * map.depth * g.groups);
    let moved = vectors(g.in_channels * g.n_inputs() + g.out_channels * g.n_outputs());
    let weights = (g.weights_per_group() * g.groups) as f64;
    let [few_weight, few_position] = model.few;
    let few = (few_weight + few_position * (g.batch * g.n_outputs()) as f64) * weights;
    let (dense, work) = match pass {
        Pass::Samples { vectors } => {
            let Samples { gather: [gather, most], entry: [entry, vector], weight } = model.samples;
            let per_weight = (gather * density).min(most) + (entry + vector * vectors as f64) * density + weight;
            return [few, per_weight * weights + by.sparse_vector * moved];
        }
        // A value and its offset come from memory as two weights do.
        Pass::Few { vectors } => (few, weights * (vectors as f64 + 2.0 * few_weight / by.sparse)),
        _ => {
            let is_unfolded = pass == Pass::WeightGradient && dense_weight::is_unfolded(&map, lanes(set) as usize);
            let times = if is_unfolded { UNFOLDED } else { 1.0 };
            (times * by.dense * work + by.dense_vector * moved + by.dense_weight * weights, work)
        }
    };
    let part = part(g, kept, pass, set);
    let sparse = (part * by.sparse * work + by.entry * weights) * density
        + by.sparse_vector * moved
        + by.sparse_weight * weights;
    [dense, sparse]
}

/// For which kernels a mask's lists are made, to multiply by: for four channels of the target at once where that gains. It does not
/// where the picture is so small that going around its padding gains more, nor where rows are short. AVX2 has too few registers to
/// keep what was loaded for four, but where all four multiply it.
pub(crate) fn program_kind(g: &Geometry, direction: Direction, kept: &Kept<'_>, set: InstructionSet) -> ProgramKind {
    // The planes that kernels of one channel have as a whole.
    let small = if set == InstructionSet::Avx512 { 4 } else { 2 };
    let map = g.map(direction);
    let is_small = map.target.iter().all(|&n| n <= small) && g.n_taps() > 1;
    let of_row = kept.density * (map.depth * g.n_taps()) as f64;
    // The ends of fifteen short lists are guessed wrong, which costs more than it saves where they are read once: 784 to 300 channels,
    // 64 samples, take 139 µs by rows at a density of 0.2 and 143 by fours, at 0.5, where dense takes 229, 280 and 245.
    let gains = match set {
        InstructionSet::Avx512 if reads_once(&map, lanes(set) as usize) => false,
        InstructionSet::Avx512 => of_row >= QUAD_WEIGHTS,
        _ => kept.in_blocks && direction == Direction::Forward,
    };
    if gains && !is_small && map.rows.is_multiple_of(tile::QUAD) { ProgramKind::Quads } else { ProgramKind::Rows }
}

/// What a multiplication costs with the lists of a pass, as a part of what it costs with those of single rows.
fn part(g: &Geometry, kept: &Kept<'_>, pass: Pass, set: InstructionSet) -> f64 {
    match pass {
        Pass::Map(direction) if program_kind(g, direction, kept, set) == ProgramKind::Quads => {
            if kept.in_blocks && direction == Direction::Forward { set.model().block } else { set.model().quad }
        }
        _ => 1.0,
    }
}

/// The cost of the dense kernel on what is left when whole channels are left out, and of copying it there and back.
fn compact_cost(g: &Geometry, kept: &KeptChannels, pass: Pass, set: InstructionSet) -> f64 {
    let small = kept.geometry(g);
    let [dense, _] = costs(&small, &Kept::irregular(1.0), pass, set);
    let (_, dense) = whole(&small, dense, pass, set);
    let vectors = (g.batch as f64 / lanes(set)).ceil();
    let of = |g: &Geometry| (g.in_channels * g.n_inputs() + g.out_channels * g.n_outputs()) as f64;
    dense + COPY * vectors * (of(&small) + of(g)) / 2.0
}

/// Which kernel runs a pass over a weight of which so much is kept.
pub(crate) fn choose(g: &Geometry, kept: &Kept<'_>, pass: Pass, set: InstructionSet) -> Kernel {
    cheapest(g, costs(g, kept, pass, set), kept, pass, set)
}

/// As [`choose`] for a forward pass (of few positions or not) whose kept values are packed already.
pub(crate) fn choose_packed(g: &Geometry, kept: &Kept<'_>, pass: Pass, set: InstructionSet) -> Kernel {
    let [dense, sparse] = costs(g, kept, pass, set);
    let Coefficients { entry, sparse_weight, .. } = set.model().map;
    let fetch = (entry * kept.density + sparse_weight) * (g.weights_per_group() * g.groups) as f64;
    cheapest(g, [dense, sparse - fetch], kept, pass, set)
}

fn cheapest(g: &Geometry, [dense, sparse]: [f64; 2], of: &Kept<'_>, pass: Pass, set: InstructionSet) -> Kernel {
    let kept = of.channels.filter(|kept| kept.applies_to(g));
    match Forced::get().kernel {
        Some(Kernel::Compact) if kept.is_none() => return Kernel::Dense,
        Some(Kernel::Winograd) if !winograd::applies_to(g) => return Kernel::Dense,
        Some(forced) => return forced,
        None => {}
    }
    let must_cost = if part(g, of, pass, set) < 1.0 { QUADS_MUST_COST } else { SPARSE_MUST_COST };
    let whole = whole(g, dense, pass, set);
    let (best, cost) = if sparse < must_cost * whole.1 { (Kernel::Sparse, sparse) } else { whole };
    match kept {
        Some(kept) if compact_cost(g, kept, pass, set) < cost => Kernel::Compact,
        _ => best,
    }
}

/// Which kernel runs a pass in which every weight is multiplied: [`Kernel::Dense`] or [`Kernel::Winograd`].
pub(crate) fn choose_whole(g: &Geometry, pass: Pass, set: InstructionSet) -> Kernel {
    match Forced::get().kernel {
        Some(Kernel::Dense) => Kernel::Dense,
        Some(Kernel::Winograd) if winograd::applies_to(g) => Kernel::Winograd,
        _ => {
            let [dense, _] = costs(g, &Kept::irregular(1.0), pass, set);
            whole(g, dense, pass, set).0
        }
    }
}

/// The cheaper of the kernels that multiply every weight, where the dense one costs `dense`.
fn whole(g: &Geometry, dense: f64, pass: Pass, set: InstructionSet) -> (Kernel, f64) {
    if !winograd::applies_to(g) || matches!(pass, Pass::Few { .. } | Pass::Samples { .. }) {
        return (Kernel::Dense, dense);
    }
    let [of_map, of_weight] = set.model().winograd;
    let (map, depth, Winograd { product, filter, vector, weight }) = match pass {
        Pass::Map(direction) => (g.map(direction), g.map(direction).depth, of_map),
        // Its vectors run along the input's channels.
        _ => (g.map(Direction::Forward), g.in_per_group().next_multiple_of(lanes(set) as usize), of_weight),
    };
    let of_batch = (g.batch as f64 / lanes(set)).ceil();
    let vectors = winograd::n_products(map.target) as f64 * of_batch * g.groups as f64;
    let cost = (product + filter / of_batch.clamp(1.0, 4.0)) * vectors * (map.rows * depth) as f64
        + vector * vectors * (map.rows + depth) as f64
        + weight * (g.weights_per_group() * g.groups) as f64;
    if cost < dense { (Kernel::Winograd, cost) } else { (Kernel::Dense, dense) }
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
    fn a_full_mask_runs_dense_or_by_tiles_and_a_thin_one_sparse() {
        for (channels, side, whole) in [
            (64, 16, Kernel::Winograd),
            (128, 8, Kernel::Winograd),
            (256, 4, Kernel::Winograd),
            (512, 2, Kernel::Dense),
        ] {
            for set in [InstructionSet::Avx512, InstructionSet::Avx2, InstructionSet::Portable] {
                for pass in [Pass::Map(Direction::Forward), Pass::Map(Direction::InputGradient), Pass::WeightGradient] {
                    let choose = |density| choose(&layer(channels, side), &Kept::irregular(density), pass, set);
                    assert_eq!((choose(1.0), choose(0.05)), (whole, Kernel::Sparse));
                    assert_eq!(choose_whole(&layer(channels, side), pass, set), whole);
                }
            }
        }
    }

    #[test]
    fn the_first_layer_of_a_network_for_small_pictures_runs_dense() {
        // Its transforms cost more than they save, and three channels would leave vectors along them empty.
        for (batch, outputs) in [(64, 64), (128, 16)] {
            let stem = Geometry { batch, in_channels: 3, out_channels: outputs, ..layer(64, 32) };
            for set in [InstructionSet::Avx512, InstructionSet::Avx2] {
                assert_eq!(choose_whole(&stem, Pass::WeightGradient, set), Kernel::Dense, "{set:?}, {outputs}");
            }
            assert_eq!(choose_whole(&stem, Pass::Map(Direction::Forward), InstructionSet::Avx512), Kernel::Dense);
            let small = layer(16, 32);
            assert_eq!(choose_whole(&small, Pass::Map(Direction::Forward), InstructionSet::Avx512), Kernel::Winograd);
        }
    }

    #[test]
    fn sparse_stays_chosen_as_density_falls() {
        let mut sparse_before = false;
        for percent in (0..=100).rev() {
            let kept = Kept::irregular(f64::from(percent) / 100.0);
            let kernel = choose(&layer(64, 16), &kept, Pass::WeightGradient, InstructionSet::Avx512);
            assert!(!sparse_before || kernel == Kernel::Sparse, "at {percent} %");
            sparse_before = kernel == Kernel::Sparse;
        }
    }

    #[test]
    fn a_layer_without_half_of_its_filters_runs_compact() {
        let mut bits = vec![1; 64 * 64 * 9];
        bits[32 * 64 * 9..].fill(0);
        let kept = KeptChannels::new(&bits, 64, 64);
        for pass in [Pass::Map(Direction::Forward), Pass::Map(Direction::InputGradient), Pass::WeightGradient] {
            let choose = |channels| {
                let kept = Kept { channels, ..Kept::irregular(0.5) };
                choose(&layer(64, 16), &kept, pass, InstructionSet::Avx2)
            };
            assert_eq!((choose(Some(&kept)), choose(None)), (Kernel::Compact, Kernel::Winograd));
        }
    }
}
