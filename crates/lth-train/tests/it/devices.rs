//! Training where candle was compiled for other devices than the CPU and the machine has one; without, on the CPU alone:
//! `cargo test -p lth-train --features candle-core/cuda --test train devices`, or `candle-core/metal`.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use lth_train::{Data, Error, FitConfig, Network, Optimizer, Trainer};

use crate::trainer::{Batch, Batches, N_BATCHES, batch, network_on, plain_sgd};

fn devices() -> impl Iterator<Item = Device> {
    [Ok(Device::Cpu), Device::new_cuda(0), Device::new_metal(0)].into_iter().flatten()
}

/// The weights after two epochs under a mask on the CPU.
fn trained(device: &Device) -> Result<Vec<Vec<f32>>, Error> {
    let there = |epoch: u64, index: usize| -> Batch {
        let (x, y) = batch(epoch, index)?;
        Ok((x.to_device(device)?, y.to_device(device)?))
    };
    let data = Data {
        train: |epoch| Box::new((0..N_BATCHES).map(|i| there(epoch, i)).collect::<Vec<_>>().into_iter()) as Batches,
        n_train_batches: N_BATCHES,
        valid: || Box::new(vec![there(99, 0)].into_iter()) as Batches,
    };
    let mut trainer = Trainer::new(network_on(device)?, Optimizer::new(plain_sgd()), 42);
    let mask = Tensor::new(&[[1u8, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]], &Device::Cpu)?;
    trainer.set_masks(BTreeMap::from([("weight".to_owned(), mask)]))?;
    trainer.fit(&FitConfig { learning_rate: &|_| 0.1, ..FitConfig::new(2) }, &data, &mut [])?;
    let weight = trainer.network().parameters().require("weight")?.var();
    assert!(weight.device().same_device(device) && trainer.masks()["weight"].device().same_device(device));
    Ok(weight.to_device(&Device::Cpu)?.to_vec2()?)
}

#[test]
fn a_mask_of_the_cpu_holds_weights_of_another_device() -> Result<(), Error> {
    let expected = trained(&Device::Cpu)?;
    for device in devices() {
        let got = trained(&device)?;
        for (row, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
            assert_eq!(*row == 0.0, *expected == 0.0, "{device:?}");
            assert!((row - expected).abs() < 1e-5, "{device:?}: {row}, expected {expected}");
        }
    }
    Ok(())
}
