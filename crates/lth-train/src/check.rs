//! Whether the gradients of a network are those of its loss.
//!
//! Some of candle's operators have a wrong backward pass or none, and say nothing (see the crate's documentation). A
//! finite difference along each gradient finds them.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};

use lth_schedule::Step;

use crate::double::{self, in_f64};
use crate::parameters::first_not_finite;
use crate::{Error, Network, Parameter, Pass, Role};

/// The steps of the finite differences, as shares of a parameter's length; each is tried with its half.
const STEPS: [f64; 5] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5];
/// The difference that may be between a right gradient and the finite difference, relative to the larger.
const TOLERANCE: f64 = 0.05;
/// Uncertainty above which a finite difference says nothing, relative likewise.
const CERTAIN: f64 = 0.1;

/// What a finite difference says of a parameter's gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both are equal to a twentieth and the uncertainty of the finite difference.
    Agrees,
    /// They are not: an operator between the parameter and the loss has a wrong backward pass.
    Wrong,
    /// There is no gradient, or it is zero, though the loss changes with the parameter: an operator has no backward pass.
    Missing,
    /// Rounding or kinks hide the answer; a larger batch or f64 may give one.
    Unclear,
}

/// A parameter's gradient beside the finite difference along it.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedGradient {
    /// The parameter.
    pub name: String,
    /// The derivative of the loss along the gradient that backward gave: its length. Without a gradient 0.
    pub backward: f64,
    /// The same derivative by central differences. Without a gradient: along a fixed direction of random signs.
    pub measured: f64,
    /// What rounding and curvature leave open in `measured`.
    pub uncertainty: f64,
    /// The comparison.
    pub verdict: Verdict,
}

/// What [`check_gradients`] found, by parameter in sorted order.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientReport {
    /// All trainable parameters.
    pub parameters: Vec<CheckedGradient>,
}

impl GradientReport {
    /// The parameters whose gradient is wrong or missing.
    pub fn faults(&self) -> impl Iterator<Item = &CheckedGradient> {
        self.parameters.iter().filter(|one| matches!(one.verdict, Verdict::Wrong | Verdict::Missing))
    }
}

impl fmt::Display for GradientReport {
    /// The faults.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (at, one) in self.faults().take(SHOWN).enumerate() {
            let CheckedGradient { name, backward, measured, verdict, .. } = one;
            let comma = if at == 0 { "" } else { ", " };
            match verdict {
                Verdict::Missing => write!(f, "{comma}`{name}` (none, though the loss changes with it)")?,
                _ => write!(f, "{comma}`{name}` ({backward:.3e}, by finite differences {measured:.3e})")?,
            }
        }
        if self.faults().count() > SHOWN {
            write!(f, ", …")?;
        }
        Ok(())
    }
}

/// Compares, parameter by parameter, the gradient of the cross entropy on `batch` (`x` and class indices `[N]`) with
/// finite differences: the loss must change along the gradient g by g · g. A parameter without a gradient is checked
/// along a fixed direction of random signs, where the loss must not change.
///
/// It takes some twenty forward passes a parameter: a small network, or a small version of a large one, and a few
/// examples will do. Passes are training passes; parameters and running statistics have their former bits afterwards.
/// # Errors
/// If a gradient is wrong or missing ([`Error::Gradients`], with the whole report), if the loss is not the same twice
/// ([`Error::Unseeded`]: dropout without a seed), if it is not finite, or if candle fails.
pub fn check_gradients(network: &(impl Network + ?Sized), batch: &(Tensor, Tensor)) -> Result<GradientReport, Error> {
    let before = network.parameters().snapshot(|_, _| true)?;
    let checked = check(network, batch, &before);
    // Whatever went wrong, the weights come back first.
    network.parameters().restore(&before)?;
    let report = checked?;
    if report.faults().next().is_some() {
        return Err(Error::Gradients(report));
    }
    Ok(report)
}

fn check(
    network: &(impl Network + ?Sized),
    batch: &(Tensor, Tensor),
    before: &BTreeMap<String, Tensor>,
) -> Result<GradientReport, Error> {
    let (gradients, start) = backward(network, batch)?;
    let again = loss(network, batch, before)?.0;
    if start.to_bits() != again.to_bits() {
        return Err(Error::Unseeded { difference: (start - again).abs() });
    }
    let probe = Probe { network, batch, before, loss: start };
    let parameters = network.parameters().trainable();
    let parameters = parameters.map(|(name, parameter)| probe.parameter(name, parameter, &gradients));
    Ok(GradientReport { parameters: parameters.collect::<Result<_, _>>()? })
}

fn backward(network: &(impl Network + ?Sized), (x, target): &(Tensor, Tensor)) -> Result<(GradStore, f64), Error> {
    let logits = in_f64(&network.forward(x, &Pass::train(0, 0))?)?;
    let loss = lth_kernels::cross_entropy(&logits, &target.to_device(logits.device())?)?;
    let value = loss.to_scalar::<f64>()?;
    if !value.is_finite() {
        return Err(Error::LossNotFinite {
            loss: value,
            step: Step::START,
            parameter: first_not_finite(network.parameters())?,
        });
    }
    Ok((lth_kernels::backward(&loss)?, value))
}

/// The loss as it stands, and the size of its rounding; running statistics stay.
fn loss(
    network: &(impl Network + ?Sized),
    (x, target): &(Tensor, Tensor),
    before: &BTreeMap<String, Tensor>,
) -> Result<(f64, f64), Error> {
    let pass = Pass { track: false, ..Pass::train(0, 0) };
    let logits = network.forward(x, &pass)?;
    for (name, buffer) in network.parameters().iter().filter(|(_, parameter)| parameter.role() == Role::Buffer) {
        buffer.var().set(&before[name].copy()?)?;
    }
    let epsilon = match logits.dtype() {
        DType::F64 => f64::EPSILON,
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        _ => f64::from(f32::EPSILON),
    };
    let logits = in_f64(&logits)?.detach();
    let largest = logits.abs()?.max_all()?.to_scalar::<f64>()?;
    // A sum of many products is rounded many times; eight covers the networks tried.
    let loss = lth_kernels::cross_entropy(&logits, &target.to_device(logits.device())?)?;
    Ok((loss.to_scalar::<f64>()?, 8.0 * epsilon * largest))
}

struct Probe<'a, N: ?Sized> {
    network: &'a N,
    batch: &'a (Tensor, Tensor),
    before: &'a BTreeMap<String, Tensor>,
    /// The loss where nothing is moved.
    loss: f64,
}

/// A derivative by central differences.
#[derive(Clone, Copy)]
struct Slope {
    measured: f64,
    /// The derivative of the same moves that the gradient promises.
    promised: f64,
    /// What the derivative to the one side has more than that to the other, beyond what the gradient promises of it.
    bend: f64,
    rounding: f64,
}

impl Slope {
    fn scale(&self) -> f64 {
        self.measured.abs().max(self.promised.abs())
    }
}

impl<N: Network + ?Sized> Probe<'_, N> {
    fn parameter(&self, name: &str, parameter: &Parameter, store: &GradStore) -> Result<CheckedGradient, Error> {
        let start = double::values(&self.before[name])?;
        let gradient = match store.get(parameter.var()) {
            Some(gradient) => double::values(gradient)?,
            None => vec![0.0; start.len()],
        };
        let backward = length(&gradient);
        if !backward.is_finite() {
            // A gradient that is NaN agrees with nothing.
            let (name, measured, uncertainty, verdict) = (name.to_owned(), f64::NAN, f64::NAN, Verdict::Wrong);
            return Ok(CheckedGradient { name, backward, measured, uncertainty, verdict });
        }
        let direction: Vec<f64> = if backward > 0.0 {
            gradient.iter().map(|g| g / backward).collect()
        } else {
            let unit = 1.0 / (start.len() as f64).sqrt();
            (0..start.len() as u64).map(|i| if mixed(i) & 1 == 0 { unit } else { -unit }).collect()
        };
        let size = match length(&start) {
            0.0 => 1.0,
            size => size,
        };
        // Of the steps that leave little open the smallest, since the gradient is what happens beside the weights; without
        // such a step the one that leaves least open.
        let mut best: Option<(Slope, f64)> = None;
        for step in STEPS {
            let whole = self.slope(parameter, &start, &gradient, &direction, step * size)?;
            let half = self.slope(parameter, &start, &gradient, &direction, step * size / 2.0)?;
            // Where the loss is smooth, its bend halves with the step. That of a kink does not: beside one (a unit that is all
            // but zero for an example), any slope between those of its sides is right. For a single kink, wherever it is,
            // these two terms are no less than what the half step's slope is off.
            let kink = (2.0 * half.bend - whole.bend).abs() / 2.0;
            let uncertainty = (whole.measured - half.measured).abs() + kink + half.rounding;
            let is_precise = uncertainty <= TOLERANCE * half.scale();
            if uncertainty.is_finite() && best.is_none_or(|(_, least)| is_precise || uncertainty < least) {
                best = Some((half, uncertainty));
            }
        }
        self.network.parameters().restore(&BTreeMap::from([(name.to_owned(), self.before[name].clone())]))?;
        let Some((half @ Slope { measured, promised, .. }, uncertainty)) = best else {
            // No step gave a finite loss on both sides.
            let (name, measured, uncertainty) = (name.to_owned(), f64::NAN, f64::INFINITY);
            return Ok(CheckedGradient { name, backward, measured, uncertainty, verdict: Verdict::Unclear });
        };
        let verdict = if backward == 0.0 {
            if measured.abs() > 10.0 * uncertainty { Verdict::Missing } else { Verdict::Agrees }
        } else {
            if (measured - promised).abs() > TOLERANCE * half.scale() + uncertainty {
                Verdict::Wrong
            } else if uncertainty > CERTAIN * half.scale() {
                Verdict::Unclear
            } else {
                Verdict::Agrees
            }
        };
        Ok(CheckedGradient { name: name.to_owned(), backward, measured, uncertainty, verdict })
    }

    /// The derivative along `direction` by moving the parameter a `step` to both sides of `start`.
    fn slope(
        &self,
        parameter: &Parameter,
        start: &[f64],
        gradient: &[f64],
        direction: &[f64],
        step: f64,
    ) -> Result<Slope, Error> {
        let var = parameter.var();
        // What the parameter's type makes of the move is what the gradient is asked about.
        let at = |side: f64| -> Result<_, Error> {
            let moved: Vec<f64> = start.iter().zip(direction).map(|(start, unit)| start + side * step * unit).collect();
            let moved = Tensor::from_vec(moved, var.dims(), &candle_core::Device::Cpu)?.to_dtype(var.dtype())?;
            var.set(&moved.to_device(var.device())?)?;
            let promised = double::values(&moved)?;
            let promised: f64 = promised.iter().zip(start).zip(gradient).map(|((to, from), g)| (to - from) * g).sum();
            let (loss, rounding) = loss(self.network, self.batch, self.before)?;
            Ok((loss, promised, rounding))
        };
        let ((above, promised_above, rounding), (below, promised_below, _)) = (at(1.0)?, at(-1.0)?);
        Ok(Slope {
            measured: (above - below) / (2.0 * step),
            promised: (promised_above - promised_below) / (2.0 * step),
            bend: (above - 2.0 * self.loss + below - promised_above - promised_below) / step,
            rounding: rounding / step,
        })
    }
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// splitmix64 of `i`.
fn mixed(i: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
