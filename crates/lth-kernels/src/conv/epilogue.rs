//! What follows a convolution, done to its outputs before or after they are written.

use super::kernel::table::Number;
use super::scratch::{Shared, for_each_task};

/// `v + bias + residual`, rectified if asked, for every output `v`.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a, T> {
    /// A number for each channel.
    pub(crate) bias: Option<&'a [T]>,
    /// Of the output's shape and layout.
    pub(crate) residual: Option<&'a [T]>,
    /// Whether what is negative becomes 0.
    pub(crate) relu: bool,
}

impl<T: Number> Epilogue<'_, T> {
    /// In place, of `n_channels` channels, of which `per_block` numbers lie together at a time.
    pub(crate) fn apply(&self, out: &mut [T], n_channels: usize, per_block: usize) {
        let &Self { bias, residual, relu } = self;
        if bias.is_none() && residual.is_none() && !relu {
            return;
        }
        assert!(residual.is_none_or(|residual| residual.len() == out.len()));
        let (n_blocks, work) = (out.len().checked_div(per_block).unwrap_or(0), out.len() * 4);
        let shared = Shared::new(out);
        for_each_task(n_blocks, work, |block| {
            // SAFETY: blocks are disjoint parts of `out`.
            let out = unsafe { std::slice::from_raw_parts_mut(shared.at(block * per_block), per_block) };
            let zero = T::default();
            let bias = bias.map_or(zero, |bias| bias[block % n_channels]);
            // Not `max`: a NaN stays a NaN.
            let end = |v: T| if relu && v <= zero { zero } else { v };
            match residual {
                Some(residual) => {
                    let residual = &residual[block * per_block..][..per_block];
                    out.iter_mut().zip(residual).for_each(|(out, &residual)| *out = end(*out + bias + residual));
                }
                None => out.iter_mut().for_each(|out| *out = end(*out + bias)),
            }
        });
    }
}
