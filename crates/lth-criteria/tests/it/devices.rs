//! Scores where candle was compiled for other devices than the CPU and the machine has one; without, of the CPU alone:
//! `cargo test -p lth-criteria --features candle-core/cuda --test criteria devices`, or `candle-core/metal`.

use candle_core::Device;
use lth_criteria::all;

use crate::{Everything, values};

#[test]
fn scores_of_another_device_s_tensors_are_the_cpu_s_to_the_bit() {
    let here = Everything::new();
    for device in [Ok(Device::Cpu), Device::new_cuda(0), Device::new_metal(0)].into_iter().flatten() {
        let tensors = here.tensors.iter().map(|(name, tensor)| (*name, tensor.to_device(&device).unwrap())).collect();
        let there = Everything { tensors };
        for criterion in all(3) {
            let [expected, scores] = [&here, &there].map(|of| criterion.score("w", &of.inputs()).unwrap());
            assert!(scores.device().is_cpu(), "{}", criterion.name());
            assert_eq!(values(&scores), values(&expected), "{}, {device:?}", criterion.name());
        }
    }
}
