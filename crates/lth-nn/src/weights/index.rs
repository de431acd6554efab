//! A model in several files: an index in JSON names, for every tensor, the file beside it that holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Skipped, Weights, from_bytes};
use crate::Error;

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Names of tensors by the file that holds them.
pub(super) type Shards = BTreeMap<String, BTreeSet<String>>;

/// What an index says; `None` if the content is none: a safetensors file begins with the length of its header, which a
/// JSON text taken for a number exceeds by far.
pub(super) fn shards(bytes: &[u8]) -> Option<Result<Shards, String>> {
    let length = bytes.first_chunk::<8>().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
    if bytes.trim_ascii_start().first() != Some(&b'{') || length <= bytes.len() as u64 {
        return None;
    }
    Some(parse(bytes))
}

fn parse(bytes: &[u8]) -> Result<Shards, String> {
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

/// The tensors of all files of the index at `path`.
pub(super) fn read(shards: &Shards, path: &Path) -> Result<Weights, Error> {
    let mut weights = Weights::default();
    for (file, names) in shards {
        let file = path.with_file_name(file);
        let bytes = std::fs::read(&file).map_err(lth_files::Error::io("read", &file))?;
        let mut shard = from_bytes(&bytes, &file)?;
        drop(bytes);
        for name in names {
            if let Some(tensor) = shard.tensors.remove(name) {
                weights.tensors.insert(name.clone(), tensor);
            } else if !shard.ignored.iter().any(|entry| entry.name == *name) {
                return Err(Error::format(&file, format!("`{name}` is not in it, where the index has it")));
            }
        }
        weights.ignored.append(&mut shard.ignored);
        let reason = "the index does not name it";
        weights.ignored.extend(shard.tensors.into_keys().map(|name| Skipped { name, reason: reason.to_owned() }));
        weights.metadata.extend(shard.metadata);
    }
    weights.ignored.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(weights)
}
