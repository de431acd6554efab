//! What is pruned as one.

use std::borrow::Cow;
use std::fmt;

use crate::error::{Error, Result};
use crate::group::Grouping;
use crate::own::OwnGroups;

/// What is pruned as one: the weights of a group share a score and a fate.
///
/// The first sixteen have fasterai's names and meanings. For a convolution's weight `[O, I, H, W]` (outputs, inputs,
/// kernel height and width) a group is what differs only in the dimensions named:
///
/// | granularity | a group runs over | groups |
/// |---|---|---|
/// | `Weight` | nothing: each weight is one | O·I·H·W |
/// | `SharedWeight` | O | I·H·W |
/// | `Channel` | I | O·H·W |
/// | `Column` | H | O·I·W |
/// | `Row` | W | O·I·H |
/// | `Kernel` | H, W | O·I |
/// | `Filter` | I, H, W | O |
/// | `SharedChannel` | O, I | H·W |
/// | `SharedColumn` | O, H | I·W |
/// | `SharedRow` | O, W | I·H |
/// | `VerticalSlice` | I, H | O·W |
/// | `HorizontalSlice` | I, W | O·H |
/// | `SharedVerticalSlice` | O, I, H | W |
/// | `SharedHorizontalSlice` | O, I, W | H |
/// | `SharedKernel` | O, H, W | I |
/// | `Layer` | all | 1 |
///
/// A transposed convolution's weight is `[I, O, H, W]` and has the same sixteen. A linear weight `[O, I]` has `Weight`,
/// `Column` (runs over O: an input's column, I groups), `Row` (runs over I: an output's row, O groups) and `Layer`; so
/// has the weight `[O, I, K]` of a one-dimensional convolution, with K times the groups, as in fasterai, and that of
/// fused experts `[E, O, I]`, with E times the groups. For any other rank there are `Weight` and `Layer`. A shape does not
/// say which is which: [`Selection::transposed`](crate::Selection::transposed) names the weights whose inputs come first
/// (`[I, O]` in GPT-2, `[E, I, O]`), [`Selection::experts`](crate::Selection::experts) those of fused experts.
///
/// Stacked weights are grouped by `Head`: an attention's `in_proj_weight` by its heads in three parts, an LSTM's
/// `weight_ih_l0` by its units in four (heads = units), so that what is pruned is one head or one unit.
///
/// `SharedKernel` (and a linear layer's `Column`) removes an input channel, `Filter` (`Row`) an output channel: these
/// are what [compaction](crate::compact) makes smaller.
///
/// [`Groups`](crate::Groups) of one's own are `Own`, in text `own(name)`; reading that is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Granularity {
    /// Each weight alone.
    #[default]
    Weight,
    /// A weight's place in the filters, in all of them.
    SharedWeight,
    /// A kernel position over all inputs.
    Channel,
    /// A kernel's column.
    Column,
    /// A kernel's row.
    Row,
    /// A kernel: one input to one output.
    Kernel,
    /// A filter: all that makes one output.
    Filter,
    /// A kernel position over all inputs, in all filters.
    SharedChannel,
    /// A kernel's column, in all filters.
    SharedColumn,
    /// A kernel's row, in all filters.
    SharedRow,
    /// A filter's column over all inputs.
    VerticalSlice,
    /// A filter's row over all inputs.
    HorizontalSlice,
    /// A filter's column over all inputs, in all filters.
    SharedVerticalSlice,
    /// A filter's row over all inputs, in all filters.
    SharedHorizontalSlice,
    /// An input's kernels, in all filters.
    SharedKernel,
    /// The whole tensor.
    Layer,
    /// `n` of every `m` consecutive inputs are kept, for each output (and kernel position) by itself: of a linear weight
    /// `[O, I]` the columns `b·m .. (b+1)·m` of each row, of a convolution `[O, I, H, W]` the same input channels at each
    /// output and kernel position. I must be a multiple of m. The sparsity is 1 − n/m, which three decimals are near
    /// enough to name (0.667 for 1:3); asked for less, the lowest of what the pattern would prune are pruned (so that a
    /// schedule can lead there), and more is an error.
    NM {
        /// Weights kept of each block.
        n: usize,
        /// Weights of a block.
        m: usize,
    },
    /// This many consecutive rows (outputs) of a linear weight: blocks, or the heads of an attention's query, key or
    /// value weight (rows = head size).
    RowBlock {
        /// Rows of a block; the outputs must be a multiple.
        rows: usize,
    },
    /// This many consecutive columns (inputs) of a linear weight: blocks, or the heads of an attention's output weight
    /// (columns = head size).
    ColumnBlock {
        /// Columns of a block; the inputs must be a multiple.
        columns: usize,
    },
    /// A weight's place in this many consecutive outputs: filters of a convolution (or rows of a linear weight) that keep the
    /// same places. The kernels of `lth-kernels` gain most from blocks of four.
    OutputBlock {
        /// Outputs of a block; the outputs must be a multiple.
        outputs: usize,
    },
    /// An attention head in a linear weight whose outputs are `parts` times `heads` equal blocks of rows: `parts` 3 for
    /// query, key and value in one weight `[3·heads·d, I]`; a head is its block in each part.
    Head {
        /// Heads.
        heads: usize,
        /// Weights that are stacked in one.
        parts: usize,
    },
    /// [`Groups`](crate::Groups) of one's own.
    Own(OwnGroups),
}

/// How a weight's dimensions are to be read: O outputs, I inputs, H and W a kernel's height and width, K its length,
/// E experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layer {
    /// `[O, I, H, W]`
    Conv,
    /// `[I, O, H, W]`
    TransposedConv,
    /// `[O, I]` or `[O, I, K]`
    Linear,
    /// `[I, O]` or `[I, O, K]`
    TransposedLinear,
    /// `[E, O, I]`
    Experts,
    /// `[E, I, O]`
    TransposedExperts,
    /// Any other rank.
    Other,
}

impl Layer {
    pub(crate) fn of(shape: &[usize], transposed: bool) -> Self {
        match shape.len() {
            4 if transposed => Self::TransposedConv,
            4 => Self::Conv,
            2 | 3 if transposed => Self::TransposedLinear,
            2 | 3 => Self::Linear,
            _ => Self::Other,
        }
    }

    /// # Errors
    /// If the shape has not three dimensions.
    pub(crate) fn experts(shape: &[usize], transposed: bool) -> Result<Self> {
        match (shape.len(), transposed) {
            (3, false) => Ok(Self::Experts),
            (3, true) => Ok(Self::TransposedExperts),
            _ => Err(Error::Selection(format!("it is among the experts and has shape {shape:?}, expected rank 3"))),
        }
    }

    /// The axes of outputs and inputs; `None` for other ranks.
    #[must_use]
    pub fn output_input_axes(self) -> Option<(usize, usize)> {
        match self {
            Self::Conv | Self::Linear => Some((0, 1)),
            Self::TransposedConv | Self::TransposedLinear => Some((1, 0)),
            Self::Experts => Some((1, 2)),
            Self::TransposedExperts => Some((2, 1)),
            Self::Other => None,
        }
    }
}

impl Granularity {
    /// The sixteen that have fasterai's names, in its order.
    pub const NAMED: [Self; 16] = [
        Self::Weight,
        Self::SharedWeight,
        Self::Channel,
        Self::Column,
        Self::Row,
        Self::Kernel,
        Self::Filter,
        Self::SharedChannel,
        Self::SharedColumn,
        Self::SharedRow,
        Self::VerticalSlice,
        Self::HorizontalSlice,
        Self::SharedVerticalSlice,
        Self::SharedHorizontalSlice,
        Self::SharedKernel,
        Self::Layer,
    ];

    /// The axes over which a group runs. Source: fasterai 0.3.3, `core/granularity.py`, whose numbers count a leading
    /// axis that the weight does not have.
    fn axes(&self, layer: Layer) -> Option<&'static [usize]> {
        use Granularity::{
            Channel, Column, Filter, HorizontalSlice, Kernel, Row, SharedChannel, SharedColumn, SharedHorizontalSlice,
            SharedKernel, SharedRow, SharedVerticalSlice, SharedWeight, VerticalSlice, Weight,
        };
        let transposed = layer == Layer::TransposedConv;
        Some(match (layer, self) {
            (_, Weight) => &[],
            (Layer::Linear, Column) | (Layer::TransposedLinear, Row) => &[0],
            (Layer::Linear, Row) | (Layer::TransposedLinear, Column) => &[1],
            (Layer::Experts, Column) | (Layer::TransposedExperts, Row) => &[1],
            (Layer::Experts, Row) | (Layer::TransposedExperts, Column) => &[2],
            (Layer::Linear | Layer::TransposedLinear, Self::Layer) => &[0, 1],
            (Layer::Experts | Layer::TransposedExperts, Self::Layer) => &[0, 1, 2],
            (Layer::Linear | Layer::TransposedLinear, _) => return None,
            (Layer::Experts | Layer::TransposedExperts | Layer::Other, _) => return None,
            (_, SharedWeight) if transposed => &[1],
            (_, SharedWeight) => &[0],
            (_, Channel) if transposed => &[0],
            (_, Channel) => &[1],
            (_, Column) => &[2],
            (_, Row) => &[3],
            (_, Kernel) => &[2, 3],
            (_, Filter) if transposed => &[0, 2, 3],
            (_, Filter) => &[1, 2, 3],
            (_, SharedChannel) => &[0, 1],
            (_, SharedColumn) if transposed => &[1, 2],
            (_, SharedColumn) => &[0, 2],
            (_, SharedRow) if transposed => &[1, 3],
            (_, SharedRow) => &[0, 3],
            (_, VerticalSlice) if transposed => &[0, 2],
            (_, VerticalSlice) => &[1, 2],
            (_, HorizontalSlice) if transposed => &[0, 3],
            (_, HorizontalSlice) => &[1, 3],
            (_, SharedVerticalSlice) => &[0, 1, 2],
            (_, SharedHorizontalSlice) => &[0, 1, 3],
            (_, SharedKernel) if transposed => &[1, 2, 3],
            (_, SharedKernel) => &[0, 2, 3],
            (_, Self::Layer) => &[0, 1, 2, 3],
            _ => return None,
        })
    }

    pub(crate) fn misfit(&self, shape: &[usize], reason: impl Into<Cow<'static, str>>) -> Error {
        Error::Granularity { granularity: self.to_string(), shape: shape.to_vec(), reason: reason.into() }
    }

    /// The groups of a tensor of this shape.
    ///
    /// # Errors
    /// If such a tensor does not have this granularity.
    pub(crate) fn groups(&self, shape: &[usize], layer: Layer) -> Result<Grouping> {
        let misfit = |reason: &'static str| self.misfit(shape, reason);
        match *self {
            Self::NM { .. } => Err(misfit("an N:M pattern has no groups of its own")),
            Self::RowBlock { rows: size } | Self::ColumnBlock { columns: size } => {
                let axis = match (layer.output_input_axes(), self) {
                    (Some((_, inputs)), Self::ColumnBlock { .. }) => inputs,
                    (Some((outputs, _)), _) => outputs,
                    (None, _) => 0,
                };
                match shape {
                    &[..] if shape.len() != 2 => Err(misfit("only linear weights have it")),
                    _ if size == 0 || !shape[axis].is_multiple_of(size) => Err(misfit("no multiple of the block")),
                    _ => Ok(Grouping::blocks(shape, axis, |i| i / size, shape[axis] / size)),
                }
            }
            Self::OutputBlock { outputs: size } => match layer.output_input_axes() {
                None => Err(misfit("only layers with outputs and inputs have it")),
                Some((axis, _)) if size == 0 || !shape[axis].is_multiple_of(size) => {
                    Err(misfit("no multiple of the block"))
                }
                Some((axis, _)) => Ok(Grouping::places(shape, axis, size)),
            },
            Self::Head { heads, parts } => {
                let blocks = heads.checked_mul(parts).filter(|&b| b > 0);
                let axis = layer.output_input_axes().map_or(0, |(outputs, _)| outputs);
                match (shape, blocks) {
                    (&[_, _], Some(blocks)) if shape[axis].is_multiple_of(blocks) => {
                        let size = shape[axis] / blocks;
                        Ok(Grouping::blocks(shape, axis, |row| row / size.max(1) % heads, heads))
                    }
                    (&[_, _], _) => Err(misfit("no multiple of the heads")),
                    _ => Err(misfit("only linear weights have it")),
                }
            }
            Self::Own(ref own) => {
                let groups = own.groups().groups(shape, layer).map_err(|reason| self.misfit(shape, reason))?;
                Grouping::listed(shape, groups).map_err(|reason| self.misfit(shape, reason))
            }
            Self::Layer if layer == Layer::Other => Ok(Grouping::over(shape, |_| true)),
            _ => match self.axes(layer) {
                Some(axes) => Ok(Grouping::over(shape, |axis| axes.contains(&axis))),
                None => Err(misfit("no such granularity for this kind of layer")),
            },
        }
    }
}

/// fasterai's names; `2:4`, `row_block(64)`, `column_block(64)`, `output_block(4)`, `head(12x3)`, `own(name)`.
impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::NM { n, m } => return write!(f, "{n}:{m}"),
            Self::RowBlock { rows } => return write!(f, "row_block({rows})"),
            Self::ColumnBlock { columns } => return write!(f, "column_block({columns})"),
            Self::OutputBlock { outputs } => return write!(f, "output_block({outputs})"),
            Self::Own(own) => return write!(f, "own({})", own.groups().name()),
            Self::Head { heads, parts } => return write!(f, "head({heads}x{parts})"),
            Self::Weight => "weight",
            Self::SharedWeight => "shared_weight",
            Self::Channel => "channel",
            Self::Column => "column",
            Self::Row => "row",
            Self::Kernel => "kernel",
            Self::Filter => "filter",
            Self::SharedChannel => "shared_channel",
            Self::SharedColumn => "shared_column",
            Self::SharedRow => "shared_row",
            Self::VerticalSlice => "vertical_slice",
            Self::HorizontalSlice => "horizontal_slice",
            Self::SharedVerticalSlice => "shared_vertical_slice",
            Self::SharedHorizontalSlice => "shared_horizontal_slice",
            Self::SharedKernel => "shared_kernel",
            Self::Layer => "layer",
        };
        f.pad(name)
    }
}

/// Reads what [`Granularity`] displays, but for `own(name)`: text has no more of groups than their name.
impl std::str::FromStr for Granularity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(named) = Self::NAMED.into_iter().find(|g| g.to_string() == text) {
            return Ok(named);
        }
        let unknown = || Error::Selection(format!("no granularity is called `{text}`"));
        let number = |digits: &str| digits.parse::<usize>().map_err(|_| unknown());
        let inside = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(rows) = inside("row_block") {
            return Ok(Self::RowBlock { rows: number(rows)? });
        }
        if let Some(columns) = inside("column_block") {
            return Ok(Self::ColumnBlock { columns: number(columns)? });
        }
        if let Some(outputs) = inside("output_block") {
            return Ok(Self::OutputBlock { outputs: number(outputs)? });
        }
        if let Some((heads, parts)) = inside("head").and_then(|i| i.split_once('x')) {
            return Ok(Self::Head { heads: number(heads)?, parts: number(parts)? });
        }
        if inside("own").is_some() {
            return Err(Error::Own { granularity: text.to_owned() });
        }
        let (n, m) = text.split_once(':').ok_or_else(unknown)?;
        Ok(Self::NM { n: number(n)?, m: number(m)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(granularity: &Granularity, shape: &[usize], transposed: bool) -> Option<usize> {
        let grouping = granularity.groups(shape, Layer::of(shape, transposed)).ok()?;
        Some(grouping.n_groups())
    }

    #[test]
    fn convolutions_have_as_many_groups_as_the_table_says() {
        let (o, i, h, w) = (7, 5, 3, 2);
        let counts = [
            o * i * h * w,
            i * h * w,
            o * h * w,
            o * i * w,
            o * i * h,
            o * i,
            o,
            h * w,
            i * w,
            i * h,
            o * w,
            o * h,
            w,
            h,
            i,
            1,
        ];
        for (granularity, count) in Granularity::NAMED.into_iter().zip(counts) {
            assert_eq!(groups(&granularity, &[o, i, h, w], false), Some(count), "{granularity}");
            assert_eq!(groups(&granularity, &[i, o, h, w], true), Some(count), "transposed {granularity}");
        }
    }

    #[test]
    fn linear_layers_have_four_granularities() {
        let count = |g| groups(&g, &[6, 10], false);
        assert_eq!(count(Granularity::Weight), Some(60));
        assert_eq!(count(Granularity::Column), Some(10));
        assert_eq!(count(Granularity::Row), Some(6));
        assert_eq!(count(Granularity::Layer), Some(1));
        assert_eq!(count(Granularity::Filter), None);
        assert_eq!(groups(&Granularity::Row, &[6, 10, 3], false), Some(18));
        assert_eq!(groups(&Granularity::Layer, &[6], false), Some(1));
        assert_eq!(groups(&Granularity::Row, &[6], false), None);
    }

    #[test]
    fn blocks_and_heads_divide_the_layer() {
        assert_eq!(groups(&Granularity::RowBlock { rows: 3 }, &[6, 10], false), Some(2));
        assert_eq!(groups(&Granularity::ColumnBlock { columns: 5 }, &[6, 10], false), Some(2));
        assert_eq!(groups(&Granularity::Head { heads: 2, parts: 3 }, &[12, 4], false), Some(2));
        assert_eq!(groups(&Granularity::RowBlock { rows: 4 }, &[6, 10], false), None);
        assert_eq!(groups(&Granularity::RowBlock { rows: 0 }, &[6, 10], false), None);
        assert_eq!(groups(&Granularity::Head { heads: 0, parts: 3 }, &[12, 4], false), None);
        assert_eq!(groups(&Granularity::Head { heads: usize::MAX, parts: 3 }, &[12, 4], false), None);
        assert_eq!(groups(&Granularity::RowBlock { rows: 1 }, &[6, 10, 1, 1], false), None);
    }

    #[test]
    fn output_blocks_share_their_places() -> Result<()> {
        let block = Granularity::OutputBlock { outputs: 2 };
        let groups = |shape: &[usize], layer: Layer| {
            let mut all = Vec::new();
            block.groups(shape, layer)?.each(|group| all.push(group));
            Ok::<_, Error>(all)
        };
        assert_eq!(groups(&[4, 3], Layer::Linear)?, [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
        assert_eq!(groups(&[3, 4], Layer::TransposedLinear)?, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
        assert_eq!(groups(&[2, 1, 1, 2], Layer::Conv)?, [0, 1, 0, 1]);
        assert_eq!(groups(&[1, 4, 2], Layer::Experts)?, [0, 1, 0, 1, 2, 3, 2, 3]);
        for (shape, layer) in [(&[3, 3][..], Layer::Linear), (&[5], Layer::Other)] {
            assert!(block.groups(shape, layer).is_err());
        }
        assert!(Granularity::OutputBlock { outputs: 0 }.groups(&[4, 4], Layer::Linear).is_err());
        Ok(())
    }

    #[test]
    fn names_are_read_back() -> Result<()> {
        let others = [
            Granularity::NM { n: 2, m: 4 },
            Granularity::RowBlock { rows: 64 },
            Granularity::ColumnBlock { columns: 32 },
            Granularity::OutputBlock { outputs: 4 },
            Granularity::Head { heads: 12, parts: 3 },
        ];
        for granularity in Granularity::NAMED.into_iter().chain(others) {
            assert_eq!(granularity.to_string().parse::<Granularity>()?, granularity);
        }
        for text in ["", "filters", "2:", "a:b", "row_block", "row_block(x)", "head(3)"] {
            assert!(text.parse::<Granularity>().is_err(), "{text}");
        }
        Ok(())
    }
}
