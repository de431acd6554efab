//! What is asked of networks that are trained: are they connected, and what do they mind.

use std::path::Path;

use lth_runs::Summary;

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
    assert_eq!(summary(folder.path())?, found);
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
