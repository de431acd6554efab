//! The order of the axes of feature maps.

use crate::error::{Error, expect_rank};
use candle_core::{Device, Result, Tensor};

/// The order of the axes of a feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// Shape [N, C, H, W], as PyTorch's default.
    #[default]
    Nchw,
    /// Shape [C, H, W, N]: the batch is innermost, so vector instructions run over the batch and a
    /// sparse weight needs no gathering.
    Chwn,
}

impl Layout {
    /// The layout in which a network runs fastest for a batch of `n`: [`Layout::Chwn`] on the CPU
    /// from 16 samples on, which fill a vector register, else [`Layout::Nchw`]. A pure function of
    /// its arguments.
    pub fn for_batch(n: usize, device: &Device) -> Layout {
        if device.is_cpu() && n >= 16 { Layout::Chwn } else { Layout::Nchw }
    }

    /// Position of the channel axis in a tensor of rank 4.
    pub fn channel_axis(self) -> usize {
        match self {
            Layout::Nchw => 1,
            Layout::Chwn => 0,
        }
    }

    /// (N, C, H, W) of a rank-4 tensor in this layout.
    pub(crate) fn sizes(
        self,
        op: &'static str,
        name: &'static str,
        x: &Tensor,
    ) -> std::result::Result<(usize, usize, usize, usize), Error> {
        expect_rank(op, name, x, 4)?;
        let d = x.dims();
        Ok(match self {
            Layout::Nchw => (d[0], d[1], d[2], d[3]),
            Layout::Chwn => (d[3], d[0], d[1], d[2]),
        })
    }

    /// The shape of a feature map in this layout.
    pub(crate) fn shape(self, n: usize, c: usize, h: usize, w: usize) -> [usize; 4] {
        match self {
            Layout::Nchw => [n, c, h, w],
            Layout::Chwn => [c, h, w, n],
        }
    }
}

/// `x` (rank 4) with its axes moved from one layout to the other, contiguous; `x` itself where
/// both are the same. With backward.
///
/// # Errors
/// If `x` is not of rank 4.
pub fn to_layout(x: &Tensor, from: Layout, to: Layout) -> Result<Tensor> {
    expect_rank("to_layout", "x", x, 4)?;
    match (from, to) {
        (Layout::Nchw, Layout::Chwn) => x.permute((1, 2, 3, 0))?.contiguous(),
        (Layout::Chwn, Layout::Nchw) => x.permute((3, 0, 1, 2))?.contiguous(),
        (Layout::Nchw, Layout::Nchw) | (Layout::Chwn, Layout::Chwn) => Ok(x.clone()),
    }
}
