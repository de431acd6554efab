//! Tasks: losses, metrics, and batches of any type.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use lth_train::{
    BatchEvaluation, Classification, Data, Error, FitConfig, MEAN_ABSOLUTE_ERROR, ModuleNetwork, Network, Optimizer,
    OptimizerConfig, Parameters, Pass, Regression, Task, Trainer, evaluate,
};

use crate::trainer::{Linear, batch, data, network, trainer};

#[test]
fn a_regression_finds_the_line() -> Result<(), Error> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let network = ModuleNetwork::new(candle_nn::linear(2, 1, builder)?, &variables)?;
    let x = Tensor::new(&[[1f32, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 2.0]], &Device::Cpu)?;
    let y = (x.matmul(&Tensor::new(&[[2f32], [-3.0]], &Device::Cpu)?)? + 0.5)?;
    let batches = || std::iter::once(Ok::<_, candle_core::Error>((x.clone(), y.clone())));
    let data = Data { train: |_| batches(), n_train_batches: 1, valid: batches };
    let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::sgd()), 7);
    let config = FitConfig { learning_rate: &|_| 0.1, ..FitConfig::new(300) };
    let fitted = trainer.fit_task(&Regression, &config, &data, &mut [])?;
    let last = fitted.last().expect("300 epochs");
    assert!(last.valid_loss.is_some_and(|loss| loss < 1e-8) && last.accuracy().is_none(), "{last:?}");
    assert!(last.metrics[MEAN_ABSOLUTE_ERROR] < 1e-3);
    let weight = trainer.network().parameters().require("weight")?.var().to_vec2::<f32>()?;
    assert!((weight[0][0] - 2.0).abs() < 1e-3 && (weight[0][1] + 3.0).abs() < 1e-3, "{weight:?}");
    Ok(())
}

#[test]
fn the_losses_of_a_regression_are_means_over_values_and_examples() -> Result<(), Error> {
    // Differences of 1 and 3 in a batch of two examples, 2 in a batch of one: squares 1, 9, 4.
    struct Echo(Parameters);
    impl Network for Echo {
        fn forward(&self, x: &Tensor, _: &Pass) -> candle_core::Result<Tensor> {
            Ok(x.clone())
        }

        fn parameters(&self) -> &Parameters {
            &self.0
        }
    }
    let column = |values: &[f64]| Tensor::from_slice(values, (values.len(), 1), &Device::Cpu);
    let batches = [(column(&[1.0, 3.0])?, column(&[0.0, 0.0])?), (column(&[5.0])?, column(&[7.0])?)];
    let echo = Echo(Parameters::new());
    let of = |batches: &[(Tensor, Tensor)]| {
        evaluate(&echo, &Regression, batches.iter().cloned().map(Ok::<_, candle_core::Error>))
    };
    let evaluation = of(&batches)?;
    assert!((evaluation.loss - 14.0 / 3.0).abs() < 1e-12, "{evaluation:?}");
    assert!((evaluation.metrics[MEAN_ABSOLUTE_ERROR] - 2.0).abs() < 1e-12);
    assert_eq!((evaluation.n_examples, evaluation.right, evaluation.metrics.len()), (3, None, 1));
    // What candle would broadcast to [3, 3] in silence.
    let flat = (column(&[1.0, 2.0, 3.0])?, Tensor::new(&[1.0, 2.0, 3.0], &Device::Cpu)?);
    let message = of(&[flat]).expect_err("[3, 1] and [3]").to_string();
    assert!(message.starts_with("the network gives [3, 1] for targets [3] of F64: a regression needs"), "{message}");
    assert!(message.ends_with("Reshape one of the two"), "{message}");
    let classes = (column(&[1.0])?, Tensor::new(&[[1u32]], &Device::Cpu)?);
    assert!(of(&[classes]).expect_err("classes").to_string().contains("For classes call `Trainer::fit`"));
    Ok(())
}

#[test]
fn smoothing_enters_the_training_loss_and_not_the_validation() -> Result<(), Error> {
    let network = network()?;
    let batch = batch(0, 0)?;
    let logits = network.forward(&batch.0, &Pass::eval())?;
    let smoothed = Classification { label_smoothing: 0.1 };
    let loss = smoothed.loss(&network, &batch, &Pass::eval())?.to_scalar::<f32>()?;
    let expected = lth_kernels::smoothed_cross_entropy(&logits, &batch.1, 0.1)?.to_scalar::<f32>()?;
    let plain = lth_kernels::cross_entropy(&logits, &batch.1)?.to_scalar::<f32>()?;
    assert!(loss == expected && loss != plain);
    let of = |task: &Classification| evaluate(&network, task, std::iter::once(Ok::<_, Error>(batch.clone())));
    assert_eq!(of(&smoothed)?, of(&Classification::default())?);
    let bad = Classification { label_smoothing: 2.0 };
    let before = crate::trainer::weights(&trainer()?);
    let mut trainer = trainer()?;
    let message = trainer.fit_task(&bad, &FitConfig::new(1), &data(), &mut []).expect_err("no fraction").to_string();
    assert!(message.contains("label smoothing is 2, expected a number in [0, 1]"), "{message}");
    assert_eq!(crate::trainer::weights(&trainer), before);
    Ok(())
}

/// The classifier at every position of a sequence.
struct Tokens(Linear);

impl Network for Tokens {
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        let (n, length, inputs) = x.dims3()?;
        self.0.forward(&x.reshape((n * length, inputs))?, pass)?.reshape((n, length, ()))
    }

    fn parameters(&self) -> &Parameters {
        self.0.parameters()
    }
}

#[test]
fn every_token_is_an_example() -> Result<(), Error> {
    let flat = || (0..3).map(|index| batch(0, index));
    let in_rows = || flat().map(|batch| batch.and_then(|(x, y)| Ok((x.reshape((1, 5, 4))?, y.reshape((1, 5))?))));
    let tokens = Tokens(network()?);
    let by_token = evaluate(&tokens, &Classification::default(), in_rows())?;
    assert_eq!(by_token, evaluate(&network()?, &Classification::default(), flat())?);
    assert_eq!(by_token.n_examples, 15);
    let data = Data { train: |_| in_rows(), n_train_batches: 3, valid: in_rows };
    let mut of_tokens = Trainer::new(tokens, Optimizer::new(OptimizerConfig::adam()), 7);
    of_tokens.fit(&FitConfig::new(2), &data, &mut [])?;
    let data = Data { train: |_| flat(), n_train_batches: 3, valid: flat };
    let mut of_rows = trainer()?;
    of_rows.fit(&FitConfig::new(2), &data, &mut [])?;
    let weight = |parameters: &Parameters| parameters.snapshot(|_, _| true)?["weight"].to_vec2::<f32>();
    assert_eq!(weight(of_tokens.network().parameters())?, weight(of_rows.network().parameters())?);
    Ok(())
}

/// Two views of one thing, whose outputs should agree; no target at all.
#[derive(Clone)]
struct Views {
    one: Tensor,
    other: Tensor,
}

struct Agreement;

impl<N: Network> Task<N, Views> for Agreement {
    fn loss(&self, network: &N, views: &Views, pass: &Pass) -> Result<Tensor, Error> {
        let (one, other) = (network.forward(&views.one, pass)?, network.forward(&views.other, pass)?);
        Ok((one - other)?.sqr()?.mean_all()?)
    }

    fn evaluate(&self, network: &N, views: &Views) -> Result<BatchEvaluation, Error> {
        let n_examples = views.one.dim(0)?;
        let loss = f64::from(self.loss(network, views, &Pass::eval())?.to_scalar::<f32>()?) * n_examples as f64;
        let metrics = BTreeMap::from([("root".to_owned(), loss.sqrt()), ("ones".to_owned(), n_examples as f64)]);
        Ok(BatchEvaluation { n_examples, loss, metrics, right: None })
    }
}

#[test]
fn a_task_of_ones_own_takes_batches_of_its_own() -> Result<(), Error> {
    let views = || (0..2).map(|index| Ok::<_, Error>(Views { one: batch(0, index)?.0, other: batch(1, index)?.0 }));
    let data = Data { train: |_| views(), n_train_batches: 2, valid: views };
    let mut trainer = trainer()?;
    // The same bias is added to both.
    trainer.allow_no_gradient(["bias"]);
    let config = FitConfig { learning_rate: &|_| 0.05, ..FitConfig::new(20) };
    let fitted = trainer.fit_task(&Agreement, &config, &data, &mut [])?;
    let loss = |index: usize| fitted.history[index].valid_loss.unwrap_or(f64::NAN);
    assert!(loss(19) < 0.1 * loss(0), "{} and {}", loss(0), loss(19));
    assert_eq!(fitted.history[0].metrics.keys().collect::<Vec<_>>(), ["ones", "root"]);
    assert_eq!(fitted.history[0].metrics["ones"], 1.0);
    Ok(())
}

#[test]
fn a_loss_that_is_no_scalar_is_refused() -> Result<(), Error> {
    struct PerExample;
    impl<N: Network> Task<N, (Tensor, Tensor)> for PerExample {
        fn loss(&self, network: &N, (x, _): &(Tensor, Tensor), pass: &Pass) -> Result<Tensor, Error> {
            Ok(network.forward(x, pass)?.sum(1)?)
        }

        fn evaluate(&self, _: &N, _: &(Tensor, Tensor)) -> Result<BatchEvaluation, Error> {
            Ok(BatchEvaluation::default())
        }
    }
    let error = trainer()?.fit_task(&PerExample, &FitConfig::new(1), &data(), &mut []).expect_err("[5]").to_string();
    assert!(error.starts_with("the task's loss has shape [5], expected a scalar"), "{error}");
    Ok(())
}
