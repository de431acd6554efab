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

#[cfg(test)]
mod tests {
    use lth_data::download::Check;

    use super::*;

    #[test]
    fn no_more_is_said_of_ones_own_file_than_was_compared() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), "abc")?;
        // SHA-256 of "abc", FIPS 180-4.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let said = |digits: &str| {
            let check = Check::Sha256(digits.to_owned());
            let known = Resource { name: "abc".into(), urls: Vec::new(), size: Some(3), most: 3, check };
            of_file(&known, file.path()).ok()
        };
        assert_eq!(said(sha256), Some(Checked::Published));
        assert_eq!(said(&sha256[..8]), Some(Checked::PublishedPart));
        assert_eq!(said(&"0".repeat(64)), Some(Checked::No));
        Ok(())
    }
}
