//! An axis as data, and as placed on a drawing.

use super::ticks::{self, Tick};

/// How values are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm; only positive values can be shown.
    Log,
}

/// Which way values grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the right, or upwards.
    Rising,
    /// To the left, or downwards: "weights remaining" from 100 % to 1 %.
    Falling,
}

/// How ticks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickFormat {
    /// "0.25", "50,000"
    Plain,
    /// A fraction as "25 %".
    Percent,
}

/// What an axis shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What is measured, with its unit: "seconds per epoch". Percent signs are on the ticks.
    pub label: String,
    /// How values are spaced.
    pub scale: Scale,
    /// Which way they grow.
    pub direction: Direction,
    /// How ticks are written.
    pub format: TickFormat,
    /// Least and greatest value shown; from the data where there is none. What lies outside is left out.
    pub range: Option<(f64, f64)>,
}

impl Axis {
    /// Plain numbers, evenly spaced.
    pub fn linear(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            scale: Scale::Linear,
            direction: Direction::Rising,
            format: TickFormat::Plain,
            range: None,
        }
    }

    /// Plain numbers, spaced by their logarithm.
    pub fn log(label: impl Into<String>) -> Self {
        Self { scale: Scale::Log, ..Self::linear(label) }
    }

    /// Fractions, written in percent.
    pub fn percent(label: impl Into<String>) -> Self {
        Self { format: TickFormat::Percent, ..Self::linear(label) }
    }

    /// The fraction of weights that remain: logarithmic, from 100 % on the left to the sparsest on the right.
    pub fn weights_remaining() -> Self {
        Self {
            scale: Scale::Log,
            direction: Direction::Falling,
            format: TickFormat::Percent,
            ..Self::linear("weights remaining")
        }
    }

    /// The same axis over this range.
    #[must_use]
    pub fn over(self, low: f64, high: f64) -> Self {
        Self { range: Some((low, high)), ..self }
    }

    /// `value` as its ticks are written, to four significant digits: for tooltips and cells.
    pub(super) fn value(&self, value: f64) -> String {
        ticks::value(value, self.format)
    }
}

/// What the drawing leaves beside the data's own range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// A little, so that no marker lies on the frame.
    Around,
    /// From zero: lengths are compared.
    FromZero,
    /// None.
    Exact,
}

/// An axis between two pixels.
pub(super) struct Placed<'a> {
    pub(super) axis: &'a Axis,
    low: f64,
    high: f64,
    /// The pixel of the least and of the greatest value of a rising axis.
    from: f64,
    to: f64,
}

impl<'a> Placed<'a> {
    /// `values`: the data; what cannot be shown is passed over. `from` and `to`: pixels of the axis's two ends.
    pub(super) fn new(axis: &'a Axis, values: impl Iterator<Item = f64>, room: Room, from: f64, to: f64) -> Self {
        // Beyond these the room around the data would overflow.
        const LARGEST: f64 = 1e150;
        let shown = |value: &f64| match axis.scale {
            Scale::Linear => value.abs() <= LARGEST,
            Scale::Log => (LARGEST.recip()..=LARGEST).contains(value),
        };
        let data = values.filter(shown).fold(None, |range: Option<(f64, f64)>, value| match range {
            None => Some((value, value)),
            Some((low, high)) => Some((low.min(value), high.max(value))),
        });
        let given = axis.range.filter(|(low, high)| shown(low) && shown(high) && low < high);
        let (low, high) = given.unwrap_or_else(|| widened(axis.scale, data, room));
        let (from, to) = if axis.direction == Direction::Rising { (from, to) } else { (to, from) };
        Self { axis, low, high, from, to }
    }

    /// The pixel of `value`; `None` where it cannot be shown.
    pub(super) fn position(&self, value: f64) -> Option<f64> {
        // A value read from a file may miss the range's end by its last digit.
        let slack = 1e-9 * (self.high - self.low);
        let positive = self.axis.scale == Scale::Linear || value > 0.0;
        let inside = value >= self.low - slack && value <= self.high + slack;
        (positive && inside).then(|| self.clamped(value))
    }

    /// The pixel of `value`, or of the nearer end where it lies outside; NaN takes the lower end.
    pub(super) fn clamped(&self, value: f64) -> f64 {
        let value = if value.is_nan() { self.low } else { value.clamp(self.low, self.high) };
        let share = match self.axis.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln()),
        };
        self.from + share * (self.to - self.from)
    }

    /// Ticks whose labels keep apart: `extent` is the room in pixels that a label takes along the axis.
    pub(super) fn ticks(&self, extent: impl Fn(&str) -> f64) -> Vec<Tick> {
        let length = (self.to - self.from).abs();
        ticks::ticks(self.axis.scale, self.axis.format, self.low, self.high, length, extent, |value| {
            self.clamped(value)
        })
    }
}

fn widened(scale: Scale, data: Option<(f64, f64)>, room: Room) -> (f64, f64) {
    let Some((low, high)) = data else {
        return if scale == Scale::Log { (0.1, 1.0) } else { (0.0, 1.0) };
    };
    match (scale, room) {
        (Scale::Log, Room::Exact) if low < high => (low, high),
        (Scale::Log, _) if high / low < 1.000_001 => (low / 1.5, high * 1.5),
        (Scale::Log, _) => {
            let factor = (0.03 * (high.ln() - low.ln())).exp();
            (low / factor, high * factor)
        }
        (Scale::Linear, Room::FromZero) => {
            let (low, high) = (low.min(0.0), high.max(0.0));
            if low == high { (0.0, 1.0) } else { (low, high + 0.04 * (high - low)) }
        }
        (Scale::Linear, _) if high - low <= 1e-12 * high.abs().max(low.abs()) => {
            let half = if high == 0.0 { 0.5 } else { 0.05 * high.abs() };
            (low - half, high + half)
        }
        (Scale::Linear, Room::Exact) => (low, high),
        (Scale::Linear, Room::Around) => {
            let margin = 0.04 * (high - low);
            (low - margin, high + margin)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_remaining_fall_to_the_right() {
        let axis = Axis::weights_remaining();
        let placed = Placed::new(&axis, [1.0, 0.01].into_iter(), Room::Exact, 0.0, 200.0);
        for (value, expected) in [(1.0, 0.0), (0.1, 100.0), (0.01, 200.0)] {
            assert!((placed.position(value).unwrap() - expected).abs() < 1e-9);
        }
        assert_eq!([0.0, -1.0, f64::NAN, f64::INFINITY].map(|value| placed.position(value)), [None; 4]);
    }

    #[test]
    fn numbers_beyond_all_measure_are_left_out() {
        for axis in [Axis::linear("x"), Axis::log("x")] {
            let values = [f64::MIN_POSITIVE, 1e-300, 2.0, 1e300, f64::MAX];
            let placed = Placed::new(&axis, values.into_iter(), Room::Around, 0.0, 100.0);
            assert!(placed.position(2.0).is_some() && placed.position(1e300).is_none());
            assert!(placed.ticks(|_| 10.0).len() < 100);
        }
    }

    #[test]
    fn nothing_and_one_value_have_a_range() {
        for axis in [Axis::linear("x"), Axis::log("x"), Axis::percent("x")] {
            for values in [vec![], vec![0.0], vec![0.7], vec![0.7, 0.7], vec![f64::NAN]] {
                for room in [Room::Around, Room::FromZero, Room::Exact] {
                    let placed = Placed::new(&axis, values.iter().copied(), room, 0.0, 100.0);
                    assert!(placed.low < placed.high && placed.low.is_finite() && placed.high.is_finite());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn data_lies_between_the_ends(values in prop::collection::vec(1e-6_f64..1e6, 1..20), is_log: bool) {
            let axis = if is_log { Axis::log("x") } else { Axis::linear("x") };
            let placed = Placed::new(&axis, values.iter().copied(), Room::Around, 10.0, 400.0);
            for value in values {
                let position = placed.position(value).unwrap();
                prop_assert!((10.0..=400.0).contains(&position), "{position}");
            }
        }
    }
}
