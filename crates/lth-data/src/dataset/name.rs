//! The data sets by their names.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::normalise::Normalisation;
use crate::split::{Part, SplitRule};

/// A data set. What a person types, what JSON says and what is printed are the same words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum DatasetName {
    /// `digits`: 1,797 digits of 8×8, part of the program with the feature `digits`.
    Digits,
    /// `mnist`: 70,000 digits of 28×28.
    Mnist,
    /// `fashion-mnist`: 70,000 articles of clothing of 28×28.
    FashionMnist,
    /// `cifar-10`: 60,000 colour pictures of 32×32 in 10 classes.
    Cifar10,
    /// `cifar-100`: 60,000 colour pictures of 32×32 in 100 classes.
    Cifar100,
    /// `pets`: Oxford-IIIT PETS, cats and dogs.
    Pets,
    /// `pets-breeds`: the same by breed, 37 classes.
    PetsBreeds,
    /// `toy-pets`: drawn cats and dogs.
    ToyPets,
    /// `folder`: one's own pictures, a folder per class.
    Folder,
}

impl DatasetName {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Digits,
        Self::Mnist,
        Self::FashionMnist,
        Self::Cifar10,
        Self::Cifar100,
        Self::Pets,
        Self::PetsBreeds,
        Self::ToyPets,
        Self::Folder,
    ];

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Cifar10 => "cifar-10",
            Self::Cifar100 => "cifar-100",
            Self::Pets => "pets",
            Self::PetsBreeds => "pets-breeds",
            Self::ToyPets => "toy-pets",
            Self::Folder => "folder",
        }
    }

    /// Channels of its pictures.
    #[must_use]
    pub fn n_channels(self) -> usize {
        match self {
            Self::Digits | Self::Mnist | Self::FashionMnist => 1,
            _ => 3,
        }
    }

    /// Side of its pictures in pixels: their own where all have the same, else 64, to which they are scaled.
    #[must_use]
    pub fn image_size(self) -> usize {
        match self {
            Self::Digits => 8,
            Self::Mnist | Self::FashionMnist => 28,
            Self::Cifar10 | Self::Cifar100 => 32,
            Self::Pets | Self::PetsBreeds | Self::ToyPets | Self::Folder => 64,
        }
    }

    /// Mean and deviation of its training pictures; ImageNet's for photographs of any size, and of digits none.
    #[must_use]
    pub fn normalisation(self) -> Normalisation {
        let (mean, std): (&[f32], &[f32]) = match self {
            Self::Digits => return Normalisation::unit(1),
            Self::Mnist => (&[0.1307], &[0.3081]),
            Self::FashionMnist => (&[0.2860], &[0.3530]),
            Self::Cifar10 => (&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616]),
            Self::Cifar100 => (&[0.5071, 0.4865, 0.4409], &[0.2673, 0.2564, 0.2762]),
            Self::Pets | Self::PetsBreeds | Self::ToyPets | Self::Folder => return Normalisation::imagenet(),
        };
        Normalisation { mean: mean.to_vec(), std: std.to_vec() }
    }

    /// Whether its makers have set a test part aside.
    #[must_use]
    pub fn has_published_test(self) -> bool {
        matches!(self, Self::Mnist | Self::FashionMnist | Self::Cifar10 | Self::Cifar100)
    }

    /// The usual split: 5,000 for validation and the published test part where there is one (Frankle & Carbin 2019, §2
    /// and §3); a fifth each of digits; a fifth for validation and no test of the others, as the notebook has it.
    #[must_use]
    pub fn split(self) -> SplitRule {
        let fifth = Part::Fraction(0.2);
        match self {
            Self::Digits => SplitRule { valid: fifth, test: fifth },
            name if name.has_published_test() => SplitRule { valid: Part::Count(5_000), test: Part::Published },
            _ => SplitRule { valid: fifth, test: Part::None },
        }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DatasetName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| Error::BadSetting {
            what: "data set",
            got: format!("`{text}`"),
            expected: format!("one of {}", Self::ALL.map(Self::as_str).join(", ")),
        })
    }
}

impl TryFrom<String> for DatasetName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DatasetName> for String {
    fn from(name: DatasetName) -> Self {
        name.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for name in DatasetName::ALL {
            assert_eq!(name.to_string().parse::<DatasetName>().unwrap(), name);
            assert_eq!(serde_json::to_string(&name).unwrap(), format!("\"{name}\""));
            name.normalisation().check(name.n_channels()).unwrap();
            name.split().check().unwrap();
            assert_eq!(name.split().asks_for_published(), name.has_published_test());
        }
        let message = "cifar".parse::<DatasetName>().unwrap_err().to_string();
        assert!(message.starts_with("data set is `cifar`, expected one of digits, mnist, "), "{message}");
    }
}
