//! A stock transformer of candle-transformers, its linear layers pruned 2:4: nothing of the model has to change.
//!
//! `cargo run -p parity --example prune_transformer`
//!
//! The weights are random: what is shown is that the pattern holds and the model runs, not what it knows.
#![allow(clippy::print_stdout)] // an example talks to its reader

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::bert::{BertModel, Config};
use lth_criteria::{LargeFinal, NamedInputs, score_all};
use lth_mask::{Granularity, MaskSet, Selection, select};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn main() -> Result<()> {
    // BERT as candle-transformers has it, in the size of MiniLM-L6, on variables that are filled from a seed.
    let config = Config {
        hidden_size: 384,
        num_hidden_layers: 6,
        intermediate_size: 1536,
        vocab_size: 1000,
        ..Config::default()
    };
    let varmap = VarMap::new();
    let model = BertModel::load(VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu), &config)?;
    fill(&varmap, 42)?;
    let tokens = Tensor::new(&[[101u32, 17, 389, 52, 640, 102]], &Device::Cpu)?;
    let dense = model.forward(&tokens, &tokens.zeros_like()?, None)?;

    // The linear layers' weights: all matrices but the embeddings.
    let variables: BTreeMap<_, _> =
        varmap.data().lock().ok().context("the map's lock is poisoned")?.clone().into_iter().collect();
    let weights: BTreeMap<String, Tensor> = variables
        .iter()
        .filter(|(name, variable)| variable.rank() == 2 && name.starts_with("encoder."))
        .map(|(name, variable)| (name.clone(), variable.as_tensor().clone()))
        .collect();
    let scores = score_all(&LargeFinal, &NamedInputs::of(&weights))?;
    let selection = Selection { granularity: Granularity::NM { n: 2, m: 4 }, ..Selection::default() };
    let masks = select(&scores, 0.5, &selection)?;
    masks.apply_in_place(weights.iter().map(|(name, weight)| (name.as_str(), weight)))?;

    println!("{}", masks.stats());
    let n_groups = check_pattern(&weights, &masks)?;
    println!("Each of {n_groups} groups of four inputs keeps its two largest weights.");

    // The model sees the pruned variables at once.
    let pruned = model.forward(&tokens, &tokens.zeros_like()?, None)?;
    let change = ((&pruned - &dense)?.sqr()?.sum_all()? / dense.sqr()?.sum_all()?)?.sqrt()?.to_scalar::<f32>()?;
    ensure!(change.is_finite() && change > 0., "the output is off by {change}");
    println!("Output {:?}; relative to the dense one's it moved by {change:.3}.", pruned.dims());
    Ok(())
}

/// Sets every variable to values from the seed: candle's own generator takes none on the CPU.
fn fill(varmap: &VarMap, seed: u64) -> Result<()> {
    let variables: BTreeMap<_, _> =
        varmap.data().lock().ok().context("the map's lock is poisoned")?.clone().into_iter().collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for (name, variable) in &variables {
        let is_norm = name.contains("LayerNorm");
        let values = (0..variable.elem_count()).map(|_| match variable.rank() {
            1 if is_norm && name.ends_with("weight") => 1.,
            1 => 0.,
            _ => random.random_range(-0.05f32..0.05),
        });
        variable.set(&Tensor::from_iter(values, &Device::Cpu)?.reshape(variable.dims())?)?;
    }
    Ok(())
}

/// Looks at every group of four along the inputs, in the weights themselves; gives their number.
fn check_pattern(weights: &BTreeMap<String, Tensor>, masks: &MaskSet) -> Result<usize> {
    let mut n_groups = 0;
    for (name, weight) in weights {
        let mask = masks.get(name).with_context(|| format!("`{name}` has no mask"))?;
        let rows = weight.to_vec2::<f32>()?;
        for (index, group) in rows.iter().flat_map(|row| row.chunks(4)).enumerate() {
            let n_kept = group.iter().filter(|value| **value != 0.).count();
            let in_mask = (4 * index..4 * index + 4).filter(|&at| mask.get(at) == Some(true)).count();
            ensure!(group.len() == 4 && n_kept == 2 && in_mask == 2, "group {index} of `{name}` is {group:?}");
            n_groups += 1;
        }
    }
    Ok(n_groups)
}
