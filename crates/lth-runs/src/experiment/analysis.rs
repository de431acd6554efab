//! What an experiment's records come to: figures over seeds, comparisons, and what may be said of them.

use serde::{Deserialize, Serialize};

use super::questions::{self, Question};
use super::race::{self, Racer};
use super::stability::{self, Stability};
use super::{Address, ArmRole, Ending, FitRecord, Part, Summary};
use crate::statistics::{CONFIDENCE, Estimate, Interval, McNemar, Measure, Verdict, holm, mcnemar, verdicts};

/// Everything that a report says of an experiment's numbers. A pure function of its summary.
///
/// A fit that failed is in no figure and in no comparison; [`Analysis::left_out`] names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// The metric by which arms are compared, as the records name it; absent where they have none of that name, and the
    /// loss takes its place.
    pub metric: Option<String>,
    /// The same in words: "test accuracy".
    pub measure: Measure,
    /// Of every arm at every level with a whole fit: arms in the summary's order, then levels.
    pub figures: Vec<ArmFigures>,
    /// The ticket against dense and against its controls, corrected together.
    pub comparisons: Vec<Comparison>,
    /// The metric's comparisons on the examples of the only seed, where there is one.
    pub single: Vec<SingleSeed>,
    /// How stable networks are to the noise of their training, by level and step.
    pub stability: Vec<Stability>,
    /// Whole times beside dense's, where all arms race against it.
    #[serde(default)]
    pub race: Vec<Racer>,
    /// Published figures and ours.
    pub beside: Vec<Beside>,
    /// What could not be used.
    pub left_out: Vec<LeftOut>,
}

/// One arm at one level over its seeds. A figure that no fit has is absent; an estimate counts the seeds that have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmFigures {
    /// The arm.
    pub arm: String,
    /// Its part.
    pub role: ArmRole,
    /// The level.
    pub level: u32,
    /// Seeds with a whole fit, in order.
    pub seeds: Vec<u64>,
    /// Weights that remain, as a fraction: as counted at the end, or as planned where nothing was counted.
    pub density: Option<Estimate>,
    /// The metric (or the loss) at the end.
    pub metric: Option<Estimate>,
    /// The metric (or the loss) at the step of least validation loss.
    pub metric_at_best: Option<Estimate>,
    /// The step of least validation loss, from the start of the training.
    pub best_step: Option<Estimate>,
    /// Steps that the fit took.
    pub n_steps: Option<Estimate>,
    /// Steps of the fit and of every fit that it needed.
    pub n_steps_in_all: Option<Estimate>,
    /// Seconds of training for a step, without validation.
    pub seconds_per_step: Option<Estimate>,
    /// Seconds of training, without validation.
    pub seconds: Option<Estimate>,
    /// Seconds of training of the fit and of every fit that it needed: a ticket's search counts.
    pub seconds_in_all: Option<Estimate>,
    /// What is no training, as a fraction of all its time: pruning, rewinding, saving, testing.
    pub overhead_share: Option<Estimate>,
}

/// What two arms are compared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// The metric at the end, or the loss.
    Metric,
    /// The step of least validation loss.
    BestStep,
    /// Seconds of training for a step.
    StepTime,
    /// Seconds of all that a network needed, search included: see [`Racer`].
    TotalTime,
}

/// One comparison of the ticket with another arm; in a race, of any arm with dense.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The arm of role ticket; in a race, any arm.
    pub ticket: String,
    /// Its level.
    pub level: u32,
    /// The other arm.
    pub arm: String,
    /// The other arm's level: the ticket's, or 0.
    pub arm_level: u32,
    /// In what.
    pub compared: Compared,
    /// What came out.
    pub verdict: Verdict,
}

/// The ticket and another arm on the same examples, under the one seed that both have. It speaks of these two networks,
/// not of other seeds of their arms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SingleSeed {
    /// The ticket.
    pub ticket: Address,
    /// The other arm.
    pub arm: Address,
    /// "at 50 % of weights"
    pub setting: String,
    /// The arm is the first of the two, the ticket the second.
    pub test: McNemar,
    /// The p-value after Holm's correction over all of these.
    pub adjusted: f64,
    /// Over how many.
    pub n_comparisons: usize,
}

/// A published figure and ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// The arm.
    pub arm: String,
    /// Its level.
    pub level: u32,
    /// "accuracy", or "best_step".
    pub metric: String,
    /// As published.
    pub published: f64,
    /// Ours over seeds; absent where there is none.
    pub here: Option<Estimate>,
    /// The interval of ours.
    pub interval: Option<Interval>,
    /// Ours less the published one.
    pub difference: Option<f64>,
}

/// Something that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// "ticket/3/42"
    pub what: String,
    /// Why.
    pub reason: String,
}

impl Analysis {
    /// The analysis of `summary`.
    ///
    /// The ticket is compared with dense at each of its levels (metric; as good within `margin` where that is given;
    /// early-stop step and time per step as ratios), and with every control of the same level, or of level 0 (the metric;
    /// for the arm `reinitialised` also the early-stop step). In a race every arm is compared with dense and with nothing
    /// else: as good within `margin`, and the whole time as a ratio. Holm's correction covers all of it.
    pub fn of(summary: &Summary) -> Self {
        let wanted = Wanted::of(summary);
        let mut left_out = failures(summary);
        let questions = questions::of(summary, &wanted, &mut left_out);
        let asked: Vec<_> = questions.iter().map(|question| question.asked.clone()).collect();
        let answers = verdicts(&asked, crate::statistics::SIGNIFICANCE).unwrap_or_else(|error| {
            left_out.push(LeftOut { what: "all comparisons".into(), reason: error.to_string() });
            Vec::new()
        });
        let single = single(summary, &questions);
        let comparisons = questions.into_iter().zip(answers).map(|(question, verdict)| question.answered(verdict));
        Self {
            comparisons: comparisons.collect(),
            single,
            figures: figures(summary, &wanted),
            stability: wanted.metric.iter().flat_map(|metric| stability::of(summary, metric)).collect(),
            beside: beside(summary),
            race: race::of(summary, wanted.metric.as_deref()),
            metric: wanted.metric,
            measure: wanted.measure,
            left_out,
        }
    }

    /// The figures of that arm and level.
    pub fn figures_of(&self, arm: &str, level: u32) -> Option<&ArmFigures> {
        self.figures.iter().find(|figures| figures.arm == arm && figures.level == level)
    }
}

/// What arms are compared by.
pub(super) struct Wanted {
    pub(super) metric: Option<String>,
    pub(super) measure: Measure,
}

impl Wanted {
    fn of(summary: &Summary) -> Self {
        let whole = || summary.fits.iter().filter(|fit| fit.is_whole());
        let metric = whole().any(|fit| fit.metric(&summary.metric).is_some()).then(|| summary.metric.clone());
        let parts: Vec<Part> = whole()
            .filter(|fit| !fit.history.is_empty() || fit.at_end.is_some())
            .map(|fit| fit.at_end.as_ref().map_or(Part::Validation, |at_end| at_end.on))
            .collect();
        let part = match parts.first() {
            Some(first) if parts.iter().all(|part| part == first) => match first {
                Part::Test => "test ",
                Part::Validation => "validation ",
            },
            _ => "",
        };
        let measure = match metric.as_deref() {
            None => Measure::loss(format!("{part}loss")),
            // Of other metrics the range is not known.
            Some(name) if name.contains("accuracy") => Measure::accuracy(format!("{part}{name}")),
            Some(name) => {
                let scale = crate::statistics::Scale::Unit(String::new());
                Measure { scale, ..Measure::accuracy(format!("{part}{name}")) }
            }
        };
        Self { metric, measure }
    }

    /// The value at the end that arms are compared by.
    pub(super) fn value(&self, fit: &FitRecord) -> Option<f64> {
        match (&self.metric, &fit.at_end) {
            (Some(name), _) => fit.metric(name),
            (None, Some(at_end)) => Some(at_end.loss),
            (None, None) => fit.history.iter().rev().find_map(|at| at.valid_loss),
        }
    }

    fn value_at_best(&self, fit: &FitRecord) -> Option<f64> {
        match (&self.metric, &fit.at_best) {
            (Some(name), _) => fit.metric_at_best(name),
            (None, Some(at_best)) => Some(at_best.loss),
            (None, None) => fit.best()?.valid_loss,
        }
    }
}

/// Weights that remain, as a fraction.
pub(super) fn density(fit: &FitRecord) -> f64 {
    1.0 - fit.measured_sparsity().unwrap_or(fit.sparsity)
}

/// Seconds of training for a step; `None` where nothing was trained or timed.
pub(super) fn seconds_per_step(fit: &FitRecord) -> Option<f64> {
    let (n_steps, seconds) = (fit.n_steps(), fit.seconds());
    (n_steps > 0 && seconds > 0.0).then(|| seconds / n_steps as f64)
}

/// The estimate over the fits that have the value.
pub(super) fn estimate(fits: &[&FitRecord], value: impl Fn(&FitRecord) -> Option<f64>) -> Option<Estimate> {
    Estimate::of(&fits.iter().filter_map(|fit| value(fit)).collect::<Vec<_>>())
}

/// The whole fits of an arm at a level, by seed.
pub(crate) fn whole<'a>(summary: &'a Summary, arm: &str, level: u32) -> Vec<&'a FitRecord> {
    let wanted = |fit: &&FitRecord| fit.address.arm == arm && fit.address.level == level && fit.is_whole();
    let mut fits: Vec<&FitRecord> = summary.fits.iter().filter(wanted).collect();
    fits.sort_by_key(|fit| fit.address.seed);
    fits
}

fn figures(summary: &Summary, wanted: &Wanted) -> Vec<ArmFigures> {
    let mut all = Vec::new();
    // A branch's figures are those of what it is a copy of; its path says what there is to say.
    let arms = summary.arms.iter().filter(|arm| arm.role != ArmRole::Branch);
    for (arm, level) in arms.flat_map(|arm| summary.levels().into_iter().map(move |level| (arm, level))) {
        let fits = whole(summary, &arm.name, level);
        if fits.is_empty() {
            continue;
        }
        let in_all = |fit: &FitRecord, of: fn(&FitRecord) -> f64| summary.needed_by(fit).into_iter().map(of).sum();
        all.push(ArmFigures {
            arm: arm.name.clone(),
            role: arm.role,
            level,
            seeds: fits.iter().map(|fit| fit.address.seed).collect(),
            density: estimate(&fits, |fit| Some(density(fit))),
            metric: estimate(&fits, |fit| wanted.value(fit)),
            metric_at_best: estimate(&fits, |fit| wanted.value_at_best(fit)),
            best_step: estimate(&fits, |fit| Some(fit.best()?.step as f64)),
            n_steps: estimate(&fits, |fit| Some(fit.n_steps() as f64)),
            n_steps_in_all: estimate(&fits, |fit| Some(in_all(fit, |fit| fit.n_steps() as f64))),
            seconds_per_step: estimate(&fits, seconds_per_step),
            seconds: estimate(&fits, |fit| Some(fit.seconds())),
            seconds_in_all: estimate(&fits, |fit| Some(in_all(fit, FitRecord::seconds))),
            overhead_share: estimate(&fits, |fit| {
                let validation: f64 = fit.history.iter().map(|at| at.valid_seconds).sum();
                let overhead = fit.overhead_seconds;
                (overhead > 0.0).then(|| overhead / (fit.seconds() + validation + overhead))
            }),
        });
    }
    all
}

fn failures(summary: &Summary) -> Vec<LeftOut> {
    let failed = |fit: &FitRecord| match &fit.ending {
        Ending::Failed { reason } => Some(LeftOut { what: fit.address.to_string(), reason: reason.clone() }),
        _ => None,
    };
    summary.fits.iter().filter_map(failed).collect()
}

/// McNemar's test where a comparison of the metric has one pair and both networks' answers were kept.
fn single(summary: &Summary, questions: &[Question]) -> Vec<SingleSeed> {
    let mut found = Vec::new();
    for question in questions.iter().filter(|question| question.is_of_one_seed()) {
        let at_end = |arm: &str, level: u32| {
            whole(summary, arm, level).into_iter().find(|fit| fit.address.seed == question.seeds[0])
        };
        let (Some(ticket), Some(arm)) =
            (at_end(&question.ticket, question.level), at_end(&question.arm, question.arm_level))
        else {
            continue;
        };
        let (Some(first), Some(second)) = (&arm.at_end, &ticket.at_end) else { continue };
        if let (Some(one), Some(other)) = (&first.right, &second.right)
            && first.on == second.on
            && let Ok(test) = mcnemar(one.iter(), other.iter())
        {
            found.push(SingleSeed {
                ticket: ticket.address.clone(),
                arm: arm.address.clone(),
                setting: question.asked.setting.clone(),
                test,
                adjusted: test.p_value,
                n_comparisons: 0,
            });
        }
    }
    let named: Vec<(String, f64)> = found.iter().map(|single| (single.arm.to_string(), single.test.p_value)).collect();
    for (single, adjusted) in found.iter_mut().zip(holm(&named).into_iter().flatten()) {
        (single.adjusted, single.n_comparisons) = (adjusted.adjusted, named.len());
    }
    found
}

fn beside(summary: &Summary) -> Vec<Beside> {
    let figures = summary.reference.iter().flat_map(|reference| &reference.figures);
    let own = figures.map(|figure| {
        let here = estimate(&whole(summary, &figure.arm, figure.level), |fit| match figure.metric.as_str() {
            "best_step" => Some(fit.best()?.step as f64),
            name => fit.metric(name),
        });
        Beside {
            arm: figure.arm.clone(),
            level: figure.level,
            metric: figure.metric.clone(),
            published: figure.value,
            here,
            interval: here.and_then(|here| here.interval(CONFIDENCE)),
            difference: here.map(|here| here.mean - figure.value),
        }
    });
    own.collect()
}

impl std::fmt::Display for SingleSeed {
    /// "at 50 % of weights, seed 42 alone: ticket has 2.00 points more right than dense: on 300 examples …"
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ticket, arm, test) = (&self.ticket.arm, &self.arm.arm, &self.test);
        let points = 100.0 * test.difference();
        let found = match points {
            _ if test.only_first == test.only_second => format!("as many right as {arm}"),
            points if points > 0.0 => format!("{points:.2} points more right than {arm}"),
            points => format!("{:.2} points fewer right than {arm}", -points),
        };
        write!(
            f,
            "{}, seed {} alone: {ticket} has {found}; of {} examples {} are right for {ticket} only and {} for {arm} only \
             (McNemar's exact test, {}",
            self.setting,
            self.ticket.seed,
            test.n(),
            test.only_second,
            test.only_first,
            crate::statistics::p_value_text(self.adjusted),
        )?;
        match self.n_comparisons {
            0 | 1 => write!(f, ")"),
            n => write!(f, " after Holm's correction over {n} comparisons)"),
        }
    }
}
