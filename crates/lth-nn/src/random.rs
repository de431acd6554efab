//! Addressed random streams: every draw depends on what it is for and on nothing drawn before.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The stream of a run's `seed` for one purpose, one name and one step.
pub(crate) fn stream(seed: u64, purpose: &str, name: &str, step: u64) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(key(seed, purpose, fnv1a64(name), step))
}

/// The key of a stream by this project's one rule: four u64, little-endian: the seed, FNV-1a-64 of the purpose's word, and
/// two numbers, for which a name enters as its FNV-1a-64.
fn key(seed: u64, purpose: &str, first: u64, second: u64) -> [u8; 32] {
    let mut key = [0; 32];
    for (part, number) in key.chunks_exact_mut(8).zip([seed, fnv1a64(purpose), first, second]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    key
}

fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The next value uniform in (0, 1): the middle of one of 2^52 equal intervals, so never 0 and never 1.
pub(crate) fn uniform(stream: &mut ChaCha8Rng) -> f64 {
    const INTERVAL: f64 = 1.0 / (1u64 << 52) as f64;
    ((stream.next_u64() >> 12) as f64 + 0.5) * INTERVAL
}

/// The next value uniform in (−1, 1).
pub(crate) fn centred(stream: &mut ChaCha8Rng) -> f64 {
    2. * uniform(stream) - 1.
}

/// The next value of the standard normal distribution.
///
/// One draw makes one value, by the inverse of the distribution function. Outside the tails that is arithmetic which IEEE
/// 754 fixes to the bit, and in them it takes `sqrt` (fixed, too) and a logarithm written in Rust: initial weights are
/// the same on every platform, which the ziggurat and Box-Muller methods of the usual crates do not promise, since they
/// call the platform's `exp` or `ln` and `cos`.
pub(crate) fn normal(stream: &mut ChaCha8Rng) -> f64 {
    inverse_normal(uniform(stream))
}

/// The value below which a standard normal variable falls with probability `p`, for `p` in (0, 1); exact to about 1e-16.
///
/// Source: Wichura 1988, algorithm AS 241 (PPND16), Applied Statistics 37 (3).
fn inverse_normal(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * polynomial(r, CENTRE.0) / polynomial(r, CENTRE.1);
    }
    let r = libm::sqrt(-libm::log(if q < 0. { p } else { 1. - p }));
    let value = if r <= 5. {
        polynomial(r - 1.6, TAIL.0) / polynomial(r - 1.6, TAIL.1)
    } else {
        polynomial(r - 5., FAR_TAIL.0) / polynomial(r - 5., FAR_TAIL.1)
    };
    if q < 0. { -value } else { value }
}

/// Horner's rule; the coefficient of the highest power comes first.
fn polynomial(x: f64, coefficients: [f64; 8]) -> f64 {
    coefficients.into_iter().fold(0., |sum, coefficient| sum * x + coefficient)
}

#[allow(clippy::excessive_precision)] // as printed in the source
const CENTRE: ([f64; 8], [f64; 8]) = (
    [
        2.5090809287301226727e+3,
        3.3430575583588128105e+4,
        6.7265770927008700853e+4,
        4.5921953931549871457e+4,
        1.3731693765509461125e+4,
        1.9715909503065514427e+3,
        1.3314166789178437745e+2,
        3.3871328727963666080e+0,
    ],
    [
        5.2264952788528545610e+3,
        2.8729085735721942674e+4,
        3.9307895800092710610e+4,
        2.1213794301586595867e+4,
        5.3941960214247511077e+3,
        6.8718700749205790830e+2,
        4.2313330701600911252e+1,
        1.0,
    ],
);

#[allow(clippy::excessive_precision)] // as printed in the source
const TAIL: ([f64; 8], [f64; 8]) = (
    [
        7.74545014278341407640e-4,
        2.27238449892691845833e-2,
        2.41780725177450611770e-1,
        1.27045825245236838258e+0,
        3.64784832476320460504e+0,
        5.76949722146069140550e+0,
        4.63033784615654529590e+0,
        1.42343711074968357734e+0,
    ],
    [
        1.05075007164441684324e-9,
        5.47593808499534494600e-4,
        1.51986665636164571966e-2,
        1.48103976427480074590e-1,
        6.89767334985100004550e-1,
        1.67638483018380384940e+0,
        2.05319162663775882187e+0,
        1.0,
    ],
);

#[allow(clippy::excessive_precision)] // as printed in the source
const FAR_TAIL: ([f64; 8], [f64; 8]) = (
    [
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        1.24266094738807843860e-3,
        2.65321895265761230930e-2,
        2.96560571828504891230e-1,
        1.78482653991729133580e+0,
        5.46378491116411436990e+0,
        6.65790464350110377720e+0,
    ],
    [
        2.04426310338993978564e-15,
        1.42151175831644588870e-7,
        1.84631831751005468180e-5,
        7.86869131145613259100e-4,
        1.48753612908506148525e-2,
        1.36929880922735805310e-1,
        5.99832206555887937690e-1,
        1.0,
    ],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverse_normal_equals_pythons() {
        // From Python 3.11's statistics.NormalDist().inv_cdf(p).
        for (p, expected) in [
            (0.5, 0.0),
            (0.42, -0.2018934791418509),
            (0.25, -0.6744897501960817),
            (0.07, -1.4757910281791702),
            (0.93, 1.4757910281791708),
            (0.975, 1.9599639845400536),
            (1e-4, -3.71901648545568),
            (1e-10, -6.361340902404056),
            (5.551115123125783e-17, -8.292361075813595),
        ] {
            let got = inverse_normal(p);
            assert!((got - expected).abs() <= 1e-15 * f64::abs(expected), "p {p}: {got}, expected {expected}");
        }
    }

    /// The same lines stand in every crate that draws: the rule is one. Its key and its draws went into published numbers.
    #[test]
    fn the_rule_of_streams_is_frozen() {
        let key = key(42, "order", 3, fnv1a64("conv1.weight"));
        let (order, name) = ([247, 41, 168, 129, 114, 13, 230, 107], [84, 210, 71, 238, 44, 154, 162, 105]);
        let numbers = [[42, 0, 0, 0, 0, 0, 0, 0], order, [3, 0, 0, 0, 0, 0, 0, 0], name];
        assert_eq!(key, numbers.concat()[..]);
        // From ChaCha with eight rounds as Bernstein 2008 has it, written out in Python.
        let mut stream = ChaCha8Rng::from_seed(key);
        assert_eq!([stream.next_u64(), stream.next_u64()], [0x87d5_48c8_9354_0085, 0xd74c_5cd7_c101_056f]);
        // The published test vector.
        assert_eq!(fnv1a64("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn draws_depend_on_every_part_of_the_address() {
        let draw = |seed, purpose, name, step| stream(seed, purpose, name, step).next_u64();
        let first = draw(1, "init", "conv1.weight", 0);
        assert_eq!(first, draw(1, "init", "conv1.weight", 0));
        assert_ne!(first, draw(2, "init", "conv1.weight", 0));
        assert_ne!(first, draw(1, "dropout", "conv1.weight", 0));
        assert_ne!(first, draw(1, "init", "conv2.weight", 0));
        assert_ne!(first, draw(1, "init", "conv1.weight", 1));
    }

    #[test]
    fn normal_draws_have_the_normal_moments() {
        const N: usize = 200_000;
        let mut stream = stream(7, "test", "", 0);
        let draws: Vec<f64> = (0..N).map(|_| normal(&mut stream)).collect();
        let moment = |k| draws.iter().map(|x| x.powi(k)).sum::<f64>() / N as f64;
        // Four standard errors: the moments' variances are 1, 2, 15 and 96 over N.
        for (k, expected, variance) in [(1, 0., 1f64), (2, 1., 2.), (3, 0., 15.), (4, 3., 96.)] {
            let error = (moment(k) - expected).abs();
            assert!(error < 4. * (variance / N as f64).sqrt(), "moment {k} is off by {error}");
        }
    }

    #[test]
    fn uniform_draws_stay_inside_the_open_interval() {
        let mut stream = stream(3, "test", "", 0);
        assert!((0..100_000).map(|_| uniform(&mut stream)).all(|u| u > 0. && u < 1.));
        // The ends of the range of draws.
        assert_eq!(inverse_normal(0.5f64.powi(53)), -inverse_normal(1. - 0.5f64.powi(53)));
    }
}
