//! Weights in files: read, checked against a network, written.

mod files;
mod index;
mod pickle;
mod pth;
mod wrapped;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use lth_train::{Parameter, Parameters, save_safetensors, write_safetensors};

pub use files::{TensorInfo, WeightFiles};

use crate::Error;
use crate::networks::in_head;

/// Named tensors and what a file says about them.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    /// The tensors, by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// The header's text fields; a PyTorch file has none.
    pub metadata: BTreeMap<String, String>,
    /// Entries that could not become a tensor.
    pub ignored: Vec<Skipped>,
    /// Tensors that the file holds in two parts, `NAME_orig` and `NAME_mask`, as `torch.nn.utils.prune` leaves them;
    /// `tensors` has their product under `NAME`, exactly 0 where the mask is 0.
    pub folded: Vec<String>,
}

/// Something in a file that was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// How much of a network is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Every parameter.
    All,
    /// Every parameter but the head's (`fc.…`, `head.…`): the file's head, if it has one, is left out, and the network's
    /// keeps its values.
    Body,
}

/// What [`Weights::load_into`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Parameters that took a value from the file.
    pub loaded: Vec<String>,
    /// Parameters of the head that kept theirs.
    pub kept: Vec<String>,
    /// What of the file was left out.
    pub skipped: Vec<Skipped>,
    /// Parameters whose values were rounded or widened from another element type: name, type in the file.
    pub converted: Vec<(String, DType)>,
    /// What stood before every name in the file and was taken off: `module.` (PyTorch's `DataParallel`), `_orig_mod.`
    /// (`torch.compile`), `model.` (Lightning and others), or several of them.
    pub stripped: Option<String>,
}

impl Weights {
    /// The tensors of a file, which its content, not its name, shows to be safetensors, PyTorch's (`torch.save` of a
    /// state dict, or of a dictionary that holds one as `state_dict`, `model_state_dict` or `model`), or the index of
    /// a model in several such files (`model.safetensors.index.json`), which lie beside it.
    ///
    /// The file is read, not mapped, so that nothing happens if it is cut meanwhile. Nothing in it is executed, and
    /// the memory that is taken is in proportion to its size.
    ///
    /// # Errors
    /// If it cannot be read or is none of these, or is damaged.
    pub fn read(path: &Path) -> Result<Self, Error> {
        WeightFiles::open(path)?.read_all()
    }

    /// What stands before every name and belongs to a wrapper of the network: see [`LoadReport::stripped`].
    #[must_use]
    pub fn wrapper(&self) -> Option<String> {
        wrapped::wrapper(self.names().into_iter())
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    /// Deep copies of a network's parameters and buffers.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn of(parameters: &Parameters) -> Result<Self, Error> {
        let tensors = parameters.snapshot(|_: &str, _: &Parameter| true)?;
        Ok(Self { tensors, ..Self::default() })
    }

    /// Writes a safetensors file: tensors sorted by name, header fields sorted by name, so that equal weights make equal
    /// files. It appears under its name only when it is complete and on the disk; a failure leaves nothing behind.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        Ok(save_safetensors(path, &self.tensors, &self.metadata)?)
    }

    /// The content of the safetensors file that [`Weights::write`] writes.
    ///
    /// # Errors
    /// If a tensor cannot be brought to the CPU.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, &self.tensors, &self.metadata).map_err(candle_core::Error::wrap)?;
        Ok(bytes)
    }

    /// Sets a network's parameters. Names must agree both ways: every parameter has a tensor and every tensor a
    /// parameter, with its shape (PyTorch's `num_batches_tracked` apart). Nothing changes unless all fits. What a
    /// wrapper put before every name is taken off where the network's names have it not, and reported.
    ///
    /// Other floating-point types than the parameter's are converted, and reported.
    ///
    /// # Errors
    /// If names or shapes differ, a tensor is not of a floating-point type, or a value is not finite.
    pub fn load_into(&self, parameters: &Parameters, part: Part) -> Result<LoadReport, Error> {
        let mut report = LoadReport { skipped: self.ignored.clone(), ..LoadReport::default() };
        let prefix = wrapped::fitting(&self.names(), |name| parameters.get(name).is_some());
        let tensors: BTreeMap<&str, &Tensor> =
            self.tensors.iter().map(|(name, tensor)| (&name[prefix.len()..], tensor)).collect();
        report.stripped = (!prefix.is_empty()).then_some(prefix);
        let mut unexpected = Vec::new();
        for &name in tensors.keys() {
            let reason = if name.ends_with("num_batches_tracked") {
                "PyTorch's count of batches"
            } else if part == Part::Body && in_head(name) {
                "part of a head"
            } else {
                if parameters.get(name).is_none() {
                    unexpected.push(name.to_owned());
                }
                continue;
            };
            report.skipped.push(Skipped { name: name.to_owned(), reason: reason.to_owned() });
        }
        let mut missing = Vec::new();
        let mut values = BTreeMap::new();
        for (name, parameter) in parameters.iter() {
            if part == Part::Body && in_head(name) {
                report.kept.push(name.to_owned());
                continue;
            }
            let Some(&tensor) = tensors.get(name) else {
                missing.push(name.to_owned());
                continue;
            };
            values.insert(name.to_owned(), checked(name, tensor, parameter, &mut report)?);
        }
        if !missing.is_empty() || !unexpected.is_empty() {
            return Err(Error::Names { missing, unexpected });
        }
        parameters.restore(&values)?;
        report.loaded = values.into_keys().collect();
        Ok(report)
    }
}

/// `tensor` in the parameter's type.
fn checked(name: &str, tensor: &Tensor, parameter: &Parameter, report: &mut LoadReport) -> Result<Tensor, Error> {
    let (what, name) = ("weights", name.to_owned());
    let expected = parameter.var();
    if tensor.dims() != expected.dims() {
        return Err(Error::Shape { what, name, got: tensor.dims().to_vec(), expected: expected.dims().to_vec() });
    }
    let got = tensor.dtype();
    if !matches!(got, DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
        return Err(Error::DType { what, name, got, expected: "F16, BF16, F32 or F64" });
    }
    let value = tensor.to_dtype(expected.dtype())?;
    let values = value.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    if !values.into_iter().all(f64::is_finite) {
        return Err(Error::NotFinite { name });
    }
    if got != expected.dtype() {
        report.converted.push((name, got));
    }
    Ok(value)
}
