//! A ticket's tensors and masks as bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use candle_core::{DType, Tensor};
use lth_files::{Dtype, Sha256, TensorBytes};
use lth_mask::{Mask, MaskSet};
use lth_train::tensor_bytes;

use crate::elements::{self, Width, clear_pruned};

/// A tensor whose pruned weights are +0: which zero a program leaves where nothing is must not make two tickets of one.
#[derive(Clone, Copy)]
pub(crate) struct Masked<'a> {
    pub(crate) tensor: &'a Tensor,
    pub(crate) mask: Option<&'a Mask>,
}

impl TensorBytes for Masked<'_> {
    fn dtype(&self) -> Dtype {
        self.tensor.dtype().into()
    }

    fn shape(&self) -> &[usize] {
        self.tensor.dims()
    }

    fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        let mut bytes = tensor_bytes(self.tensor)?;
        if let Some(mask) = self.mask {
            clear_pruned(&mut bytes, width(self.tensor)?, mask);
        }
        Ok(Cow::Owned(bytes))
    }
}

/// Bytes of an element.
pub(crate) fn width(tensor: &Tensor) -> io::Result<Width> {
    let dtype = tensor.dtype();
    Width::of(dtype.size_in_bytes())
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, format!("{dtype:?} has no whole bytes")))
}

/// Which elements are not 0, as a mask's words say it; −0 is 0.
pub(crate) fn nonzero(tensor: &Tensor) -> io::Result<Vec<u64>> {
    match tensor.dtype() {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            Ok(Mask::from_nonzero(tensor).map_err(io::Error::other)?.words().to_vec())
        }
        // What is not a weight's type, a file may have all the same.
        dtype => Ok(elements::nonzero(&tensor_bytes(tensor)?, width(tensor)?, dtype)),
    }
}

/// All tensors with their masks.
pub(crate) fn masked<'a>(
    tensors: &'a BTreeMap<String, Tensor>,
    masks: &'a MaskSet,
) -> impl Iterator<Item = (&'a String, Masked<'a>)> {
    tensors.iter().map(move |(name, tensor)| (name, Masked { tensor, mask: masks.get(name) }))
}

/// SHA-256 over names, types, shapes and values in the order of names, and the masks. `is_masked`: with +0 for every
/// pruned weight, else with the zero that is there.
pub(crate) fn sha256(tensors: &BTreeMap<String, Tensor>, masks: &MaskSet, is_masked: bool) -> io::Result<String> {
    let mut hash = Sha256::new();
    let none = MaskSet::new();
    for (name, masked) in masked(tensors, if is_masked { masks } else { &none }) {
        hash.field(name.as_bytes());
        hash.field(masked.tensor.dtype().as_str().as_bytes());
        masked.shape().iter().for_each(|dim| hash.field(&(*dim as u64).to_le_bytes()));
        hash.field(&masked.bytes()?);
    }
    for (name, mask) in masks.iter() {
        hash.field(name.as_bytes());
        mask.shape().iter().for_each(|dim| hash.field(&(*dim as u64).to_le_bytes()));
        hash.field(&mask.to_bytes());
    }
    Ok(hash.finish())
}
