//! `cargo xtask bench`: how fast training and evaluation are, beside other software in the same run.

mod candle_net;
mod convolutions;
mod fit;
mod language;
mod layers;
mod options;
mod ours;
mod peak;
mod report;
mod toolkit;
mod torch;
mod write;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context;
use lth_kernels::Kernel;

pub(crate) use options::Options;

use self::candle_net::Candle;
use self::options::{Engine, Figure};
use self::ours::{Ours, Spread};
use self::report::{Report, Row, spread};
use self::torch::Torch;
use lth_cli::console::Console;
use lth_cli::failure::{Blame, Result};
use lth_cli::system;

/// Least sparsity at which SparseProp takes part: below, its own rule leaves every layer to PyTorch.
const SPARSEPROP_FROM: f64 = 0.8;

pub(crate) fn run(options: &Options) -> Result {
    system::prepare(Some(if options.fit_cost_model { 1 } else { options.threads }))?;
    if let Some(what) = options.peak_of {
        return peak::run_child(what, options).training();
    }
    let console = Console::new(options.json);
    if options.explain {
        layers::explain(options, &console).training()?;
        return console.finish();
    }
    if options.fit_cost_model {
        fit::run(options, &console).training()?;
        return console.finish();
    }
    let report = match &options.from {
        Some(path) => serde_json::from_slice(&std::fs::read(path).data()?).data()?,
        None => measured(options, &console)?,
    };
    let json = serde_json::to_string_pretty(&report).data()?;
    if let Some(path) = &options.out {
        lth_files::write_atomic(path, |out| writeln!(out, "{json}")).data()?;
    }
    if let Some(path) = &options.write {
        write::write(&report, path)?;
    }
    console.line(report.text().trim_end());
    console.json(&json);
    console.finish()
}

fn measured(options: &Options, console: &Console) -> Result<Report> {
    if options.torch.is_none() {
        console.note("without --torch PYTHON there is no comparison with PyTorch");
    }
    let mut torch = options.torch.as_ref().map(|python| Torch::start(python, options.threads)).transpose().usage()?;
    let mut versions = BTreeMap::from([("lth".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    versions.extend(torch.iter().flat_map(|torch| torch.versions.clone()));

    let mut rows = Vec::new();
    for figure in Figure::NETWORK {
        if options.has(figure) {
            rows.extend(measure(figure, options, &mut torch, console).training()?);
        }
    }
    drop(torch);
    if !options.no_peak {
        let bar = console.bar("peak memory", rows.len() as u64);
        for row in &mut rows {
            let bytes = peak::of(row.figure, row.engine, row.sparsity, options).training()?;
            row.peak_mb = bytes.map(|bytes| (bytes as f64 / 1e5).round() / 10.);
            bar.inc(1);
        }
        bar.finish_and_clear();
    }
    let toolkit = if options.has(Figure::Toolkit) { toolkit::measure(options).training()? } else { Vec::new() };
    let language =
        if options.has(Figure::Language) { language::measure(options, console).training()? } else { Vec::new() };
    let (threads, rounds) = (options.threads, options.rounds);
    Ok(Report { machine: machine(), threads, rounds, versions, rows, language, toolkit })
}

/// The processor, its cores, and the instructions that the kernels use.
fn machine() -> String {
    let processor = system::processor().unwrap_or_else(|| "unknown processor".to_owned());
    let set = format!("{:?}", lth_kernels::InstructionSet::active()).to_uppercase();
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("{processor}, {} cores, {os} {arch}, kernels for {set}", system::n_cores())
}

/// One engine at one sparsity, ready to take turns.
struct Contestant {
    engine: Engine,
    sparsity: f64,
    job: Job,
    times: Vec<f64>,
}

/// Where its steps run.
enum Job {
    Ours(Box<Ours>),
    Candle(Box<Candle>),
    Python(u64),
}

fn measure(
    figure: Figure,
    options: &Options,
    torch: &mut Option<Torch>,
    console: &Console,
) -> anyhow::Result<Vec<Row>> {
    let mut contestants = Vec::new();
    for (engine, sparsity) in entries(figure, options, torch.as_ref()) {
        let job = match (engine, torch.as_mut()) {
            (Engine::Ours | Engine::OursDirect, _) => Job::Ours(Box::new(Ours::new(figure, sparsity, Spread::Even)?)),
            (Engine::OursBlocks, _) => Job::Ours(Box::new(Ours::new(figure, sparsity, Spread::InBlocks)?)),
            (Engine::Candle, _) => Job::Candle(Box::new(Candle::new(figure)?)),
            (_, Some(torch)) => Job::Python(torch.build(figure, engine, sparsity)?),
            (_, None) => continue,
        };
        contestants.push(Contestant { engine, sparsity, job, times: Vec::new() });
    }
    let n = contestants.len();
    let bar = console.bar(figure.name(), n as u64 * u64::from(options.rounds + 1));
    // The first round fills caches, pools and the optimisers' state, and does not count.
    for round in 0..=options.rounds as usize {
        for turn in 0..n {
            // Each round starts with another one, so that nobody always follows the same engine.
            let contestant = &mut contestants[(round + turn) % n];
            bar.set_message(contestant.engine.name());
            let time = contestant.turn(figure.steps(), torch)?;
            if round > 0 {
                contestant.times.push(time);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let mut rows = Vec::new();
    for contestant in contestants {
        if let (Job::Python(id), Some(torch)) = (&contestant.job, torch.as_mut()) {
            torch.drop_job(*id)?;
        }
        let Contestant { engine, sparsity, times, .. } = contestant;
        let (median_ms, min_ms, max_ms) = spread(&times);
        rows.push(Row { figure, engine, sparsity, median_ms, min_ms, max_ms, peak_mb: None });
    }
    Ok(rows)
}

/// Who takes part in a figure.
fn entries(figure: Figure, options: &Options, torch: Option<&Torch>) -> Vec<(Engine, f64)> {
    let sparsities = options.sparsities();
    let mut all = vec![(Engine::Ours, 0.)];
    // One picture has no convolutions by Winograd's algorithm.
    if figure != Figure::EvalB1 {
        all.push((Engine::OursDirect, 0.));
    }
    let spreads = if figure == Figure::TrainConv4 { &[Engine::Ours][..] } else { &[Engine::Ours, Engine::OursBlocks] };
    for &engine in spreads {
        all.extend(sparsities.iter().map(|&sparsity| (engine, sparsity)));
    }
    // Its side of the comparison is a ResNet.
    if !options.no_candle && figure != Figure::TrainConv4 {
        all.push((Engine::Candle, 0.));
    }
    if let Some(torch) = torch {
        all.extend([(Engine::Torch, 0.), (Engine::TorchNhwc, 0.)]);
        // SparseProp vectorises over the batch, and always computes the gradients of its weights.
        if torch.has_sparseprop() && matches!(figure, Figure::TrainAll | Figure::EvalB64) {
            let from = sparsities.iter().filter(|&&sparsity| sparsity >= SPARSEPROP_FROM);
            all.extend(from.map(|&sparsity| (Engine::Sparseprop, sparsity)));
        }
    }
    all
}

impl Contestant {
    /// The median of a turn's timed steps, in milliseconds.
    fn turn(&mut self, (n_warmup, n_samples): (usize, usize), torch: &mut Option<Torch>) -> anyhow::Result<f64> {
        let local = |step: &mut dyn FnMut() -> anyhow::Result<()>| {
            let mut times = Vec::new();
            for i in 0..n_warmup + n_samples {
                let start = Instant::now();
                step()?;
                if i >= n_warmup {
                    times.push(1e3 * start.elapsed().as_secs_f64());
                }
            }
            Ok::<_, anyhow::Error>(times)
        };
        let times = match &mut self.job {
            Job::Ours(ours) if self.engine == Engine::OursDirect => local(&mut || Kernel::Dense.run(|| ours.step()))?,
            Job::Ours(ours) => local(&mut || ours.step())?,
            Job::Candle(candle) => local(&mut || candle.step())?,
            Job::Python(id) => {
                let torch = torch.as_mut().context("a Python job without Python")?;
                torch.turn(*id, (n_warmup, n_samples))?
            }
        };
        Ok(spread(&times).0)
    }
}
