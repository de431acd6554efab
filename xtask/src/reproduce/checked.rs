//! Against what the files of a data set, and starting weights, were checked: no more is said than was compared.

use std::path::Path;

use lth_data::download::{Fetched, Mirror, Resource};
use lth_runs::{Checked, SourceFile};

use crate::failure::{Blame, Result};

/// What was compared of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) checked: Checked,
    /// In words: "SHA-256", "MD5 of the first MiB".
    pub(crate) what: Option<String>,
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
        Self { checked, what: file.check.as_ref().map(ToString::to_string) }
    }

    /// Of the user's own file: whether it is one of `known`, whatever its name.
    pub(crate) fn recognise(known: &[Resource], path: &Path) -> Result<Self> {
        for resource in known {
            if resource.is_file(path).data()? {
                let checked = if resource.check.is_whole() { Checked::Published } else { Checked::PublishedPart };
                return Ok(Self { checked, what: Some(resource.check.to_string()) });
            }
        }
        Ok(Self { checked: Checked::No, what: None })
    }
}

/// What can be said of all files together.
pub(crate) fn weakest(files: &[Compared]) -> Checked {
    let order = [Checked::No, Checked::Mirror, Checked::PublishedPart, Checked::Published];
    let found = order.into_iter().find(|checked| files.iter().any(|file| file.checked == *checked));
    found.unwrap_or(Checked::No)
}

/// One file's SHA-256; of several, that of the text of their `SHA256SUMS`, in order of names.
pub(crate) fn checksum(files: &[SourceFile]) -> Option<String> {
    match files {
        [] => None,
        [file] => file.sha256.clone(),
        files => {
            let mut lines: Vec<(&str, &str)> = Vec::new();
            for file in files {
                lines.push((&file.name, file.sha256.as_deref()?));
            }
            lines.sort_unstable();
            let text: String = lines.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
            Some(lth_files::sha256(text.as_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use lth_data::download::Check;

    use super::*;

    fn resource(bytes: &[u8], check: Check) -> Resource {
        Resource { name: "a.tar.gz".to_owned(), urls: Vec::new(), size: Some(bytes.len() as u64), most: 1 << 20, check }
    }

    #[test]
    fn no_more_is_said_than_was_compared() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("renamed.tgz");
        std::fs::write(&path, b"hello\n")?;
        // As sha256sum and md5sum say of it.
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03".to_owned();
        let md5 = "b1946ac92492d2347c6235b4d2611184".to_owned();
        let check = |check: Check| Compared::recognise(&[resource(b"hello\n", check)], &path).expect("it can be read");
        let of = |checked, what: &str| Compared { checked, what: Some(what.to_owned()) };
        assert_eq!(check(Check::Sha256(sha256.clone())), of(Checked::Published, "SHA-256"));
        let part = of(Checked::PublishedPart, "the first 8 of 64 digits of SHA-256");
        assert_eq!(check(Check::Sha256(sha256[..8].to_owned())), part);
        assert_eq!(check(Check::Md5FirstMib(md5)), of(Checked::PublishedPart, "MD5 of the first MiB"));
        assert_eq!(check(Check::Sha256("0".repeat(64))), Compared { checked: Checked::No, what: None });
        let (all, mirror) = (of(Checked::Published, ""), of(Checked::Mirror, ""));
        assert_eq!(weakest(&[all.clone(), part.clone()]), Checked::PublishedPart);
        assert_eq!(weakest(&[part, mirror]), Checked::Mirror);
        assert_eq!(weakest(&[all]), Checked::Published);
        assert_eq!(weakest(&[]), Checked::No);
        Ok(())
    }

    #[test]
    fn two_archives_have_one_checksum() {
        let file = |name: &str, sum: &str| SourceFile {
            name: name.to_owned(),
            bytes: 1,
            sha256: Some(sum.repeat(64)),
            checked: None,
        };
        let (a, b) = (file("annotations.tar.gz", "a"), file("images.tar.gz", "b"));
        let both = checksum(&[a.clone(), b.clone()]);
        // printf '%s  %s\n' aaa… annotations.tar.gz bbb… images.tar.gz | sha256sum
        assert_eq!(both.as_deref(), Some("81ae04319b43a1560bec3e77955d390f804c97eff3c0bd3f843caa4b463288c0"));
        assert_eq!(checksum(&[b, a.clone()]), both);
        assert_eq!(checksum(std::slice::from_ref(&a)), a.sha256);
        assert_eq!(checksum(&[]), None);
    }
}
