//! Safetensors: equal bytes for equal content, written whole or not at all, read without trust.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::{Error, Hashing};

/// The longest header that readers of the format accept (Hugging Face's own, in Rust, is the measure).
pub const MAX_HEADER_BYTES: usize = 100_000_000;

/// What a tensor must tell to be written. Its bytes are asked for when it is its turn, so that one tensor at a time needs
/// to be in memory twice.
pub trait TensorBytes {
    /// Type of the elements.
    fn dtype(&self) -> Dtype;

    /// Sizes, outermost first.
    fn shape(&self) -> &[usize];

    /// The elements, row-major and little-endian: as many bytes as type and shape say.
    ///
    /// # Errors
    /// If they cannot be had, from a device for example.
    fn bytes(&self) -> io::Result<Cow<'_, [u8]>>;
}

/// A tensor that is bytes already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTensor<'a> {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The elements, row-major and little-endian.
    pub data: Cow<'a, [u8]>,
}

impl TensorBytes for RawTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.data))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Metadata(&'a BTreeMap<String, String>),
    Tensor { dtype: Dtype, shape: &'a [usize], data_offsets: [usize; 2] },
}

/// Writes tensors and header fields in safetensors' format, everything sorted. The safetensors crate's own writer takes
/// header fields as a `HashMap`, so that equal content would give different bytes from run to run.
///
/// ```
/// # use std::collections::BTreeMap;
/// use lth_files::{Dtype, RawTensor, open_safetensors, write_safetensors};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let weight = RawTensor { dtype: Dtype::U8, shape: vec![3], data: [1, 0, 2].as_slice().into() };
/// let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
/// let mut bytes = Vec::new();
/// write_safetensors(&mut bytes, &BTreeMap::from([("weight".to_owned(), weight)]), &metadata)?;
/// let (fields, tensors) = open_safetensors(&bytes)?;
/// assert_eq!((fields, tensors.tensor("weight")?.data()), (metadata, &[1, 0, 2][..]));
/// # Ok(()) }
/// ```
///
/// # Errors
/// If `out` fails, a tensor's bytes cannot be had or are not as many as its type and shape say, a tensor has the name
/// that the format keeps for itself, or the header would be longer than [`MAX_HEADER_BYTES`].
pub fn write_safetensors<T: TensorBytes>(
    out: &mut dyn Write,
    tensors: &BTreeMap<String, T>,
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    const METADATA: &str = "__metadata__";
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidInput, reason);
    if tensors.contains_key(METADATA) {
        return Err(invalid(format!("no tensor can have the name `{METADATA}`: safetensors keeps it for itself")));
    }
    // Wide elements first, as the format advises, so that every tensor is aligned.
    let mut sorted: Vec<(&String, &T)> = tensors.iter().collect();
    sorted.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype().bitsize()));

    let mut header = BTreeMap::new();
    if !metadata.is_empty() {
        header.insert(METADATA, Entry::Metadata(metadata));
    }
    let mut offset: usize = 0;
    let mut lengths = Vec::with_capacity(sorted.len());
    for (name, tensor) in &sorted {
        let bits = tensor.shape().iter().try_fold(tensor.dtype().bitsize(), |bits, dim| bits.checked_mul(*dim));
        let end = bits.and_then(|bits| offset.checked_add(bits.div_ceil(8)));
        let end = end.ok_or_else(|| invalid(format!("`{name}` has shape {:?}: too many elements", tensor.shape())))?;
        let entry = Entry::Tensor { dtype: tensor.dtype(), shape: tensor.shape(), data_offsets: [offset, end] };
        header.insert(name, entry);
        lengths.push(end - offset);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() > MAX_HEADER_BYTES {
        let length = header.len();
        return Err(invalid(format!("its header would have {length} bytes, expected at most {MAX_HEADER_BYTES}")));
    }

    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for ((name, tensor), expected) in sorted.into_iter().zip(lengths) {
        let bytes = tensor.bytes()?;
        if bytes.len() != expected {
            return Err(invalid(format!("`{name}` has {} bytes, expected {expected}", bytes.len())));
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Writes a file as [`write_safetensors`] does, whole or not at all as [`write_atomic`](crate::write_atomic) does.
///
/// # Errors
/// [`Error::Io`] for all that the two can fail of.
pub fn save_safetensors<T: TensorBytes>(
    path: &Path,
    tensors: &BTreeMap<String, T>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), Error> {
    crate::write_atomic(path, |out| write_safetensors(out, tensors, metadata))
}

/// [`save_safetensors`], and the file's SHA-256 and length in bytes as [`sha256_file`](crate::sha256_file) would say them,
/// without reading the file again.
///
/// # Errors
/// As [`save_safetensors`].
pub fn save_safetensors_hashed<T: TensorBytes>(
    path: &Path,
    tensors: &BTreeMap<String, T>,
    metadata: &BTreeMap<String, String>,
) -> Result<(String, u64), Error> {
    let mut digest = (String::new(), 0);
    crate::write_atomic(path, |out| {
        let mut out = Hashing::new(out);
        write_safetensors(&mut out, tensors, metadata)?;
        digest = out.finish();
        Ok(())
    })?;
    Ok(digest)
}

/// The header fields and the tensors of a safetensors file's bytes. Use it for every file from outside: the safetensors
/// crate adds up the places in a header before it compares them with the file's length, and places near 2^64 overflow
/// there, which ends the program. (`lth-mask`, which uses no other crate of this project, guards its files in the same
/// way.)
///
/// # Errors
/// If the bytes are no safetensors file, are cut short, or a tensor lies outside of them.
pub fn open_safetensors(bytes: &[u8]) -> Result<(BTreeMap<String, String>, SafeTensors<'_>), SafeTensorError> {
    check_offsets(bytes)?;
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let fields = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((fields, SafeTensors::deserialize(bytes)?))
}
/// What of a header is compared with the file's length.
#[derive(Deserialize)]
struct Places {
    #[serde(rename = "__metadata__", default)]
    _metadata: Option<serde::de::IgnoredAny>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Place>,
}

#[derive(Deserialize)]
struct Place {
    data_offsets: (u64, u64),
}

fn check_offsets(bytes: &[u8]) -> Result<(), SafeTensorError> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or(SafeTensorError::HeaderTooSmall)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| SafeTensorError::InvalidHeaderLength)?;
    let (header, data) = rest.split_at_checked(length).ok_or(SafeTensorError::InvalidHeaderLength)?;
    // What is wrong with a header that cannot be read, the safetensors crate says itself.
    let Ok(places) = serde_json::from_slice::<Places>(header) else { return Ok(()) };
    let outside = |place: &Place| place.data_offsets.0.max(place.data_offsets.1) > data.len() as u64;
    match places.tensors.into_iter().find(|(_, place)| outside(place)) {
        Some((name, _)) => Err(SafeTensorError::InvalidOffset(name)),
        None => Ok(()),
    }
}
