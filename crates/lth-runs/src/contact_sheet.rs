//! `pictures.json`: a few of the examples with what networks said of them, so that a report needs no data to show them.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::experiment::Address;
use crate::figure::{Outcome, Picture};
use crate::{Error, figure};

/// The file's name in an experiment's folder.
pub(crate) const NAME: &str = "pictures.json";

/// A few examples, as small pictures, with what some networks said of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactSheet {
    /// Which examples these are: "The first 6 test pictures of seed 0, and …".
    pub caption: String,
    /// The networks, by their fits, in the order of [`Shown::said`]; the last is the one that frames are about.
    pub networks: Vec<Address>,
    /// The examples.
    pub pictures: Vec<Shown>,
}

/// One example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The picture as the network saw it: a data URI.
    pub picture: String,
    /// What it is.
    pub label: String,
    /// What each network said.
    pub said: Vec<String>,
}

impl Shown {
    /// An example by the bytes of a PNG file.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the bytes do not begin as a PNG file does.
    pub fn png(bytes: &[u8], label: impl Into<String>, said: Vec<String>) -> Result<Self, Error> {
        Ok(Self { picture: figure::png_uri(bytes)?, label: label.into(), said })
    }
}

impl ContactSheet {
    /// The one in an experiment's folder; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`] if it is no contact sheet.
    pub fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(NAME);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::io("read", &path))?,
        };
        let damaged = |reason: String| Error::Damaged { path: path.clone(), line: None, reason };
        let sheet: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        // Whatever a figure shows lies inside it.
        sheet.pictures().map_err(|error| damaged(error.to_string()))?;
        Ok(Some(sheet))
    }

    /// The examples as figures show them: what each is, what each network said, framed by whether the last was right.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a picture is no data URI.
    pub fn pictures(&self) -> Result<Vec<Picture>, Error> {
        let picture = |shown: &Shown| {
            let said = self.networks.iter().zip(&shown.said).map(|(fit, said)| format!("\n{}: {said}", fit.arm));
            let picture = Picture::data_uri(&shown.picture, shown.label.clone() + &said.collect::<String>())?;
            let is_right = shown.said.last() == Some(&shown.label);
            Ok(picture.with_outcome(if is_right { Outcome::Right } else { Outcome::Wrong }))
        };
        self.pictures.iter().map(picture).collect()
    }
}
