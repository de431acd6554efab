//! Measures the paths of a plan.

use std::time::Instant;

use candle_core::DType;
use lth_runs::experiment::{ExperimentDir, FitRecord, Part, PathPoint, PathRecord};
use lth_train::{Network, Task};

use crate::plan::PathPlan;
use crate::states::{Kept, States};
use crate::{Error, Examples, Runner, linear_path};

impl<N: Network, E: Examples, T: Task<N, E::Batch>> Runner<'_, N, E, T> {
    /// The figures along a path: on the test set, or on the validation set where there is none.
    ///
    /// # Errors
    /// What files, data and the network say.
    pub(crate) fn measure_path(
        &self,
        dir: &ExperimentDir,
        path: &PathPlan,
        plan: String,
        examples: &E,
        records: &[FitRecord],
    ) -> Result<PathRecord, Error> {
        let begun = Instant::now();
        let [first, last] = &path.ends;
        let states = States::new(self.plan, dir.path(), records);
        let mut network = self.network(last.seed, DType::F32)?;
        let (one, other) = (states.load(first, Kept::End)?, states.load(last, Kept::End)?);
        if one.masks == other.masks {
            // What both have pruned is pruned all along, and need not be multiplied.
            network.set_masks(&one.masks.to_tensors(&candle_core::Device::Cpu)?)?;
        }
        let on = if examples.test().is_some() { Part::Test } else { Part::Validation };
        let batches = || examples.test().unwrap_or_else(|| examples.valid());
        let points = linear_path(&network, self.task, [&one.tensors, &other.tensors], path.n_points as usize, batches)?;
        let points = points.into_iter().map(|point| PathPoint {
            place: point.position,
            loss: Some(point.evaluation.loss).filter(|loss| loss.is_finite()),
            metrics: point.evaluation.metrics,
        });
        Ok(PathRecord {
            plan,
            ends: path.ends.clone(),
            branched_at: path.branched_at.iterations(u32::try_from(examples.n_train_batches()).unwrap_or(u32::MAX)),
            on,
            points: points.collect(),
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}
