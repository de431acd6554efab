//! Runs that are killed, or that the system refuses to write for, and what is left of them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use clap::builder::PossibleValuesParser;
use lth_cli::console::Console;
use lth_cli::failure::{Blame, Failure, Kind, Result};
use lth_runs::Summary;
use lth_runs::experiment::{damaged_files, differences};

/// Kills runs with SIGKILL at moments spread evenly over their whole time, lets the same command line go on, and checks that
/// masks, weights and figures end as those of a run that nobody touched, to the last bit.
///
/// A run of `imp` (digits; a hook of each kind) and one of `reproduce` (drawn pets, the cache of decoded pictures among what
/// is interrupted). Then the same on 1, 2, 4 and 8 threads. Exit code 4 if any run ends otherwise.
///
/// `write` is a short `imp` whose first write fails, then one whose second fails, and so on until all have; `flush` is the
/// same of each flush to the disk, `renaming` of each renaming. None may panic, and the same command line must end as if
/// nothing had been. They need strace, which makes the calls fail.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask torture                             200 runs of each: hours
  cargo xtask torture --only imp --runs 3         as CI does it
  cargo xtask torture --only flush                every flush to the disk fails once")]
pub(crate) struct Options {
    /// Runs of each command that are killed, each once or several times; more where no kill meets the inside of a fit
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Kills of a run: as many as it has lives, one after the other
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    kills: u32,
    /// The run that is killed first, or the call that is refused first, to go on where another torture ended
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    from: u32,
    /// Only this [default: all]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(names()))]
    only: Option<String>,
}

/// The run that is refused: little of everything that is written.
const FAULTY: &str = "imp --preset lenet-digits --levels 1 --arms none --seeds 1 --length 2ep --checkpoint-every 0";

/// The calls of a kind, and the error that they give.
const CALLS: [(&str, &str, &str); 3] = [
    ("write", "write,writev,pwrite64", "ENOSPC"),
    ("flush", "fsync,fdatasync", "EIO"),
    ("renaming", "rename,renameat,renameat2", "EIO"),
];

/// What is run: a name, and the command line without --out.
const SUBJECTS: [(&str, &str); 2] = [
    (
        "imp",
        "imp --preset lenet-digits --levels 1 --arms agp,rigl,set,early-bird,snip --seeds 1 --length 2ep \
         --checkpoint-every 0",
    ),
    ("reproduce", "reproduce --dataset toy-pets --epochs 1,2,1,2,1 --no-controls --seeds 1 --checkpoint-every 0"),
];

fn names() -> impl Iterator<Item = &'static str> {
    SUBJECTS.into_iter().map(|(name, _)| name).chain(CALLS.map(|(name, ..)| name))
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(false);
    let folder = std::env::temp_dir().join(format!("lth-torture-{}", std::process::id()));
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| only == name);
    let killed = SUBJECTS.iter().filter(|(name, _)| wanted(name));
    let refused = CALLS.iter().filter(|(name, ..)| wanted(name));
    let done = killed
        .map(|subject| torture(subject, &folder, options, &console))
        .chain(refused.map(|calls| refuse(calls, options.from, &folder, &console)))
        .collect::<Result>();
    let _ = std::fs::remove_dir_all(&folder);
    done?;
    console.finish()
}

fn torture((name, command): &(&str, &str), folder: &Path, options: &Options, console: &Console) -> Result {
    let whole = folder.join(format!("{name}-whole"));
    let begun = Instant::now();
    finish(command, &folder.join("cache-whole"), &whole, 1).training()?;
    let took = begun.elapsed();
    let expected = summary(&whole)?;
    console.line(format!("{name}: {} fits in {:.1} s, untouched", expected.fits.len(), took.as_secs_f64()));

    let mut problems = Vec::new();
    let (mut n_killed, mut n_resumed, mut n_alike, mut n_runs) = (0, 0, 0, 0);
    let count = |n_alike, n_runs, n_killed, n_resumed| {
        format!(
            "{n_alike} of {n_runs} runs, killed {n_killed} times, ended with the same bits; {n_resumed} went on inside a fit"
        )
    };
    // A few runs may all be killed between two fits, or too late where the machine has more time for them than for the first.
    for run in options.from - 1.. {
        let is_enough = if n_resumed == 0 { options.runs.saturating_mul(10) } else { options.runs };
        if n_runs >= is_enough {
            break;
        }
        n_runs += 1;
        let (out, cache) = (folder.join(format!("{name}-{run}")), folder.join(format!("cache-{run}")));
        for kill in 0..options.kills {
            // Moments by the golden ratio: as even as any, for any number of runs.
            let moment = f64::from(run) * f64::from(options.kills) + f64::from(kill);
            let share = (moment * 0.618_033_988_749_895).fract();
            n_killed += u32::from(kill_after(command, &cache, &out, took.mul_f64(share)).training()?);
        }
        n_resumed += u32::from(finish(command, &cache, &out, 1).training()?);
        let found = verdict(&out, &expected)?;
        n_alike += u32::from(found.is_empty());
        problems.extend(found.into_iter().map(|found| format!("run {run}: {found}")));
        for folder in [&out, &cache] {
            let _ = std::fs::remove_dir_all(folder);
        }
        if n_runs % 20 == 0 {
            console.line(format!("{name}: so far {}", count(n_alike, n_runs, n_killed, n_resumed)));
        }
    }
    console.line(format!("{name}: {}", count(n_alike, n_runs, n_killed, n_resumed)));
    if n_killed == 0 || n_resumed == 0 {
        problems.push("no run was killed inside a fit: nothing was tried".to_owned());
    }
    for threads in [2, 4, 8] {
        let out = folder.join(format!("{name}-on-{threads}"));
        finish(command, &folder.join("cache-whole"), &out, threads).training()?;
        let found = verdict(&out, &expected)?;
        if found.is_empty() {
            console.line(format!("{name}: the same bits on {threads} threads"));
        }
        problems.extend(found.into_iter().map(|found| format!("on {threads} threads: {found}")));
    }
    if let Some(first) = problems.first() {
        let n = problems.len();
        return Err(discrepancy(format!("{n} discrepancies: {name}, {first}")));
    }
    Ok(())
}

/// Runs that the system refuses one call of a kind: the first, then the second, until it has none left to refuse.
fn refuse((name, calls, error): &(&str, &str, &str), from: u32, folder: &Path, console: &Console) -> Result {
    let (cache, whole, trace) = (folder.join("cache-faults"), folder.join("faults-whole"), folder.join("trace"));
    finish(FAULTY, &cache, &whole, 1).training()?;
    let expected = summary(&whole)?;
    let (mut n_refused, mut n_failed) = (0, 0);
    for nth in from.. {
        let out = folder.join(format!("faults-{nth}"));
        let plain = lth(FAULTY, &cache, &out, 1).training()?;
        let mut refused = Command::new("strace");
        refused.args(["-f", "-qq", "--seccomp-bpf", "-o"]).arg(&trace);
        refused.arg("-e").arg(format!("inject={calls}:error={error}:when={nth}"));
        refused.arg(plain.get_program()).args(plain.get_args()).env("LTH_CACHE", &cache);
        let ended = refused.output().context("strace, which makes system calls fail: is it installed?").data()?;
        let refusals = std::fs::read_to_string(&trace).context("what strace has written").data()?;
        if !refusals.contains("(INJECTED)") {
            break;
        }
        n_refused += 1;
        let said = String::from_utf8_lossy(&ended.stderr);
        let last = || said.lines().last().unwrap_or_default().to_owned();
        // What cannot be shown is no failure; what cannot be stored is one of files.
        match ended.status.code() {
            Some(0) => {}
            Some(3) => n_failed += 1,
            _ => return Err(discrepancy(format!("{name} {nth} refused: {}, {}", ended.status, last()))),
        }
        finish(FAULTY, &cache, &out, 1)
            .with_context(|| format!("after {name} {nth} was refused: {}", last()))
            .training()?;
        if let Some(found) = verdict(&out, &expected)?.first() {
            return Err(discrepancy(format!("after {name} {nth} was refused: {found}")));
        }
        std::fs::remove_dir_all(&out).context("a folder of ours").data()?;
        if nth % 50 == 0 {
            console.line(format!("{name}: refused up to the {nth}th, in a run each"));
        }
    }
    if n_failed == 0 {
        return Err(discrepancy(format!("no refused {name} ended a run: nothing was tried")));
    }
    console.line(format!(
        "{name}: refused in {n_refused} runs, of which it ended {n_failed}; all went on to the same bits"
    ));
    Ok(())
}

fn discrepancy(found: String) -> Failure {
    Failure::new(Kind::Training, anyhow::anyhow!(found))
}

fn lth(command: &str, cache: &Path, out: &Path, threads: u32) -> anyhow::Result<Command> {
    let mut lth = Command::new(std::env::current_exe()?);
    lth.args(command.split_whitespace()).arg("--out").arg(out).arg("--threads").arg(threads.to_string());
    lth.env("LTH_CACHE", cache).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(lth)
}

/// Lets it run to its end. Whether it went on from a checkpoint.
fn finish(command: &str, cache: &Path, out: &Path, threads: u32) -> anyhow::Result<bool> {
    let output = lth(command, cache, out, threads)?.output().context("starting the command")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", output.status, said.lines().last().unwrap_or_default());
    Ok(said.contains("goes on from its checkpoint"))
}

/// Whether it was still running then.
fn kill_after(command: &str, cache: &Path, out: &Path, moment: Duration) -> anyhow::Result<bool> {
    let mut child = lth(command, cache, out, 1)?.stderr(Stdio::null()).spawn().context("starting the command")?;
    std::thread::sleep(moment);
    child.kill()?;
    Ok(child.wait()?.code().is_none())
}

fn summary(folder: &Path) -> Result<Summary> {
    Summary::read(&folder.join("summary.json")).data()
}

/// What is not as it was to be.
fn verdict(out: &Path, expected: &Summary) -> Result<Vec<String>> {
    let got = summary(out)?;
    let (mut found, alone) = differences(&got, expected);
    found.extend(damaged_files(out, &got));
    let mut all: Vec<String> = found.iter().map(ToString::to_string).collect();
    all.extend(alone.iter().map(|fit| format!("{fit} is in one of them only")));
    Ok(all)
}
