use std::collections::BTreeMap;
use std::fmt;

use candle_core::{DType, Tensor};

use crate::Error;
use crate::finite::{check_finite, on_cpu};

/// A tensor that a criterion may need beside the weight itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Input {
    /// The weight as it is now; every criterion may use it.
    Weight,
    /// The weight at initialisation, the weight's shape.
    Initial,
    /// The weight at the previous pruning step, the weight's shape.
    Previous,
    /// Gradient of the loss for the weight, the weight's shape: mean or sum over batches.
    Gradient,
    /// Mean over batches or samples of the squared gradient, the weight's shape.
    SquaredGradient,
    /// The Hessian of the loss times its gradient, the weight's shape.
    HessianGradient,
    /// Gradient of the synaptic flow for the absolute weight, the weight's shape.
    FlowGradient,
    /// Norm of the layer's input per input channel: \[channels\], or as [`Wanda`](crate::Wanda) says of layers with groups
    /// and transposed ones.
    ActivationNorm,
    /// Weight of the BatchNorm that follows the layer: \[filters\], the weight's first dimension.
    BatchNormScale,
    /// Mean over batches of the squared gradient of a gate on each of the layer's outputs: \[outputs\], the weight's first
    /// dimension.
    SquaredGateGradient,
    /// Mask now in force, the weight's shape: 1 (or any number but 0) where the weight is kept.
    Mask,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Input::Weight => "weight",
            Input::Initial => "initial weight",
            Input::Previous => "previous weight",
            Input::Gradient => "gradient",
            Input::SquaredGradient => "squared gradient",
            Input::HessianGradient => "Hessian-gradient product",
            Input::FlowGradient => "flow gradient",
            Input::ActivationNorm => "activation norm",
            Input::BatchNormScale => "batch-norm scale",
            Input::SquaredGateGradient => "squared gate gradient",
            Input::Mask => "mask",
        })
    }
}

/// The set of inputs that a criterion needs beside the weight.
///
/// ```
/// use lth_criteria::{Input, Requirements};
///
/// let needs = Requirements::of(&[Input::Gradient, Input::Initial]);
/// assert!(needs.contains(Input::Gradient) && !needs.contains(Input::Previous));
/// assert_eq!(needs.iter().collect::<Vec<_>>(), [Input::Initial, Input::Gradient]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requirements(u16);

impl Requirements {
    /// The weight alone.
    pub const NONE: Requirements = Requirements(0);

    const ALL: [Input; 11] = [
        Input::Weight,
        Input::Initial,
        Input::Previous,
        Input::Gradient,
        Input::SquaredGradient,
        Input::HessianGradient,
        Input::FlowGradient,
        Input::ActivationNorm,
        Input::BatchNormScale,
        Input::SquaredGateGradient,
        Input::Mask,
    ];

    /// The given inputs.
    pub const fn of(inputs: &[Input]) -> Requirements {
        let mut bits = 0;
        let mut idx = 0;
        while idx < inputs.len() {
            bits |= 1 << inputs[idx] as u16;
            idx += 1;
        }
        Requirements(bits)
    }

    /// Whether `input` is among them.
    pub const fn contains(self, input: Input) -> bool {
        self.0 & (1 << input as u16) != 0
    }

    /// Whether the score can be computed without data: from the weight, its history and its mask alone.
    pub fn is_data_free(self) -> bool {
        use Input::{ActivationNorm, FlowGradient, Gradient, HessianGradient, SquaredGateGradient, SquaredGradient};
        let of_data = [Gradient, SquaredGradient, HessianGradient, FlowGradient, ActivationNorm, SquaredGateGradient];
        !of_data.iter().any(|input| self.contains(*input))
    }

    /// The inputs, in the order of [`Input`].
    pub fn iter(self) -> impl Iterator<Item = Input> {
        Requirements::ALL.into_iter().filter(move |input| self.contains(*input))
    }
}

/// The tensors that belong to one weight.
///
/// A literal names what it has: `Inputs { gradient: Some(&g), ..Inputs::of(&w) }`.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// [`Input::Weight`].
    pub weight: &'a Tensor,
    /// [`Input::Initial`].
    pub initial: Option<&'a Tensor>,
    /// [`Input::Previous`].
    pub previous: Option<&'a Tensor>,
    /// [`Input::Gradient`].
    pub gradient: Option<&'a Tensor>,
    /// [`Input::SquaredGradient`].
    pub squared_gradient: Option<&'a Tensor>,
    /// [`Input::HessianGradient`].
    pub hessian_gradient: Option<&'a Tensor>,
    /// [`Input::FlowGradient`].
    pub flow_gradient: Option<&'a Tensor>,
    /// [`Input::ActivationNorm`].
    pub activation_norm: Option<&'a Tensor>,
    /// [`Input::BatchNormScale`].
    pub batch_norm_scale: Option<&'a Tensor>,
    /// [`Input::SquaredGateGradient`].
    pub squared_gate_gradient: Option<&'a Tensor>,
    /// [`Input::Mask`].
    pub mask: Option<&'a Tensor>,
}

impl<'a> Inputs<'a> {
    /// The weight alone.
    pub fn of(weight: &'a Tensor) -> Inputs<'a> {
        Inputs {
            weight,
            initial: None,
            previous: None,
            gradient: None,
            squared_gradient: None,
            hessian_gradient: None,
            flow_gradient: None,
            activation_norm: None,
            batch_norm_scale: None,
            squared_gate_gradient: None,
            mask: None,
        }
    }

    /// The tensor given for `input`, as it was given.
    pub fn find(&self, input: Input) -> Option<&'a Tensor> {
        match input {
            Input::Weight => Some(self.weight),
            Input::Initial => self.initial,
            Input::Previous => self.previous,
            Input::Gradient => self.gradient,
            Input::SquaredGradient => self.squared_gradient,
            Input::HessianGradient => self.hessian_gradient,
            Input::FlowGradient => self.flow_gradient,
            Input::ActivationNorm => self.activation_norm,
            Input::BatchNormScale => self.batch_norm_scale,
            Input::SquaredGateGradient => self.squared_gate_gradient,
            Input::Mask => self.mask,
        }
    }
}

/// A view of [`Inputs`] for one criterion and one weight, which checks what it hands out: what an implementation of
/// [`Criterion`](crate::Criterion) reads its tensors from.
///
/// A tensor comes back detached, on the CPU (one copy from any other device; not every device has f64) and as f32, or as
/// f64 where the weight is f64 (so that a difference of two f64 weights is taken before it is rounded).
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    criterion: &'a str,
    weight_name: &'a str,
    inputs: &'a Inputs<'a>,
}

impl<'a> Checked<'a> {
    /// The inputs of `weight_name` for `criterion`; the two names appear in errors.
    pub fn new(criterion: &'a str, weight_name: &'a str, inputs: &'a Inputs<'a>) -> Checked<'a> {
        Checked { criterion, weight_name, inputs }
    }

    /// The weight.
    ///
    /// # Errors
    /// if it holds NaN or an infinite value.
    pub fn weight(&self) -> Result<Tensor, Error> {
        self.read(Input::Weight, self.inputs.weight)
    }

    /// An input of the weight's shape.
    ///
    /// # Errors
    /// if it was not given, has another shape, or holds NaN or an infinite value.
    pub fn like_weight(&self, input: Input) -> Result<Tensor, Error> {
        let tensor = self.given(input)?;
        if tensor.dims() != self.inputs.weight.dims() {
            return Err(self.wrong_shape(input, tensor, format!("{:?}", self.inputs.weight.dims())));
        }
        self.read(input, tensor)
    }

    /// An input of any shape; the caller checks it.
    ///
    /// # Errors
    /// if it was not given, or holds NaN or an infinite value.
    pub fn any_shape(&self, input: Input) -> Result<Tensor, Error> {
        self.read(input, self.given(input)?)
    }

    /// `values`, one for each of the weight's outputs (its first dimension), in the weight's shape; the caller read them as
    /// `input`.
    pub(crate) fn per_output(&self, input: Input, weight: &Tensor, values: &Tensor) -> Result<Tensor, Error> {
        let n_outputs = weight.dims().first().copied();
        let Some(n_outputs) = n_outputs.filter(|n_outputs| values.dims() == [*n_outputs]) else {
            let expected = format!("[{}], one value per output", n_outputs.unwrap_or(0));
            return Err(self.wrong_shape(input, values, expected));
        };
        let mut column = vec![1; weight.rank()];
        column[0] = n_outputs;
        Ok(values.reshape(column)?.broadcast_as(weight.shape())?)
    }

    /// The error for an input whose shape does not fit.
    pub fn wrong_shape(&self, input: Input, tensor: &Tensor, expected: String) -> Error {
        Error::Shape { weight: self.weight_name.to_owned(), input, got: tensor.dims().to_vec(), expected }
    }

    /// The finished score: f32, contiguous, on the CPU, checked.
    ///
    /// # Errors
    /// if a score is NaN or infinite, as where f32 overflows.
    pub fn finish(&self, scores: &Tensor) -> Result<Tensor, Error> {
        let scores = on_cpu(scores)?.to_dtype(DType::F32)?.contiguous()?;
        check_finite(&scores, self.weight_name, || format!("score `{}`", self.criterion))?;
        Ok(scores)
    }

    fn given(&self, input: Input) -> Result<&'a Tensor, Error> {
        self.inputs.find(input).ok_or_else(|| Error::MissingInput {
            criterion: self.criterion.to_owned(),
            weight: self.weight_name.to_owned(),
            input,
        })
    }

    fn read(&self, input: Input, tensor: &Tensor) -> Result<Tensor, Error> {
        let dtype = if self.inputs.weight.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let tensor = on_cpu(tensor)?.to_dtype(dtype)?;
        check_finite(&tensor, self.weight_name, || input.to_string())?;
        Ok(tensor)
    }
}

/// The inputs of many weights, as maps by parameter name.
///
/// A literal names what it has: `NamedInputs { gradient: Some(&gradients), ..NamedInputs::of(&weights) }`. The weights
/// say what is scored; other maps may hold more names.
#[derive(Clone, Copy, Debug)]
pub struct NamedInputs<'a> {
    /// [`Input::Weight`].
    pub weight: &'a BTreeMap<String, Tensor>,
    /// [`Input::Initial`].
    pub initial: Option<&'a BTreeMap<String, Tensor>>,
    /// [`Input::Previous`].
    pub previous: Option<&'a BTreeMap<String, Tensor>>,
    /// [`Input::Gradient`].
    pub gradient: Option<&'a BTreeMap<String, Tensor>>,
    /// [`Input::SquaredGradient`].
    pub squared_gradient: Option<&'a BTreeMap<String, Tensor>>,
    /// [`Input::HessianGradient`].
    pub hessian_gradient: Option<&'a BTreeMap<String, Tensor>>,
    /// [`Input::FlowGradient`].
    pub flow_gradient: Option<&'a BTreeMap<String, Tensor>>,
    /// [`Input::ActivationNorm`], by the name of the weight that the activation meets.
    pub activation_norm: Option<&'a BTreeMap<String, Tensor>>,
    /// [`Input::BatchNormScale`], by the name of the weight that comes before the BatchNorm.
    pub batch_norm_scale: Option<&'a BTreeMap<String, Tensor>>,
    /// [`Input::SquaredGateGradient`], by the name of the weight whose outputs have the gates.
    pub squared_gate_gradient: Option<&'a BTreeMap<String, Tensor>>,
    /// [`Input::Mask`].
    pub mask: Option<&'a BTreeMap<String, Tensor>>,
}

impl<'a> NamedInputs<'a> {
    /// The weights alone.
    pub fn of(weight: &'a BTreeMap<String, Tensor>) -> NamedInputs<'a> {
        NamedInputs {
            weight,
            initial: None,
            previous: None,
            gradient: None,
            squared_gradient: None,
            hessian_gradient: None,
            flow_gradient: None,
            activation_norm: None,
            batch_norm_scale: None,
            squared_gate_gradient: None,
            mask: None,
        }
    }

    /// What is there for the weight `name`; `None` if there is no such weight.
    pub fn find(&self, name: &str) -> Option<Inputs<'a>> {
        let find = |map: Option<&'a BTreeMap<String, Tensor>>| map.and_then(|map| map.get(name));
        Some(Inputs {
            weight: self.weight.get(name)?,
            initial: find(self.initial),
            previous: find(self.previous),
            gradient: find(self.gradient),
            squared_gradient: find(self.squared_gradient),
            hessian_gradient: find(self.hessian_gradient),
            flow_gradient: find(self.flow_gradient),
            activation_norm: find(self.activation_norm),
            batch_norm_scale: find(self.batch_norm_scale),
            squared_gate_gradient: find(self.squared_gate_gradient),
            mask: find(self.mask),
        })
    }
}
