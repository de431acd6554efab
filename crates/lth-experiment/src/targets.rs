//! How much of which layer a level prunes.

use std::collections::BTreeMap;

use lth_mask::{Scope, Selection};
use lth_schedule::{LayerType, PruningRate, Sparsity};
use lth_train::Parameters;

use crate::Error;
use crate::plan::{Levels, PruningRule, Target};

impl PruningRule {
    /// The sparsity over all prunable weights, and the selection that shares it among the layers as the target says.
    ///
    /// # Errors
    /// [`Error::Plan`] if the network has no prunable weight, or the output layer is none of them, or a level is not there.
    pub(crate) fn target(
        &self,
        target: Target,
        selection: &Selection,
        parameters: &Parameters,
    ) -> Result<(Sparsity, Selection), Error> {
        let prunable: Vec<(&str, usize, usize)> = parameters
            .prunable(&self.ranks)
            .map(|(name, parameter)| (name, parameter.var().rank(), parameter.var().elem_count()))
            .collect();
        if prunable.is_empty() {
            let field = "ranks of the weights to prune".into();
            let expected = format!("those of weights that the network has: {}", ranks(parameters));
            return Err(Error::Plan { field, got: format!("{:?}", self.ranks), expected });
        }
        let level = match target {
            Target::Sparsity(sparsity) => return Ok((sparsity, selection.clone())),
            Target::Level(level) => level,
        };
        let names: Vec<&str> = prunable.iter().map(|(name, ..)| *name).collect();
        let unknown = |field: &str, got: &str| {
            let expected = format!("one of the weights that are pruned: {}", names.join(", "));
            Err(Error::Plan { field: field.into(), got: format!("`{got}`"), expected })
        };
        let sparsity: &dyn Fn(&str, usize) -> Sparsity = match &self.levels {
            Levels::Overall(sparsities) => {
                let index = (level as usize).checked_sub(1);
                let sparsity = index.and_then(|index| sparsities.get(index)).ok_or_else(|| Error::Plan {
                    field: "level".into(),
                    got: level.to_string(),
                    expected: format!("1 to {}", sparsities.len()),
                })?;
                return Ok((*sparsity, selection.clone()));
            }
            Levels::ByKind { output, .. } if !names.contains(&output.as_str()) => {
                return unknown("output layer", output);
            }
            Levels::ByKind { rates, output } => &|name, rank| rates.sparsity(kind(name, rank, output), level),
            Levels::ByLayer { rates } => {
                if let Some(other) = rates.keys().find(|name| !names.contains(&name.as_str())) {
                    return unknown("layer with a pruning rate", other);
                }
                if rates.values().all(|rate| *rate == PruningRate::NONE) {
                    let (field, got) = ("pruning rates of the layers".into(), "0 throughout".into());
                    return Err(Error::Plan { field, got, expected: "at least one that is more than 0".into() });
                }
                &|name, _| rates.get(name).map_or(Sparsity::DENSE, |rate| rate.sparsity(level))
            }
        };
        let of_layer = |(name, rank, n): &(&str, usize, usize)| (name.to_string(), sparsity(name, *rank), *n);
        let layers: Vec<(String, Sparsity, usize)> = prunable.iter().map(of_layer).collect();
        let n_weights: usize = layers.iter().map(|(.., n)| n).sum();
        let n_pruned: f64 = layers.iter().map(|(_, sparsity, n)| sparsity.fraction() * *n as f64).sum();
        if let Scope::Global | Scope::ErdosRenyi | Scope::ErdosRenyiKernel | Scope::Lamp = selection.scope {
            // One budget, the sum of what the kinds ask for, which the scope shares.
            return Ok((Sparsity::new(n_pruned / n_weights as f64)?, selection.clone()));
        }
        let own: BTreeMap<String, f64> =
            layers.into_iter().map(|(name, sparsity, _)| (name, sparsity.fraction())).collect();
        Ok((
            Sparsity::new(n_pruned / n_weights as f64)?,
            Selection { scope: Scope::PerLayer(own), ..selection.clone() },
        ))
    }
}

/// The kind of a weight among those that are pruned at rates of their own.
pub(crate) fn kind(name: &str, rank: usize, output: &str) -> LayerType {
    match rank {
        _ if name == output => LayerType::Output,
        2 => LayerType::Linear,
        _ => LayerType::Convolution,
    }
}

fn ranks(parameters: &Parameters) -> String {
    let mut ranks: Vec<usize> = parameters
        .iter()
        .filter(|(_, parameter)| parameter.role() == lth_train::Role::Weight)
        .map(|(_, parameter)| parameter.var().rank())
        .collect();
    ranks.sort_unstable();
    ranks.dedup();
    ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
