//! A few examples with what the dense network and the sparsest ticket said of them.

use std::path::Path;

use candle_core::{DType, Device, IndexOp, Tensor};
use lth_data::{Loader, encode_png};
use lth_runs::experiment::{ArmRole, FitRecord, Part, Summary};
use lth_runs::{ContactSheet, Shown};
use lth_ticket::Ticket;
use lth_train::{BoxError, Network, Pass};

use crate::Error;

/// Examples from the beginning, and as many of those that one of the two got wrong.
const N_EACH: usize = 6;

/// The contact sheet of a seed's examples: the first of the test part (or of the validation part, where there is no test) and
/// the first of those that the dense network or the ticket at its last level got wrong. `None` where one of the two left no
/// trained network, or the pictures are neither grey nor coloured.
///
/// `root`: the experiment's folder; `network` is as in [`Runner`](crate::Runner).
///
/// # Errors
/// If a network, a file or the data cannot be had.
pub fn contact_sheet<N: Network>(
    root: &Path,
    summary: &Summary,
    loader: &Loader,
    seed: u64,
    network: &dyn Fn(u64, DType) -> Result<N, BoxError>,
) -> Result<Option<ContactSheet>, Error> {
    let asked: Vec<&FitRecord> =
        [ArmRole::Dense, ArmRole::Ticket].into_iter().filter_map(|role| last(summary, role, seed)).collect();
    let [dense, ticket] = asked.as_slice() else { return Ok(None) };
    let Some(part) = ticket.at_end.as_ref().map(|at_end| at_end.on) else { return Ok(None) };
    let (indices, n_first) = indices(dense, ticket);
    let examples = Chosen::of(loader, part, &indices)?;
    let Some(pictures) = examples.pngs(loader)? else { return Ok(None) };
    let classes = loader.pictures().classes();
    let class = |label: u32| classes.get(label as usize).cloned().unwrap_or_else(|| label.to_string());
    let mut said: Vec<Vec<u32>> = Vec::new();
    for fit in [dense, ticket] {
        let made = network(seed, DType::F32).map_err(|source| Error::Subject { what: "the network", seed, source })?;
        let file = fit.files.get(TRAINED).ok_or_else(|| Error::Damaged {
            path: root.join(fit.address.folder()),
            reason: format!("its record has no file `{TRAINED}`"),
        })?;
        made.parameters().restore(&Ticket::read(&root.join(&file.path), &Device::Cpu)?.tensors)?;
        let logits = made.forward(&examples.inputs, &Pass::eval())?;
        said.push(logits.argmax(candle_core::D::Minus1)?.to_vec1()?);
    }
    let shown = |(place, png): (usize, Vec<u8>)| {
        let of = |said: &Vec<u32>| said.get(place).map_or_else(String::new, |label| class(*label));
        Ok(Shown::png(&png, class(examples.labels[place]), said.iter().map(of).collect())?)
    };
    Ok(Some(ContactSheet {
        caption: caption(part, seed, n_first, indices.len() - n_first, ticket),
        networks: vec![dense.address.clone(), ticket.address.clone()],
        pictures: pictures.into_iter().enumerate().map(shown).collect::<Result<_, Error>>()?,
    }))
}

/// The name of a trained network in its fit's record.
const TRAINED: &str = "trained";

/// The fit of that role at its last level that left its trained network.
fn last(summary: &Summary, role: ArmRole, seed: u64) -> Option<&FitRecord> {
    let arm = &summary.arm_of(role)?.name;
    let fits = summary.fits.iter().filter(|fit| fit.address.arm == *arm && fit.address.seed == seed && fit.is_whole());
    fits.filter(|fit| fit.files.contains_key(TRAINED)).max_by_key(|fit| fit.address.level)
}

/// Which examples are shown, by their places in the part, and how many of them are the first ones.
fn indices(dense: &FitRecord, ticket: &FitRecord) -> (Vec<usize>, usize) {
    let right = |fit: &FitRecord| -> Vec<bool> {
        let right = fit.at_end.as_ref().and_then(|at_end| at_end.right.as_ref());
        right.map(|right| right.iter().collect()).unwrap_or_default()
    };
    let n = ticket.at_end.as_ref().map_or(0, |at_end| at_end.n_examples as usize);
    let n_first = n.min(N_EACH);
    let wrong = right(dense).into_iter().zip(right(ticket)).enumerate();
    let wrong = wrong.filter(|(index, (dense, ticket))| *index >= n_first && !(*dense && *ticket));
    let wrong = wrong.map(|(index, _)| index).take(N_EACH);
    ((0..n_first).chain(wrong).collect(), n_first)
}

fn caption(part: Part, seed: u64, n_first: usize, n_wrong: usize, ticket: &FitRecord) -> String {
    let part = match part {
        Part::Test => "test",
        Part::Validation => "validation",
    };
    let density = 100.0 * (1.0 - ticket.measured_sparsity().unwrap_or(ticket.sparsity));
    let wrong = match n_wrong {
        0 => String::new(),
        n => format!(", then the first {n} others that dense or ticket got wrong"),
    };
    format!(
        "The first {n_first} {part} pictures of seed {seed}{wrong}. Below each: what it is, what the dense network said, and \
         what the ticket with {density:.1} % of the weights said, whose mistakes have a broken frame."
    )
}

/// Examples as the network takes them.
struct Chosen {
    inputs: Tensor,
    labels: Vec<u32>,
}

impl Chosen {
    /// Those at `indices` of a part, rising.
    fn of(loader: &Loader, part: Part, indices: &[usize]) -> Result<Self, Error> {
        let batches = match part {
            Part::Test => loader.test(),
            Part::Validation => loader.valid(),
        };
        let (mut inputs, mut labels) = (Vec::new(), Vec::new());
        let mut begin = 0;
        for batch in batches {
            let (x, y) = batch.map_err(|error| Error::Data(error.into()))?;
            let n = y.dims1()?;
            for index in indices.iter().filter(|index| (begin..begin + n).contains(*index)) {
                inputs.push(x.i(index - begin)?);
                labels.push(y.i(index - begin)?.to_scalar()?);
            }
            begin += n;
            if labels.len() == indices.len() {
                break;
            }
        }
        Ok(Self { inputs: Tensor::stack(&inputs, 0)?, labels })
    }

    /// The pictures as PNG files, as the network saw them; `None` if they have neither one channel nor three.
    fn pngs(&self, loader: &Loader) -> Result<Option<Vec<Vec<u8>>>, Error> {
        let normalisation = &loader.config().normalisation;
        let (_, channels, height, width) = self.inputs.dims4()?;
        if ![1, 3].contains(&channels) {
            return Ok(None);
        }
        let mut pngs = Vec::new();
        for picture in 0..self.labels.len() {
            // Channels innermost, as picture files have them.
            let values: Vec<f32> = self.inputs.i(picture)?.permute((1, 2, 0))?.flatten_all()?.to_vec1()?;
            let byte = |(place, value): (usize, f32)| {
                let channel = place % channels;
                let (mean, std) = (normalisation.mean[channel], normalisation.std[channel]);
                ((value * std + mean) * 255.0).round().clamp(0.0, 255.0) as u8
            };
            let bytes: Vec<u8> = values.into_iter().enumerate().map(byte).collect();
            pngs.push(encode_png(&bytes, channels, width, height)?);
        }
        Ok(Some(pngs))
    }
}
