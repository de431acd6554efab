//! The picture around the pet: size, background, clutter, light and noise. Nothing here depends on the label.

use super::Difficulty;
use super::canvas::{Canvas, Draw, Rgb, Shape, Turn, lerp, mix, noise};
use super::pet::Frame;

/// Width and height: each `side` times 0.8 to 1.3, never equal.
pub(super) fn size(side: u32, draw: &mut Draw) -> (usize, usize) {
    let length = |t: f32| (side as f32 * t + 0.5) as usize;
    let width = length(draw.range(0.8, 1.3)).max(1);
    let height = length(draw.range(0.8, 1.3)).max(1);
    (width, if width == height { height + 1 } else { height })
}

/// Where the pet is: scale, place and tilt. A portrait fills the picture with the head.
pub(super) fn place(width: usize, height: usize, is_portrait: bool, draw: &mut Draw) -> Frame {
    let short = width.min(height) as f32;
    let unit = short * if is_portrait { draw.range(0.32, 0.44) } else { draw.range(0.22, 0.31) };
    let shift = [short * draw.range(-0.10, 0.10), short * draw.range(-0.08, 0.08)];
    let middle = if is_portrait { [0.0, 0.3] } else { [0.35, 0.8] };
    let flip = if draw.chance(0.5) { -1.0 } else { 1.0 };
    Frame {
        origin: [
            0.5 * width as f32 + shift[0] - flip * middle[0] * unit,
            0.5 * height as f32 + shift[1] - middle[1] * unit,
        ],
        unit,
        turn: Turn::from_half_tangent(draw.range(-0.1, 0.1)),
        flip,
    }
}

/// A wall over a floor, each a gradient with slow noise.
pub(super) fn background(width: usize, height: usize, draw: &mut Draw) -> Canvas {
    let mut colour = || {
        let grey = draw.range(0.2, 0.9);
        mix([grey; 3], draw.rgb(0.1, 0.95), 0.5)
    };
    let (top, wall, floor) = (colour(), colour(), colour());
    let wall = mix(top, wall, 0.5);
    let horizon = draw.range(0.35, 1.2) * height as f32;
    let slope = draw.range(-0.15, 0.15);
    let salt = draw.word();
    let grain = draw.range(0.0, 0.18);
    let feature = draw.range(4.0, 30.0);
    Canvas::new(width, height, |x, y| {
        let under = (0.5 + (y - horizon - slope * x) / 3.0).clamp(0.0, 1.0);
        let sky = mix(top, wall, y / height as f32);
        let cloud = grain * noise(salt, x / feature, y / feature);
        mix(sky, floor, under).map(|channel| channel + cloud)
    })
}

/// Shapes of any colour: discs, bars, triangles and pairs of discs, the stuff ears and eyes are made of too.
pub(super) fn clutter(canvas: &mut Canvas, count: usize, reach: (f32, f32), draw: &mut Draw) {
    let short = canvas.width.min(canvas.height) as f32;
    for _ in 0..count {
        let at = [draw.range(0.0, canvas.width as f32), draw.range(0.0, canvas.height as f32)];
        let size = short * draw.range(reach.0, reach.1);
        let colour = draw.rgb(0.05, 0.95);
        let to = [at[0] + size * draw.range(-2.0, 2.0), at[1] + size * draw.range(-2.0, 2.0)];
        let shape = match draw.below(3) {
            0 => Shape::Ellipse {
                centre: at,
                radii: [size, size * draw.range(0.4, 1.0)],
                turn: Turn::from_half_tangent(draw.range(-1.0, 1.0)),
            },
            1 => Shape::Stroke { from: at, to, radii: [size * draw.range(0.1, 0.5), size * draw.range(0.05, 0.4)] },
            _ => Shape::Triangle {
                corners: [at, to, [at[0] + size * draw.range(-2.0, 2.0), at[1] + size * draw.range(-2.0, 2.0)]],
            },
        };
        let opacity = draw.range(0.6, 1.0);
        canvas.fill(&shape, 1.0, opacity, |_, _| colour);
    }
}

/// Exposure, contrast, colour cast and a light that falls off across the picture; then noise per pixel.
pub(super) fn light_and_noise(canvas: &mut Canvas, difficulty: &Difficulty, draw: &mut Draw) {
    let gain = draw.range(0.8, 1.15);
    let contrast = draw.range(0.75, 1.1);
    let cast: Rgb = [0.0; 3].map(|_: f32| 1.0 + 0.06 * draw.bell());
    let fall = [draw.range(-0.3, 0.3), draw.range(-0.3, 0.3)];
    let noise = difficulty.noise * draw.range(0.4, 1.0);
    let (width, height) = (canvas.width as f32, canvas.height as f32);
    canvas.map(|x, y, colour| {
        let light = 1.0 + fall[0] * (x / width - 0.5) + fall[1] * (y / height - 0.5);
        let grey = noise * draw.bell();
        let mut out = [0.0; 3];
        for (channel, value) in out.iter_mut().enumerate() {
            let lit = colour[channel] * gain * light * cast[channel];
            *value = lerp(0.5, lit, contrast) + grey + 0.5 * noise * (draw.unit() - 0.5);
        }
        out
    });
}
