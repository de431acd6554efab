//! The 37 breeds of PETS and how each is drawn.

use super::canvas::Rgb;

/// Cat or dog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Species {
    /// Breed names start with a capital letter.
    Cat,
    /// Breed names are in lower case.
    Dog,
}

/// Coat pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Solid,
    Striped,
    Spotted,
    Patched,
    /// Dark ears, muzzle, paws and tail.
    Pointed,
    /// White chest and lower face.
    Bicolour,
    /// Dark back and crown.
    Saddled,
}

/// A breed's own prior: which colours and patterns it comes in, and its build.
#[derive(Debug)]
pub(super) struct Breed {
    pub(super) name: &'static str,
    pub(super) coats: &'static [(Rgb, Rgb)],
    pub(super) patterns: &'static [Pattern],
    /// 1: upright and pointed; 0: hanging and round.
    pub(super) ear_point: f32,
    pub(super) ear_length: f32,
    /// Length of the muzzle; 0: flat face, 1: long.
    pub(super) snout: f32,
    /// Length of the coat: softness of the outline.
    pub(super) fluff: f32,
}

const BLACK: Rgb = [0.10, 0.10, 0.11];
const CHARCOAL: Rgb = [0.24, 0.23, 0.24];
const SLATE: Rgb = [0.38, 0.42, 0.48];
const SILVER: Rgb = [0.68, 0.68, 0.68];
const WHITE: Rgb = [0.93, 0.92, 0.89];
const CREAM: Rgb = [0.88, 0.79, 0.65];
const FAWN: Rgb = [0.76, 0.61, 0.44];
const GOLD: Rgb = [0.78, 0.56, 0.28];
const RED: Rgb = [0.71, 0.39, 0.17];
const BROWN: Rgb = [0.43, 0.27, 0.16];
const LIVER: Rgb = [0.30, 0.18, 0.13];
const PINK: Rgb = [0.83, 0.64, 0.57];

use Pattern::{Bicolour, Patched, Pointed, Saddled, Solid, Spotted, Striped};

macro_rules! breeds {
    ($($name:literal [$($base:ident/$second:ident),+] [$($pattern:ident),+] $point:literal $ear:literal $snout:literal $fluff:literal;)+) => {
        &[$(Breed {
            name: $name,
            coats: &[$(($base, $second)),+],
            patterns: &[$($pattern),+],
            ear_point: $point,
            ear_length: $ear,
            snout: $snout,
            fluff: $fluff,
        }),+]
    };
}

//  name                [base/second colours] [patterns] ear point, ear length, snout, fluff
pub(super) const CATS: &[Breed] = breeds! {
    "Abyssinian"        [RED/BROWN, FAWN/RED] [Solid, Striped] 1.0 1.15 0.30 0.1;
    "Bengal"            [GOLD/LIVER, FAWN/BLACK] [Spotted, Striped] 0.95 0.85 0.30 0.1;
    "Birman"            [CREAM/LIVER, WHITE/SLATE] [Pointed] 0.9 0.85 0.20 0.7;
    "Bombay"            [BLACK/CHARCOAL] [Solid] 0.9 0.85 0.20 0.1;
    "British_Shorthair" [SLATE/SILVER, SILVER/CHARCOAL, CREAM/WHITE] [Solid, Striped, Bicolour] 0.85 0.70 0.10 0.3;
    "Egyptian_Mau"      [SILVER/CHARCOAL, FAWN/LIVER] [Spotted, Striped] 0.95 1.0 0.30 0.1;
    "Maine_Coon"        [BROWN/BLACK, SILVER/CHARCOAL, RED/CREAM] [Striped, Bicolour] 0.95 1.1 0.35 0.9;
    "Persian"           [WHITE/CREAM, CREAM/RED, SLATE/CHARCOAL] [Solid, Bicolour] 0.7 0.60 0.0 1.0;
    "Ragdoll"           [CREAM/BROWN, WHITE/SLATE] [Pointed, Bicolour] 0.85 0.80 0.20 0.8;
    "Russian_Blue"      [SLATE/SILVER] [Solid] 1.0 1.0 0.25 0.1;
    "Siamese"           [CREAM/LIVER, CREAM/SLATE] [Pointed] 1.0 1.2 0.40 0.0;
    "Sphynx"            [PINK/SLATE, PINK/WHITE, SLATE/PINK] [Solid, Patched] 1.0 1.4 0.25 0.0;
};

pub(super) const DOGS: &[Breed] = breeds! {
    "american_bulldog"           [WHITE/BROWN, WHITE/FAWN] [Patched, Solid] 0.35 0.70 0.40 0.0;
    "american_pit_bull_terrier"  [SLATE/WHITE, BROWN/WHITE, FAWN/WHITE] [Bicolour, Solid] 0.45 0.70 0.55 0.0;
    "basset_hound"               [FAWN/WHITE, BROWN/BLACK] [Bicolour, Saddled] 0.0 1.6 0.75 0.0;
    "beagle"                     [FAWN/BLACK, GOLD/WHITE] [Saddled, Bicolour] 0.05 1.2 0.65 0.0;
    "boxer"                      [FAWN/LIVER, RED/WHITE] [Bicolour, Pointed] 0.35 0.70 0.25 0.0;
    "chihuahua"                  [FAWN/CREAM, BLACK/FAWN, CREAM/WHITE] [Solid, Bicolour] 0.95 1.3 0.35 0.1;
    "english_cocker_spaniel"     [GOLD/RED, BLACK/CHARCOAL, LIVER/WHITE] [Solid, Patched] 0.0 1.5 0.60 0.7;
    "english_setter"             [WHITE/CHARCOAL, WHITE/GOLD] [Spotted, Patched] 0.05 1.3 0.85 0.6;
    "german_shorthaired"         [LIVER/WHITE, LIVER/SILVER] [Spotted, Solid] 0.1 1.2 0.90 0.0;
    "great_pyrenees"             [WHITE/CREAM] [Solid, Patched] 0.15 0.90 0.60 0.9;
    "havanese"                   [CREAM/WHITE, BLACK/WHITE, FAWN/CREAM] [Solid, Bicolour] 0.1 1.1 0.35 1.0;
    "japanese_chin"              [WHITE/BLACK, WHITE/RED] [Patched] 0.2 0.95 0.05 0.8;
    "keeshond"                   [SILVER/BLACK, CHARCOAL/SILVER] [Saddled, Pointed] 0.95 0.75 0.55 1.0;
    "leonberger"                 [GOLD/BLACK, RED/BLACK] [Pointed] 0.1 1.0 0.65 0.9;
    "miniature_pinscher"         [BLACK/RED, RED/BROWN] [Saddled, Solid] 0.85 1.0 0.70 0.0;
    "newfoundland"               [BLACK/CHARCOAL, LIVER/BROWN] [Solid] 0.1 0.90 0.55 0.9;
    "pomeranian"                 [GOLD/CREAM, RED/CREAM, WHITE/CREAM] [Solid, Bicolour] 0.9 0.60 0.35 1.0;
    "pug"                        [FAWN/BLACK, CREAM/BLACK, BLACK/CHARCOAL] [Pointed, Solid] 0.3 0.60 0.0 0.0;
    "saint_bernard"              [RED/WHITE, BROWN/WHITE] [Bicolour, Patched] 0.1 0.90 0.50 0.6;
    "samoyed"                    [WHITE/CREAM] [Solid] 0.85 0.75 0.55 1.0;
    "scottish_terrier"           [BLACK/CHARCOAL, CHARCOAL/SLATE, CREAM/FAWN] [Solid, Striped] 0.95 0.90 0.80 0.7;
    "shiba_inu"                  [RED/CREAM, FAWN/WHITE, BLACK/RED] [Bicolour, Saddled] 0.95 0.80 0.50 0.4;
    "staffordshire_bull_terrier" [CHARCOAL/WHITE, BROWN/BLACK, SLATE/WHITE] [Solid, Striped, Bicolour] 0.4 0.65 0.45 0.0;
    "wheaten_terrier"            [CREAM/GOLD, FAWN/GOLD] [Solid] 0.2 0.90 0.60 1.0;
    "yorkshire_terrier"          [GOLD/SLATE, FAWN/CHARCOAL] [Saddled] 0.8 0.80 0.40 0.9;
};

impl Species {
    pub(super) fn breeds(self) -> &'static [Breed] {
        match self {
            Species::Cat => CATS,
            Species::Dog => DOGS,
        }
    }
}

/// All breed names with their species, in PETS' class order (alphabetical, capitals as small letters): class 1 first.
pub fn breeds() -> Vec<(&'static str, Species)> {
    let mut all: Vec<_> = [Species::Cat, Species::Dog]
        .into_iter()
        .flat_map(|species| species.breeds().iter().map(move |breed| (breed.name, species)))
        .collect();
    all.sort_by_key(|(name, _)| name.to_lowercase());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_label_rule_of_pets() {
        assert_eq!((CATS.len(), DOGS.len()), (12, 25));
        for (name, species) in breeds() {
            let capital = name.starts_with(|c: char| c.is_ascii_uppercase());
            assert_eq!(capital, species == Species::Cat, "{name}");
        }
    }

    #[test]
    fn class_order_is_that_of_pets() {
        let names: Vec<_> = breeds().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names[..3], ["Abyssinian", "american_bulldog", "american_pit_bull_terrier"]);
        assert_eq!(names[5], "Bengal");
        assert_eq!(names[36], "yorkshire_terrier");
        let mut unique = names.clone();
        unique.dedup();
        assert_eq!(unique.len(), 37);
    }
}
