use std::num::NonZeroU32;

use lth_experiment::plan::{EarlyBirdSearch, Levels, MaskFrom, Start, Target};
use lth_experiment::{Experiment, Plan, Rewinding};
use lth_mask::{Granularity, Selection};
use lth_runs::Address;
use lth_schedule::{Sparsity, Step};
use lth_ticket::{DynamicConfig, Growth, Settled};

use crate::support::{Result, run, small};

/// The message with which a change of the small experiment is refused, before anything is written.
fn refused(change: impl FnOnce(&mut Experiment) -> Result) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let mut experiment = small()?;
    change(&mut experiment)?;
    let error = run(&experiment, folder.path()).err().ok_or("it was not refused")?;
    assert!(!folder.path().join("experiment.json").exists(), "something was written");
    Ok(error.to_string())
}

/// The message with which a change of the small plan is refused.
fn refused_plan(change: impl FnOnce(&mut Plan) -> Result) -> Result<String> {
    let mut plan = small()?.plan()?;
    change(&mut plan)?;
    Ok(plan.check(30).err().ok_or("it was not refused")?.to_string())
}

#[test]
fn a_plan_that_cannot_run_is_refused_before_any_training() -> Result {
    let message = refused(|experiment| {
        experiment.imp.rewinding = Rewinding::Weights(Step::epoch(2));
        Ok(())
    })?;
    assert!(message.contains("step") && message.contains("2ep"), "{message}");

    let message = refused(|experiment| {
        experiment.imp.pruning.selection.granularity = Granularity::NM { n: 2, m: 4 };
        experiment.imp.pruning.levels = Levels::Overall(vec![Sparsity::new(0.5)?, Sparsity::new(0.9)?]);
        Ok(())
    })?;
    assert!(message.contains("ticket/2/7"), "{message}");

    let message = refused(|experiment| {
        experiment.imp.pruning.levels = Levels::Overall(vec![Sparsity::new(0.5)?]);
        Ok(())
    })?;
    assert_eq!(message, "number of levels is 2, expected at most 1, for which there are sparsities");

    let message = refused(|experiment| {
        experiment.imp.n_levels = u32::MAX;
        Ok(())
    })?;
    assert!(message.contains("number of fits is about") && message.contains("at most 100000"), "{message}");

    let message = refused(|experiment| {
        experiment.imp.pruning.ranks = vec![4];
        Ok(())
    })?;
    assert!(
        message.contains("ranks of the weights to prune is [4], expected those of weights that the network has: 2"),
        "{message}"
    );

    let message = refused(|experiment| {
        experiment.network.input = vec![3, 8, 8];
        Ok(())
    })?;
    assert!(message.contains("expected [1, 8, 8], which the data set `digits` gives"), "{message}");

    let message = refused(|experiment| {
        experiment.network.n_outputs = 9;
        Ok(())
    })?;
    assert!(message.contains("is 9, expected 10, the classes of the data set `digits`"), "{message}");
    Ok(())
}

#[test]
fn rates_of_layers_that_are_not_there_are_refused() -> Result {
    let with = |layer: &str, rate: f64| {
        refused(|experiment| {
            let rates = [(layer.to_owned(), lth_schedule::PruningRate::new(rate)?)].into();
            experiment.imp.pruning.levels = Levels::ByLayer { rates };
            Ok(())
        })
    };
    let expected = "expected one of the weights that are pruned: fc1.weight, fc2.weight, fc3.weight";
    let message = with("fc9.weight", 0.5)?;
    assert!(message.contains(&format!("layer with a pruning rate is `fc9.weight`, {expected}")), "{message}");
    let message = with("fc1.weight", 0.0)?;
    assert!(message.contains("pruning rates of the layers is 0 throughout, expected at least one"), "{message}");
    Ok(())
}

#[test]
fn a_mask_that_cannot_move_is_refused() -> Result {
    let with = |change: fn(&mut lth_experiment::plan::FitPlan)| {
        refused_plan(|plan| {
            plan.fits[1].dynamic = Some(DynamicConfig::new(Growth::Gradient));
            change(&mut plan.fits[1]);
            Ok(())
        })
    };
    let message = with(|fit| fit.mask = MaskFrom::Dense)?;
    assert_eq!(message, "mask of fit ticket/1/7 is none, expected one, which dynamic sparse training moves");
    let message = with(|fit| {
        let selection = Selection { granularity: Granularity::Filter, ..Selection::default() };
        if let MaskFrom::Cut(cut) = &mut fit.mask {
            cut.selection = Some(selection);
        }
    })?;
    assert!(message.contains("granularity of fit ticket/1/7 is `filter`, expected `weight`"), "{message}");
    let message = with(|fit| fit.dynamic = fit.dynamic.map(|dynamic| DynamicConfig { fraction: 0.0, ..dynamic }))?;
    assert!(message.contains("part of the kept weights of fit ticket/1/7 is 0, expected more than 0"), "{message}");
    let message = with(|fit| {
        fit.dynamic = fit.dynamic.map(|dynamic| DynamicConfig { every: NonZeroU32::new(100), ..dynamic });
    })?;
    assert!(message.contains("is 100, expected at least 2, fewer than the 22 batches with updates"), "{message}");
    Ok(())
}

#[test]
fn a_search_for_an_early_bird_that_cannot_be_is_refused() -> Result {
    let with = |index: usize, below: f64| {
        refused_plan(|plan| {
            let settled = Settled { below, ..Settled::default() };
            let (selection, target) = (Selection::default(), Target::Level(1));
            plan.fits[index].early_bird = Some(EarlyBirdSearch { selection, target, settled });
            Ok(())
        })
    };
    let message = with(1, 0.1)?;
    assert!(message.starts_with("pruning of fit ticket/1/7 is there, expected none beside the search"), "{message}");
    let message = with(0, 1.5)?;
    assert!(message.contains("settled of fit dense/0/7 is 1.5, expected more than 0, below 1"), "{message}");
    Ok(())
}

#[test]
fn a_fit_that_rests_on_none_before_it_is_refused() -> Result {
    let message = refused_plan(|plan| {
        plan.fits[0].start = Start::End(Address::new("ticket", 1, 7));
        Ok(())
    })?;
    assert_eq!(message, "start or mask of fit dense/0/7 is that of ticket/1/7, expected a fit that comes before it");
    let message = refused_plan(|plan| {
        plan.fits[1].mask = MaskFrom::Same(Address::new("nothing", 1, 7));
        Ok(())
    })?;
    assert!(message.contains("is that of nothing/1/7"), "{message}");
    let message = refused_plan(|plan| {
        plan.fits[1].start = Start::Rewound { fit: Address::new("dense", 0, 7), step: "3it".parse()? };
        Ok(())
    })?;
    assert!(message.contains("rewinding of fit ticket/1/7 is 3it, expected a step that dense/0/7 keeps"), "{message}");
    Ok(())
}

#[test]
fn a_password_in_a_mirrors_address_is_recorded_nowhere() -> Result {
    let mut experiment = small()?;
    experiment.data.source = lth_data::DataSource::Download { mirror: Some("https://me:pass-1234@host/a".into()) };
    experiment.data.name = lth_data::DatasetName::Mnist;
    let folder = tempfile::tempdir()?;
    let dir = experiment.open_dir(folder.path().join("run"), lth_runs::Existing::Refuse)?;
    assert!(!format!("{dir:?}").contains("pass-1234"), "{dir:?}");
    Ok(())
}
