//! Your own candle model, pruned in ten lines: nothing of it has to change.
//!
//! `cargo run --example prune_your_model`
#![allow(clippy::print_stdout)] // an example talks to its reader

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{AdamW, Module, Optimizer, ParamsAdamW, Sequential, VarBuilder, VarMap, linear, seq};
use lth_criteria::{LargeFinal, NamedInputs, score_all};
use lth_data::digits::Digits;
use lth_mask::{MaskSet, Scope, Selection, select};

fn main() -> Result<()> {
    // A model as anyone would write it, trained as anyone would train it.
    let varmap = VarMap::new();
    let model = model(&VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu))?;
    let (train, test) = Digits::load()?.split(0.2, 42);
    let (train, test) = (train.tensors(&Device::Cpu)?, test.tensors(&Device::Cpu)?);
    fit(&model, &varmap, &train, 40, None)?;
    println!("trained:    {:5.1} % of the test digits are right", accuracy(&model, &test)?);

    // Ten lines prune it: name the weights, score them, cut the masks, apply them.
    let variables = varmap.data().lock().ok().context("the map's lock is poisoned")?.clone();
    let weights: BTreeMap<String, Tensor> = variables
        .into_iter()
        .filter(|(_, variable)| variable.rank() >= 2)
        .map(|(name, variable)| (name, variable.as_tensor().clone()))
        .collect();
    let scores = score_all(&LargeFinal, &NamedInputs::of(&weights))?;
    let masks = select(&scores, 0.9, &Selection { scope: Scope::Global, ..Selection::default() })?;
    masks.apply_in_place(weights.iter().map(|(name, weight)| (name.as_str(), weight)))?;

    println!("pruned:     {:5.1} %", accuracy(&model, &test)?);
    println!("\n{}", masks.stats());

    // Fine-tuning: after each step the masks are applied again, so that what was pruned stays exactly 0.
    fit(&model, &varmap, &train, 40, Some(&masks))?;
    println!("fine-tuned: {:5.1} %", accuracy(&model, &test)?);
    let zeros = MaskSet::from_nonzero(&weights)?.zeros();
    anyhow::ensure!(zeros >= masks.zeros(), "{zeros} weights are 0, {} were pruned", masks.zeros());
    println!("{zeros} weights are exactly 0.");
    Ok(())
}

fn model(builder: &VarBuilder<'_>) -> Result<Sequential> {
    let (hidden, last) = (linear(64, 100, builder.pp("hidden"))?, linear(100, 10, builder.pp("last"))?);
    Ok(seq().add(hidden).add_fn(Tensor::relu).add(last))
}

fn fit(
    model: &Sequential,
    varmap: &VarMap,
    (x, y): &(Tensor, Tensor),
    n_steps: usize,
    masks: Option<&MaskSet>,
) -> Result<()> {
    let mut optimizer = AdamW::new(varmap.all_vars(), ParamsAdamW { lr: 0.01, ..ParamsAdamW::default() })?;
    let variables: BTreeMap<String, Var> =
        varmap.data().lock().ok().context("the map's lock is poisoned")?.clone().into_iter().collect();
    for _ in 0..n_steps {
        optimizer.backward_step(&candle_nn::loss::cross_entropy(&model.forward(x)?, y)?)?;
        if let Some(masks) = masks {
            masks.apply_in_place(variables.iter().map(|(name, variable)| (name.as_str(), variable.as_tensor())))?;
        }
    }
    Ok(())
}

fn accuracy(model: &Sequential, (x, y): &(Tensor, Tensor)) -> Result<f32> {
    let right = model.forward(x)?.argmax(D::Minus1)?.eq(y)?;
    Ok(100. * right.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?)
}
