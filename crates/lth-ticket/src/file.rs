//! The ticket as a file.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use lth_files::{Sha256, open_safetensors};
use lth_mask::MaskSet;
use lth_train::save_safetensors;
use safetensors::View;

use crate::{Error, Stage, TicketHeader};

/// Masked weights under the network's own names, the masks, and what they are.
///
/// On disk: one safetensors file with all values (parameters and buffers), which candle, `candle-transformers` and
/// PyTorch's safetensors load as they load any other, and beside it, at [`masks_path`], the masks, a bit per weight. Equal
/// tickets are equal bytes.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// What it is.
    pub header: TicketHeader,
    /// All parameters and buffers by name; pruned weights are exactly 0.
    pub tensors: BTreeMap<String, Tensor>,
    /// The masks; empty for a dense network.
    pub masks: MaskSet,
}

const CONTENT: &str = "content_sha256";
const FORMAT: &str = "format";
const VERSION: &str = "lth_version";

/// Where the masks of the ticket at `path` lie: `name.masks.safetensors` beside `name.safetensors`.
pub fn masks_path(path: &Path) -> PathBuf {
    path.with_extension("masks.safetensors")
}

impl Ticket {
    /// SHA-256 over names, types, shapes and values in the order of names, and the masks: the identity of the ticket,
    /// whatever its header says. 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn content_sha256(&self) -> Result<String, Error> {
        let mut hash = Sha256::new();
        for (name, tensor) in &self.tensors {
            hash.field(name.as_bytes());
            hash.field(tensor.dtype().as_str().as_bytes());
            tensor.dims().iter().for_each(|dim| hash.field(&(*dim as u64).to_le_bytes()));
            hash.field(&View::data(tensor));
        }
        for (name, mask) in self.masks.iter() {
            hash.field(name.as_bytes());
            mask.shape().iter().for_each(|dim| hash.field(&(*dim as u64).to_le_bytes()));
            hash.field(&mask.to_bytes());
        }
        Ok(hash.finish())
    }

    /// Writes both files, each whole or not at all; returns the content's SHA-256.
    ///
    /// # Errors
    /// If a pruned weight is not 0, a mask has no tensor, or the files cannot be written.
    pub fn write(&self, path: &Path) -> Result<String, Error> {
        self.check().map_err(|reason| Error::damaged(path, reason))?;
        let content = self.content_sha256()?;
        let mut metadata = self.header.to_metadata().map_err(|error| Error::damaged(path, error))?;
        metadata.insert(CONTENT.to_owned(), content.clone());
        metadata.insert(FORMAT.to_owned(), "pt".to_owned());
        metadata.insert(VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        // Masks first: a ticket that is there has its masks.
        if !self.masks.is_empty() {
            self.masks.save(masks_path(path))?;
        }
        save_safetensors(path, &self.tensors, &metadata).map_err(lth_runs::Error::from)?;
        Ok(content)
    }

    /// Reads a ticket and checks everything: header, shapes, that pruned weights are 0, and the content's SHA-256.
    ///
    /// Every field of a ticket's header must be there and right; further entries, which others have written or a later
    /// version writes, are left alone. For other safetensors files use candle's or `lth-nn`'s loader.
    ///
    /// # Errors
    /// If a file cannot be read or is damaged; [`Error::NoMasks`] if the masks of a pruned network are not beside it.
    pub fn read(path: &Path, device: &Device) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(Error::read(path))?;
        let damaged = |reason: &dyn std::fmt::Display| Error::damaged(path, reason);
        let (mut metadata, _) = open_safetensors(&bytes).map_err(|error| damaged(&error))?;
        let content = metadata.remove(CONTENT).ok_or_else(|| damaged(&"its header has no content_sha256"))?;
        metadata.remove(FORMAT);
        metadata.remove(VERSION);
        let header =
            TicketHeader::from_metadata(&metadata).map_err(|error| damaged(&format!("its header: {error}")))?;
        let tensors: BTreeMap<String, Tensor> = candle_core::safetensors::load_buffer(&bytes, device)
            .map_err(|error| damaged(&Error::from(error)))?
            .into_iter()
            .collect();
        drop(bytes);
        let masks = match &header.pruning {
            Some(_) => match MaskSet::load(masks_path(path)) {
                Err(lth_mask::Error::Io { path: masks, source }) if source.kind() == ErrorKind::NotFound => {
                    return Err(Error::NoMasks { path: path.to_owned(), masks });
                }
                loaded => loaded?,
            },
            None => MaskSet::new(),
        };
        let ticket = Self { header, tensors, masks };
        ticket.check().map_err(|reason| Error::damaged(path, reason))?;
        let got = ticket.content_sha256()?;
        if got != content {
            return Err(damaged(&format!("its content has SHA-256 {got}, its header says {content}")));
        }
        Ok(ticket)
    }

    /// [`Ticket::read`] for a file that must hold a trained network.
    ///
    /// # Errors
    /// As `read`, and if the file holds a ticket.
    pub fn read_trained(path: &Path, device: &Device) -> Result<Self, Error> {
        let ticket = Self::read(path, device)?;
        match ticket.header.stage {
            Stage::Trained => Ok(ticket),
            Stage::Ticket => Err(Error::Untrained { path: path.to_owned() }),
        }
    }

    /// Says what does not fit together, if anything.
    fn check(&self) -> Result<(), String> {
        for (name, mask) in self.masks.iter() {
            let tensor = self.tensors.get(name).ok_or_else(|| format!("mask `{name}` has no tensor"))?;
            if mask.shape() != tensor.dims() {
                let (got, expected) = (mask.shape(), tensor.dims());
                return Err(format!("mask for `{name}` has shape {got:?}, expected {expected:?}"));
            }
            let values = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()?.to_vec1::<f32>());
            let values = values.map_err(|error| format!("`{name}`: {}", Error::from(error)))?;
            if let Some(index) = mask.iter().zip(&values).position(|(keep, value)| !keep && *value != 0.) {
                return Err(format!("`{name}` is {} at pruned position {index}, expected 0", values[index]));
            }
        }
        Ok(())
    }
}
