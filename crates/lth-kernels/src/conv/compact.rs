//! Filters and channels that are pruned whole: they are left out, and what remains is a smaller dense convolution.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::geometry::{Direction, Geometry};
use super::kernel::table::Number;
use super::scratch::{Shared, as_uninit, for_each_task, with_buffers};
use super::whole;

/// The channels of a convolution without groups of which any weight is kept, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptChannels {
    outputs: Vec<usize>,
    inputs: Vec<usize>,
    /// All there are.
    n_outputs: usize,
    n_inputs: usize,
}

impl KeptChannels {
    /// Of a mask `[n_outputs, n_inputs, …]`, 0 = pruned.
    pub(crate) fn new(bits: &[u8], n_outputs: usize, n_inputs: usize) -> Self {
        let taps = bits.len().checked_div(n_outputs * n_inputs).unwrap_or(0);
        let any = |output: usize, input: usize| {
            bits[(output * n_inputs + input) * taps..][..taps].iter().any(|&bit| bit != 0)
        };
        let outputs = (0..n_outputs).filter(|&output| (0..n_inputs).any(|input| any(output, input))).collect();
        let inputs = (0..n_inputs).filter(|&input| (0..n_outputs).any(|output| any(output, input))).collect();
        Self { outputs, inputs, n_outputs, n_inputs }
    }

    /// Whether there is anything to leave out of a convolution of this shape, and anything left.
    pub(crate) fn applies_to(&self, g: &Geometry) -> bool {
        let is_of_mask = g.groups == 1 && (g.out_channels, g.in_channels) == (self.n_outputs, self.n_inputs);
        let is_smaller = self.outputs.len() * self.inputs.len() < self.n_outputs * self.n_inputs;
        is_of_mask && is_smaller && !self.outputs.is_empty()
    }

    /// What remains of the convolution.
    pub(crate) fn geometry(&self, g: &Geometry) -> Geometry {
        Geometry { in_channels: self.inputs.len(), out_channels: self.outputs.len(), ..*g }
    }

    fn weight<T: Number>(&self, weight: &[T], taps: usize, to: &mut [T]) {
        let pairs = self.outputs.iter().flat_map(|output| self.inputs.iter().map(move |input| (output, input)));
        for ((output, input), to) in pairs.zip(to.chunks_exact_mut(taps)) {
            to.copy_from_slice(&weight[(output * self.n_inputs + input) * taps..][..taps]);
        }
    }
}

/// The forward pass or the input gradient with a masked weight: writes all of `target`. Whether all of it is finite comes
/// back.
pub(crate) fn apply<T: Number>(
    kept: &KeptChannels,
    g: &Geometry,
    direction: Direction,
    weight: &[T],
    source: &[T],
    target: &mut [MaybeUninit<T>],
) -> bool {
    let small = kept.geometry(g);
    let (outputs, inputs) = (g.n_outputs() * g.batch, g.n_inputs() * g.batch);
    let (from, from_len, to, to_len) = match direction {
        Direction::Forward => (&kept.inputs, inputs, &kept.outputs, outputs),
        Direction::InputGradient => (&kept.outputs, outputs, &kept.inputs, inputs),
    };
    with_buffers::<T, _>(small.weights_per_group(), 0, |small_weight, _| {
        kept.weight(weight, g.n_taps(), small_weight);
        let gathered = gathered(source, from, from_len);
        if to.len() * to_len == target.len() {
            return whole::apply(&small, direction, small_weight, &gathered, target);
        }
        with_buffers::<T, _>(to.len() * to_len, 0, |small_target, _| {
            // SAFETY: kernels write numbers and nothing else.
            let target_of_kept = unsafe { as_uninit(small_target) };
            let is_finite = whole::apply(&small, direction, small_weight, &gathered, target_of_kept);
            scatter(small_target, to, to_len, target);
            is_finite
        })
    })
}

/// The weight's gradient; exact zeros where `bits` is 0.
pub(crate) fn weight_gradient<T: Number>(
    kept: &KeptChannels,
    g: &Geometry,
    input: &[T],
    output_grad: &[T],
    bits: &[u8],
    grad: &mut [MaybeUninit<T>],
) {
    let small = kept.geometry(g);
    let taps = g.n_taps();
    with_buffers::<T, _>(small.weights_per_group(), 0, |small_grad, _| {
        let input = gathered(input, &kept.inputs, g.n_inputs() * g.batch);
        let output_grad = gathered(output_grad, &kept.outputs, g.n_outputs() * g.batch);
        // SAFETY: kernels write numbers and nothing else.
        whole::weight_gradient(&small, &input, &output_grad, None, unsafe { as_uninit(small_grad) });
        grad.fill(MaybeUninit::new(T::default()));
        let pairs = kept.outputs.iter().flat_map(|output| kept.inputs.iter().map(move |input| (output, input)));
        for ((output, input), from) in pairs.zip(small_grad.chunks_exact(taps)) {
            let at = (output * kept.n_inputs + input) * taps;
            for (tap, &value) in from.iter().enumerate() {
                if bits[at + tap] != 0 {
                    grad[at + tap].write(value);
                }
            }
        }
    });
}

/// The channels `kept`, of `len` numbers each, side by side; `from` itself if these are all.
fn gathered<'a, T: Number>(from: &'a [T], kept: &[usize], len: usize) -> Cow<'a, [T]> {
    if kept.len() * len == from.len() {
        return Cow::Borrowed(from);
    }
    let mut all = Vec::with_capacity(kept.len() * len);
    let out = Shared::of_uninit(&mut all.spare_capacity_mut()[..kept.len() * len]);
    for_each_task(kept.len(), kept.len() * len, |i| {
        let from = &from[kept[i] * len..][..len];
        // SAFETY: the place of channel `i`, which no other task writes.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), out.at(i * len), len) };
    });
    // SAFETY: the tasks have written all channels.
    unsafe { all.set_len(kept.len() * len) };
    Cow::Owned(all)
}

/// Brings channels of `len` numbers to their places; all others become zero.
fn scatter<T: Number>(from: &[T], kept: &[usize], len: usize, to: &mut [MaybeUninit<T>]) {
    let n = to.len() / len;
    let mut places = vec![None; n];
    for (i, &channel) in kept.iter().enumerate() {
        places[channel] = Some(i);
    }
    let work = to.len();
    let out = Shared::of_uninit(to);
    for_each_task(n, work, |channel| {
        // SAFETY: a channel of `to`, which no other task writes; zero bytes are the number zero.
        unsafe {
            match places[channel] {
                Some(i) => std::ptr::copy_nonoverlapping(from[i * len..][..len].as_ptr(), out.at(channel * len), len),
                None => std::ptr::write_bytes(out.at(channel * len), 0, len),
            }
        }
    });
}
