//! What was run, on what, with what: all that is needed to do it again.

use crate::experiment::Summary;
use crate::lines::grouped;
use crate::page::Block;
use crate::provenance::{BuildRecord, Checked, OptimizerState};
use crate::table::{Align, Table};

use super::format::{bytes, counted, date, duration, share};
use super::table;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    blocks.extend(table("Arms", arms(summary)));
    if !summary.command.is_empty() {
        blocks.push(Block::Code(command(&summary.command)));
    }
    blocks.extend(table("", setting(summary)));
    blocks.extend(table("Data files", data_files(summary)));
    if let Some(block) = table("", splits(summary)) {
        let heading = counted(summary.dataset.splits.len(), "split");
        blocks.push(Block::Details { summary: heading, blocks: vec![block] });
    }
    if let Some(block) = table("", classes(summary)) {
        let heading = format!("Classes ({})", summary.dataset.classes.len());
        blocks.push(Block::Details { summary: heading, blocks: vec![block] });
    }
    if let Ok(config) = serde_json::to_string_pretty(&summary.experiment.config) {
        blocks.push(Block::Details { summary: "Configuration".into(), blocks: vec![Block::Code(config)] });
    }
    blocks
}

fn arms(summary: &Summary) -> Table {
    let mut table =
        Table::new([("arm", Align::Left), ("what it is", Align::Left), ("if the ticket is better", Align::Left)]);
    for arm in &summary.arms {
        table.push([&arm.name, &arm.title, &arm.meaning]);
    }
    table
}

/// The command as a shell would take it.
fn command(words: &[String]) -> String {
    let is_plain = |word: &str| {
        !word.is_empty()
            && word.chars().all(|character| character.is_ascii_alphanumeric() || "-_=./,:+@%".contains(character))
    };
    let quoted =
        |word: &String| if is_plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

fn setting(summary: &Summary) -> Table {
    let mut table = Table::new([("what", Align::Left), ("value", Align::Left)]);
    let mut row = |what: &str, value: String| table.push([what.to_owned(), value]);
    let dataset = &summary.dataset;
    if !summary.experiment.identity.is_empty() {
        row("experiment", format!("{}, {}", summary.experiment.name, summary.experiment.identity));
    }
    row("software", summary.software.clone());
    for build in &summary.builds {
        row("trained by", built(build));
    }
    row("data", format!("{}: {} ({})", dataset.name, dataset.source, checked(dataset.checked)));
    if let Some(checksum) = &dataset.checksum {
        row("data checksum", checksum.clone());
    }
    if let Some(mirror) = &dataset.mirror {
        let sums = match &mirror.sha256sums {
            Some(sums) => format!("with its own SHA256SUMS ({} files)", sums.len()),
            None => "without SHA256SUMS of its own".into(),
        };
        row("mirror", format!("{}, {sums}", mirror.url));
    }
    let test = if dataset.n_test > 0 { format!(", {} test", grouped(dataset.n_test)) } else { String::new() };
    row("examples", format!("{} training, {} validation{test}", grouped(dataset.n_train), grouped(dataset.n_valid)));
    row(
        "starting weights",
        match &summary.weights {
            None => "drawn at random".into(),
            Some(weights) => {
                let sum = weights.sha256.as_ref().map_or(String::new(), |sum| format!(", SHA-256 {sum}"));
                format!("{}: {} ({}){sum}", weights.name, weights.source, checked(weights.checked))
            }
        },
    );
    row(
        "optimiser",
        match summary.conditions.optimizer_state {
            OptimizerState::Fresh => "fresh in every fit".into(),
            OptimizerState::Carried => "carried from fit to fit".into(),
        },
    );
    if let Some(machine) = &summary.machine {
        let model = machine.model.as_ref().map_or(String::new(), |model| format!(" ({model})"));
        let threads = if machine.n_threads == 1 { "thread" } else { "threads" };
        let set = machine.instruction_set.as_ref().map_or(String::new(), |set| format!(", kernels for {set}"));
        row(
            "machine",
            format!("{}{model}, {}, {} {threads}{set}", machine.device, machine.platform, machine.n_threads),
        );
    }
    if !summary.earlier.is_empty() {
        row("from earlier commands", earlier(summary));
    }
    if let Some(started) = summary.started {
        row("started", date(started));
    }
    if let Some(wall) = summary.wall_seconds {
        row("wall time", duration(wall));
    }
    if let Some(peak) = summary.peak_memory_bytes {
        row("peak memory", bytes(peak));
    }
    let waited: f64 = summary.fits.iter().filter_map(|fit| fit.wait_seconds).sum();
    let trained: f64 = summary.fits.iter().map(crate::experiment::FitRecord::seconds).sum();
    if summary.fits.iter().any(|fit| fit.wait_seconds.is_some()) && trained > 0.0 {
        row("waiting for data", format!("{}, {} % of training", duration(waited), share(waited / trained)));
    }
    table
}

/// "lth 0.1.0, commit 8c9a131… with changes, rustc 1.95.0, candle 0.11.1"
fn built(build: &BuildRecord) -> String {
    let mut words = vec![build.software.clone()];
    let changes = if build.is_modified { ", with changes that are in no commit" } else { "" };
    words.push(match &build.commit {
        Some(commit) => format!("commit {commit}{changes}"),
        None => "commit unknown".into(),
    });
    words.extend(build.compiler.clone());
    words.extend(build.candle.as_ref().map(|version| format!("candle {version}")));
    words.join(", ")
}

/// "15 fits that the last command did not ask for, shown like all others: random (5), shuffled (10)"
fn earlier(summary: &Summary) -> String {
    let of = |arm: &str| summary.earlier.iter().filter(|address| address.arm == arm).count();
    let arms = summary.arms.iter().map(|arm| (&arm.name, of(&arm.name))).filter(|(_, n)| *n > 0);
    let arms: Vec<String> = arms.map(|(name, n)| format!("{name} ({n})")).collect();
    let n = counted(summary.earlier.len(), "fit");
    format!("{n} that the last command did not ask for, shown like all others: {}", arms.join(", "))
}

fn splits(summary: &Summary) -> Table {
    let mut table = Table::new([("split of seed", Align::Left), ("SHA-256", Align::Left)]);
    for (seed, sha256) in &summary.dataset.splits {
        table.push([seed.to_string(), sha256.clone()]);
    }
    table
}

fn data_files(summary: &Summary) -> Table {
    let mut table = Table::new([
        ("file", Align::Left),
        ("bytes", Align::Right),
        ("SHA-256", Align::Left),
        ("compared", Align::Left),
    ]);
    for file in &summary.dataset.files {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".into());
        table.push([file.name.clone(), grouped(file.bytes), text(&file.sha256), text(&file.checked)]);
    }
    table
}

fn classes(summary: &Summary) -> Table {
    let mut table = Table::new([("class", Align::Left), ("training", Align::Right), ("validation", Align::Right)]);
    for class in &summary.dataset.classes {
        table.push([class.name.clone(), grouped(class.n_train), grouped(class.n_valid)]);
    }
    table
}

fn checked(checked: Checked) -> &'static str {
    match checked {
        Checked::Published => "checked against published checksums",
        Checked::PublishedPart => "checked in part against published checksums",
        Checked::Mirror => "checked against the mirror's checksums",
        Checked::Made => "made by this software",
        Checked::No => "not checked",
    }
}
