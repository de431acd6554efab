//! The pruning toolkit's crates by themselves: what their users get who want no other crate of this project.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{MetadataCommand, Package};

/// What none of them may bring along.
const HEAVY: [&str; 8] = [
    "anyhow",
    "candle-datasets",
    "candle-nn",
    "candle-transformers",
    "clap",
    "indicatif",
    "tokio",
    "tracing-subscriber",
];

struct Alone {
    /// The crate and what its one user writes.
    name: &'static str,
    program: &'static str,
    /// Everything that it depends on directly.
    dependencies: &'static [&'static str],
}

const CRATES: [Alone; 3] = [
    Alone {
        name: "lth-schedule",
        program: "lth_schedule::Sparsity::from_percent(80.0).map(|_| ())?;",
        dependencies: &["serde", "thiserror"],
    },
    Alone {
        name: "lth-criteria",
        program: "lth_criteria::by_name(\"large_final\", 0).map(|_| ())?;",
        dependencies: &["candle-core", "rand", "rand_chacha", "rayon", "thiserror"],
    },
    Alone {
        name: "lth-mask",
        program: "lth_mask::Mask::all_kept([2, 3]).map(|_| ())?;",
        dependencies: &[
            "candle-core",
            "rand",
            "rand_chacha",
            "rayon",
            "safetensors",
            "serde",
            "serde_json",
            "sha2",
            "tempfile",
            "thiserror",
        ],
    },
];

#[test]
fn each_crate_of_the_toolkit_builds_in_a_project_of_its_own() {
    for alone in &CRATES {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let manifest = write_project(folder.path(), alone);
        let packages = packages(&manifest);
        let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        let ours: Vec<&str> = names.iter().copied().filter(|name| name.starts_with("lth-")).collect();
        assert_eq!(ours, [alone.name], "crates of this project in the tree of {}", alone.name);
        for heavy in HEAVY {
            assert!(!names.contains(heavy), "{heavy} is in the tree of {}", alone.name);
        }
        let has_candle = alone.dependencies.contains(&"candle-core");
        assert_eq!(names.contains("candle-core"), has_candle, "candle-core in the tree of {}", alone.name);

        let package =
            packages.iter().find(|package| package.name.as_str() == alone.name).expect("it is in its own tree");
        let normal = package.dependencies.iter().filter(|d| d.kind == cargo_metadata::DependencyKind::Normal);
        let unknown: Vec<&str> =
            normal.map(|d| d.name.as_str()).filter(|name| !alone.dependencies.contains(name)).collect();
        assert!(unknown.is_empty(), "{} depends on {unknown:?} too: a small utility? then list it here", alone.name);

        check(&manifest, alone);
    }
}

/// A project with one dependency and the workspace's lock file, so that every crate is one already downloaded.
fn write_project(folder: &Path, alone: &Alone) -> PathBuf {
    let workspace = workspace();
    let crate_path = workspace.join("crates").join(alone.name);
    let manifest = folder.join("Cargo.toml");
    let text = format!(
        "[package]\nname = \"alone\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\n{} = {{ path = {crate_path:?} }}\n\n\
         [workspace]\n",
        alone.name
    );
    let program =
        format!("fn main() -> Result<(), Box<dyn std::error::Error>> {{\n    {}\n    Ok(())\n}}\n", alone.program);
    std::fs::create_dir(folder.join("src")).expect("a new folder");
    std::fs::write(&manifest, text).expect("manifest written");
    std::fs::write(folder.join("src/main.rs"), program).expect("program written");
    std::fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock")).expect("lock file copied");
    manifest
}

/// All packages that are built with the project.
fn packages(manifest: &Path) -> Vec<Package> {
    // Of this platform alone: what others need has not been downloaded.
    let options = ["--offline", "--filter-platform", &host()].map(str::to_owned).to_vec();
    let metadata = MetadataCommand::new().manifest_path(manifest).other_options(options).exec().expect("metadata");
    let resolve = metadata.resolve.as_ref().expect("metadata without --no-deps has it");
    // From the root along normal dependencies: a build script's or a test's are not the user's.
    let mut reached = BTreeSet::new();
    let mut open: Vec<_> = resolve.root.iter().cloned().collect();
    while let Some(id) = open.pop() {
        if !reached.insert(id.clone()) {
            continue;
        }
        let node = resolve.nodes.iter().find(|node| node.id == id).expect("every package has a node");
        let is_normal = |d: &&cargo_metadata::NodeDep| {
            d.dep_kinds.iter().any(|kind| kind.kind == cargo_metadata::DependencyKind::Normal)
        };
        open.extend(node.deps.iter().filter(is_normal).map(|dep| dep.pkg.clone()));
    }
    metadata.packages.iter().filter(|package| reached.contains(&package.id)).cloned().collect()
}

/// Compiles it as far as `cargo check` does. The three share a target folder inside the workspace's, which is kept.
fn check(manifest: &Path, alone: &Alone) {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(target.join("alone"))
        // Without line tables and optimisation, which check does not need, whatever the caller's settings.
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{} alone:\n{}", alone.name, String::from_utf8_lossy(&output.stderr));
}

fn workspace() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies in the workspace").to_owned()
}

/// The platform that this runs on, as cargo calls it.
fn host() -> String {
    let output = Command::new(env!("CARGO")).arg("-vV").output().expect("cargo starts");
    let text = String::from_utf8(output.stdout).expect("cargo speaks UTF-8");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo says where it runs").to_owned()
}
