//! Scores of whole outputs from the gradient of a gate that multiplies them.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use crate::finite::{check_finite, on_cpu};
use crate::{Checked, Criterion, Error, Input, Inputs, Requirements};

/// mean((∂L/∂z)²) of a gate z = 1 on the layer's output, the same for every weight of it: for pruning filters and rows.
///
/// A gate's gradient is the signed sum of w·g over what makes the output, squared batch by batch: weights that pull in
/// opposite directions cancel, which no reduction of [`Taylor`](crate::Taylor)'s squares can express. Selecting groups of
/// outputs by mean or max of their scores ranks them by it. [`GateStatistics`] collects it. Source: Molchanov et al. 2019,
/// "Importance Estimation for Neural Network Pruning", its first-order score with gates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaylorGate;

impl Criterion for TaylorGate {
    fn name(&self) -> &str {
        "taylor_gate"
    }

    fn requires(&self) -> Requirements {
        Requirements::of(&[Input::SquaredGateGradient])
    }

    fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error> {
        let checked = Checked::new(self.name(), weight_name, inputs);
        let (weight, squares) = (checked.weight()?, checked.any_shape(Input::SquaredGateGradient)?);
        checked.finish(&checked.per_output(Input::SquaredGateGradient, &weight, &squares)?)
    }
}

/// Sums over batches of the squared gradients of gates: what [`TaylorGate`] needs. Every batch counts the same.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use lth_criteria::{Criterion, GateStatistics, Inputs, TaylorGate};
///
/// let weight = Tensor::new(&[[1f32, 2.0], [1.0, 1.0]], &Device::Cpu)?;
/// let gradient = Tensor::new(&[[2f32, -1.0], [1.0, 0.5]], &Device::Cpu)?;
/// let mut gates = GateStatistics::new();
/// gates.observe("fc.weight", [(&weight, &gradient)])?;
/// let squares = &gates.mean_of_squares()?["fc.weight"];
/// // The first row's 2 and −2 cancel: with its weights as they are, scaling the row changes nothing.
/// assert_eq!(squares.to_vec1::<f32>()?, [0.0, 2.25]);
/// let scores = TaylorGate.score("fc.weight", &Inputs { squared_gate_gradient: Some(squares), ..Inputs::of(&weight) })?;
/// assert_eq!(scores.to_vec2::<f32>()?, [[0.0, 0.0], [2.25, 2.25]]);
/// # Ok::<(), lth_criteria::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct GateStatistics {
    sums: BTreeMap<String, Sum>,
}

#[derive(Clone, Debug)]
struct Sum {
    squares: Vec<f64>,
    n_batches: u64,
}

impl GateStatistics {
    /// Nothing observed yet.
    pub fn new() -> GateStatistics {
        GateStatistics::default()
    }

    /// Adds one batch for the outputs of `weight_name`. `parts`: the parameters that a gate on the output scales, each
    /// with its gradient, all with the outputs in their first dimension: the layer's weight and bias for a gate right
    /// behind it, scale and shift of the BatchNorm for one behind that, as the paper places it.
    ///
    /// # Errors
    /// If there are no parts, a gradient has not its parameter's shape, a part has other outputs than the first or than
    /// before, or a value is NaN or infinite; the sums are then as before.
    pub fn observe<'t>(
        &mut self,
        weight_name: &str,
        parts: impl IntoIterator<Item = (&'t Tensor, &'t Tensor)>,
    ) -> Result<(), Error> {
        let mut gates: Option<Vec<f64>> = self.sums.get(weight_name).map(|sum| vec![0.0; sum.squares.len()]);
        let mut is_empty = true;
        for (parameter, gradient) in parts {
            is_empty = false;
            let wrong_shape = |tensor: &Tensor, input, expected| Error::Shape {
                weight: weight_name.to_owned(),
                input,
                got: tensor.dims().to_vec(),
                expected,
            };
            if gradient.dims() != parameter.dims() {
                return Err(wrong_shape(gradient, Input::Gradient, format!("{:?}", parameter.dims())));
            }
            let (Some(&n_outputs), true) = (parameter.dims().first(), parameter.elem_count() > 0) else {
                return Err(wrong_shape(parameter, Input::Weight, "outputs in its first dimension".to_owned()));
            };
            let gates = gates.get_or_insert_with(|| vec![0.0; n_outputs]);
            if gates.len() != n_outputs {
                let expected = format!("{} outputs in its first dimension", gates.len());
                return Err(wrong_shape(parameter, Input::Weight, expected));
            }
            let (parameter, gradient) = (on_cpu(parameter)?, on_cpu(gradient)?);
            check_finite(&parameter, weight_name, || "weight".to_owned())?;
            check_finite(&gradient, weight_name, || "gradient".to_owned())?;
            let products = (parameter.to_dtype(DType::F64)? * gradient.to_dtype(DType::F64)?)?;
            let sums = products.reshape((n_outputs, ()))?.sum(1)?.to_vec1::<f64>()?;
            gates.iter_mut().zip(sums).for_each(|(gate, sum)| *gate += sum);
        }
        let Some(gates) = gates.filter(|_| !is_empty) else {
            let (parameter, got) = ("parts that a gate scales", "none".to_owned());
            return Err(Error::Parameter { parameter, got, expected: "at least the layer's weight and its gradient" });
        };
        let empty = || Sum { squares: vec![0.0; gates.len()], n_batches: 0 };
        let sum = self.sums.entry(weight_name.to_owned()).or_insert_with(empty);
        sum.squares.iter_mut().zip(&gates).for_each(|(square, gate)| *square += gate * gate);
        sum.n_batches += 1;
        Ok(())
    }

    /// Mean over batches of the squared gradients, by weight name: [`Input::SquaredGateGradient`], f32, on the CPU.
    ///
    /// # Errors
    /// If candle fails.
    pub fn mean_of_squares(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let mean = |sum: &Sum| -> Result<Tensor, Error> {
            let mean: Vec<f32> = sum.squares.iter().map(|square| (square / sum.n_batches as f64) as f32).collect();
            Ok(Tensor::new(mean, &Device::Cpu)?)
        };
        self.sums.iter().map(|(name, sum)| Ok((name.clone(), mean(sum)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_squared_batch_by_batch_and_parts_are_added_before() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let (scale, shift) = (tensor(&[2.0, 1.0]), tensor(&[1.0, -1.0]));
        let mut gates = GateStatistics::new();
        // 2·1 + 1·(−1) = 1 and 0; then −1 and 3.
        gates.observe("w", [(&scale, &tensor(&[1.0, 1.0])), (&shift, &tensor(&[-1.0, 1.0]))]).unwrap();
        gates.observe("w", [(&scale, &tensor(&[-0.5, 3.0])), (&shift, &tensor(&[0.0, 0.0]))]).unwrap();
        assert_eq!(gates.mean_of_squares().unwrap()["w"].to_vec1::<f32>().unwrap(), [1.0, 4.5]);
    }

    #[test]
    fn parts_that_do_not_fit_are_errors_and_change_nothing() {
        let ones = |dims: &[usize]| Tensor::ones(dims, DType::F32, &Device::Cpu).unwrap();
        let mut gates = GateStatistics::new();
        gates.observe("w", [(&ones(&[2, 3]), &ones(&[2, 3]))]).unwrap();
        assert!(gates.observe("w", [(&ones(&[2, 3]), &ones(&[3, 2]))]).is_err());
        assert!(gates.observe("w", [(&ones(&[2, 3]), &ones(&[2, 3])), (&ones(&[3]), &ones(&[3]))]).is_err());
        assert!(gates.observe("w", [(&ones(&[3, 3]), &ones(&[3, 3]))]).is_err());
        assert!(gates.observe("v", [(&ones(&[]), &ones(&[]))]).is_err());
        assert!(gates.observe("w", []).is_err() && gates.observe("v", []).is_err());
        let nan = Tensor::new(&[f32::NAN, 0.0], &Device::Cpu).unwrap();
        let error = gates.observe("w", [(&ones(&[2]), &nan)]).unwrap_err().to_string();
        assert_eq!(error, "gradient of `w` is NaN at flat index 0, expected a finite number");
        let squares = gates.mean_of_squares().unwrap();
        assert_eq!(squares.len(), 1);
        assert_eq!(squares["w"].to_vec1::<f32>().unwrap(), [9.0, 9.0]);
    }
}
