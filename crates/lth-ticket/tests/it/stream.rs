//! Whole units pruned while training: compaction is exact afterwards.

use std::collections::BTreeMap;

use candle_core::{DType, Device, ModuleT, Tensor};
use candle_nn::{BatchNorm, LayerNorm, Linear, VarBuilder, VarMap, batch_norm, linear};
use lth_mask::{Channels, CompactionPlan, Connections, Granularity, MaskSet, Selection};
use lth_schedule::{Schedule, Sparsity, SparsitySchedule};
use lth_ticket::{Pruning, PruningConfig, ResetRule, Rewind};
use lth_train::{FitConfig, ModuleNetwork, Network, Optimizer, OptimizerConfig, Pass, Trainer};

use crate::support::{bits, data, trainer};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A hidden layer with a batch norm.
struct Normed(Linear, BatchNorm, Linear);

impl ModuleT for Normed {
    fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        use candle_core::Module;
        self.2.forward(&self.1.forward_t(&self.0.forward(x)?, train)?.relu()?)
    }
}

fn normed(hidden: usize, tensors: Option<&BTreeMap<String, Tensor>>) -> candle_core::Result<ModuleNetwork<Normed>> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let (fc1, bn) = (linear(12, hidden, builder.pp("fc1"))?, batch_norm(hidden, 1e-5, builder.pp("bn"))?);
    let network = ModuleNetwork::new(Normed(fc1, bn, linear(hidden, 3, builder.pp("fc2"))?), &variables);
    let network = network.map_err(candle_core::Error::wrap)?;
    let values = |(index, (name, parameter)): (usize, (&str, &lth_train::Parameter))| {
        let shape = parameter.var().shape();
        // A variance is positive.
        let of = |i: usize| 0.5 + 0.4 * ((i * 7 + index * 13 + 1) as f32).sin();
        let centred = |i: usize| if name.starts_with("bn") { of(i) } else { of(i) - 0.5 };
        let values = (0..shape.elem_count()).map(centred).collect();
        Ok((name.to_owned(), Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu)?))
    };
    let own: BTreeMap<String, Tensor> =
        network.parameters().iter().enumerate().map(values).collect::<candle_core::Result<_>>()?;
    network.parameters().restore(tensors.unwrap_or(&own)).map_err(candle_core::Error::wrap)?;
    Ok(network)
}

fn rows(schedule: SparsitySchedule, connections: Option<Connections>) -> PruningConfig {
    let selection =
        Selection { granularity: Granularity::Row, keep_dense: vec!["fc2.weight".to_owned()], ..Selection::default() };
    PruningConfig { selection, ranks: vec![2], connections, ..PruningConfig::new(schedule) }
}

fn half() -> SparsitySchedule {
    SparsitySchedule::to(Sparsity::from_percent(50.0).expect("a percentage"), Schedule::iterative(2).expect("two"))
}

#[test]
fn pruned_units_take_their_norm_with_them_and_compaction_is_exact() -> Outcome {
    let hidden = Channels::new("hidden").producer("fc1.weight").bias("fc1.bias").batch_norm("bn");
    let connections = Connections::new([hidden.consumer("fc2.weight")]);
    let mut trainer = Trainer::new(normed(16, None)?, Optimizer::new(OptimizerConfig::adam()), 3);
    let fit = FitConfig { learning_rate: &|_| 0.02, ..FitConfig::new(3) };
    trainer.fit(&fit, &data(), &mut [&mut Pruning::new(rows(half(), Some(connections.clone())))])?;
    let masks = MaskSet::from_tensors(trainer.masks())?;
    for name in ["fc1.bias", "bn.weight", "bn.bias"] {
        assert_eq!(masks.get(name).map(lth_mask::Mask::zeros), Some(8), "{name}");
        assert_eq!(bits(trainer.network(), name).into_iter().filter(|bits| *bits == 0).count(), 8, "{name}");
    }
    let tensors = trainer.network().parameters().snapshot(|_, _| true)?;
    let plan = CompactionPlan::new(&connections, &masks, &tensors)?;
    let small = normed(8, Some(&plan.apply(&tensors)?))?;
    let (x, _) = (data().train)(0).next().ok_or("no batch")??;
    let expected = trainer.network().forward(&x, &Pass::eval())?;
    let difference = (small.forward(&x, &Pass::eval())? - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(difference < 1e-5, "differs by {difference}");
    Ok(())
}

#[test]
fn without_connections_a_pruned_unit_takes_its_bias_with_it() -> Outcome {
    let mut trainer = trainer();
    let mut config = rows(half(), None);
    config.selection.keep_dense = vec!["fc2.weight".to_owned(), "fc3.weight".to_owned()];
    trainer.fit(&FitConfig::new(2), &data(), &mut [&mut Pruning::new(config)])?;
    let masks = MaskSet::from_tensors(trainer.masks())?;
    let rows = masks.get("fc1.weight").ok_or("no mask")?;
    let bias = masks.get("fc1.bias").ok_or("no mask of the bias")?;
    for unit in 0..10 {
        assert_eq!(bias.get(unit), rows.get(unit * 12), "unit {unit}");
    }
    assert_eq!(bias.zeros(), 5);
    Ok(())
}

/// A layer norm as a hand-written one: candle's own ends the graph.
struct WithLayerNorm(Linear, LayerNorm, Linear);

impl ModuleT for WithLayerNorm {
    fn forward_t(&self, x: &Tensor, _train: bool) -> candle_core::Result<Tensor> {
        use candle_core::{D, Module};
        let x = self.0.forward(x)?;
        let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let x = x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?)?;
        let x = x.broadcast_mul(self.1.weight())?.broadcast_add(self.1.bias().unwrap_or(self.1.weight()))?;
        self.2.forward(&x)
    }
}

#[test]
fn only_norms_with_running_statistics_start_anew() -> Outcome {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let norm = candle_nn::layer_norm(16, candle_nn::LayerNormConfig::default(), builder.pp("norm"))?;
    let layers = WithLayerNorm(linear(12, 16, builder.pp("fc1"))?, norm, linear(16, 3, builder.pp("fc2"))?);
    let network = ModuleNetwork::new(layers, &variables)?;
    network.parameters().require("norm.weight")?.var().set(&(Tensor::ones(16, DType::F32, &Device::Cpu)? * 0.25)?)?;
    let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::adam()), 3);
    let rewind = Rewind { rule: ResetRule::Fasterai2022, reset_end: true, ..Rewind::to_epoch(0) };
    let config = PruningConfig { rewind: Some(rewind), ranks: vec![2], ..PruningConfig::new(half()) };
    trainer.fit(&FitConfig::new(2), &data(), &mut [&mut Pruning::new(config)])?;
    assert!(bits(trainer.network(), "norm.weight").into_iter().all(|bits| f32::from_bits(bits) == 0.25));
    Ok(())
}
