//! A checkpoint of billions of weights: how long pruning it takes, and how much memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use lth_cli::console::Console;
use lth_cli::failure::{Blame, Result};
use lth_cli::share::Share;
use lth_cli::system;
use lth_files::{Dtype, TensorBytes, save_safetensors};
use lth_runs::table::{Align, Table};

/// Writes a checkpoint of a language model's shapes, bf16 noise in several files with an index, prunes it as `lth prune`
/// does, under each scope in a process of its own, and prints the time and the largest resident memory (Linux).
///
/// The folder needs twice the checkpoint's size and is deleted at the end.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask scale                        a billion weights, 2 GB
  cargo xtask scale --billions 3.4 --out /data/scale")]
pub(crate) struct Options {
    /// Weights, in billions
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    billions: f64,
    /// How much of the weights goes: 0.8 or 80%
    #[arg(long, value_name = Share::VALUE_NAME, default_value = "50%")]
    sparsity: Share,
    /// Scopes, as `lth prune` has them
    #[arg(long, value_name = "SCOPE", num_args = 1.., default_values = ["local", "per-output", "erdos-renyi", "global"])]
    scope: Vec<String>,
    /// A folder that does not exist yet
    #[arg(long, value_name = "DIR", default_value = "target/scale")]
    out: PathBuf,
}

/// The sizes of a block of a language model, and of its vocabulary: OpenLLaMA 3B's.
const WIDTH: usize = 3_200;
const HIDDEN: usize = 8_640;
const VOCABULARY: usize = 32_000;

/// The largest file of a checkpoint, in weights.
const SHARD: usize = 1 << 30;

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(false);
    measure(options, &console).data()?;
    console.finish()
}

fn measure(options: &Options, console: &Console) -> anyhow::Result<()> {
    let out = &options.out;
    ensure!(!out.exists(), "{} is already there, expected a folder that is not", out.display());
    ensure!((0.1..=1000.0).contains(&options.billions), "--billions is {}, expected 0.1 to 1000", options.billions);
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let measured = measure_in(out, options, console);
    std::fs::remove_dir_all(out).with_context(|| format!("deleting {}", out.display()))?;
    measured
}

fn measure_in(out: &Path, options: &Options, console: &Console) -> anyhow::Result<()> {
    let shapes = shapes(options.billions);
    let weights: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let largest = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).max().unwrap_or_default();
    let start = Instant::now();
    let index = write(out, shapes)?;
    console.line(format!(
        "{weights} weights in bf16, {} MB, written in {:.0} s; the largest tensor has {} MB, in f32 {} MB; masks {} MB",
        weights * 2 / 1_000_000,
        start.elapsed().as_secs_f64(),
        largest * 2 / 1_000_000,
        largest * 4 / 1_000_000,
        weights / 8_000_000,
    ));
    let columns = [("scope", Align::Left), ("s", Align::Right), ("peak MB", Align::Right), ("pruned, %", Align::Right)];
    let mut table = Table::new(columns);
    for scope in &options.scope {
        let pruned = prune(&index, &out.join("pruned.safetensors"), scope, options.sparsity)?;
        table.push(vec![
            scope.clone(),
            format!("{:.1}", pruned.time.as_secs_f64()),
            (pruned.peak / 1_000_000).to_string(),
            format!("{:.4}", 100.0 * pruned.sparsity),
        ]);
    }
    console.line(table.plain().trim_end());
    Ok(())
}

/// Names and shapes of so many billions of weights, or the least more that whole blocks make.
fn shapes(billions: f64) -> Vec<(String, [usize; 2])> {
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), [VOCABULARY, WIDTH])];
    let block = [
        ("self_attn.q_proj", [WIDTH, WIDTH]),
        ("self_attn.k_proj", [WIDTH, WIDTH]),
        ("self_attn.v_proj", [WIDTH, WIDTH]),
        ("self_attn.o_proj", [WIDTH, WIDTH]),
        ("mlp.gate_proj", [HIDDEN, WIDTH]),
        ("mlp.up_proj", [HIDDEN, WIDTH]),
        ("mlp.down_proj", [WIDTH, HIDDEN]),
    ];
    let mut left = billions * 1e9 - (VOCABULARY * WIDTH) as f64;
    for layer in 0.. {
        if left <= 0.0 {
            break;
        }
        for (name, [rows, columns]) in block {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), [rows, columns]));
            left -= (rows * columns) as f64;
        }
    }
    shapes
}

/// A tensor of noise that is made when it is written.
struct Noise {
    shape: [usize; 2],
    seed: u64,
}

impl TensorBytes for Noise {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        let n: usize = self.shape.iter().product();
        let mut bytes = Vec::with_capacity(2 * n);
        let mut state = self.seed;
        for _ in 0..n {
            // Knuth's MMIX generator. A sign, one of eight exponents below 1 and seven bits: never 0.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bits = (state >> 40) as u16;
            let value = bits & 0x8000 | (119 + (bits >> 7 & 7)) << 7 | bits & 0x7F;
            bytes.extend(value.to_le_bytes());
        }
        Ok(bytes.into())
    }
}

/// Writes the files and their index, whose path comes back.
fn write(out: &Path, shapes: Vec<(String, [usize; 2])>) -> anyhow::Result<PathBuf> {
    let mut shards: Vec<BTreeMap<String, Noise>> = vec![BTreeMap::new()];
    let mut filled = 0;
    for (seed, (name, shape)) in (1..).zip(shapes) {
        let n: usize = shape.iter().product();
        if filled + n > SHARD {
            shards.push(BTreeMap::new());
            filled = 0;
        }
        filled += n;
        if let Some(shard) = shards.last_mut() {
            shard.insert(name, Noise { shape, seed });
        }
    }
    let mut weight_map = BTreeMap::new();
    let n = shards.len();
    for (at, shard) in (1..).zip(shards) {
        let file = format!("model-{at:05}-of-{n:05}.safetensors");
        save_safetensors(&out.join(&file), &shard, &BTreeMap::new())?;
        weight_map.extend(shard.into_keys().map(|name| (name, file.clone())));
    }
    let index = out.join("model.safetensors.index.json");
    let text = serde_json::json!({ "metadata": {}, "weight_map": weight_map }).to_string();
    std::fs::write(&index, text).with_context(|| index.display().to_string())?;
    Ok(index)
}

struct Pruned {
    time: Duration,
    peak: u64,
    sparsity: f64,
}

fn prune(index: &Path, output: &Path, scope: &str, sparsity: Share) -> anyhow::Result<Pruned> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command.arg("prune").arg(index).arg(output);
    command.args(["--scope", scope, "--sparsity", &sparsity.0.to_string(), "--json", "--force"]);
    let start = Instant::now();
    let child = command.stdout(Stdio::piped()).spawn().context("starting this program")?;
    let process = child.id().to_string();
    let watch = std::thread::spawn(move || {
        let mut peak = 0;
        // Only a process that runs has a size; what is seen last is its largest.
        while let Some(bytes) = system::peak_memory_of(&process) {
            peak = bytes;
            std::thread::sleep(Duration::from_millis(10));
        }
        peak
    });
    let output = child.wait_with_output().context("waiting for lth prune")?;
    let time = start.elapsed();
    ensure!(output.status.success(), "lth prune --scope {scope}: {}", output.status);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let peak = watch.join().map_err(|_| anyhow::anyhow!("the thread that watches the memory ended"))?;
    Ok(Pruned { time, peak, sparsity: report["sparsity"].as_f64().context("no sparsity in the report")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_no_zero_and_the_bytes_of_its_shape() -> io::Result<()> {
        let noise = Noise { shape: [300, 7], seed: 3 };
        let bytes = noise.bytes()?;
        assert_eq!(bytes.len(), 2 * 2100);
        let value = |pair: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16);
        assert!(bytes.chunks(2).map(value).all(|value| value != 0.0 && value.abs() < 1.0));
        Ok(())
    }

    #[test]
    fn blocks_are_whole_and_as_many_as_asked_for() {
        let of = |billions| shapes(billions).iter().map(|(_, [a, b])| a * b).sum::<usize>() as f64 / 1e9;
        assert!((1.0..1.2).contains(&of(1.0)) && (3.4..3.6).contains(&of(3.4)), "{} {}", of(1.0), of(3.4));
    }
}
