//! Copies of a fit that see other data orders from a step on, and the paths between them.

use std::path::Path;

use candle_core::{Device, Tensor};
use lth_data::{DamagedPolicy, OpenOptions};
use lth_experiment::plan::{Branch, FitPlan};
use lth_experiment::{Arm, Examples, Experiment, Host, InstabilityConfig, MaskSearch, Plan, Rewinding, Silent};
use lth_runs::{Address, Existing, Summary};
use lth_schedule::Step;
use lth_ticket::Ticket;

use crate::support::{Result, bits, run, run_plan, run_until, small};

fn with(steps: &[&str], levels: &[u32]) -> Result<Experiment> {
    let mut experiment = small()?;
    let steps = steps.iter().map(|step| step.parse()).collect::<std::result::Result<_, _>>()?;
    experiment.imp.instability =
        Some(InstabilityConfig { n_points: 5, ..InstabilityConfig::new(steps, levels.to_vec()) });
    Ok(experiment)
}

fn read(folder: &Path, fit: &str, name: &str) -> Result<Ticket> {
    let address: Address = fit.parse()?;
    Ok(Ticket::read(&folder.join(address.folder()).join(format!("{name}.safetensors")), &Device::Cpu)?)
}

fn same(one: &Ticket, other: &Ticket) -> Result<bool> {
    for (name, tensor) in &one.tensors {
        if bits(tensor)? != bits(&other.tensors[name])? {
            return Ok(false);
        }
    }
    Ok(one.tensors.len() == other.tensors.len())
}

#[test]
fn a_branch_has_the_same_bits_until_its_step_and_others_after() -> Result {
    let folder = tempfile::tempdir()?;
    let mut experiment = small()?;
    experiment.imp.training.length = "2ep".parse()?;
    let plan = experiment.plan()?;
    let fit = |arm: &str, from: &str, branch: Option<(&str, u32)>| -> Result<FitPlan> {
        let branch = branch.map(|(at, number)| Ok::<_, Box<dyn std::error::Error>>(Branch { at: at.parse()?, number }));
        let keep = ["5it", "6it", "1ep5it", "1ep6it", "2ep"]
            .map(str::parse)
            .into_iter()
            .collect::<std::result::Result<_, _>>()?;
        let fit = FitPlan::new(Address::new(arm, 0, 7), "", "2ep".parse()?);
        Ok(FitPlan { keep, from: from.parse()?, branch: branch.transpose()?, ..fit })
    };
    let fits = vec![
        fit("dense", "0ep", None)?,
        fit("early", "0ep", Some(("5it", 1)))?,
        fit("later", "0ep", Some(("1ep5it", 1)))?,
        fit("again", "0ep", Some(("1ep5it", 1)))?,
        fit("other", "0ep", Some(("1ep5it", 2)))?,
        fit("whole", "0ep", Some(("1ep", 1)))?,
    ];
    let arm = |fit: &FitPlan| lth_runs::ArmRecord { name: fit.address.arm.clone(), ..plan.arms[0].clone() };
    let plan = Plan { arms: fits.iter().map(arm).collect(), fits, ..plan };
    run_plan(&experiment, &plan, folder.path())?;
    let is_same = |arm: &str, step: &str| {
        let at = |arm: &str| read(folder.path(), &format!("{arm}/0/7"), &format!("at-{step}"));
        same(&at("dense")?, &at(arm)?)
    };
    for (arm, expected) in [
        ("early", [true, false, false, false, false]),
        ("later", [true, true, true, false, false]),
        ("other", [true, true, true, false, false]),
        ("whole", [true, true, false, false, false]),
    ] {
        for (step, expected) in ["5it", "6it", "1ep5it", "1ep6it", "2ep"].into_iter().zip(expected) {
            assert_eq!(is_same(arm, step)?, expected, "{arm} at {step}");
        }
    }
    let at_end = |arm: &str| read(folder.path(), &format!("{arm}/0/7"), "at-2ep");
    assert!(same(&at_end("later")?, &at_end("again")?)?);
    assert!(!same(&at_end("later")?, &at_end("other")?)?);
    Ok(())
}

#[test]
fn another_order_has_the_same_examples_and_the_same_validation() -> Result {
    let experiment = small()?;
    let folder = tempfile::tempdir()?;
    let options = OpenOptions { cache_dir: folder.path().into(), damaged: DamagedPolicy::Fail };
    let dataset = experiment.data.open(7, &options, &mut |_| {})?;
    let loader = experiment.loader(&dataset, 7)?;
    let labels =
        |batches: Box<dyn Iterator<Item = std::result::Result<(Tensor, Tensor), lth_train::BoxError>> + '_>| {
            let mut all = Vec::new();
            for batch in batches {
                let (x, _) = batch.map_err(|error| error.to_string())?;
                all.extend(
                    x.flatten_from(1)?.to_vec2::<f32>()?.into_iter().map(|x| x.into_iter().map(f32::to_bits).collect()),
                );
            }
            Ok::<Vec<Vec<u32>>, Box<dyn std::error::Error>>(all)
        };
    let branch = |number| -> Result<lth_data::Loader> {
        Ok(loader.branch(number).ok_or("a loader has branches")?.map_err(|error| error.to_string())?)
    };
    let (one, other) = (branch(1)?, branch(2)?);
    let own = labels(Examples::train(&loader, 3))?;
    assert_eq!(labels(Examples::train(&one, 3))?, labels(Examples::train(&branch(1)?, 3))?);
    for (first, second) in [
        (&own, &labels(Examples::train(&one, 3))?),
        (&labels(Examples::train(&one, 3))?, &labels(Examples::train(&other, 3))?),
    ] {
        let n_alike = first.iter().zip(second).filter(|(first, second)| first == second).count();
        assert!(n_alike < first.len() / 20, "{n_alike} of {} are at the same place", first.len());
    }
    assert_eq!(labels(Examples::valid(&loader))?, labels(Examples::valid(&one))?);
    Ok(())
}

#[test]
fn the_ends_of_a_path_are_the_networks_of_its_fits() -> Result {
    let folder = tempfile::tempdir()?;
    let experiment = with(&["0ep", "5it"], &[0, 2])?;
    let (outcome, _) = run(&experiment, folder.path())?;
    let arms: Vec<String> = outcome.records.iter().map(|record| record.address.to_string()).collect();
    let expected = [
        "dense/0/7",
        "ticket/1/7",
        "ticket/2/7",
        "copy-1-0ep/0/7",
        "copy-1-0ep/2/7",
        "copy-2-0ep/2/7",
        "copy-1-5it/0/7",
        "ticket-5it/1/7",
        "ticket-5it/2/7",
        "copy-1-5it/2/7",
        "copy-2-5it/2/7",
    ];
    assert_eq!(arms, expected);
    let ends: Vec<String> = outcome.paths.iter().map(|path| format!("{} {}", path.ends[0], path.ends[1])).collect();
    let expected = [
        "dense/0/7 copy-1-0ep/0/7",
        "copy-1-0ep/2/7 copy-2-0ep/2/7",
        "dense/0/7 copy-1-5it/0/7",
        "copy-1-5it/2/7 copy-2-5it/2/7",
    ];
    assert_eq!(ends, expected);
    let accuracy = |address: &Address| {
        let record = outcome.records.iter().find(|record| record.address == *address);
        record.and_then(|record| record.metric("accuracy"))
    };
    for path in &outcome.paths {
        let [first, .., last] = path.points.as_slice() else { return Err("a path has two ends".into()) };
        assert_eq!(path.points.len(), 5);
        let found = [first, last].map(|point| point.metrics.get("accuracy").copied());
        assert_eq!(found, [accuracy(&path.ends[0]), accuracy(&path.ends[1])], "{:?}", path.ends);
        assert_eq!(path.branched_at, if path.ends[1].arm.ends_with("5it") { 5 } else { 0 });
    }
    // Subnetworks start as the mask of their step's search over the weights of the step.
    let kept = read(folder.path(), "dense/0/7", "at-5it")?;
    let search = read(folder.path(), "ticket-5it/2/7", "ticket")?;
    for number in [1, 2] {
        let copied = read(folder.path(), &format!("copy-{number}-5it/2/7"), "trained")?;
        assert_eq!(copied.masks, search.masks);
    }
    for (name, mask) in search.masks.iter() {
        assert_eq!(bits(&search.tensors[name])?, bits(&mask.apply(&kept.tensors[name])?)?, "{name}");
    }
    assert_ne!(search.masks, read(folder.path(), "ticket/2/7", "ticket")?.masks);
    Ok(())
}

#[test]
fn the_tickets_own_masks_need_no_more_searches() -> Result {
    let mut experiment = with(&["5it"], &[1])?;
    if let Some(instability) = &mut experiment.imp.instability {
        instability.masks = MaskSearch::Ticket;
    }
    let own = experiment.plan()?;
    assert!(own.fits.iter().all(|fit| fit.address.arm != "ticket-5it"));
    assert_eq!(own.fits.len(), 5);
    // Nor do those of an experiment that rewinds to that step.
    let mut experiment = with(&["5it"], &[1])?;
    experiment.imp.rewinding = Rewinding::Weights("5it".parse()?);
    assert_eq!(experiment.plan()?.fits.len(), 5);
    // And of the dense network alone no ticket is.
    let mut experiment = with(&["0ep", "5it"], &[0])?;
    experiment.imp.n_levels = 0;
    let fits: Vec<String> = experiment.plan()?.fits.iter().map(|fit| fit.address.to_string()).collect();
    assert_eq!(fits, ["dense/0/7", "copy-1-0ep/0/7", "copy-1-5it/0/7"]);
    Ok(())
}

#[test]
fn paths_are_added_to_what_is_there_and_interrupted_ones_go_on() -> Result {
    let (whole, cut) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let plain = small()?;
    let (before, _) = run(&plain, whole.path())?;
    let experiment = with(&["0ep"], &[0, 1])?;
    assert_eq!(experiment.identity()?, plain.identity()?);
    let (expected, _) = run(&experiment, whole.path())?;
    assert_eq!((expected.n_trained, expected.paths.len()), (3, 2));
    assert_eq!(expected.records[..3], before.records);
    // Again: all is there, and nothing is measured.
    let (again, told) = run(&experiment, whole.path())?;
    assert_eq!((again.n_trained, again.paths == expected.paths), (0, true));
    assert!(told.iter().all(|line| line.starts_with("skipped")), "{told:?}");

    let mut n_trained = 0;
    for n_asked in [20, 60, 120, usize::MAX] {
        let (outcome, _) = run_until(&experiment, cut.path(), n_asked)?;
        n_trained += outcome.n_trained;
        assert_eq!(outcome.is_done, n_asked == usize::MAX);
    }
    assert_eq!(n_trained, expected.records.len());
    let (outcome, _) = run(&experiment, cut.path())?;
    let points = |paths: &[lth_runs::PathRecord]| paths.iter().map(|path| path.points.clone()).collect::<Vec<_>>();
    assert_eq!(points(&outcome.paths), points(&expected.paths));
    Ok(())
}

#[test]
fn a_summary_keeps_what_earlier_commands_did() -> Result {
    let folder = tempfile::tempdir()?;
    let arms = |folder: &Path| -> Result<(Vec<String>, usize, usize)> {
        let summary = Summary::read(&folder.join("summary.json"))?;
        Ok((summary.arms.iter().map(|arm| arm.name.clone()).collect(), summary.fits.len(), summary.paths.len()))
    };
    let mut controls = small()?;
    controls.imp.arms = vec![Arm::Random];
    run(&controls, folder.path())?;
    run(&with(&["0ep"], &[0])?, folder.path())?;
    let (names, n_fits, n_paths) = arms(folder.path())?;
    assert_eq!(
        (names, n_fits, n_paths),
        (["dense", "ticket", "copy-1-0ep", "random"].map(String::from).to_vec(), 6, 1)
    );
    // The other way round, and with fewer levels.
    controls.imp.n_levels = 1;
    run(&controls, folder.path())?;
    let (names, n_fits, n_paths) = arms(folder.path())?;
    assert_eq!(
        (names, n_fits, n_paths),
        (["dense", "ticket", "random", "copy-1-0ep"].map(String::from).to_vec(), 6, 1)
    );
    let report = std::fs::read_to_string(folder.path().join("report.md"))?;
    assert!(report.contains("Linear mode connectivity") && report.contains("Instability against the step"), "{report}");
    Ok(())
}

#[test]
fn an_analysis_of_what_the_experiment_does_not_have_is_refused() -> Result {
    let refused = |steps: &[&str], levels: &[u32]| -> Result<String> {
        let folder = tempfile::tempdir()?;
        let experiment = with(steps, levels)?;
        let mut dir = experiment.open_dir(folder.path().join("run"), Existing::Refuse)?;
        let cache = folder.path().join("cache");
        let done = experiment.run(&mut dir, Host::new(cache, &mut |_| {}, &mut Silent));
        assert!(!folder.path().join("run/experiment.json").exists(), "something was written");
        Ok(done.err().ok_or("it was not refused")?.to_string())
    };
    let of = "of the instability analysis is";
    assert_eq!(refused(&["0ep"], &[0, 3])?, format!("level {of} 3, expected 0 (dense) to 2, the levels of the plan"));
    assert_eq!(refused(&["0ep", "0it"], &[0])?, format!("step {of} 0ep, twice, expected every step once"));
    assert_eq!(refused(&[], &[0])?, format!("number of steps {of} 0, expected at least 1"));
    let expected = "branch of fit copy-1-1ep/0/7 is 1ep, expected a step of the fit before its end, 0ep to 1ep";
    assert_eq!(refused(&["1ep"], &[0])?, expected);
    assert!(refused(&["40it"], &[0])?.starts_with("branch of fit copy-1-40it/0/7 is 40it"));
    assert!(refused(&["40it"], &[1])?.contains("40it"));
    Ok(())
}

#[test]
fn no_analysis_changes_no_fit() -> Result {
    let (plain, more) = (small()?.plan()?, with(&["0ep"], &[0, 1])?.plan()?);
    for fit in &plain.fits {
        assert_eq!(Some(fit), more.fit(&fit.address), "{}", fit.address);
    }
    let text = serde_json::to_string(&plain)?;
    assert!(!text.contains("branch") && !text.contains("paths") && !text.contains("instability"), "{text}");
    assert_eq!(Step::START, "0it".parse()?);
    Ok(())
}
