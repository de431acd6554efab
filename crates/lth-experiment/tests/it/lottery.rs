use std::collections::BTreeMap;

use candle_core::Device;
use lth_experiment::{Arm, Rewinding};
use lth_runs::experiment::{Ending, FitRecord};
use lth_schedule::{LearningRate, Step};
use lth_ticket::Ticket;

use crate::support::{Result, bits, run, run_until, small};

fn ticket(folder: &std::path::Path, name: &str) -> Result<Ticket> {
    Ok(Ticket::read(&folder.join("fits").join(name), &Device::Cpu)?)
}

/// What every network of the records is, by address and name.
fn contents(records: &[FitRecord]) -> BTreeMap<String, String> {
    let files = records.iter().flat_map(|record| {
        record.files.iter().map(move |(name, file)| (format!("{} {name}", record.address), file.content.clone()))
    });
    files.filter_map(|(name, content)| Some((name, content?))).collect()
}

#[test]
fn a_ticket_starts_as_its_mask_over_the_weights_it_is_rewound_to() -> Result {
    let folder = tempfile::tempdir()?;
    let mut experiment = small()?;
    let step: Step = "5it".parse()?;
    experiment.imp.rewinding = Rewinding::Weights(step);
    let (outcome, _) = run(&experiment, folder.path())?;
    assert!(outcome.is_done && outcome.n_trained == 3, "{outcome:?}");
    let kept = ticket(folder.path(), "dense/level-00/seed-7/at-5it.safetensors")?;
    for level in [1, 2] {
        let start = ticket(folder.path(), &format!("ticket/level-0{level}/seed-7/ticket.safetensors"))?;
        // 40 % of what is left, 20 % in the output layer.
        let expected = [("fc1.weight", 0.6), ("fc2.weight", 0.6), ("fc3.weight", 0.8)];
        for (name, kept_part) in expected {
            let mask = start.masks.get(name).ok_or(name)?;
            let wanted = f64::powi(kept_part, level) * mask.len() as f64;
            assert!((mask.kept() as f64 - wanted).abs() <= 1.0, "{name}: {} of {}", mask.kept(), mask.len());
        }
        assert_eq!(start.tensors.keys().collect::<Vec<_>>(), kept.tensors.keys().collect::<Vec<_>>());
        for (name, then) in &kept.tensors {
            let masked = match start.masks.get(name) {
                Some(mask) => mask.apply(then)?,
                None => then.clone(),
            };
            assert_eq!(bits(&start.tensors[name])?, bits(&masked)?, "{name} at level {level}");
        }
    }
    // A level's mask lies within the one before.
    let masks = |level| {
        Ok::<_, Box<dyn std::error::Error>>(
            ticket(folder.path(), &format!("ticket/level-0{level}/seed-7/ticket.safetensors"))?.masks,
        )
    };
    assert!(masks(2)?.is_nested_in(&masks(1)?)?);
    Ok(())
}

#[test]
fn what_is_there_is_not_done_again_and_an_arm_is_added() -> Result {
    let folder = tempfile::tempdir()?;
    let mut experiment = small()?;
    let (first, _) = run(&experiment, folder.path())?;
    let (again, told) = run(&experiment, folder.path())?;
    assert_eq!((again.n_trained, told.len()), (0, 3));
    assert_eq!(first.records, again.records);
    experiment.imp.arms = vec![Arm::Random, Arm::Reinitialised];
    let (more, told) = run(&experiment, folder.path())?;
    let started: Vec<&String> = told.iter().filter(|line| line.starts_with("started")).collect();
    assert_eq!(
        started,
        ["started random/1/7", "started random/2/7", "started reinitialised/1/7", "started reinitialised/2/7"]
    );
    assert_eq!(contents(&more.records[..3]), contents(&first.records));
    Ok(())
}

#[test]
fn an_interrupted_run_ends_as_one_that_was_not() -> Result {
    let (whole, cut) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut experiment = small()?;
    experiment.imp.arms = vec![Arm::Snip, Arm::SynFlow, Arm::Shuffled];
    let (expected, _) = run(&experiment, whole.path())?;
    // In the middle of the first fit, and of a later one.
    let mut n_trained = 0;
    for n_asked in [20, 150, usize::MAX] {
        let (outcome, _) = run_until(&experiment, cut.path(), n_asked)?;
        assert_eq!(outcome.is_done, n_asked == usize::MAX);
        n_trained += outcome.n_trained;
    }
    let (outcome, _) = run(&experiment, cut.path())?;
    assert_eq!(n_trained, expected.n_trained);
    assert_eq!(contents(&outcome.records), contents(&expected.records));
    let figures = |records: &[FitRecord]| -> Vec<_> { records.iter().map(|record| record.at_end.clone()).collect() };
    assert_eq!(figures(&outcome.records), figures(&expected.records));
    Ok(())
}

/// Those of the end where that is the end, whose weights are not tested twice.
#[test]
fn figures_at_the_least_validation_loss_are_of_its_weights() -> Result {
    let mut seen = [0, 0];
    // In so short a training losses fall to the end, in the longer one they have risen again.
    for n_epochs in [1, 30] {
        let folder = tempfile::tempdir()?;
        let mut experiment = small()?;
        experiment.imp.training.length = Step::epoch(n_epochs);
        experiment.imp.training.validate_every = std::num::NonZeroU32::new(10);
        experiment.imp.n_levels = 1;
        let (outcome, _) = run(&experiment, folder.path())?;
        for record in &outcome.records {
            let loss = |at: &lth_runs::experiment::Measurement| at.valid_loss.unwrap_or(f64::INFINITY);
            let least = record.history.iter().map(loss).fold(f64::INFINITY, f64::min);
            let first = record.history.iter().position(|at| loss(at) == least).expect("validated");
            let is_end = first + 1 == record.history.len();
            assert!(record.at_best.is_some());
            assert_eq!(record.at_best == record.at_end, is_end, "{}", record.address);
            seen[usize::from(is_end)] += 1;
        }
    }
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
    Ok(())
}

#[test]
fn a_fit_goes_on_from_inside_whatever_prunes_it() -> Result {
    let (whole, cut) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut experiment = small()?;
    experiment.imp.n_levels = 1;
    experiment.imp.rewinding = Rewinding::Weights("3it".parse()?);
    experiment.imp.training.validate_every = std::num::NonZeroU32::new(4);
    // A hook of each kind.
    experiment.imp.arms = vec![Arm::Agp, Arm::RigL, Arm::Set, Arm::EarlyBird];
    let (expected, _) = run(&experiment, whole.path())?;
    // Stopped again and again after a few batches, always somewhere else.
    let (mut n_asked, mut n_runs, mut n_resumed) = (6, 0, 0);
    let outcome = loop {
        let (outcome, told) = run_until(&experiment, cut.path(), n_asked)?;
        n_resumed += told.iter().filter(|line| line.starts_with("resumed ")).count();
        assert!(told.iter().all(|line| !line.starts_with("begun anew")), "{told:?}");
        if outcome.is_done {
            break outcome;
        }
        (n_asked, n_runs) = (6 + (n_asked + 5) % 13, n_runs + 1);
        assert!(n_runs < 200, "it gets on");
    };
    assert!(n_resumed >= 8, "{n_resumed} in {n_runs} runs");
    assert_eq!(contents(&outcome.records), contents(&expected.records));
    let figures = |records: &[FitRecord]| -> Vec<_> {
        let histories = records.iter().map(|record| {
            let at = record.history.iter().map(|at| (at.step, at.train_loss, at.valid_loss, at.metrics.clone()));
            (record.at_end.clone(), record.at_best.clone(), at.collect::<Vec<_>>())
        });
        histories.collect()
    };
    assert_eq!(figures(&outcome.records), figures(&expected.records));
    // The lines are those of a run that was never stopped, and no checkpoint is left.
    let lines = |folder: &std::path::Path| -> Result<Vec<_>> {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl"))?;
        let lines = text.lines().map(serde_json::from_str::<lth_runs::experiment::MetricLine>);
        let lines: Vec<_> = lines.collect::<std::result::Result<_, _>>()?;
        Ok(lines.into_iter().map(|line| (line.fit, line.at.step, line.at.valid_loss)).collect())
    };
    assert_eq!(lines(cut.path())?, lines(whole.path())?);
    for record in &outcome.records {
        let folder = cut.path().join(record.address.folder());
        let names = std::fs::read_dir(&folder)?.map(|entry| entry.map(|entry| entry.file_name()));
        for name in names {
            assert!(!name?.to_string_lossy().starts_with("checkpoint"), "{}", folder.display());
        }
    }
    Ok(())
}

#[test]
fn every_arm_runs_and_differs_from_the_ticket_as_it_says() -> Result {
    let folder = tempfile::tempdir()?;
    let mut experiment = small()?;
    experiment.imp.n_levels = 1;
    experiment.imp.arms = Arm::ALL.to_vec();
    // Of two epochs one is the half.
    experiment.imp.training.length = Step::epoch(2);
    let (outcome, _) = run(&experiment, folder.path())?;
    assert!(outcome.is_done);
    let of = |arm: &str| outcome.records.iter().find(|record| record.address.arm == arm).ok_or(arm.to_owned());
    let kept = |record: &FitRecord| record.layers.iter().map(|layer| layer.weights - layer.zeros).collect::<Vec<_>>();
    let ticket = of("ticket")?;
    for arm in Arm::ALL {
        let record = of(arm.name())?;
        assert_eq!(record.ending, Ending::Done, "{arm}");
        match arm {
            Arm::DenseLonger => assert_eq!(record.n_steps(), 2 * ticket.n_steps()),
            Arm::DenseShorter => assert_eq!(2 * record.n_steps(), ticket.n_steps()),
            Arm::Supermask => assert_eq!((record.n_steps(), record.history.len()), (0, 0)),
            // The same numbers in every layer.
            Arm::Reinitialised | Arm::SignTransfer | Arm::Shuffled | Arm::OneShot | Arm::Agp => {
                assert_eq!(kept(record), kept(ticket), "{arm}");
            }
            // As many throughout, of which some may be 0 as they were grown: nothing comes from a pixel that is black.
            Arm::RigL | Arm::Set => {
                let (n, of_ticket) = (kept(record).iter().sum::<u64>(), kept(ticket).iter().sum::<u64>());
                assert!((record.sparsity - ticket.sparsity).abs() < 1e-9, "{arm}");
                assert!(n <= of_ticket && n > of_ticket / 2, "{arm}: {n} of {of_ticket}");
            }
            // The same number in all.
            _ => assert_eq!(kept(record).iter().sum::<u64>(), kept(ticket).iter().sum::<u64>(), "{arm}"),
        }
    }
    Ok(())
}

#[test]
fn a_loss_that_is_not_finite_ends_that_fit_and_what_rests_on_it_alone() -> Result {
    let folder = tempfile::tempdir()?;
    let mut experiment = small()?;
    experiment.imp.training.learning_rate = LearningRate::constant(1e30);
    experiment.imp.arms = vec![Arm::MagnitudeInit];
    experiment.imp.n_levels = 1;
    let (outcome, told) = run(&experiment, folder.path())?;
    assert!(outcome.is_done);
    let Ending::Failed { reason } = &outcome.records[0].ending else { return Err("the fit did not fail".into()) };
    assert!(reason.contains("loss"), "{reason}");
    assert_eq!(told, ["started dense/0/7", "left out ticket/1/7 for dense/0/7", "started magnitude-init/1/7"]);
    Ok(())
}
