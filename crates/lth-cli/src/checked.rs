//! Against what starting weights were checked: no more is said than was compared.

use std::path::Path;

use lth_data::download::{Fetched, Mirror, Resource};
use lth_runs::Checked;

use crate::failure::{Blame, Result};

/// How far a file that was downloaded, or was there, was compared.
pub(crate) fn of_fetched(file: &Fetched, mirror: Option<&Mirror>) -> Checked {
    let listed = mirror.and_then(|mirror| mirror.sums.as_ref());
    let listed = listed.is_some_and(|sums| sums.entries.contains_key(&file.name));
    match &file.check {
        None => Checked::No,
        Some(_) if listed => Checked::Mirror,
        Some(check) if check.is_whole() => Checked::Published,
        Some(_) => Checked::PublishedPart,
    }
}

/// Whether the user's own file is `known`, whatever its name.
pub(crate) fn of_file(known: &Resource, path: &Path) -> Result<Checked> {
    Ok(match known.is_file(path).data()? {
        true if known.check.is_whole() => Checked::Published,
        true => Checked::PublishedPart,
        false => Checked::No,
    })
}
