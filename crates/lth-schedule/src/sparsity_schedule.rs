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
}

impl SparsitySchedule {
    /// From dense to `end`, over the whole training.
    pub fn to(end: Sparsity, schedule: Schedule) -> SparsitySchedule {
        SparsitySchedule { schedule, start: Sparsity::DENSE, end, window: Window::ALL }
    }

    /// The sparsity at a position in the window, in [0, 1]: start + (end − start) · progress, never outside the two.
    ///
    /// Beyond [0, 1] the nearer end counts, NaN counts as 0.
    pub fn at(&self, position: f64) -> Sparsity {
        self.start.toward(self.end, self.schedule.progress(position))
    }

    /// The schedule for a training of a known length.
    ///
    /// # Errors
    /// if the window is empty there or reaches past its end.
    pub fn plan(&self, length: TrainingLength) -> Result<SparsityPlan, Error> {
        Ok(SparsityPlan { span: self.window.resolve(length)?, length, schedule: self.clone() })
    }

    /// `n_points` pairs of position in the window and sparsity for a plot, evenly spaced with both ends.
    pub fn sample(&self, n_points: usize) -> Vec<(f64, Sparsity)> {
        positions(n_points).map(|pos| (pos, self.at(pos))).collect()
    }
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

    /// The position of an iteration in the window; `None` before it begins.
    pub fn position(&self, iteration: u64) -> Option<f64> {
        self.span.position(iteration as f64)
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
        let at = |progress: f64| match self.span.position(progress * total) {
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
