//! Lines over a common axis, with what is known of their spread.

use super::axis::{Axis, Room};
use super::canvas::{Canvas, Figure};
use super::frame::{Frame, Shown, frame};
use super::legend::{Swatch, legend};
use super::style;
use super::text::escape_xml;

/// A value, with the ends of its interval where there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// How much; NaN leaves a gap.
    pub y: f64,
    /// Lower end of the interval.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
}

impl Point {
    /// A value without an interval.
    pub fn new(x: f64, y: f64) -> Self {
        Self { x, y, low: None, high: None }
    }
}

/// One arm's values.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The arm, as the legend names it.
    pub name: String,
    /// Its values, joined in this order.
    pub points: Vec<Point>,
}

/// How intervals are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// A shaded band: for few arms or many points.
    Band,
    /// A bar with ends at each point: for many arms. Arms stand a little apart, so that bars do not hide each other.
    Whiskers,
}

/// Values of several arms over one axis: accuracy against weights remaining, learning curves, paths between networks.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// The heading.
    pub title: String,
    /// For those who cannot see it; made of title, axes and names where it is empty.
    pub description: String,
    /// Across.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The arms, in the legend's order.
    pub series: Vec<Series>,
    /// How intervals are drawn.
    pub spread: Spread,
}

/// A point's pixels with its value.
type Drawn = ((f64, f64), Point);

impl LineChart {
    /// The drawing.
    pub fn figure(&self) -> Figure {
        let mut canvas = Canvas::default();
        let points = || self.series.iter().flat_map(|series| &series.points).filter(|point| point.y.is_finite());
        let ends = |point: &Point| [Some(point.y), point.low, point.high];
        let x = Shown { axis: &self.x, values: points().map(|point| point.x).collect(), room: Room::Around };
        let y = Shown { axis: &self.y, values: points().flat_map(ends).flatten().collect(), room: Room::Around };
        let frame = frame(&mut canvas, &self.title, x, y);
        let runs: Vec<Vec<Vec<Drawn>>> =
            self.series.iter().enumerate().map(|(index, series)| self.runs(&frame, index, series)).collect();
        // Intervals of all arms first: no band hides another arm's line.
        for (index, runs) in runs.iter().enumerate() {
            canvas.open_group(&style::class(index));
            runs.iter().for_each(|run| self.draw_spread(&mut canvas, &frame, run));
            canvas.close_group();
        }
        for (index, (series, runs)) in self.series.iter().zip(&runs).enumerate() {
            canvas.open_group(&format!("series {}", style::class(index)));
            self.draw_series(&mut canvas, index, series, runs);
            canvas.close_group();
        }
        if runs.iter().all(Vec::is_empty) {
            frame.nothing(&mut canvas);
        }
        let names: Vec<&str> = self.series.iter().map(|series| series.name.as_str()).collect();
        let end = if names.is_empty() { frame.end } else { legend(&mut canvas, &names, Swatch::Line, frame.end) };
        canvas.figure(&self.title, &self.described(&names), super::WIDTH, end)
    }

    /// A series in stretches without gaps.
    fn runs(&self, frame: &Frame<'_>, index: usize, series: &Series) -> Vec<Vec<Drawn>> {
        let apart = match self.spread {
            Spread::Whiskers => 1.5 * (index as f64 - (self.series.len() as f64 - 1.0) / 2.0),
            Spread::Band => 0.0,
        };
        let drawn: Vec<Option<Drawn>> = series
            .points
            .iter()
            .map(|point| {
                let (x, y) = frame.point(point.x, point.y)?;
                Some((((x + apart).clamp(frame.left, frame.right), y), *point))
            })
            .collect();
        drawn
            .split(Option::is_none)
            .filter(|run| !run.is_empty())
            .map(|run| run.iter().copied().flatten().collect())
            .collect()
    }

    fn draw_spread(&self, canvas: &mut Canvas, frame: &Frame<'_>, run: &[Drawn]) {
        // Stretches of points that have an interval.
        let interval = |(at, point): &Drawn| {
            let (low, high) = point.low.zip(point.high).filter(|(low, high)| low.is_finite() && high.is_finite())?;
            Some((at.0, frame.y.clamped(low), frame.y.clamped(high)))
        };
        let intervals: Vec<Option<(f64, f64, f64)>> = run.iter().map(interval).collect();
        for stretch in intervals.split(Option::is_none) {
            let stretch: Vec<(f64, f64, f64)> = stretch.iter().copied().flatten().collect();
            if self.spread == Spread::Band && stretch.len() > 1 {
                let upper = stretch.iter().map(|(x, _, high)| (*x, *high));
                let lower = stretch.iter().rev().map(|(x, low, _)| (*x, *low));
                canvas.closed_path("band", &upper.chain(lower).collect::<Vec<_>>());
                continue;
            }
            for (x, low, high) in stretch {
                canvas.path("whisker", &[(x, low), (x, high)], "");
                for end in [low, high] {
                    canvas.path("whisker", &[(x - 2.5, end), (x + 2.5, end)], "");
                }
            }
        }
    }

    fn draw_series(&self, canvas: &mut Canvas, index: usize, series: &Series, runs: &[Vec<Drawn>]) {
        const MOST_MARKERS: usize = 24;
        let n_points: usize = runs.iter().map(Vec::len).sum();
        // A long curve is marked now and then, each arm at other places, so that markers do not lie on each other.
        let every = if n_points <= MOST_MARKERS { 1 } else { n_points.div_ceil(8) };
        for run in runs.iter().filter(|run| run.len() > 1) {
            let pixels: Vec<(f64, f64)> = run.iter().map(|(at, _)| *at).collect();
            canvas.path("line", &pixels, &style::dash(index));
        }
        let first = if every == 1 { 0 } else { (index * every / self.series.len().max(1)) % every };
        let mut counted = 0;
        for run in runs {
            for ((x, y), point) in run {
                if counted % every == first || run.len() == 1 {
                    canvas.push(&style::marker(index, *x, *y, &escape_xml(&self.hint(series, point))));
                }
                counted += 1;
            }
        }
    }

    /// "ticket, 13.5 %: 97.81 % (97.6 % to 98.02 %)"
    fn hint(&self, series: &Series, point: &Point) -> String {
        let interval = point
            .low
            .zip(point.high)
            .map_or_else(String::new, |(low, high)| format!(" ({} to {})", self.y.value(low), self.y.value(high)));
        format!("{}, {}: {}{interval}", series.name, self.x.value(point.x), self.y.value(point.y))
    }

    fn described(&self, names: &[&str]) -> String {
        if !self.description.is_empty() {
            return self.description.clone();
        }
        format!("{} against {}: {}", self.y.label, self.x.label, names.join(", "))
    }
}
