//! The ticket as a file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use lth_files::{SafeTensors, Sha256, TensorBytes, open_safetensors, save_safetensors_hashed};
use lth_mask::MaskSet;

use crate::compact;
use crate::content::{self, Masked, masked, nonzero};
use crate::{Error, Stage, TicketHeader, masks};

/// Masked weights under the network's own names, the masks, and what they are.
///
/// On disk it is one safetensors file, in one of two forms:
///
/// - **Plain** ([`Ticket::write`]): all values (parameters and buffers) under their own names and no other tensor, so that
///   candle, `candle-transformers` and PyTorch load it as they load any other file. The masks are in the header: a pruned
///   weight is exactly 0, and the kept weights that are exactly 0 are listed there.
/// - **Compact** ([`Ticket::write_compact`]): of masked tensors the kept values and a bit per weight. It is for keeping;
///   [`Ticket::read`] takes either, and `scripts/read_ticket.py` makes a plain safetensors file of one.
///
/// The header (safetensors' `__metadata__`) has the fields of [`TicketHeader`] and these:
///
/// | entry | value |
/// |---|---|
/// | `schema` | 2. Files without it are of schema 1, whose masks lie in a second file; they are still read |
/// | `form` | `plain` or `compact` |
/// | `masks` | plain: JSON, for each masked tensor the runs of kept weights that are 0, as start and length |
/// | `shapes` | compact: JSON, for each masked tensor its shape |
/// | `content_sha256` | [`Ticket::content_sha256`] |
/// | `header_sha256` | SHA-256 of all entries in this table and [`TicketHeader`]'s, in order of names, but itself: each name and each text, the length of either before it as a little-endian u64 |
/// | `format` | `pt`: PyTorch's order of dimensions |
/// | `lth_version` | version of this crate |
///
/// Other entries are kept ([`TicketHeader::other`]) and otherwise ignored. Equal tickets are equal bytes.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// What it is.
    pub header: TicketHeader,
    /// All parameters and buffers by name; pruned weights are exactly 0.
    pub tensors: BTreeMap<String, Tensor>,
    /// The masks; empty for a dense network.
    pub masks: MaskSet,
}

const SCHEMA: u32 = 2;
const FILES_OWN: [&str; 8] =
    ["schema", "form", "masks", "shapes", "content_sha256", "header_sha256", "format", "lth_version"];
const PLAIN: &str = "plain";
const COMPACT: &str = "compact";

impl Ticket {
    /// SHA-256 over names, types, shapes and values in the order of names, and the masks: the identity of the ticket,
    /// whatever its header says and in whichever form it is kept. 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn content_sha256(&self) -> Result<String, Error> {
        content::sha256(&self.tensors, &self.masks, true).map_err(|error| candle_core::Error::from(error).into())
    }

    /// The ticket with the SHA-256 of its content, which is then computed once: for who wants to know it before writing.
    ///
    /// # Errors
    /// As [`Ticket::content_sha256`].
    pub fn identified(&self) -> Result<Identified<'_>, Error> {
        Ok(Identified { header: Cow::Borrowed(&self.header), ticket: self, content_sha256: self.content_sha256()? })
    }

    /// Writes the plain form, whole or not at all.
    ///
    /// # Errors
    /// If a pruned weight is not 0, a mask has no tensor, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<Written, Error> {
        self.hashed(path)?.write(path)
    }

    /// Writes the compact form, whole or not at all. Of a ResNet-18 that is 95 % sparse it has 4 MB where the plain form has
    /// 45.
    ///
    /// # Errors
    /// As [`Ticket::write`], and if a tensor's name begins with `bits/` or `kept/`.
    pub fn write_compact(&self, path: &Path) -> Result<Written, Error> {
        self.hashed(path)?.write_compact(path)
    }

    /// Writes the form that takes less room: the compact one where there are masks, or else the plain one. The content's
    /// SHA-256 is the same in both.
    ///
    /// # Errors
    /// As [`Ticket::write`].
    pub fn write_smaller(&self, path: &Path) -> Result<Written, Error> {
        self.hashed(path)?.write_smaller(path)
    }

    /// [`Ticket::identified`], with the file in its error.
    fn hashed(&self, path: &Path) -> Result<Identified<'_>, Error> {
        self.identified().map_err(|error| Error::damaged(path, error.to_string()))
    }

    /// Reads a ticket in either form and checks everything: header, shapes, that pruned weights are 0, and both SHA-256.
    ///
    /// Every field of a ticket's header must be there and right; further entries, which others have written or a later
    /// version writes, are kept and otherwise left alone. For other safetensors files use candle's or `lth-nn`'s loader.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged; [`Error::PlainWeights`] if it has no ticket's header,
    /// [`Error::LaterSchema`] if a later version wrote it, [`Error::NoMasks`] if it is of schema 1 and its masks are not
    /// beside it.
    pub fn read(path: &Path, device: &Device) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(lth_files::Error::io("read", path))?;
        let damaged = |reason: String| Error::damaged(path, reason);
        let (metadata, file) = open_safetensors(&bytes).map_err(|error| damaged(error.to_string()))?;
        let Some(content) = metadata.get("content_sha256").cloned() else {
            let is_ours = metadata.keys().any(|name| TicketHeader::has(name) || name == "header_sha256");
            return Err(if is_ours {
                damaged("its header has no content_sha256".to_owned())
            } else {
                Error::PlainWeights { path: path.to_owned() }
            });
        };
        let is_old = match metadata.get("schema").map(|text| text.parse::<u32>()) {
            None => !metadata.contains_key("header_sha256"),
            Some(Ok(SCHEMA)) => false,
            Some(Ok(found)) if found > SCHEMA => {
                return Err(Error::LaterSchema { path: path.to_owned(), found, known: SCHEMA });
            }
            Some(_) => return Err(damaged(format!("its schema is `{}`, expected {SCHEMA}", metadata["schema"]))),
        };
        if !is_old && metadata.get("header_sha256") != Some(&header_sha256(&metadata)) {
            return Err(damaged("its header does not have the SHA-256 that it says".to_owned()));
        }
        let header = TicketHeader::from_metadata(metadata.clone(), |name| FILES_OWN.contains(&name))
            .map_err(|error| damaged(format!("its header: {error}")))?;
        let (tensors, masks) = if is_old {
            let masks = if header.pruning.is_some() { beside(path)? } else { MaskSet::new() };
            (load(&file).map_err(damaged)?, masks)
        } else {
            content_of(&metadata, &file).map_err(damaged)?
        };
        drop(bytes);
        let ticket = Self { header, tensors, masks };
        ticket.check().map_err(damaged)?;
        // As the file has it: of this schema every pruned weight is +0, and of schema 1 the zero that was there counted.
        let got = content::sha256(&ticket.tensors, &ticket.masks, false).map_err(candle_core::Error::from)?;
        if got != content {
            return Err(damaged(format!("its content has SHA-256 {got}, its header says {content}")));
        }
        let to_device = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_device(device)?));
        let tensors = ticket.tensors.into_iter().map(to_device).collect::<Result<_, Error>>()?;
        Ok(Self { tensors, ..ticket })
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
            let nonzero = nonzero(tensor).map_err(|error| format!("`{name}`: {error}"))?;
            let wrong = nonzero.iter().zip(mask.words()).map(|(nonzero, keep)| nonzero & !keep);
            if let Some((word, bits)) = wrong.enumerate().find(|(_, bits)| *bits != 0) {
                let index = 64 * word + bits.trailing_zeros() as usize;
                let value = || {
                    let value = tensor.flatten_all()?.get(index)?.to_device(&Device::Cpu)?;
                    value.to_dtype(DType::F64)?.to_scalar::<f64>()
                };
                let value = value().map_err(|error| format!("`{name}`: {}", Error::from(error)))?;
                return Err(format!("`{name}` is {value} at pruned position {index}, expected 0"));
            }
        }
        Ok(())
    }
}

/// A ticket whose content has been hashed: [`Ticket::identified`].
#[derive(Clone, Debug)]
pub struct Identified<'a> {
    header: Cow<'a, TicketHeader>,
    ticket: &'a Ticket,
    content_sha256: String,
}

/// What a ticket's file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// [`Ticket::content_sha256`].
    pub content_sha256: String,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Length of the file.
    pub bytes: u64,
}

impl Identified<'_> {
    /// [`Ticket::content_sha256`].
    #[must_use]
    pub fn content_sha256(&self) -> &str {
        &self.content_sha256
    }

    /// The header, which the content does not depend on.
    pub fn header_mut(&mut self) -> &mut TicketHeader {
        self.header.to_mut()
    }

    /// [`Ticket::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, path: &Path) -> Result<Written, Error> {
        let damaged = |reason: String| Error::damaged(path, reason);
        let Ticket { tensors, masks, .. } = self.ticket;
        self.ticket.check().map_err(damaged)?;
        let text = (!masks.is_empty()).then(|| masks::to_text(tensors, masks)).transpose();
        let text = text.map_err(damaged)?.map(|text| ("masks", text));
        let tensors = masked(tensors, masks).map(|(name, tensor)| (name.clone(), tensor));
        self.save(path, PLAIN, text, &tensors.collect::<BTreeMap<String, Masked<'_>>>())
    }

    /// [`Ticket::write_compact`].
    ///
    /// # Errors
    /// As there.
    pub fn write_compact(&self, path: &Path) -> Result<Written, Error> {
        let damaged = |reason: String| Error::damaged(path, reason);
        self.ticket.check().map_err(damaged)?;
        let (pieces, shapes) = compact::pieces(&self.ticket.tensors, &self.ticket.masks).map_err(damaged)?;
        self.save(path, COMPACT, Some(("shapes", shapes)), &pieces)
    }

    /// [`Ticket::write_smaller`].
    ///
    /// # Errors
    /// As there.
    pub fn write_smaller(&self, path: &Path) -> Result<Written, Error> {
        let Ticket { tensors, masks, .. } = self.ticket;
        // Names that the compact form keeps for itself leave the plain one.
        if masks.is_empty() || tensors.keys().any(|name| compact::is_own(name)) {
            self.write(path)
        } else {
            self.write_compact(path)
        }
    }

    fn save<T: TensorBytes>(
        &self,
        path: &Path,
        form: &str,
        more: Option<(&str, String)>,
        tensors: &BTreeMap<String, T>,
    ) -> Result<Written, Error> {
        let mut metadata = self.header.to_metadata().map_err(|error| Error::damaged(path, error))?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let own = [
            ("schema", SCHEMA.to_string()),
            ("form", form.to_owned()),
            ("format", "pt".to_owned()),
            ("lth_version", version),
            ("content_sha256", self.content_sha256.clone()),
        ];
        // What is left of another form or another ticket's is not this one's.
        metadata.retain(|name, _| !FILES_OWN.contains(&name.as_str()));
        metadata.extend(own.into_iter().chain(more).map(|(name, text)| (name.to_owned(), text)));
        metadata.insert("header_sha256".to_owned(), header_sha256(&metadata));
        let (sha256, bytes) = save_safetensors_hashed(path, tensors, &metadata)?;
        Ok(Written { content_sha256: self.content_sha256.clone(), sha256, bytes })
    }
}

/// Of all entries that are this project's, but itself.
fn header_sha256(metadata: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    let is_ours = |name: &str| TicketHeader::has(name) || (FILES_OWN.contains(&name) && name != "header_sha256");
    for (name, text) in metadata.iter().filter(|(name, _)| is_ours(name)) {
        hash.field(name.as_bytes());
        hash.field(text.as_bytes());
    }
    hash.finish()
}

fn content_of(
    metadata: &BTreeMap<String, String>,
    file: &SafeTensors<'_>,
) -> Result<(BTreeMap<String, Tensor>, MaskSet), String> {
    match metadata.get("form").map(String::as_str) {
        Some(PLAIN) => {
            let tensors = load(file)?;
            let masks = metadata.get("masks").map(|text| masks::from_text(text, &tensors)).transpose()?;
            Ok((tensors, masks.unwrap_or_default()))
        }
        Some(COMPACT) => compact::expand(file, metadata.get("shapes").ok_or("its header has no shapes")?),
        other => Err(format!("its form is {other:?}, expected {PLAIN} or {COMPACT}")),
    }
}

fn load(file: &SafeTensors<'_>) -> Result<BTreeMap<String, Tensor>, String> {
    let load = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let tensor = view.load(&Device::Cpu).map_err(|error| format!("`{name}`: {}", Error::from(error)))?;
        Ok((name.to_owned(), tensor))
    };
    file.iter().map(load).collect()
}

/// The masks of a ticket of schema 1: `name.masks.safetensors` beside `name.safetensors`.
fn beside(path: &Path) -> Result<MaskSet, Error> {
    match MaskSet::load(path.with_extension("masks.safetensors")) {
        Err(lth_mask::Error::Io { path: masks, source }) if source.kind() == ErrorKind::NotFound => {
            Err(Error::NoMasks { path: path.to_owned(), masks })
        }
        loaded => Ok(loaded?),
    }
}
