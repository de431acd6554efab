//! The hooks of every fit: one keeps weights for later, one writes down the figures.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use candle_core::Tensor;
use lth_runs::experiment::{ExperimentDir, LayerRecord, Measurement, MetricLine};
use lth_schedule::Step;
use lth_ticket::layer_records;
use lth_train::{BoxError, Event, Fit, Hook, HookState};
use serde::{Deserialize, Serialize};

use crate::observer::{Notice, Observer};
use crate::plan::FitPlan;

type Tensors = BTreeMap<String, Tensor>;

/// Keeps weights in memory until the fit has ended. Comes before hooks that change them.
pub(crate) struct Keeper {
    steps: Vec<(Step, usize)>,
    keeps_best: bool,
    /// Weights at the steps that were asked for.
    pub(crate) at: Vec<(Step, Tensors)>,
    /// Weights at the least validation loss.
    pub(crate) best: Option<(f64, Tensors)>,
    /// Weights at the end, before a search rewinds for the last time.
    pub(crate) learnt: Tensors,
    /// Time that went into weights which are kept to be tested.
    pub(crate) measuring: Duration,
}

impl Keeper {
    pub(crate) fn new(steps: &[Step], n_batches: u32, keeps_best: bool) -> Self {
        let at = |step: &Step| (*step, usize::try_from(step.iterations(n_batches)).unwrap_or(usize::MAX));
        let steps = steps.iter().map(at).collect();
        Self { steps, keeps_best, at: Vec::new(), best: None, learnt: Tensors::new(), measuring: Duration::ZERO }
    }

    fn keep_steps(&mut self, fit: &Fit<'_>) -> Result<(), BoxError> {
        let now = fit.iteration();
        for (step, iteration) in &self.steps {
            if *iteration == now && self.at.iter().all(|(kept, _)| kept != step) {
                self.at.push((*step, fit.parameters().snapshot(|_, _| true)?));
            }
        }
        Ok(())
    }
}

impl Hook for Keeper {
    fn name(&self) -> &str {
        "keeping weights"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        match event {
            Event::BeforeBatch => self.keep_steps(fit)?,
            Event::AfterValidation if self.keeps_best => {
                let begun = Instant::now();
                let loss = fit.history().last().and_then(|record| record.valid_loss);
                if let Some(loss) = loss
                    && self.best.as_ref().is_none_or(|(least, _)| loss < *least)
                {
                    self.best = Some((loss, fit.parameters().snapshot(|_, _| true)?));
                }
                self.measuring += begun.elapsed();
            }
            Event::FitEnd => {
                self.keep_steps(fit)?;
                self.learnt = fit.parameters().snapshot(|_, _| true)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn save(&self) -> Result<HookState, BoxError> {
        let mut tensors = Tensors::new();
        for (number, (_, weights)) in self.at.iter().enumerate() {
            tensors.extend(weights.iter().map(|(name, weight)| (format!("at/{number}/{name}"), weight.clone())));
        }
        if let Some((_, weights)) = &self.best {
            tensors.extend(weights.iter().map(|(name, weight)| (format!("best/{name}"), weight.clone())));
        }
        let kept = KeeperState {
            at: self.at.iter().map(|(step, _)| *step).collect(),
            best: self.best.as_ref().map(|(loss, _)| *loss),
        };
        Ok(HookState { tensors, json: serde_json::to_value(kept)? })
    }

    fn load(&mut self, state: &HookState) -> Result<(), BoxError> {
        let kept: KeeperState = serde_json::from_value(state.json.clone())?;
        // Snapshots are never changed in place: sharing them is as good as copies.
        let under = |prefix: &str| -> Tensors {
            let own = state.tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)));
            own.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
        };
        let at = kept.at.into_iter().enumerate();
        self.at = at.map(|(number, step)| (step, under(&format!("at/{number}/")))).collect();
        self.best = kept.best.map(|loss| (loss, under("best/")));
        Ok(())
    }
}

/// What a [`Keeper`] keeps that is no tensor.
#[derive(Serialize, Deserialize)]
struct KeeperState {
    at: Vec<Step>,
    best: Option<f64>,
}

/// Tells and writes down the figures as they come. Comes after hooks that change weights.
pub(crate) struct Recorder<'a> {
    fit: &'a FitPlan,
    dir: &'a mut ExperimentDir,
    observer: &'a mut dyn Observer,
    ranks: &'a [usize],
    notices: &'a RefCell<Vec<lth_ticket::Notice>>,
    from: usize,
    learning_rate: Option<f64>,
    pub(crate) history: Vec<Measurement>,
    pub(crate) data_seconds: f64,
    /// Time that records took.
    pub(crate) measuring: Duration,
}

/// The recorder's name, by which its errors are told from others.
pub const RECORDING: &str = "recording";

impl<'a> Recorder<'a> {
    pub(crate) fn new(
        fit: &'a FitPlan,
        dir: &'a mut ExperimentDir,
        observer: &'a mut dyn Observer,
        ranks: &'a [usize],
        notices: &'a RefCell<Vec<lth_ticket::Notice>>,
    ) -> Self {
        Self {
            fit,
            dir,
            observer,
            ranks,
            notices,
            from: 0,
            learning_rate: None,
            history: Vec::new(),
            data_seconds: 0.0,
            measuring: Duration::ZERO,
        }
    }

    fn record(&mut self, fit: &Fit<'_>) -> Result<(), BoxError> {
        // One measurement for each record of the fit's.
        let Some(record) = fit.history().get(self.history.len()) else { return Ok(()) };
        let layers = layer_records(fit.parameters(), self.ranks)?;
        let at = Measurement {
            step: record.iteration as u64,
            epoch: record.iteration as f64 / fit.n_batches().max(1) as f64,
            train_loss: record.train_loss,
            valid_loss: record.valid_loss,
            metrics: record.metrics.clone(),
            seconds: record.train_time.as_secs_f64(),
            valid_seconds: record.valid_time.as_secs_f64(),
            sparsity: LayerRecord::total("all", &layers).sparsity(),
        };
        self.data_seconds += record.data_time.as_secs_f64();
        self.dir.append(&MetricLine { fit: self.fit.address.clone(), at: at.clone() })?;
        let learning_rate = self.learning_rate;
        self.observer.on(&Notice::Measured { fit: &self.fit.address, at: &at, learning_rate });
        self.history.push(at);
        Ok(())
    }
}

impl Hook for Recorder<'_> {
    fn name(&self) -> &str {
        RECORDING
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        for notice in self.notices.take() {
            self.observer.on(&Notice::Pruned { fit: &self.fit.address, notice: &notice });
        }
        match event {
            Event::FitStart => self.from = fit.iteration(),
            Event::AfterStep => {
                let n_done = (fit.iteration() + 1 - self.from) as u64;
                let loss = fit.smoothed_loss();
                self.learning_rate = fit.learning_rate();
                self.observer.on(&Notice::Stepped { fit: &self.fit.address, n_done, loss });
            }
            Event::AfterValidation | Event::EpochEnd | Event::FitEnd => {
                let begun = Instant::now();
                self.record(fit)?;
                self.measuring += begun.elapsed();
            }
            _ => {}
        }
        Ok(())
    }

    fn save(&self) -> Result<HookState, BoxError> {
        let json = serde_json::json!({
            "from": self.from, "history": self.history, "data_seconds": self.data_seconds,
        });
        Ok(HookState { tensors: Tensors::new(), json })
    }

    fn load(&mut self, state: &HookState) -> Result<(), BoxError> {
        let RecorderState { from, history, data_seconds } = serde_json::from_value(state.json.clone())?;
        (self.from, self.history, self.data_seconds) = (from, history, data_seconds);
        self.observer.on(&Notice::Remembered { fit: &self.fit.address, history: &self.history });
        Ok(())
    }
}

/// What a [`Recorder`] goes on with.
#[derive(Deserialize)]
struct RecorderState {
    from: usize,
    history: Vec<Measurement>,
    data_seconds: f64,
}
