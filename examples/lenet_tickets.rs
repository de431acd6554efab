//! Do LeNet's tickets win on handwritten digits? Five seeds, and every control of the first rank. With so few hardly a
//! difference is shown after correction; the ten of `lth imp --preset lenet-digits` show some (docs/results.md).
//!
//! `cargo run --example lenet_tickets`
#![allow(clippy::print_stdout)] // an example talks to its reader

use std::time::Instant;

use anyhow::Result;
use lth_experiment::{Host, Notice, preset};
use lth_runs::experiment::{Analysis, ArmRole, Compared, Summary};
use lth_runs::statistics::{Claim, VerdictKind};
use lth_runs::{Existing, report};

fn main() -> Result<()> {
    let start = Instant::now();
    // LeNet-300-100 as Frankle & Carbin have it; here on 1,797 digits of 8×8.
    let mut experiment = preset("lenet-digits")?;
    experiment.imp.seeds.truncate(5);
    let plan = experiment.plan()?;
    println!("{} fits of {} each; the arms:", plan.fits.len(), plan.training.length);
    for arm in &plan.arms {
        println!("   {:14} {}", arm.name, arm.title);
    }

    let folder = tempfile::tempdir()?;
    let mut dir = experiment.open_dir(folder.path().join("digits"), Existing::Refuse)?;
    let mut observer = |notice: &Notice<'_>| {
        if let Notice::Ended { record } = notice
            && record.address.arm == "ticket"
        {
            let density = 100.0 * (1.0 - record.measured_sparsity().unwrap_or(0.0));
            let accuracy = 100.0 * record.metric("accuracy").unwrap_or(0.0);
            println!("{:14} {density:5.1} % of the weights, {accuracy:.1} % right", record.address.to_string());
        }
    };
    let mut watch = |_: lth_data::Opening<'_>| {};
    let host = Host::new(folder.path().join("cache"), &mut watch, &mut observer);
    let (summary, _) = experiment.run(&mut dir, host)?;

    println!("\n{}", report::overview(&summary));
    println!("{}", who_won(&summary));
    println!("{:.0} s in all", start.elapsed().as_secs_f64());
    Ok(())
}

/// At which levels the ticket beats whom. A ticket wins as its paper means it where it is as good as the whole network and
/// better than the same mask on other initial weights.
fn who_won(summary: &Summary) -> String {
    let analysis = Analysis::of(summary);
    let levels = |arm: &str, kind: VerdictKind| -> Vec<u32> {
        let metric = |asked: &Compared| *asked == Compared::Metric;
        let found =
            analysis.comparisons.iter().filter(|c| c.arm == arm && metric(&c.compared) && c.verdict.kind == kind);
        found.map(|comparison| comparison.level).collect()
    };
    let words = |levels: &[u32]| match levels {
        [] => "at no level".to_owned(),
        levels => format!("at level {}", levels.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
    };
    let mut text = String::new();
    for arm in summary.arms.iter().filter(|arm| arm.role == ArmRole::Control) {
        let (won, lost) = (levels(&arm.name, VerdictKind::Higher), levels(&arm.name, VerdictKind::Lower));
        text += &format!("against {:14} the ticket wins {}, loses {}\n", arm.name, words(&won), words(&lost));
    }
    let margin = analysis.comparisons.iter().find_map(|comparison| match comparison.verdict.claim {
        Claim::AtLeastAsGood { margin } => Some(100.0 * margin),
        _ => None,
    });
    let as_good = levels("dense", VerdictKind::AtLeastAsGood);
    let margin = margin.map_or_else(String::new, |margin| format!(" within {margin} points"));
    text += &format!("against {:14} it is as good{margin} {}\n", "dense", words(&as_good));
    let reinitialised = levels("reinitialised", VerdictKind::Higher);
    let winning: Vec<u32> = as_good.into_iter().filter(|level| reinitialised.contains(level)).collect();
    text + &format!("winning tickets, by both the last and the initial weights: {}", words(&winning))
}
