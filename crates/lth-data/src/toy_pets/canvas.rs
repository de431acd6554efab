//! Anti-aliased shapes on an RGB canvas, with `+ - * /`, square root and comparisons only.
//!
//! Sine, cosine, exponential and power differ in the last bit between C libraries; the operators used here are
//! rounded the same way everywhere, so a picture has the same bytes on every machine. Angles are therefore given
//! as [`Turn`]s, made from a rational parametrisation of the circle.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

use crate::random::{Purpose, stream};

/// A colour: red, green, blue, nominally in `0..=1`.
pub(super) type Rgb = [f32; 3];

/// `a` at `t = 0`, `b` at `t = 1`.
pub(super) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [lerp(a[0], b[0], t), lerp(a[1], b[1], t), lerp(a[2], b[2], t)]
}

/// Every channel times `gain`.
pub(super) fn scale(colour: Rgb, gain: f32) -> Rgb {
    colour.map(|channel| channel * gain)
}

/// `a` at `t = 0`, `b` at `t = 1`.
pub(super) fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// Random numbers addressed by (seed, purpose, index); uniforms are made here, so that they do not change with the
/// distributions of the `rand` crate.
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of one picture.
    pub(super) fn new(seed: u64, purpose: Purpose, index: u64) -> Draw {
        Draw(stream(seed, purpose, index, 0))
    }

    pub(super) fn word(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in `0..1`.
    pub(super) fn unit(&mut self) -> f32 {
        (self.word() >> 8) as f32 / 16_777_216.0
    }

    /// Uniform in `low..high`.
    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        lerp(low, high, self.unit())
    }

    /// Uniform in `0..n`; 0 when `n` is 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.word()) * n as u64) >> 32) as usize
    }

    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Mean 0, deviation 1, within ±3.5: four uniforms added.
    pub(super) fn bell(&mut self) -> f32 {
        (self.unit() + self.unit() + self.unit() + self.unit() - 2.0) * 1.732_050_8
    }

    pub(super) fn rgb(&mut self, low: f32, high: f32) -> Rgb {
        [self.range(low, high), self.range(low, high), self.range(low, high)]
    }
}

/// A rotation as (cosine, sine).
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) cos: f32,
    pub(super) sin: f32,
}

impl Turn {
    /// The rotation whose half angle has the tangent `t`; for small `t` the angle is about `2 t` radians.
    pub(super) fn from_half_tangent(t: f32) -> Turn {
        let norm = 1.0 + t * t;
        Turn { cos: (1.0 - t * t) / norm, sin: 2.0 * t / norm }
    }

    pub(super) fn apply(self, [x, y]: [f32; 2]) -> [f32; 2] {
        [self.cos * x - self.sin * y, self.sin * x + self.cos * y]
    }

    pub(super) fn undo(self, [x, y]: [f32; 2]) -> [f32; 2] {
        [self.cos * x + self.sin * y, self.cos * y - self.sin * x]
    }

    pub(super) fn then(self, next: Turn) -> Turn {
        Turn { cos: self.cos * next.cos - self.sin * next.sin, sin: self.sin * next.cos + self.cos * next.sin }
    }
}

/// A filled outline in pixel coordinates.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Ellipse {
        centre: [f32; 2],
        radii: [f32; 2],
        turn: Turn,
    },
    /// A line whose half width goes from `radii[0]` at `from` to `radii[1]` at `to`, round at both ends.
    Stroke {
        from: [f32; 2],
        to: [f32; 2],
        radii: [f32; 2],
    },
    Triangle {
        corners: [[f32; 2]; 3],
    },
}

impl Shape {
    /// Distance to the outline in pixels, negative inside; exact enough near the outline for anti-aliasing.
    fn distance(&self, x: f32, y: f32) -> f32 {
        match self {
            Shape::Ellipse { centre, radii: [rx, ry], turn } => {
                let [px, py] = turn.undo([x - centre[0], y - centre[1]]);
                let (qx, qy) = (px / rx, py / ry);
                let to_outline = length(qx, qy);
                let slope = length(qx / rx, qy / ry);
                if slope > 1e-6 { to_outline * (to_outline - 1.0) / slope } else { -rx.min(*ry) }
            }
            Shape::Stroke { from, to, radii } => {
                let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
                let (px, py) = (x - from[0], y - from[1]);
                let along = ((px * dx + py * dy) / (dx * dx + dy * dy).max(1e-6)).clamp(0.0, 1.0);
                length(px - along * dx, py - along * dy) - lerp(radii[0], radii[1], along)
            }
            Shape::Triangle { corners: [a, b, c] } => {
                let area = cross(*a, *b, *c);
                let side = if area < 0.0 { -1.0 } else { 1.0 };
                let edge =
                    |p: [f32; 2], q: [f32; 2]| -side * cross(p, q, [x, y]) / length(q[0] - p[0], q[1] - p[1]).max(1e-6);
                edge(*a, *b).max(edge(*b, *c)).max(edge(*c, *a))
            }
        }
    }

    /// Smallest and largest x, then smallest and largest y.
    fn bounds(&self) -> [f32; 4] {
        match self {
            Shape::Ellipse { centre, radii, .. } => {
                let reach = radii[0].max(radii[1]);
                [centre[0] - reach, centre[0] + reach, centre[1] - reach, centre[1] + reach]
            }
            Shape::Stroke { from, to, radii } => {
                let reach = radii[0].max(radii[1]);
                [
                    from[0].min(to[0]) - reach,
                    from[0].max(to[0]) + reach,
                    from[1].min(to[1]) - reach,
                    from[1].max(to[1]) + reach,
                ]
            }
            Shape::Triangle { corners: [a, b, c] } => {
                [a[0].min(b[0]).min(c[0]), a[0].max(b[0]).max(c[0]), a[1].min(b[1]).min(c[1]), a[1].max(b[1]).max(c[1])]
            }
        }
    }
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// Twice the signed area of the triangle `a`, `b`, `c`.
fn cross(a: [f32; 2], b: [f32; 2], c: [f32; 2]) -> f32 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

/// Pixels as `f32` colours in row order.
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pixels: Vec<Rgb>,
}

impl Canvas {
    /// A canvas whose pixel (x, y) has the colour `paint(x, y)`; coordinates are those of pixel centres.
    pub(super) fn new(width: usize, height: usize, mut paint: impl FnMut(f32, f32) -> Rgb) -> Canvas {
        let mut pixels = Vec::with_capacity(width * height);
        for row in 0..height {
            for column in 0..width {
                pixels.push(paint(column as f32 + 0.5, row as f32 + 0.5));
            }
        }
        Canvas { width, height, pixels }
    }

    /// Paints `shape` over what is there. `softness` is the width of the outline's ramp in pixels; `opacity` in `0..=1`.
    pub(super) fn fill(&mut self, shape: &Shape, softness: f32, opacity: f32, paint: impl Fn(f32, f32) -> Rgb) {
        let [left, right, top, bottom] = shape.bounds();
        let columns = pixel_range(left - softness, right + softness, self.width);
        for row in pixel_range(top - softness, bottom + softness, self.height) {
            let y = row as f32 + 0.5;
            for column in columns.clone() {
                let x = column as f32 + 0.5;
                let cover = (0.5 - shape.distance(x, y) / softness).clamp(0.0, 1.0) * opacity;
                if cover > 0.0 {
                    let pixel = &mut self.pixels[row * self.width + column];
                    *pixel = mix(*pixel, paint(x, y), cover);
                }
            }
        }
    }

    /// Replaces each pixel by `change(x, y, colour)`, in row order.
    pub(super) fn map(&mut self, mut change: impl FnMut(f32, f32, Rgb) -> Rgb) {
        for (index, pixel) in self.pixels.iter_mut().enumerate() {
            let x = (index % self.width) as f32 + 0.5;
            let y = (index / self.width) as f32 + 0.5;
            *pixel = change(x, y, *pixel);
        }
    }

    /// The pixels as bytes, red, green, blue, in row order.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.pixels.iter().flat_map(|colour| colour.map(|channel| (channel * 255.0 + 0.5) as u8)).collect()
    }
}

/// The pixels whose centres may lie between `low` and `high`, within `0..n`.
fn pixel_range(low: f32, high: f32, n: usize) -> std::ops::Range<usize> {
    let first = (low.floor().max(0.0) as usize).min(n);
    let end = (high.floor().max(-1.0) + 1.0) as usize;
    first..end.clamp(first, n)
}

/// Smooth noise in `-1..1` with features of size 1, from a hashed lattice.
pub(super) fn noise(salt: u32, x: f32, y: f32) -> f32 {
    let (column, row) = (x.floor(), y.floor());
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (tx, ty) = (ease(x - column), ease(y - row));
    let (column, row) = (column as i32, row as i32);
    let at = |dx: i32, dy: i32| lattice(salt, column.wrapping_add(dx), row.wrapping_add(dy));
    lerp(lerp(at(0, 0), at(1, 0), tx), lerp(at(0, 1), at(1, 1), tx), ty)
}

/// A fixed number in `-1..1` for each lattice point.
fn lattice(salt: u32, column: i32, row: i32) -> f32 {
    let mut hash = salt ^ (column as u32).wrapping_mul(0x9E37_79B1) ^ (row as u32).wrapping_mul(0x85EB_CA77);
    hash = (hash ^ (hash >> 15)).wrapping_mul(0x2C1B_3C6D);
    hash = (hash ^ (hash >> 12)).wrapping_mul(0x297A_2D39);
    hash ^= hash >> 15;
    (hash >> 8) as f32 / 8_388_608.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPRIGHT: Turn = Turn { cos: 1.0, sin: 0.0 };

    fn covered(shape: &Shape) -> f32 {
        let mut canvas = Canvas::new(64, 64, |_, _| [0.0; 3]);
        canvas.fill(shape, 1.0, 1.0, |_, _| [1.0; 3]);
        canvas.pixels.iter().map(|pixel| pixel[0]).sum()
    }

    #[test]
    fn shapes_cover_their_area() {
        let circle = Shape::Ellipse { centre: [32.0, 32.0], radii: [10.0, 10.0], turn: UPRIGHT };
        assert!((covered(&circle) / 314.159 - 1.0).abs() < 0.01);
        let ellipse = Shape::Ellipse { centre: [30.3, 33.1], radii: [20.0, 8.0], turn: Turn::from_half_tangent(0.4) };
        assert!((covered(&ellipse) / 502.655 - 1.0).abs() < 0.02);
        let stroke = Shape::Stroke { from: [10.0, 20.0], to: [50.0, 20.0], radii: [4.0, 4.0] };
        assert!((covered(&stroke) / (320.0 + 50.265) - 1.0).abs() < 0.01);
        let triangle = Shape::Triangle { corners: [[10.0, 10.0], [50.0, 10.0], [10.0, 40.0]] };
        assert!((covered(&triangle) / 600.0 - 1.0).abs() < 0.02);
    }

    #[test]
    fn shapes_outside_the_canvas_paint_nothing() {
        let shape = Shape::Stroke { from: [-500.0, -20.0], to: [-100.0, 900.0], radii: [4.0, 1.0] };
        assert_eq!(covered(&shape), 0.0);
    }

    #[test]
    fn turns_keep_lengths_and_undo_themselves() {
        let turn = Turn::from_half_tangent(0.3).then(Turn::from_half_tangent(-0.7));
        let [x, y] = turn.apply([3.0, 4.0]);
        assert!((length(x, y) - 5.0).abs() < 1e-5);
        let [x, y] = turn.undo([x, y]);
        assert!((x - 3.0).abs() < 1e-5 && (y - 4.0).abs() < 1e-5);
    }

    #[test]
    fn draws_have_the_mean_and_deviation_they_claim() {
        let mut draw = Draw::new(7, Purpose::Look, 0);
        let n = 20_000;
        let bells: Vec<f32> = (0..n).map(|_| draw.bell()).collect();
        let mean = bells.iter().sum::<f32>() / n as f32;
        let variance = bells.iter().map(|b| (b - mean) * (b - mean)).sum::<f32>() / n as f32;
        // Four standard errors of each.
        assert!(mean.abs() < 4.0 / 141.0, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        assert!((0..1000).all(|_| draw.below(3) < 3));
        assert_eq!(draw.below(0), 0);
    }

    #[test]
    fn noise_is_continuous_across_its_lattice() {
        for step in -20..20 {
            let x = step as f32;
            assert!((noise(5, x - 1e-3, 0.4) - noise(5, x + 1e-3, 0.4)).abs() < 1e-2);
        }
    }
}
