use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_criteria::{Movement, Random, Snip, Wanda};
use lth_mask::{Selection, ThresholdRule};
use lth_schedule::{Schedule, Sparsity, SparsitySchedule};
use lth_ticket::{Error, Notice, Pruning, PruningConfig, ResetRule, Rewind, layer_records};
use lth_train::{BoxError, Event, Fit, FitConfig, Hook, Network, Role, State};

use crate::support::{RANKS, bits, data, trainer};

type Outcome = Result<(), Box<dyn std::error::Error>>;
const N_EPOCHS: usize = 4;
const WEIGHTS: [&str; 3] = ["fc1.weight", "fc2.weight", "fc3.weight"];

/// The notebook's search: to `percent` in three jumps from epoch 1 on.
fn search(percent: f64, rewind: Option<Rewind>) -> PruningConfig {
    let schedule = SparsitySchedule {
        window: "1ep..end".parse().expect("a window"),
        ..SparsitySchedule::to(
            Sparsity::from_percent(percent).expect("a percentage"),
            Schedule::iterative(3).expect("three jumps"),
        )
    };
    PruningConfig { rewind, ranks: RANKS.to_vec(), ..PruningConfig::notebook(schedule) }
}

fn fit_config() -> FitConfig<'static> {
    FitConfig { learning_rate: &|_| 0.02, ..FitConfig::new(N_EPOCHS) }
}

/// The reference's rule: ceil(q·(n − 1)) zeros.
fn expected_zeros(sparsity: f64, n: u64) -> u64 {
    (sparsity * (n - 1) as f64).ceil() as u64
}

#[test]
fn zeros_are_exact_after_every_epoch() -> Outcome {
    struct Watch(Vec<Vec<u64>>);
    impl Hook for Watch {
        fn name(&self) -> &str {
            "watch"
        }

        fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
            if event == Event::EpochEnd {
                self.0.push(layer_records(fit.parameters(), &RANKS)?.iter().map(|layer| layer.zeros).collect());
            }
            Ok(())
        }
    }
    let mut trainer = trainer();
    let mut pruning = Pruning::new(search(80., Some(Rewind::to_epoch(1))));
    let mut watch = Watch(Vec::new());
    trainer.fit(&fit_config(), &data(), &mut [&mut pruning, &mut watch])?;
    for (epoch, (zeros, sparsity)) in watch.0.into_iter().zip([0., 0.8 / 3., 1.6 / 3., 0.8]).enumerate() {
        assert_eq!(zeros, [120, 70, 21].map(|n| expected_zeros(sparsity, n)), "epoch {epoch}");
    }
    Ok(())
}

#[test]
fn notices_come_when_the_reference_speaks() -> Outcome {
    let told = RefCell::new(Vec::new());
    let rewind = Rewind { reset_end: true, ..Rewind::to_epoch(1) };
    let mut pruning =
        Pruning::new(search(50., Some(rewind))).with_notices(|notice| told.borrow_mut().push(notice.to_string()));
    trainer().fit(&fit_config(), &data(), &mut [&mut pruning])?;
    drop(pruning);
    let expected = [
        "Sparsity at the end of epoch 0: 0.00 %",
        "Saving weights at epoch 1",
        "Pruning to a sparsity of 16.67 %",
        "Resetting weights to their epoch 1 values",
        "Sparsity at the end of epoch 1: 16.67 %",
        "Pruning to a sparsity of 33.33 %",
        "Resetting weights to their epoch 1 values",
        "Sparsity at the end of epoch 2: 33.33 %",
        "Pruning to a sparsity of 50.00 %",
        "Resetting weights to their epoch 1 values",
        "Sparsity at the end of epoch 3: 50.00 %",
        "Resetting weights to their epoch 1 values",
        "Final sparsity: 50.00 %",
    ];
    assert_eq!(told.into_inner(), expected);
    Ok(())
}

/// Takes deep copies of everything at the start of an epoch.
struct CopyAt(usize, BTreeMap<String, Tensor>);

impl Hook for CopyAt {
    fn name(&self) -> &str {
        "copy"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        if event == Event::EpochStart && fit.epoch() == self.0 {
            self.1 = fit.parameters().snapshot(|_, _| true)?;
        }
        Ok(())
    }
}

#[test]
fn kept_weights_go_back_bit_for_bit_and_the_rest_goes_by_the_rule() -> Outcome {
    for rule in [ResetRule::Fasterai2021, ResetRule::Fasterai2022, ResetRule::All] {
        for rewind_epoch in [0, 1] {
            let mut trainer = trainer();
            let mut copy = CopyAt(rewind_epoch, BTreeMap::new());
            let mut pruning =
                Pruning::new(search(50., Some(Rewind { rule, reset_end: true, ..Rewind::to_epoch(rewind_epoch) })));
            trainer.fit(&fit_config(), &data(), &mut [&mut copy, &mut pruning])?;
            for (name, parameter) in trainer.network().parameters().iter() {
                let now = bits(trainer.network(), name);
                let then: Vec<u32> =
                    copy.1[name].flatten_all()?.to_vec1::<f32>()?.iter().map(|v| v.to_bits()).collect();
                let mask = match trainer.masks().get(name) {
                    Some(mask) => mask.flatten_all()?.to_vec1::<u8>()?,
                    None => vec![1; then.len()],
                };
                let masked: Vec<u32> = then.iter().zip(&mask).map(|(bits, keep)| bits * u32::from(*keep)).collect();
                let goes_back = parameter.role() == Role::Weight || rule != ResetRule::Fasterai2021;
                assert_eq!(now == masked, goes_back, "{name} under {rule:?}, rewound to epoch {rewind_epoch}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_ticket_keeps_its_mask_when_cut_again_at_the_same_sparsity() -> Outcome {
    for is_random in [false, true] {
        let criterion = || -> Box<dyn lth_criteria::Criterion> {
            if is_random { Box::new(Random { seed: 5 }) } else { Box::new(lth_criteria::LargeFinal) }
        };
        let mut trainer = trainer();
        let rewind = Some(Rewind { reset_end: true, ..Rewind::to_epoch(0) });
        let mut pruning = Pruning::new(PruningConfig { criterion: criterion(), ..search(50., rewind) });
        trainer.fit(&fit_config(), &data(), &mut [&mut pruning])?;
        let searched: Vec<_> = WEIGHTS
            .map(|name| trainer.masks()[name].flatten_all()?.to_vec1::<u8>())
            .into_iter()
            .collect::<Result<_, _>>()?;
        let one_shot = SparsitySchedule::to(Sparsity::from_percent(50.)?, Schedule::OneShot);
        let config =
            PruningConfig { criterion: criterion(), ranks: RANKS.to_vec(), ..PruningConfig::notebook(one_shot) };
        trainer.fit(&fit_config(), &data(), &mut [&mut Pruning::new(config)])?;
        for (name, before) in WEIGHTS.iter().zip(searched) {
            assert_eq!(trainer.masks()[*name].flatten_all()?.to_vec1::<u8>()?, before, "{name}");
            let zeros =
                bits(trainer.network(), name).iter().zip(&before).all(|(bits, keep)| (*bits == 0) == (*keep == 0));
            assert!(zeros, "{name} is not 0 exactly where it is pruned");
        }
    }
    Ok(())
}

#[test]
fn gradients_and_histories_reach_the_criteria_that_need_them() -> Outcome {
    let criteria: [Box<dyn lth_criteria::Criterion>; 2] = [Box::new(Snip), Box::new(Movement)];
    for criterion in criteria {
        let mut trainer = trainer();
        // A dead unit's gradients are all 0: only the exact count cuts through such ties.
        let config = PruningConfig { criterion, selection: Selection::default(), ..search(50., None) };
        trainer.fit(&fit_config(), &data(), &mut [&mut Pruning::new(config)])?;
        let zeros: Vec<u64> = layer_records(trainer.network().parameters(), &RANKS)?.iter().map(|l| l.zeros).collect();
        for (zeros, n) in zeros.into_iter().zip([120, 70, 21]) {
            assert_eq!(zeros, (n - ThresholdRule::ExactCount.kept(0.5, n)?) as u64);
        }
    }
    Ok(())
}

#[test]
fn what_cannot_work_is_refused_before_training() {
    let refuse = |config: PruningConfig| {
        let error =
            trainer().fit(&fit_config(), &data(), &mut [&mut Pruning::new(config)]).expect_err("a bad configuration");
        match error {
            lth_train::Error::Hook { source, .. } => *source.downcast::<Error>().expect("our error"),
            other => panic!("{other}"),
        }
    };
    let early = search(50., Some(Rewind::to_epoch(2)));
    assert!(matches!(refuse(early), Error::RewindAfterStart { start_epoch: 1, rewind_epoch: 2 }));
    let wanda = PruningConfig { criterion: Box::new(Wanda), ..search(50., None) };
    assert!(matches!(refuse(wanda), Error::NotCollected { .. }));
    let convolutions = PruningConfig { ranks: vec![4], ..search(50., None) };
    let message = refuse(convolutions).to_string();
    assert!(message.contains("no weight of rank [4]") && message.contains("fc1.bias"), "{message}");
}

#[test]
fn a_resumed_search_finds_the_same_ticket() -> Outcome {
    let rewind = Some(Rewind { reset_end: true, ..Rewind::to_epoch(1) });
    let states = RefCell::new(Vec::<State>::new());
    let keep = |state: &State| {
        states.borrow_mut().push(state.clone());
        Ok(())
    };
    let mut whole = trainer();
    let config = FitConfig { checkpoint: Some(&keep), ..fit_config() };
    whole.fit(&config, &data(), &mut [&mut Pruning::new(search(80., rewind))])?;
    for (epoch, state) in states.take().iter().enumerate() {
        let mut resumed = trainer();
        resumed.restore(state)?;
        resumed.fit(&fit_config(), &data(), &mut [&mut Pruning::new(search(80., rewind))])?;
        for (name, _) in whole.network().parameters().iter() {
            assert_eq!(
                bits(resumed.network(), name),
                bits(whole.network(), name),
                "{name}, resumed after epoch {epoch}"
            );
        }
    }
    Ok(())
}

#[test]
fn the_order_of_notices_is_the_same_for_the_rule_of_2022() -> Outcome {
    let resets = RefCell::new(0);
    let rewind = Rewind { rule: ResetRule::Fasterai2022, ..Rewind::to_epoch(0) };
    let mut pruning = Pruning::new(search(50., Some(rewind))).with_notices(|notice| {
        *resets.borrow_mut() += usize::from(matches!(notice, Notice::Reset { .. }));
    });
    trainer().fit(&fit_config(), &data(), &mut [&mut pruning])?;
    drop(pruning);
    assert_eq!(resets.into_inner(), 3);
    Ok(())
}
