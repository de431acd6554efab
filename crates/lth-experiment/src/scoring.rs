//! Saliency scores of a network as it is now, with whatever the criterion needs collected over the training data.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use lth_criteria::{
    Criterion, GradientStatistics, Input, NamedInputs, SynFlowRounds, gradients, hessian_gradient_product, score_all,
};
use lth_mask::{MaskSet, Selection, select, select_within};
use lth_train::{Network, Parameters, Pass, Role, Task};

use crate::{Error, Examples};

/// A network to be scored, and what its scores are made of.
pub struct Scoring<'a, N, E, T> {
    /// The network, with the weights that are scored.
    pub network: &'a N,
    /// The same network in f64, with the same weights, for criteria that differentiate twice (GraSP); others need none.
    pub double: Option<&'a N>,
    /// The weights at the start of the training.
    pub initial: &'a BTreeMap<String, Tensor>,
    /// The data.
    pub examples: &'a E,
    /// What the network is trained for.
    pub task: &'a T,
    /// Ranks of the weights that are scored.
    pub ranks: &'a [usize],
    /// Batches that gradients are averaged over.
    pub n_batches: usize,
    /// Keys the noise of the passes.
    pub seed: u64,
}

impl<N: Network, E: Examples, T: Task<N, E::Batch>> Scoring<'_, N, E, T> {
    /// Masks of the weights with the highest scores.
    ///
    /// `within`: masks that the new ones lie within. SynFlow prunes in a hundred rounds, as published.
    ///
    /// # Errors
    /// [`Error::Scores`] if the criterion needs what cannot be collected here, or what scores, selection, data and candle
    /// say. The network is then as before.
    pub fn masks(
        &self,
        criterion: &dyn Criterion,
        sparsity: f64,
        selection: &Selection,
        within: Option<&MaskSet>,
    ) -> Result<MaskSet, Error> {
        let choose = |scores: &BTreeMap<String, Tensor>, sparsity: f64| match within {
            Some(within) => select_within(scores, sparsity, selection, within),
            None => select(scores, sparsity, selection),
        };
        if criterion.requires().contains(Input::FlowGradient) {
            return self.synflow(sparsity, choose);
        }
        Ok(choose(&self.scores(criterion)?, sparsity)?)
    }

    /// One score for each element of every prunable weight, by name.
    ///
    /// # Errors
    /// As [`Scoring::masks`].
    pub fn scores(&self, criterion: &dyn Criterion) -> Result<BTreeMap<String, Tensor>, Error> {
        let requires = criterion.requires();
        const OFFERED: [Input; 5] =
            [Input::Weight, Input::Initial, Input::Gradient, Input::SquaredGradient, Input::HessianGradient];
        if let Some(input) = requires.iter().find(|input| !OFFERED.contains(input)) {
            let hint = "which is collected only while a network trains: take another criterion here";
            return Err(Error::Scores { criterion: criterion.name().to_owned(), needs: input.to_string(), hint });
        }
        let weights = self.weights()?;
        let mut inputs = NamedInputs { initial: Some(self.initial), ..NamedInputs::of(&weights) };
        let (gradient, squared, product);
        if requires.contains(Input::Gradient) || requires.contains(Input::SquaredGradient) {
            let statistics = self.gradients()?;
            (gradient, squared) = (statistics.mean()?, statistics.mean_of_squares()?);
            (inputs.gradient, inputs.squared_gradient) = (Some(&gradient), Some(&squared));
        }
        if requires.contains(Input::HessianGradient) {
            product = self.hessian_gradient(criterion)?;
            inputs.hessian_gradient = Some(&product);
        }
        Ok(score_all(criterion, &inputs)?)
    }

    fn weights(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let prunable = self.network.parameters().prunable(self.ranks);
        Ok(prunable
            .map(|(name, parameter)| Ok((name.to_owned(), parameter.var().as_detached_tensor().copy()?)))
            .collect::<candle_core::Result<_>>()?)
    }

    /// Over training passes, each with noise of its own; running statistics are as before.
    fn gradients(&self) -> Result<GradientStatistics, Error> {
        let variables = variables(self.network.parameters(), |_, role| role == Role::Weight);
        let buffers = self.network.parameters().snapshot(|_, parameter| parameter.role() == Role::Buffer)?;
        let mut statistics = GradientStatistics::new();
        for (step, batch) in self.examples.train(0).take(self.n_batches.max(1)).enumerate() {
            let pass = Pass::train(self.seed, step as u64);
            let loss = self.task.loss(self.network, &batch.map_err(Error::Data)?, &pass)?;
            statistics.observe(&gradients(&loss, &variables)?)?;
        }
        self.network.parameters().restore(&buffers)?;
        Ok(statistics)
    }

    /// On the same batches at every pass, in evaluation mode where a pass would otherwise draw noise.
    fn hessian_gradient(&self, criterion: &dyn Criterion) -> Result<BTreeMap<String, Tensor>, Error> {
        let network = self.double.ok_or_else(|| Error::Scores {
            criterion: criterion.name().to_owned(),
            needs: Input::HessianGradient.to_string(),
            hint: "which only a network in f64 gives: let the factory make one for `DType::F64`",
        })?;
        let variables = variables(network.parameters(), |_, role| role == Role::Weight);
        let buffers = network.parameters().snapshot(|_, parameter| parameter.role() == Role::Buffer)?;
        let batches = self.examples.train(0).take(self.n_batches.max(1));
        let batches: Vec<E::Batch> = batches.collect::<Result<_, _>>().map_err(Error::Data)?;
        let loss = || {
            let mut sum: Option<Tensor> = None;
            for batch in &batches {
                network.parameters().restore(&buffers).map_err(candle_core::Error::wrap)?;
                let pass = Pass::train(self.seed, 0);
                let loss = self.task.loss(network, batch, &pass).map_err(candle_core::Error::wrap)?;
                sum = Some(match sum {
                    Some(sum) => (sum + loss)?,
                    None => loss,
                });
            }
            let sum = sum.ok_or_else(|| candle_core::Error::Msg("there are no training batches".to_owned()))?;
            sum / batches.len() as f64
        };
        let product = hessian_gradient_product(&variables, loss)?;
        network.parameters().restore(&buffers)?;
        Ok(product)
    }

    fn synflow(
        &self,
        sparsity: f64,
        choose: impl Fn(&BTreeMap<String, Tensor>, f64) -> Result<MaskSet, lth_mask::Error>,
    ) -> Result<MaskSet, Error> {
        let ones = self.examples.ones().ok_or_else(|| Error::Scores {
            criterion: "synflow".to_owned(),
            needs: "one input of ones".to_owned(),
            hint: "which these data have not: let `Examples::ones` give one",
        })?;
        let ones = ones.map_err(Error::Data)?;
        // In f64 where that can be had: the flow of a deep network is beyond f32.
        let network = self.double.unwrap_or(self.network);
        let parameters = network.parameters();
        let all = variables(parameters, |_, _| true);
        let first = all.values().next().map_or(ones.dtype(), |var| var.dtype());
        let ones = ones.to_dtype(first)?;
        let prunable: Vec<&str> = parameters.prunable(self.ranks).map(|(name, _)| name).collect();
        // Evaluation mode, with a graph.
        let pass = Pass { train: false, ..Pass::train(self.seed, 0) };
        let select = |scores: &BTreeMap<String, Tensor>, sparsity: f64| {
            let masks = choose(scores, sparsity).map_err(candle_core::Error::wrap)?;
            masks.to_tensors(ones.device()).map_err(candle_core::Error::wrap)
        };
        let masks = lth_criteria::synflow(
            &all,
            prunable,
            SynFlowRounds::to(sparsity),
            || network.forward(&ones, &pass),
            select,
        )?;
        Ok(MaskSet::from_tensors(&masks)?)
    }
}

fn variables(parameters: &Parameters, wanted: impl Fn(&str, Role) -> bool) -> BTreeMap<String, Var> {
    let wanted = parameters.iter().filter(|(name, parameter)| wanted(name, parameter.role()));
    wanted.map(|(name, parameter)| (name.to_owned(), parameter.var().clone())).collect()
}
