//! Safetensors of which one tensor at a time is in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use safetensors::tensor::{Metadata, TensorInfo};

use crate::{Dtype, Error, MAX_HEADER_BYTES, RawTensor};

/// A safetensors file whose header was read, and whose tensors are read when they are asked for: for files that are larger
/// than memory. It does not trust the header, as [`open_safetensors`](crate::open_safetensors) does not.
///
/// The file stays open and is not mapped: if it is cut meanwhile, reading fails and nothing else happens.
///
/// ```
/// # use std::collections::BTreeMap;
/// use lth_files::{Dtype, RawTensor, SafetensorsReader, save_safetensors};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("weights.safetensors");
/// let weight = RawTensor { dtype: Dtype::U8, shape: vec![3], data: [1, 0, 2].as_slice().into() };
/// save_safetensors(&path, &BTreeMap::from([("weight".to_owned(), weight.clone())]), &BTreeMap::new())?;
/// let file = SafetensorsReader::open(&path)?;
/// assert_eq!(file.tensors().collect::<Vec<_>>(), [("weight", Dtype::U8, &[3][..])]);
/// assert_eq!(file.read("weight")?, weight);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SafetensorsReader {
    path: PathBuf,
    file: Mutex<File>,
    /// Where the tensors' bytes begin.
    data: u64,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl SafetensorsReader {
    /// Reads the header.
    ///
    /// # Errors
    /// If the file cannot be read, is no safetensors file, is cut short or has bytes that belong to no tensor.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (read, damaged) =
            (|| Error::io("read", path), |reason: String| Error::Format { path: path.into(), reason });
        let mut file = File::open(path).map_err(read())?;
        let size = file.metadata().map_err(read())?.len();
        let mut length = [0; 8];
        if size < 8 {
            return Err(damaged(format!("it has {size} bytes, expected the eight of its header's length and more")));
        }
        file.read_exact(&mut length).map_err(read())?;
        let length = u64::from_le_bytes(length);
        if length > size - 8 || length > MAX_HEADER_BYTES as u64 {
            let most = (size - 8).min(MAX_HEADER_BYTES as u64);
            return Err(damaged(format!("its header has {length} bytes, expected at most {most}")));
        }
        let mut header = Vec::new();
        Read::by_ref(&mut file).take(length).read_to_end(&mut header).map_err(read())?;
        // What tensors need is checked as it is parsed: their places follow one another and are as large as they say.
        let header: Metadata = serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
        let expected = size - 8 - length;
        if header.data_len() as u64 != expected {
            let got = header.data_len();
            return Err(damaged(format!(
                "its tensors have {got} bytes, expected the {expected} that follow its header"
            )));
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let tensors = header.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { path: path.into(), file: Mutex::new(file), data: 8 + length, metadata, tensors })
    }

    /// The header's text fields.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Name, type and shape of each tensor, by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, Dtype, &[usize])> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info.dtype, info.shape.as_slice()))
    }

    /// A tensor's elements.
    ///
    /// # Errors
    /// If there is none of this name, or its bytes cannot be read.
    pub fn read(&self, name: &str) -> Result<RawTensor<'static>, Error> {
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::Format { path: self.path.clone(), reason: format!("it has no tensor `{name}`") })?;
        let (from, to) = info.data_offsets;
        let mut data = vec![0; to - from];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.data + from as u64))
            .and_then(|_| file.read_exact(&mut data))
            .map_err(Error::io("read", &self.path))?;
        Ok(RawTensor { dtype: info.dtype, shape: info.shape.clone(), data: data.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{open_safetensors, save_safetensors, write_safetensors};

    fn two() -> BTreeMap<String, RawTensor<'static>> {
        let tensor = |dtype, shape: &[usize], data: &[u8]| RawTensor {
            dtype,
            shape: shape.to_vec(),
            data: data.to_vec().into(),
        };
        [
            ("a".to_owned(), tensor(Dtype::U8, &[2, 2], &[1, 2, 3, 4])),
            ("b".to_owned(), tensor(Dtype::F32, &[1], &[0, 0, 128, 63])),
        ]
        .into()
    }

    #[test]
    fn each_tensor_is_what_was_written_in_any_order() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("file");
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        save_safetensors(&path, &two(), &metadata)?;
        let file = SafetensorsReader::open(&path)?;
        assert_eq!(file.metadata(), &metadata);
        for name in ["b", "a", "b"] {
            assert_eq!(file.read(name)?, two()[name]);
        }
        let error = file.read("c").expect_err("there is none").to_string();
        assert!(error.contains("it has no tensor `c`"), "{error}");
        Ok(())
    }

    #[test]
    fn what_the_reader_of_whole_files_refuses_is_refused() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("file");
        let mut valid = Vec::new();
        write_safetensors(&mut valid, &two(), &BTreeMap::new())?;
        let agree = |bytes: &[u8], what: &str| -> Result<(), Box<dyn std::error::Error>> {
            std::fs::write(&path, bytes)?;
            let (whole, lazy) = (open_safetensors(bytes).is_ok(), SafetensorsReader::open(&path));
            assert_eq!(whole, lazy.is_ok(), "{what}: {lazy:?}");
            Ok(())
        };
        agree(&valid, "as written")?;
        agree(&[&valid[..], &[0]].concat(), "a byte more")?;
        for length in 0..valid.len() {
            agree(&valid[..length], &format!("cut to {length}"))?;
        }
        for at in 0..valid.len() {
            for flip in [1, 0x80] {
                let mut bytes = valid.clone();
                bytes[at] ^= flip;
                agree(&bytes, &format!("byte {at} turned by {flip}"))?;
            }
        }
        Ok(())
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_open_is_an_error() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("file");
        save_safetensors(&path, &two(), &BTreeMap::new())?;
        let file = SafetensorsReader::open(&path)?;
        let length = std::fs::metadata(&path)?.len();
        File::options().write(true).open(&path)?.set_len(length - 1)?;
        assert!(matches!(file.read("a"), Err(Error::Io { .. })));
        assert_eq!(file.read("b")?, two()["b"]);
        Ok(())
    }
}
