//! The tensors of files, each read when it is asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use lth_files::{Dtype, SafetensorsReader, TensorView};

use super::{Skipped, Weights, index, pth, wrapped};
use crate::Error;

/// What tells safetensors, PyTorch's files and an index apart.
const HEAD_BYTES: u64 = 64;

/// The longest index that is read.
const MAX_INDEX_BYTES: u64 = lth_files::MAX_HEADER_BYTES as u64;

/// Type and shape of a tensor that need not be in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its elements' type, once it is read.
    pub dtype: DType,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
}

/// The weights in a file, or in several with an index, as [`Weights::read`] finds them, of which only names, types and
/// shapes are in memory: each tensor is read when it is asked for, so that a model may be larger than memory.
///
/// PyTorch's own files are the exception: their tensors share storage, and are all in memory.
///
/// ```
/// # use candle_core::{Device, Tensor};
/// use lth_nn::{WeightFiles, Weights};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.safetensors");
/// let tensors = [("fc.weight".to_owned(), Tensor::new(&[[1f32, 2.]], &Device::Cpu)?)].into();
/// Weights { tensors, ..Weights::default() }.write(&path)?;
/// let files = WeightFiles::open(&path)?;
/// assert_eq!(files.tensors()["fc.weight"].shape, [1, 2]);
/// assert_eq!(files.read("fc.weight")?.to_vec2::<f32>()?, [[1., 2.]]);
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct WeightFiles {
    /// The headers' text fields; a PyTorch file has none.
    pub metadata: BTreeMap<String, String>,
    /// Entries that cannot become a tensor.
    pub ignored: Vec<Skipped>,
    /// Tensors that lie in two parts, as [`Weights::folded`] has them.
    pub folded: Vec<String>,
    tensors: BTreeMap<String, TensorInfo>,
    places: BTreeMap<String, Place>,
    files: Vec<SafetensorsReader>,
}

#[derive(Clone, Debug)]
enum Place {
    Memory(Tensor),
    /// One of the files, under this name.
    File(usize),
    /// Two parts, which are multiplied.
    Folded(Box<(Place, Place)>),
}

impl WeightFiles {
    /// Reads what the headers say.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let read = || lth_files::Error::io("read", path);
        let mut head = Vec::new();
        let mut file = File::open(path).map_err(read())?;
        let size = file.metadata().map_err(read())?.len();
        file.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(read())?;
        if !index::is_index(&head, size) {
            return Ok(Self::of_file(path, &head)?.folded());
        }
        drop(file);
        if size > MAX_INDEX_BYTES {
            let reason = format!("the index has {size} bytes, expected at most {MAX_INDEX_BYTES}");
            return Err(Error::format(path, reason));
        }
        let index = std::fs::read(path).map_err(read())?;
        let shards = index::parse(&index).map_err(|reason| Error::format(path, reason))?;
        Ok(Self::of_shards(&shards, path)?.folded())
    }

    /// Type and shape of each tensor, by name.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// What stands before every name and belongs to a wrapper of the network, as [`Weights::wrapper`] says.
    #[must_use]
    pub fn wrapper(&self) -> Option<String> {
        wrapped::wrapper(self.tensors.keys().map(String::as_str))
    }

    /// A tensor, on the CPU.
    ///
    /// # Errors
    /// If there is none of this name, or the file cannot be read or was cut since it was opened.
    pub fn read(&self, name: &str) -> Result<Tensor, Error> {
        match self.places.get(name) {
            Some(place) => self.at(name, place),
            None => Err(Error::UnknownTensor { name: name.to_owned() }),
        }
    }

    /// All tensors.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_all(self) -> Result<Weights, Error> {
        let read = |name: &String| Ok((name.clone(), self.read(name)?));
        let tensors = self.places.keys().map(read).collect::<Result<_, Error>>()?;
        let Self { metadata, ignored, folded, .. } = self;
        Ok(Weights { tensors, metadata, ignored, folded })
    }

    fn at(&self, name: &str, place: &Place) -> Result<Tensor, Error> {
        match place {
            Place::Memory(tensor) => Ok(tensor.clone()),
            Place::File(file) => {
                let raw = self.files[*file].read(name)?;
                let view = TensorView::new(raw.dtype, raw.shape.clone(), &raw.data);
                Ok(view.map_err(candle_core::Error::wrap)?.load(&Device::Cpu)?)
            }
            Place::Folded(parts) => {
                let weight = self.at(&wrapped::orig(name), &parts.0)?;
                Ok(wrapped::product(&weight, &self.at(&wrapped::mask(name), &parts.1)?)?)
            }
        }
    }

    /// What one file holds, which begins with `head`.
    fn of_file(path: &Path, head: &[u8]) -> Result<Self, Error> {
        if pth::is_pytorch(head) {
            let bytes = std::fs::read(path).map_err(lth_files::Error::io("read", path))?;
            return Ok(Self::from(pth::read(&bytes, path)?));
        }
        let file = SafetensorsReader::open(path).map_err(|error| match error {
            lth_files::Error::Format { reason, .. } => {
                Error::format(path, format!("not a readable safetensors or PyTorch file ({reason})"))
            }
            error => error.into(),
        })?;
        let mut files = Self { metadata: file.metadata().clone(), ..Self::default() };
        for (name, dtype, shape) in file.tensors() {
            match candle_dtype(dtype) {
                Ok(dtype) => {
                    files.tensors.insert(name.to_owned(), TensorInfo { dtype, shape: shape.to_vec() });
                    files.places.insert(name.to_owned(), Place::File(0));
                }
                Err(error) => files.ignored.push(Skipped { name: name.to_owned(), reason: error.to_string() }),
            }
        }
        files.files.push(file);
        Ok(files)
    }

    /// What the files beside the index at `path` hold.
    fn of_shards(shards: &index::Shards, path: &Path) -> Result<Self, Error> {
        let mut all = Self::default();
        for (file, names) in shards {
            let file = path.with_file_name(file);
            let mut head = Vec::new();
            File::open(&file)
                .and_then(|opened| opened.take(HEAD_BYTES).read_to_end(&mut head))
                .map_err(lth_files::Error::io("read", &file))?;
            let mut shard = Self::of_file(&file, &head)?;
            for name in names {
                if let (Some(info), Some(place)) = (shard.tensors.remove(name), shard.places.remove(name)) {
                    let place = if let Place::File(_) = place { Place::File(all.files.len()) } else { place };
                    all.tensors.insert(name.clone(), info);
                    all.places.insert(name.clone(), place);
                } else if !shard.ignored.iter().any(|entry| entry.name == *name) {
                    return Err(Error::format(&file, format!("`{name}` is not in it, where the index has it")));
                }
            }
            all.files.append(&mut shard.files);
            all.ignored.append(&mut shard.ignored);
            let reason = "the index does not name it";
            all.ignored.extend(shard.tensors.into_keys().map(|name| Skipped { name, reason: reason.to_owned() }));
            all.metadata.extend(shard.metadata);
        }
        all.ignored.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Puts `NAME` in the place of the two parts of what `torch.nn.utils.prune` left.
    fn folded(mut self) -> Self {
        for name in wrapped::folded(&self.tensors) {
            let mut take = |part: &str| Some((self.tensors.remove(part)?, self.places.remove(part)?));
            if let (Some((info, weight)), Some((_, mask))) = (take(&wrapped::orig(&name)), take(&wrapped::mask(&name)))
            {
                self.tensors.insert(name.clone(), info);
                self.places.insert(name.clone(), Place::Folded(Box::new((weight, mask))));
                self.folded.push(name);
            }
        }
        self
    }
}

/// Weights that are in memory.
impl From<Weights> for WeightFiles {
    fn from(weights: Weights) -> Self {
        let Weights { tensors, metadata, ignored, folded } = weights;
        let info = |tensor: &Tensor| TensorInfo { dtype: tensor.dtype(), shape: tensor.dims().to_vec() };
        Self {
            metadata,
            ignored,
            folded,
            tensors: tensors.iter().map(|(name, tensor)| (name.clone(), info(tensor))).collect(),
            places: tensors.into_iter().map(|(name, tensor)| (name, Place::Memory(tensor))).collect(),
            files: Vec::new(),
        }
    }
}

/// What candle makes of a type, by a tensor without elements.
fn candle_dtype(dtype: Dtype) -> Result<DType, Error> {
    let empty = TensorView::new(dtype, vec![0], &[]).map_err(candle_core::Error::wrap)?;
    Ok(empty.load(&Device::Cpu)?.dtype())
}
