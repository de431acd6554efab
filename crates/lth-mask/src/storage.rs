//! Mask sets in files.
//!
//! A mask file is a safetensors file. Under each parameter's name lies a one-dimensional U8 tensor: the mask's bits, lowest
//! first ([`Mask::to_bytes`]). The header's metadata has one entry, `lth-mask`, a JSON object:
//!
//! | field | value |
//! |---|---|
//! | `version` | 1 |
//! | `shapes` | each parameter's shape by name |
//! | `sha256` | [`MaskSet::sha256`] of the content, in hexadecimal |
//!
//! In Python: `numpy.unpackbits(tensor, bitorder="little")[:prod(shape)].reshape(shape)`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Named, Result};
use crate::mask::Mask;
use crate::set::MaskSet;

const METADATA_KEY: &str = "lth-mask";
const VERSION: u32 = 1;

/// The largest file that is read: masks of 34 billion weights.
const MAX_FILE_BYTES: u64 = 1 << 32;

#[derive(serde::Serialize, serde::Deserialize)]
struct Content {
    version: u32,
    shapes: BTreeMap<String, Vec<usize>>,
    sha256: String,
}

/// What of a safetensors header is checked before the safetensors crate sees it.
#[derive(serde::Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default)]
    _metadata: Option<serde::de::IgnoredAny>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Place>,
}

#[derive(serde::Deserialize)]
struct Place {
    data_offsets: (u64, u64),
}

impl MaskSet {
    /// SHA-256 of names, shapes and bits, in hexadecimal: the same for the same masks, whatever file they are in.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for (name, mask) in self.iter() {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((mask.shape().len() as u64).to_le_bytes());
            mask.shape().iter().for_each(|&d| hash.update((d as u64).to_le_bytes()));
            hash.update(mask.to_bytes());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The content of a mask file: the same bytes for the same masks.
    ///
    /// # Errors
    /// If a mask has the name that safetensors keeps for itself.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let reserved = "__metadata__";
        if self.get(reserved).is_some() {
            return Err(Error::Name("reserved by safetensors")).named(reserved);
        }
        let shapes = self.iter().map(|(name, mask)| (name.to_owned(), mask.shape().to_vec())).collect();
        let content = Content { version: VERSION, shapes, sha256: self.sha256() };
        let content = serde_json::to_string(&content).map_err(damaged)?;
        let bits: Vec<(&str, Vec<u8>)> = self.iter().map(|(name, mask)| (name, mask.to_bytes())).collect();
        let views = bits.iter().map(|(name, bits)| Ok((*name, TensorView::new(Dtype::U8, vec![bits.len()], bits)?)));
        let views: Vec<_> = views.collect::<Result<_, safetensors::SafeTensorError>>().map_err(damaged)?;
        serialize(views, Some(HashMap::from([(METADATA_KEY.to_owned(), content)]))).map_err(damaged)
    }

    /// The masks of a mask file's content.
    ///
    /// What it allocates is in proportion to the content's length, whatever the content claims.
    ///
    /// # Errors
    /// If the content is no mask file, is damaged, or has another checksum than it says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        check_offsets(bytes)?;
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let metadata = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY));
        let content = metadata.ok_or_else(|| Error::File(format!("the header has no `{METADATA_KEY}` metadata")))?;
        let version: Version = serde_json::from_str(content).map_err(damaged)?;
        if version.version != VERSION {
            return Err(Error::File(format!("version is {}, expected {VERSION}", version.version)));
        }
        let content: Content = serde_json::from_str(content).map_err(damaged)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
        if let Some(name) = tensors.names().into_iter().filter(|name| !content.shapes.contains_key(*name)).min() {
            return Err(Error::Missing { what: "shape in the header" }).named(name);
        }
        let masks: MaskSet = content
            .shapes
            .into_iter()
            .map(|(name, shape)| {
                let mask = read_mask(&tensors, &name, shape).named(&name)?;
                Ok((name, mask))
            })
            .collect::<Result<_>>()?;
        let (got, expected) = (masks.sha256(), content.sha256);
        if got != expected {
            return Err(Error::Checksum { got, expected });
        }
        Ok(masks)
    }

    /// Writes a mask file: whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.to_bytes()?;
        let write = || {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut builder = tempfile::Builder::new();
            builder.prefix(".lth-").suffix(".partial");
            #[cfg(unix)]
            {
                // As any new file, not for its owner alone; the user's mask still applies.
                use std::os::unix::fs::PermissionsExt;
                builder.permissions(std::fs::Permissions::from_mode(0o666));
            }
            let mut file = builder.tempfile_in(folder)?;
            file.write_all(&bytes)?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            // That the rename outlives a power cut; not every file system can be asked, and the content is safe by now.
            if cfg!(unix) {
                let _ = File::open(folder).and_then(|folder| folder.sync_all());
            }
            Ok(())
        };
        write().map_err(|source| Error::Io { path: path.to_owned(), source })
    }

    /// Reads a mask file.
    ///
    /// # Errors
    /// If the file cannot be read, and as [`MaskSet::from_bytes`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let got = file.metadata().map_err(io)?.len();
        if got > MAX_FILE_BYTES {
            return Err(Error::FileTooLarge { got, most: MAX_FILE_BYTES });
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(got as usize).map_err(|e| io(e.into()))?;
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(io)?;
        Self::from_bytes(&bytes)
    }
}

/// What is read first, so that a later version's content need not look like this one's.
#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

fn read_mask(tensors: &SafeTensors<'_>, name: &str, shape: Vec<usize>) -> Result<Mask> {
    let view = tensors.tensor(name).map_err(|_| Error::Missing { what: "tensor in the file" })?;
    if view.dtype() != Dtype::U8 || view.shape().len() != 1 {
        let (dtype, shape) = (view.dtype(), view.shape());
        return Err(Error::File(format!("bits are {dtype:?} {shape:?}, expected U8 of one dimension")));
    }
    Mask::from_bytes(shape, view.data())
}

/// No tensor lies outside the content. The safetensors crate checks that too, but adds up the header's numbers before,
/// which overflows (a panic where overflow checks are on) when they are hostile.
fn check_offsets(bytes: &[u8]) -> Result<()> {
    let short = || Error::File("is shorter than its header says".to_owned());
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(short)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| short())?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(short)?;
    let header: Header = serde_json::from_slice(header).map_err(damaged)?;
    let ends = header.tensors.values().map(|place| place.data_offsets.0.max(place.data_offsets.1));
    if ends.max().is_some_and(|end| end > data.len() as u64) { Err(short()) } else { Ok(()) }
}

fn damaged(error: impl std::fmt::Display) -> Error {
    Error::File(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks() -> Result<MaskSet> {
        let mask = |n: usize| Mask::from_fn([n, 3], |i| i % 5 < 2);
        Ok([("conv1.weight".to_owned(), mask(7)?), ("empty".to_owned(), mask(0)?), ("fc".to_owned(), mask(100)?)]
            .into_iter()
            .collect())
    }

    /// A safetensors file with this header and data.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn files_are_the_same_bytes_and_read_back() -> Result<()> {
        let masks = masks()?;
        let folder = tempfile::tempdir().map_err(|source| Error::Io { path: ".".into(), source })?;
        let path = folder.path().join("masks.safetensors");
        masks.save(&path)?;
        assert_eq!(MaskSet::load(&path)?, masks);
        assert_eq!(std::fs::read(&path).ok(), Some(masks.to_bytes()?));
        masks.invert().save(&path)?;
        assert_eq!(MaskSet::load(&path)?, masks.invert());
        assert!(matches!(MaskSet::load(folder.path().join("none")), Err(Error::Io { .. })));
        assert!(matches!(masks.save(folder.path().join("no/folder")), Err(Error::Io { .. })));
        Ok(())
    }

    #[test]
    fn any_flipped_bit_is_an_error() -> Result<()> {
        let bytes = masks()?.to_bytes()?;
        for i in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[i / 8] ^= 1 << (i % 8);
            if let Ok(read) = MaskSet::from_bytes(&flipped) {
                // Some bits of a JSON header mean nothing: what kind of blank pads it, or lies between its parts.
                assert_eq!(read, masks()?, "bit {i}");
            }
        }
        for end in 0..bytes.len() {
            assert!(MaskSet::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
        }
        Ok(())
    }

    #[test]
    fn a_file_longer_than_any_is_not_read() -> Result<()> {
        let io = |source| Error::Io { path: ".".into(), source };
        let file = tempfile::NamedTempFile::new().map_err(io)?;
        file.as_file().set_len(MAX_FILE_BYTES + 1).map_err(io)?;
        assert!(matches!(MaskSet::load(file.path()), Err(Error::FileTooLarge { .. })));
        Ok(())
    }

    /// Eight tensors of 2^61 - 1 bytes, one behind the other: with the header's length before them the end wraps.
    fn wrapping() -> String {
        const LEN: u64 = (1 << 61) - 1;
        let tensor = |at: u64| {
            let (from, to) = (at * LEN, (at + 1) * LEN);
            format!(r#""t{at}":{{"dtype":"U8","shape":[{LEN}],"data_offsets":[{from},{to}]}}"#)
        };
        format!("{{{}}}", (0..8).map(tensor).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn headers_that_lie_are_errors() {
        let huge = u64::MAX / 8;
        let claims = [
            r#"{"a":{"dtype":"U8","shape":[4611686018427387904,2],"data_offsets":[0,9223372036854775808]}}"#.to_owned(),
            format!(r#"{{"a":{{"dtype":"U8","shape":[{huge}],"data_offsets":[0,{huge}]}}}}"#),
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}"#.to_owned(),
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#.to_owned(),
            "[".repeat(100_000),
            "{}".to_owned(),
            // Lengths that wrap when they are added.
            wrapping(),
        ];
        for header in &claims {
            assert!(matches!(MaskSet::from_bytes(&file(header, &[0])), Err(Error::File(_))), "{header:.60}");
        }
        assert!(matches!(MaskSet::from_bytes(&u64::MAX.to_le_bytes()), Err(Error::File(_))));
    }

    #[test]
    fn content_that_does_not_fit_is_named() {
        let with = |content: &str, tensors: &str| {
            let content = serde_json::to_string(content).unwrap_or_default();
            file(&format!(r#"{{"__metadata__":{{"lth-mask":{content}}},{tensors}}}"#), &[0b11])
        };
        let tensor = r#""a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
        let read = |content: &str| MaskSet::from_bytes(&with(content, tensor)).map_err(|e| e.to_string());
        let error = |content: &str| read(content).err().unwrap_or_default();
        assert_eq!(error(r#"{"version":2,"masks":[]}"#), "mask file: version is 2, expected 1");
        let shapes = |shapes: &str| error(&format!(r#"{{"version":1,"shapes":{shapes},"sha256":""}}"#));
        assert_eq!(shapes("{}"), "`a`: no shape in the header of this name, expected one");
        assert_eq!(shapes(r#"{"a":[9]}"#), "`a`: packed mask has 1 bytes, expected 2");
        assert_eq!(shapes(r#"{"a":[1]}"#), "`a`: packed mask has bits set after its last weight");
        assert!(shapes(r#"{"a":[4294967296,4294967296,2]}"#).contains("too many elements"));
        assert!(shapes(r#"{"a":[2],"b":[2]}"#).contains("`b`: no tensor in the file"));
        assert!(shapes(r#"{"a":[2]}"#).contains("expected "), "checksum");
    }
}
