//! ResNet-18 with fastai's head from candle's own layers and operators, for comparison.
//!
//! candle cannot train the usual max pool (its backward needs kernel = stride), so that one is the maximum of nine strided
//! views in training; everything else is `candle_nn` as it comes, its AdamW included.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{
    AdamW, BatchNorm, Conv2d, Conv2dConfig, Dropout, Linear, Module, ModuleT, Optimizer, ParamsAdamW, VarBuilder,
    VarMap,
};

use super::options::Figure;
use super::ours::{CLASSES, LEARNING_RATE, SIDE, batch};

type Result<T> = candle_core::Result<T>;

/// candle's network, trained or evaluated step by step.
pub(crate) struct Candle {
    network: ResNet,
    optimizer: Option<AdamW>,
    batch: (Tensor, Tensor),
}

impl Candle {
    pub(crate) fn new(figure: Figure) -> anyhow::Result<Self> {
        let variables = VarMap::new();
        let trained = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let mut network = ResNet::new(&trained, figure == Figure::TrainFrozen)?;
        let optimizer = if figure.is_training() {
            // `all_vars` has no order of its own, which does not matter to a clock.
            let mut all = variables.all_vars();
            if figure == Figure::TrainFrozen {
                all.retain(|var| var.rank() != 4);
            }
            let params = ParamsAdamW { lr: LEARNING_RATE, beta1: 0.9, beta2: 0.99, eps: 1e-5, weight_decay: 0.01 };
            Some(AdamW::new(all, params)?)
        } else {
            // As a program that only evaluates would load it: no graph is recorded.
            let tensors = {
                let data = variables.data().lock().map_err(|_| anyhow::anyhow!("the VarMap's lock is poisoned"))?;
                data.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect::<HashMap<_, _>>()
            };
            network = ResNet::new(&VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), false)?;
            None
        };
        Ok(Self { network, optimizer, batch: batch(figure.batch(), SIDE)? })
    }

    pub(crate) fn step(&mut self) -> anyhow::Result<()> {
        let (x, target) = &self.batch;
        let Some(optimizer) = &mut self.optimizer else {
            self.network.forward(x, false)?;
            return Ok(());
        };
        let loss = candle_nn::loss::cross_entropy(&self.network.forward(x, true)?, target)?;
        let value = loss.to_scalar::<f32>()?;
        anyhow::ensure!(value.is_finite(), "the loss is {value}");
        optimizer.step(&loss.backward()?)?;
        Ok(())
    }
}

struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    blocks: Vec<Block>,
    norm2: BatchNorm,
    linear4: Linear,
    norm6: BatchNorm,
    linear8: Linear,
}

struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    downsample: Option<(Conv2d, BatchNorm)>,
}

fn conv(vb: &VarBuilder<'_>, [inputs, outputs, kernel, stride]: [usize; 4], frozen: bool) -> Result<Conv2d> {
    let config = Conv2dConfig { padding: kernel / 2, stride, ..Conv2dConfig::default() };
    let conv = candle_nn::conv2d_no_bias(inputs, outputs, kernel, config, vb.clone())?;
    Ok(if frozen { Conv2d::new(conv.weight().detach(), None, config) } else { conv })
}

impl Block {
    fn new(vb: &VarBuilder<'_>, inputs: usize, outputs: usize, stride: usize, frozen: bool) -> Result<Self> {
        let downsample = if stride == 1 {
            None
        } else {
            let vb = vb.pp("downsample");
            Some((
                conv(&vb.pp("0"), [inputs, outputs, 1, stride], frozen)?,
                candle_nn::batch_norm(outputs, 1e-5, vb.pp("1"))?,
            ))
        };
        Ok(Self {
            conv1: conv(&vb.pp("conv1"), [inputs, outputs, 3, stride], frozen)?,
            bn1: candle_nn::batch_norm(outputs, 1e-5, vb.pp("bn1"))?,
            conv2: conv(&vb.pp("conv2"), [outputs, outputs, 3, 1], frozen)?,
            bn2: candle_nn::batch_norm(outputs, 1e-5, vb.pp("bn2"))?,
            downsample,
        })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let y = self.bn1.forward_t(&self.conv1.forward(x)?, train)?.relu()?;
        let y = self.bn2.forward_t(&self.conv2.forward(&y)?, train)?;
        let around = match &self.downsample {
            Some((conv, norm)) => norm.forward_t(&conv.forward(x)?, train)?,
            None => x.clone(),
        };
        (y + around)?.relu()
    }
}

impl ResNet {
    fn new(vb: &VarBuilder<'_>, frozen: bool) -> Result<Self> {
        let mut blocks = Vec::new();
        let mut inputs = 64;
        for (stage, outputs) in [64, 128, 256, 512].into_iter().enumerate() {
            for block in 0..2 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let vb = vb.pp(format!("layer{}.{block}", stage + 1));
                blocks.push(Block::new(&vb, inputs, outputs, stride, frozen)?);
                inputs = outputs;
            }
        }
        let head = vb.pp("head");
        Ok(Self {
            conv1: conv(&vb.pp("conv1"), [3, 64, 7, 2], frozen)?,
            bn1: candle_nn::batch_norm(64, 1e-5, vb.pp("bn1"))?,
            blocks,
            norm2: candle_nn::batch_norm(1024, 1e-5, head.pp("2"))?,
            linear4: candle_nn::linear_no_bias(1024, 512, head.pp("4"))?,
            norm6: candle_nn::batch_norm(512, 1e-5, head.pp("6"))?,
            linear8: candle_nn::linear_no_bias(512, CLASSES, head.pp("8"))?,
        })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.bn1.forward_t(&self.conv1.forward(x)?, train)?.relu()?;
        // After a ReLU padding with zeros is padding with the least value.
        let x = x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
        let mut x = if train { max_of_views(&x)? } else { x.max_pool2d_with_stride(3, 2)? };
        for block in &self.blocks {
            x = block.forward(&x, train)?;
        }
        let flat = x.flatten_from(2)?;
        let x = Tensor::cat(&[flat.max(2)?, flat.mean(2)?], 1)?;
        let x = self.norm2.forward_t(&x, train)?;
        let x = Dropout::new(0.25).forward_t(&x, train)?;
        let x = self.linear4.forward(&x)?.relu()?;
        let x = self.norm6.forward_t(&x, train)?;
        let x = Dropout::new(0.5).forward_t(&x, train)?;
        self.linear8.forward(&x)
    }
}

/// The maximum over windows of 3 by 3 at every second position of a padded map with even sides.
fn max_of_views(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let (oh, ow) = (h / 2 - 1, w / 2 - 1);
    let split = x.reshape((n, c, h / 2, 2, w / 2, 2))?;
    let mut best: Option<Tensor> = None;
    for i in 0..3 {
        let rows = split.narrow(2, i / 2, oh)?.narrow(3, i % 2, 1)?;
        for j in 0..3 {
            let view = rows.narrow(4, j / 2, ow)?.narrow(5, j % 2, 1)?.reshape((n, c, oh, ow))?;
            best = Some(match best {
                Some(best) => best.maximum(&view)?,
                None => view,
            });
        }
    }
    best.ok_or_else(|| candle_core::Error::msg("a window has nine positions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_of_views_is_candles_max_pool() -> Result<()> {
        let x = crate::bench::ours::noise(&[2, 3, 10, 6], 7)?;
        let (views, pooled) = (max_of_views(&x)?, x.max_pool2d_with_stride(3, 2)?);
        assert_eq!(views.flatten_all()?.to_vec1::<f32>()?, pooled.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }
}
