use candle_core::DType;
use lth_runs::LayerRecord;
use lth_train::Parameters;

use crate::Error;

/// Weights and zeros of every prunable layer (of the given ranks: 4 for convolutions, 2 for linear layers), counted in the
/// weights themselves, by name.
/// # Errors  if candle fails.
pub fn layer_records(parameters: &Parameters, ranks: &[usize]) -> Result<Vec<LayerRecord>, Error> {
    parameters
        .prunable(ranks)
        .map(|(name, parameter)| {
            let var = parameter.var().as_detached_tensor();
            let zeros = var.eq(&var.zeros_like()?)?.to_dtype(DType::U32)?.sum_all()?.to_scalar::<u32>()?;
            Ok(LayerRecord { name: name.to_owned(), weights: var.elem_count() as u64, zeros: u64::from(zeros) })
        })
        .collect()
}
