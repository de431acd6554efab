//! One experiment of several folders: shards of it, or seeds, levels and arms that were trained apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lth_files::{link_or_copy, remove_partial_files, sha256_file};
use lth_runs::experiment::{
    ExperimentDir, ExperimentReader, ExperimentRecord, FitRecord, MetricLine, PathRecord, Summary, fit_differences,
    path_differences,
};
use lth_runs::{Address, BuildRecord, ContactSheet, Existing, MachineRecord};

use crate::recorded::{Recorded, differing};
use crate::{Error, Outcome, Plan, Reports, SummaryWriter, identity};

/// What came together.
#[derive(Clone, Debug, PartialEq)]
pub struct Collected {
    /// That of the whole.
    pub summary: Summary,
    /// Fits that were brought now; the others were there.
    pub n_copied: usize,
    /// Fits that the experiment asks for and no folder has.
    pub missing: Vec<Address>,
    /// Paths that the experiment asks for and no folder has, both of whose ends are whole.
    pub n_paths_missing: usize,
    /// Fits that are there and not of this experiment's plan, nor of a wider one, with their folders.
    pub left_out: Vec<(PathBuf, Address)>,
}

/// A record, and the number of the folder that it is in.
struct Found<T> {
    record: T,
    folder: usize,
}

/// Brings the fits and paths of `folders`, which are folders of one experiment, into the folder `out`, and writes summary and
/// reports there as a run in one piece would. The folders are read and not changed; a fit that is still being trained in one
/// is no part of it yet.
///
/// Nothing is written if anything does not go together. A fit is there once its record is, the last of its files to be
/// written, so that a collection that was cut goes on where it was, and one that is made again brings what is new.
///
/// # Errors
/// [`Error::OtherExperiment`] if two folders differ in more than seeds, levels and arms; [`Error::Contradiction`] if they
/// hold different results under one address; [`Error::Damaged`] if a file is not what its record says; as
/// [`Recorded::of`] and [`ExperimentDir::open`].
pub fn collect(
    out: &Path,
    folders: &[PathBuf],
    (build, command): (&BuildRecord, &[String]),
    reports: &Reports<'_>,
) -> Result<Collected, Error> {
    let folders = opened(out, folders)?;
    let (recorded, summaries) = of_one_experiment(out, &folders)?;
    let (fits, paths) = found(out, &folders)?;
    let mut dir = ExperimentDir::open(out, recorded.record()?, Existing::Refuse)?;

    let plan = recorded.plan()?;
    let there: Vec<Address> = fits.keys().cloned().collect();
    let wider = recorded.wider_plan(&there)?;
    let (mut outcome, mut n_copied) = (Outcome { records: vec![], paths: vec![], n_trained: 0, is_done: true }, 0);
    let mut brought: BTreeSet<&Address> = BTreeSet::new();
    let mut contents: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (of, fit) in both(&plan, &wider, |plan| &plan.fits, |fit| plan.fit(&fit.address).is_none()) {
        let Some(Found { record, folder }) = fits.get(&fit.address) else { continue };
        let rests_on_all = fit.rests_on().iter().all(|needed| brought.contains(needed));
        if record.plan != identity::of_fit(of, fit)? || !rests_on_all {
            continue;
        }
        if folders[*folder].path() != out {
            bring(&folders[*folder], &mut dir, record, &mut contents)?;
            n_copied += 1;
        }
        brought.insert(&fit.address);
        if plan.fit(&fit.address).is_some() {
            outcome.records.push(record.clone());
        }
    }
    let is_planned = |last: &Address| plan.paths.iter().any(|path| path.ends[1] == *last);
    let mut paths_besides = Vec::new();
    for (of, path) in both(&plan, &wider, |plan| &plan.paths, |path| !is_planned(&path.ends[1])) {
        let Some(Found { record, folder }) = paths.get(&path.ends[1]) else { continue };
        if record.plan != identity::of_path(of, path)? || !path.ends.iter().all(|end| brought.contains(end)) {
            continue;
        }
        if folders[*folder].path() != out {
            dir.write_path(record)?;
        }
        let planned = is_planned(&path.ends[1]);
        if planned { &mut outcome.paths } else { &mut paths_besides }.push(record.clone());
    }
    let missing = missing(&plan, &outcome);
    let n_paths_missing = paths_missing(&plan, &outcome);
    outcome.is_done = missing.is_empty() && n_paths_missing == 0;
    let left_out = fits.iter().filter(|(address, _)| !brought.contains(address));
    let left_out = left_out.map(|(address, found)| (folders[found.folder].path().to_path_buf(), address.clone()));

    let before = before(summaries, &plan, &fits, paths_besides);
    bring_contact_sheet(&folders, &mut dir, &recorded, &outcome)?;
    let machine = before.as_ref().and_then(|before| before.machine.clone());
    let about = (build, command, machine.as_ref());
    let writer = SummaryWriter::going_on(before.as_ref(), (&plan, &wider), recorded.record()?, &dir, about)?;
    let summary = writer.conclude(&mut dir, &outcome, reports, None)?;
    Ok(Collected { summary, n_copied, missing, n_paths_missing, left_out: left_out.collect() })
}

/// The folders, that of the collection first if it holds an experiment already.
fn opened(out: &Path, folders: &[PathBuf]) -> Result<Vec<ExperimentReader>, Error> {
    let is_out = |folder: &&PathBuf| {
        let same = out.canonicalize().ok().zip(folder.canonicalize().ok());
        same.is_some_and(|(out, folder)| out == folder)
    };
    if let Some(folder) = folders.iter().find(is_out) {
        return Err(Error::Plan {
            field: "folder to collect from".into(),
            got: format!("{}, the one to collect into", folder.display()),
            expected: "another one".into(),
        });
    }
    let own = ExperimentReader::new(out);
    let own = match own.experiment() {
        Ok(_) => Some(own),
        Err(lth_runs::Error::Absent { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(own.into_iter().chain(folders.iter().map(ExperimentReader::new)).collect())
}

/// The experiment that all are of, and what each has for a summary. What is asked for is what the folders ask for: as after
/// a command that asks for less, what the collection has besides stays in it.
fn of_one_experiment(out: &Path, folders: &[ExperimentReader]) -> Result<(Recorded, Vec<Option<Summary>>), Error> {
    let mut first: Option<(ExperimentRecord, &Path)> = None;
    let mut united: Option<Recorded> = None;
    let mut summaries: Vec<Option<Summary>> = Vec::new();
    for folder in folders {
        let (record, summary) = (folder.experiment()?, folder.summary()?);
        let other = |expected: &Path, differences: String| Error::OtherExperiment {
            path: folder.path().to_path_buf(),
            expected: expected.to_path_buf(),
            differences,
        };
        if let Some((expected, path)) = &first
            && (&record.name, &record.identity) != (&expected.name, &expected.identity)
        {
            return Err(other(path, identity_differences(&record, expected)));
        }
        let with_summary =
            summaries.iter().zip(folders).find_map(|(before, folder)| Some((before.as_ref()?, folder.path())));
        if let (Some(summary), Some((before, path))) = (&summary, with_summary)
            && let Some(differences) = other_subject(summary, before)
        {
            return Err(other(path, differences));
        }
        let own = Recorded::of(&record)?;
        let (_, path) = first.get_or_insert((record, folder.path()));
        if folder.path() != out {
            united = Some(match united {
                Some(united) => united.with(&own)?.map_err(|differences| other(path, differences))?,
                None => own,
            });
        }
        summaries.push(summary);
    }
    let nothing = || Error::Plan {
        field: "number of folders to collect from".into(),
        got: "0".into(),
        expected: "at least 1".into(),
    };
    Ok((united.ok_or_else(nothing)?, summaries))
}

/// In what two experiments differ that have not one identity: not in what can be added to one.
fn identity_differences(got: &ExperimentRecord, expected: &ExperimentRecord) -> String {
    let mut configs = [got.config.clone(), expected.config.clone()];
    for (kind, field) in
        [("imp", "seeds"), ("imp", "n_levels"), ("imp", "arms"), ("notebook", "seeds"), ("notebook", "controls")]
    {
        for config in &mut configs {
            if let Some(fields) = config.get_mut(kind).and_then(serde_json::Value::as_object_mut) {
                fields.remove(field);
            }
        }
    }
    let found = differing(&configs[0], &configs[1]);
    if found.is_empty() { format!("it is `{}`, expected `{}`", got.identity, expected.identity) } else { found }
}

/// Whether the fits of two summaries had other data or other starting weights, under the same names.
fn other_subject(got: &Summary, expected: &Summary) -> Option<String> {
    let of = |summary: &Summary| {
        let weights = summary.weights.as_ref().and_then(|weights| weights.sha256.as_ref());
        serde_json::json!({
            "SHA-256 of the data": summary.dataset.checksum, "SHA-256 of the starting weights": weights,
            "conditions": summary.conditions,
        })
    };
    let differ = differing(&of(got), &of(expected));
    (!differ.is_empty()).then_some(differ)
}

type Records<T> = BTreeMap<Address, Found<T>>;

/// All records. Of a fit that two folders have, the first one's; paths by their second ends.
fn found(out: &Path, folders: &[ExperimentReader]) -> Result<(Records<FitRecord>, Records<PathRecord>), Error> {
    let (mut fits, mut paths): (Records<FitRecord>, Records<PathRecord>) = Default::default();
    for (number, folder) in folders.iter().enumerate() {
        let contradiction = |other: usize, found| Error::Contradiction {
            path: folder.path().to_path_buf(),
            other: folders[other].path().to_path_buf(),
            found,
        };
        for address in folder.addresses() {
            if let Some(record) = folder.record(&address)? {
                // What is not whole any more where it was collected is brought again.
                let is_there = record.files.values().all(|file| folder.path().join(&file.path).is_file());
                match fits.get(&address) {
                    Some(other) => {
                        let found = fit_differences(&record, &other.record);
                        if !found.is_empty() {
                            return Err(contradiction(other.folder, found));
                        }
                    }
                    None if folder.path() == out && !is_there => {}
                    None => _ = fits.insert(address.clone(), Found { record, folder: number }),
                }
            }
            if let Some(record) = folder.path_record(&address)? {
                match paths.get(&address) {
                    Some(other) => {
                        if let Some(found) = path_differences(&record, &other.record) {
                            return Err(contradiction(other.folder, vec![found]));
                        }
                    }
                    None => _ = paths.insert(address, Found { record, folder: number }),
                }
            }
        }
    }
    Ok((fits, paths))
}

/// The plan's own parts, and those of the wider one that are `besides`.
fn both<'a, T>(
    plan: &'a Plan,
    wider: &'a Plan,
    parts: impl Fn(&'a Plan) -> &'a Vec<T>,
    is_besides: impl Fn(&T) -> bool,
) -> Vec<(&'a Plan, &'a T)> {
    let own = parts(plan).iter().map(|part| (plan, part));
    own.chain(parts(wider).iter().filter(|part| is_besides(part)).map(|part| (wider, part))).collect()
}

/// Copies a fit's files and its lines of figures, then its record. `contents`: files that are there by their SHA-256, so that
/// what was one file stays one.
fn bring(
    from: &ExperimentReader,
    dir: &mut ExperimentDir,
    record: &FitRecord,
    contents: &mut BTreeMap<String, PathBuf>,
) -> Result<(), Error> {
    for file in record.files.values() {
        let source = from.path().join(&file.path);
        let (sha256, _) = sha256_file(&source)?;
        let name = file.path.strip_prefix(&format!("{}/", record.address.folder()));
        let Some(name) = name.filter(|_| sha256 == file.sha256) else {
            let reason = match name {
                Some(_) => format!("its SHA-256 is {sha256}, its record has {}", file.sha256),
                None => format!("it is no file of {}, whose record names it", record.address),
            };
            return Err(Error::Damaged { path: source, reason });
        };
        let (path, _) = dir.prepare_file(&record.address, name)?;
        if let Some(folder) = path.parent() {
            remove_partial_files(folder)?;
        }
        link_or_copy(contents.get(&sha256).unwrap_or(&source), &path)?;
        contents.insert(sha256, path);
    }
    dir.drop_lines_after(&record.address, 0)?;
    for at in &record.history {
        dir.append(&MetricLine { fit: record.address.clone(), at: at.clone() })?;
    }
    dir.remove_checkpoint(&record.address)?;
    Ok(dir.write_record(record)?)
}

/// The plan's fits that could be there and are not: what rests on a failed one cannot.
fn missing(plan: &Plan, outcome: &Outcome) -> Vec<Address> {
    let record = |address: &Address| outcome.records.iter().find(|record| record.address == *address);
    let mut cannot: BTreeSet<&Address> =
        outcome.records.iter().filter(|record| !record.is_whole()).map(|record| &record.address).collect();
    let mut missing = Vec::new();
    for fit in &plan.fits {
        if record(&fit.address).is_some() {
            continue;
        }
        if fit.rests_on().iter().any(|needed| cannot.contains(needed)) {
            cannot.insert(&fit.address);
        } else {
            missing.push(fit.address.clone());
        }
    }
    missing
}

/// How many of the plan's paths could be there and are not: one to a failed fit cannot.
fn paths_missing(plan: &Plan, outcome: &Outcome) -> usize {
    let is_whole = |end: &Address| outcome.records.iter().any(|record| record.address == *end && record.is_whole());
    let is_there = |end: &Address| outcome.paths.iter().any(|path| path.ends[1] == *end);
    plan.paths.iter().filter(|path| path.ends.iter().all(is_whole) && !is_there(&path.ends[1])).count()
}

/// What the summaries say besides fits and paths, as one that was written before: data as the last seed saw them, programs,
/// machine, and the time that all fits took together: what their folders say of time may be of fits that are not here.
fn before(
    summaries: Vec<Option<Summary>>,
    plan: &Plan,
    fits: &Records<FitRecord>,
    paths: Vec<PathRecord>,
) -> Option<Summary> {
    let last_of = |seed: u64| fits.values().find(|found| found.record.address.seed == seed).map(|found| found.folder);
    let last = plan.work_items().iter().rev().find_map(|item| last_of(item.seed));
    let mut before =
        last.and_then(|last| summaries[last].clone()).or_else(|| summaries.iter().flatten().next().cloned())?;
    let (mut builds, mut machine): (Vec<BuildRecord>, Option<MachineRecord>) = Default::default();
    let of_fit = |record: &FitRecord| {
        let of_history = record.history.iter().map(|at| at.seconds + at.valid_seconds).sum::<f64>();
        of_history + record.overhead_seconds
    };
    let seconds = fits.values().map(|found| of_fit(&found.record)).sum();
    for summary in summaries.into_iter().flatten() {
        before.dataset.splits.extend(summary.dataset.splits);
        for build in summary.builds {
            if !builds.contains(&build) {
                builds.push(build);
            }
        }
        machine = match (machine, summary.machine) {
            (Some(one), Some(other)) => Some(joined(one, &other)),
            (one, other) => one.or(other),
        };
        before.started = before.started.into_iter().chain(summary.started).min();
        before.peak_memory_bytes = before.peak_memory_bytes.max(summary.peak_memory_bytes);
    }
    (before.builds, before.machine, before.wall_seconds, before.paths) = (builds, machine, Some(seconds), paths);
    Some(before)
}

/// Two machines as one record: what they differ in is named for both.
fn joined(one: MachineRecord, other: &MachineRecord) -> MachineRecord {
    let words = |one: String, other: &str| {
        // Either may be of several machines itself.
        other.split(" and ").fold(one, |one, word| match one.split(" and ").any(|known| known == word) {
            true => one,
            false => format!("{one} and {word}"),
        })
    };
    let maybe = |one: Option<String>, other: &Option<String>| match (one, other) {
        (Some(one), Some(other)) => Some(words(one, other)),
        (one, other) => one.or_else(|| other.clone()),
    };
    MachineRecord {
        device: words(one.device, &other.device),
        model: maybe(one.model, &other.model),
        platform: words(one.platform, &other.platform),
        n_threads: one.n_threads.max(other.n_threads),
        instruction_set: maybe(one.instruction_set, &other.instruction_set),
    }
}

/// Of the seed that a run in one piece would show: the first that has the last one's split.
fn bring_contact_sheet(
    folders: &[ExperimentReader],
    dir: &mut ExperimentDir,
    recorded: &Recorded,
    outcome: &Outcome,
) -> Result<(), Error> {
    let seeds = || outcome.records.iter().map(|record| record.address.seed);
    let split = seeds().next_back().map(|last| recorded.split_seed(last));
    let Some(seed) = seeds().find(|seed| Some(recorded.split_seed(*seed)) == split) else { return Ok(()) };
    let mut sheets = Vec::new();
    for folder in folders {
        sheets.extend(ContactSheet::read(folder.path())?.map(|sheet| (folder.path() == dir.path(), sheet)));
    }
    let shows = |sheet: &ContactSheet| sheet.networks.first().is_some_and(|network| network.seed == seed);
    let chosen = sheets.iter().find(|(_, sheet)| shows(sheet)).or(sheets.first());
    match chosen {
        Some((false, sheet)) => Ok(dir.write_contact_sheet(sheet)?),
        _ => Ok(()),
    }
}
