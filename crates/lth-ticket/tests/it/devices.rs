//! Pruning where candle was compiled for other devices than the CPU and the machine has one; without, on the CPU alone:
//! `cargo test -p lth-ticket --features candle-core/cuda --test ticket devices`, or `candle-core/metal`.

use candle_core::Device;
use lth_criteria::{Criterion, LargeFinal, Movement, Snip};
use lth_mask::MaskSet;
use lth_schedule::{Schedule, Sparsity, SparsitySchedule};
use lth_ticket::{Pruning, PruningConfig, Rewind};
use lth_train::{FitConfig, Network};

use crate::support::{RANKS, data_on, trainer_on};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The masks and the weights after a search on a device.
fn searched(criterion: Box<dyn Criterion>, device: &Device) -> Outcome<(MaskSet, Vec<f32>)> {
    let schedule = SparsitySchedule {
        window: "1ep..end".parse()?,
        ..SparsitySchedule::to(Sparsity::from_percent(60.)?, Schedule::iterative(2)?)
    };
    let config = PruningConfig {
        criterion,
        ranks: RANKS.to_vec(),
        rewind: Some(Rewind::to_epoch(1)),
        ..PruningConfig::new(schedule)
    };
    let mut trainer = trainer_on(device);
    let fit_config = FitConfig { learning_rate: &|_| 0.02, ..FitConfig::new(3) };
    trainer.fit(&fit_config, &data_on(device.clone()), &mut [&mut Pruning::new(config)])?;
    let masks = MaskSet::from_tensors(trainer.masks())?;
    let mut weights = Vec::new();
    for (_, parameter) in trainer.network().parameters().iter() {
        assert!(parameter.var().device().same_device(device));
        weights.extend(parameter.var().to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok((masks, weights))
}

#[test]
fn a_search_on_another_device_finds_the_ticket_of_the_cpu() -> Outcome {
    let criteria: [fn() -> Box<dyn Criterion>; 3] = [|| Box::new(LargeFinal), || Box::new(Snip), || Box::new(Movement)];
    for criterion in criteria {
        let (expected, of_cpu) = searched(criterion(), &Device::Cpu)?;
        for device in [Ok(Device::Cpu), Device::new_cuda(0), Device::new_metal(0)].into_iter().flatten() {
            let (masks, weights) = searched(criterion(), &device)?;
            assert_eq!(masks, expected, "{}, {device:?}", criterion().name());
            for (got, expected) in weights.iter().zip(&of_cpu) {
                assert!(
                    (got - expected).abs() < 1e-4,
                    "{}, {device:?}: {got}, expected {expected}",
                    criterion().name()
                );
            }
        }
    }
    Ok(())
}
