//! What lies between two networks, and what a network minds.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, VarBuilder, VarMap, linear_no_bias};
use lth_criteria::{LargeFinal, Snip};
use lth_experiment::{
    Sensitivity, kinds, layers_alone, levels_by_kind, levels_by_layer, linear_path, preset, sensitivity,
    suggested_sparsities,
};
use lth_mask::Selection;
use lth_train::{BoxError, Evaluation, ModuleNetwork, Network, Regression};

use crate::support::Result;

type Batch = (Tensor, Tensor);

/// One output without bias, its weights, and one example.
fn network(weights: &[f32], x: &[f32], target: f32) -> Result<(ModuleNetwork<Linear>, Batch)> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let network = ModuleNetwork::new(linear_no_bias(weights.len(), 1, builder)?, &variables)?;
    network.parameters().restore(&values(weights)?)?;
    let x = Tensor::from_slice(x, (1, x.len()), &Device::Cpu)?;
    Ok((network, (x, Tensor::new(&[[target]], &Device::Cpu)?)))
}

fn values(weights: &[f32]) -> Result<BTreeMap<String, Tensor>> {
    Ok([("weight".to_owned(), Tensor::from_slice(weights, (1, weights.len()), &Device::Cpu)?)].into())
}

fn now(network: &impl Network) -> Result<Vec<f32>> {
    Ok(network.parameters().require("weight")?.var().flatten_all()?.to_vec1()?)
}

#[test]
fn the_loss_on_the_way_between_two_lines_is_a_parabola() -> Result {
    let (network, batch) = network(&[7.0], &[1.0], 1.0)?;
    let (first, second) = (values(&[0.0])?, values(&[2.0])?);
    let batches = || std::iter::once(Ok::<_, BoxError>(batch.clone()));
    let path = linear_path(&network, &Regression, [&first, &second], 5, batches)?;
    let points: Vec<(f64, f64)> = path.iter().map(|point| (point.position, point.evaluation.loss)).collect();
    // (2p − 1)²
    assert_eq!(points, [(0.0, 1.0), (0.25, 0.25), (0.5, 0.0), (0.75, 0.25), (1.0, 1.0)]);
    assert_eq!(now(&network)?, [7.0]);
    assert!(linear_path(&network, &Regression, [&first, &second], 1, batches).is_err());
    let other = BTreeMap::from([("w".to_owned(), second["weight"].clone())]);
    let error = linear_path(&network, &Regression, [&first, &other], 3, batches).err().ok_or("names differ")?;
    assert_eq!(error.to_string(), "second end of the path is without `weight`, expected the tensors of the first");
    assert_eq!(now(&network)?, [7.0]);
    Ok(())
}

#[test]
fn a_layer_pruned_alone_loses_what_its_small_weights_gave() -> Result {
    let (network, batch) = network(&[3.0, 1.0], &[1.0, 1.0], 4.0)?;
    let batches = || std::iter::once(Ok::<_, BoxError>(batch.clone()));
    let selection = Selection::default();
    let parts = layers_alone(network.parameters(), &[2]);
    let found = sensitivity(&network, &Regression, (&LargeFinal, &selection), &parts, &[0.0, 0.5], batches)?;
    let losses: Vec<(f64, f64)> =
        found[0].at.iter().map(|(sparsity, evaluation)| (*sparsity, evaluation.loss)).collect();
    // The smaller weight is gone: 3 for 4.
    assert_eq!((found[0].part.as_str(), found[0].n_weights, losses), ("weight", 2, vec![(0.0, 0.0), (0.5, 1.0)]));
    assert_eq!(now(&network)?, [3.0, 1.0]);
    let error = sensitivity(&network, &Regression, (&Snip, &selection), &parts, &[0.5], batches).err();
    let error = error.ok_or("SNIP needs gradients")?.to_string();
    assert!(error.starts_with("criterion `snip` needs gradient"), "{error}");
    Ok(())
}

#[test]
fn a_layer_is_pruned_as_far_as_the_tolerance_lets_it() {
    let at = |sparsity: f64, accuracy: f64| {
        let metrics = [("accuracy".to_owned(), accuracy)].into();
        (sparsity, Evaluation { loss: 0.0, metrics, n_examples: 1, right: None })
    };
    let layer = |name: &str, at: Vec<(f64, Evaluation)>| Sensitivity {
        part: name.into(),
        layers: vec![name.into()],
        n_weights: 1,
        at,
    };
    let found = [
        layer("robust", vec![at(0.5, 0.9), at(0.8, 0.89), at(0.9, 0.5)]),
        // What it seems to bear beyond what it does not is chance.
        layer("tender", vec![at(0.8, 0.9), at(0.5, 0.6), at(0.9, 0.1)]),
    ];
    let suggested = suggested_sparsities(&found, "accuracy", 0.9, 0.0101);
    assert_eq!(suggested, BTreeMap::from([("robust".to_owned(), 0.8), ("tender".to_owned(), 0.0)]));
}

#[test]
fn suggested_levels_come_to_the_suggested_sparsities() -> Result {
    let experiment = preset("lenet-digits")?;
    let network = experiment.network.build(&lth_nn::Setup::new(1))?;
    let names = ["fc1.weight", "fc2.weight", "fc3.weight"];
    let alone = layers_alone(network.parameters(), &[2, 4]);
    assert_eq!(alone, names.map(|name| (name.to_owned(), vec![name.to_owned()])).into());
    let by_kind = kinds(network.parameters(), &[2, 4], "fc3.weight");
    let expected = [("linear", &names[..2]), ("output", &names[2..])];
    assert_eq!(
        by_kind,
        expected.map(|(kind, of)| (kind.into(), of.iter().map(|name| (*name).into()).collect())).into()
    );

    let suggested = [("fc1.weight", 0.9), ("fc2.weight", 0.5), ("fc3.weight", 0.0)].map(|(name, s)| (name.into(), s));
    let kinds = BTreeMap::from([("linear".to_owned(), 0.875), ("output".to_owned(), 0.5)]);
    for (levels, expected) in [
        (levels_by_layer(&suggested.into(), 3)?, [0.9, 0.5, 0.0]),
        (levels_by_kind(&kinds, 3, "fc3.weight")?, [0.875, 0.875, 0.5]),
    ] {
        let mut experiment = crate::support::small()?;
        (experiment.imp.n_levels, experiment.imp.training.length) = (3, "2it".parse()?);
        experiment.imp.pruning.levels = levels;
        // As a plan that was pasted together has it.
        let experiment = serde_json::from_str(&serde_json::to_string(&experiment)?)?;
        let folder = tempfile::tempdir()?;
        let (outcome, _) = crate::support::run(&experiment, folder.path())?;
        let last = outcome.records.last().ok_or("no records")?;
        assert_eq!(last.address.to_string(), "ticket/3/7");
        for (layer, expected) in last.layers.iter().zip(expected) {
            let off = (layer.zeros as f64 - expected * layer.weights as f64).abs();
            assert!(off <= 1.0, "{}: {} of {} are 0", layer.name, layer.zeros, layer.weights);
        }
    }
    Ok(())
}
