//! What a report shows of the networks that an experiment left: how far masks overlap, how weights moved, a few examples.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lth_mask::{MaskSet, Overlap as Shared};
use lth_runs::experiment::{ArmRole, FitRecord, Summary};
use lth_runs::figure::{count, even_edges};
use lth_runs::report::{Extras, Overlap, WeightHistogram};
use lth_runs::{Address, ContactSheet};
use lth_ticket::Ticket;

use crate::Error;

/// More rows would be too small to read.
const MOST_SEEDS: usize = 12;
const MOST_LEVELS: usize = 16;
const N_BINS: usize = 48;

/// How far the ticket's masks overlap, its weights at the start and at the end of its training, and the contact sheet, all
/// from the experiment's folder `root`. Networks and pictures that are not there or cannot be read are left out, with a note
/// that says so.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let root = std::path::Path::new("runs/lenet-digits-5f0c1a2b");
/// let summary = lth_runs::Summary::read(&root.join("summary.json"))?;
/// for (name, text) in lth_runs::report::files_with(&summary, &lth_experiment::extras(root, &summary)) {
///     std::fs::write(root.join(name), text)?;
/// }
/// # Ok(()) }
/// ```
#[must_use]
pub fn extras(root: &Path, summary: &Summary) -> Extras {
    let mut extras = Extras::default();
    if let Some(ticket) = summary.arm_of(ArmRole::Ticket) {
        let fits: Vec<&FitRecord> =
            summary.fits.iter().filter(|fit| fit.address.arm == ticket.name && fit.is_whole()).collect();
        let mut networks = Networks { root, masks: BTreeMap::new(), unread: Vec::new() };
        extras.overlaps = overlaps(&fits, &mut networks);
        extras.histograms = histograms(&fits, &mut networks);
        extras.notes = networks.note().into_iter().collect();
    }
    if !summary.fits.is_empty() {
        pictures(root, &mut extras);
    }
    extras
}

fn pictures(root: &Path, extras: &mut Extras) {
    let none =
        "There are no pictures of the data here: the folder has no pictures.json, which a command that trains leaves.";
    match ContactSheet::read(root)
        .and_then(|sheet| sheet.map(|sheet| Ok((sheet.pictures()?, sheet.caption))).transpose())
    {
        Ok(Some((pictures, caption))) => (extras.pictures, extras.about_pictures) = (pictures, caption),
        Ok(None) => extras.about_pictures = none.to_owned(),
        Err(error) => extras.about_pictures = format!("The pictures of the data could not be read: {error}."),
    }
}

/// What is read of a folder.
struct Networks<'a> {
    root: &'a Path,
    masks: BTreeMap<Address, Option<MaskSet>>,
    unread: Vec<(Address, String)>,
}

impl Networks<'_> {
    fn read(&mut self, fit: &FitRecord, name: &str) -> Option<Ticket> {
        let file = fit.files.get(name)?;
        match Ticket::read(&self.root.join(&file.path), &Device::Cpu) {
            Ok(ticket) => Some(ticket),
            Err(error) => {
                if self.unread.iter().all(|(address, _)| *address != fit.address) {
                    self.unread.push((fit.address.clone(), error.to_string()));
                }
                None
            }
        }
    }

    /// The masks of the ticket that a fit trained.
    fn masks(&mut self, fit: &FitRecord) -> Option<&MaskSet> {
        if !self.masks.contains_key(&fit.address) {
            let masks = self.read(fit, "ticket").map(|ticket| ticket.masks).filter(|masks| !masks.is_empty());
            self.masks.insert(fit.address.clone(), masks);
        }
        self.masks.get(&fit.address)?.as_ref()
    }

    fn overlap(&mut self, one: &FitRecord, other: &FitRecord) -> Option<(f64, f64)> {
        let other = self.masks(other)?.clone();
        let shared = self.masks(one)?.overlap(&other).ok()?;
        Some((shared.overall().jaccard(), by_chance(shared.layers.values())))
    }

    /// A sentence about what could not be read.
    fn note(&self) -> Option<String> {
        let (first, reason) = self.unread.first()?;
        let n = self.unread.len();
        let more = if n > 1 { format!(", and of {} others", n - 1) } else { String::new() };
        Some(format!("Masks and weights are shown without those of {first}{more}, which could not be read: {reason}."))
    }
}

/// What two masks of as many kept weights in each layer share on average, drawn at random and apart: of `n` weights that `a`
/// and `b` keep, both keep a·b/n.
fn by_chance<'a>(layers: impl Iterator<Item = &'a Shared>) -> f64 {
    let (mut both, mut either) = (0.0, 0.0);
    for layer in layers.filter(|layer| layer.weights > 0) {
        // Of both masks together; they have the same counts, or nearly.
        let kept = (layer.kept_by_both + layer.kept_by_either) as f64 / 2.0;
        let shared = kept * kept / layer.weights as f64;
        both += shared;
        either += 2.0 * kept - shared;
    }
    if either > 0.0 { both / either } else { 1.0 }
}

fn overlaps(fits: &[&FitRecord], networks: &mut Networks<'_>) -> Vec<Overlap> {
    let mut overlaps = Vec::new();
    let levels: Vec<u32> = levels(fits);
    for level in chosen(&levels) {
        let of_level: Vec<&FitRecord> =
            fits.iter().filter(|fit| fit.address.level == level).take(MOST_SEEDS).copied().collect();
        let title = format!("between seeds, {}", place(&of_level));
        let named = of_level.iter().map(|fit| (format!("seed {}", fit.address.seed), *fit)).collect();
        overlaps.extend(overlap(title, named, true, networks));
    }
    if let Some(seed) = fits.first().map(|fit| fit.address.seed) {
        let of_seed = fits.iter().filter(|fit| fit.address.seed == seed).take(MOST_LEVELS);
        let named = of_seed.map(|fit| (percent(fit), *fit)).collect();
        overlaps.extend(overlap(format!("between levels of seed {seed}"), named, false, networks));
    }
    overlaps
}

fn overlap(
    title: String,
    named: Vec<(String, &FitRecord)>,
    says_chance: bool,
    networks: &mut Networks<'_>,
) -> Option<Overlap> {
    let readable: Vec<(String, &FitRecord)> =
        named.into_iter().filter(|(_, fit)| networks.masks(fit).is_some()).collect();
    if readable.len() < 2 {
        return None;
    }
    let mut chances = Vec::new();
    let mut values = vec![vec![1.0; readable.len()]; readable.len()];
    for (row, (_, one)) in readable.iter().enumerate() {
        for (column, (_, other)) in readable.iter().enumerate().take(row) {
            let (value, by_chance) = networks.overlap(one, other)?;
            chances.push(by_chance);
            (values[row][column], values[column][row]) = (value, value);
        }
    }
    let mean = chances.iter().sum::<f64>() / chances.len() as f64;
    let names = readable.into_iter().map(|(name, _)| name).collect();
    Some(Overlap { title, names, values, by_chance: says_chance.then_some(mean) })
}

/// Weights that the ticket keeps, at the start and at the end of its training, for the first seed.
fn histograms(fits: &[&FitRecord], networks: &mut Networks<'_>) -> Vec<WeightHistogram> {
    let mut histograms = Vec::new();
    for level in chosen(&levels(fits)) {
        let Some(fit) = fits.iter().find(|fit| fit.address.level == level) else { continue };
        let mut series = Vec::new();
        for (name, when) in [("ticket", "at the start"), ("trained", "at the end")] {
            let kept = networks.read(fit, name).and_then(|ticket| kept(&ticket).ok());
            series.extend(kept.filter(|kept| !kept.is_empty()).map(|kept| (when.to_owned(), kept)));
        }
        let most = series.iter().flat_map(|(_, kept)| kept).fold(0.0_f64, |most, weight| most.max(weight.abs()));
        let edges = even_edges(-most, most, N_BINS);
        let counted = series.into_iter().map(|(when, kept)| (when, count(kept, &edges))).collect::<Vec<_>>();
        if !counted.is_empty() && !edges.is_empty() {
            let title = format!("the ticket, {}, seed {}", place(&[fit]), fit.address.seed);
            histograms.push(WeightHistogram { title, edges, series: counted });
        }
    }
    histograms
}

/// The values of a network's kept weights.
fn kept(ticket: &Ticket) -> Result<Vec<f64>, Error> {
    let mut kept = Vec::new();
    for (name, mask) in ticket.masks.iter() {
        let Some(tensor) = ticket.tensors.get(name) else { continue };
        let values = Tensor::flatten_all(tensor)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        kept.extend(values.into_iter().zip(mask.iter()).filter(|(_, keep)| *keep).map(|(value, _)| value));
    }
    Ok(kept)
}

fn levels(fits: &[&FitRecord]) -> Vec<u32> {
    let mut levels: Vec<u32> = fits.iter().map(|fit| fit.address.level).collect();
    levels.sort_unstable();
    levels.dedup();
    levels
}

/// The levels that stand for all: the first, the middle one and the last.
fn chosen(levels: &[u32]) -> Vec<u32> {
    match levels {
        [] | [_] | [_, _] => levels.to_vec(),
        all => vec![all[0], all[(all.len() - 1) / 2], all[all.len() - 1]],
    }
}

/// "13.5 %"
fn percent(fit: &FitRecord) -> String {
    let density = 100.0 * (1.0 - fit.measured_sparsity().unwrap_or(fit.sparsity));
    let n_decimals = if density < 10.0 { 2 } else { 1 };
    format!("{density:.n_decimals$} %")
}

/// "13.5 % of weights"
fn place(fits: &[&FitRecord]) -> String {
    fits.first().map_or_else(String::new, |fit| format!("{} of weights", percent(fit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_what_independent_masks_of_the_same_counts_share() {
        // A quarter of 100 weights each: 25 · 25 / 100 = 6.25 of both, 43.75 of either; and a layer that is whole.
        let quarter = Shared { weights: 100, kept_by_both: 10, kept_by_either: 40 };
        assert!((by_chance([quarter].iter()) - 6.25 / 43.75).abs() < 1e-12);
        let whole = Shared { weights: 50, kept_by_both: 50, kept_by_either: 50 };
        assert!((by_chance([quarter, whole].iter()) - 56.25 / 93.75).abs() < 1e-12);
        assert!((by_chance(std::iter::empty()) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn three_levels_stand_for_all() {
        assert_eq!(chosen(&[1, 2, 3, 4, 5, 6]), [1, 3, 6]);
        assert_eq!(chosen(&[1, 2]), [1, 2]);
    }
}
