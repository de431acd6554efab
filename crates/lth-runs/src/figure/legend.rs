//! Names below a drawing, in as many columns as their widths allow.

use super::WIDTH;
use super::canvas::{Anchor, Canvas};
use super::frame::SIZE;
use super::style;
use super::text;

/// What stands before a name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Swatch {
    /// A dashed line with a marker.
    Line,
    /// A marker.
    Marker,
    /// A filled square.
    Fill,
    /// A shaded square with a dashed line.
    Outline,
}

/// Draws names, each in its arm's style, from `y` downwards; where the legend ends.
pub(super) fn legend(canvas: &mut Canvas, names: &[&str], swatch: Swatch, y: f64) -> f64 {
    const ROW: f64 = 19.0;
    let indent = if matches!(swatch, Swatch::Line | Swatch::Outline) { 38.0 } else { 20.0 };
    let room = WIDTH - 16.0;
    let names: Vec<String> = names.iter().map(|name| text::shortened(name, SIZE, room - indent)).collect();
    let widest = names.iter().map(|name| text::width(name, SIZE)).fold(0.0, f64::max) + indent + 14.0;
    let n_columns = ((room / widest).floor() as usize).clamp(1, names.len().max(1));
    let column = room / n_columns as f64;
    canvas.open_group("legend");
    for (index, name) in names.iter().enumerate() {
        let left = 8.0 + column * (index % n_columns) as f64;
        let middle = y + ROW * ((index / n_columns) as f64 + 0.5);
        canvas.open_group(&style::class(index));
        match swatch {
            Swatch::Line => {
                canvas.path("line", &[(left, middle), (left + 30.0, middle)], &style::dash(index));
                canvas.push(&style::marker(index, left + 15.0, middle, ""));
            }
            Swatch::Marker => canvas.push(&style::marker(index, left + 7.0, middle, "")),
            Swatch::Outline => {
                canvas.rectangle("band", (left, middle - 5.0), (30.0, 10.0), "", "");
                canvas.path("line", &[(left, middle - 5.0), (left + 30.0, middle - 5.0)], &style::dash(index));
            }
            Swatch::Fill => canvas.rectangle("bar", (left, middle - 5.0), (12.0, 10.0), "", ""),
        }
        canvas.text("name", Anchor::Start, (left + indent, middle + 4.0), name);
        canvas.close_group();
    }
    canvas.close_group();
    y + ROW * names.len().div_ceil(n_columns) as f64 + 6.0
}
