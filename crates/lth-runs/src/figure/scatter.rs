//! Points with names: time against accuracy.

use super::axis::{Axis, Room};
use super::canvas::{Anchor, Canvas, Figure};
use super::frame::{Frame, SIZE, Shown, frame};
use super::legend::{Swatch, legend};
use super::style;
use super::text;

/// One arm.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterPoint {
    /// Its name.
    pub name: String,
    /// Across.
    pub x: f64,
    /// Upwards.
    pub y: f64,
    /// Interval of `x`.
    pub x_interval: Option<(f64, f64)>,
    /// Interval of `y`.
    pub y_interval: Option<(f64, f64)>,
}

/// One point for each arm, named where it lies, or below where names would lie on each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Scatter {
    /// The heading.
    pub title: String,
    /// For those who cannot see it; made of title, axes and names where it is empty.
    pub description: String,
    /// Across.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The arms.
    pub points: Vec<ScatterPoint>,
}

/// Left, top, right, bottom in pixels.
type Box4 = [f64; 4];

impl Scatter {
    /// The drawing.
    pub fn figure(&self) -> Figure {
        let mut canvas = Canvas::default();
        let shown = || self.points.iter().filter(|point| point.x.is_finite() && point.y.is_finite());
        let with = |value: f64, interval: Option<(f64, f64)>| {
            let (low, high) = interval.unwrap_or((value, value));
            [value, low, high]
        };
        let xs = shown().flat_map(|point| with(point.x, point.x_interval)).collect();
        let ys = shown().flat_map(|point| with(point.y, point.y_interval)).collect();
        let x = Shown { axis: &self.x, values: xs, room: Room::Around };
        let y = Shown { axis: &self.y, values: ys, room: Room::Around };
        let frame = frame(&mut canvas, &self.title, x, y);
        let places: Vec<Option<(f64, f64)>> = self.points.iter().map(|point| frame.point(point.x, point.y)).collect();
        for (index, (point, place)) in self.points.iter().zip(&places).enumerate() {
            let Some((x, y)) = *place else { continue };
            canvas.open_group(&format!("series {}", style::class(index)));
            let whole =
                |interval: Option<(f64, f64)>| interval.filter(|(low, high)| low.is_finite() && high.is_finite());
            if let Some((low, high)) = whole(point.x_interval) {
                canvas.path("whisker", &[(frame.x.clamped(low), y), (frame.x.clamped(high), y)], "");
            }
            if let Some((low, high)) = whole(point.y_interval) {
                canvas.path("whisker", &[(x, frame.y.clamped(low)), (x, frame.y.clamped(high))], "");
            }
            let hint = format!("{}: {}, {}", point.name, self.x.value(point.x), self.y.value(point.y));
            canvas.push(&style::marker(index, x, y, &text::escape_xml(&hint)));
            canvas.close_group();
        }
        let names: Vec<&str> = self.points.iter().map(|point| point.name.as_str()).collect();
        let end = match labels(&frame, &names, &places) {
            Some(labels) => {
                canvas.open_group("labels");
                for (name, [left, _, _, bottom]) in labels {
                    canvas.text("name", Anchor::Start, (left, bottom - 4.0), name);
                }
                canvas.close_group();
                frame.end
            }
            None => legend(&mut canvas, &names, Swatch::Marker, frame.end),
        };
        if places.iter().all(Option::is_none) {
            frame.nothing(&mut canvas);
        }
        let described = if self.description.is_empty() {
            format!("{} against {}: {}", self.y.label, self.x.label, names.join(", "))
        } else {
            self.description.clone()
        };
        canvas.figure(&self.title, &described, super::WIDTH, end)
    }
}

/// A free place for every name, or `None` if one finds none. A point that is not shown needs none.
fn labels<'a>(frame: &Frame<'_>, names: &[&'a str], places: &[Option<(f64, f64)>]) -> Option<Vec<(&'a str, Box4)>> {
    let mut taken: Vec<Box4> = places.iter().flatten().map(|(x, y)| [x - 5.0, y - 5.0, x + 5.0, y + 5.0]).collect();
    let mut labels = Vec::new();
    for (name, place) in names.iter().zip(places) {
        let Some((x, y)) = *place else { continue };
        let (width, height) = (text::width(name, SIZE), 15.0);
        let free = |area: &Box4| {
            let inside =
                area[0] >= frame.left && area[2] <= frame.right && area[1] >= frame.top && area[3] <= frame.bottom;
            let apart =
                |other: &Box4| area[2] <= other[0] || other[2] <= area[0] || area[3] <= other[1] || other[3] <= area[1];
            inside && taken.iter().all(apart)
        };
        let at = |left: f64, top: f64| [left, top, left + width, top + height];
        let area = [
            at(x + 7.0, y - height / 2.0),
            at(x - 7.0 - width, y - height / 2.0),
            at(x - width / 2.0, y - 6.0 - height),
            at(x - width / 2.0, y + 6.0),
            at(x + 6.0, y - 5.0 - height),
            at(x + 6.0, y + 5.0),
            at(x - 6.0 - width, y - 5.0 - height),
            at(x - 6.0 - width, y + 5.0),
        ]
        .into_iter()
        .find(free)?;
        taken.push(area);
        labels.push((*name, area));
    }
    Some(labels)
}
