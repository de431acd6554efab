//! Networks as safetensors files: equal bytes for equal content, written whole or not at all, read without trust.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::{SafeTensorError, SafeTensors, View};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Metadata(&'a BTreeMap<String, String>),
    Tensor { dtype: safetensors::Dtype, shape: &'a [usize], data_offsets: [usize; 2] },
}

/// Writes tensors and header fields in safetensors' format, everything sorted. The safetensors crate's own writer takes
/// header fields as a `HashMap`, so that equal content would give different bytes from run to run.
///
/// ```
/// # use std::collections::BTreeMap;
/// # use candle_core::{Device, Tensor};
/// let weight = Tensor::new(&[1f32, 0.], &Device::Cpu)?;
/// let mut bytes = Vec::new();
/// let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
/// lth_train::write_safetensors(&mut bytes, &BTreeMap::from([("weight".to_owned(), weight)]), &metadata)?;
/// let read = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
/// assert_eq!(read["weight"].to_vec1::<f32>()?, [1., 0.]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If `out` fails or a tensor cannot be brought to the CPU.
pub fn write_safetensors(
    out: &mut dyn Write,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    // Wide elements first, as the format advises, so that every tensor is aligned.
    let mut tensors: Vec<(&String, &Tensor)> = tensors.iter().collect();
    tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(Tensor::dtype(tensor).size_in_bytes()));

    let mut header = BTreeMap::new();
    if !metadata.is_empty() {
        header.insert("__metadata__", Entry::Metadata(metadata));
    }
    let mut offset = 0;
    for (name, tensor) in &tensors {
        let length = View::data_len(tensor);
        let dtype = safetensors::Dtype::from(Tensor::dtype(tensor));
        header.insert(name, Entry::Tensor { dtype, shape: tensor.dims(), data_offsets: [offset, offset + length] });
        offset += length;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');

    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (_, tensor) in tensors {
        let tensor = tensor.to_device(&Device::Cpu).and_then(|tensor| tensor.contiguous()).map_err(io::Error::other)?;
        out.write_all(&View::data(&tensor))?;
    }
    Ok(())
}

/// Writes a file as [`write_safetensors`] does, through a temporary file of its own name beside `path`, flushed to the
/// disk and then renamed: a reader sees the old file or the new one, and a failure leaves nothing behind.
///
/// # Errors
/// If the folder cannot be written, the disk is full, or a tensor cannot be brought to the CPU.
pub fn save_safetensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lth-").suffix(".partial");
    // tempfile's default is for its owner alone; the user's mask still applies.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    let mut buffered = BufWriter::new(file.as_file_mut());
    write_safetensors(&mut buffered, tensors, metadata)?;
    buffered.flush()?;
    drop(buffered);
    file.as_file().sync_all()?;
    file.persist(path)?;
    // That the rename outlives a power cut; not every file system can be asked, and the content is safe by now.
    if cfg!(unix) {
        let _ = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
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
