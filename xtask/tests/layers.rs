//! The walls between the crates: which may depend on which of ours, and what stays out of libraries.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::MetadataCommand;

/// What each crate may depend on of ours, as in `docs/architecture.md`. Dev-dependencies obey the same table.
const ALLOWED: [(&str, &[&str]); 12] = [
    ("lth-files", &[]),
    ("lth-schedule", &[]),
    ("lth-criteria", &[]),
    ("lth-mask", &[]),
    ("lth-kernels", &[]),
    ("lth-data", &[]),
    ("lth-runs", &["lth-files"]),
    ("lth-train", &["lth-files", "lth-kernels", "lth-schedule"]),
    ("lth-nn", &["lth-files", "lth-kernels", "lth-schedule", "lth-train"]),
    ("lth-ticket", &["lth-criteria", "lth-files", "lth-mask", "lth-runs", "lth-schedule", "lth-train"]),
    ("lth-experiment", &LIBRARIES),
    ("lth", &ALL),
];

/// What an experiment is made of.
const LIBRARIES: [&str; 10] = [
    "lth-criteria",
    "lth-data",
    "lth-files",
    "lth-kernels",
    "lth-mask",
    "lth-nn",
    "lth-runs",
    "lth-schedule",
    "lth-ticket",
    "lth-train",
];

/// What the facade shows.
const ALL: [&str; 11] = [
    "lth-criteria",
    "lth-data",
    "lth-experiment",
    "lth-files",
    "lth-kernels",
    "lth-mask",
    "lth-nn",
    "lth-runs",
    "lth-schedule",
    "lth-ticket",
    "lth-train",
];

/// Whether a member is one of our libraries; `lth-cli` is commands.
fn is_library(name: &str) -> bool {
    name == "lth" || (name.starts_with("lth-") && name != "lth-cli")
}

/// Kept out of libraries.
const BINARIES_ONLY: [&str; 6] =
    ["anyhow", "clap", "indicatif", "tracing-subscriber", "candle-transformers", "candle-datasets"];

/// Every member with its direct dependencies of all kinds.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata runs");
    let names = |dependencies: Vec<cargo_metadata::Dependency>| dependencies.into_iter().map(|d| d.name).collect();
    metadata.packages.into_iter().map(|package| (package.name.to_string(), names(package.dependencies))).collect()
}

#[test]
fn every_crate_keeps_to_its_layer() {
    let packages = dependencies();
    for (name, allowed) in ALLOWED {
        let ours = packages[name].iter().filter(|dependency| dependency.starts_with("lth-"));
        let forbidden: Vec<_> = ours.filter(|dependency| !allowed.contains(&dependency.as_str())).collect();
        assert!(forbidden.is_empty(), "{name} depends on {forbidden:?}");
    }
}

#[test]
fn every_library_is_in_the_table() {
    let libraries: BTreeSet<_> = dependencies().into_keys().filter(|name| is_library(name)).collect();
    assert_eq!(libraries, ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect());
}

#[test]
fn what_belongs_to_binaries_stays_out_of_libraries() {
    for (name, dependencies) in dependencies().iter().filter(|(name, _)| is_library(name)) {
        let found: Vec<_> = BINARIES_ONLY.iter().filter(|other| dependencies.contains(**other)).collect();
        assert!(found.is_empty(), "{name} depends on {found:?}");
    }
}

#[test]
fn files_and_reports_need_no_candle() {
    for name in ["lth-files", "lth-runs"] {
        assert!(dependencies()[name].iter().all(|name| !name.starts_with("candle")), "{name}");
    }
}

#[test]
fn candle_transformers_is_in_parity_alone() {
    for (name, dependencies) in dependencies() {
        assert_eq!(dependencies.contains("candle-transformers"), name == "parity", "{name}");
    }
}
