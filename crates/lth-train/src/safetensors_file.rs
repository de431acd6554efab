//! Networks as safetensors files that are equal bytes for equal content.

use std::collections::BTreeMap;
use std::io::{self, Write};

use candle_core::{Device, Tensor};
use safetensors::View;
use serde::Serialize;

#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Metadata(&'a BTreeMap<String, String>),
    Tensor { dtype: safetensors::Dtype, shape: &'a [usize], data_offsets: [usize; 2] },
}

/// Writes tensors and header fields in safetensors' format, everything sorted. The safetensors crate's own writer takes
/// header fields as a `HashMap`, so that equal content would give different bytes from run to run.
///
/// ```
/// # use std::collections::BTreeMap;
/// # use candle_core::{Device, Tensor};
/// let weight = Tensor::new(&[1f32, 0.], &Device::Cpu)?;
/// let mut bytes = Vec::new();
/// let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
/// lth_train::write_safetensors(&mut bytes, &BTreeMap::from([("weight".to_owned(), weight)]), &metadata)?;
/// let read = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
/// assert_eq!(read["weight"].to_vec1::<f32>()?, [1., 0.]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// # Errors  if `out` fails or a tensor cannot be brought to the CPU.
pub fn write_safetensors(
    out: &mut dyn Write,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    // Wide elements first, as the format advises, so that every tensor is aligned.
    let mut tensors: Vec<(&String, &Tensor)> = tensors.iter().collect();
    tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(Tensor::dtype(tensor).size_in_bytes()));

    let mut header = BTreeMap::new();
    if !metadata.is_empty() {
        header.insert("__metadata__", Entry::Metadata(metadata));
    }
    let mut offset = 0;
    for (name, tensor) in &tensors {
        let length = View::data_len(tensor);
        let dtype = safetensors::Dtype::from(Tensor::dtype(tensor));
        header.insert(name, Entry::Tensor { dtype, shape: tensor.dims(), data_offsets: [offset, offset + length] });
        offset += length;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');

    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (_, tensor) in tensors {
        let tensor = tensor.to_device(&Device::Cpu).and_then(|tensor| tensor.contiguous()).map_err(io::Error::other)?;
        out.write_all(&View::data(&tensor))?;
    }
    Ok(())
}
