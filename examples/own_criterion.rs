//! A saliency score of your own: implement one trait, and everything that prunes takes it.
//!
//! `cargo run --example own_criterion`
#![allow(clippy::print_stdout)] // an example talks to its reader

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{Device, Tensor};
use lth_criteria::{Checked, Criterion, Error, Inputs, LargeFinal, NamedInputs, Requirements, score_all};
use lth_data::digits::Digits;
use lth_mask::{MaskSet, Selection, select};
use lth_nn::{LeNet, LeNetConfig, Setup};
use lth_train::{Classification, Data, FitConfig, Network, Optimizer, OptimizerConfig, Trainer, evaluate};

/// How much a weight matters beside the others of its row and of its column: |w| / Σ row + |w| / Σ column.
///
/// A row or a column of small weights is not pruned as a whole, as it is under plain magnitude.
/// Source: Zhang et al. 2024, "Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models",
/// equation 2 (relative importance).
struct RelativeImportance;

impl Criterion for RelativeImportance {
    fn name(&self) -> &str {
        "relative_importance"
    }

    /// The weight is enough; a criterion that looks at gradients would say `Requirements::of(&[Input::Gradient])`.
    fn requires(&self) -> Requirements {
        Requirements::NONE
    }

    fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error> {
        // `Checked` hands out what is there and finite, or says by name what is not.
        let checked = Checked::new(self.name(), weight_name, inputs);
        let magnitude = checked.weight()?.abs()?;
        // A filter is a row, whatever its kernel: everything after the first axis is the column's.
        let matrix = magnitude.flatten_from(1)?;
        let tiny = f64::from(f32::MIN_POSITIVE); // a row of zeros scores 0, not 0 / 0
        let by_row = matrix.broadcast_div(&(matrix.sum_keepdim(1)? + tiny)?)?;
        let by_column = matrix.broadcast_div(&(matrix.sum_keepdim(0)? + tiny)?)?;
        checked.finish(&(by_row + by_column)?.reshape(magnitude.shape())?)
    }
}

fn main() -> Result<()> {
    let (train, test) = Digits::load()?.split(0.2, 42);
    let (train, test) = (train.tensors(&Device::Cpu)?, test.tensors(&Device::Cpu)?);
    let network = LeNet::new(&LeNetConfig { inputs: 64, ..LeNetConfig::default() }, &Setup::new(42))?;
    let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::adam()), 42);
    let whole = || std::iter::once(Ok::<_, candle_core::Error>(train.clone()));
    let batches = || std::iter::once(Ok::<_, candle_core::Error>(test.clone()));
    let data = Data { train: |_| whole(), n_train_batches: 1, valid: batches };
    trainer.fit(&FitConfig { learning_rate: &|_| 0.003, ..FitConfig::new(60) }, &data, &mut [])?;
    let parameters = trainer.network().parameters();
    let dense = parameters.snapshot(|_, _| true)?;
    let weights: BTreeMap<String, Tensor> =
        parameters.prunable(&[2]).map(|(name, weight)| (name.to_owned(), weight.var().as_tensor().clone())).collect();

    let accuracy = || -> Result<f64, lth_train::Error> {
        let evaluation = evaluate(trainer.network(), &Classification::default(), batches())?;
        Ok(100. * evaluation.accuracy().unwrap_or(f64::NAN))
    };
    println!("LeNet-300-100 on digits: {:.1} % right. Pruned without training afterwards:\n", accuracy()?);
    println!("sparsity   large_final   relative_importance   weights kept by both of those by either");
    let criteria: [&dyn Criterion; 2] = [&LargeFinal, &RelativeImportance];
    for sparsity in [0.5, 0.8, 0.9, 0.95] {
        let mut results: Vec<(MaskSet, f64)> = Vec::new();
        for criterion in criteria {
            let scores = score_all(criterion, &NamedInputs::of(&weights))?;
            let masks = select(&scores, sparsity, &Selection::default())?;
            parameters.apply_masks(&masks.to_tensors(&Device::Cpu)?)?;
            results.push((masks, accuracy()?));
            parameters.restore(&dense)?;
        }
        let [(ours, by_magnitude), (other, by_importance)] = &results[..] else { continue };
        let both = 100. * ours.overlap(other)?.overall().jaccard();
        println!("{:6.0} %   {by_magnitude:9.1} %   {by_importance:17.1} %   {both:5.1} %", 100. * sparsity);
    }
    Ok(())
}
