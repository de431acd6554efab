//! Histograms over each other: weights at the start and at the end.

use super::axis::{Axis, Room};
use super::canvas::{Canvas, Figure};
use super::frame::{Shown, frame};
use super::legend::{Swatch, legend};
use super::style;
use super::text::escape_xml;

/// Counts over common bins, one outline for each series.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The heading.
    pub title: String,
    /// For those who cannot see it; made of axes and names where it is empty.
    pub description: String,
    /// Across: what is counted.
    pub x: Axis,
    /// Upwards: how many. On a logarithmic axis empty bins lie on the ground.
    pub y: Axis,
    /// Ends of the bins, rising: one more than there are bins.
    pub edges: Vec<f64>,
    /// Name and counts of each series.
    pub series: Vec<(String, Vec<f64>)>,
}

/// How many of `values` lie in each bin; the last bin holds its upper end. What lies outside is not counted.
pub fn count(values: impl IntoIterator<Item = f64>, edges: &[f64]) -> Vec<f64> {
    let mut counts = vec![0.0; edges.len().saturating_sub(1)];
    for value in values {
        let after = edges.partition_point(|edge| *edge <= value);
        let bin = if edges.last() == Some(&value) { counts.len() } else { after };
        if let Some(count) = bin.checked_sub(1).and_then(|bin| counts.get_mut(bin)) {
            *count += 1.0;
        }
    }
    counts
}

/// The ends of `n` equally wide bins from `low` to `high`; no bins where `low` is not below `high`.
pub fn even_edges(low: f64, high: f64, n: usize) -> Vec<f64> {
    if !(low < high && low.is_finite() && high.is_finite()) || n == 0 {
        return Vec::new();
    }
    (0..=n).map(|index| low + (high - low) * index as f64 / n as f64).collect()
}

impl Histogram {
    /// The drawing.
    pub fn figure(&self) -> Figure {
        let mut canvas = Canvas::default();
        let counts = || self.series.iter().flat_map(|(_, counts)| counts.iter().copied());
        let x = Shown { axis: &self.x, values: self.edges.clone(), room: Room::Exact };
        let y = Shown { axis: &self.y, values: counts().collect(), room: Room::FromZero };
        let frame = frame(&mut canvas, &self.title, x, y);
        let mut is_empty = true;
        for (index, (name, counts)) in self.series.iter().enumerate() {
            let mut outline = Vec::new();
            for (edges, count) in self.edges.windows(2).zip(counts).filter(|(_, count)| count.is_finite()) {
                let (Some(left), Some(right)) = (frame.x.position(edges[0]), frame.x.position(edges[1])) else {
                    continue;
                };
                let height = frame.y.clamped(*count);
                outline.extend([(left, height), (right, height)]);
            }
            let (Some(first), Some(last)) = (outline.first().copied(), outline.last().copied()) else { continue };
            is_empty = false;
            let ground = frame.bottom;
            let closed: Vec<(f64, f64)> =
                [(first.0, ground)].into_iter().chain(outline).chain([(last.0, ground)]).collect();
            canvas.open_group(&format!("series {}", style::class(index)));
            canvas.push(&format!("<title>{}</title>", escape_xml(name)));
            canvas.closed_path("band", &closed);
            canvas.path("line", &closed, &style::dash(index));
            canvas.close_group();
        }
        if is_empty {
            frame.nothing(&mut canvas);
        }
        let names: Vec<&str> = self.series.iter().map(|(name, _)| name.as_str()).collect();
        let end = if names.is_empty() { frame.end } else { legend(&mut canvas, &names, Swatch::Outline, frame.end) };
        let described = if self.description.is_empty() {
            format!("{} by {}: {}", self.y.label, self.x.label, names.join(", "))
        } else {
            self.description.clone()
        };
        canvas.figure(&self.title, &described, super::WIDTH, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_inside_is_counted_once() {
        let edges = even_edges(0.0, 1.0, 4);
        assert_eq!(edges, [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(count([0.0, 0.25, 0.3, 0.99, 1.0, -0.1, 1.1, f64::NAN], &edges), [1.0, 2.0, 0.0, 2.0]);
        assert!(count([1.0], &[]).is_empty() && even_edges(1.0, 1.0, 4).is_empty());
    }
}
