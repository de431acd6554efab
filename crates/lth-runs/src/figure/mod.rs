//! Figures as SVG text: plain data in, the same bytes out every time, no fonts and no drawing library.
//!
//! Text stays text, so that it can be selected, searched and read aloud; colours are CSS variables, so that a figure
//! follows the reader's light or dark theme and prints on white; arms differ by colour, marker and dash, so that they
//! can be told apart in grey and by those who see colours otherwise. Points that are not finite (or, on a
//! logarithmic axis, not positive) leave a gap.
//!
//! ```
//! use lth_runs::figure::{Axis, LineChart, Point, Series, Spread};
//!
//! let ticket = Series { name: "ticket".into(), points: vec![
//!     Point { x: 1.0, y: 0.978, low: Some(0.976), high: Some(0.980) },
//!     Point { x: 0.21, y: 0.981, low: Some(0.980), high: Some(0.982) },
//! ]};
//! let figure = LineChart {
//!     title: "LeNet-300-100 on MNIST".into(),
//!     description: String::new(),
//!     x: Axis::weights_remaining(),
//!     y: Axis::percent("test accuracy"),
//!     series: vec![ticket],
//!     spread: Spread::Whiskers,
//! }.figure();
//! assert!(figure.svg().starts_with("<svg "));
//! ```

mod axis;
mod bars;
mod canvas;
mod frame;
mod heat_map;
mod histogram;
mod legend;
mod line_chart;
mod pictures;
mod scatter;
mod style;
mod text;
mod ticks;

pub use axis::{Axis, Direction, Scale, TickFormat};
pub use bars::{BarChart, BarRow};
pub use canvas::Figure;
pub use heat_map::HeatMap;
pub use histogram::{Histogram, count, even_edges};
pub use line_chart::{LineChart, Point, Series, Spread};
pub use pictures::{Outcome, Picture, PictureGrid, png_uri};
pub use scatter::{Scatter, ScatterPoint};
pub use style::STYLE;
pub use text::escape_xml;

/// The width that figures are drawn for, in CSS pixels; they scale down with their column.
pub const WIDTH: f64 = 480.0;
