//! Draws one pet, from the tail at the back to the whiskers in front.

use super::breeds::Pattern;
use super::canvas::{Canvas, Rgb, Shape, Turn, lerp, mix, noise, scale};
use super::looks::{Looks, Pose};

/// Local coordinates to pixels: the head's centre is the origin, its radius the unit, x to the right, y down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) origin: [f32; 2],
    pub(super) unit: f32,
    pub(super) turn: Turn,
    /// -1 mirrors left and right.
    pub(super) flip: f32,
}

impl Frame {
    fn pixel(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let [x, y] = self.turn.apply([x * self.flip, y]);
        [self.origin[0] + self.unit * x, self.origin[1] + self.unit * y]
    }

    fn local(&self, x: f32, y: f32) -> [f32; 2] {
        let [x, y] = self.turn.undo([(x - self.origin[0]) / self.unit, (y - self.origin[1]) / self.unit]);
        [x * self.flip, y]
    }
}

/// Which part of the coat is painted: the pattern depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Back,
    Chest,
    Head,
    /// Ears, muzzle, paws and tail.
    Point,
}

/// Draws the pet of these looks; `tilt` turns the head against the body, `sun` is where the light comes from.
pub(super) fn draw_pet(canvas: &mut Canvas, looks: &Looks, frame: Frame, tilt: Turn, sun: [f32; 2]) {
    let mut brush = Brush { canvas, looks, frame, sun };
    brush.body();
    let turn = brush.frame.turn.then(tilt);
    brush.frame.turn = turn;
    brush.head();
}

struct Brush<'a> {
    canvas: &'a mut Canvas,
    looks: &'a Looks,
    frame: Frame,
    sun: [f32; 2],
}

impl Brush<'_> {
    fn body(&mut self) {
        let looks = self.looks;
        let (body, leg) = (looks.body, looks.leg);
        match looks.pose {
            Pose::Portrait => {
                self.coat_ellipse([0.1, 2.1], [1.35 * body, 1.35], Part::Chest);
            }
            Pose::Sitting => {
                self.tail([0.7 * body, 2.7]);
                self.coat_ellipse([0.15, 2.35], [1.0 * body, 1.0], Part::Back);
                self.coat_ellipse([0.0, 1.7], [0.75 * body, 1.1], Part::Chest);
                for side in [-1.0, 1.0] {
                    self.leg([0.33 * side, 2.0], [0.38 * side, 3.2], leg);
                }
            }
            Pose::Lying => {
                self.tail([2.3, 1.5]);
                self.coat_ellipse([1.2, 1.25], [1.5, 0.72 * body], Part::Back);
                self.coat_ellipse([0.1, 1.15], [0.7 * body, 0.75], Part::Chest);
                for side in [-1.0, 1.0] {
                    self.leg([0.3 * side, 1.6], [0.45 * side - 0.3, 1.95], leg);
                }
            }
            Pose::Standing => {
                self.tail([2.4, 0.7]);
                for x in [0.25, 0.65, 1.95, 2.35] {
                    self.leg([x, 1.4], [x, 2.75], leg);
                }
                self.coat_ellipse([1.3, 1.05], [1.35, 0.68 * body], Part::Back);
                self.coat_ellipse([0.35, 0.95], [0.65 * body, 0.8], Part::Chest);
            }
        }
        if let Some(colour) = looks.collar {
            self.stroke([-0.55, 0.95], [0.55, 0.95], [0.12, 0.12], 1.0, |_, _| colour);
        }
    }

    fn head(&mut self) {
        let looks = self.looks;
        let width = looks.head_width;
        let turned = 0.22 * looks.yaw;
        if looks.ear_point > 0.5 {
            self.ears();
        }
        self.coat_ellipse([0.0, 0.0], [width, 1.0], Part::Head);
        for side in [-1.0, 1.0] {
            // Cheeks follow the width of the head, so that the outline is never a bare ellipse.
            self.coat_ellipse([0.5 * width * side, 0.42], [0.5 * width, 0.45], Part::Head);
        }
        if looks.ear_point <= 0.5 {
            self.ears();
        }

        let muzzle_x = turned * (1.0 + 1.1 * looks.snout);
        let muzzle_y = lerp(0.40, 0.52, looks.snout);
        let muzzle = [lerp(0.42, 0.50, looks.snout), lerp(0.30, 0.56, looks.snout)];
        let pale = mix(looks.base, [0.95, 0.92, 0.88], 0.35);
        if looks.pattern == Pattern::Pointed {
            self.coat_ellipse([muzzle_x, muzzle_y], muzzle, Part::Point);
        } else {
            let sun = self.sun;
            self.ellipse([muzzle_x, muzzle_y], muzzle, 2.0, 1.0, move |x, y| shade(pale, [x, y], sun));
        }
        let nose_y = muzzle_y - 0.35 * muzzle[1];
        let mouth_y = nose_y + 0.2 + 0.25 * looks.snout;
        if looks.tongue {
            self.stroke([muzzle_x, mouth_y], [muzzle_x + 0.05, mouth_y + 0.38], [0.13, 0.15], 1.0, |_, _| {
                [0.86, 0.42, 0.45]
            });
        }
        let line = scale(looks.nose_colour, 0.6);
        self.stroke([muzzle_x, nose_y], [muzzle_x, mouth_y], [0.03, 0.03], 0.8, |_, _| line);
        for side in [-1.0, 1.0] {
            self.stroke([muzzle_x, mouth_y], [muzzle_x + 0.24 * side, mouth_y + 0.05], [0.035, 0.02], 0.8, |_, _| line);
        }
        let nose_colour = looks.nose_colour;
        self.ellipse([muzzle_x, nose_y], [1.25 * looks.nose, looks.nose], 1.0, 1.0, |_, _| nose_colour);
        self.eyes(turned);
        self.whiskers([muzzle_x, nose_y + 0.12]);
    }

    fn eyes(&mut self, turned: f32) {
        let looks = self.looks;
        let (eye, iris) = (looks.eye, looks.iris);
        for side in [-1.0, 1.0] {
            let at = [0.43 * looks.head_width * side + turned, -0.14];
            self.ellipse(at, [1.25 * eye, 1.1 * eye], 1.0, 0.85, |_, _| [0.08, 0.07, 0.07]);
            self.ellipse(at, [eye, 0.95 * eye], 1.0, 1.0, |_, _| iris);
            self.ellipse(at, [eye * looks.pupil, 0.85 * eye], 1.0, 1.0, |_, _| [0.04; 3]);
            let glint = [at[0] - 0.3 * eye, at[1] - 0.35 * eye];
            self.ellipse(glint, [0.22 * eye; 2], 1.0, 0.9, |_, _| [0.97; 3]);
        }
    }

    fn whiskers(&mut self, [x, y]: [f32; 2]) {
        let reach = self.looks.whiskers;
        if reach == 0.0 {
            return;
        }
        for side in [-1.0, 1.0] {
            for row in [-1.0, 0.0, 1.0] {
                self.stroke(
                    [x + 0.22 * side, y + 0.06 * row],
                    [x + (0.3 + reach) * side, y + 0.22 * row - 0.05],
                    [0.025, 0.01],
                    0.75,
                    |_, _| [0.93, 0.93, 0.91],
                );
            }
        }
    }

    /// Each ear is a stroke from its root on the skull; as the ear goes from hanging to pointed its tip swings from
    /// below the cheek, around the outside, to above the head, and narrows.
    fn ears(&mut self) {
        let looks = self.looks;
        let point = looks.ear_point;
        for side in [-1.0, 1.0] {
            let root = [0.66 * looks.head_width * side, lerp(-0.55, -0.62, point)];
            let hanging = [0.42 * side, 0.90];
            let outward = [0.85 * side, 0.10];
            let upright = [0.25 * side, -0.97];
            let direction = if point < 0.5 {
                blend(hanging, outward, 2.0 * point * point)
            } else {
                blend(outward, upright, 1.0 - 2.0 * (1.0 - point) * (1.0 - point) - 0.5 + 0.5 * point)
            };
            let length = looks.ear_length * lerp(1.0, 0.95, point);
            let tip = [root[0] + length * direction[0], root[1] + length * direction[1]];
            let widths = [looks.ear_width, lerp(0.34, 0.04, point)];
            self.coat_stroke(root, tip, widths, Part::Point);
            if point <= 0.5 {
                let shadow = lerp(0.35, 0.1, point);
                self.stroke(root, tip, widths, shadow, |_, _| [0.06; 3]);
            }
            if point > 0.5 {
                let inner = mix(looks.base, [0.80, 0.55, 0.52], 0.6);
                let stop = [root[0] + 0.75 * length * direction[0], root[1] + 0.75 * length * direction[1]];
                self.stroke(root, stop, [0.55 * widths[0], 0.03], 0.8, |_, _| inner);
            }
        }
    }

    fn tail(&mut self, root: [f32; 2]) {
        let looks = self.looks;
        let width = looks.tail * lerp(1.0, 1.8, looks.fluff);
        let lift = looks.tail_lift;
        let middle = [root[0] + 0.75, root[1] - 0.35 * lift];
        let tip = [root[0] + 0.95 - 0.25 * lift, root[1] - 1.5 * lift];
        self.coat_stroke(root, middle, [width, width], Part::Point);
        self.coat_stroke(middle, tip, [width, 0.7 * width], Part::Point);
    }

    fn leg(&mut self, hip: [f32; 2], paw: [f32; 2], width: f32) {
        self.coat_stroke(hip, paw, [1.1 * width, width], Part::Chest);
        self.coat_ellipse([paw[0] - 0.05, paw[1]], [1.35 * width, width], Part::Point);
    }

    fn ellipse(
        &mut self,
        centre: [f32; 2],
        radii: [f32; 2],
        softness: f32,
        opacity: f32,
        paint: impl Fn(f32, f32) -> Rgb,
    ) {
        let frame = self.frame;
        let shape = Shape::Ellipse {
            centre: frame.pixel(centre),
            radii: radii.map(|radius| (radius * frame.unit).max(0.3)),
            turn: frame.turn,
        };
        self.canvas.fill(&shape, softness, opacity, |x, y| {
            let [u, v] = frame.local(x, y);
            paint(u, v)
        });
    }

    fn stroke(&mut self, from: [f32; 2], to: [f32; 2], radii: [f32; 2], opacity: f32, paint: impl Fn(f32, f32) -> Rgb) {
        self.soft_stroke(from, to, radii, 1.0, opacity, paint);
    }

    fn soft_stroke(
        &mut self,
        from: [f32; 2],
        to: [f32; 2],
        radii: [f32; 2],
        softness: f32,
        opacity: f32,
        paint: impl Fn(f32, f32) -> Rgb,
    ) {
        let frame = self.frame;
        let shape = Shape::Stroke {
            from: frame.pixel(from),
            to: frame.pixel(to),
            radii: radii.map(|radius| radius * frame.unit),
        };
        self.canvas.fill(&shape, softness, opacity, |x, y| {
            let [u, v] = frame.local(x, y);
            paint(u, v)
        });
    }

    fn coat_ellipse(&mut self, centre: [f32; 2], radii: [f32; 2], part: Part) {
        let (looks, sun) = (self.looks, self.sun);
        // The shadow a part throws on what is behind it sets it off, whatever the two colours.
        self.ellipse(centre, radii.map(|radius| 1.07 * radius), 2.5, 0.3, |_, _| [0.05; 3]);
        self.ellipse(centre, radii, self.softness(), 1.0, |u, v| {
            let across = [(u - centre[0]) / radii[0], (v - centre[1]) / radii[1]];
            shade(coat(looks, part, u, v), across, sun)
        });
    }

    fn coat_stroke(&mut self, from: [f32; 2], to: [f32; 2], radii: [f32; 2], part: Part) {
        let (looks, sun) = (self.looks, self.sun);
        let edge = radii.map(|radius| radius + 0.05);
        self.soft_stroke(from, to, edge, 2.5, 0.3, |_, _| [0.05; 3]);
        self.soft_stroke(from, to, radii, self.softness(), 1.0, |u, v| {
            let across = [0.5 * (u - from[0]), 0.5 * (v - from[1])];
            shade(coat(looks, part, u, v), across, sun)
        });
    }

    fn softness(&self) -> f32 {
        1.0 + 0.12 * self.looks.fluff * self.frame.unit
    }
}

/// The direction between two directions, as long as their mean.
fn blend(a: [f32; 2], b: [f32; 2], t: f32) -> [f32; 2] {
    [lerp(a[0], b[0], t), lerp(a[1], b[1], t)]
}

/// Lighter towards the sun, darker away from it; `across` is the place on the part, about -1 to 1.
fn shade(colour: Rgb, across: [f32; 2], sun: [f32; 2]) -> Rgb {
    scale(colour, 1.0 + 0.16 * (across[0] * sun[0] + across[1] * sun[1]).clamp(-1.2, 1.2))
}

/// The colour of the coat at the local place (u, v).
fn coat(looks: &Looks, part: Part, u: f32, v: f32) -> Rgb {
    let salt = looks.salt;
    let second = match looks.pattern {
        Pattern::Solid => 0.0,
        Pattern::Striped => {
            let phase = 3.2 * (v + 0.35 * u * u) + 0.6 * noise(salt, 1.5 * u, 1.5 * v);
            let wave = (phase - phase.floor() - 0.5).abs() * 4.0 - 1.0;
            ramp(wave, -0.1, 0.5)
        }
        Pattern::Spotted => ramp(noise(salt, 4.5 * u, 4.5 * v), 0.15, 0.35),
        Pattern::Patched => ramp(noise(salt, 1.1 * u, 1.1 * v), 0.05, 0.15),
        Pattern::Pointed => match part {
            Part::Point => 1.0,
            Part::Head => 0.8 * (1.0 - ramp(u * u + (v - 0.35) * (v - 0.35), 0.1, 0.7)),
            Part::Back | Part::Chest => 0.0,
        },
        Pattern::Bicolour => match part {
            Part::Chest => ramp(0.45 - u.abs() + 0.15 * noise(salt, 2.0 * u, 2.0 * v), 0.0, 0.1),
            Part::Head => ramp(0.22 + 0.5 * v - u.abs() + 0.1 * noise(salt, 2.0 * u, 2.0 * v), 0.0, 0.1),
            Part::Point => 0.3,
            Part::Back => 0.0,
        },
        Pattern::Saddled => match part {
            Part::Back => ramp(noise(salt, 1.3 * u, 1.3 * v), -0.5, -0.3),
            Part::Head => ramp(-0.35 - v + 0.15 * noise(salt, 2.0 * u, 2.0 * v), 0.0, 0.12),
            Part::Chest | Part::Point => 0.0,
        },
    };
    let hair = 0.09 * noise(salt ^ 0x5bd1, 13.0 * u, 7.0 * v);
    scale(mix(looks.base, looks.second, second), 1.0 + hair)
}

/// 0 below `low`, 1 above `high`, straight between.
fn ramp(x: f32, low: f32, high: f32) -> f32 {
    ((x - low) / (high - low)).clamp(0.0, 1.0)
}
