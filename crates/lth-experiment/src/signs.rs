//! Weights with the signs of others.

use lth_train::{Parameters, Role};

use crate::Error;

/// Gives every weight of `to` the sign that it has in `from`; what is 0 there becomes 0. Biases, norms and buffers stay.
///
/// # Errors
/// If `from` lacks a weight, or one has another shape.
pub(crate) fn transfer_signs(from: &Parameters, to: &Parameters) -> Result<(), Error> {
    for (name, parameter) in to.iter().filter(|(_, parameter)| parameter.role() == Role::Weight) {
        let signs = from.require(name)?.var().as_detached_tensor().sign()?;
        let magnitudes = parameter.var().as_detached_tensor().abs()?;
        parameter.var().set(&(magnitudes * signs)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor, Var};
    use lth_train::Parameter;

    use super::*;

    fn parameters(weight: &[f32], bias: f32) -> Result<Parameters, Error> {
        let mut parameters = Parameters::new();
        let var = |values: &[f32]| Var::from_tensor(&Tensor::new(values, &Device::Cpu)?);
        parameters.insert("fc.weight", Parameter::new(var(weight)?, Role::Weight));
        parameters.insert("fc.bias", Parameter::new(var(&[bias])?, Role::Bias));
        Ok(parameters)
    }

    #[test]
    fn magnitudes_stay_and_signs_come_from_the_other() -> Result<(), Error> {
        let to = parameters(&[0.5, -0.25, 2.0, -3.0], 1.0)?;
        transfer_signs(&parameters(&[-1.0, 7.0, 0.0, -0.1], -1.0)?, &to)?;
        let values = |name: &str| Ok::<_, Error>(to.require(name)?.var().to_vec1::<f32>()?);
        assert_eq!((values("fc.weight")?, values("fc.bias")?), (vec![-0.5, 0.25, 0.0, -3.0], vec![1.0]));
        Ok(())
    }
}
