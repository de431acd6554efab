//! The plot area with its two axes.

use super::WIDTH;
use super::axis::{Axis, Placed, Room};
use super::canvas::{Anchor, Canvas};
use super::text;

/// Height of the plot area in pixels.
const HEIGHT: f64 = 220.0;

/// Size of ticks and labels in pixels.
pub(super) const SIZE: f64 = 13.0;

/// An axis with the data that it must show.
pub(super) struct Shown<'a> {
    pub(super) axis: &'a Axis,
    pub(super) values: Vec<f64>,
    pub(super) room: Room,
}

/// Where data are drawn.
pub(super) struct Frame<'a> {
    pub(super) x: Placed<'a>,
    pub(super) y: Placed<'a>,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    /// Below the axis's label: where a legend may begin.
    pub(super) end: f64,
}

/// Draws title, grid, ticks and labels.
pub(super) fn frame<'a>(canvas: &mut Canvas, title: &str, x: Shown<'a>, y: Shown<'a>) -> Frame<'a> {
    let heading = canvas.heading(title, WIDTH);
    // The label of the y axis lies above it, so that it is read without turning one's head.
    canvas.text("label", Anchor::Start, (8.0, heading + 11.0), &text::shortened(&y.axis.label, SIZE, WIDTH - 16.0));
    let top = heading + 24.0;
    let bottom = top + HEIGHT;
    let right = WIDTH - 24.0;

    let y = Placed::new(y.axis, y.values.into_iter(), y.room, bottom, top);
    let y_ticks = y.ticks(|_| 20.0);
    let widest = y_ticks.iter().map(|tick| text::width(&tick.label, SIZE)).fold(0.0, f64::max);
    let left = 8.0 + widest.max(16.0) + 6.0;
    canvas.open_group("y-axis");
    for tick in &y_ticks {
        canvas.line("grid", (left, tick.position), (right, tick.position));
        canvas.text("tick", Anchor::End, (left - 6.0, tick.position + 4.0), &tick.label);
    }
    canvas.close_group();

    let x_label = text::shortened(&x.axis.label, SIZE, WIDTH - 16.0);
    let x = Placed::new(x.axis, x.values.into_iter(), x.room, left, right);
    canvas.open_group("x-axis");
    canvas.line("axis", (left, bottom), (right, bottom));
    for tick in x.ticks(|label| text::width(label, SIZE) + 10.0) {
        canvas.line("axis", (tick.position, bottom), (tick.position, bottom + 4.0));
        canvas.text("tick", Anchor::Middle, (tick.position, bottom + 17.0), &tick.label);
    }
    canvas.text("label", Anchor::Middle, ((left + right) / 2.0, bottom + 35.0), &x_label);
    canvas.close_group();
    Frame { x, y, left, right, top, bottom, end: bottom + 44.0 }
}

impl Frame<'_> {
    /// Says in the plot area that there is nothing to show.
    pub(super) fn nothing(&self, canvas: &mut Canvas) {
        let middle = ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0);
        canvas.text("label", Anchor::Middle, middle, "no data");
    }

    /// The pixels of a point; `None` where it cannot be shown.
    pub(super) fn point(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        Some((self.x.position(x)?, self.y.position(y)?))
    }
}
