//! How much is pruned, layer by layer.

use std::collections::BTreeMap;
use std::fmt;

use crate::set::MaskSet;
use crate::text::on_one_line;

/// How much of one layer is pruned.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerStats {
    /// The parameter's name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Weights in all.
    pub weights: u64,
    /// Weights pruned.
    pub zeros: u64,
    /// Output positions at which each weight is used once, for multiply-adds; 1 for a linear layer.
    pub positions: u64,
}

impl LayerStats {
    /// Pruned / all, in [0, 1].
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        fraction(self.zeros.into(), self.weights.into())
    }

    /// Multiply-adds of the dense layer, for one input.
    #[must_use]
    pub fn multiply_adds(&self) -> u128 {
        u128::from(self.weights) * u128::from(self.positions)
    }

    /// Multiply-adds of the weights kept.
    #[must_use]
    pub fn multiply_adds_kept(&self) -> u128 {
        u128::from(self.weights - self.zeros) * u128::from(self.positions)
    }
}

/// How much of each layer, and of all, is pruned. Displays as a table, after fasterai's sparsity report.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// Layer by layer, in order of their names.
    pub layers: Vec<LayerStats>,
}

impl Stats {
    /// Weights in all.
    #[must_use]
    pub fn weights(&self) -> u64 {
        self.layers.iter().map(|l| l.weights).sum()
    }

    /// Weights pruned.
    #[must_use]
    pub fn zeros(&self) -> u64 {
        self.layers.iter().map(|l| l.zeros).sum()
    }

    /// Pruned / all, in [0, 1].
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        fraction(self.zeros().into(), self.weights().into())
    }

    /// Multiply-adds of the dense layers, for one input.
    #[must_use]
    pub fn multiply_adds(&self) -> u128 {
        self.layers.iter().map(LayerStats::multiply_adds).sum()
    }

    /// Multiply-adds of the weights kept.
    #[must_use]
    pub fn multiply_adds_kept(&self) -> u128 {
        self.layers.iter().map(LayerStats::multiply_adds_kept).sum()
    }
}

fn fraction(part: u128, whole: u128) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl MaskSet {
    /// How much of each layer is pruned; multiply-adds count each weight once.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats_with_positions(&BTreeMap::new())
    }

    /// The same with each layer's number of output positions (height times width of its output), so that multiply-adds
    /// are those of one input; 1 for layers not named.
    #[must_use]
    pub fn stats_with_positions(&self, positions: &BTreeMap<String, u64>) -> Stats {
        let layer = |(name, mask): (&str, &crate::Mask)| LayerStats {
            name: name.to_owned(),
            shape: mask.shape().to_vec(),
            weights: mask.len() as u64,
            zeros: mask.zeros() as u64,
            positions: positions.get(name).copied().unwrap_or(1),
        };
        Stats { layers: self.iter().map(layer).collect() }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names come from files: none begins a line or moves a terminal's cursor.
        let shown: Vec<String> = self.layers.iter().map(|l| on_one_line(&l.name)).collect();
        let names = shown.iter().map(|name| name.chars().count());
        let width = names.chain(["Overall".len()]).max().unwrap_or_default();
        writeln!(f, "{:<width$} {:>13} {:>13} {:>9}", "Layer", "Weights", "Zeros", "Sparsity")?;
        let rows = shown.iter().zip(&self.layers).map(|(name, l)| (name.as_str(), l.weights, l.zeros, l.sparsity()));
        for (name, weights, zeros, sparsity) in rows.chain([("Overall", self.weights(), self.zeros(), self.sparsity())])
        {
            let (weights, zeros) = (thousands(weights), thousands(zeros));
            writeln!(f, "{name:<width$} {weights:>13} {zeros:>13} {:>7.2} %", 100.0 * sparsity)?;
        }
        Ok(())
    }
}

/// 1234567 as `1,234,567`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mask, Result};

    #[test]
    fn the_table_says_weights_zeros_and_percent() -> Result<()> {
        let masks: MaskSet = [
            ("conv1.weight".to_owned(), Mask::from_fn([64, 3, 7, 7], |i| i % 2 == 0)?),
            ("fc.weight".to_owned(), Mask::all_kept([8, 512])?),
        ]
        .into_iter()
        .collect();
        let stats = masks.stats_with_positions(&[("conv1.weight".to_owned(), 32 * 32)].into());
        assert_eq!((stats.weights(), stats.zeros()), (13_504, 4_704));
        assert_eq!(stats.multiply_adds(), 9_408 * 1_024 + 4_096);
        assert_eq!(stats.multiply_adds_kept(), 4_704 * 1_024 + 4_096);
        let table = "\
Layer              Weights         Zeros  Sparsity
conv1.weight         9,408         4,704   50.00 %
fc.weight            4,096             0    0.00 %
Overall             13,504         4,704   34.83 %
";
        assert_eq!(stats.to_string(), table);
        Ok(())
    }

    #[test]
    fn nothing_is_not_sparse() {
        assert_eq!(MaskSet::new().stats().sparsity(), 0.0);
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
