//! A small network and its data.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{Linear, VarBuilder, VarMap, linear};
use lth_train::{Data, ModuleNetwork, Network, Optimizer, OptimizerConfig, Trainer};

pub(crate) type Batch = candle_core::Result<(Tensor, Tensor)>;
pub(crate) type Batches = Box<dyn Iterator<Item = Batch>>;
pub(crate) const N_BATCHES: usize = 4;
/// The layers of the network are linear.
pub(crate) const RANKS: [usize; 1] = [2];

/// Three linear layers with ReLU between.
pub(crate) struct Layers([Linear; 3]);

impl Module for Layers {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let [fc1, fc2, fc3] = &self.0;
        fc3.forward(&fc2.forward(&fc1.forward(x)?.relu()?)?.relu()?)
    }
}

pub(crate) type Small = ModuleNetwork<Layers>;

/// A network with fixed starting values: candle cannot seed its own.
fn network_on(device: &Device) -> candle_core::Result<Small> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, device);
    let layer = |inputs, outputs, name: &str| linear(inputs, outputs, builder.pp(name));
    let layers = Layers([layer(12, 10, "fc1")?, layer(10, 7, "fc2")?, layer(7, 3, "fc3")?]);
    let network = ModuleNetwork::new(layers, &variables).map_err(candle_core::Error::wrap)?;
    let mut start = BTreeMap::new();
    for (index, (name, parameter)) in network.parameters().iter().enumerate() {
        let shape = parameter.var().shape();
        let values = (0..shape.elem_count()).map(|i| 0.4 * ((i * 7 + index * 13 + 1) as f32).sin()).collect();
        start.insert(name.to_owned(), Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu)?);
    }
    network.parameters().restore(&start).map_err(candle_core::Error::wrap)?;
    Ok(network)
}

pub(crate) fn trainer() -> Trainer<Small> {
    trainer_on(&Device::Cpu)
}

pub(crate) fn trainer_on(device: &Device) -> Trainer<Small> {
    Trainer::new(network_on(device).expect("a small network"), Optimizer::new(OptimizerConfig::adam()), 3)
}

fn batch(epoch: u64, index: usize, device: &Device) -> Batch {
    let x: Vec<f32> = (0..96).map(|i| ((i as f32 + 1.) * (epoch as f32 + 2.) * (index as f32 + 3.)).sin()).collect();
    let y: Vec<u32> = (0..8).map(|i| ((i * 5 + index as u64 + epoch) % 3) as u32).collect();
    Ok((Tensor::from_vec(x, (8, 12), device)?, Tensor::from_vec(y, 8, device)?))
}

pub(crate) fn data() -> Data<impl Fn(u64) -> Batches, impl Fn() -> Batches> {
    data_on(Device::Cpu)
}

pub(crate) fn data_on(device: Device) -> Data<impl Fn(u64) -> Batches, impl Fn() -> Batches> {
    let of_valid = device.clone();
    Data {
        train: move |epoch| {
            let device = device.clone();
            Box::new((0..N_BATCHES).map(move |index| batch(epoch, index, &device))) as Batches
        },
        n_train_batches: N_BATCHES,
        valid: move || Box::new(std::iter::once(batch(99, 0, &of_valid))) as Batches,
    }
}

/// All values of a parameter, as bits.
pub(crate) fn bits(network: &impl Network, name: &str) -> Vec<u32> {
    let parameter = network.parameters().require(name).expect("the network has it");
    let values = parameter.var().flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
    values.iter().map(|value| value.to_bits()).collect()
}
