//! `cargo xtask reproduce`: the notebook's comparison, run and written down.

mod checked;
mod data;
mod fits;
mod options;
mod seed;

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use candle_core::Device;
use lth_data::download;
use lth_data::{Loader, LoaderConfig, Split};
use lth_runs::{
    ClassRecord, DatasetRecord, Existing, MachineRecord, OptimizerState, RunDir, RunRecord, Summary, report,
};
use lth_ticket::DatasetInfo;

pub(crate) use options::Options;

use crate::console::Console;
use crate::failure::{Blame, Failure, Kind, Result};
use crate::system;
use options::{DeviceName, OptimizerStateName, Settings};
use seed::SeedRun;

/// Share of the pictures that validate.
const VALID_FRACTION: f64 = 0.2;

pub(crate) fn run(options: &Options) -> Result {
    let start = Instant::now();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map(|elapsed| elapsed.as_secs()).ok();
    let settings = options.settings()?;
    let console = Console::new(options.json);
    let device = device(settings.device)?;
    // Feature maps are freed and wanted again at every step.
    lth_kernels::keep_freed_memory();
    let threads = options.threads.map_or_else(system::n_cores, |n| n as usize);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().usage()?;

    // Before any long work: the folder may be refused.
    let mut run_dir = match &options.out {
        Some(path) => RunDir::create(path, if options.force { Existing::Replace } else { Existing::Refuse })
            .map_err(|error| out_failure(error, options.force))?,
        None => RunDir::create_next(Path::new("runs"), settings.dataset.name(), settings.seeds[0]).data()?,
    };
    let dataset = data::open(options, &settings, &console)?;
    let (weights, weights_record) = data::weights(options, &settings, &console)?.unzip();
    console.note(format!("writing to {}", run_dir.path().display()));

    let mut summary = Summary {
        schema: lth_runs::SCHEMA,
        software: concat!("lth ", env!("CARGO_PKG_VERSION")).to_owned(),
        command: command_line(),
        config: serde_json::to_value(&settings).usage()?,
        dataset: dataset.record.clone(),
        weights: weights_record,
        optimizer_state: match settings.optimizer_state {
            OptimizerStateName::Fresh => OptimizerState::Fresh,
            OptimizerStateName::Carried => OptimizerState::Carried,
        },
        machine: Some(MachineRecord {
            device: format!("{:?}", settings.device).to_lowercase(),
            model: system::processor(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            n_threads: threads,
        }),
        started,
        wall_seconds: None,
        peak_memory_bytes: None,
        runs: Vec::new(),
        comparison: None,
    };
    for (index, &seed) in settings.seeds.iter().enumerate() {
        let loader = loader(&dataset, &settings, seed, &device)?;
        if index == 0 {
            count_pictures(&mut summary.dataset, &loader);
        }
        let dataset_info =
            DatasetInfo { name: settings.dataset.name().to_owned(), sha256: dataset.record.checksum.clone() };
        let mut seed_run = SeedRun {
            settings: &settings,
            seed,
            loader: &loader,
            weights: weights.as_ref(),
            dataset: dataset_info,
            device: &device,
            console: &console,
            run_dir: &mut run_dir,
        };
        let runs: &mut Vec<RunRecord> = &mut summary.runs;
        seed_run.run(|record| runs.push(record))?;
        summary.wall_seconds = Some(start.elapsed().as_secs_f64());
        summary.peak_memory_bytes = system::peak_memory();
        // After every seed: what is done is kept even if a later one fails.
        let settled = run_dir.finish(&summary).data()?;
        if index + 1 == settings.seeds.len() {
            tell(&console, &settled, run_dir.path());
            console.json(settled.to_json().data()?.trim_end());
        }
    }
    console.finish()
}

fn device(name: DeviceName) -> Result<Device> {
    // Not "with a feature": no crate of this project has one for it.
    let unusable = |name: &str| format!("cannot use --device {name}, expected --device cpu");
    let opened = match name {
        DeviceName::Cpu => return Ok(Device::Cpu),
        DeviceName::Cuda => Device::new_cuda(0).with_context(|| unusable("cuda")),
        DeviceName::Metal => Device::new_metal(0).with_context(|| unusable("metal")),
    };
    opened.usage()
}

fn out_failure(error: lth_runs::Error, force: bool) -> Failure {
    match error {
        lth_runs::Error::Occupied { .. } if !force => {
            Failure::usage(format!("{error}: choose another --out, or replace the run there with --force"))
        }
        lth_runs::Error::Occupied { .. } | lth_runs::Error::NotAFolder { .. } => Failure::new(Kind::Usage, error),
        _ => Failure::new(Kind::Data, error),
    }
}

fn loader(dataset: &data::Dataset, settings: &Settings, seed: u64, device: &Device) -> Result<Loader> {
    let split = Split::random(dataset.pictures.len(), VALID_FRACTION, seed).data()?;
    if split.valid.is_empty() {
        return Err(Failure::new(
            Kind::Data,
            anyhow::anyhow!("{} pictures are too few: a fifth of them must validate", dataset.pictures.len()),
        ));
    }
    let config =
        LoaderConfig { device: device.clone(), ..LoaderConfig::new(settings.image_size, settings.batch_size, seed) };
    Loader::new(Arc::clone(&dataset.pictures), split, config).usage()
}

fn count_pictures(record: &mut DatasetRecord, loader: &Loader) {
    let split = loader.split();
    (record.n_train, record.n_valid) = (split.train.len() as u64, split.valid.len() as u64);
    let pictures = loader.pictures();
    let count = |indices: &[usize], label: usize| {
        indices.iter().filter(|&&idx| pictures.info(idx).label as usize == label).count() as u64
    };
    record.classes = pictures
        .classes()
        .iter()
        .enumerate()
        .map(|(label, name)| ClassRecord {
            name: name.clone(),
            n_train: count(&split.train, label),
            n_valid: count(&split.valid, label),
        })
        .collect();
}

fn tell(console: &Console, summary: &Summary, folder: &Path) {
    console.line(format!("\n{}", report::overview(summary).trim_end()));
    console.line(format!("\nreport: {}", folder.join("report.md").display()));
}

/// The command line as it was typed, but for the path of the program, and for the user name and password of an address.
fn command_line() -> Vec<String> {
    public_command(std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()))
}

fn public_command(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut command = vec!["cargo".to_owned(), "xtask".to_owned()];
    for argument in arguments {
        // Whatever follows --mirror is meant as an address, even where `http://` is missing.
        let is_address = argument.contains("://") || command.last().is_some_and(|before| before == "--mirror");
        command.push(match argument.strip_prefix("--mirror=") {
            Some(address) => format!("--mirror={}", download::public(address)),
            None if is_address => download::public(&argument),
            None => argument,
        });
    }
    command
}

#[cfg(test)]
mod tests {
    use super::public_command;

    #[test]
    fn a_password_is_no_part_of_the_recorded_command() {
        let of = |text: &str| public_command(text.split(' ').map(str::to_owned))[2..].join(" ");
        for mirror in ["--mirror ", "--mirror="] {
            for address in ["http://me:secret@host/a", "me:secret@host/a", "https://me:sec/ret@host/a"] {
                let said = of(&format!("reproduce {mirror}{address} --seed 1"));
                assert!(said.ends_with("host/a --seed 1") && !said.contains("me:"), "{said}");
            }
        }
        let plain = "reproduce --weights a@b.pth --mirror http://host/a@b --out ftp:a@b";
        assert_eq!(of(plain), plain);
    }
}
