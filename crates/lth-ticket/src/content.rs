//! A ticket's tensors and masks as bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use candle_core::{DType, Tensor};
use lth_files::{Dtype, Sha256, TensorBytes};
use lth_mask::{Mask, MaskSet};
use lth_train::tensor_bytes;

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
            let elements = bytes.chunks_exact_mut(self.tensor.dtype().size_in_bytes().max(1));
            elements.zip(mask.iter()).filter(|(_, keep)| !keep).for_each(|(element, _)| element.fill(0));
        }
        Ok(Cow::Owned(bytes))
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

/// For each element of a tensor's bytes, whether it is not 0; −0 is.
pub(crate) fn nonzero(bytes: &[u8], dtype: DType) -> impl Iterator<Item = bool> {
    // The sign is the highest bit, and little-endian numbers end with it.
    let sign = if dtype.is_float() { 0x7f } else { 0xff };
    bytes.chunks_exact(dtype.size_in_bytes().max(1)).map(move |element| match element {
        [rest @ .., last] => last & sign != 0 || rest.iter().any(|byte| *byte != 0),
        [] => false,
    })
}
