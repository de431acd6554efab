//! A ticket found, written, read back and looked at, in seconds.
//!
//! `cargo run --example inspect_ticket [FILE]`; afterwards `lth inspect FILE` tells the same.
#![allow(clippy::print_stdout)] // an example talks to its reader

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use candle_core::Device;
use lth_data::digits::{CLASSES, Digits, SIDE};
use lth_mask::MaskSet;
use lth_nn::{LeNet, LeNetConfig, Part, Setup, Weights};
use lth_schedule::{Moment, Schedule, Sparsity, SparsitySchedule, Window};
use lth_ticket::{DatasetInfo, NetworkInfo, Pruning, PruningConfig, PruningInfo, Rewind, Stage, Ticket, TicketHeader};
use lth_train::{Classification, Data, FitConfig, Network, Optimizer, OptimizerConfig, Trainer, evaluate};

const SEED: u64 = 42;

fn main() -> Result<()> {
    let path = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("digits.ticket.safetensors"), PathBuf::from);

    // Search: prune to 80 % in three steps, each time back to the weights of epoch 1.
    let (train, test) = Digits::load()?.split(0.2, SEED);
    let (train, test) = (train.tensors(&Device::Cpu)?, test.tensors(&Device::Cpu)?);
    let batches = || {
        let n = train.0.dims()[0] / 32;
        let slice =
            |i: usize| Ok::<_, candle_core::Error>((train.0.narrow(0, 32 * i, 32)?, train.1.narrow(0, 32 * i, 32)?));
        (0..n).map(slice)
    };
    let valid = || std::iter::once(Ok::<_, candle_core::Error>(test.clone()));
    let data = Data { train: |_| batches(), n_train_batches: batches().len(), valid };
    let config = LeNetConfig { inputs: SIDE * SIDE, ..LeNetConfig::default() };
    let mut trainer =
        Trainer::new(LeNet::new(&config, &Setup::new(SEED))?, Optimizer::new(OptimizerConfig::adam()), SEED);
    let schedule = SparsitySchedule {
        window: Window::starting_at(Moment::epoch(1))?,
        ..SparsitySchedule::to(Sparsity::from_percent(80.)?, Schedule::iterative(3)?)
    };
    let rewind = Rewind { reset_end: true, ..Rewind::to_epoch(1) };
    let search = || PruningConfig { rewind: Some(rewind), ..PruningConfig::new(schedule.clone()) };
    let criterion = search().criterion.name().to_owned();
    trainer.fit(&FitConfig::new(4), &data, &mut [&mut Pruning::new(search())])?;

    // Write: the weights under the network's own names, and in the header what it is and which zeros are pruned; and the
    // compact form, kept values and a bit per weight.
    let masks = MaskSet::from_tensors(trainer.masks())?;
    let ticket = Ticket {
        header: TicketHeader {
            stage: Stage::Ticket,
            network: NetworkInfo {
                name: "lenet-300-100".to_owned(),
                head: None,
                n_outputs: CLASSES,
                input: vec![SIDE * SIDE],
                preprocessing: None,
                class_names: (0..CLASSES).map(|digit| digit.to_string()).collect(),
            },
            pruning: Some(PruningInfo {
                criterion,
                selection: search().selection,
                schedule,
                sparsity: masks.sparsity(),
                rewind: Some(rewind),
            }),
            seed: SEED,
            dataset: DatasetInfo { name: "digits".to_owned(), sha256: None },
            parent: None,
            other: BTreeMap::new(),
        },
        tensors: trainer.network().parameters().snapshot(|_, _| true)?,
        masks,
    };
    let plain = ticket.write(&path)?;
    println!("wrote {}", path.display());
    let compact = path.with_extension("compact.safetensors");
    let small = ticket.write_compact(&compact)?;
    println!("      {} ({} bytes instead of {})\n", compact.display(), small.bytes, plain.bytes);
    let same = Ticket::read(&compact, &Device::Cpu)?;
    ensure!(same.content_sha256()? == plain.content_sha256, "the compact form holds another ticket");

    // Read: every field, every pruned weight and the checksum are checked.
    let read = Ticket::read(&path, &Device::Cpu)?;
    let is_same = read.header == ticket.header && read.content_sha256()? == plain.content_sha256;
    ensure!(is_same, "what was read is not what was written");
    let TicketHeader { network, pruning, seed, dataset, .. } = &read.header;
    println!("{} for {} classes of {}, seed {seed}", network.name, network.n_outputs, dataset.name);
    if let Some(pruning) = pruning {
        println!(
            "pruned by {}, schedule {}, to {:.2} %",
            pruning.criterion,
            pruning.schedule.schedule,
            100. * pruning.sparsity
        );
    }
    println!("content SHA-256 {}\n\n{}", plain.content_sha256, read.masks.stats());

    // Train it: a new network takes the weights and the masks, and keeps what is pruned at 0.
    let network = LeNet::new(&config, &Setup::new(SEED))?;
    Weights { tensors: read.tensors, ..Weights::default() }.load_into(network.parameters(), Part::All)?;
    let before = evaluate(&network, &Classification::default(), valid())?.accuracy().unwrap_or(0.);
    let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::adam()), SEED);
    trainer.set_masks(read.masks.to_tensors(&Device::Cpu)?)?;
    let fitted = trainer.fit(&FitConfig::new(6), &data, &mut [])?;
    let after = fitted.last().and_then(lth_train::Record::accuracy).unwrap_or(0.);
    println!("accuracy of the ticket: {:.1} % before training, {:.1} % after", 100. * before, 100. * after);

    // Damage it: one flipped bit is found.
    let mut bytes = std::fs::read(&path)?;
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    let damaged = path.with_extension("damaged");
    std::fs::write(&damaged, bytes)?;
    let error = Ticket::read(&damaged, &Device::Cpu).err();
    std::fs::remove_file(&damaged)?;
    ensure!(error.is_some(), "a flipped bit went unnoticed");
    println!("with one bit flipped it is refused");
    Ok(())
}
