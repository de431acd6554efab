//! What a ResNet-18 of a ticket file answers here, for other software to compare itself with.
//!
//! `cargo run --example torch_reference TICKET REFERENCE`, then `python scripts/load_in_torch.py TICKET REFERENCE`.
//! REFERENCE gets `input`, `features` (the 512 pooled ones) and `logits`.
#![allow(clippy::print_stdout)] // an example talks to its reader

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use lth_nn::{Part, ResNet, ResNetConfig, Setup, Weights};
use lth_ticket::Ticket;
use lth_train::{Network, Pass};

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [file, reference] = &arguments[..] else { bail!("expected two arguments: TICKET REFERENCE") };
    let ticket = Ticket::read(Path::new(file), &Device::Cpu)?;
    let info = ticket.header.network;
    ensure!(info.name == "resnet18", "the ticket is of {}, expected resnet18", info.name);
    let head = info.head.as_deref().context("the ticket names no head")?.parse()?;
    let mut network = ResNet::new(&ResNetConfig::resnet18(info.n_outputs, head), &Setup::new(0))?;
    Weights { tensors: ticket.tensors, ..Weights::default() }.load_into(network.parameters(), Part::All)?;
    network.set_masks(&ticket.masks.to_tensors(&Device::Cpu)?)?;

    let shape = [&[2], &info.input[..]].concat();
    let n_values: usize = shape.iter().product();
    let values = (0..n_values).map(|i| (f64::from(i as u32) * 0.37).sin() as f32 * 2.);
    let input = Tensor::from_iter(values, &Device::Cpu)?.reshape(shape)?;
    let tensors = [
        ("features".to_owned(), network.features(&input, &Pass::eval())?),
        ("logits".to_owned(), network.forward(&input, &Pass::eval())?),
        ("input".to_owned(), input),
    ];
    println!("logits {}", tensors[1].1);
    Weights { tensors: tensors.into(), ..Weights::default() }.write(Path::new(reference))?;
    Ok(())
}
