//! Arms that bring something of their own.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use candle_core::{DType, Tensor};
use lth_criteria::{NamedInputs, by_name, score_all};
use lth_data::{DamagedPolicy, OpenOptions};
use lth_experiment::{Arm, Examples};
use lth_mask::{MaskSet, Selection, select};
use lth_nn::Setup;
use lth_runs::experiment::{Ending, Measurement};
use lth_schedule::Step;
use lth_ticket::{Dynamic, DynamicConfig, Growth, Ticket};
use lth_train::{Data, FitConfig, Network, Optimizer, OptimizerConfig, Pass, Trainer, Validate};

use crate::support::{Result, run, run_plan, small};

/// LeNet under a random mask of 5 %, whose gradients come from sparse kernels: at the update they must not. What grows is
/// where candle's own gradient of the whole layers is largest.
#[test]
fn the_gradients_that_grow_weights_are_those_of_pruned_ones() -> Result {
    let experiment = small()?;
    let folder = tempfile::tempdir()?;
    let open = OpenOptions { cache_dir: folder.path().into(), damaged: DamagedPolicy::Fail };
    let dataset = experiment.data.open(7, &open, &mut |_| {})?;
    let loader = experiment.loader(&dataset, 7)?;
    let build = || experiment.network.build(&Setup { dtype: DType::F32, ..Setup::new(7) });
    let masks = {
        let network = build()?;
        let weights: BTreeMap<String, Tensor> = network
            .parameters()
            .prunable(&[2])
            .map(|(name, weight)| (name.into(), weight.var().copy()))
            .map(|(name, weight)| Ok((name, weight?)))
            .collect::<Result<_>>()?;
        let criterion = by_name("random", 1)?;
        let scores = score_all(&criterion, &NamedInputs::of(&weights))?;
        select(&scores, 0.95, &Selection::default())?
    };
    let trained = |to: &str, dynamic: Option<&mut Dynamic>| {
        let mut trainer = Trainer::new(build()?, Optimizer::new(OptimizerConfig::torch_adam()), 7);
        trainer.set_masks(masks.to_tensors(&candle_core::Device::Cpu)?)?;
        let data = Data {
            train: |epoch| Examples::train(&loader, epoch),
            n_train_batches: Examples::n_train_batches(&loader),
            valid: || Examples::valid(&loader),
        };
        let config = FitConfig {
            length: Some(Step::epoch(1)),
            learning_rate: &|_| 1e-3,
            validate: Validate::Never,
            ..FitConfig::span(Step::START, to.parse()?)
        };
        match dynamic {
            Some(dynamic) => trainer.fit(&config, &data, &mut [dynamic])?,
            None => trainer.fit(&config, &data, &mut [])?,
        };
        Ok::<_, Box<dyn std::error::Error>>(trainer)
    };
    let before = trained("4it", None)?;
    let (x, y) = loader.train_epoch(0).nth(4).ok_or("no batch")??;
    let pass = Pass { dense_gradients: true, ..Pass::train(7, 4) };
    let gradients = cross_entropy(&before.network().forward(&x, &pass)?, &y)?.backward()?;
    let every = NonZeroU32::new(4);
    let mut dynamic = Dynamic::new(DynamicConfig { every, ..DynamicConfig::new(Growth::Gradient) });
    let after = MaskSet::from_tensors(trained("5it", Some(&mut dynamic))?.masks())?;
    assert_eq!(dynamic.n_updates(), 1);
    for (name, mask) in masks.iter() {
        let now = after.get(name).ok_or("no mask")?;
        assert_eq!(now.kept(), mask.kept(), "{name}");
        let var = before.network().parameters().require(name)?.var();
        let gradient: Vec<f32> = gradients.get(var).ok_or("no gradient")?.flatten_all()?.to_vec1()?;
        let is_new = |place: &usize| mask.get(*place) == Some(false) && now.get(*place) == Some(true);
        let grown: Vec<usize> = (0..mask.len()).filter(is_new).collect();
        let least = grown.iter().map(|place| gradient[*place].abs()).fold(f32::INFINITY, f32::min);
        // Equal up to the rounding of other kernels.
        let outside = |place: &usize| mask.get(*place) == Some(false) && now.get(*place) == Some(false);
        let most = (0..mask.len()).filter(outside).map(|place| gradient[place].abs()).fold(0.0, f32::max);
        assert!(!grown.is_empty() && least > 0.0, "{name}: {} grown", grown.len());
        assert!(least >= most * (1.0 - 1e-4), "{name}: grown at {least}, left out {most}");
    }
    Ok(())
}

/// Mean cross entropy by candle's own operators.
fn cross_entropy(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    let largest = logits.max_keepdim(1)?.detach();
    let shifted = logits.broadcast_sub(&largest)?;
    let normal = shifted.exp()?.sum_keepdim(1)?.log()?;
    let log_probability = shifted.broadcast_sub(&normal)?.gather(&target.unsqueeze(1)?, 1)?;
    Ok(log_probability.mean_all()?.neg()?)
}

#[test]
fn an_early_bird_is_trained_from_where_its_search_stopped() -> Result {
    let folder = tempfile::tempdir()?;
    let mut experiment = small()?;
    experiment.imp.training.length = Step::epoch(12);
    experiment.imp.n_levels = 1;
    experiment.imp.arms = vec![Arm::EarlyBird];
    let (outcome, _) = run(&experiment, folder.path())?;
    let of = |arm: &str| outcome.records.iter().find(|record| record.address.arm == arm).ok_or(arm.to_owned());
    let (dense, search, trained) = (of("dense")?, of("early-bird-search")?, of("early-bird")?);
    let Ending::Stopped { reason } = &search.ending else { return Err(format!("{:?}", search.ending).into()) };
    assert!(reason.contains("has settled"), "{reason}");
    // It stops when six epochs have been looked at, or later, and has then gone the way of the dense network.
    let per_epoch = dense.n_steps() / 12;
    let last = search.history.last().ok_or("no history")?;
    assert!((6 * per_epoch..dense.n_steps()).contains(&last.step), "{} of {}", last.step, dense.n_steps());
    let together = |at: &&Measurement| search.history.iter().any(|other| other.step == at.step);
    let losses = |records: &[Measurement]| records.iter().map(|at| (at.step, at.valid_loss)).collect::<Vec<_>>();
    let of_dense: Vec<Measurement> = dense.history.iter().filter(together).cloned().collect();
    let n = of_dense.len();
    assert!(n > 5, "{n} measurements");
    assert_eq!(losses(&search.history[..n]), losses(&of_dense));
    assert_eq!(trained.starts_from.as_ref(), Some(&search.address));
    assert_eq!(trained.n_steps(), dense.n_steps());
    assert!((trained.sparsity - of("ticket")?.sparsity).abs() < 1e-9);
    Ok(())
}

#[test]
fn transferred_signs_are_the_tickets_and_magnitudes_another_draws() -> Result {
    let folder = tempfile::tempdir()?;
    let mut experiment = small()?;
    experiment.imp.n_levels = 1;
    experiment.imp.rewinding = lth_experiment::Rewinding::Weights("5it".parse()?);
    experiment.imp.arms = vec![Arm::SignTransfer, Arm::Reinitialised];
    let mut plan = experiment.plan()?;
    // Nothing is trained, so that what they end with is what they start from.
    for fit in plan.fits.iter_mut().filter(|fit| !["dense"].contains(&fit.address.arm.as_str())) {
        (fit.to, fit.from, fit.keeps_files) = (Step::START, Step::START, true);
    }
    let outcome = run_plan(&experiment, &plan, folder.path())?;
    assert_eq!((outcome.is_done, outcome.records.len()), (true, 4));
    let of = |arm: &str| {
        let path = folder.path().join(format!("fits/{arm}/level-01/seed-7/ticket.safetensors"));
        Ok::<_, Box<dyn std::error::Error>>(Ticket::read(&path, &candle_core::Device::Cpu)?)
    };
    let (ticket, other, transferred) = (of("ticket")?, of("reinitialised")?, of("sign-transfer")?);
    assert_eq!(transferred.masks, ticket.masks);
    let mut n_turned = 0;
    for (name, _) in ticket.masks.iter() {
        let values = |ticket: &Ticket| ticket.tensors[name].flatten_all()?.to_vec1::<f32>();
        for ((ticket, other), transferred) in
            values(&ticket)?.into_iter().zip(values(&other)?).zip(values(&transferred)?)
        {
            assert_eq!(transferred.abs(), other.abs(), "{name}");
            assert!(transferred * ticket > 0.0 || transferred == 0.0, "{name}: {transferred} for {ticket}");
            n_turned += usize::from(transferred * other < 0.0);
        }
    }
    assert!(n_turned > 1000, "{n_turned} signs differ from the draw's own");
    Ok(())
}
