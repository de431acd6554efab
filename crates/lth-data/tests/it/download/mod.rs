//! Downloads from a server that does everything wrong, one thing at a time.

mod faults;
mod hostile;
mod processes;
mod published;
mod sources;
mod transfer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lth_data::download::{Cause, Check, Downloader, Error, Event, Fetched, Options, Proxies, Resource};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const ALL: usize = usize::MAX;

/// Bytes without a period, so that a shifted continuation is noticed.
fn bytes(n: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..n).map(|_| next()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn resource(urls: &[String], content: &[u8]) -> Resource {
    Resource {
        name: "file.bin".to_owned(),
        urls: urls.to_vec(),
        size: Some(content.len() as u64),
        most: 4 << 20,
        check: Check::Sha256(sha256(content)),
    }
}

/// Quick options that note every pause instead of pausing.
fn options() -> (Options, Arc<Mutex<Vec<Duration>>>) {
    let pauses = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&pauses);
    let options = Options {
        attempts: 4,
        stall: Duration::from_millis(400),
        connect: Duration::from_secs(2),
        spare: 0,
        proxies: Proxies::Direct,
        sleep: Arc::new(move |pause| noted.lock().unwrap().push(pause)),
        ..Options::default()
    };
    (options, pauses)
}

fn downloader(folder: &TempDir) -> Downloader {
    Downloader::new(folder.path(), options().0)
}

fn quiet(_: Event<'_>) {}

/// Every file below `folder`, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The only cause of an unavailable file.
#[track_caller]
fn only_cause(result: Result<Fetched, Error>) -> (Cause, u32) {
    match result {
        Err(Error::Unavailable { tried, .. }) if tried.len() == 1 => (tried[0].cause.clone(), tried[0].times),
        other => panic!("expected one failed address, got {other:?}"),
    }
}
