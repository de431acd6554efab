//! SynFlow: scores from a network's own weights, with no data at all, in many small rounds.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};

use crate::Input::FlowGradient;
use crate::collect::{Restore, reached};
use crate::define::criteria;
use crate::error::Names;
use crate::finite::on_cpu;
use crate::{Error, NamedInputs, score_all};

criteria! {
    /// |w| · ∂R/∂|w|: the flow through the weight, R the sum of outputs of the network with absolute weights fed with
    /// ones.
    ///
    /// One evaluation is one round; [`synflow`] runs the published hundred. Source: Tanaka et al. 2020, "Pruning neural
    /// networks without any data by iteratively conserving synaptic flow", §5 and its algorithm.
    SynFlow, "synflow", [FlowGradient], |checked| (checked.weight()?.abs()? * checked.like_weight(FlowGradient)?)?.abs()?;
}

/// The gradient of the synaptic flow for every absolute weight: what [`SynFlow`] needs. f64 where a variable is.
///
/// `parameters`: all of the network by name, also biases and BatchNorm's (its running mean and variance too). They are
/// replaced by their absolute values while `outputs` runs, and put back after it, whatever it returns. `outputs` runs the
/// network on one sample of ones, in evaluation mode. What the backward pass does not reach (running statistics, frozen
/// weights) is left out, so that scoring it is an error.
///
/// The flow of a deep network grows with its width to the power of its depth: about 10⁴⁶ for ResNet-34, which f64 holds
/// and f32 does not, so use f64 variables as the paper's code does. Gradients beyond 2^±64 are all multiplied with one
/// power of two that brings the largest to about 1: no order changes, and scores fit in f32.
///
/// # Errors
/// If `outputs` fails, or the flow is not finite or 0.
pub fn flow_gradients(
    parameters: &BTreeMap<String, Var>,
    mut outputs: impl FnMut() -> candle_core::Result<Tensor>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let restore = Restore::new(parameters)?;
    for (name, var) in parameters {
        // Counters, as BatchNorm's, have no sign.
        if !var.dtype().is_int() {
            var.set(&restore.value(name)?.abs()?)?;
        }
    }
    let flow = outputs()?.sum_all()?;
    let total = on_cpu(&flow)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    if !total.is_finite() || total == 0.0 {
        return Err(Error::Parameter {
            parameter: "synaptic flow",
            got: total.to_string(),
            expected: "a finite sum of outputs that is not 0 (f64 variables reach further than f32)",
        });
    }
    let gradients = moderate(reached(&flow, parameters)?)?;
    restore.finish()?;
    Ok(gradients)
}

/// All gradients times one power of two, if the largest is very large or very small.
fn moderate(mut gradients: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>, Error> {
    const MODERATE: f64 = 64.0;
    let mut largest = 0f64;
    for gradient in gradients.values().filter(|gradient| gradient.elem_count() > 0) {
        let of_this = on_cpu(&gradient.abs()?.flatten_all()?.max(0)?)?;
        largest = largest.max(of_this.to_dtype(DType::F64)?.to_scalar::<f64>()?);
    }
    let exponent = largest.log2().round();
    if exponent.is_finite() && exponent.abs() > MODERATE {
        // Two factors: one alone may be out of range where both products are not.
        let half = (-exponent / 2.0).trunc();
        for gradient in gradients.values_mut() {
            *gradient = ((&*gradient * half.exp2())? * (-exponent - half).exp2())?;
        }
    }
    Ok(gradients)
}

/// How [`synflow`] goes to its sparsity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SynFlowRounds {
    /// Number of rounds of scoring and pruning.
    pub n_rounds: u32,
    /// The part of the weights that is pruned after the last round, in [0, 1).
    pub sparsity: f64,
}

impl SynFlowRounds {
    /// The published hundred rounds.
    pub fn to(sparsity: f64) -> SynFlowRounds {
        SynFlowRounds { n_rounds: 100, sparsity }
    }
}

/// The masks that iterative SynFlow ends with, by name.
///
/// Round k of n prunes to density (1 − sparsity)^(k/n), so that no layer collapses. Each round masks the weights, takes
/// [`flow_gradients`], scores the weights in `prunable` and calls `select(scores, sparsity)` for the next masks (u8 or
/// float, 1 = keep, the weight's shape). Selection belongs to the caller: the paper's is global, by weight. The weights
/// are as before when this returns.
///
/// # Errors
/// If a name in `prunable` is no parameter or the flow does not reach it, there are no rounds or the sparsity is not in
/// [0, 1), a closure fails, `select` leaves out a mask or gives one of another shape, or as [`flow_gradients`].
pub fn synflow<N: AsRef<str>>(
    parameters: &BTreeMap<String, Var>,
    prunable: impl IntoIterator<Item = N>,
    rounds: SynFlowRounds,
    mut outputs: impl FnMut() -> candle_core::Result<Tensor>,
    mut select: impl FnMut(&BTreeMap<String, Tensor>, f64) -> candle_core::Result<BTreeMap<String, Tensor>>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let SynFlowRounds { n_rounds, sparsity } = rounds;
    if n_rounds == 0 {
        return Err(Error::Parameter { parameter: "SynFlow rounds", got: "0".to_owned(), expected: "at least 1" });
    }
    if !(0.0..1.0).contains(&sparsity) {
        let got = sparsity.to_string();
        return Err(Error::Parameter { parameter: "SynFlow sparsity", got, expected: "a fraction in [0, 1)" });
    }
    let restore = Restore::new(parameters)?;
    let mut dense = BTreeMap::new();
    for name in prunable {
        dense.insert(name.as_ref().to_owned(), restore.value(name.as_ref())?.clone());
    }
    let mut masks = BTreeMap::new();
    for round in 1..=n_rounds {
        let flow = flow_gradients(parameters, &mut outputs)?;
        let missing: Vec<String> = dense.keys().filter(|name| !flow.contains_key(*name)).cloned().collect();
        if !missing.is_empty() {
            return Err(Error::NoGradient { weights: Names(missing) });
        }
        let mut weights = BTreeMap::new();
        for name in dense.keys() {
            weights.insert(name.clone(), find(parameters, name)?.as_detached_tensor());
        }
        let scores = score_all(&SynFlow, &NamedInputs { flow_gradient: Some(&flow), ..NamedInputs::of(&weights) })?;
        let density = (1.0 - sparsity).powf(f64::from(round) / f64::from(n_rounds));
        masks = select(&scores, 1.0 - density)?;
        for (name, value) in &dense {
            let mask =
                masks.get(name).ok_or_else(|| Error::UnknownWeight { what: "the selection", weight: name.clone() })?;
            if mask.dims() != value.dims() {
                return Err(Error::Shape {
                    weight: name.clone(),
                    input: crate::Input::Mask,
                    got: mask.dims().to_vec(),
                    expected: format!("{:?}", value.dims()),
                });
            }
            find(parameters, name)?.set(&(value * mask.to_dtype(value.dtype())?)?)?;
        }
    }
    restore.finish()?;
    Ok(masks)
}

fn find<'a>(parameters: &'a BTreeMap<String, Var>, name: &str) -> Result<&'a Var, Error> {
    parameters.get(name).ok_or_else(|| Error::UnknownWeight { what: "the network", weight: name.to_owned() })
}
