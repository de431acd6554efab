//! A verdict's sentence.

use std::fmt;

use super::equivalence::Better;
use super::verdict::{Claim, Scale, Verdict, VerdictKind};

impl fmt::Display for Verdict {
    /// "test accuracy of ticket is 0.31 points higher than that of dense (95 % interval +0.12 to +0.50, 5 seeds,
    /// p = 0.012 after Holm's correction over 14 comparisons)"
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.setting.is_empty() {
            write!(f, "{}: ", self.setting)?;
        }
        let Self { subject, reference, n_seeds, .. } = self;
        let name = &self.measure.name;
        match self.kind {
            VerdictKind::Higher | VerdictKind::Lower => {
                write!(f, "{name} of {subject} is {} that of {reference} ({})", self.distance(), self.evidence())
            }
            VerdictKind::Equivalent | VerdictKind::AtLeastAsGood => {
                write!(f, "{name} of {subject} {} ({}, {})", self.claimed(), self.found(), self.evidence())
            }
            VerdictKind::Identical => {
                write!(f, "{name} of {subject} and of {reference} is identical in all {n_seeds} seeds")
            }
            VerdictKind::NotSupported => {
                write!(f, "not supported that {name} of {subject} {} ({}, ", self.claimed(), self.found())?;
                if self.interval.is_some() {
                    write!(f, "{})", self.evidence())
                } else {
                    write!(f, "the same in all {n_seeds} seeds: nothing varies, so there is no interval and no test)")
                }
            }
            VerdictKind::TooFewSeeds => {
                let seeds = if *n_seeds == 1 { "seed" } else { "seeds" };
                write!(
                    f,
                    "no verdict from {n_seeds} {seeds}, at least {} are needed: {name} of {subject} against {reference} ({})",
                    super::LEAST_SEEDS,
                    self.found()
                )
            }
        }
    }
}

impl Verdict {
    /// "0.31 points higher than", "0.72 times (faster)"
    fn distance(&self) -> String {
        let word = if self.kind == VerdictKind::Higher { &self.measure.higher } else { &self.measure.lower };
        match &self.measure.scale {
            Scale::Points => format!("{:.2} points {word} than", 100.0 * self.mean.abs()),
            Scale::Unit(unit) => format!("{}{} {word} than", plain(self.mean.abs()), spaced(unit)),
            // The word first: "is faster, 0.72 times that of dense".
            Scale::Ratio => format!("{word}, {:.3} times", self.mean),
        }
    }

    /// "is equivalent to that of dense within ±0.50 points"
    fn claimed(&self) -> String {
        let reference = &self.reference;
        let amount = |margin: f64| match &self.measure.scale {
            Scale::Points => format!("{:.2} points", 100.0 * margin),
            Scale::Unit(unit) => format!("{}{}", plain(margin), spaced(unit)),
            Scale::Ratio => format!("a factor of {}", plain(margin)),
        };
        match self.claim {
            Claim::Differs => format!("differs from that of {reference}"),
            Claim::Equivalent { margin } => {
                let sign = if self.measure.scale == Scale::Ratio { "" } else { "±" };
                format!("is equivalent to that of {reference} within {sign}{}", amount(margin))
            }
            Claim::AtLeastAsGood { margin } => {
                format!("is at least as good as that of {reference}, but for {}", amount(margin))
            }
        }
    }

    /// "difference +0.31 points", "ratio 0.720"
    fn found(&self) -> String {
        match &self.measure.scale {
            Scale::Points => format!("difference {} points", self.number(self.mean)),
            Scale::Unit(unit) => format!("difference {}{}", self.number(self.mean), spaced(unit)),
            Scale::Ratio => format!("ratio {}", self.number(self.mean)),
        }
    }

    /// "95 % interval +0.12 to +0.50, 5 seeds, p = 0.012 after Holm's correction over 14 comparisons"
    fn evidence(&self) -> String {
        let mut parts = Vec::new();
        if let Some(interval) = self.interval {
            let percent = plain(100.0 * interval.confidence);
            parts.push(match (self.claim, self.measure.better) {
                (Claim::AtLeastAsGood { .. }, better) => {
                    let (word, bound) = match better {
                        Better::Higher => ("least", interval.low),
                        Better::Lower => ("most", interval.high),
                    };
                    // An interval of 1 − 2α leaves α beyond the end that counts.
                    let one_sided = plain(50.0 + 50.0 * interval.confidence);
                    format!("at {word} {} with {one_sided} % confidence", self.number(bound))
                }
                _ => format!("{percent} % interval {} to {}", self.number(interval.low), self.number(interval.high)),
            });
        }
        parts.push(format!("{} seeds", self.n_seeds));
        if let (Some(p), Some(adjusted)) = (self.p_value, self.adjusted) {
            parts.push(if self.n_comparisons > 1 {
                format!("{} after Holm's correction over {} comparisons", p_value(adjusted), self.n_comparisons)
            } else {
                p_value(p)
            });
        }
        parts.join(", ")
    }

    fn number(&self, value: f64) -> String {
        match &self.measure.scale {
            Scale::Points => format!("{:+.2}", 100.0 * value),
            Scale::Unit(_) if value >= 0.0 => format!("+{}", plain(value)),
            Scale::Unit(_) => plain(value),
            Scale::Ratio => format!("{value:.3}"),
        }
    }
}

/// "p = 0.021", "p < 0.001"
pub(crate) fn p_value(value: f64) -> String {
    if value < 0.001 { "p < 0.001".into() } else { format!("p = {value:.3}") }
}

/// Four significant digits without trailing zeros.
pub(crate) fn plain(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let n_decimals = (3 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.n_decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

fn spaced(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}
