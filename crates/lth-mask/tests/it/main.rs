//! The crate from outside: golden values, properties, hostile files.

mod compact;
mod devices;
mod every_selection;
#[path = "../../../lth-files/tests/it/faults.rs"]
mod faults;
mod golden;
mod hostile;
#[path = "../../../lth-files/tests/it/mutations.rs"]
mod mutations;
mod own;
mod per_output;
mod properties;
mod select;
mod storing;
mod streamed;
#[path = "../../../lth-files/tests/it/writers.rs"]
mod writers;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use lth_mask::{MaskSet, Result, Selection, select};

/// The golden file of this name.
fn golden(file: &str) -> Result<BTreeMap<String, Tensor>> {
    let path = format!("{}/tests/golden/{file}.safetensors", env!("CARGO_MANIFEST_DIR"));
    Ok(candle_core::safetensors::load(path, &Device::Cpu)?.into_iter().collect())
}

/// The mask of one layer by itself.
fn select_one(scores: &Tensor, sparsity: f64, selection: &Selection) -> Result<MaskSet> {
    select(&BTreeMap::from([("layer".to_owned(), scores.clone())]), sparsity, selection)
}
