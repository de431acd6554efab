use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::schedule::positions;
use crate::{Error, Schedule, Span, Sparsity, TrainingLength, Window};

/// A whole pruning schedule as it is written down: shape, from which sparsity to which, and when.
///
/// ```
/// use lth_schedule::{Schedule, Sparsity, SparsitySchedule, TrainingLength};
///
/// // To 50 % in three jumps, over the epochs 1 to 3 of a training of 4 epochs with 92 batches each.
/// let schedule = SparsitySchedule {
///     schedule: Schedule::iterative(3)?,
///     start: Sparsity::DENSE,
///     end: Sparsity::from_percent(50.0)?,
///     window: "1ep..end".parse()?,
///     every: None,
/// };
/// let plan = schedule.plan(TrainingLength::new(4, 92)?)?;
/// assert_eq!(plan.sparsity(92), Sparsity::DENSE);
/// assert_eq!(plan.sparsity(93).to_string(), "16.67 %");
/// assert_eq!(plan.sparsity(367), Sparsity::from_percent(50.0)?);
/// # Ok::<(), lth_schedule::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparsitySchedule {
    /// The shape between start and end.
    pub schedule: Schedule,
    /// The sparsity before and at the beginning of the window.
    #[serde(default)]
    pub start: Sparsity,
    /// The sparsity that the schedule leads to.
    pub end: Sparsity,
    /// The part of the training over which it runs, the whole by default.
    #[serde(default)]
    pub window: Window,
    /// How many iterations a sparsity holds at least: it changes at the start of the window, this many iterations later,
    /// twice as many, and so on, and at the end of the window. `None`, as 1: whenever the curve does, which for a
    /// continuous shape is before every batch.
    ///
    /// Source: Zhu & Gupta 2017, "To prune, or not to prune", Δt of eq. 1; 100 to 1000 there. [`update_interval`] gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<NonZeroU32>,
}

impl SparsitySchedule {
    /// From dense to `end`, over the whole training.
    pub fn to(end: Sparsity, schedule: Schedule) -> SparsitySchedule {
        SparsitySchedule { schedule, start: Sparsity::DENSE, end, window: Window::ALL, every: None }
    }

    /// The sparsity at a position in the window, in [0, 1]: [`Schedule::between`] start and end, never outside the two.
    ///
    /// Beyond [0, 1] the nearer end counts, NaN counts as 0.
    pub fn at(&self, position: f64) -> Sparsity {
        self.schedule.between(self.start, self.end, position)
    }

    /// The schedule for a training of a known length.
    ///
    /// # Errors
    /// If the window is empty there or reaches past its end, or a geometric schedule starts or ends at 100 %, or a
    /// [`Curve`](crate::Curve) of one's own is NaN at one of a thousand even steps.
    pub fn plan(&self, length: TrainingLength) -> Result<SparsityPlan, Error> {
        if matches!(self.schedule, Schedule::Geometric { .. }) && [self.start, self.end].contains(&Sparsity::EMPTY) {
            return Err(Error::Parameter {
                parameter: "start or end of a geometric schedule",
                got: Sparsity::EMPTY.to_string(),
                expected: "less than 100 %: rounds that prune a part of what is left always leave something",
            });
        }
        if let Schedule::Own(own) = &self.schedule
            && let Some(position) = own.first_nan()
        {
            return Err(Error::CurveNan { schedule: self.schedule.to_string(), position });
        }
        Ok(SparsityPlan { span: self.window.resolve(length)?, length, schedule: self.clone() })
    }

    /// `n_points` pairs of position in the window and sparsity for a plot, evenly spaced with both ends.
    pub fn sample(&self, n_points: usize) -> Vec<(f64, Sparsity)> {
        positions(n_points).map(|pos| (pos, self.at(pos))).collect()
    }
}

/// Iterations between two changes of a mask where nothing else is asked for: 100, or a twentieth of the training where
/// that is fewer, and at least 2, since what a change brings needs a step to learn.
///
/// Sources: Zhu & Gupta 2017, "To prune, or not to prune", §3, where 100 to 1000 made no difference; Evci et al. 2020,
/// "Rigging the Lottery", ΔT of algorithm 1, 100 there.
///
/// ```
/// use lth_schedule::update_interval;
///
/// assert_eq!(update_interval(50_000).get(), 100);
/// assert_eq!(update_interval(264).get(), 13);
/// ```
pub fn update_interval(n_iterations: u64) -> NonZeroU32 {
    NonZeroU32::new((n_iterations / 20).clamp(2, 100) as u32).unwrap_or(NonZeroU32::MIN)
}

/// A [`SparsitySchedule`] bound to the length of a training: the sparsity at every iteration.
#[derive(Clone, Debug, PartialEq)]
pub struct SparsityPlan {
    schedule: SparsitySchedule,
    span: Span,
    length: TrainingLength,
}

impl SparsityPlan {
    /// The sparsity that holds for iteration `iteration` (the first is 0), as it is asked for before its batch.
    ///
    /// Before the window the starting sparsity; in it the position is (iteration − first) / (last − first), where the
    /// window ends at `last`. That is the notebook's rule of 2021: with a window from an epoch to the end,
    /// pos = (iteration − start_iteration) / (total − start_iteration).
    pub fn sparsity(&self, iteration: u64) -> Sparsity {
        match self.position(iteration) {
            Some(pos) => self.schedule.at(pos),
            None => self.schedule.start,
        }
    }

    /// The position in the window that holds for an iteration; `None` before it begins. With
    /// [`SparsitySchedule::every`] it is that of the last iteration at which the sparsity may change.
    pub fn position(&self, iteration: u64) -> Option<f64> {
        self.position_at(iteration as f64)
    }

    fn position_at(&self, at: f64) -> Option<f64> {
        let pos = self.span.position(at)?;
        match self.schedule.every {
            Some(every) if pos < 1.0 => {
                // From the first iteration in the window, which a fraction need not hit.
                let (first, every) = (self.span.start().ceil(), f64::from(every.get()));
                let held = first + ((at - first) / every).floor().max(0.0) * every;
                self.span.position(held)
            }
            _ => Some(pos),
        }
    }

    /// The sparsity of something that goes from the schedule's start to an end of its own along the same curve, such as a
    /// layer with its own target; as [`SparsityPlan::sparsity`] otherwise.
    pub fn sparsity_to(&self, end: Sparsity, iteration: u64) -> Sparsity {
        let SparsitySchedule { schedule, start, .. } = &self.schedule;
        self.position(iteration).map_or(*start, |pos| schedule.between(*start, end, pos))
    }

    /// Whether the window has begun at this iteration.
    pub fn has_begun(&self, iteration: u64) -> bool {
        self.position(iteration).is_some()
    }

    /// The window in iterations.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The length of the training that the plan is for.
    pub fn length(&self) -> TrainingLength {
        self.length
    }

    /// The schedule that the plan is made from.
    pub fn schedule(&self) -> &SparsitySchedule {
        &self.schedule
    }

    /// `n_points` pairs of training progress (0 to 1) and sparsity for a plot over the whole training.
    pub fn sample(&self, n_points: usize) -> Vec<(f64, Sparsity)> {
        let total = self.length.iterations() as f64;
        let at = |progress: f64| match self.position_at(progress * total) {
            Some(pos) => self.schedule.at(pos),
            None => self.schedule.start,
        };
        positions(n_points).map(|progress| (progress, at(progress))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(percent: f64) -> Sparsity {
        Sparsity::from_percent(percent).unwrap()
    }

    #[test]
    fn the_notebooks_second_fit_jumps_at_the_second_batch_of_epochs_one_to_three() {
        let schedule = SparsitySchedule {
            window: "1ep..end".parse().unwrap(),
            ..SparsitySchedule::to(percent(50.0), Schedule::iterative(3).unwrap())
        };
        let plan = schedule.plan(TrainingLength::new(4, 92).unwrap()).unwrap();
        let jumps: Vec<(u64, String)> = (1..368)
            .filter(|it| plan.sparsity(*it) != plan.sparsity(it - 1))
            .map(|it| (it, plan.sparsity(it).to_string()))
            .collect();
        let expected = [(93, "16.67 %"), (185, "33.33 %"), (277, "50.00 %")];
        assert_eq!(jumps, expected.map(|(it, text)| (it, text.to_owned())));
        assert!(!plan.has_begun(91) && plan.has_begun(92));
        assert_eq!(plan.sparsity(367), percent(50.0));
    }

    #[test]
    fn one_shot_holds_from_the_first_iteration_of_its_window() {
        let mut schedule = SparsitySchedule::to(percent(80.0), Schedule::OneShot);
        let length = TrainingLength::new(6, 10).unwrap();
        assert_eq!(schedule.plan(length).unwrap().sparsity(0), percent(80.0));
        schedule.window = "2ep..end".parse().unwrap();
        let plan = schedule.plan(length).unwrap();
        assert_eq!((plan.sparsity(19), plan.sparsity(20)), (Sparsity::DENSE, percent(80.0)));
    }

    #[test]
    fn after_the_window_the_end_holds() {
        let schedule = SparsitySchedule {
            window: "0..2ep".parse().unwrap(),
            ..SparsitySchedule::to(percent(80.0), Schedule::Agp)
        };
        let plan = schedule.plan(TrainingLength::new(4, 10).unwrap()).unwrap();
        assert!(plan.sparsity(19) < percent(80.0));
        assert_eq!(plan.sparsity(20), percent(80.0));
        assert_eq!(plan.sparsity(u64::MAX), percent(80.0));
        assert_eq!(plan.sample(5)[2], (0.5, percent(80.0)));
    }

    #[test]
    fn with_an_update_frequency_the_sparsity_changes_at_its_multiples_and_at_the_end() {
        let schedule = SparsitySchedule {
            window: "1ep..3ep".parse().unwrap(),
            every: NonZeroU32::new(8),
            ..SparsitySchedule::to(percent(90.0), Schedule::Agp)
        };
        let plan = schedule.plan(TrainingLength::new(4, 10).unwrap()).unwrap();
        let changes: Vec<u64> = (1..=40).filter(|&it| plan.sparsity(it) != plan.sparsity(it - 1)).collect();
        assert_eq!(changes, [18, 26, 30]);
        // Zhu & Gupta, eq. 1: s = s_f − s_f · (1 − (t − t₀) / (n·Δt))³.
        for (iteration, t) in [(10, 10.0), (17, 10.0), (18, 18.0), (25, 18.0), (26, 26.0), (30, 30.0), (39, 30.0)] {
            let expected = 0.9 - 0.9 * (1.0 - (t - 10.0) / 20.0_f64).powi(3);
            let got = plan.sparsity(iteration).fraction();
            assert!((got - expected).abs() < 1e-12, "at {iteration}: {got}, expected {expected}");
        }
        assert_eq!(plan.sparsity(30), percent(90.0));
    }

    #[test]
    fn a_target_of_its_own_follows_the_same_curve() {
        let schedule = SparsitySchedule {
            start: percent(20.0),
            window: "1ep..end".parse().unwrap(),
            ..SparsitySchedule::to(percent(80.0), Schedule::iterative(3).unwrap())
        };
        let plan = schedule.plan(TrainingLength::new(4, 10).unwrap()).unwrap();
        for (iteration, expected) in [(0, 20.0), (10, 20.0), (11, 80.0 / 3.0), (21, 100.0 / 3.0), (40, 40.0)] {
            let got = plan.sparsity_to(percent(40.0), iteration).percent();
            assert!((got - expected).abs() < 1e-9, "at {iteration}: {got}, expected {expected}");
        }
    }

    #[test]
    fn a_geometric_schedule_cannot_reach_everything() {
        let schedule = SparsitySchedule::to(Sparsity::EMPTY, Schedule::geometric(3).unwrap());
        let message = schedule.plan(TrainingLength::new(4, 10).unwrap()).unwrap_err().to_string();
        assert!(message.starts_with("start or end of a geometric schedule is 100.00 %"), "{message}");
    }

    #[test]
    fn a_misspelled_field_is_an_error() {
        let result = serde_json::from_str::<SparsitySchedule>(r#"{"schedule": "agp", "end": 0.9, "widow": "0.5..1"}"#);
        let message = result.unwrap_err().to_string();
        assert!(message.starts_with("unknown field `widow`"), "{message}");
    }

    #[test]
    fn a_file_may_leave_out_start_and_window() {
        let schedule: SparsitySchedule = serde_json::from_str(r#"{"schedule": "agp", "end": 0.9}"#).unwrap();
        assert_eq!(schedule, SparsitySchedule::to(percent(90.0), Schedule::Agp));
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(text, r#"{"schedule":"agp","start":0.0,"end":0.9,"window":"0..1"}"#);
        assert_eq!(serde_json::from_str::<SparsitySchedule>(&text).unwrap(), schedule);
    }
}
