//! Groups of one's own.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::error::Error;
use crate::granularity::{Granularity, Layer};

/// What is pruned as one, by a rule of one's own beside those of [`Granularity`].
///
/// ```
/// use std::collections::BTreeMap;
/// use candle_core::{Device, Tensor};
/// use lth_mask::{Granularity, Groups, Layer, Selection, select};
///
/// /// Tiles of two outputs and two inputs.
/// #[derive(Debug)]
/// struct Tiles;
///
/// impl Groups for Tiles {
///     fn name(&self) -> &str {
///         "tiles_2x2"
///     }
///
///     fn groups(&self, shape: &[usize], _layer: Layer) -> Result<Vec<usize>, String> {
///         match *shape {
///             [rows, columns] if rows % 2 == 0 && columns % 2 == 0 => {
///                 let tile = |i: usize| i / columns / 2 * (columns / 2) + i % columns / 2;
///                 Ok((0..rows * columns).map(tile).collect())
///             }
///             _ => Err("expected two even dimensions".to_owned()),
///         }
///     }
/// }
///
/// # fn main() -> lth_mask::Result<()> {
/// let scores = Tensor::new(&[[1f32, 1.0, 2.0, 9.0], [1.0, 1.0, 2.0, 2.0]], &Device::Cpu)?;
/// let scores = BTreeMap::from([("fc.weight".to_owned(), scores)]);
/// let tiles = Selection { granularity: Granularity::own(Tiles), ..Selection::default() };
/// let masks = select(&scores, 0.5, &tiles)?;
/// let kept: Vec<bool> = masks.get("fc.weight").into_iter().flat_map(|mask| mask.iter()).collect();
/// assert_eq!(kept, [false, false, true, true, false, false, true, true]);
/// assert_eq!(tiles.granularity.to_string(), "own(tiles_2x2)");
/// # Ok(())
/// # }
/// ```
pub trait Groups: fmt::Debug + Send + Sync {
    /// What a file records of it, as `own(name)`; groups of one name count as equal. Parameters that change the groups
    /// belong into the name, so that a state is not resumed with others.
    fn name(&self) -> &str;

    /// The group of each weight of a tensor of this shape, in row-major order, always the same; the tensor is not empty.
    ///
    /// Groups are counted from 0, none is left out, and all have the same number of weights: else the tensor is refused.
    /// Ties are broken by the lower group.
    ///
    /// # Errors
    /// If such a tensor does not have these groups; the text says why.
    fn groups(&self, shape: &[usize], layer: Layer) -> Result<Vec<usize>, String>;
}

/// [`Groups`] in a [`Granularity`]: equal to others of the same name.
#[derive(Clone, Debug)]
pub struct OwnGroups(Arc<dyn Groups>);

impl OwnGroups {
    /// The groups as a value.
    #[must_use]
    pub fn new(groups: impl Groups + 'static) -> Self {
        Self(Arc::new(groups))
    }

    /// The groups themselves.
    #[must_use]
    pub fn groups(&self) -> &dyn Groups {
        &*self.0
    }
}

impl PartialEq for OwnGroups {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for OwnGroups {}

impl Hash for OwnGroups {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}

/// The name.
impl serde::Serialize for OwnGroups {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

/// Always an error: a file has no more than the name.
impl<'de> serde::Deserialize<'de> for OwnGroups {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Err(serde::de::Error::custom(Error::Own { granularity: format!("own({name})") }))
    }
}

impl Granularity {
    /// [`Granularity::Own`] by `groups`.
    #[must_use]
    pub fn own(groups: impl Groups + 'static) -> Self {
        Self::Own(OwnGroups::new(groups))
    }
}
