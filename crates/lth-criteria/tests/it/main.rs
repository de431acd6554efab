//! The crate against golden values, closed forms and properties.

mod autograd;
mod collectors;
mod contract;
mod devices;
mod golden;
mod network;
mod synflow;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use lth_criteria::Inputs;

/// Every input that there is, for one weight of shape [4, 2, 3, 3], from fixed formulas.
struct Everything {
    tensors: BTreeMap<&'static str, Tensor>,
}

impl Everything {
    fn new() -> Everything {
        let wave = |scale: f64, phase: f64, n: usize| -> Vec<f32> {
            (0..n).map(|i| (scale * (i as f64 * 0.7 + phase).sin() + 0.01) as f32).collect()
        };
        let full = |scale, phase| Tensor::from_vec(wave(scale, phase, 72), (4, 2, 3, 3), &Device::Cpu).unwrap();
        let tensors = BTreeMap::from([
            ("weight", full(0.5, 0.0)),
            ("initial", full(0.4, 0.3)),
            ("previous", full(0.5, 0.1)),
            ("gradient", full(0.02, 1.0)),
            ("squared_gradient", full(0.02, 1.0).sqr().unwrap()),
            ("hessian_gradient", full(0.3, 2.0)),
            ("flow_gradient", full(3.0, 1.5).abs().unwrap()),
            ("activation_norm", Tensor::new(&[1.5f32, 0.2], &Device::Cpu).unwrap()),
            ("batch_norm_scale", Tensor::new(&[1f32, -0.5, 0.0, 2.0], &Device::Cpu).unwrap()),
            ("squared_gate_gradient", Tensor::new(&[0.5f32, 0.25, 0.0, 3.0], &Device::Cpu).unwrap()),
            ("mask", (full(1.0, 0.5).ge(0.0).unwrap()).to_dtype(DType::U8).unwrap()),
        ]);
        Everything { tensors }
    }

    fn inputs(&self) -> Inputs<'_> {
        let find = |name: &str| self.tensors.get(name);
        Inputs {
            initial: find("initial"),
            previous: find("previous"),
            gradient: find("gradient"),
            squared_gradient: find("squared_gradient"),
            hessian_gradient: find("hessian_gradient"),
            flow_gradient: find("flow_gradient"),
            activation_norm: find("activation_norm"),
            batch_norm_scale: find("batch_norm_scale"),
            squared_gate_gradient: find("squared_gate_gradient"),
            mask: find("mask"),
            ..Inputs::of(&self.tensors["weight"])
        }
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(ours: &[f64], expected: &[f64], relative: f64, what: &str) {
    assert_eq!(ours.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f64, |a, b| a.max(b.abs()));
    for (idx, (a, b)) in ours.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= relative * largest, "{what} at {idx}: {a}, expected {b}, largest {largest}");
    }
}
