use std::io::Write;

use lth_files::{Error, Hashing, Sha256, sha256, sha256_file};

/// FIPS 180-2, appendix B.1.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn digests_are_those_of_the_standard() -> Result<(), Error> {
    assert_eq!(sha256(b"abc"), ABC);
    let mut pieces = Sha256::new();
    pieces.update(b"a");
    pieces.write_all(b"bc").expect("it never fails");
    assert_eq!(pieces.finish(), ABC);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("million");
    std::fs::write(&path, vec![b'a'; 1_000_000]).expect("a small file");
    // The same, appendix B.3: a million times `a`.
    let million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    assert_eq!(sha256_file(&path)?, (million.to_owned(), 1_000_000));
    assert!(matches!(sha256_file(&folder.path().join("none")), Err(Error::Io { action: "read", .. })));
    Ok(())
}

#[test]
fn fields_are_told_apart() {
    let of = |fields: &[&str]| {
        let mut hash = Sha256::new();
        fields.iter().for_each(|field| hash.field(field.as_bytes()));
        hash.finish()
    };
    assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
}

/// Takes two bytes at a time, and at the fifth no more.
struct Short(Vec<u8>);

impl Write for Short {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() > 4 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let taken = &bytes[..bytes.len().min(2)];
        self.0.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_a_writer_took_is_hashed_and_nothing_else() {
    let mut short = Short(Vec::new());
    let mut out = Hashing::new(&mut short);
    out.write_all(b"abc").expect("there is room");
    assert_eq!(out.finish(), (ABC.to_owned(), 3));
    let mut out = Hashing::new(&mut short);
    assert!(out.write_all(b"defg").is_err());
    let (digest, n_bytes) = out.finish();
    assert_eq!((digest, n_bytes), (sha256(b"de"), 2));
    assert_eq!(short.0, b"abcde");
}
