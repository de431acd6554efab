//! A grid of numbers, shaded: how far masks overlap between seeds or levels.

use super::axis::TickFormat;
use super::canvas::{Anchor, Canvas, Figure};
use super::frame::SIZE;
use super::{WIDTH, text, ticks};

/// Numbers by row and column.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// The heading.
    pub title: String,
    /// For those who cannot see it; made of the numbers' range where it is empty.
    pub description: String,
    /// Names of the columns, from left to right.
    pub columns: Vec<String>,
    /// Names of the rows, from top to bottom.
    pub rows: Vec<String>,
    /// A row of values for each row; what is missing or not finite is an empty cell.
    pub values: Vec<Vec<f64>>,
    /// The values of the palest and the darkest cell; those of the data where there are none.
    pub range: Option<(f64, f64)>,
    /// How numbers are written: "0.93" or "93 %".
    pub format: TickFormat,
}

impl HeatMap {
    /// The drawing; wider than other figures where the numbers need it.
    pub fn figure(&self) -> Figure {
        const ROW: f64 = 24.0;
        const LEAST_SHADE: f64 = 0.04;
        const MOST_SHADE: f64 = 0.45; // beyond it a number would be hard to read in one of the themes
        let n_columns = self.columns.len().max(1) as f64;
        let cells: Vec<Vec<String>> =
            self.values.iter().map(|row| row.iter().map(|value| self.number(*value)).collect()).collect();
        let longest =
            |names: &mut dyn Iterator<Item = &String>| names.map(|name| text::width(name, SIZE)).fold(0.0, f64::max);
        let left = 8.0 + longest(&mut self.rows.iter()).min(0.35 * WIDTH) + 6.0;
        let needed = longest(&mut cells.iter().flatten()) + 6.0;
        let cell = ((WIDTH - left - 8.0) / n_columns).clamp(needed, needed.max(64.0));
        let width = WIDTH.max(left + cell * n_columns + 8.0);
        let mut canvas = Canvas::default();
        let heading = canvas.heading(&self.title, width);
        // Names of columns stand upright where one is wider than its column.
        let widest = longest(&mut self.columns.iter());
        let upright = widest + 4.0 > cell;
        let top = heading + if upright { widest.min(120.0) + 8.0 } else { 20.0 };
        for (index, name) in self.columns.iter().enumerate() {
            let x = left + cell * (index as f64 + 0.5);
            if upright {
                let name = text::shortened(name, SIZE, 120.0);
                let turn =
                    format!(" transform=\"rotate(-90 {} {})\"", text::coordinate(x + 4.0), text::coordinate(top - 6.0));
                canvas.text_with("name", Anchor::Start, (x + 4.0, top - 6.0), &name, &turn);
            } else {
                canvas.text("name", Anchor::Middle, (x, top - 7.0), name);
            }
        }
        let (low, high) = self.ends();
        for (index, name) in self.rows.iter().enumerate() {
            let y = top + ROW * index as f64;
            let label = text::shortened(name, SIZE, left - 13.5);
            canvas.text("name", Anchor::End, (left - 6.0, y + ROW / 2.0 + 4.0), &label);
            let values = self.values.get(index).into_iter().flatten().zip(cells.get(index).into_iter().flatten());
            for (column, (value, number)) in values.enumerate().filter(|(_, (value, _))| value.is_finite()) {
                let Some(column_name) = self.columns.get(column) else { break };
                let share = if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 1.0 };
                let shade = LEAST_SHADE + share * (MOST_SHADE - LEAST_SHADE);
                let x = left + cell * column as f64;
                let look = format!(" fill-opacity=\"{}\"", text::coordinate(shade));
                let hint = format!("{name}, {column_name}: {number}");
                canvas.open_group("s0");
                canvas.rectangle("bar", (x + 0.5, y + 0.5), (cell - 1.0, ROW - 1.0), &look, &hint);
                canvas.text("cell", Anchor::Middle, (x + cell / 2.0, y + ROW / 2.0 + 4.0), number);
                canvas.close_group();
            }
        }
        if self.rows.is_empty() || self.columns.is_empty() {
            canvas.text("label", Anchor::Middle, (width / 2.0, top + 14.0), "no data");
        }
        let described = if self.description.is_empty() {
            format!(
                "{} rows by {} columns, from {} to {}",
                self.rows.len(),
                self.columns.len(),
                self.number(low),
                self.number(high)
            )
        } else {
            self.description.clone()
        };
        canvas.figure(&self.title, &described, width, top + ROW * self.rows.len().max(1) as f64 + 8.0)
    }

    fn number(&self, value: f64) -> String {
        match self.format {
            TickFormat::Plain if value.abs() < 10.0 => format!("{value:.2}"),
            TickFormat::Percent if value.is_finite() => format!("{:.0} %", 100.0 * value),
            format => ticks::value(value, format),
        }
    }

    fn ends(&self) -> (f64, f64) {
        let finite = || self.values.iter().flatten().copied().filter(|value| value.is_finite());
        let data = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
        let data = if data.0 <= data.1 { data } else { (0.0, 1.0) };
        self.range.filter(|(low, high)| low.is_finite() && high.is_finite() && low < high).unwrap_or(data)
    }
}
