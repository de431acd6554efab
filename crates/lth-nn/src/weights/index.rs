//! A model in several files: an index in JSON names, for every tensor, the file beside it that holds it.

use std::collections::{BTreeMap, BTreeSet};

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Names of tensors by the file that holds them.
pub(super) type Shards = BTreeMap<String, BTreeSet<String>>;

/// Whether a file of so many bytes that begins with `head` is an index: a safetensors file begins with the length of its
/// header, which a JSON text taken for a number exceeds by far.
pub(super) fn is_index(head: &[u8], size: u64) -> bool {
    let length = head.first_chunk::<8>().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
    head.trim_ascii_start().first() == Some(&b'{') && length > size
}

/// What an index says.
pub(super) fn parse(bytes: &[u8]) -> Result<Shards, String> {
    let index: Index =
        serde_json::from_slice(bytes).map_err(|error| format!("not the index of a model in several files: {error}"))?;
    let mut shards = Shards::new();
    for (name, file) in index.weight_map {
        // A file elsewhere is none of this model's.
        if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', ':']) {
            return Err(format!("`{name}` lies in `{file}`, expected the name of a file beside the index"));
        }
        shards.entry(file).or_default().insert(name);
    }
    if shards.is_empty() {
        return Err("its weight_map names no tensor".to_owned());
    }
    Ok(shards)
}
