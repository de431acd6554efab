//! State dicts that PyTorch saved, in its zip format (since 1.6) and the one before.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::pickle::{self, Id, Object, Pickle, TensorInfo};
use super::{Skipped, Weights};
use crate::Error;

/// The first pickle of the format before the zip one: the integer 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Tensors may share storage, so that a small file can describe a lot of them. All tensors together may be this many
/// times as large as the file; tied weights need two.
const MAX_EXPANSION: usize = 4;

/// Whether the content looks like PyTorch's.
pub(super) fn is_pytorch(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(LEGACY_MAGIC)
}

/// The tensors of a state dict.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<Weights, Error> {
    let file = if bytes.starts_with(LEGACY_MAGIC) { File::legacy(bytes) } else { File::zip(bytes) };
    let file = file.map_err(|reason| Error::format(path, format!("not a readable PyTorch file: {reason}")))?;
    let entries = file.entries().map_err(|reason| Error::format(path, reason))?;
    let mut weights = Weights::default();
    let mut budget = bytes.len().saturating_mul(MAX_EXPANSION);
    for (name, tensor) in entries {
        match file.data(tensor, bytes, &mut budget) {
            Ok((data, dtype)) => {
                let tensor = Tensor::from_raw_buffer(&data, dtype, &tensor.shape, &Device::Cpu)?;
                weights.tensors.insert(name.to_owned(), tensor);
            }
            Err(Refused::Unsupported(reason)) => weights.ignored.push(Skipped { name: name.to_owned(), reason }),
            Err(Refused::Damaged(reason)) => return Err(Error::format(path, format!("`{name}`: {reason}"))),
        }
    }
    Ok(weights)
}

/// Why a tensor could not be read.
enum Refused {
    /// It is of a type that candle does not have.
    Unsupported(String),
    /// It cannot be what it says it is.
    Damaged(String),
}

struct File {
    pickle: Pickle,
    root: Id,
    /// Where the data of each storage lie in the file.
    storages: HashMap<String, Range<usize>>,
}

impl File {
    fn zip(bytes: &[u8]) -> Result<Self, String> {
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
        let mut entries = BTreeMap::new();
        for idx in 0..archive.len() {
            let entry = archive.by_index_raw(idx).map_err(|error| error.to_string())?;
            let name = entry.name().map_err(|error| error.to_string())?.into_owned();
            if entry.is_dir() {
                continue;
            }
            if entry.compression() != zip::CompressionMethod::Stored || entry.encrypted() {
                return Err(format!("its entry {name} is compressed or encrypted, as PyTorch never does"));
            }
            let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
            let size = usize::try_from(entry.size()).ok();
            let range = start.zip(size).and_then(|(start, size)| Some(start..start.checked_add(size)?));
            let range = range.filter(|range| range.end <= bytes.len());
            entries.insert(name.clone(), range.ok_or_else(|| format!("its entry {name} reaches past its end"))?);
        }
        let (prefix, range) = entries
            .iter()
            .find_map(|(name, range)| Some((name.strip_suffix("data.pkl")?.to_owned(), range.clone())))
            .ok_or("a zip archive without data.pkl")?;
        if entries.get(&format!("{prefix}byteorder")).is_some_and(|order| &bytes[order.clone()] == b"big") {
            return Err("its numbers are big-endian".to_owned());
        }
        let (pickle, root, _) = pickle::parse(&bytes[range])?;
        let data = format!("{prefix}data/");
        let storages =
            entries.into_iter().filter_map(|(name, range)| Some((name.strip_prefix(&data)?.to_owned(), range)));
        Ok(Self { pickle, root, storages: storages.collect() })
    }

    fn legacy(bytes: &[u8]) -> Result<Self, String> {
        // Magic number, protocol version, system information, the object, the keys of the storages; then the storages.
        let mut at = LEGACY_MAGIC.len();
        for _ in 0..2 {
            at += pickle::parse(&bytes[at..])?.2;
        }
        let (pickle, root, length) = pickle::parse(&bytes[at..])?;
        at += length;
        let (key_pickle, keys, length) = pickle::parse(&bytes[at..])?;
        at += length;
        let Object::List(keys) = key_pickle.get(keys) else { return Err("it does not list its storages".to_owned()) };
        let widths = pickle.storage_widths();
        let mut storages = HashMap::new();
        for &key in keys {
            let key = key_pickle.text(key).ok_or("the name of a storage is no text")?;
            let width =
                *widths.get(key).ok_or_else(|| format!("nothing uses its storage {key}, or it has no known type"))?;
            let header = bytes.get(at..at + 8).and_then(|header| header.try_into().ok());
            let n = header.map(u64::from_le_bytes).and_then(|n| usize::try_from(n).ok());
            let start = at + 8;
            let end = n.and_then(|n| n.checked_mul(width)?.checked_add(start)).filter(|&end| end <= bytes.len());
            at = end.ok_or_else(|| format!("its storage {key} reaches past its end"))?;
            storages.insert(key.to_owned(), start..at);
        }
        Ok(Self { pickle, root, storages })
    }

    /// The named tensors of the state dict.
    fn entries(&self) -> Result<BTreeMap<&str, &TensorInfo>, &'static str> {
        // Of several entries of one name the last counts, as in Python.
        let tensors = |id: Id| -> BTreeMap<&str, &TensorInfo> {
            let Object::Dict(items) = self.pickle.get(id) else { return BTreeMap::new() };
            let tensor = |&(key, value): &(Id, Id)| match self.pickle.get(value) {
                Object::Tensor(tensor) => Some((self.pickle.text(key)?, &**tensor)),
                _ => None,
            };
            items.iter().filter_map(tensor).collect()
        };
        let Object::Dict(items) = self.pickle.get(self.root) else {
            return Err("a PyTorch file that holds no dictionary of tensors: save the model's `state_dict()`");
        };
        let nested = ["state_dict", "model_state_dict", "model"].into_iter().flat_map(|wanted| {
            items.iter().filter(move |(key, _)| self.pickle.text(*key) == Some(wanted)).map(|&(_, value)| value)
        });
        let found = std::iter::once(self.root).chain(nested).map(tensors).find(|entries| !entries.is_empty());
        found.ok_or("a PyTorch file whose dictionary holds no tensors: save the model's `state_dict()`")
    }

    /// The bytes of a tensor in row-major order; their number is taken off `budget`.
    fn data(&self, tensor: &TensorInfo, bytes: &[u8], budget: &mut usize) -> Result<(Vec<u8>, DType), Refused> {
        let damaged = |reason: &str| Refused::Damaged(reason.to_owned());
        let class = &*tensor.storage.class;
        // Every tensor can have one long name in common: no copy of it for each.
        let shown = if class.len() <= 100 { class } else { "a class with a very long name" };
        let dtype =
            dtype(class).ok_or_else(|| Refused::Unsupported(format!("`{shown}` is of no type that can be read")))?;
        let width = dtype.size_in_bytes();
        let storage = self.storages.get(&*tensor.storage.key).ok_or_else(|| damaged("its data are missing"))?;
        let storage = &bytes[storage.clone()];
        let n = tensor.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        let n = n.ok_or_else(|| damaged("its shape is larger than any memory"))?;
        if n == 0 {
            return Ok((Vec::new(), dtype));
        }
        // The place of the last element, in elements; the first is at the offset.
        let last = tensor
            .shape
            .iter()
            .zip(&tensor.stride)
            .try_fold(tensor.offset, |last, (&size, &stride)| last.checked_add((size - 1).checked_mul(stride)?));
        if last.is_none_or(|last| last >= storage.len() / width) {
            return Err(damaged("it reaches past the end of its data"));
        }
        *budget = n
            .checked_mul(width)
            .and_then(|size| budget.checked_sub(size))
            .ok_or_else(|| damaged("the file describes far more tensor data than it holds"))?;
        if tensor.is_contiguous() {
            let start = tensor.offset * width;
            return Ok((storage[start..start + n * width].to_vec(), dtype));
        }
        let mut data = Vec::with_capacity(n * width);
        let mut place = vec![0; tensor.shape.len()];
        for _ in 0..n {
            let element = place.iter().zip(&tensor.stride).fold(tensor.offset, |at, (idx, stride)| at + idx * stride);
            data.extend_from_slice(&storage[element * width..(element + 1) * width]);
            for (idx, &size) in place.iter_mut().zip(&tensor.shape).rev() {
                *idx += 1;
                if *idx < size {
                    break;
                }
                *idx = 0;
            }
        }
        Ok((data, dtype))
    }
}

impl TensorInfo {
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.stride).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected *= size;
            fits
        })
    }
}

impl Pickle {
    /// Bytes of one element of each storage.
    fn storage_widths(&self) -> HashMap<&str, usize> {
        let storages = self.objects().iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(storage),
            _ => None,
        });
        storages.filter_map(|s| Some((&*s.key, width(&s.class)?))).collect()
    }
}

fn dtype(class: &str) -> Option<DType> {
    Some(match class.strip_prefix("torch ")? {
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "ByteStorage" => DType::U8,
        _ => return None,
    })
}

fn width(class: &str) -> Option<usize> {
    match class.strip_prefix("torch ")? {
        "BoolStorage" | "CharStorage" => Some(1),
        "ComplexFloatStorage" => Some(8),
        _ => dtype(class).map(|dtype| dtype.size_in_bytes()),
    }
}
