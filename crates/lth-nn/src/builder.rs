//! Where layers get their parameters from.

use candle_core::{DType, Device, Tensor, Var};
use lth_train::{Parameter, Parameters, Role};

use crate::{Error, Init};

/// What a new network's parameters are made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Seed of the initial values.
    pub seed: u64,
    /// Element type: f32, or f64 to check gradients.
    pub dtype: DType,
    /// Where the parameters live.
    pub device: Device,
}

impl Setup {
    /// f32 on the CPU.
    pub fn new(seed: u64) -> Self {
        Self { seed, dtype: DType::F32, device: Device::Cpu }
    }
}

/// Makes parameters under a prefix and enters them into a network's [`Parameters`].
///
/// ```
/// use lth_nn::{Builder, Init, Linear, Setup};
/// use lth_train::Parameters;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut parameters = Parameters::new();
/// let setup = Setup::new(42);
/// let mut root = Builder::new(&setup, &mut parameters);
/// Linear::new(&mut root.at("head").at("fc"), 8, 2, Init::TORCH, None)?;
/// assert_eq!(parameters.names().collect::<Vec<_>>(), ["head.fc.weight"]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Builder<'a> {
    setup: &'a Setup,
    prefix: String,
    parameters: &'a mut Parameters,
}

impl<'a> Builder<'a> {
    /// A builder without prefix.
    pub fn new(setup: &'a Setup, parameters: &'a mut Parameters) -> Self {
        Self { setup, prefix: String::new(), parameters }
    }

    /// A builder one level down: its names start with `name` and a dot.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Builder<'_> {
        Builder { setup: self.setup, prefix: self.path(&name), parameters: self.parameters }
    }

    /// The prefix, which is the name of the layer that is built here.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A new parameter called `<prefix>.<leaf>`.
    /// # Errors  if the name is taken or the tensor cannot be made.
    pub fn parameter(&mut self, leaf: &str, shape: &[usize], init: Init, role: Role) -> Result<Parameter, Error> {
        let name = self.path(&leaf);
        if self.parameters.get(&name).is_some() {
            return Err(Error::Duplicate { name });
        }
        let values = Tensor::from_vec(init.values(shape, self.setup.seed, &name), shape, &Device::Cpu)?;
        let var = Var::from_tensor(&values.to_dtype(self.setup.dtype)?.to_device(&self.setup.device)?)?;
        let parameter = Parameter::new(var, role);
        self.parameters.insert(name, parameter.clone());
        Ok(parameter)
    }

    /// `values` in the element type and on the device of the parameters, but none of them.
    pub(crate) fn constant(&self, values: &Tensor) -> Result<Tensor, Error> {
        Ok(values.to_dtype(self.setup.dtype)?.to_device(&self.setup.device)?)
    }

    fn path(&self, name: &dyn std::fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}
