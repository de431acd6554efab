//! What other software wraps round a network's weights: prefixes of their names, masks beside them.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::TensorInfo;

/// `torch.nn.DataParallel` and `DistributedDataParallel`; `torch.compile`; Lightning modules and others.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// Longer and longer prefixes that all names have, of wrappers one in another, beginning with none at all.
pub(super) fn prefixes(names: &[&str]) -> Vec<String> {
    let mut found = vec![String::new()];
    let Some(first) = names.first() else { return found };
    let mut length = 0;
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| first[length..].starts_with(**wrapper)) {
        length += wrapper.len();
        if !names.iter().all(|name| name.starts_with(&first[..length])) {
            break;
        }
        found.push(first[..length].to_owned());
    }
    found
}

/// The shortest of [`prefixes`] without which a name is known; none if that does not help.
pub(super) fn fitting(names: &[&str], known: impl Fn(&str) -> bool) -> String {
    let fits = |prefix: &String| names.iter().any(|name| known(&name[prefix.len()..]));
    prefixes(names).into_iter().find(fits).unwrap_or_default()
}

/// The longest of [`prefixes`], if there is one.
pub(super) fn wrapper<'n>(names: impl Iterator<Item = &'n str>) -> Option<String> {
    prefixes(&names.collect::<Vec<_>>()).pop().filter(|prefix| !prefix.is_empty())
}

/// Names of which `torch.nn.utils.prune` leaves two parts in a state dict, [`orig`] and [`mask`].
pub(super) fn folded(tensors: &BTreeMap<String, TensorInfo>) -> Vec<String> {
    let is_folded = |name: &&str| {
        let (Some(weight), Some(factor)) = (tensors.get(&orig(name)), tensors.get(&mask(name))) else { return false };
        let is_mask = factor.dtype.is_float() || factor.dtype == DType::U8;
        weight.dtype.is_float() && is_mask && weight.shape == factor.shape && !tensors.contains_key(*name)
    };
    let names = tensors.keys().filter_map(|name| name.strip_suffix("_orig"));
    names.filter(is_folded).map(str::to_owned).collect()
}

pub(super) fn orig(name: &str) -> String {
    format!("{name}_orig")
}

pub(super) fn mask(name: &str) -> String {
    format!("{name}_mask")
}

/// The two parts' product, which PyTorch's forward pass makes; here what is masked is exactly 0 even where the weight under
/// it is infinite.
pub(super) fn product(weight: &Tensor, factor: &Tensor) -> candle_core::Result<Tensor> {
    let kept = factor.to_dtype(DType::F64)?.ne(0.0)?;
    let product = weight.mul(&factor.to_dtype(weight.dtype())?)?;
    kept.where_cond(&product, &product.zeros_like()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_before_every_name_is_a_wrapper() {
        let found = |names: &[&str]| prefixes(names);
        assert_eq!(found(&["module.a", "module.b"]), ["", "module."]);
        assert_eq!(found(&["module._orig_mod.a"]), ["", "module.", "module._orig_mod."]);
        assert_eq!(found(&["lm_head.weight", "model.a"]), [""]);
        assert_eq!(found(&["module.model.a", "module.fc"]), ["", "module."]);
        assert_eq!(found(&["modules.a"]), [""]);
        assert_eq!(found(&[]), [""]);
    }

    #[test]
    fn a_network_that_has_the_prefix_itself_keeps_it() {
        let names = ["model.a", "model.b"];
        assert_eq!(fitting(&names, |name| name == "model.a"), "");
        assert_eq!(fitting(&names, |name| name == "a"), "model.");
        assert_eq!(fitting(&names, |name| name == "c"), "");
    }
}
