//! The fit that made a ticket, done again from what it began with, and compared with what it left.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use candle_core::Device;
use lth_data::{Dataset, Opening};
use lth_experiment::{Again, Experiment, Host, Plan, Recorded};
use lth_files::sha256_file;
use lth_runs::experiment::{ExperimentDir, ExperimentReader, FileRecord, FitRecord, fit_differences};
use lth_runs::{Address, Existing, Summary};
use lth_ticket::Ticket;
use lth_train::tensor_bytes;

use crate::build::build;
use crate::console::Console;
use crate::data::{self, SourceOptions, Watch};
use crate::experiment::{Progress, interrupted, machine};
use crate::failure::{Blame, Failure, Kind, Result};
use crate::reproduce::{self, OnOpened};
use crate::system;
use crate::verify::Options;

/// Where a file stands.
struct Found {
    path: PathBuf,
    folder: ExperimentReader,
    address: Address,
    record: FitRecord,
    recorded: Recorded,
}

pub(super) fn verify(file: &Path, options: &Options, console: &Console) -> Result {
    interrupted();
    // Reading a ticket computes already.
    system::prepare(options.threads)?;
    let Found { path, folder, address, record, recorded } = find(file)?;
    let root = folder.path().to_path_buf();
    let checked = |what: &str, value: String| console.line(format!("{what:10} {value}"));
    let ticket = Ticket::read(file, &Device::Cpu).data()?;
    checked(
        "ticket",
        format!("{address} of {}, {} of SHA-256 {}", root.display(), name(file), ticket.content_sha256().data()?),
    );
    for file in record.files.values() {
        of_record(&root, file)?;
    }
    checked("files", format!("{} of its record, by their SHA-256", record.files.len()));

    let plan = recorded.wider_plan(&folder.addresses())?;
    let identity =
        plan.fit_identity(&address)?.with_context(|| format!("{address} is no fit of its experiment's plan"));
    let identity = identity.data()?;
    if identity != record.plan {
        let reason = format!("the plan of {address} has SHA-256 {identity}, its record {}", record.plan);
        return Err(Failure::new(Kind::Data, anyhow!("{reason}: another definition of the fit made it")));
    }
    checked("plan", format!("{identity}, of experiment {}", recorded.record()?.identity));

    let summary = folder.summary().data()?;
    let same_machine = programs(summary.as_ref(), console);
    // Read by the run, kept nowhere else.
    let place = tempfile::tempdir().context("a folder for the fit").data()?;
    let mut dir = ExperimentDir::open(place.path(), recorded.record()?, Existing::Refuse).data()?;
    let on_opened = |dataset: &Dataset, split_seed: u64| -> Result {
        checked("data", same_data(dataset, split_seed, &ticket, summary.as_ref())?);
        Ok(())
    };
    let again = match recorded {
        Recorded::Imp(experiment) => {
            again(*experiment, &plan, &address, &folder, &mut dir, (&options.source, &on_opened), console)?
        }
        Recorded::Notebook(_, subject) => {
            let weights = summary.as_ref().and_then(|summary| summary.weights.as_ref());
            let fit = reproduce::OfRecord {
                plan: &plan,
                address: &address,
                folder: &folder,
                subject: &subject,
                weights: (weights, options.weights.as_deref()),
                source: &options.source,
            };
            fit.again(&mut dir, &on_opened, console)?
        }
    };
    let Some(Again { record: mut now, from }) = again else {
        return Err(Failure::new(Kind::Interrupted, anyhow!("interrupted: it begins anew the next time")));
    };
    match from.as_slice() {
        [] => checked("start", format!("the initial weights of seed {}, drawn again", address.seed)),
        files => files.iter().for_each(|(_, file)| {
            checked("start", format!("{} of SHA-256 {}", file.path, file.content.as_ref().unwrap_or(&file.sha256)));
        }),
    }

    // What is kept of a fit depends on what else is asked of the experiment.
    let mut before = record.clone();
    now.files.retain(|name, _| record.files.contains_key(name));
    before.files.retain(|name, _| now.files.contains_key(name));
    if before.files.values().all(|kept| root.join(&kept.path) != path) {
        let reason =
            anyhow!("{} was not made again: the experiment as it is on record does not ask for it", file.display());
        return Err(Failure::new(Kind::Data, reason));
    }
    let found = fit_differences(&now, &before);
    for found in &found {
        console.line(found.to_string());
    }
    for (name, file) in &before.files {
        bits(&root.join(&file.path), &place.path().join(&now.files[name].path), console)?;
    }
    for name in record.files.keys().filter(|name| !now.files.contains_key(*name)) {
        checked("unchecked", format!("{name}, which the experiment as it is on record does not ask for"));
    }
    from.iter().for_each(|(_, file)| {
        checked("unchecked", format!("how {} came about: lth verify {}", file.path, root.join(&file.path).display()));
    });
    if found.is_empty() {
        let files: Vec<&str> = before.files.keys().map(String::as_str).collect();
        console.line(format!(
            "verified: {address} done again has the same weights, masks and figures, to the bit ({})",
            files.join(", ")
        ));
        return console.finish();
    }
    let hint = if same_machine { "" } else { ", on another program or machine than it was made on" };
    Err(Failure::new(Kind::Data, anyhow!("{} discrepancies in {address}, done again{hint}", found.len())))
}

/// Does a fit of `experiment` again into `dir`; `None` if it was interrupted.
fn again(
    mut experiment: Experiment,
    plan: &Plan,
    address: &Address,
    folder: &ExperimentReader,
    dir: &mut ExperimentDir,
    (source, on_opened): (&SourceOptions, &OnOpened<'_>),
    console: &Console,
) -> Result<Option<Again>> {
    if let Some(source) = source.source() {
        experiment.data.source = source;
    }
    let mut progress = Progress::new(console);
    let mut watch = Watch { console, bar: None };
    let mut show = |opening: Opening<'_>| watch.show(opening);
    let host = Host {
        open: data::open_options(source.skip_damaged)?,
        is_interrupted: &interrupted,
        peak_memory: &system::peak_memory,
        ..Host::new("", &mut show, &mut progress)
    };
    let on_opened = |dataset: &Dataset, split_seed: u64| Ok(on_opened(dataset, split_seed)?);
    let again = experiment.again(plan, address, folder, dir, host, &on_opened).data()?;
    progress.finish();
    Ok(again)
}

/// The fit that a file is of.
fn find(file: &Path) -> Result<Found> {
    let path = std::path::absolute(file).with_context(|| file.display().to_string()).data()?;
    // fits/ARM/LEVEL/SEED/FILE
    let root = path.ancestors().nth(5).map(Path::to_path_buf).unwrap_or_default();
    let folder = ExperimentReader::new(root);
    let address = folder
        .addresses()
        .into_iter()
        .find(|address| path.parent().is_some_and(|parent| parent == folder.path().join(address.folder())));
    let experiment = match folder.experiment() {
        Err(lth_runs::Error::Absent { .. }) => None,
        other => Some(other.data()?),
    };
    let (Some(address), Some(experiment)) = (address, experiment) else {
        return Err(Failure::usage(format!(
            "{} is in no experiment's folder, and alone does not say what it was made from: `lth inspect` checks its checksums",
            file.display()
        )));
    };
    let record = folder.record(&address).data()?.with_context(|| format!("{address} has no record")).data()?;
    if record.files.values().all(|file| folder.path().join(&file.path) != path) {
        return Err(Failure::usage(format!("{} is no file of the record of {address}", file.display())));
    }
    let recorded = Recorded::of(&experiment).data()?;
    Ok(Found { path, folder, address, record, recorded })
}

fn name(file: &Path) -> String {
    file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Whether a file is what its record says.
fn of_record(root: &Path, file: &FileRecord) -> Result {
    let path = root.join(&file.path);
    let (sha256, _) = sha256_file(&path).data()?;
    if sha256 == file.sha256 {
        return Ok(());
    }
    let reason = anyhow!("{} has SHA-256 {sha256}, its record {}", path.display(), file.sha256);
    Err(Failure::new(Kind::Data, reason))
}

/// Says by what the experiment was made, and whether this is the same.
fn programs(summary: Option<&Summary>, console: &Console) -> bool {
    let say = |what: &str, now: String, then: String| {
        let is_same = now == then;
        let differs = if is_same { String::new() } else { format!(", and now {now}") };
        console.line(format!("{what:10} {then}{differs}"));
        is_same
    };
    let Some(summary) = summary else {
        console.note("there is no summary.json, which says by what program and machine the experiment was made");
        return false;
    };
    let words = |build: &lth_runs::BuildRecord| {
        let commit = build.commit.as_ref().map_or_else(String::new, |commit| format!(", commit {commit}"));
        let modified = if build.is_modified { " and changes to it" } else { "" };
        let compiler = build.compiler.as_ref().map_or_else(String::new, |compiler| format!(", {compiler}"));
        format!("{}{commit}{modified}{compiler}", build.software)
    };
    let then: Vec<String> = summary.builds.iter().map(words).collect();
    let program = say("program", words(&build()), then.join(" and "));
    let set = |set: Option<String>| set.unwrap_or_else(|| "not known".into());
    let then = summary.machine.as_ref().and_then(|machine| machine.instruction_set.clone());
    let is_same_set = say("vectors", set(machine().instruction_set), set(then));
    program && is_same_set
}

/// What was opened, held against what the ticket and the experiment have on record.
fn same_data(
    dataset: &Dataset,
    split_seed: u64,
    ticket: &Ticket,
    summary: Option<&Summary>,
) -> std::result::Result<String, Failure> {
    let provenance = &dataset.provenance;
    let (got, split) = (&provenance.content_sha256, dataset.split.sha256());
    let of_ticket = ticket.header.dataset.sha256.as_ref();
    let of_summary = summary.and_then(|summary| summary.dataset.checksum.as_ref());
    for (whose, expected) in [("the ticket's", of_ticket), ("the experiment's", of_summary)] {
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            return Err(Failure::new(Kind::Data, anyhow!("the data have SHA-256 {got}, {whose} {expected}")));
        }
    }
    let expected = summary.and_then(|summary| summary.dataset.splits.get(&split_seed));
    if let Some(expected) = expected.filter(|expected| **expected != split) {
        return Err(Failure::new(Kind::Data, anyhow!("the split has SHA-256 {split}, the experiment's {expected}")));
    }
    let unknown = if expected.is_none() { " (not on record)" } else { "" };
    Ok(format!("{} of SHA-256 {got}, split {split}{unknown}", provenance.name))
}

/// Says how many weights and places of masks differ, if any do.
fn bits(then: &Path, now: &Path, console: &Console) -> Result {
    let (Ok(then), Ok(now)) = (Ticket::read(then, &Device::Cpu), Ticket::read(now, &Device::Cpu)) else {
        // The averages of an optimiser, which are compared by their SHA-256.
        return Ok(());
    };
    for (name, tensor) in &then.tensors {
        let Some(other) = now.tensors.get(name) else { continue };
        let (one, other) = (tensor_bytes(tensor).data()?, tensor_bytes(other).data()?);
        let size = tensor.dtype().size_in_bytes().max(1);
        let n_values = one.chunks(size).zip(other.chunks(size)).filter(|(one, other)| one != other).count();
        let masks = then.masks.get(name).zip(now.masks.get(name));
        let n_places = masks.map_or(0, |(one, other)| one.iter().zip(other.iter()).filter(|(a, b)| a != b).count());
        if n_values + n_places > 0 {
            let n = tensor.elem_count();
            console.line(format!("{name}: {n_values} of {n} values differ, {n_places} places of its mask"));
        }
    }
    Ok(())
}
