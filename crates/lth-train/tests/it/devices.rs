//! Training where candle was compiled for other devices than the CPU and the machine has one; without, on the CPU alone:
//! `cargo test -p lth-train --features candle-core/cuda --test train devices`, or `candle-core/metal`.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use lth_train::{
    Classification, Clip, Data, Error, FitConfig, Network, Optimizer, OptimizerConfig, Regression, Task, Trainer,
    check_gradients,
};

use crate::trainer::{Batch, Batches, N_BATCHES, batch, network_on, plain_sgd};

fn devices() -> impl Iterator<Item = Device> {
    [Ok(Device::Cpu), Device::new_cuda(0), Device::new_metal(0)].into_iter().flatten()
}

type Linear = lth_train::ModuleNetwork<candle_nn::Linear>;

/// How a fit trains.
struct Case<'a> {
    optimizer: OptimizerConfig,
    clip: Option<Clip>,
    task: &'a dyn Task<Linear, (Tensor, Tensor)>,
    /// From the classes of a batch to what the task takes.
    targets: fn(Tensor) -> candle_core::Result<Tensor>,
}

/// The weights after two epochs under a mask on the CPU, and the last validation loss.
fn trained(case: &Case<'_>, device: &Device) -> Result<(Vec<Vec<f32>>, f64), Error> {
    let there = |epoch: u64, index: usize| -> Batch {
        let (x, y) = batch(epoch, index)?;
        Ok((x.to_device(device)?, (case.targets)(y)?.to_device(device)?))
    };
    let data = Data {
        train: |epoch| Box::new((0..N_BATCHES).map(|i| there(epoch, i)).collect::<Vec<_>>().into_iter()) as Batches,
        n_train_batches: N_BATCHES,
        valid: || Box::new(vec![there(99, 0)].into_iter()) as Batches,
    };
    let mut trainer = Trainer::new(network_on(device)?, Optimizer::new(case.optimizer), 42);
    let mask = Tensor::new(&[[1u8, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]], &Device::Cpu)?;
    trainer.set_masks(BTreeMap::from([("weight".to_owned(), mask)]))?;
    let config = FitConfig { learning_rate: &|_| 0.1, clip: case.clip, ..FitConfig::new(2) };
    let fitted = trainer.fit_task(case.task, &config, &data, &mut [])?;
    let weight = trainer.network().parameters().require("weight")?.var();
    assert!(weight.device().same_device(device) && trainer.masks()["weight"].device().same_device(device));
    let loss = fitted.history.last().and_then(|record| record.valid_loss).expect("a validation after every epoch");
    Ok((weight.to_device(&Device::Cpu)?.to_vec2()?, loss))
}

#[test]
fn a_mask_of_the_cpu_holds_weights_of_another_device() -> Result<(), Error> {
    let classes = Case { optimizer: plain_sgd(), clip: None, task: &Classification::default(), targets: Ok };
    let one_hot = |y: Tensor| Tensor::eye(3, candle_core::DType::F32, &Device::Cpu)?.index_select(&y, 0);
    let cases = [
        Case { clip: Some(Clip::Norm(0.1)), ..classes },
        Case { clip: Some(Clip::Value(0.01)), ..classes },
        Case { optimizer: OptimizerConfig::adam(), ..classes },
        Case { task: &Regression, targets: one_hot, ..classes },
        classes,
    ];
    for case in &cases {
        let (expected, expected_loss) = trained(case, &Device::Cpu)?;
        for device in devices() {
            let (got, loss) = trained(case, &device)?;
            assert!((loss - expected_loss).abs() < 1e-5, "{device:?}: {loss}, expected {expected_loss}");
            for (row, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                assert_eq!(*row == 0.0, *expected == 0.0, "{device:?}");
                assert!((row - expected).abs() < 1e-5, "{device:?}: {row}, expected {expected}");
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_are_checked_on_every_device() -> Result<(), Error> {
    for device in devices() {
        let (x, y) = batch(0, 0)?;
        let report = check_gradients(&network_on(&device)?, &(x.to_device(&device)?, y.to_device(&device)?))?;
        assert_eq!(report.parameters.len(), 2, "{device:?}");
    }
    Ok(())
}
