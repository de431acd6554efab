//! Horizontal bars with their names: density of each layer.

use super::WIDTH;
use super::axis::{Axis, Placed, Room};
use super::canvas::{Anchor, Canvas, Figure};
use super::frame::SIZE;
use super::legend::{Swatch, legend};
use super::style;
use super::text;

/// One name and its bars.
#[derive(Clone, Debug, PartialEq)]
pub struct BarRow {
    /// "layer1.0.conv1.weight"
    pub label: String,
    /// One value for each name of the chart; what is not finite has no bar.
    pub values: Vec<f64>,
}

/// A row of bars for each layer, from zero.
#[derive(Clone, Debug, PartialEq)]
pub struct BarChart {
    /// The heading.
    pub title: String,
    /// For those who cannot see it; made of the axis's label and the rows where it is empty.
    pub description: String,
    /// Across.
    pub axis: Axis,
    /// What the bars of a row are; no legend is drawn for a single one.
    pub names: Vec<String>,
    /// From top to bottom.
    pub rows: Vec<BarRow>,
}

impl BarChart {
    /// The drawing.
    pub fn figure(&self) -> Figure {
        let mut canvas = Canvas::default();
        let top = canvas.heading(&self.title, WIDTH) + 4.0;
        let n_bars = self.names.len().max(1);
        let bar = if n_bars == 1 { 11.0 } else { 8.0 };
        let row = n_bars as f64 * bar + 6.0;
        let bottom = top + row * self.rows.len().max(1) as f64;
        let widest = self.rows.iter().map(|row| text::width(&row.label, SIZE)).fold(0.0, f64::max);
        let left = 8.0 + widest.min(0.4 * WIDTH) + 6.0;
        // A value is written after its bar.
        let all = self.rows.iter().flat_map(|row| row.values.iter().take(n_bars).copied());
        let values: Vec<f64> = all.filter(|value| value.is_finite()).collect();
        let written = values.iter().map(|value| text::width(&self.axis.value(*value), SIZE)).fold(0.0, f64::max);
        let right = WIDTH - written.max(20.0) - 12.0;
        let placed = Placed::new(&self.axis, values.into_iter(), Room::FromZero, left, right);
        canvas.open_group("x-axis");
        for tick in placed.ticks(|label| text::width(label, SIZE) + 10.0) {
            canvas.line("grid", (tick.position, top), (tick.position, bottom));
            canvas.text("tick", Anchor::Middle, (tick.position, bottom + 15.0), &tick.label);
        }
        let label = text::shortened(&self.axis.label, SIZE, WIDTH - 16.0);
        canvas.text("label", Anchor::Middle, ((left + right) / 2.0, bottom + 32.0), &label);
        canvas.close_group();
        let zero = placed.clamped(0.0);
        for (index, bars) in self.rows.iter().enumerate() {
            let y = top + row * index as f64 + 3.0;
            let label = text::shortened(&bars.label, SIZE, left - 13.5);
            canvas.text("name", Anchor::End, (left - 6.0, y + n_bars as f64 * bar / 2.0 + 4.0), &label);
            for (which, value) in bars.values.iter().take(n_bars).enumerate().filter(|(_, value)| value.is_finite()) {
                let end = placed.clamped(*value);
                let at = y + which as f64 * bar;
                canvas.open_group(&format!("series {}", style::class(which)));
                let hint = format!("{}: {}", bars.label, self.axis.value(*value));
                canvas.rectangle("bar", (zero.min(end), at), ((end - zero).abs(), bar - 1.0), "", &hint);
                canvas.close_group();
                if n_bars == 1 {
                    let from = zero.max(end) + 4.0;
                    canvas.text("tick", Anchor::Start, (from, at + 9.0), &self.axis.value(*value));
                }
            }
        }
        canvas.line("axis", (zero, top), (zero, bottom));
        if self.rows.is_empty() {
            canvas.text("label", Anchor::Middle, ((left + right) / 2.0, top + 14.0), "no data");
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let end =
            if names.len() > 1 { legend(&mut canvas, &names, Swatch::Fill, bottom + 42.0) } else { bottom + 40.0 };
        let described = if self.description.is_empty() {
            let rows: Vec<&str> = self.rows.iter().map(|row| row.label.as_str()).collect();
            format!("{} of {}", self.axis.label, rows.join(", "))
        } else {
            self.description.clone()
        };
        canvas.figure(&self.title, &described, WIDTH, end)
    }
}
