//! candle's tensors as safetensors files, by [`lth_files`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lth_files::{Dtype, TensorBytes};
use safetensors::View;

struct Stored<'a>(&'a Tensor);

impl TensorBytes for Stored<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::from(Tensor::dtype(self.0))
    }

    fn shape(&self) -> &[usize] {
        self.0.dims()
    }

    fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        tensor_bytes(self.0).map(Cow::Owned)
    }
}

/// A tensor's elements as files hold them: row-major and little-endian.
///
/// # Errors
/// If it cannot be brought to the CPU, or has a type whose values candle cannot give.
pub fn tensor_bytes(tensor: &Tensor) -> io::Result<Vec<u8>> {
    let dtype = Tensor::dtype(tensor);
    // candle's own conversion ends the program for them.
    if matches!(dtype, DType::F6E2M3 | DType::F6E3M2 | DType::F4 | DType::F8E8M0) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("candle cannot give values of {dtype:?}")));
    }
    let tensor = tensor.to_device(&Device::Cpu).and_then(|tensor| tensor.contiguous()).map_err(io::Error::other)?;
    Ok(View::data(&tensor).into_owned())
}

fn stored(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Stored<'_>> {
    tensors.iter().map(|(name, tensor)| (name.clone(), Stored(tensor))).collect()
}

/// Writes tensors and header fields in safetensors' format, as [`lth_files::write_safetensors`] does: equal content gives
/// equal bytes.
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
///
/// # Errors
/// As [`lth_files::write_safetensors`], and if a tensor cannot be brought to the CPU.
pub fn write_safetensors(
    out: &mut dyn Write,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    lth_files::write_safetensors(out, &stored(tensors), metadata)
}

/// Writes a file as [`write_safetensors`] does, whole or not at all as [`lth_files::write_atomic`] does.
///
/// # Errors
/// If the file cannot be written, the tensors cannot be held by the format, or one cannot be brought to the CPU.
pub fn save_safetensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), lth_files::Error> {
    lth_files::save_safetensors(path, &stored(tensors), metadata)
}
