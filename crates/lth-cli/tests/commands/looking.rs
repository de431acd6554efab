//! What is asked of networks that are trained: are they connected, and what do they mind.

use std::path::Path;

use lth_runs::Summary;
use serde_json::Value;

use crate::{Result, run, stderr};

/// LeNet on the embedded digits for an epoch, one level, one seed.
const SHORT: &str = "--preset lenet-digits --length 1ep --seeds 1 --threads 1";

/// The exit code, and that what was said holds `expected`.
fn check(output: &std::process::Output, code: i32, expected: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(expected) && !said.contains("panicked"), "{said}");
}

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn summary(folder: &Path) -> Result<Summary> {
    Ok(Summary::read(&folder.join("run/summary.json"))?)
}

#[test]
fn connectivity_adds_paths_to_an_experiment_and_does_nothing_twice() -> Result {
    let folder = tempfile::tempdir()?;
    let imp = format!("imp {SHORT} --levels 1 --arms random --out run");
    check(&run(folder.path(), &imp)?, 0, "");
    let command = format!("connectivity {SHORT} --steps 0ep,5it --levels 0,1 --points 3 --out run");
    let output = run(folder.path(), &command)?;
    check(&output, 0, "");
    let table = stdout(&output);
    assert!(
        table.contains("instability, points") && table.contains("path from dense/0/0 to copy-1-5it/0/0"),
        "{table}"
    );
    let found = summary(folder.path())?;
    assert_eq!(found.paths.len(), 4);
    // The controls that were there are there still.
    assert!(found.arm("random").is_some() && found.arm("copy-2-5it").is_some());
    let report = std::fs::read_to_string(folder.path().join("run/report.html"))?;
    assert!(report.contains("Instability against the step") && report.contains("Error between two copies: dense"));

    let again = run(folder.path(), &command)?;
    check(&again, 0, "9 fits were there already");
    assert!(!stdout(&again).contains("path from"), "{}", stdout(&again));
    check(&run(folder.path(), &imp)?, 0, "3 fits were there already");
    // Whatever stands first: what the last command asked for, or what was there.
    let there = |summary: Summary| {
        let mut fits = summary.fits;
        fits.sort_by(|one, other| one.address.cmp(&other.address));
        (fits, summary.paths)
    };
    let same = there(summary(folder.path())?) == there(found);
    assert!(same, "the summary is another than before");
    Ok(())
}

#[test]
fn connectivity_that_cannot_be_is_refused() -> Result {
    let folder = tempfile::tempdir()?;
    for (options, expected) in [
        ("", "--steps is missing"),
        (
            "--steps 0ep --levels 0,9",
            "level of the instability analysis is 9, expected 0 (dense) to 5, the levels of the plan",
        ),
        ("--steps 1ep", "branch of fit copy-1-1ep/0/0 is 1ep, expected a step of the fit before its end"),
        ("--steps soon", "invalid value 'soon' for '--steps"),
        ("--steps 0ep --masks some", "expected one of each-step, ticket"),
        ("--steps 0ep --points 1", "1 is not in 2..=10000"),
    ] {
        check(&run(folder.path(), &format!("connectivity {SHORT} {options} --out run"))?, 2, expected);
        assert!(!folder.path().join("run").exists(), "{options}");
    }
    Ok(())
}

#[test]
fn sensitivities_are_of_the_network_and_their_suggestion_is_a_plan() -> Result {
    let folder = tempfile::tempdir()?;
    check(&run(folder.path(), &format!("imp {SHORT} --levels 1 --arms none --out run"))?, 0, "");
    let found = summary(folder.path())?;
    let last = found.fits[0].history.last().ok_or("no history")?;
    let trained = "run/fits/dense/level-00/seed-0/trained.safetensors";
    let mut parts = Vec::new();
    for (source, by) in [("run", "layer"), ("run --fit dense/0/0", "kind"), (trained, "layer")] {
        let arguments =
            format!("sensitivity {source} --by {by} --levels 3 --sparsities 10%,90% --tolerance 2% --out minds --json");
        let output = run(folder.path(), &arguments)?;
        check(&output, 0, "suggested, in place of imp.pruning.levels");
        let record: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!(
            record,
            serde_json::from_slice::<Value>(&std::fs::read(folder.path().join("minds/sensitivity.json"))?)?
        );
        // What the fit's own last validation found.
        assert_eq!(record["whole"].as_f64(), last.metrics.get("accuracy").copied(), "{source}");
        let page = std::fs::read_to_string(folder.path().join("minds/sensitivity.html"))?;
        assert!(page.contains("lenet-300-100 with one part pruned") && page.contains("imp.pruning.levels"));

        // Its suggestion in the place of a plan's own levels.
        check(&run(folder.path(), &format!("imp {SHORT} --levels 3 --arms none --write mine.toml"))?, 0, "");
        let mut plan: toml::Table = std::fs::read_to_string(folder.path().join("mine.toml"))?.parse()?;
        let suggested: toml::Table = record["plan"].as_str().ok_or("no plan")?.parse()?;
        plan["imp"]["pruning"]["levels"] = suggested["imp"]["pruning"]["levels"].clone();
        std::fs::write(folder.path().join("mine.toml"), toml::to_string(&plan)?)?;
        let planned = run(folder.path(), "imp --plan mine.toml --dry-run")?;
        check(&planned, 0, "");
        assert!(stdout(&planned).contains("ticket/3/0"), "{}", stdout(&planned));
        parts.push(record["parts"].clone());
    }
    assert_eq!(parts[0], parts[2]);
    let names =
        |parts: &Value| parts.as_array().into_iter().flatten().map(|part| part["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&parts[0]), ["fc1.weight", "fc2.weight", "fc3.weight"]);
    assert_eq!(names(&parts[1]), ["linear", "output"]);

    for (arguments, code, expected) in [
        ("run --fit random/1/0", 2, "--fit is random/1/0, expected a fit of run: dense/0/0"),
        ("run --sparsities 100%", 2, "--sparsities has 1, expected more than 0 and less than 1"),
        ("run --criterion snip", 2, "criterion `snip` needs gradient"),
        ("run --tolerance=-1", 2, "--help"),
        ("run --dataset mnist", 2, "leave --network and --dataset out"),
        ("run/fits/ticket/level-01/seed-0/ticket.safetensors", 3, "ticket.safetensors"),
        ("run/experiment.json", 3, "experiment.json"),
    ] {
        check(&run(folder.path(), &format!("sensitivity {arguments} --out other"))?, code, expected);
        assert!(!folder.path().join("other").exists(), "{arguments}");
    }
    Ok(())
}
