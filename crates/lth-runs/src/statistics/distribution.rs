//! Tails and quantiles of the normal and of Student's t distribution, and the tail of a fair coin.

/// z with P(|Z| < z) = `confidence`; `None` for a confidence outside (0, 1).
pub(super) fn normal_two_sided(confidence: f64) -> Option<f64> {
    (confidence > 0.0 && confidence < 1.0).then(|| normal_upper((1.0 - confidence) / 2.0))
}

/// t with P(|T| < t) = `confidence`; `None` for a confidence outside (0, 1) or no degrees of freedom.
pub(super) fn student_t_two_sided(confidence: f64, degrees_of_freedom: f64) -> Option<f64> {
    if !(confidence > 0.0 && confidence < 1.0 && degrees_of_freedom > 0.0) {
        return None;
    }
    let tail = 1.0 - confidence;
    let (mut low, mut high) = (0.0, 1.0);
    while student_t_tail(high, degrees_of_freedom) > tail {
        (low, high) = (high, high * 2.0);
    }
    // The tail falls with t, so halving the bracket ends at neighbouring doubles.
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return Some(high);
        }
        if student_t_tail(middle, degrees_of_freedom) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// P(|T| ≥ |t|).
pub(super) fn student_t_tail(t: f64, degrees_of_freedom: f64) -> f64 {
    // Scaled so that t² does not overflow.
    let ratio = t / degrees_of_freedom.sqrt();
    let (x, complement) = if ratio.abs() > 1.0 {
        let inverse = ratio.recip() * ratio.recip();
        (inverse / (1.0 + inverse), 1.0 / (1.0 + inverse))
    } else {
        let square = ratio * ratio;
        (1.0 / (1.0 + square), square / (1.0 + square))
    };
    incomplete_beta(x, complement, degrees_of_freedom / 2.0, 0.5)
}

/// P(T ≥ t).
pub(super) fn student_t_above(t: f64, degrees_of_freedom: f64) -> f64 {
    let half = student_t_tail(t, degrees_of_freedom) / 2.0;
    if t > 0.0 { half } else { 1.0 - half }
}

/// P(X ≤ k) for the heads X of `n` throws of a fair coin, k < n or n = 0.
pub(super) fn binomial_half_tail(k: u64, n: u64) -> f64 {
    if k >= n {
        return 1.0;
    }
    incomplete_beta(0.5, 0.5, (n - k) as f64, k as f64 + 1.0)
}

/// z with P(Z > z) = `tail`, for tail in (0, ½].
///
/// Source: Wichura 1988, algorithm AS 241 (PPND16), relative accuracy 1e-16.
fn normal_upper(tail: f64) -> f64 {
    const A: [f64; 8] = [
        3.387_132_872_796_366_5,
        133.141_667_891_784_38,
        1_971.590_950_306_551_3,
        13_731.693_765_509_46,
        45_921.953_931_549_87,
        67_265.770_927_008_7,
        33_430.575_583_588_13,
        2_509.080_928_730_122_7,
    ];
    const B: [f64; 8] = [
        1.0,
        42.313_330_701_600_91,
        687.187_007_492_057_9,
        5_394.196_021_424_751,
        21_213.794_301_586_597,
        39_307.895_800_092_71,
        28_729.085_735_721_943,
        5_226.495_278_852_854,
    ];
    const C: [f64; 8] = [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        0.241_780_725_177_450_6,
        0.022_723_844_989_269_184,
        7.745_450_142_783_414e-4,
    ];
    const D: [f64; 8] = [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        0.689_767_334_985_1,
        0.148_103_976_427_480_08,
        0.015_198_666_563_616_457,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ];
    const E: [f64; 8] = [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        0.296_560_571_828_504_87,
        0.026_532_189_526_576_124,
        0.001_242_660_947_388_078_4,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ];
    const F: [f64; 8] = [
        1.0,
        0.599_832_206_555_888,
        0.136_929_880_922_735_8,
        0.014_875_361_290_850_615,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_8e-15,
    ];
    let centred = 0.5 - tail;
    if centred <= 0.425 {
        let r = 0.180_625 - centred * centred;
        return centred * polynomial(&A, r) / polynomial(&B, r);
    }
    let r = (-tail.ln()).sqrt();
    if r <= 5.0 {
        polynomial(&C, r - 1.6) / polynomial(&D, r - 1.6)
    } else {
        polynomial(&E, r - 5.0) / polynomial(&F, r - 5.0)
    }
}

fn polynomial(coefficients: &[f64; 8], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

/// The regularised incomplete beta function I_x(a, b); `complement` is 1 − x, given apart to keep its digits.
///
/// The continued fraction of DLMF 8.17.22, by the modified Lentz method.
fn incomplete_beta(x: f64, complement: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if complement <= 0.0 {
        return 1.0;
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * complement.ln()).exp();
    // The fraction converges fast only below the distribution's mean; above it the other tail is taken.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(x, a, b) / a
    } else {
        1.0 - front * beta_fraction(complement, b, a) / b
    }
}

fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    const SMALLEST: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < SMALLEST { SMALLEST } else { value };
    let mut c = 1.0;
    let mut d = away_from_zero(1.0 - (a + b) * x / (a + 1.0)).recip();
    let mut fraction = d;
    // O(√max(a, b)) terms suffice; the bound is for parameters beyond any sample.
    for term in 1..10_000 {
        let m = f64::from(term);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = away_from_zero(1.0 + even * d).recip();
        c = away_from_zero(1.0 + even / c);
        fraction *= c * d;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = away_from_zero(1.0 + odd * d).recip();
        c = away_from_zero(1.0 + odd / c);
        let step = c * d;
        fraction *= step;
        if (step - 1.0).abs() <= f64::EPSILON {
            break;
        }
    }
    fraction
}

/// ln Γ(x) for x > 0, by Stirling's series above 15 and the recurrence below.
fn ln_gamma(x: f64) -> f64 {
    // B₂ₖ / (2k (2k − 1)); at x ≥ 15 the first term left out is below 1e-17.
    const SERIES: [f64; 7] =
        [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0, 1.0 / 156.0];
    let (mut shifted, mut product) = (x, 1.0);
    while shifted < 15.0 {
        product *= shifted;
        shifted += 1.0;
    }
    let inverse = shifted.recip();
    let series = SERIES.iter().rev().fold(0.0, |sum, term| sum * inverse * inverse + term) * inverse;
    let half_ln_two_pi = 0.5 * std::f64::consts::TAU.ln();
    (shifted - 0.5) * shifted.ln() - shifted + half_ln_two_pi + series - product.ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal, StudentsT};

    use super::*;

    #[test]
    fn familiar_quantiles() {
        assert!((normal_two_sided(0.95).unwrap() - 1.959_963_984_540_054).abs() < 1e-15);
        assert!((normal_two_sided(0.999_999_999).unwrap() - 6.109_410_204_869_0).abs() < 1e-7);
        // Closed forms: Cauchy for one degree of freedom, algebraic for two.
        let one = student_t_two_sided(0.95, 1.0).unwrap();
        assert!((one - (0.475 * std::f64::consts::PI).tan()).abs() < 1e-12 * one);
        let two = student_t_two_sided(0.95, 2.0).unwrap();
        assert!((two - 0.95 * (2.0_f64 / (1.0 - 0.95 * 0.95)).sqrt()).abs() < 1e-13 * two);
    }

    #[test]
    fn gamma_of_whole_numbers_is_the_factorial() {
        let mut factorial: f64 = 1.0;
        for n in 1..30 {
            let x = f64::from(n);
            let error = (ln_gamma(x) - factorial.ln()).abs();
            assert!(error <= 4e-15 * factorial.ln().max(1.0), "ln Γ({n}) is off by {error}");
            factorial *= x;
        }
        assert!((ln_gamma(0.5) - 0.5 * std::f64::consts::PI.ln()).abs() < 1e-14);
    }

    proptest! {
        #[test]
        fn student_agrees_with_statrs(t in 0.01_f64..40.0, free in 1.0_f64..200.0) {
            let oracle = 2.0 * StudentsT::new(0.0, 1.0, free).unwrap().sf(t);
            let tail = student_t_tail(t, free);
            prop_assert!((tail - oracle).abs() <= 1e-10 * oracle + 1e-15, "{tail} and {oracle}");
        }

        #[test]
        fn one_tail_agrees_with_statrs(t in -40.0_f64..40.0, free in 1.0_f64..200.0) {
            let oracle = StudentsT::new(0.0, 1.0, free).unwrap().sf(t);
            prop_assert!((student_t_above(t, free) - oracle).abs() <= 1e-10 * oracle + 1e-15);
        }

        #[test]
        fn coin_agrees_with_statrs(n in 1_u64..3000, share in 0.0_f64..1.0) {
            let k = (share * n as f64) as u64;
            let oracle = Binomial::new(0.5, n).unwrap().cdf(k);
            let tail = binomial_half_tail(k, n);
            prop_assert!((tail - oracle).abs() <= 1e-9 * oracle + 1e-300, "{tail} and {oracle}");
        }

        #[test]
        fn student_quantile_inverts_its_tail(confidence in 0.01_f64..0.9999, free in 1.0_f64..500.0) {
            let t = student_t_two_sided(confidence, free).unwrap();
            let tail = 1.0 - confidence;
            prop_assert!((student_t_tail(t, free) - tail).abs() <= 1e-11 * tail);
        }

        #[test]
        fn normal_agrees_with_statrs(confidence in 0.001_f64..0.999_999) {
            let z = normal_two_sided(confidence).unwrap();
            let oracle = Normal::new(0.0, 1.0).unwrap();
            let covered = 1.0 - 2.0 * oracle.sf(z);
            prop_assert!((covered - confidence).abs() <= 1e-10, "{covered} and {confidence}");
        }
    }
}
