//! What is asked of an experiment: the ticket against dense, and against each control.

use super::analysis::{Compared, Comparison, LeftOut, Wanted, density, estimate, seconds_per_step, whole};
use super::race::seconds_in_all;
use super::{ArmRecord, ArmRole, FitRecord, Summary};
use crate::statistics::{Claim, Measure, Scale, Verdict};

/// The arm whose early stopping is asked about too: the paper's control.
///
/// Source: Frankle & Carbin 2019, §2, figure 4: a winning ticket learns faster than its weights drawn anew.
const REINITIALISED: &str = "reinitialised";

/// A question with the fits that it is about.
pub(super) struct Question {
    pub(super) ticket: String,
    pub(super) level: u32,
    pub(super) arm: String,
    pub(super) arm_level: u32,
    pub(super) compared: Compared,
    /// Of the pairs, in their order.
    pub(super) seeds: Vec<u64>,
    pub(super) asked: crate::statistics::Question,
}

impl Question {
    pub(super) fn is_of_one_seed(&self) -> bool {
        self.compared == Compared::Metric && self.asked.claim == Claim::Differs && self.seeds.len() == 1
    }

    pub(super) fn answered(self, verdict: Verdict) -> Comparison {
        let Self { ticket, level, arm, arm_level, compared, .. } = self;
        Comparison { ticket, level, arm, arm_level, compared, verdict }
    }
}

/// All questions: for each level of the ticket those against dense, then those against its controls; in a race, for each
/// level of every arm those that dense asks.
pub(super) fn of(summary: &Summary, wanted: &Wanted, left_out: &mut Vec<LeftOut>) -> Vec<Question> {
    let is_asked = |arm: &&ArmRecord| arm.role == ArmRole::Ticket || (summary.is_race && arm.role == ArmRole::Control);
    let mut questions = Vec::new();
    for ticket in summary.arms.iter().filter(is_asked) {
        for level in summary.levels().into_iter().filter(|level| *level > 0) {
            let fits = whole(summary, &ticket.name, level);
            let Some(kept) = estimate(&fits, |fit| Some(density(fit))) else { continue };
            let ask = Ask { summary, wanted, ticket, level, fits, setting: setting(kept.mean, level) };
            for arm in &summary.arms {
                match arm.role {
                    ArmRole::Dense if summary.is_race => ask.whether_it_wins(arm, &mut questions, left_out),
                    _ if summary.is_race => {}
                    ArmRole::Dense => ask.against_dense(arm, &mut questions, left_out),
                    ArmRole::Control => ask.against_control(arm, &mut questions, left_out),
                    ArmRole::Search | ArmRole::Ticket | ArmRole::Branch => {}
                }
            }
        }
    }
    questions
}

/// "at 13.5 % of weights", or "at level 2" where all remain, so that its levels are told apart
fn setting(density: f64, level: u32) -> String {
    if density >= 1.0 {
        return format!("at level {level}");
    }
    format!("at {} % of weights", crate::report::share_text(density))
}

/// One level of one ticket.
struct Ask<'a> {
    summary: &'a Summary,
    wanted: &'a Wanted,
    ticket: &'a ArmRecord,
    level: u32,
    fits: Vec<&'a FitRecord>,
    setting: String,
}

impl Ask<'_> {
    fn against_dense(&self, arm: &ArmRecord, questions: &mut Vec<Question>, left_out: &mut Vec<LeftOut>) {
        let Some(level) = self.levels_of(arm).into_iter().min() else { return };
        questions.extend(self.question(arm, level, Compared::Metric, Claim::Differs, left_out));
        questions.extend(self.as_good(arm, level, left_out));
        for compared in [Compared::BestStep, Compared::StepTime] {
            questions.extend(self.question(arm, level, compared, Claim::Differs, left_out));
        }
    }

    /// Whether it is as good, and how long it took.
    fn whether_it_wins(&self, arm: &ArmRecord, questions: &mut Vec<Question>, left_out: &mut Vec<LeftOut>) {
        let Some(level) = self.levels_of(arm).into_iter().min() else { return };
        questions.extend(self.as_good(arm, level, left_out));
        questions.extend(self.question(arm, level, Compared::TotalTime, Claim::Differs, left_out));
    }

    /// Whether it is as good within the margin; `None` where nobody gave one.
    fn as_good(&self, arm: &ArmRecord, level: u32, left_out: &mut Vec<LeftOut>) -> Option<Question> {
        // The margin is one of the metric, not of the loss that may stand for it.
        match self.summary.margin.filter(|_| self.wanted.metric.is_some()) {
            None => None,
            Some(margin) if margin > 0.0 => {
                self.question(arm, level, Compared::Metric, Claim::AtLeastAsGood { margin }, left_out)
            }
            Some(_) => {
                left_out.push(LeftOut {
                    what: format!("whether {} is as good as {} {}", self.ticket.name, arm.name, self.setting),
                    reason: "the margin is 0, and nothing can be shown to be as good to the last digit".into(),
                });
                None
            }
        }
    }

    fn against_control(&self, arm: &ArmRecord, questions: &mut Vec<Question>, left_out: &mut Vec<LeftOut>) {
        for level in self.levels_of(arm).into_iter().filter(|level| [0, self.level].contains(level)) {
            questions.extend(self.question(arm, level, Compared::Metric, Claim::Differs, left_out));
            if arm.name == REINITIALISED {
                questions.extend(self.question(arm, level, Compared::BestStep, Claim::Differs, left_out));
            }
        }
    }

    fn levels_of(&self, arm: &ArmRecord) -> Vec<u32> {
        let has = |level: &u32| !whole(self.summary, &arm.name, *level).is_empty();
        self.summary.levels().into_iter().filter(has).collect()
    }

    /// The question over the seeds that both have; `None` where there are none, or a ratio would be of nothing.
    fn question(
        &self,
        arm: &ArmRecord,
        arm_level: u32,
        compared: Compared,
        claim: Claim,
        left_out: &mut Vec<LeftOut>,
    ) -> Option<Question> {
        let value = |fit: &FitRecord| match compared {
            Compared::Metric => self.wanted.value(fit),
            Compared::BestStep => Some(fit.best()?.step as f64),
            Compared::StepTime => seconds_per_step(fit),
            Compared::TotalTime => Some(seconds_in_all(self.summary, fit)),
        };
        let measure = match compared {
            Compared::Metric => self.wanted.measure.clone(),
            Compared::BestStep => Measure::steps("early-stop step"),
            Compared::StepTime => Measure::time("time per step"),
            Compared::TotalTime => Measure::time("time in all"),
        };
        let others = whole(self.summary, &arm.name, arm_level);
        let pair = |fit: &&FitRecord| {
            let other = others.iter().find(|other| other.address.seed == fit.address.seed)?;
            Some((fit.address.seed, (value(other)?, value(fit)?)))
        };
        let (seeds, pairs): (Vec<u64>, Vec<(f64, f64)>) = self.fits.iter().filter_map(pair).unzip();
        if measure.scale == Scale::Ratio && pairs.iter().any(|(one, other)| *one <= 0.0 || *other <= 0.0) {
            let (ticket, setting) = (&self.ticket.name, &self.setting);
            left_out.push(LeftOut {
                what: format!("{} of {ticket} against {} {setting}", measure.name, arm.name),
                reason: "it is 0 in one of the fits, and a ratio to 0 says nothing".into(),
            });
            return None;
        }
        let asked = crate::statistics::Question {
            setting: self.setting.clone(),
            subject: self.ticket.name.clone(),
            reference: arm.name.clone(),
            measure,
            claim,
            pairs,
        };
        let (ticket, arm) = (self.ticket.name.clone(), arm.name.clone());
        (!seeds.is_empty()).then_some(Question { ticket, level: self.level, arm, arm_level, compared, seeds, asked })
    }
}
