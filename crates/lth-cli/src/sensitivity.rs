//! `lth sensitivity`: which layers of a trained network can be pruned, and how far.

use std::path::PathBuf;

use anyhow::Context;
use candle_core::Device;
use clap::{Args, ValueEnum};
use lth_data::{DatasetName, DatasetSpec, Loader, LoaderConfig, Normalisation};
use lth_experiment::plan::Levels;
use lth_experiment::{Examples, Experiment, Parts};
use lth_mask::{Granularity, Selection};
use lth_nn::{NamedNetwork, NetworkName, NetworkSpec, Part, Setup, Weights};
use lth_runs::sensitivity::{PartRecord, SensitivityPoint, SensitivityRecord};
use lth_runs::{Address, Summary};
use lth_schedule::Sparsity;
use lth_ticket::Ticket;
use lth_train::{Classification, Network, evaluate};
use serde::Serialize;

use crate::build::build;
use crate::console::Console;
use crate::failure::{Blame, Failure, Kind, Result};
use crate::share::Share;
use crate::{data, system};

/// Prunes each layer of a trained network alone, without training, and says what that costs on the validation data and how
/// far each layer can be pruned.
///
/// The network is a fit of an experiment of `lth imp`, a trained ticket's file, or plain weights with --network and
/// --dataset. The suggestion is printed as a plan of `lth imp` takes it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth sensitivity runs/lenet-digits-5f0c1a2b --fit dense/0/0
  lth sensitivity trained.safetensors --tolerance 2% --sparsities 50%,80%,90%,95%
  lth sensitivity runs/lenet-digits-5f0c1a2b --by kind --levels 5 --json
  lth sensitivity resnet20.safetensors --network resnet-20 --dataset cifar-10 --data-dir cifar/")]
pub struct Options {
    /// The folder of an experiment, or a file of weights: a trained ticket, safetensors, PyTorch's .pth
    #[arg(value_name = "DIR|FILE")]
    source: PathBuf,
    /// The fit of the experiment: arm/level/seed [default: dense/0/SEED of its first seed]
    #[arg(long, value_name = "ARM/LEVEL/SEED")]
    fit: Option<Address>,
    /// Of plain weights: the network that they are of
    #[arg(long, value_name = "NAME", requires = "dataset", conflicts_with = "fit")]
    network: Option<NetworkName>,
    /// The data set, where the file does not name it
    #[arg(long, value_name = "NAME", conflicts_with = "fit")]
    dataset: Option<DatasetName>,
    /// Seed of the split of the data [default: that of the fit; 42 for plain weights]
    #[arg(long, value_name = "SEED", conflicts_with = "fit")]
    seed: Option<u64>,
    /// How much of a part goes, separated by commas
    #[arg(
        long,
        value_name = "SPARSITY,…",
        value_delimiter = ',',
        default_value = "10%,20%,30%,40%,50%,60%,70%,80%,90%,95%,98%"
    )]
    sparsities: Vec<Sparsity>,
    /// What is pruned alone
    #[arg(long, value_enum, default_value_t = By::Layer)]
    by: By,
    /// How much accuracy a part may lose by the suggestion: 0.01 or 1%
    #[arg(long, value_name = Share::VALUE_NAME, default_value = "1%")]
    tolerance: Share,
    /// Levels over which the suggestion is spread [default: those of the experiment, or 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    levels: Option<u32>,
    /// Saliency score, one of the weights alone
    #[arg(long, value_name = "NAME", default_value = "large_final")]
    criterion: String,
    /// What is pruned as one: weight, filter, kernel, row, …
    #[arg(long, value_name = "GRANULARITY", default_value = "weight")]
    granularity: Granularity,
    #[command(flatten)]
    data: data::SourceOptions,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Folder of sensitivity.json, .html and .md [default: runs/sensitivity-SHA256 of the weights]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print sensitivity.json to standard output, and everything else to standard error
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// Each weight by itself
    Layer,
    /// Convolutions, linear layers, the output layer
    Kind,
}

/// A network with its weights, and the data that it is asked about.
struct Subject {
    spec: NetworkSpec,
    weights: Weights,
    path: PathBuf,
    data: DatasetSpec,
    split_seed: u64,
    /// Of the experiment that it is from.
    n_levels: Option<u32>,
    /// What the weights' own file says that its data hold.
    expected: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(options.json);
    let criterion = lth_criteria::by_name(&options.criterion, 0).usage()?;
    let mut sparsities: Vec<f64> = options.sparsities.iter().map(|sparsity| sparsity.fraction()).collect();
    sparsities.sort_by(f64::total_cmp);
    sparsities.dedup();
    if let Some(wrong) = sparsities.iter().find(|sparsity| !(**sparsity > 0.0 && **sparsity < 1.0)) {
        return Err(Failure::usage(format!("--sparsities has {wrong}, expected more than 0 and less than 1")));
    }
    let mut subject = if options.source.is_dir() { of_experiment(options)? } else { of_file(options)? };
    if let Some(source) = options.data.source() {
        subject.data.source = source;
    }
    system::prepare(options.threads)?;
    let network = subject.network()?;
    let parameters = network.parameters();
    let output = subject.spec.output_weight();
    let ranks = [2, 4];
    let parts: Parts = match options.by {
        By::Layer => lth_experiment::layers_alone(parameters, &ranks),
        By::Kind => lth_experiment::kinds(parameters, &ranks, output),
    };
    let loader = subject.loader(options, &console)?;
    let task = Classification::default();
    let valid = || Examples::valid(&loader);
    let whole = evaluate(&network, &task, valid()).data()?;
    let selection = Selection { granularity: options.granularity.clone(), ..Selection::default() };
    let found = lth_experiment::sensitivity(&network, &task, (&*criterion, &selection), &parts, &sparsities, valid)?;
    let value = |evaluation: &lth_train::Evaluation| evaluation.metrics.get(METRIC).copied();
    let of_whole = value(&whole).context("the network has no accuracy").data()?;
    let tolerance = options.tolerance.0;
    let suggested = lth_experiment::suggested_sparsities(&found, METRIC, of_whole, tolerance);
    let n_levels = options.levels.or(subject.n_levels).unwrap_or(1);
    let levels = match options.by {
        By::Layer => lth_experiment::levels_by_layer(&suggested, n_levels)?,
        By::Kind => lth_experiment::levels_by_kind(&suggested, n_levels, output)?,
    };
    let (sha256, _) = lth_files::sha256_file(&subject.path).data()?;
    let record = SensitivityRecord {
        software: build().software,
        network: subject.spec.name.to_string(),
        weights: subject.path.display().to_string(),
        weights_sha256: sha256,
        dataset: subject.data.name.to_string(),
        on: lth_runs::Part::Validation,
        n_examples: whole.n_examples as u64,
        criterion: criterion.name().to_owned(),
        granularity: options.granularity.to_string(),
        metric: METRIC.to_owned(),
        whole: of_whole,
        tolerance,
        parts: found
            .into_iter()
            .map(|part| PartRecord {
                suggested: suggested.get(&part.part).copied().unwrap_or(0.0),
                name: part.part,
                layers: part.layers,
                n_weights: part.n_weights as u64,
                at: part
                    .at
                    .iter()
                    .filter_map(|(sparsity, evaluation)| {
                        let loss = Some(evaluation.loss).filter(|loss| loss.is_finite());
                        Some(SensitivityPoint { sparsity: *sparsity, value: value(evaluation)?, loss })
                    })
                    .collect(),
            })
            .collect(),
        n_levels,
        plan: pasted(levels)?,
    };
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("runs").join(format!("sensitivity-{}", &record.weights_sha256[..8])));
    let files = record.files().data()?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display())).data()?;
    for (name, text) in &files {
        lth_files::write_atomic(&out.join(name), |file| file.write_all(text.as_bytes())).data()?;
    }
    console.line(format!(
        "{} on {}: {:.2} % {METRIC}; points lost with one part pruned to",
        record.network,
        record.dataset,
        100.0 * of_whole
    ));
    console.line(record.table().plain());
    console.line(format!("suggested, in place of imp.pruning.levels of a plan of lth imp:\n\n{}", record.plan));
    console.line(format!("report: {}", out.join("sensitivity.html").display()));
    console.json(files[0].1.trim_end());
    console.finish()
}

const METRIC: &str = "accuracy";
/// Examples that go through the network at once; it changes no result.
const BATCH: usize = 256;

/// A fit of an experiment that `lth imp` has run.
fn of_experiment(options: &Options) -> Result<Subject> {
    if options.network.is_some() || options.dataset.is_some() {
        return Err(Failure::usage("an experiment names its network and data: leave --network and --dataset out"));
    }
    let folder = &options.source;
    let summary = Summary::read(&folder.join("summary.json")).data()?;
    if summary.experiment.name != "imp" {
        return Err(Failure::usage(format!(
            "{} is an experiment of kind `{}`, expected one of `imp`: name the file of a trained network",
            folder.display(),
            summary.experiment.name
        )));
    }
    let experiment: Experiment = serde_json::from_value(summary.experiment.config.clone())
        .with_context(|| format!("the configuration of {} cannot be read", folder.display()))
        .data()?;
    let address = match &options.fit {
        Some(address) => address.clone(),
        None => Address::new("dense", 0, summary.seeds().first().copied().unwrap_or(0)),
    };
    let fit = summary.fit(&address).ok_or_else(|| {
        let known: Vec<String> = summary.fits.iter().take(12).map(|fit| fit.address.to_string()).collect();
        Failure::usage(format!("--fit is {address}, expected a fit of {}: {}, …", folder.display(), known.join(", ")))
    })?;
    let file = fit.files.get("trained").ok_or_else(|| {
        let known: Vec<String> = summary
            .fits
            .iter()
            .filter(|fit| fit.files.contains_key("trained"))
            .take(12)
            .map(|fit| fit.address.to_string())
            .collect();
        Failure::usage(format!("--fit is {address}, whose weights were not kept, expected one of {}", known.join(", ")))
    })?;
    let path = folder.join(&file.path);
    let Ticket { tensors, .. } = Ticket::read_trained(&path, &Device::Cpu).data()?;
    Ok(Subject {
        weights: Weights { tensors, ..Weights::default() },
        path,
        split_seed: experiment.split_seed(address.seed),
        n_levels: Some(experiment.imp.n_levels.max(1)),
        expected: summary.dataset.checksum,
        spec: experiment.network,
        data: experiment.data,
    })
}

/// A trained ticket's file, or plain weights with the names of network and data.
fn of_file(options: &Options) -> Result<Subject> {
    if options.fit.is_some() {
        return Err(Failure::usage(format!(
            "--fit names a fit of an experiment, and {} is no folder",
            options.source.display()
        )));
    }
    let path = options.source.clone();
    if let (Some(network), Some(dataset)) = (options.network, options.dataset) {
        let Experiment { network: spec, data, .. } = lth_experiment::from_recipe(network, dataset).usage()?;
        let (weights, split_seed) = (Weights::read(&path).data()?, options.seed.unwrap_or(42));
        return Ok(Subject { spec, weights, path, data, split_seed, n_levels: None, expected: None });
    }
    let Ticket { header, tensors, .. } = match Ticket::read_trained(&path, &Device::Cpu) {
        Err(error @ lth_ticket::Error::Damaged { .. }) => {
            let hint = "of plain weights name --network and --dataset";
            return Err(Failure::new(Kind::Data, anyhow::anyhow!("{error}; {hint}")));
        }
        read => read.data()?,
    };
    let of_file = || path.display().to_string();
    let info = header.network;
    let name = match options.dataset {
        Some(name) => name,
        None => header.dataset.name.parse().with_context(of_file).data()?,
    };
    let mut data = DatasetSpec::new(name);
    if let Some(preprocessing) = &info.preprocessing {
        data.normalisation = Normalisation { mean: preprocessing.mean.clone(), std: preprocessing.std.clone() };
    }
    if let [_, height, _] = info.input[..] {
        data.image_size = height;
    }
    let spec = NetworkSpec {
        name: info.name.parse().with_context(of_file).data()?,
        head: info.head.as_deref().map(str::parse).transpose().with_context(of_file).data()?,
        n_outputs: info.n_outputs,
        input: info.input,
    };
    Ok(Subject {
        spec,
        weights: Weights { tensors, ..Weights::default() },
        path,
        data,
        split_seed: options.seed.unwrap_or(header.seed),
        n_levels: None,
        expected: header.dataset.sha256,
    })
}

impl Subject {
    fn network(&self) -> Result<Box<dyn NamedNetwork>> {
        let network = self.spec.build(&Setup::new(0)).usage()?;
        self.weights.load_into(network.parameters(), Part::All).data()?;
        Ok(network)
    }

    fn loader(&self, options: &Options, console: &Console) -> Result<Loader> {
        self.data.check().usage()?;
        let dataset = data::open(&self.data, self.split_seed, options.data.skip_damaged, console)?;
        let n_classes = dataset.pictures.classes().len();
        if n_classes != self.spec.n_outputs {
            return Err(Failure::usage(format!(
                "the network has {} outputs, expected {n_classes}, the classes of the data set `{}`",
                self.spec.n_outputs, self.data.name
            )));
        }
        if dataset.split.valid.is_empty() {
            return Err(Failure::usage(format!("the data set `{}` has no validation examples", self.data.name)));
        }
        if let Some(expected) =
            self.expected.as_ref().filter(|expected| **expected != dataset.provenance.content_sha256)
        {
            console.note(format!(
                "these are not the data that the network was trained with, which have SHA-256 {expected}"
            ));
        }
        let config = LoaderConfig {
            valid_batch_size: BATCH,
            ..self.data.loader_config(BATCH.min(dataset.split.train.len()), self.split_seed)
        };
        Loader::new(dataset.pictures, dataset.split, config).data()
    }
}

/// The levels as the plan's file has them.
fn pasted(levels: Levels) -> Result<String> {
    #[derive(Serialize)]
    struct Plan {
        imp: Imp,
    }
    #[derive(Serialize)]
    struct Imp {
        pruning: Pruning,
    }
    #[derive(Serialize)]
    struct Pruning {
        levels: Levels,
    }
    toml::to_string(&Plan { imp: Imp { pruning: Pruning { levels } } }).data()
}
