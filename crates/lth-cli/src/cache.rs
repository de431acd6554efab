//! `lth cache`: what was downloaded, drawn and decoded, and its removal.

use std::collections::BTreeSet;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use lth_data::{ByteSize, CacheEntry, DatasetName, cache_dir, cache_entries, cache_limit};
use lth_files::on_one_line;
use lth_runs::table::{Align, Table};

use crate::console::Console;
use crate::failure::{Blame, Failure, Kind, Result};

/// Lists or removes what the cache holds: downloads, drawn and decoded pictures. All of it can be made or fetched again.
///
/// The cache is in LTH_CACHE, or in the system's folder for caches. LTH_CACHE_LIMIT (such as 5GB) is the most that decoded
/// pictures may take there.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth cache list
  lth cache clean cifar-10 --dry-run
  lth cache clean --all")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Lists what is there: what it is, its size, when it was last used
    List,
    /// Removes what the cache wrote, and nothing else
    Clean(Clean),
}

#[derive(Args)]
struct Clean {
    /// Data sets, or names that `lth cache list` shows
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// Remove everything
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(false);
    let folder = cache_dir().data()?;
    let entries = cache_entries(&folder).data()?;
    match &options.action {
        Action::List => {
            let limit = cache_limit().usage()?.map_or_else(String::new, |limit| format!(", LTH_CACHE_LIMIT {limit}"));
            console.line(format!("{}: {}{limit}", on_one_line(&folder.display().to_string()), total(&entries)));
            if !entries.is_empty() {
                console.line(table(&entries).plain().trim_end());
            }
        }
        Action::Clean(options) => clean(&console, &chosen(entries, options)?, options.dry_run)?,
    }
    console.finish()
}

fn clean(console: &Console, entries: &[CacheEntry], dry_run: bool) -> Result {
    let (mut removed, mut failures) = (Vec::new(), Vec::new());
    for entry in entries {
        match if dry_run { Ok(()) } else { entry.remove() } {
            Ok(()) => {
                let verb = if dry_run { "would remove" } else { "removed" };
                console.line(format!("{verb} {} ({})", on_one_line(&entry.name), ByteSize(entry.n_bytes)));
                removed.push(entry.clone());
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    console.line(format!("{}: {}", if dry_run { "would free" } else { "freed" }, total(&removed)));
    if failures.is_empty() {
        return Ok(());
    }
    let message = format!("{} of {} are not removed: {}", failures.len(), entries.len(), failures.join("; "));
    Err(Failure::new(Kind::Data, anyhow::anyhow!(message)))
}

/// What the options name. A data set need not be there.
fn chosen(entries: Vec<CacheEntry>, options: &Clean) -> Result<Vec<CacheEntry>> {
    let mut datasets = BTreeSet::new();
    for name in &options.names {
        match name.parse::<DatasetName>() {
            Ok(dataset) => drop(datasets.insert(dataset)),
            Err(_) if entries.iter().any(|entry| entry.name == *name) => {}
            Err(_) => {
                return Err(Failure::usage(format!(
                    "`{name}` is neither a data set nor in the cache: `lth cache list` shows what is there"
                )));
            }
        }
    }
    let is_chosen = |entry: &CacheEntry| {
        options.all
            || options.names.contains(&entry.name)
            || entry.datasets.iter().any(|dataset| datasets.contains(dataset))
    };
    Ok(entries.into_iter().filter(is_chosen).collect())
}

fn total(entries: &[CacheEntry]) -> String {
    let n_bytes = entries.iter().map(|entry| entry.n_bytes).sum();
    format!("{} {}, {}", entries.len(), if entries.len() == 1 { "entry" } else { "entries" }, ByteSize(n_bytes))
}

fn table(entries: &[CacheEntry]) -> Table {
    let mut table = Table::new([
        ("name", Align::Left),
        ("what", Align::Left),
        ("data sets", Align::Left),
        ("size", Align::Right),
        ("last used", Align::Right),
    ]);
    for entry in entries {
        let datasets: Vec<&str> = entry.datasets.iter().map(|dataset| dataset.as_str()).collect();
        table.push([
            entry.name.clone(),
            entry.kind.to_string(),
            datasets.join(", "),
            ByteSize(entry.n_bytes).to_string(),
            entry.last_used.map_or_else(String::new, ago),
        ]);
    }
    table
}

/// "today", "3 days ago"; nothing of a time to come.
fn ago(time: SystemTime) -> String {
    let days = SystemTime::now().duration_since(time).map(|passed| passed.as_secs() / 86_400);
    match days {
        Ok(0) => "today".to_owned(),
        Ok(1) => "a day ago".to_owned(),
        Ok(days) => format!("{days} days ago"),
        Err(_) => String::new(),
    }
}
