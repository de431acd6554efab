//! Verdicts: what they say, and how often they are wrong.

use lth_runs::statistics::{
    Better, Claim, Estimate, Measure, Question, VerdictKind, equivalence, non_inferiority, paired_difference,
    paired_ratio, verdicts,
};
use statrs::distribution::{ContinuousCDF, StudentsT};

fn question(measure: Measure, claim: Claim, pairs: &[(f64, f64)]) -> Question {
    Question {
        setting: String::new(),
        subject: "ticket".into(),
        reference: "dense".into(),
        measure,
        claim,
        pairs: pairs.to_vec(),
    }
}

fn accuracy(claim: Claim, pairs: &[(f64, f64)]) -> Question {
    question(Measure::accuracy("test accuracy"), claim, pairs)
}

/// Clearly better, by 1.9, 2.0 and 2.1 points.
const BETTER: [(f64, f64); 3] = [(0.90, 0.919), (0.91, 0.930), (0.92, 0.941)];
/// Better and worse by turns.
const NOISE: [(f64, f64); 3] = [(0.90, 0.919), (0.91, 0.891), (0.92, 0.924)];

fn sentences(questions: &[Question]) -> Result<Vec<(VerdictKind, String)>, lth_runs::Error> {
    let answers = verdicts(questions, 0.05)?;
    Ok(answers.into_iter().map(|verdict| (verdict.kind, verdict.to_string())).collect())
}

#[test]
fn a_verdict_is_a_sentence_with_its_numbers() -> Result<(), lth_runs::Error> {
    let slower = [(10.0, 12.0), (10.0, 12.3), (10.0, 11.8)];
    let faster = [(12.0, 6.0), (12.3, 6.1), (11.8, 6.0)];
    let mut at = accuracy(Claim::Differs, &BETTER);
    at.setting = "at 13.5 % of weights".into();
    let found = sentences(&[
        at,
        accuracy(Claim::Differs, &NOISE),
        accuracy(Claim::Equivalent { margin: 0.03 }, &BETTER),
        accuracy(Claim::AtLeastAsGood { margin: 0.005 }, &BETTER),
        accuracy(Claim::Equivalent { margin: 0.005 }, &NOISE),
        question(Measure::time("training time"), Claim::Differs, &faster),
        question(Measure::time("training time"), Claim::Differs, &slower),
        question(Measure::steps("early-stop step"), Claim::AtLeastAsGood { margin: 1.05 }, &faster),
        question(Measure::loss("test loss"), Claim::Differs, &NOISE),
        accuracy(Claim::Differs, &[(0.5, 0.5), (0.6, 0.6), (0.7, 0.7)]),
        accuracy(Claim::Differs, &[(0.5, 0.6), (0.6, 0.7), (0.7, 0.8)]),
        accuracy(Claim::Differs, &BETTER[..2]),
        accuracy(Claim::Differs, &BETTER[..1]),
    ])?;
    let lines: Vec<String> = found.into_iter().map(|(kind, text)| format!("{kind:?}\n  {text}")).collect();
    insta::assert_snapshot!(lines.join("\n"));
    Ok(())
}

#[test]
fn one_question_alone_needs_no_correction_and_many_take_a_verdict_away() -> Result<(), lth_runs::Error> {
    let pairs = [(0.90, 0.91), (0.91, 0.93), (0.92, 0.936), (0.9, 0.925)];
    let alone = verdicts(&[accuracy(Claim::Differs, &pairs)], 0.05)?.remove(0);
    assert_eq!((alone.kind, alone.adjusted), (VerdictKind::Higher, alone.p_value));
    assert!(!alone.to_string().contains("Holm"));
    let many = vec![accuracy(Claim::Differs, &pairs); 10];
    let crowded = verdicts(&many, 0.05)?.remove(0);
    assert_eq!((crowded.kind, crowded.p_value), (VerdictKind::NotSupported, alone.p_value));
    assert!((crowded.adjusted.unwrap() - 10.0 * alone.p_value.unwrap()).abs() < 1e-12);
    // What has no test does not count in the correction.
    let with_untested = [accuracy(Claim::Differs, &pairs), accuracy(Claim::Differs, &pairs[..2])];
    assert_eq!(verdicts(&with_untested, 0.05)?[0].adjusted, alone.p_value);
    Ok(())
}

#[test]
fn faster_is_said_only_where_the_interval_excludes_one() -> Result<(), lth_runs::Error> {
    let barely = [(10.0, 9.99), (10.0, 9.98), (10.0, 10.003)];
    let verdict = verdicts(&[question(Measure::time("training time"), Claim::Differs, &barely)], 0.05)?.remove(0);
    assert_eq!(verdict.kind, VerdictKind::NotSupported);
    assert!(verdict.mean < 1.0 && verdict.interval.is_some_and(|interval| interval.contains(1.0)));
    let ratio = paired_ratio(&barely, 0.95)?;
    assert_eq!((ratio.mean, ratio.interval), (verdict.mean, verdict.interval));
    Ok(())
}

#[test]
fn verdicts_come_back_from_json() -> Result<(), Box<dyn std::error::Error>> {
    let asked = [accuracy(Claim::Equivalent { margin: 0.03 }, &BETTER), accuracy(Claim::Differs, &BETTER[..1])];
    let answers = verdicts(&asked, 0.05)?;
    let json = serde_json::to_string(&answers)?;
    assert!(json.contains(r#""kind":"equivalent""#) && json.contains(r#""kind":"too_few_seeds""#), "{json}");
    assert_eq!(serde_json::from_str::<Vec<lth_runs::statistics::Verdict>>(&json)?, answers);
    Ok(())
}

#[test]
fn bad_questions_are_refused_by_name() {
    let nan = [(0.9, 0.91), (0.9, f64::NAN), (0.9, 0.92)];
    let zero = [(1.0, 1.0), (0.0, 1.0), (1.0, 2.0)];
    for (asked, named) in [
        (accuracy(Claim::Differs, &nan), "test accuracy of ticket against dense: pair 1: is NaN"),
        (accuracy(Claim::Differs, &[]), "test accuracy of ticket against dense: has no pairs"),
        (accuracy(Claim::Equivalent { margin: 0.0 }, &BETTER), "margin: is 0, expected a positive"),
        (accuracy(Claim::Equivalent { margin: -1.0 }, &BETTER[..1]), "margin: is -1, expected a positive"),
        (question(Measure::time("time"), Claim::Differs, &zero), "pair 1 of a ratio: is 0, expected a positive"),
        (
            question(Measure::time("time"), Claim::AtLeastAsGood { margin: 0.9 }, &BETTER),
            "margin: is 0.9, expected a ratio above 1",
        ),
    ] {
        let error = verdicts(&[asked], 0.05).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    for significance in [0.0, 0.5, f64::NAN] {
        assert!(verdicts(&[], significance).is_err());
    }
}

/// Uniform numbers in (0, 1) from a fixed seed: splitmix64 (Steele et al. 2014).
struct Draws(u64);

impl Draws {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Box & Muller 1958.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn pairs(&mut self, n: usize, shift: f64) -> Vec<(f64, f64)> {
        (0..n).map(|_| (self.normal(), self.normal() + shift)).collect()
    }
}

#[test]
fn intervals_cover_as_often_as_they_say() {
    let mut draws = Draws(1);
    // 20,000 trials: one standard deviation of the share is 0.15 points at 95 %, so 0.6 points are four of them.
    let n_trials = 20_000;
    for n in [3, 5] {
        let covered = |hits: usize| hits as f64 / f64::from(n_trials);
        let (mut mean, mut difference, mut ratio) = (0, 0, 0);
        for _ in 0..n_trials {
            let sample: Vec<f64> = (0..n).map(|_| 7.0 + 2.0 * draws.normal()).collect();
            mean += usize::from(Estimate::of(&sample).unwrap().interval(0.95).unwrap().contains(7.0));
            let pairs = draws.pairs(n, 0.5);
            difference += usize::from(paired_difference(&pairs, 0.95).unwrap().interval.unwrap().contains(0.5));
            let times: Vec<_> = pairs.iter().map(|(first, second)| (first.exp(), second.exp())).collect();
            ratio += usize::from(paired_ratio(&times, 0.95).unwrap().interval.unwrap().contains(0.5_f64.exp()));
        }
        for share in [covered(mean), covered(difference), covered(ratio)] {
            assert!((share - 0.95).abs() < 0.006, "{share} of {n} seeds");
        }
    }
}

#[test]
fn tests_with_a_margin_are_wrong_at_most_as_often_as_they_say() {
    let mut draws = Draws(2);
    let n_trials = 20_000;
    // The truth lies on the margin: each "shown" is an error. Non-inferiority errs in exactly 5 %; equivalence has two
    // margins to keep, and errs less.
    let (mut equivalent, mut at_least) = (0, 0);
    for _ in 0..n_trials {
        let pairs = draws.pairs(5, -1.5);
        equivalent += u32::from(equivalence(&pairs, 1.5, 0.05).unwrap().is_shown);
        at_least += u32::from(non_inferiority(&pairs, 1.5, Better::Higher, 0.05).unwrap().is_shown);
    }
    let share = |n: u32| f64::from(n) / f64::from(n_trials);
    assert!(share(equivalent) <= 0.056, "{}", share(equivalent));
    assert!((share(at_least) - 0.05).abs() < 0.006, "{}", share(at_least));
}

#[test]
fn a_report_without_any_effect_rarely_claims_one() -> Result<(), lth_runs::Error> {
    let mut draws = Draws(3);
    let n_reports: u32 = 2000;
    let mut n_wrong = 0;
    for _ in 0..n_reports {
        let asked: Vec<Question> = (0..8).map(|_| accuracy(Claim::Differs, &draws.pairs(4, 0.0))).collect();
        n_wrong += u32::from(verdicts(&asked, 0.05)?.iter().any(|verdict| verdict.kind != VerdictKind::NotSupported));
    }
    // Uncorrected, a third of the reports would: 1 − 0.95⁸. Four standard deviations above 5 % are 7 %.
    assert!(f64::from(n_wrong) < 0.07 * f64::from(n_reports), "{n_wrong} of {n_reports}");
    Ok(())
}

#[test]
fn p_values_and_intervals_are_those_of_statrs() {
    let mut draws = Draws(4);
    for n in 3..12 {
        let pairs = draws.pairs(n, 0.3);
        let differences: Vec<f64> = pairs.iter().map(|(first, second)| second - first).collect();
        let mean = differences.iter().sum::<f64>() / n as f64;
        let variance = differences.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
        let error = (variance / n as f64).sqrt();
        let student = StudentsT::new(0.0, 1.0, (n - 1) as f64).unwrap();
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1e-3), "{found} and {expected}");
        };
        let paired = paired_difference(&pairs, 0.95).unwrap();
        close(paired.p_value.unwrap(), 2.0 * student.sf((mean / error).abs()));
        close(paired.interval.unwrap().high, mean + error * student.inverse_cdf(0.975));
        let test = equivalence(&pairs, 0.8, 0.05).unwrap();
        close(test.p_low.unwrap(), student.sf((mean + 0.8) / error));
        close(test.p_high.unwrap(), student.cdf((mean - 0.8) / error));
        close(test.interval.unwrap().low, mean - error * student.inverse_cdf(0.95));
        let at_least = non_inferiority(&pairs, 0.8, Better::Lower, 0.05).unwrap();
        close(at_least.p_value.unwrap(), student.cdf((mean - 0.8) / error));
    }
}
