//! Tells the program what it is built from: commit, compiler, candle.
//!
//! It runs again when a commit is made or taken out, and when a source of the program changes, which compiles the program
//! again anyway; not at every build.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default();
    let root = crates.parent().map(Path::to_path_buf).unwrap_or_default();
    let (commit, is_modified) = match commit(&root, &crates) {
        Some((commit, is_modified)) => (commit, is_modified),
        None => (String::new(), false),
    };
    let compiler = std::env::var("RUSTC").ok().and_then(|rustc| output(Command::new(rustc).arg("--version")));
    let candle = candle(&root);
    let short = if commit.is_empty() { "unknown" } else { commit.get(..12).unwrap_or(&commit) };
    let about = [Some(format!("commit {short}{}", if is_modified { ", modified" } else { "" })), compiler.clone()];
    let about = about.into_iter().chain([candle.as_ref().map(|version| format!("candle {version}"))]);
    for (name, value) in [
        ("LTH_ABOUT", about.flatten().collect::<Vec<_>>().join(", ")),
        ("LTH_COMMIT", commit.clone()),
        ("LTH_MODIFIED", if is_modified { "yes".into() } else { String::new() }),
        ("LTH_RUSTC", compiler.unwrap_or_default()),
        ("LTH_CANDLE", candle.unwrap_or_default()),
    ] {
        println!("cargo::rustc-env={name}={value}");
    }
}

/// The commit of the working tree, and whether what the program is made of differs from it; `None` if this is no working tree
/// of the project (a package, or one inside somebody else's repository).
fn commit(root: &Path, crates: &Path) -> Option<(String, bool)> {
    let git = |arguments: &[&str]| output(Command::new("git").arg("-C").arg(root).args(arguments));
    git(&["ls-files", "--error-unmatch", "crates/lth-cli/build.rs"])?;
    // A line is added to it by whatever moves HEAD, on a branch or not. Where it is not kept, the files that HEAD names.
    let names = ["logs/HEAD", "HEAD", "packed-refs"].map(str::to_owned).into_iter();
    let watched = names.chain(git(&["symbolic-ref", "--quiet", "HEAD"]));
    let paths = watched.filter_map(|name| git(&["rev-parse", "--git-path", &name])).map(|path| root.join(path));
    // cargo takes a file that is not there for one that has changed.
    paths.filter(|path| path.exists()).for_each(|path| watch(&path));
    let sources = sources(root, crates);
    sources.iter().for_each(|path| watch(path));
    let commit = git(&["rev-parse", "HEAD"])?;
    let status = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["--no-optional-locks", "status", "--porcelain", "--"])
        .args(&sources)
        .output()
        .ok()
        .filter(|status| status.status.success())?;
    Some((commit, !status.stdout.is_empty()))
}

/// What the program is made of: manifests and sources, no tests.
fn sources(root: &Path, crates: &Path) -> Vec<PathBuf> {
    let mut sources = vec![root.join("Cargo.toml"), root.join("Cargo.lock")];
    for folder in std::fs::read_dir(crates).into_iter().flatten().flatten().map(|entry| entry.path()) {
        sources.extend([folder.join("Cargo.toml"), folder.join("src")]);
    }
    // Not a part of it.
    sources.retain(|path| path.exists() && !path.starts_with(crates.join("parity")));
    sources.sort();
    sources
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

/// The version that the lock file has.
fn candle(root: &Path) -> Option<String> {
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).ok()?;
    let (_, after) = lock.split_once("name = \"candle-core\"\nversion = \"")?;
    Some(after.split_once('"')?.0.to_owned())
}

/// The first line of what a command says, if it ends well and says something.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let line = String::from_utf8(output.stdout).ok()?.lines().next()?.trim().to_owned();
    Some(line).filter(|line| !line.is_empty())
}
