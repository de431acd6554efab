//! Initial values of a candle module that can be seeded.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::init::{FanInOut, NormalOrUniform};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{VarBuilder, VarMap};

use crate::init::{Fan, Init};

/// As `VarBuilder::from_varmap`, with initial values that depend on the seed and each variable's name alone: candle cannot
/// seed its own on a CPU. The distributions are those that the module's layers ask for.
///
/// A variable that `variables` has already keeps its values.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::{Module, VarMap, linear};
/// use lth_nn::seeded_builder;
///
/// # fn main() -> candle_core::Result<()> {
/// let weights = |seed| {
///     let variables = VarMap::new();
///     linear(4, 3, seeded_builder(&variables, seed, DType::F32, &Device::Cpu))?.weight().to_vec2::<f32>()
/// };
/// assert_eq!(weights(42)?, weights(42)?);
/// assert_ne!(weights(42)?, weights(43)?);
/// # Ok(()) }
/// ```
pub fn seeded_builder(variables: &VarMap, seed: u64, dtype: DType, device: &Device) -> VarBuilder<'static> {
    let backend: Box<dyn SimpleBackend> = Box::new(Seeded { variables: variables.clone(), seed });
    VarBuilder::from_backend(backend, dtype, device.clone())
}

struct Seeded {
    variables: VarMap,
    seed: u64,
}

impl SimpleBackend for Seeded {
    fn get(&self, shape: Shape, name: &str, init: candle_nn::Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let lock = || {
            self.variables
                .data()
                .lock()
                .map_err(|_| candle_core::Error::Msg("the VarMap's lock is poisoned".to_owned()))
        };
        if let Some(var) = lock()?.get(name) {
            if var.shape() != &shape {
                candle_core::bail!("`{name}` has shape {:?}, expected {:?}", var.dims(), shape.dims());
            }
            return Ok(var.as_tensor().clone());
        }
        let values = values(init, shape.dims(), self.seed, name);
        let var =
            Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)?;
        let tensor = var.as_tensor().clone();
        lock()?.insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        SimpleBackend::get_unchecked(&self.variables, name, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.variables.contains_tensor(name)
    }
}

fn values(init: candle_nn::Init, shape: &[usize], seed: u64, name: &str) -> Vec<f64> {
    use candle_nn::Init as Candle;
    let (init, shift) = match init {
        Candle::Const(value) => (Init::Constant(value), 0.0),
        Candle::Randn { mean, stdev } => (Init::Normal { std: stdev }, mean),
        Candle::Uniform { lo, up } => (Init::Uniform { bound: (up - lo) / 2.0 }, (up + lo) / 2.0),
        Candle::Kaiming { dist, fan, non_linearity } => {
            let (gain, fan) = (non_linearity.gain(), if matches!(fan, FanInOut::FanIn) { Fan::In } else { Fan::Out });
            let init = match dist {
                NormalOrUniform::Normal => Init::KaimingNormal { fan, gain },
                NormalOrUniform::Uniform => Init::KaimingUniform { fan, gain },
            };
            (init, 0.0)
        }
    };
    let mut values = init.values(shape, seed, name);
    if shift != 0.0 {
        values.iter_mut().for_each(|value| *value += shift);
    }
    values
}

#[cfg(test)]
mod tests {
    use candle_nn::init::{DEFAULT_KAIMING_NORMAL, DEFAULT_KAIMING_UNIFORM};

    use super::*;

    #[test]
    fn values_have_the_moments_of_candles_own() -> Result<()> {
        let shape = [64, 32, 3, 3];
        for init in [
            DEFAULT_KAIMING_NORMAL,
            DEFAULT_KAIMING_UNIFORM,
            candle_nn::Init::Randn { mean: 0.5, stdev: 0.02 },
            candle_nn::Init::Uniform { lo: -0.1, up: 0.3 },
            candle_nn::Init::Const(0.25),
        ] {
            let moments = |values: &[f64]| {
                let n = values.len() as f64;
                let mean = values.iter().sum::<f64>() / n;
                (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
            };
            let theirs: Vec<f64> = init.var(&shape[..], DType::F64, &Device::Cpu)?.flatten_all()?.to_vec1()?;
            let (mean, std) = moments(&theirs);
            let (our_mean, our_std) = moments(&values(init, &shape, 7, "w"));
            // 18,432 values twice: five standard errors of the difference.
            let error = 5.0 * (2.0 / 18_432.0f64).sqrt();
            assert!((our_mean - mean).abs() <= error * std + 1e-12, "{init:?}: mean {our_mean}, candle's {mean}");
            assert!((our_std - std).abs() <= error * std + 1e-12, "{init:?}: deviation {our_std}, candle's {std}");
        }
        Ok(())
    }

    #[test]
    fn values_follow_the_seed_and_the_name_alone() -> Result<()> {
        let of = |seed: u64, names: [&str; 2]| -> Result<Vec<Vec<f32>>> {
            let builder = seeded_builder(&VarMap::new(), seed, DType::F32, &Device::Cpu);
            let values = |name: &str| builder.get_with_hints(40, name, DEFAULT_KAIMING_UNIFORM)?.to_vec1();
            names.iter().map(|name| values(name)).collect()
        };
        let first = of(1, ["v", "w"])?;
        // Whatever was asked for before.
        assert_eq!(of(1, ["w", "v"])?, [first[1].clone(), first[0].clone()]);
        assert!(first[0] != first[1] && of(2, ["v", "w"])?.iter().all(|values| !first.contains(values)));
        Ok(())
    }

    #[test]
    fn a_variable_that_is_there_is_kept_and_must_fit() -> Result<()> {
        let variables = VarMap::new();
        let builder = seeded_builder(&variables, 1, DType::F32, &Device::Cpu);
        let first = builder.get_with_hints((2, 3), "w", DEFAULT_KAIMING_NORMAL)?;
        let again = seeded_builder(&variables, 2, DType::F32, &Device::Cpu).get((2, 3), "w")?;
        assert_eq!(first.to_vec2::<f32>()?, again.to_vec2::<f32>()?);
        assert!(builder.get((3, 2), "w").is_err());
        Ok(())
    }
}
