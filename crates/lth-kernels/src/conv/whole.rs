//! Passes in which every weight is multiplied, in `[channels, height, width, batch]` layout: on the dense kernel or on
//! Winograd's, whichever costs less.

use std::mem::MaybeUninit;

use super::cost::{self, Kernel, Pass};
use super::epilogue::Epilogue;
use super::geometry::{Direction, Geometry};
use super::kernel::table::Number;
use super::{dense, dense_weight, mend, winograd};
use crate::layout::Layout;
use crate::parallel::all_written;

/// The forward pass or the input gradient: `target` gets all of its elements written. Whether nothing that is not finite
/// was met comes back; nothing outside the picture counts.
pub(crate) fn apply<T: Number>(
    g: &Geometry,
    direction: Direction,
    weight: &[T],
    source: &[T],
    target: &mut [MaybeUninit<T>],
) -> bool {
    if cost::choose_whole(g, Pass::Map(direction), T::kernels().set) == Kernel::Dense {
        return dense::apply(g, direction, weight, source, target);
    }
    let is_finite = winograd::apply(g, direction, weight, source, None, target);
    if !is_finite {
        // SAFETY: every element was written just now.
        mend::map(g, direction, None, (weight, source), unsafe { all_written(target) }, Layout::Chwn);
    }
    is_finite
}

/// The forward pass with its `epilogue`, where that takes no pass of its own: whether `target` got all of its elements written so.
/// Not on the dense kernel, and not where anything that is not finite was met.
pub(crate) fn apply_ended<T: Number>(
    g: &Geometry,
    weight: &[T],
    source: &[T],
    epilogue: &Epilogue<'_, T>,
    target: &mut [MaybeUninit<T>],
) -> bool {
    let direction = Direction::Forward;
    cost::choose_whole(g, Pass::Map(direction), T::kernels().set) != Kernel::Dense
        && winograd::apply(g, direction, weight, source, Some(epilogue), target)
}

/// Writes the gradient of every weight; exact zeros where `kept` is 0.
pub(crate) fn weight_gradient<T: Number>(
    g: &Geometry,
    input: &[T],
    output_grad: &[T],
    kept: Option<&[u8]>,
    grad: &mut [MaybeUninit<T>],
) {
    if cost::choose_whole(g, Pass::WeightGradient, T::kernels().set) == Kernel::Dense {
        return dense_weight::weight_gradient(g, input, output_grad, kept, grad);
    }
    winograd::weight_gradient(g, input, output_grad, kept, grad);
    // SAFETY: every element was written just now.
    let grad = unsafe { all_written(grad) };
    if !mend::are_finite(grad) {
        mend::weight_gradient(g, (input, output_grad), grad, Layout::Chwn);
    }
}
