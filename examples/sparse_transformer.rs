//! A small vision transformer, built from a candle `VarBuilder`, trained dense and then fine-tuned sparse.
//!
//! `cargo run --example sparse_transformer`
//!
//! Its norms and attention are `lth_nn::transformer`'s: with candle-nn's, which have no backward pass, only the last layer
//! would train. Its linear layers are `lth_nn::drop_in`'s, which compute with the kept weights alone. The example checks its gradients, and that every tensor moves.
#![allow(clippy::print_stdout)] // an example talks to its reader

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{VarBuilder, VarMap};
use lth_data::digits::{Digits, SIDE};
use lth_mask::{Scope, Selection};
use lth_nn::drop_in::{Linear, linear};
use lth_nn::seeded_builder;
use lth_nn::transformer::{AttentionConfig, LayerNorm, MultiHeadAttention, layer_norm, multi_head_attention};
use lth_schedule::{Moment, Schedule, Sparsity, SparsitySchedule, Window};
use lth_ticket::{Pruning, PruningConfig, layer_records};
use lth_train::{
    Data, FitConfig, Hook, ModuleNetwork, Network, Optimizer, OptimizerConfig, Record, Trainer, Verdict,
    check_gradients,
};

const SEED: u64 = 42;
const SPARSITY_PERCENT: f64 = 80.0;
const BATCH: usize = 32;
/// The weights to prune: linear layers', not the embedding of positions, which has rank 3.
const RANKS: [usize; 1] = [2];

const SIZE: usize = 32;
const N_HEADS: usize = 4;
const N_BLOCKS: usize = 2;
/// Side of a patch: a digit of 8×8 becomes 16 tokens of 4 values.
const PATCH: usize = 2;

/// A block before whose parts the values are normalised.
struct Block {
    attention_norm: LayerNorm,
    attention: MultiHeadAttention,
    wide_norm: LayerNorm,
    wide: Linear,
    narrow: Linear,
}

impl Block {
    fn new(builder: &VarBuilder<'_>) -> candle_core::Result<Self> {
        Ok(Self {
            attention_norm: layer_norm(SIZE, 1e-5, builder.pp("attention_norm"))?,
            attention: multi_head_attention(SIZE, &AttentionConfig::new(N_HEADS), builder.pp("attention"))?,
            wide_norm: layer_norm(SIZE, 1e-5, builder.pp("wide_norm"))?,
            wide: linear(SIZE, 2 * SIZE, builder.pp("wide"))?,
            narrow: linear(2 * SIZE, SIZE, builder.pp("narrow"))?,
        })
    }
}

impl Module for Block {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = (x + self.attention.forward(&self.attention_norm.forward(x)?, None)?)?;
        let wide = self.wide.forward(&self.wide_norm.forward(&x)?)?.gelu_erf()?;
        x + self.narrow.forward(&wide)?
    }
}

struct Transformer {
    patches: Linear,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Transformer {
    fn new(builder: &VarBuilder<'_>) -> candle_core::Result<Self> {
        let n_patches = (SIDE / PATCH) * (SIDE / PATCH);
        Ok(Self {
            patches: linear(PATCH * PATCH, SIZE, builder.pp("patches"))?,
            positions: builder.get_with_hints(
                (1, n_patches, SIZE),
                "positions",
                candle_nn::Init::Randn { mean: 0.0, stdev: 0.02 },
            )?,
            blocks: (0..N_BLOCKS).map(|i| Block::new(&builder.pp(format!("blocks.{i}")))).collect::<Result<_, _>>()?,
            norm: layer_norm(SIZE, 1e-5, builder.pp("norm"))?,
            head: linear(SIZE, 10, builder.pp("head"))?,
        })
    }
}

impl Module for Transformer {
    /// Logits `[N, 10]` for digits `[N, 64]`.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (n, side) = (x.dim(0)?, SIDE / PATCH);
        let patches =
            x.reshape((n, side, PATCH, side, PATCH))?.transpose(2, 3)?.reshape((n, side * side, PATCH * PATCH))?;
        let mut x = self.patches.forward(&patches)?.broadcast_add(&self.positions)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.head.forward(&self.norm.forward(&x)?.mean(1)?)
    }
}

fn main() -> Result<()> {
    fine_tuned().map(|_| ())
}

/// The sparsity reached and the last epoch's accuracy.
fn fine_tuned() -> Result<(f64, f64)> {
    let variables = VarMap::new();
    // As candle's `VarBuilder::from_varmap`, from a seed.
    let model = Transformer::new(&seeded_builder(&variables, SEED, DType::F32, &Device::Cpu))?;
    let network = ModuleNetwork::new(model, &variables)?;

    let (train, valid) = Digits::load()?.split(0.2, SEED);
    let (train, valid) = (train.tensors(&Device::Cpu)?, valid.tensors(&Device::Cpu)?);
    let few = (train.0.narrow(0, 0, 8)?, train.1.narrow(0, 0, 8)?);
    let checked = check_gradients(&network, &few)?;
    let certain = checked.parameters.iter().filter(|one| one.verdict == Verdict::Agrees).count();
    println!(
        "No gradient of {} tensors is wrong; {certain} are surely those of finite differences.\n",
        checked.parameters.len()
    );

    let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::adam()), SEED);
    println!("Dense, from random weights:");
    fit(&mut trainer, (&train, &valid), 6, &mut [])?;

    println!("\nFine-tuned, the smallest weights of all layers together cut little by little to {SPARSITY_PERCENT} %:");
    let before = trainer.network().parameters().snapshot(|_, _| true)?;
    let schedule = SparsitySchedule {
        window: Window::new(Moment::epoch(0), Moment::epoch(2))?,
        ..SparsitySchedule::to(Sparsity::from_percent(SPARSITY_PERCENT)?, Schedule::iterative(6)?)
    };
    let mut pruning = Pruning::new(PruningConfig {
        selection: Selection { scope: Scope::Global, ..Selection::default() },
        ranks: RANKS.to_vec(),
        ..PruningConfig::new(schedule)
    });
    let last = fit(&mut trainer, (&train, &valid), 5, &mut [&mut pruning])?;

    let parameters = trainer.network().parameters();
    for (name, before) in &before {
        let now = parameters.require(name)?.var().as_tensor();
        let moved = (now - before)?.abs()?.max_all()?.to_scalar::<f32>()?;
        ensure!(moved > 0.0, "`{name}` did not move");
    }
    println!("\nAll {} tensors moved. What is left of the linear layers:", before.len());
    let layers = layer_records(parameters, &RANKS)?;
    for layer in &layers {
        println!("   {:30} {:5} weights, {:5} zeros", layer.name, layer.weights, layer.zeros);
    }
    let (zeros, weights) = layers.iter().fold((0, 0), |(z, w), layer| (z + layer.zeros, w + layer.weights));
    let sparsity = zeros as f64 / weights as f64;
    println!("Sparsity: {:.1} % of {weights} weights are exactly 0.", 100.0 * sparsity);
    Ok((sparsity, last.accuracy().context("the fit validates")?))
}

/// Trains on batches in the data's order, prints an epoch a line, and gives the last one's figures.
fn fit(
    trainer: &mut Trainer<ModuleNetwork<Transformer>>,
    (train, valid): (&(Tensor, Tensor), &(Tensor, Tensor)),
    n_epochs: usize,
    hooks: &mut [&mut dyn Hook],
) -> Result<Record> {
    let n_train_batches = train.1.dim(0)? / BATCH;
    let batch = |at: usize| {
        Ok::<_, candle_core::Error>((train.0.narrow(0, at * BATCH, BATCH)?, train.1.narrow(0, at * BATCH, BATCH)?))
    };
    let data = Data {
        train: |_epoch| (0..n_train_batches).map(batch),
        n_train_batches,
        valid: || std::iter::once(Ok::<_, candle_core::Error>(valid.clone())),
    };
    let config = FitConfig { learning_rate: &|progress| 4e-3 * (1.0 - progress), ..FitConfig::new(n_epochs) };
    let fitted = trainer.fit(&config, &data, hooks)?;
    for record in &fitted.history {
        let (loss, accuracy) = (record.valid_loss.unwrap_or(f64::NAN), record.accuracy().unwrap_or(f64::NAN));
        println!(
            "   epoch {:2}   loss {:.3} (validation {loss:.3})   accuracy {:5.1} %",
            record.epoch,
            record.train_loss,
            100.0 * accuracy
        );
    }
    fitted.last().cloned().context("no epoch was asked for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transformer_trains_whole_and_sparse() -> Result<()> {
        let (sparsity, accuracy) = fine_tuned()?;
        assert!((sparsity - SPARSITY_PERCENT / 100.0).abs() < 1e-3, "{sparsity}");
        assert!(accuracy > 0.85, "{accuracy}");
        Ok(())
    }
}
