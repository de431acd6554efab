//! Ticket files, opened by candle-transformers as it opens any checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, ModuleT, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::resnet;
use lth_criteria::{LargeFinal, NamedInputs, score_all};
use lth_mask::{MaskSet, Selection, select};
use lth_nn::{Head, ResNet, ResNetConfig, Setup};
use lth_schedule::{Schedule, Sparsity, SparsitySchedule};
use lth_ticket::{DatasetInfo, NetworkInfo, Preprocessing, PruningInfo, Rewind, Stage, Ticket, TicketHeader};
use lth_train::{Network, Pass};

const CLASSES: usize = 2;
/// Logits are near 1.
const TOLERANCE: f32 = 1e-4;

fn input(n: usize) -> Result<Tensor> {
    let values = (0..n * 3 * 64 * 64).map(|i| (i as f32 * 0.37).sin() * 2.);
    Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape((n, 3, 64, 64))?)
}

/// A network that has seen data, and a file of it at this stage, half of its convolutions' weights pruned.
fn written(head: Head, stage: Stage, path: &Path) -> Result<ResNet> {
    let mut network = ResNet::new(&ResNetConfig::resnet18(CLASSES, head), &Setup::new(11))?;
    for step in 0..2 {
        network.forward(&(input(16)? * (0.5 + step as f64))?, &Pass::train(1, step))?;
    }
    let weights: BTreeMap<String, Tensor> = network
        .parameters()
        .prunable(&[4])
        .map(|(name, weight)| (name.to_owned(), weight.var().as_tensor().clone()))
        .collect();
    let scores = score_all(&LargeFinal, &NamedInputs::of(&weights))?;
    let masks: MaskSet = select(&scores, 0.5, &Selection::fasterai_2021())?;
    let tensors = masks.to_tensors(&Device::Cpu)?;
    network.parameters().apply_masks(&tensors)?;
    network.set_masks(&tensors)?;
    let ticket = Ticket {
        header: TicketHeader {
            stage,
            network: NetworkInfo {
                name: "resnet18".to_owned(),
                head: Some(if head == Head::Fc { "fc" } else { "fastai" }.to_owned()),
                n_outputs: CLASSES,
                input: vec![3, 64, 64],
                preprocessing: Some(Preprocessing { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }),
                class_names: vec!["cat".to_owned(), "dog".to_owned()],
            },
            pruning: Some(PruningInfo {
                criterion: "large_final".to_owned(),
                selection: Selection::fasterai_2021(),
                schedule: SparsitySchedule::to(Sparsity::from_percent(50.)?, Schedule::iterative(3)?),
                sparsity: masks.sparsity(),
                rewind: Some(Rewind::to_epoch(0)),
            }),
            seed: 11,
            dataset: DatasetInfo { name: "none".to_owned(), sha256: None },
            parent: None,
            other: BTreeMap::new(),
        },
        tensors: network.parameters().snapshot(|_, _| true)?,
        masks,
    };
    ticket.write(path)?;
    Ok(network)
}

fn stock(path: &Path) -> Result<VarBuilder<'static>> {
    Ok(VarBuilder::from_buffered_safetensors(std::fs::read(path)?, DType::F32, &Device::Cpu)?)
}

fn assert_close(got: &Tensor, expected: &Tensor) -> Result<()> {
    assert_eq!(got.dims(), expected.dims());
    let largest = |tensor: &Tensor| tensor.abs()?.max_all()?.to_scalar::<f32>();
    let (off, size) = (largest(&(got - expected)?)?, largest(expected)?);
    assert!(size > 0.01, "values of at most {size} show nothing");
    assert!(off <= TOLERANCE, "off by {off}");
    Ok(())
}

#[test]
fn tickets_and_trained_networks_give_their_logits_in_candle_transformers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for stage in [Stage::Trained, Stage::Ticket] {
        let path = folder.path().join("network.safetensors");
        let network = written(Head::Fc, stage, &path)?;
        let stock = resnet::resnet18(CLASSES, stock(&path)?)?;
        for n in [2, 16] {
            let x = input(n)?;
            assert_close(&stock.forward_t(&x, false)?, &network.forward(&x, &Pass::eval())?)?;
        }
    }
    Ok(())
}

#[test]
fn with_fastais_head_the_pooled_features_are_those_of_candle_transformers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for stage in [Stage::Trained, Stage::Ticket] {
        let path = folder.path().join("network.safetensors");
        let network = written(Head::Fastai, stage, &path)?;
        let stock = resnet::resnet18_no_final_layer(stock(&path)?)?;
        let x = input(3)?;
        let features = network.features(&x, &Pass::eval())?;
        assert_eq!(features.dims(), [3, 512]);
        assert_close(&stock.forward_t(&x, false)?, &features)?;
    }
    Ok(())
}
