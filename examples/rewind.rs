//! Iterative pruning with rewinding, on 1,797 real handwritten digits, in seconds.
//!
//! `cargo run --example rewind`
#![allow(clippy::print_stdout)] // an example talks to its reader

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use lth_criteria::Random;
use lth_data::digits::{Digits, SIDE};
use lth_data::{Loader, LoaderConfig, Normalisation, Pictures, Split};
use lth_nn::{LeNet, LeNetConfig, Setup};
use lth_schedule::{Moment, Schedule, Sparsity, SparsitySchedule, Window};
use lth_ticket::{Notice, Pruning, PruningConfig, Rewind, layer_records};
use lth_train::{Data, FitConfig, Hook, Network, Optimizer, OptimizerConfig, Record, Trainer};

const SEED: u64 = 42;
const SPARSITY_PERCENT: f64 = 80.;
/// The weights to prune: linear layers'.
const RANKS: [usize; 1] = [2];

fn main() -> Result<()> {
    let loader = digits()?;
    let network = LeNet::new(&LeNetConfig { inputs: SIDE * SIDE, ..LeNetConfig::default() }, &Setup::new(SEED))?;
    // A deep copy: candle's `clone` would follow the training.
    let initial = network.parameters().snapshot(|_, _| true)?;
    let n_weights: usize = network.parameters().prunable(&RANKS).map(|(_, weight)| weight.var().elem_count()).sum();
    let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::adam()), SEED);

    println!("1. Train the dense network: LeNet-300-100 with {n_weights} weights.\n");
    let dense = fit(&mut trainer, &loader, 10, &mut [])?;

    println!("\n2. Search a ticket. Training starts again from the very same initial weights, now with scissors:");
    println!("   three times the smallest weights of every layer are cut, until {SPARSITY_PERCENT} % are gone,");
    println!("   and after each cut the survivors go back to the values that they had after one epoch.\n");
    let search = |criterion_is_random: bool, trainer: &mut Trainer<LeNet>| -> Result<()> {
        trainer.set_masks(BTreeMap::new())?;
        trainer.network().parameters().restore(&initial)?;
        trainer.optimizer_mut().reset();
        let schedule = SparsitySchedule {
            window: Window::starting_at(Moment::epoch(2))?,
            ..SparsitySchedule::to(Sparsity::from_percent(SPARSITY_PERCENT)?, Schedule::iterative(3)?)
        };
        let mut config = PruningConfig {
            rewind: Some(Rewind { reset_end: true, ..Rewind::to_epoch(1) }),
            ..PruningConfig::new(schedule)
        };
        if criterion_is_random {
            config.criterion = Box::new(Random { seed: SEED });
        }
        let mut pruning = Pruning::new(config).with_notices(|notice| match notice {
            Notice::Pruned { measured, .. } => println!("   cut: {measured} of the weights are now exactly 0"),
            Notice::Reset { epoch } => println!("   rewound: the rest has its values of epoch {epoch} again"),
            Notice::Saved { epoch } => println!("   saved the weights at the start of epoch {epoch}"),
            _ => {}
        });
        fit(trainer, &loader, 11, &mut [&mut pruning])?;
        Ok(())
    };
    search(false, &mut trainer)?;
    println!("\n   What is left is the ticket: a mask, and early weights under it.\n");
    for layer in layer_records(trainer.network().parameters(), &RANKS)? {
        println!("   {:12} {:6} weights, {:6} zeros", layer.name, layer.weights, layer.zeros);
    }

    println!("\n3. Train the ticket. The mask holds: a pruned weight stays exactly 0 after every step.\n");
    trainer.optimizer_mut().reset();
    let ticket = fit(&mut trainer, &loader, 10, &mut [])?;

    println!("\n4. Is it the mask? The same again, cutting as many weights of every layer at random.\n");
    search(true, &mut trainer)?;
    trainer.optimizer_mut().reset();
    println!("\n   and its training:\n");
    let random = fit(&mut trainer, &loader, 10, &mut [])?;

    println!("\nValidation accuracy on {} digits after 10 epochs:\n", loader.split().valid.len());
    for (what, result) in [("dense", &dense), ("the ticket", &ticket), ("random mask", &random)] {
        println!("   {what:12} {:5.1} %   loss {:.3}", accuracy(result), result.valid_loss.unwrap_or(f64::NAN));
    }
    println!("\nThe ticket trained with {} of {n_weights} weights.", n_weights - zeros(&trainer)?);
    println!("One seed and few digits: the order of the three is the lesson, their digits are not.");
    Ok(())
}

/// The digits, four fifths to train on.
fn digits() -> Result<Loader> {
    let pictures = Digits::load()?.pictures()?;
    let split = Split::random(pictures.len(), 0.2, SEED)?;
    let config = LoaderConfig { normalisation: Normalisation::unit(1), ..LoaderConfig::new(SIDE, 32, SEED) };
    Ok(Loader::new(Arc::new(pictures), split, config)?)
}

/// Trains, prints an epoch a line, and gives the last one's figures.
fn fit(trainer: &mut Trainer<LeNet>, loader: &Loader, n_epochs: usize, hooks: &mut [&mut dyn Hook]) -> Result<Record> {
    let data = Data {
        train: |epoch| loader.train_epoch(epoch as usize),
        n_train_batches: loader.n_train_batches(),
        valid: || loader.valid(),
    };
    let fitted = trainer.fit(&FitConfig::new(n_epochs), &data, hooks)?;
    for record in &fitted.history {
        let Record { epoch, train_loss, valid_loss, .. } = record;
        println!(
            "   epoch {epoch:2}   loss {train_loss:.3} (validation {:.3})   accuracy {:5.1} %",
            valid_loss.unwrap_or(f64::NAN),
            accuracy(record)
        );
    }
    fitted.last().cloned().ok_or_else(|| anyhow::anyhow!("no epoch was asked for"))
}

/// In percent.
fn accuracy(record: &Record) -> f64 {
    100. * record.accuracy().unwrap_or(f64::NAN)
}

fn zeros(trainer: &Trainer<LeNet>) -> Result<usize> {
    Ok(layer_records(trainer.network().parameters(), &RANKS)?.iter().map(|layer| layer.zeros as usize).sum())
}
