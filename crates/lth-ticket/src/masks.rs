//! A ticket's masks in its header.
//!
//! A pruned weight is exactly 0, so that the weights tell their own mask but for kept weights that are exactly 0 (a bias
//! or a norm's shift at its initial value, a weight that training happened to end on). Those are listed. That is exact
//! for every mask, it lets one file hold both, and other software, which looks at tensors alone, sees the network's own
//! names and nothing else: an extra tensor would make PyTorch's strict loading fail. The bits themselves would fill the
//! header, which the format limits to 100 MB, from 600 million weights on; this list is nearly always empty.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_mask::{Mask, MaskSet};

use crate::Error;
use crate::content::nonzero;

/// Of each masked tensor the kept weights that are 0: start and length of each run in row-major order.
type KeptZeros = BTreeMap<String, Vec<u64>>;

/// The header's entry.
pub(crate) fn to_text(tensors: &BTreeMap<String, Tensor>, masks: &MaskSet) -> Result<String, String> {
    let mut all = KeptZeros::new();
    for (name, mask) in masks.iter() {
        let tensor = tensors.get(name).ok_or_else(|| format!("mask `{name}` has no tensor"))?;
        let nonzero = nonzero(tensor).map_err(|error| format!("`{name}`: {error}"))?;
        let mut runs: Vec<u64> = Vec::new();
        for (word, (nonzero, keep)) in nonzero.iter().zip(mask.words()).enumerate() {
            let mut zeros = keep & !nonzero;
            while zeros != 0 {
                let index = 64 * word as u64 + u64::from(zeros.trailing_zeros());
                zeros &= zeros - 1;
                match matches!(runs[..], [.., start, length] if start + length == index) {
                    true => runs.last_mut().into_iter().for_each(|length| *length += 1),
                    false => runs.extend([index, 1]),
                }
            }
        }
        all.insert(name.to_owned(), runs);
    }
    serde_json::to_string(&all).map_err(|error| error.to_string())
}

/// The masks that the header's entry and the tensors say.
pub(crate) fn from_text(text: &str, tensors: &BTreeMap<String, Tensor>) -> Result<MaskSet, String> {
    let all: KeptZeros = serde_json::from_str(text).map_err(|error| format!("its list of masks: {error}"))?;
    all.into_iter().map(|(name, runs)| Ok((name.clone(), mask(&name, &runs, tensors)?))).collect()
}

fn mask(name: &str, runs: &[u64], tensors: &BTreeMap<String, Tensor>) -> Result<Mask, String> {
    let tensor = tensors.get(name).ok_or_else(|| format!("mask `{name}` has no tensor"))?;
    let nonzero = nonzero(tensor).map_err(|error| format!("`{name}`: {error}"))?;
    let bit = |index: usize| nonzero[index / 64] >> (index % 64) & 1 == 1;
    let mut keep: Vec<bool> = (0..tensor.elem_count()).map(bit).collect();
    let (pairs, rest) = runs.as_chunks::<2>();
    for [start, length] in pairs {
        let range =
            usize::try_from(*start).ok().zip(start.checked_add(*length).and_then(|end| usize::try_from(end).ok()));
        let run = range.and_then(|(start, end)| keep.get_mut(start..end));
        run.ok_or_else(|| format!("mask `{name}` keeps weights {start} to {start}+{length}, which it does not have"))?
            .fill(true);
    }
    if !rest.is_empty() {
        return Err(format!("mask `{name}` has a run without a length"));
    }
    Mask::from_fn(tensor.dims(), |index| keep[index]).map_err(|error| Error::from(error).to_string())
}
