//! Drawn cats and dogs in the layout of Oxford-IIIT PETS, for when there is no network.
//!
//! A picture is a pure function of (seed, index, side, difficulty): the same bytes on every machine and with any
//! number of threads. Even indices are cats, odd ones dogs (PETS itself is one third cats); breeds take turns.
//!
//! ```
//! use lth_data::toy_pets::{Species, ToyPets};
//!
//! # fn main() -> Result<(), lth_data::toy_pets::Error> {
//! let pets = ToyPets { pictures: 200, ..ToyPets::default() };
//! let first = pets.picture(0);
//! assert_eq!((first.name.as_str(), first.species), ("Abyssinian_1", Species::Cat));
//! assert_eq!(first.rgb.len(), (3 * first.width * first.height) as usize);
//!
//! let folder = tempfile::tempdir().expect("a temporary folder");
//! let target = folder.path().join("toy-pets");
//! pets.write_to(&target, &|_done, _of| {})?;
//! assert!(target.join("images/Abyssinian_1.jpg").exists());
//! # Ok(())
//! # }
//! ```

mod breeds;
mod canvas;
mod folder;
mod looks;
mod pet;
mod scene;

pub use breeds::{Species, breeds};
pub(crate) use folder::drawn_in;
pub use folder::{Error, Written};

use canvas::{Draw, Turn};
use looks::{Looks, Pose};

use crate::random::Purpose;

/// How hard the pictures are to tell apart. The defaults leave a ResNet-18 that sees 1,200 of them at 64×64 for six
/// epochs between 75 % and 97 % accuracy.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Difficulty {
    /// 0: every cue (ears, muzzle, eyes, nose, whiskers, tail) is its species' own; 1: the cues say nothing.
    pub overlap: f32,
    /// Mean number of shapes behind the pet; a fifth as many lie in front of it.
    pub clutter: f32,
    /// Largest deviation of the noise on a pixel, white being 1.
    pub noise: f32,
}

impl Default for Difficulty {
    fn default() -> Self {
        Difficulty { overlap: 0.1, clutter: 3.0, noise: 0.05 }
    }
}

/// A set of toy pets.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ToyPets {
    /// Another seed gives other pictures of the same kind.
    pub seed: u64,
    /// How many pictures there are.
    pub pictures: usize,
    /// Widths and heights are 0.8 to 1.3 times this many pixels.
    pub side: u32,
    /// How hard the pictures are to tell apart.
    pub difficulty: Difficulty,
}

impl Default for ToyPets {
    fn default() -> Self {
        ToyPets { seed: 0, pictures: 1_500, side: 100, difficulty: Difficulty::default() }
    }
}

/// One picture, before JPEG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Breed and number, as PETS names its files: `Abyssinian_1`.
    pub name: String,
    /// The label.
    pub species: Species,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Red, green, blue in row order.
    pub rgb: Vec<u8>,
}

impl ToyPets {
    /// Name and species of picture `index`, without drawing it.
    pub fn name(&self, index: usize) -> (String, Species) {
        let (species, breed, number) = identity(index);
        (format!("{}_{number}", species.breeds()[breed].name), species)
    }

    /// Picture `index`. Indices beyond `pictures` are more of the same.
    pub fn picture(&self, index: usize) -> Picture {
        let (species, breed, number) = identity(index);
        let breed = &species.breeds()[breed];
        let difficulty = &self.difficulty;
        let stream = |purpose| Draw::new(self.seed, purpose, index as u64);

        let looks = Looks::draw(species, breed, difficulty.overlap.clamp(0.0, 1.0), &mut stream(Purpose::Look));
        let draw = &mut stream(Purpose::Scene);
        let (width, height) = scene::size(self.side.max(8), draw);
        let frame = scene::place(width, height, looks.pose == Pose::Portrait, draw);
        let tilt = Turn::from_half_tangent(draw.range(-0.22, 0.22));
        let sun = [draw.range(-1.0, 1.0), draw.range(-1.0, 0.2)];

        let mut canvas = scene::background(width, height, draw);
        let behind = draw.range(0.0, 2.0 * difficulty.clutter.max(0.0)) + 0.5;
        scene::clutter(&mut canvas, behind as usize, (0.04, 0.22), draw);
        pet::draw_pet(&mut canvas, &looks, frame, tilt, sun);
        let before = draw.range(0.0, 0.4 * difficulty.clutter.max(0.0)) + 0.5;
        scene::clutter(&mut canvas, before as usize, (0.03, 0.10), draw);
        scene::light_and_noise(&mut canvas, difficulty, draw);

        Picture {
            name: format!("{}_{number}", breed.name),
            species,
            width: width as u32,
            height: height as u32,
            rgb: canvas.into_bytes(),
        }
    }
}

/// Species, breed and number within the breed (from 1).
fn identity(index: usize) -> (Species, usize, usize) {
    let species = if index.is_multiple_of(2) { Species::Cat } else { Species::Dog };
    let n_breeds = species.breeds().len();
    (species, index / 2 % n_breeds, index / 2 / n_breeds + 1)
}
