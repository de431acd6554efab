use candle_core::{CpuStorage, DType, Storage, Tensor};
use lth_runs::LayerRecord;
use lth_train::Parameters;

use crate::Error;

/// Weights and zeros of every prunable layer (of the given ranks: 4 for convolutions, 2 for linear layers), counted in the
/// weights themselves, by name.
///
/// # Errors
/// If candle fails.
pub fn layer_records(parameters: &Parameters, ranks: &[usize]) -> Result<Vec<LayerRecord>, Error> {
    parameters
        .prunable(ranks)
        .map(|(name, parameter)| {
            let var = parameter.var().as_detached_tensor();
            Ok(LayerRecord { name: name.to_owned(), weights: var.elem_count() as u64, zeros: n_zeros(&var)? })
        })
        .collect()
}

fn n_zeros(values: &Tensor) -> Result<u64, Error> {
    {
        let (storage, layout) = values.storage_and_layout();
        // Counted where they lie: it is done at every measurement, and candle would make three tensors for it.
        if let (Storage::Cpu(CpuStorage::F32(all)), Some((from, to))) = (&*storage, layout.contiguous_offsets()) {
            return Ok(all[from..to].iter().filter(|value| **value == 0.0).count() as u64);
        }
    }
    let zeros = values.eq(&values.zeros_like()?)?.to_dtype(DType::U32)?.sum_all()?.to_scalar::<u32>()?;
    Ok(u64::from(zeros))
}
