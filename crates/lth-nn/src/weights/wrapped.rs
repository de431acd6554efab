//! What other software wraps round a network's weights: prefixes of their names, masks beside them.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

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

/// Puts `NAME` in the place of `NAME_orig` and `NAME_mask`, which `torch.nn.utils.prune` leaves in a state dict, and
/// returns such names. PyTorch's forward pass multiplies the two; here what is masked is exactly 0 even where the weight
/// under it is infinite.
pub(super) fn fold(tensors: &mut BTreeMap<String, Tensor>) -> candle_core::Result<Vec<String>> {
    let halves: Vec<(String, String, String)> = tensors
        .keys()
        .filter_map(|orig| {
            let name = orig.strip_suffix("_orig")?;
            Some((name.to_owned(), orig.clone(), format!("{name}_mask")))
        })
        .collect();
    let mut folded = Vec::new();
    for (name, orig, mask) in halves {
        let (Some(weight), Some(factor)) = (tensors.get(&orig), tensors.get(&mask)) else { continue };
        let is_mask = factor.dtype().is_float() || factor.dtype() == DType::U8;
        let fits = weight.dtype().is_float() && is_mask && weight.dims() == factor.dims();
        if !fits || tensors.contains_key(&name) {
            continue;
        }
        let kept = factor.to_dtype(DType::F64)?.ne(0.0)?;
        let product = weight.mul(&factor.to_dtype(weight.dtype())?)?;
        let product = kept.where_cond(&product, &product.zeros_like()?)?;
        tensors.remove(&orig);
        tensors.remove(&mask);
        tensors.insert(name.clone(), product);
        folded.push(name);
    }
    Ok(folded)
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
