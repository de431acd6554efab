//! A mirror: files at `URL/<file name>`, their checksums in `URL/SHA256SUMS`.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use super::error::{Error, Result};
use super::resource::{Check, Resource, hex};
use crate::text::on_one_line;

/// Where files lie instead of at their own addresses.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mirror {
    /// The address without a slash at its end, and without user name and password: for messages and records.
    pub url: String,
    /// The mirror's list of checksums, where it has one.
    pub sums: Option<Sums>,
    /// The address that is asked.
    address: String,
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("url", &self.url).field("sums", &self.sums).finish_non_exhaustive()
    }
}

/// A `SHA256SUMS` file. It replaces the lengths and checksums built in, so a run that used one records it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sums {
    /// The file as it came.
    pub text: String,
    /// SHA-256 of the text.
    pub sha256: String,
    /// File name to SHA-256.
    pub entries: BTreeMap<String, String>,
}

/// `url` without slashes at its end.
///
/// # Errors
/// If it is no http or https address.
pub(super) fn check_url(url: &str) -> Result<String> {
    let bad = |reason: &str| Error::BadMirror { url: public(url), reason: reason.to_owned() };
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .ok_or_else(|| bad("expected an address that starts with http:// or https://"))?;
    if rest.is_empty() || rest.starts_with('/') {
        return Err(bad("expected a host after http:// or https://"));
    }
    if url.contains(['?', '#']) || url.chars().any(char::is_whitespace) {
        return Err(bad("expected an address of a folder, without `?`, `#` or spaces"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The address without user name and password, for messages and records.
///
/// A password with a `/`, `?` or `#` in it, which would have to be written otherwise, is left out too.
#[must_use]
pub fn public(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // Not yet an address: whoever left `http://` out has not left the password out.
        return url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let kept = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{host}{path}"),
        // What follows the colon is no port, so it is the beginning of a password.
        None if authority.rsplit_once(':').is_some_and(|(_, port)| !is_port(port)) => {
            path.rsplit_once('@').map_or(rest, |(_, host)| host).to_owned()
        }
        None => rest.to_owned(),
    };
    format!("{scheme}://{kept}")
}

/// Also of an IPv6 address, whose last part is hexadecimal and followed by a bracket.
fn is_port(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit()) || text.ends_with(']')
}

impl Sums {
    /// Reads lines of `<64 hexadecimal digits> <space or *><name>`; empty lines and `#` lines are skipped.
    ///
    /// # Errors
    /// The text of what is wrong: a line of another form, or one name with two checksums.
    pub(super) fn parse(text: &str) -> Result<Sums, String> {
        let mut entries: BTreeMap<String, String> = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || {
                let start: String = line.chars().take(80).collect();
                let start = on_one_line(&start);
                format!("SHA256SUMS line {} is `{start}`, expected a SHA-256 and a file name", index + 1)
            };
            let (sum, name) = line.split_once([' ', '\t']).ok_or_else(bad)?;
            let name = name.trim_start().trim_start_matches('*').trim_start_matches("./");
            if sum.len() != 64 || !sum.chars().all(|c| c.is_ascii_hexdigit()) || name.is_empty() {
                return Err(bad());
            }
            let sum = sum.to_ascii_lowercase();
            match entries.insert(name.to_owned(), sum.clone()) {
                Some(earlier) if earlier != sum => {
                    return Err(format!("SHA256SUMS has two different checksums for `{}`", on_one_line(name)));
                }
                _ => {}
            }
        }
        Ok(Sums { text: text.to_owned(), sha256: hex(&Sha256::digest(text.as_bytes())), entries })
    }
}

impl Mirror {
    /// `address`: checked, see [`check_url`].
    pub(super) fn new(address: String, sums: Option<Sums>) -> Mirror {
        Mirror { url: public(&address), sums, address }
    }

    /// `resource` as this mirror has it: its address there, and the mirror's checksum where it gives one.
    pub(super) fn apply(&self, resource: &Resource) -> Resource {
        let sum = self.sums.as_ref().and_then(|sums| sums.entries.get(&resource.name));
        Resource {
            name: resource.name.clone(),
            urls: vec![format!("{}/{}", self.address, resource.name)],
            size: if sum.is_some() { None } else { resource.size },
            most: resource.most,
            check: sum.map_or_else(|| resource.check.clone(), |sum| Check::Sha256(sum.clone())),
        }
    }

    /// Whether the mirror's list names every one of these files.
    pub(super) fn lists(&self, resources: &[Resource]) -> bool {
        let Some(sums) = &self.sums else { return false };
        resources.iter().all(|resource| sums.entries.contains_key(&resource.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_in_both_of_their_forms() {
        let a = "a".repeat(64);
        let b = "B".repeat(64);
        let text = format!("# made by hand\n{a}  images.tar.gz\r\n\n{b} *./annotations.tar.gz\n");
        let sums = Sums::parse(&text).unwrap();
        assert_eq!(sums.entries["images.tar.gz"], a);
        assert_eq!(sums.entries["annotations.tar.gz"], "b".repeat(64));
        assert_eq!(sums.text, text);
    }

    #[test]
    fn sums_that_are_a_web_page_or_contradict_themselves_are_refused() {
        assert!(Sums::parse("<html><body>hello</body></html>").unwrap_err().contains("line 1"));
        assert!(Sums::parse(&format!("{} ", "a".repeat(64))).unwrap_err().contains("line 1"));
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let twice = format!("{a}  x\n{b}  x\n");
        assert!(Sums::parse(&twice).unwrap_err().contains("two different"));
    }

    #[test]
    fn addresses_are_checked_and_secrets_left_out() {
        assert_eq!(check_url("http://host:8000/a//").unwrap(), "http://host:8000/a");
        for bad in ["ftp://host/a", "host/a", "http://", "https:///a", "http://h/a?b", "http://h/a b"] {
            assert!(matches!(check_url(bad), Err(Error::BadMirror { .. })), "{bad}");
        }
        assert_eq!(public("http://me:secret@host/a@b"), "http://host/a@b");
        assert_eq!(public("http://host"), "http://host");
        assert_eq!(public("https://host:80/a@b"), "https://host:80/a@b");
        assert_eq!(public("http://[::1]:80/a@b"), "http://[::1]:80/a@b");
        assert_eq!(public("http://[::1]/a@b"), "http://[::1]/a@b");
        for secret in ["http://me:sec/ret@host/a", "http://me:s?ecret@host/a", "http://me:s@cr#et@host/a"] {
            assert_eq!(public(secret), "http://host/a", "{secret}");
        }
        assert_eq!(public("me:secret@host"), "host");
        let mirror = Mirror::new("http://me:secret@host".to_owned(), None);
        assert!(!format!("{mirror:?}").contains("secret"), "{mirror:?}");
    }
}
