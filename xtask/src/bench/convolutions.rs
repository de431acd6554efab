//! The convolutions of ResNets, by name.

/// One convolution without bias and with padding kernel / 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Convolution {
    pub(crate) name: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Height and width of the input.
    pub(crate) side: usize,
}

impl Convolution {
    /// [outputs, inputs, kernel, kernel].
    pub(crate) fn weight_shape(&self) -> [usize; 4] {
        [self.outputs, self.inputs, self.kernel, self.kernel]
    }

    pub(crate) fn n_weights(&self) -> usize {
        self.weight_shape().iter().product()
    }

    /// Height and width of the output.
    pub(crate) fn out_side(&self) -> usize {
        self.side.div_ceil(self.stride)
    }

    /// Multiplications of vectors that Winograd's kernels make for one picture, and numbers that they transform: tiles of four
    /// by four outputs have 36 products. `None` where they do not apply.
    pub(crate) fn winograd(&self) -> Option<[f64; 2]> {
        let products = (36 * self.side.div_ceil(4).pow(2)) as f64;
        let (inputs, outputs) = (self.inputs as f64, self.outputs as f64);
        (self.kernel == 3 && self.stride == 1).then_some([products * inputs * outputs, products * (inputs + outputs)])
    }

    /// What its time depends on.
    pub(crate) fn shape(&self) -> [usize; 5] {
        [self.inputs, self.outputs, self.kernel, self.stride, self.side]
    }
}

/// ResNet-18's 20 convolutions, for pictures of `side`×`side`.
pub(crate) fn resnet18(side: usize) -> Vec<Convolution> {
    resnet([2, 2, 2, 2], 1, side)
}

/// ResNet-50's 53 convolutions.
pub(crate) fn resnet50(side: usize) -> Vec<Convolution> {
    resnet([3, 4, 6, 3], 4, side)
}

/// `expansion` 1: blocks of two 3×3 convolutions; more: of 1×1, 3×3 and a widening 1×1. Source: He et al. 2016, table 1.
fn resnet(blocks: [usize; 4], expansion: usize, side: usize) -> Vec<Convolution> {
    let mut all = Vec::new();
    let mut add = |name: String, inputs, outputs, kernel, stride, side: usize| {
        all.push(Convolution { name, inputs, outputs, kernel, stride, side });
        side.div_ceil(stride)
    };
    let mut side = add("conv1".to_owned(), 3, 64, 7, 2, side).div_ceil(2);
    let mut inputs = 64;
    for (stage, n_blocks) in blocks.into_iter().enumerate() {
        let (width, outputs) = (64 << stage, (64 << stage) * expansion);
        for block in 0..n_blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = |leaf: &str| format!("layer{}.{block}.{leaf}", stage + 1);
            let out_side = if expansion == 1 {
                let inner = add(name("conv1"), inputs, width, 3, stride, side);
                add(name("conv2"), width, outputs, 3, 1, inner)
            } else {
                add(name("conv1"), inputs, width, 1, 1, side);
                let inner = add(name("conv2"), width, width, 3, stride, side);
                add(name("conv3"), width, outputs, 1, 1, inner)
            };
            if block == 0 && inputs != outputs {
                add(name("downsample.0"), inputs, outputs, 1, stride, side);
            }
            (inputs, side) = (outputs, out_side);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use lth_nn::{Head, ResNet, ResNetConfig, Setup, TappedNetwork};
    use lth_train::{Network, Pass};

    use super::*;
    use crate::bench::ours::SIDE;

    #[test]
    fn they_are_those_of_the_network() -> anyhow::Result<()> {
        let network = ResNet::new(&ResNetConfig::resnet18(2, Head::Fastai), &Setup::new(1))?;
        let mut seen = Vec::new();
        let (x, _) = crate::bench::ours::batch(1, SIDE)?;
        network.forward_with_tap(&x, &Pass::eval(), &mut |name, x| {
            if x.rank() == 4 {
                seen.push((name.to_owned(), x.dims().to_vec()));
            }
            Ok(())
        })?;
        let mut ours: Vec<_> =
            resnet18(SIDE).into_iter().map(|conv| (conv.name, vec![1, conv.inputs, conv.side, conv.side])).collect();
        seen.sort();
        ours.sort();
        assert_eq!(seen, ours);
        for conv in resnet18(SIDE) {
            let weight = network.parameters().require(&format!("{}.weight", conv.name))?.var().dims().to_vec();
            assert_eq!(weight, conv.weight_shape(), "{}", conv.name);
        }
        Ok(())
    }

    #[test]
    fn resnet50_has_23_million_convolution_weights() {
        let convolutions = resnet50(SIDE);
        assert_eq!(convolutions.len(), 53);
        assert_eq!(convolutions.iter().map(Convolution::n_weights).sum::<usize>(), 23_454_912);
    }
}
