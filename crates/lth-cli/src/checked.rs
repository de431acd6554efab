//! Against what starting weights were checked: no more is said than was compared.

use std::path::Path;

use lth_data::download::{Fetched, Mirror, Resource};
use lth_runs::Checked;

use crate::failure::{Blame, Result};

/// How far one file was compared with known checksums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) checked: Checked,
}

impl Compared {
    /// Of a file that was downloaded, or was there.
    pub(crate) fn of(file: &Fetched, mirror: Option<&Mirror>) -> Self {
        let listed = mirror.and_then(|mirror| mirror.sums.as_ref());
        let listed = listed.is_some_and(|sums| sums.entries.contains_key(&file.name));
        let checked = match &file.check {
            None => Checked::No,
            Some(_) if listed => Checked::Mirror,
            Some(check) if check.is_whole() => Checked::Published,
            Some(_) => Checked::PublishedPart,
        };
        Self { checked }
    }

    /// Of the user's own file: whether it is one of `known`, whatever its name.
    pub(crate) fn recognise(known: &[Resource], path: &Path) -> Result<Self> {
        for resource in known {
            if resource.is_file(path).data()? {
                let checked = if resource.check.is_whole() { Checked::Published } else { Checked::PublishedPart };
                return Ok(Self { checked });
            }
        }
        Ok(Self { checked: Checked::No })
    }
}
