//! What is not finite, computed again from what counts: kept weights, inside the picture.
//!
//! A kernel multiplies by the zeros of pruned weights or of padding where that is faster, and 0 · ∞ is NaN. Such a product
//! shows in the sum, which is not finite then; so each kernel says whether it may have made one, and only those sums that
//! are not finite are computed anew here, one by one. A sum that is finite has none in it.

use rayon::prelude::*;

use super::geometry::{Direction, Geometry};
use super::kernel::simd::Float;
use super::kernel::table::Number;
use crate::dispatch::multiversion;
use crate::layout::Layout;
use crate::parallel::all_ranges;

/// Numbers that one task looks at.
const PIECE: usize = 1 << 12;

/// Whether a number is neither infinite nor NaN.
#[inline(always)]
pub(crate) fn is_finite<T: Float>(value: T) -> bool {
    value * T::default() == T::default()
}

/// Whether all numbers are finite.
pub(crate) fn are_finite<T: Float>(values: &[T]) -> bool {
    all_ranges(values.len(), |at| are_finite_here(&values[at]))
}

multiversion! {
    /// The same on this thread.
    pub(crate) fn are_finite_here[T: Float][T](values: &[T]) -> bool {
        // Without branches and without a sum, whose order would count, so that it becomes vectors.
        !values.iter().fold(false, |found, &value| found | !is_finite(value))
    }
}

/// Whether a forward pass has an output so near the border that a tap falls outside.
pub(crate) fn has_padding(g: &Geometry) -> bool {
    let reaches = |axis: usize| {
        let last = (g.output[axis].max(1) - 1) * g.stride[axis] + (g.kernel[axis].max(1) - 1) * g.dilation[axis];
        g.padding[axis] > 0 || last >= g.input[axis] + g.padding[axis]
    };
    reaches(0) || reaches(1)
}

/// The places of numbers in a feature map of `channels`.
#[derive(Clone, Copy)]
struct Places {
    layout: Layout,
    channels: usize,
    area: [usize; 2],
    batch: usize,
}

impl Places {
    fn at(&self, [channel, y, x, n]: [usize; 4]) -> usize {
        let [height, width] = self.area;
        match self.layout {
            Layout::Chwn => ((channel * height + y) * width + x) * self.batch + n,
            Layout::Nchw => ((n * self.channels + channel) * height + y) * width + x,
        }
    }

    /// Channel, row, column, picture.
    fn of(&self, at: usize) -> [usize; 4] {
        let [height, width] = self.area;
        match self.layout {
            Layout::Chwn => {
                let (n, rest) = (at % self.batch, at / self.batch);
                [rest / width / height, rest / width % height, rest % width, n]
            }
            Layout::Nchw => {
                let (x, rest) = (at % width, at / width);
                [rest / height % self.channels, rest % height, x, rest / height / self.channels]
            }
        }
    }
}

/// The forward pass or the input gradient, source and target in `layout`.
pub(crate) fn map<T: Number>(
    g: &Geometry,
    direction: Direction,
    kept: Option<&[u8]>,
    (weight, source): (&[T], &[T]),
    target: &mut [T],
    layout: Layout,
) {
    let map = g.map(direction);
    let places = |per_group: usize, area| Places { layout, channels: per_group * g.groups, area, batch: g.batch };
    let (from, to) = (places(map.depth, map.source), places(map.rows, map.target));
    anew(target, |at| {
        let [channel, y, x, n] = to.of(at);
        let (group, row) = (channel / map.rows, channel % map.rows);
        let first = group * g.weights_per_group() + row * map.weight_row;
        let mut sum = T::default();
        for depth in 0..map.depth {
            for (ky, source_y) in map.inside(0, y) {
                for (kx, source_x) in map.inside(1, x) {
                    let position = first + depth * map.weight_step + ky * g.kernel[1] + kx;
                    if kept.is_none_or(|kept| kept[position] != 0) {
                        let read = source[from.at([group * map.depth + depth, source_y, source_x, n])];
                        sum += weight[position] * read;
                    }
                }
            }
        }
        sum
    });
}

/// The gradient of kept weights, `input` and `output_grad` in `layout`; that of the others is 0 already.
pub(crate) fn weight_gradient<T: Number>(
    g: &Geometry,
    (input, output_grad): (&[T], &[T]),
    grad: &mut [T],
    layout: Layout,
) {
    let map = g.map(Direction::Forward);
    let places = |channels: usize, area: [usize; 2]| Places { layout, channels, area, batch: g.batch };
    let (from, to) = (places(g.in_channels, g.input), places(g.out_channels, g.output));
    anew(grad, |at| {
        let (tap, rest) = (at % g.n_taps(), at / g.n_taps());
        let (depth, output) = (rest % map.depth, rest / map.depth);
        let input_channel = output / map.rows * map.depth + depth;
        let (ky, kx) = (tap / g.kernel[1], tap % g.kernel[1]);
        let mut sum = T::default();
        for y in 0..g.output[0] {
            let Some(source_y) = map.source_of(0, y, ky) else { continue };
            for x in 0..g.output[1] {
                let Some(source_x) = map.source_of(1, x, kx) else { continue };
                for n in 0..g.batch {
                    let read = input[from.at([input_channel, source_y, source_x, n])];
                    sum += read * output_grad[to.at([output, y, x, n])];
                }
            }
        }
        sum
    });
}

/// Replaces what is not finite by what `compute` gives for its place.
fn anew<T: Number>(all: &mut [T], compute: impl Fn(usize) -> T + Sync) {
    all.par_chunks_mut(PIECE).enumerate().for_each(|(piece, values)| {
        for (at, value) in values.iter_mut().enumerate() {
            if !is_finite(*value) {
                *value = compute(piece * PIECE + at);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_found_wherever_they_are() {
        let mut values = vec![f32::MAX; 5000];
        assert!(are_finite(&values) && are_finite::<f64>(&[]));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 1023, 1024, 4999] {
                let before = std::mem::replace(&mut values[at], bad);
                assert!(!are_finite(&values) && !is_finite(bad), "{bad} at {at}");
                values[at] = before;
            }
        }
    }

    #[test]
    fn places_of_both_layouts_lead_back() {
        for layout in [Layout::Chwn, Layout::Nchw] {
            let places = Places { layout, channels: 3, area: [4, 5], batch: 2 };
            assert!((0..3 * 4 * 5 * 2).all(|at| places.at(places.of(at)) == at));
        }
    }
}
