//! Linear layers as language models have them, and a block of the shape of Llama's: prompts (prefill) and single tokens
//! (decode).

use std::hint::black_box;
use std::time::Instant;

use candle_core::{D, DType, Device, Module, Tensor};
use lth_kernels::{PackedLinear, Pattern, in_pool};
use lth_nn::transformer::{RmsNorm, Rotary, attention, causal_mask};

use super::options::Options;
use super::ours::{noise, uniform_masks};
use super::report::{LanguageRow, spread};
use lth_cli::console::Console;

/// Inputs and outputs of the single layer: an attention projection of a model of 7 billion weights.
const WIDTH: usize = 4096;
/// Rows (tokens of all texts) that the single layer is given.
const ROWS: [usize; 7] = [1, 2, 4, 8, 15, 16, 64];

/// Sizes of the block: those of Llama 3.2 1B.
const SIZE: usize = 2048;
const N_HEADS: usize = 32;
const N_KV_HEADS: usize = 8;
const HEAD: usize = SIZE / N_HEADS;
const HIDDEN: usize = 8192;
/// Tokens of a prompt, and those that are there already when one more is made.
const PROMPTS: [usize; 2] = [16, 64];
const CONTEXT: usize = 127;

/// Milliseconds of a turn, about: short steps are repeated within it.
const TURN_MS: f64 = 20.0;

/// Who multiplies: candle, or ours at a sparsity (0 = dense).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Engine {
    Candle,
    Ours(f64),
}

enum Linear {
    Candle(Tensor),
    Ours(PackedLinear),
}

impl Linear {
    fn new(engine: Engine, [outputs, inputs]: [usize; 2], seed: u64) -> anyhow::Result<Self> {
        // Sums of so many products stay of the inputs' size.
        let weight = (noise(&[outputs, inputs], seed)? * (inputs as f64).sqrt().recip())?;
        let pattern = match engine {
            Engine::Candle => return Ok(Self::Candle(weight.t()?)),
            Engine::Ours(sparsity) if sparsity > 0.0 => {
                let masks = uniform_masks([("weight", weight.dims())], sparsity)?;
                let mask = masks.get("weight").map(|mask| mask.to_tensor(&Device::Cpu)).transpose()?;
                mask.map(|mask| Pattern::new(&mask)).transpose()?
            }
            Engine::Ours(_) => None,
        };
        Ok(Self::Ours(PackedLinear::new(&weight, None, pattern.as_ref(), false)?))
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Candle(weight) => x.matmul(weight),
            Self::Ours(layer) => layer.forward(x),
        }
    }
}

/// Attention with grouped keys and values, and a gated feed-forward part, each behind a norm and beside a residual.
///
/// Source: Touvron et al. 2023; grouped: Ainslie et al. 2023.
struct Block {
    /// `q`, `k`, `v`, `o`.
    projections: [Linear; 4],
    /// `gate`, `up`, `down`.
    feed_forward: [Linear; 3],
    norms: [RmsNorm; 2],
    rotary: Rotary,
    /// Keys and values `[N_KV_HEADS, CONTEXT, HEAD]` of the tokens before.
    context: [Tensor; 2],
}

impl Block {
    fn new(engine: Engine) -> anyhow::Result<Self> {
        let kv = N_KV_HEADS * HEAD;
        let linear = |shape, seed| Linear::new(engine, shape, seed);
        let norm = || anyhow::Ok(RmsNorm::new(Tensor::ones(SIZE, DType::F32, &Device::Cpu)?, 1e-5));
        let context = |seed| noise(&[N_KV_HEADS, CONTEXT, HEAD], seed);
        Ok(Self {
            projections: [
                linear([SIZE, SIZE], 1)?,
                linear([kv, SIZE], 2)?,
                linear([kv, SIZE], 3)?,
                linear([SIZE, SIZE], 4)?,
            ],
            feed_forward: [linear([HIDDEN, SIZE], 5)?, linear([HIDDEN, SIZE], 6)?, linear([SIZE, HIDDEN], 7)?],
            norms: [norm()?, norm()?],
            rotary: Rotary::new(HEAD, CONTEXT + 1, 500_000.0, &Device::Cpu)?,
            context: [context(8)?, context(9)?],
        })
    }

    /// `[T, SIZE]` for the tokens `x` `[T, SIZE]` of a prompt, or for one token behind the context.
    fn forward(&self, x: &Tensor, is_decode: bool) -> candle_core::Result<Tensor> {
        let n_tokens = x.dim(0)?;
        let first = if is_decode { CONTEXT } else { 0 };
        let [q, k, v, o] = &self.projections;
        let normed = self.norms[0].forward(x)?;
        let heads = |linear: &Linear, n: usize| {
            linear.forward(&normed)?.reshape((n_tokens, n, HEAD))?.transpose(0, 1)?.contiguous()
        };
        let query = self.rotary.turn(&heads(q, N_HEADS)?, first)?;
        let mut keys = self.rotary.turn(&heads(k, N_KV_HEADS)?, first)?;
        let mut values = heads(v, N_KV_HEADS)?;
        if is_decode {
            keys = Tensor::cat(&[&self.context[0], &keys], 1)?;
            values = Tensor::cat(&[&self.context[1], &values], 1)?;
        }
        // Each group of query heads has its keys and values in common: rows of one matrix.
        let grouped = query.reshape((N_KV_HEADS, N_HEADS / N_KV_HEADS * n_tokens, HEAD))?;
        let mask = if is_decode {
            None
        } else {
            Some(causal_mask(n_tokens, &Device::Cpu)?.repeat((N_HEADS / N_KV_HEADS, 1))?)
        };
        let mixed = attention(&grouped, &keys, &values, mask.as_ref())?.reshape((N_HEADS, n_tokens, HEAD))?;
        let mixed = mixed.transpose(0, 1)?.contiguous()?.reshape((n_tokens, SIZE))?;
        let x = (x + o.forward(&mixed)?)?;
        let normed = self.norms[1].forward(&x)?;
        let [gate, up, down] = &self.feed_forward;
        let hidden = (gate.forward(&normed)?.silu()? * up.forward(&normed)?)?;
        debug_assert_eq!(hidden.dim(D::Minus1)?, HIDDEN);
        x + down.forward(&hidden)?
    }
}

/// Every engine at every figure.
pub(crate) fn measure(options: &Options, console: &Console) -> anyhow::Result<Vec<LanguageRow>> {
    let mut engines = vec![Engine::Ours(0.0)];
    engines.extend(options.sparsities().into_iter().map(Engine::Ours));
    engines.push(Engine::Candle);
    let bar = console.bar("language", (ROWS.len() + PROMPTS.len() + 1) as u64);
    let mut rows = Vec::new();
    {
        let layers = engines.iter().map(|&engine| Linear::new(engine, [WIDTH, WIDTH], 1));
        let layers = layers.collect::<anyhow::Result<Vec<_>>>()?;
        for n in ROWS {
            let x = noise(&[n, WIDTH], 2)?;
            let what = format!("linear {WIDTH}×{WIDTH}");
            rows.extend(turns(options, &engines, &what, n, |at| layers[at].forward(&x))?);
            bar.inc(1);
        }
    }
    let blocks = engines.iter().map(|&engine| Block::new(engine)).collect::<anyhow::Result<Vec<_>>>()?;
    for (n, is_decode) in [(1, true), (PROMPTS[0], false), (PROMPTS[1], false)] {
        let x = noise(&[n, SIZE], 10)?;
        let what = if is_decode { format!("block, decode after {CONTEXT}") } else { "block, prefill".to_owned() };
        rows.extend(turns(options, &engines, &what, n, |at| blocks[at].forward(&x, is_decode))?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// Rounds in which every engine has its turn; the first fills caches and lists, and does not count.
fn turns(
    options: &Options,
    engines: &[Engine],
    what: &str,
    n_rows: usize,
    forward: impl Fn(usize) -> candle_core::Result<Tensor> + Sync,
) -> anyhow::Result<Vec<LanguageRow>> {
    let timed = |at: usize| -> anyhow::Result<f64> {
        let start = Instant::now();
        black_box(forward(at)?);
        Ok(1e3 * start.elapsed().as_secs_f64())
    };
    let mut times = vec![Vec::new(); engines.len()];
    for round in 0..=options.rounds as usize {
        for turn in 0..engines.len() {
            // Each round starts with another one, so that nobody always follows the same engine.
            let at = (round + turn) % engines.len();
            let work = || {
                let warm_up = timed(at)?;
                let n = (TURN_MS / warm_up).clamp(1.0, 50.0) as usize;
                let all = (0..n).map(|_| timed(at)).collect::<anyhow::Result<Vec<_>>>()?;
                anyhow::Ok(spread(&all).0)
            };
            // Ours as the networks of `lth-nn` run, candle's as its users call it.
            let time = if engines[at] == Engine::Candle { work() } else { in_pool(work) }?;
            if round > 0 {
                times[at].push(time);
            }
        }
    }
    let row = |(engine, times): (&Engine, Vec<f64>)| {
        let (median_ms, min_ms, max_ms) = spread(&times);
        let sparsity = if let Engine::Ours(sparsity) = engine { Some(*sparsity) } else { None };
        LanguageRow { figure: what.to_owned(), n_rows, sparsity, median_ms, min_ms, max_ms }
    };
    Ok(engines.iter().zip(times).map(row).collect())
}
