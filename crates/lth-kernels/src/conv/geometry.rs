//! What a convolution does to coordinates, for the forward pass and for the input gradient alike.
//!
//! Both are the same map: every *target* position is a sum over taps of *source* positions. Forward, the target is
//! the output and the source the input; for the input gradient the two change places, and a tap reaches a target
//! position only where the stride divides. Nothing is ever multiplied by an inserted zero.

/// The sizes of one convolution in `[channels, height, width, batch]` layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) groups: usize,
    pub(crate) input: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) padding: [usize; 2],
    pub(crate) dilation: [usize; 2],
}

/// Which of the two maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Forward,
    InputGradient,
}

impl Geometry {
    pub(crate) fn in_per_group(&self) -> usize {
        self.in_channels / self.groups
    }

    pub(crate) fn out_per_group(&self) -> usize {
        self.out_channels / self.groups
    }

    pub(crate) fn n_taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    pub(crate) fn n_outputs(&self) -> usize {
        self.output[0] * self.output[1]
    }

    pub(crate) fn n_inputs(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Whether samples are rows of numbers, as in a linear layer.
    pub(crate) fn is_pixel(&self) -> bool {
        self.n_taps() == 1 && self.n_inputs() == 1 && self.n_outputs() == 1
    }

    /// Multiplications of one dense pass, padding included.
    pub(crate) fn dense_work(&self) -> usize {
        self.batch * self.n_outputs() * self.out_channels * self.in_per_group() * self.n_taps()
    }

    pub(crate) fn map(&self, direction: Direction) -> Map {
        let (taps, per_out) = (self.n_taps(), self.in_per_group() * self.n_taps());
        match direction {
            Direction::Forward => Map {
                geometry: *self,
                direction,
                rows: self.out_per_group(),
                depth: self.in_per_group(),
                target: self.output,
                source: self.input,
                weight_row: per_out,
                weight_step: taps,
            },
            Direction::InputGradient => Map {
                geometry: *self,
                direction,
                rows: self.in_per_group(),
                depth: self.out_per_group(),
                target: self.input,
                source: self.output,
                weight_row: taps,
                weight_step: per_out,
            },
        }
    }

    /// Weights of one group.
    pub(crate) fn weights_per_group(&self) -> usize {
        self.out_per_group() * self.in_per_group() * self.n_taps()
    }

    /// Panics unless slices of such lengths are those of this convolution: kernels go by pointers.
    pub(crate) fn assert_lengths(&self, weight: usize, input: usize, output: usize) {
        assert_eq!(weight, self.weights_per_group() * self.groups);
        assert_eq!(input, self.in_channels * self.n_inputs() * self.batch);
        assert_eq!(output, self.out_channels * self.n_outputs() * self.batch);
    }
}

/// One direction of a convolution: `rows` target channels, each a sum over `depth` source channels and the taps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Map {
    pub(crate) geometry: Geometry,
    pub(crate) direction: Direction,
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    pub(crate) target: [usize; 2],
    pub(crate) source: [usize; 2],
    pub(crate) weight_row: usize,
    pub(crate) weight_step: usize,
}

impl Map {
    /// [`Geometry::assert_lengths`] of this direction.
    pub(crate) fn assert_lengths(&self, weight: usize, source: usize, target: usize) {
        match self.direction {
            Direction::Forward => self.geometry.assert_lengths(weight, source, target),
            Direction::InputGradient => self.geometry.assert_lengths(weight, target, source),
        }
    }

    /// The source coordinate along `axis` that tap `k` brings to target coordinate `at`.
    pub(crate) fn source_of(&self, axis: usize, at: usize, k: usize) -> Option<usize> {
        let g = &self.geometry;
        let from = match self.direction {
            Direction::Forward => (at * g.stride[axis] + k * g.dilation[axis]).checked_sub(g.padding[axis])?,
            Direction::InputGradient => {
                let distance = (at + g.padding[axis]).checked_sub(k * g.dilation[axis])?;
                if !distance.is_multiple_of(g.stride[axis]) {
                    return None;
                }
                distance / g.stride[axis]
            }
        };
        (from < self.source[axis]).then_some(from)
    }

    /// The taps that are inside at target coordinate `at`: pairs of tap and source coordinate.
    pub(crate) fn inside(&self, axis: usize, at: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.geometry.kernel[axis]).filter_map(move |k| Some((k, self.source_of(axis, at, k)?)))
    }

    /// The source rows (or columns) that target coordinates `from..to` touch, as a half-open range.
    pub(crate) fn reach(&self, axis: usize, from: usize, to: usize) -> (usize, usize) {
        let touched = (from..to).flat_map(|at| self.inside(axis, at)).map(|(_, source)| source);
        let (low, high) = touched.fold((usize::MAX, 0), |(low, high), source| (low.min(source), high.max(source + 1)));
        (low.min(high), high)
    }
}
