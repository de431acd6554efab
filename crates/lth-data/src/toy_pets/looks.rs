//! What one pet looks like: its breed's prior, blurred by the difficulty's overlap.

use super::breeds::{Breed, Pattern, Species};
use super::canvas::{Draw, Rgb, lerp, mix};

/// How the pet stands before the viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pose {
    Sitting,
    Lying,
    Standing,
    Portrait,
}

/// Everything about a pet that does not depend on where it is in the picture. Lengths are in head radii.
#[derive(Debug)]
pub(super) struct Looks {
    pub(super) pose: Pose,
    /// 1: upright and pointed; 0: hanging and round.
    pub(super) ear_point: f32,
    pub(super) ear_length: f32,
    pub(super) ear_width: f32,
    /// Half width of the head; its half height is 1.
    pub(super) head_width: f32,
    pub(super) snout: f32,
    pub(super) nose: f32,
    pub(super) nose_colour: Rgb,
    pub(super) eye: f32,
    pub(super) iris: Rgb,
    /// Width of the pupil as a fraction of the iris.
    pub(super) pupil: f32,
    /// Length of the whiskers, 0 when there are none.
    pub(super) whiskers: f32,
    pub(super) tongue: bool,
    pub(super) tail: f32,
    pub(super) tail_lift: f32,
    pub(super) body: f32,
    pub(super) leg: f32,
    pub(super) fluff: f32,
    pub(super) collar: Option<Rgb>,
    pub(super) base: Rgb,
    pub(super) second: Rgb,
    pub(super) pattern: Pattern,
    pub(super) salt: u32,
    /// Where the head points: -1 left to 1 right.
    pub(super) yaw: f32,
}

const CAT_EYES: [Rgb; 4] = [[0.55, 0.67, 0.26], [0.83, 0.66, 0.22], [0.72, 0.45, 0.15], [0.42, 0.62, 0.80]];
const DOG_EYES: [Rgb; 4] = [[0.33, 0.19, 0.10], [0.22, 0.13, 0.09], [0.48, 0.29, 0.12], [0.45, 0.60, 0.72]];
const PINK_NOSE: Rgb = [0.80, 0.50, 0.48];
const DARK_NOSE: Rgb = [0.12, 0.10, 0.10];

impl Looks {
    /// Draws the looks of a pet of `breed`. At `overlap` 0 every cue is its species' own, at 1 it says nothing.
    pub(super) fn draw(species: Species, breed: &Breed, overlap: f32, draw: &mut Draw) -> Looks {
        let is_cat = species == Species::Cat;
        // A cue as a mean for cats, a mean for dogs; both move to their middle as the overlap grows.
        let mean = |cat: f32, dog: f32| lerp(if is_cat { cat } else { dog }, 0.5 * (cat + dog), overlap);
        let between = |own: f32, common: f32| lerp(own, common, overlap);

        let pose = *draw.pick(&[
            Pose::Sitting,
            Pose::Sitting,
            Pose::Lying,
            Pose::Standing,
            Pose::Portrait,
            Pose::Portrait,
            Pose::Portrait,
        ]);
        let ear_point = (between(breed.ear_point, 0.55) + 0.16 * draw.bell()).clamp(0.0, 1.0);
        let ear_length = (between(breed.ear_length, 0.95) + 0.12 * draw.bell()).clamp(0.4, 1.8);
        let ear_width = (0.40 + 0.05 * draw.bell()).clamp(0.25, 0.55);
        let head_width = (mean(1.15, 0.90) + 0.07 * draw.bell()).clamp(0.75, 1.3);
        let snout = (between(breed.snout, 0.40) + 0.12 * draw.bell()).clamp(0.0, 1.0);
        let nose = (mean(0.09, 0.19) + 0.025 * draw.bell()).clamp(0.06, 0.25);
        let pink = draw.chance(mean(0.65, 0.08));
        let nose_colour = mix(DARK_NOSE, PINK_NOSE, if pink { draw.range(0.6, 1.0) } else { draw.range(0.0, 0.3) });
        let eye = (mean(0.24, 0.14) + 0.022 * draw.bell()).clamp(0.09, 0.29);
        let has_cat_eyes = draw.chance(mean(1.0, 0.0));
        let iris = *draw.pick(if has_cat_eyes { &CAT_EYES } else { &DOG_EYES });
        let slit = draw.chance(mean(0.75, 0.0));
        let pupil = if slit { draw.range(0.18, 0.4) } else { draw.range(0.55, 0.8) };
        let whiskers = if draw.chance(mean(0.92, 0.25)) { draw.range(0.6, 1.1) } else { 0.0 };
        let tongue = draw.chance(mean(0.03, 0.40));
        let tail = (mean(0.13, 0.19) + 0.025 * draw.bell()).clamp(0.07, 0.3);
        let tail_lift = (mean(0.75, 0.45) + 0.35 * draw.bell()).clamp(-0.3, 1.4);
        let body = (mean(0.92, 1.08) + 0.12 * draw.bell()).clamp(0.6, 1.5);
        let leg = (mean(0.19, 0.25) + 0.03 * draw.bell()).clamp(0.12, 0.34);
        let fluff = (breed.fluff + 0.15 * draw.bell()).clamp(0.0, 1.0);
        let collar = draw.chance(0.25).then(|| draw.rgb(0.1, 0.9));

        let (base, second) = *draw.pick(breed.coats);
        let light = draw.range(0.82, 1.15);
        let tint = [0.04, 0.03, 0.04].map(|spread: f32| spread * draw.bell());
        let vary =
            |colour: Rgb| [colour[0] * light + tint[0], colour[1] * light + tint[1], colour[2] * light + tint[2]];
        Looks {
            pose,
            ear_point,
            ear_length,
            ear_width,
            head_width,
            snout,
            nose,
            nose_colour,
            eye,
            iris,
            pupil,
            whiskers,
            tongue,
            tail,
            tail_lift,
            body,
            leg,
            fluff,
            collar,
            base: vary(base),
            second: vary(second),
            pattern: *draw.pick(breed.patterns),
            salt: draw.word(),
            yaw: draw.range(-1.0, 1.0),
        }
    }
}
