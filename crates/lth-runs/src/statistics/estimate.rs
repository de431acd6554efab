//! Mean, deviation and Student's interval of one sample.

use serde::{Deserialize, Serialize};

use super::distribution::student_t_two_sided;

/// Mean and spread of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (divisor n − 1); `null` for n = 1.
    pub deviation: Option<f64>,
    /// How many values.
    pub n: usize,
}

impl Estimate {
    /// The estimate from `values`; `None` if there are none or one is not finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        // Deviations from the first value: equal values give exactly that value and exactly no deviation.
        let first = values[0];
        let mean = first + values.iter().map(|value| value - first).sum::<f64>() / n as f64;
        let deviation = (n > 1).then(|| {
            let (squares, sum) = values.iter().fold((0.0, 0.0), |(squares, sum), value| {
                let distance = value - mean;
                (squares + distance * distance, sum + distance)
            });
            // The second term is zero but for rounding of the mean.
            ((squares - sum * sum / n as f64) / (n - 1) as f64).max(0.0).sqrt()
        });
        Some(Self { mean, deviation, n })
    }

    /// Deviation / √n; `None` for n = 1.
    pub fn standard_error(&self) -> Option<f64> {
        self.deviation.map(|deviation| deviation / (self.n as f64).sqrt())
    }

    /// Whether there are several values and all are equal: then no interval can be given.
    pub fn is_constant(&self) -> bool {
        self.deviation == Some(0.0)
    }

    /// Student's t interval for the mean; `None` for n = 1, for equal values (they would give a point, which claims
    /// a certainty that they do not have) or a confidence outside (0, 1).
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        let error = self.standard_error().filter(|error| *error > 0.0)?;
        let half = error * student_t_two_sided(confidence, (self.n - 1) as f64)?;
        Some(Interval { low: self.mean - half, high: self.mean + half, confidence })
    }
}

/// Where a true value lies with some confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The share of such intervals that hold the true value, in (0, 1).
    pub confidence: f64,
}

impl Interval {
    /// Whether `value` lies in it, ends included.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_no_deviation() {
        let one = Estimate::of(&[0.87]).unwrap();
        assert_eq!(one, Estimate { mean: 0.87, deviation: None, n: 1 });
        assert_eq!((one.standard_error(), one.interval(0.95)), (None, None));
        assert!(!one.is_constant());
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[1.0, f64::NAN]), None);
        assert_eq!(Estimate::of(&[1.0, f64::INFINITY]), None);
    }

    #[test]
    fn deviation_divides_by_n_minus_one() {
        let estimate = Estimate::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert!((estimate.mean - 5.0).abs() < 1e-12);
        assert!((estimate.deviation.unwrap() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn equal_values_do_not_deviate_and_have_no_interval() {
        let estimate = Estimate::of(&[0.1; 7]).unwrap();
        assert_eq!((estimate.mean, estimate.deviation), (0.1, Some(0.0)));
        assert!(estimate.is_constant());
        assert_eq!(estimate.interval(0.95), None);
    }

    #[test]
    fn deviation_survives_a_large_offset() {
        let estimate = Estimate::of(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]).unwrap();
        assert_eq!((estimate.mean, estimate.deviation), (1e9 + 10.0, Some(30.0_f64.sqrt())));
    }
}
