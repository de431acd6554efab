//! How the values of a new parameter are drawn.

use rand_chacha::ChaCha8Rng;

use crate::random;

/// Which count of connections scales the initial weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fan {
    /// Inputs of one output: keeps the size of activations.
    In,
    /// Outputs of one input: keeps the size of gradients.
    Out,
}

/// The distribution of a new parameter's values.
///
/// Values are drawn from a stream keyed by the seed and the parameter's full name, so that another layer, another order
/// or another number type shifts none of them, and they are the same on every platform.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// One value everywhere.
    Constant(f64),
    /// Uniform in [−bound, bound].
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// Uniform in (low, high).
    Between {
        /// The lower bound.
        low: f64,
        /// The upper bound.
        high: f64,
    },
    /// Normal around 0.
    Normal {
        /// The standard deviation.
        std: f64,
    },
    /// Normal with standard deviation gain / √fan. Source: He et al. 2015.
    KaimingNormal {
        /// The count to scale by.
        fan: Fan,
        /// √2 before a ReLU.
        gain: f64,
    },
    /// Uniform with standard deviation gain / √fan. Source: He et al. 2015.
    KaimingUniform {
        /// The count to scale by.
        fan: Fan,
        /// √2 before a ReLU.
        gain: f64,
    },
    /// Normal with standard deviation √(2 / (fan in + fan out)). Source: Glorot & Bengio 2010.
    GlorotNormal,
    /// Uniform with standard deviation √(2 / (fan in + fan out)). Source: Glorot & Bengio 2010.
    GlorotUniform,
}

impl Init {
    /// What PyTorch gives the weights of a new linear layer or convolution: uniform in ±1/√(fan in). (It calls this
    /// Kaiming uniform with a slope of √5.)
    pub const TORCH: Self = Self::KaimingUniform { fan: Fan::In, gain: 0.577_350_269_189_625_8 };

    /// PyTorch's `kaiming_normal_` as torchvision's ResNets call it, `mode='fan_out', nonlinearity='relu'`.
    pub const RESNET: Self = Self::KaimingNormal { fan: Fan::Out, gain: std::f64::consts::SQRT_2 };

    /// PyTorch's `kaiming_normal_` with its defaults: fastai's heads, open_lth's networks, and He et al. 2015.
    pub const FASTAI: Self = Self::KaimingNormal { fan: Fan::In, gain: std::f64::consts::SQRT_2 };

    /// What PyTorch gives the bias of a new layer with `fan_in` inputs per output.
    pub fn torch_bias(fan_in: usize) -> Self {
        Self::Uniform { bound: 1. / libm::sqrt(fan_in.max(1) as f64) }
    }

    /// The values of a new parameter, row-major.
    pub(crate) fn values(self, shape: &[usize], seed: u64, name: &str) -> Vec<f64> {
        let fan = |fan: Fan| fan.count(shape);
        let glorot = || libm::sqrt(2. / (fan(Fan::In) + fan(Fan::Out)));
        // The bound of a uniform distribution of standard deviation 1.
        let bound = libm::sqrt(3.);
        let (draw, scale): (fn(&mut ChaCha8Rng) -> f64, f64) = match self {
            Self::Constant(value) => (|_| 1., value),
            Self::Uniform { bound } => (random::centred, bound),
            Self::Between { low, high } => {
                let mut stream = random::stream(seed, "init", name, 0);
                let draw = || low + (high - low) * random::uniform(&mut stream);
                return std::iter::repeat_with(draw).take(shape.iter().product()).collect();
            }
            Self::Normal { std } => (random::normal, std),
            Self::KaimingNormal { fan: mode, gain } => (random::normal, gain / libm::sqrt(fan(mode))),
            Self::KaimingUniform { fan: mode, gain } => (random::centred, bound * gain / libm::sqrt(fan(mode))),
            Self::GlorotNormal => (random::normal, glorot()),
            Self::GlorotUniform => (random::centred, bound * glorot()),
        };
        let mut stream = random::stream(seed, "init", name, 0);
        (0..shape.iter().product()).map(|_| scale * draw(&mut stream)).collect()
    }
}

impl Fan {
    /// Connections of a weight [outputs, inputs, kernel…], at least 1.
    fn count(self, shape: &[usize]) -> f64 {
        let kernel: usize = shape.iter().skip(2).product();
        let channels = shape.get(if self == Self::In { 1 } else { 0 }).copied().unwrap_or(1);
        (channels * kernel).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 4] = [64, 32, 3, 3];

    fn std_of(init: Init) -> f64 {
        let values = init.values(&SHAPE, 1, "w");
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
    }

    #[test]
    fn standard_deviations_are_those_of_the_definitions() {
        let sqrt_2 = std::f64::consts::SQRT_2;
        for (init, expected) in [
            (Init::Normal { std: 0.01 }, 0.01),
            (Init::Uniform { bound: 0.3 }, 0.3 / 3f64.sqrt()),
            (Init::Between { low: -0.2, high: 0.4 }, 0.3 / 3f64.sqrt()),
            (Init::RESNET, sqrt_2 / (64f64 * 9.).sqrt()),
            (Init::FASTAI, sqrt_2 / (32f64 * 9.).sqrt()),
            (Init::TORCH, 1. / (3f64 * 32. * 9.).sqrt()),
            (Init::GlorotNormal, (2. / (96f64 * 9.)).sqrt()),
            (Init::GlorotUniform, (2. / (96f64 * 9.)).sqrt()),
        ] {
            // 18,432 values: one standard error of a standard deviation is 0.52 %.
            assert!((std_of(init) / expected - 1.).abs() < 0.02, "{init:?}: {}, expected {expected}", std_of(init));
        }
    }

    #[test]
    fn uniform_values_reach_the_bound_and_stay_inside() {
        let bound = 1. / (32f64 * 9.).sqrt();
        let largest = Init::TORCH.values(&SHAPE, 1, "w").into_iter().fold(0., |m: f64, v| m.max(v.abs()));
        assert!(largest <= bound && largest > 0.99 * bound, "{largest}, bound {bound}");
    }

    #[test]
    fn values_between_bounds_lie_between_them() {
        let values = Init::Between { low: 0.25, high: 0.5 }.values(&SHAPE, 1, "w");
        let (low, high) = values.iter().fold((1f64, 0f64), |(low, high), &v| (low.min(v), high.max(v)));
        assert!((0.25..0.251).contains(&low) && (0.499..0.5).contains(&high), "{low} to {high}");
    }

    #[test]
    fn values_are_frozen() {
        // These bits went into published runs: a change of stream or method must be deliberate.
        let bits = |init: Init| init.values(&[2], 42, "conv1.weight").into_iter().map(f64::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(Init::Normal { std: 1. }), [13_833_161_218_827_513_785, 4_608_574_733_922_736_647]);
        assert_eq!(bits(Init::Uniform { bound: 1. }), [13_829_524_231_319_258_594, 4_605_466_714_043_548_270]);
    }
}
