use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Sparsity};

/// The part of the *remaining* weights that a round of iterative pruning removes, in [0, 1).
///
/// ```
/// use lth_schedule::PruningRate;
///
/// let rate = PruningRate::new(0.2)?;
/// assert_eq!(rate.sparsity(0).to_string(), "0.00 %");
/// assert_eq!(rate.sparsity(3).to_string(), "48.80 %");
/// assert_eq!(rate.levels_to("90%".parse()?), Some(11));
/// # Ok::<(), lth_schedule::Error>(())
/// ```
/// Source: Frankle & Carbin 2019, "The Lottery Ticket Hypothesis", §2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct PruningRate(f64);

impl PruningRate {
    /// A layer that is not pruned.
    pub const NONE: PruningRate = PruningRate(0.0);

    /// A rate from the fraction that a round removes.
    ///
    /// # Errors
    /// if it is NaN or outside [0, 1).
    pub fn new(fraction: f64) -> Result<PruningRate, Error> {
        if (0.0..1.0).contains(&fraction) {
            return Ok(PruningRate(fraction + 0.0)); // -0.0 becomes 0.0
        }
        Err(Error::Parameter {
            parameter: "pruning rate",
            got: fraction.to_string(),
            expected: "a fraction of the remaining weights in [0, 1)",
        })
    }

    /// The fraction that a round removes.
    pub fn fraction(self) -> f64 {
        self.0
    }

    /// The sparsity at a level, level 0 being dense: 1 − (1 − rate)^level.
    pub fn sparsity(self, level: u32) -> Sparsity {
        self.sparsity_from(Sparsity::DENSE, level)
    }

    /// The sparsity `n_rounds` rounds after `start`: 1 − (1 − start) · (1 − rate)^rounds.
    pub fn sparsity_from(self, start: Sparsity, n_rounds: u32) -> Sparsity {
        let kept = (1.0 - self.0).powf(f64::from(n_rounds));
        start.toward(Sparsity::EMPTY, 1.0 - kept)
    }

    /// The first level at which the sparsity is at least `target`; `None` if there is none: for rate 0, and for target 1,
    /// which no number of rounds reaches.
    pub fn levels_to(self, target: Sparsity) -> Option<u32> {
        if target == Sparsity::EMPTY || self.sparsity(u32::MAX) < target {
            return None;
        }
        // By halves: a quotient of logarithms is off by a level where rounding decides.
        let (mut below, mut reached) = (0, u32::MAX);
        if self.sparsity(below) >= target {
            return Some(below);
        }
        while reached - below > 1 {
            let middle = below + (reached - below) / 2;
            if self.sparsity(middle) >= target { reached = middle } else { below = middle }
        }
        Some(reached)
    }
}

impl TryFrom<f64> for PruningRate {
    type Error = Error;

    fn try_from(fraction: f64) -> Result<Self, Error> {
        PruningRate::new(fraction)
    }
}

impl From<PruningRate> for f64 {
    fn from(rate: PruningRate) -> f64 {
        rate.0
    }
}

/// Percent a round: `20 %`.
impl fmt::Display for PruningRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded at the tenth digit: 0.07 · 100 is 7.000000000000001.
        write!(f, "{} %", (self.0 * 1e10).round() / 1e8)
    }
}

/// What a layer does, where its pruning rate depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// A convolution.
    Convolution,
    /// A linear layer that is not the last.
    Linear,
    /// The last linear layer, which gives the logits.
    Output,
}

/// Pruning rates by layer type: every type follows its own geometric schedule over the levels.
///
/// ```
/// use lth_schedule::{LayerType, PruningRates};
///
/// let rates = PruningRates::CONV_6;
/// assert_eq!(rates.sparsity(LayerType::Convolution, 2).to_string(), "27.75 %");
/// assert_eq!(rates.sparsity(LayerType::Output, 2).to_string(), "19.00 %");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruningRates {
    /// For convolutions.
    pub convolution: PruningRate,
    /// For linear layers but the last.
    pub linear: PruningRate,
    /// For the last linear layer.
    pub output: PruningRate,
}

// Source: Frankle & Carbin 2019, figure 2 for convolutions and linear layers, and §2: "connections to outputs are pruned
// at half of the rate of the rest of the network".
impl PruningRates {
    /// LeNet-300-100 of the lottery-ticket paper: 20 % a round, 10 % in the output layer.
    pub const LENET: PruningRates = PruningRates::published(0.2, 0.2, 0.1);
    /// Conv-2 and Conv-4 of the paper: convolutions 10 %, linear layers 20 %, output 10 %.
    pub const CONV_2_AND_4: PruningRates = PruningRates::published(0.1, 0.2, 0.1);
    /// Conv-6 of the paper: convolutions 15 %, linear layers 20 %, output 10 %.
    pub const CONV_6: PruningRates = PruningRates::published(0.15, 0.2, 0.1);
    /// ResNet-18 and VGG-19 of the paper: convolutions 20 %, nothing else.
    pub const RESNET_AND_VGG: PruningRates = PruningRates::published(0.2, 0.0, 0.0);

    const fn published(convolution: f64, linear: f64, output: f64) -> PruningRates {
        let (convolution, linear, output) = (PruningRate(convolution), PruningRate(linear), PruningRate(output));
        PruningRates { convolution, linear, output }
    }

    /// One rate for every layer.
    pub fn uniform(rate: PruningRate) -> PruningRates {
        PruningRates { convolution: rate, linear: rate, output: rate }
    }

    /// The rate of a layer type.
    pub fn rate(&self, layer_type: LayerType) -> PruningRate {
        match layer_type {
            LayerType::Convolution => self.convolution,
            LayerType::Linear => self.linear,
            LayerType::Output => self.output,
        }
    }

    /// The sparsity of a layer type at a level, level 0 being dense.
    pub fn sparsity(&self, layer_type: LayerType, level: u32) -> Sparsity {
        self.rate(layer_type).sparsity(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(fraction: f64) -> PruningRate {
        PruningRate::new(fraction).unwrap()
    }

    #[test]
    fn levels_are_powers_of_the_part_that_a_round_keeps() {
        let kept = [1.0, 0.8, 0.64, 0.512, 0.4096, 0.32768, 0.262144];
        for (level, kept) in (0..).zip(kept) {
            let density = rate(0.2).sparsity(level).density();
            assert!((density - kept).abs() < 1e-15, "level {level}: {density}");
        }
    }

    #[test]
    fn each_level_removes_the_rate_from_what_remains() {
        let rate = rate(0.15);
        for level in 0..40 {
            let step = rate.sparsity_from(rate.sparsity(level), 1);
            assert!((step.fraction() - rate.sparsity(level + 1).fraction()).abs() < 1e-15, "{level}");
        }
    }

    #[test]
    fn the_first_level_at_or_beyond_a_target_is_found() {
        for fraction in [0.01, 0.1, 0.2, 0.5, 0.9, 0.999] {
            for level in [0, 1, 2, 3, 7, 20] {
                let target = rate(fraction).sparsity(level);
                if target == Sparsity::EMPTY {
                    continue; // 0.001²⁰ is nothing beside 1
                }
                let found = rate(fraction).levels_to(target).unwrap();
                assert_eq!(found, level, "{fraction}");
            }
        }
        assert_eq!(rate(0.2).levels_to(Sparsity::EMPTY), None);
        assert_eq!(PruningRate::NONE.levels_to(Sparsity::new(0.1).unwrap()), None);
        assert_eq!(PruningRate::NONE.levels_to(Sparsity::DENSE), Some(0));
    }

    #[test]
    fn a_rate_of_one_or_no_number_is_an_error() {
        for bad in [1.0, -0.1, f64::NAN, f64::INFINITY, 20.0] {
            assert!(PruningRate::new(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<PruningRate>("1.0").is_err());
        assert_eq!(rate(0.07).to_string(), "7 %");
        assert_eq!(rate(0.125).to_string(), "12.5 %");
    }

    #[test]
    fn the_published_rates_are_stored_by_layer_type() {
        let text = serde_json::to_string(&PruningRates::CONV_6).unwrap();
        assert_eq!(text, r#"{"convolution":0.15,"linear":0.2,"output":0.1}"#);
        assert_eq!(serde_json::from_str::<PruningRates>(&text).unwrap(), PruningRates::CONV_6);
        for published in
            [PruningRates::LENET, PruningRates::CONV_2_AND_4, PruningRates::CONV_6, PruningRates::RESNET_AND_VGG]
        {
            for layer_type in [LayerType::Convolution, LayerType::Linear, LayerType::Output] {
                let rate = published.rate(layer_type);
                assert_eq!(PruningRate::new(rate.fraction()), Ok(rate));
            }
        }
    }
}
