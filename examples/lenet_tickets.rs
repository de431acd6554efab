//! Do LeNet's tickets win on handwritten digits? Ten seeds, and every control of the first rank.
//!
//! `cargo run --example lenet_tickets`
#![allow(clippy::print_stdout)] // an example talks to its reader

use std::time::Instant;

use anyhow::Result;
use lth_experiment::{Host, Notice, preset};
use lth_runs::{Existing, report};

fn main() -> Result<()> {
    let start = Instant::now();
    // LeNet-300-100 as Frankle & Carbin have it; here on 1,797 digits of 8×8.
    let experiment = preset("lenet-digits")?;
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
    println!("{:.0} s in all", start.elapsed().as_secs_f64());
    Ok(())
}
