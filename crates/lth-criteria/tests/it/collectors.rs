//! Gradient collectors and Hessian products against closed forms.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use lth_criteria::{
    Criterion, EmpiricalFisher, GradientStatistics, Grasp, Inputs, NamedInputs, gradients, hessian_gradient_product,
    hessian_vector_product, score_all,
};
use proptest::prelude::*;

use crate::{assert_close, values};

fn tensor(values: &[f64]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

fn matrix(values: &[[f64; 3]; 3]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

const A: [[f64; 3]; 3] = [[2.0, -1.0, 0.5], [-1.0, 3.0, 0.25], [0.5, 0.25, 1.0]];

fn times_a(v: &[f64]) -> Vec<f64> {
    A.iter().map(|row| row.iter().zip(v).map(|(a, v)| a * v).sum()).collect()
}

/// ½ wᵀAw for a column vector.
fn quadratic(w: &Tensor) -> candle_core::Result<Tensor> {
    let column = w.reshape((3, 1))?;
    (matrix(&A).to_dtype(w.dtype())?.matmul(&column)? * column)?.sum_all()? * 0.5
}

fn named(name: &str, tensor: Tensor) -> BTreeMap<String, Tensor> {
    BTreeMap::from([(name.to_owned(), tensor)])
}

#[test]
fn the_hessian_of_a_quadratic_times_a_vector_is_exact_to_ten_digits() {
    let (w, v) = ([0.3, -1.2, 2.0], [1.0, 0.5, -0.25]);
    let product = hessian_vector_product(&named("w", tensor(&w)), &named("w", tensor(&v)), |weights| {
        let var = Var::from_tensor(&weights["w"])?;
        let loss = quadratic(&var)?;
        Ok(named("w", loss.backward()?.get(&var).unwrap().clone()))
    });
    // Rounding alone: f64's 2e-16 over the step of 6e-6.
    assert_close(&values(&product.unwrap()["w"]), &times_a(&v), 1e-10, "Hv");
}

proptest! {
    #[test]
    fn the_hessian_of_a_curved_loss_times_a_vector_is_its_closed_form(
        a in proptest::collection::vec(-1.0..1.0f64, 4),
        b in proptest::collection::vec(-1.0..1.0f64, 3),
        direction in proptest::collection::vec(-1.0..1.0f64, 7),
    ) {
        prop_assume!(direction.iter().any(|d| d.abs() > 0.1));
        // L = Σ exp w + (Σ w²)² over both tensors; H = diag(exp w) + 4 (Σ w²) I + 8 w wᵀ.
        let weights = BTreeMap::from([("a".to_owned(), tensor(&a)), ("b".to_owned(), tensor(&b))]);
        let directions =
            BTreeMap::from([("a".to_owned(), tensor(&direction[..4])), ("b".to_owned(), tensor(&direction[4..]))]);
        let product = hessian_vector_product(&weights, &directions, |weights| {
            let variables: BTreeMap<String, Var> =
                weights.iter().map(|(name, w)| Ok((name.clone(), Var::from_tensor(w)?))).collect::<candle_core::Result<_>>()?;
            let (a, b) = (variables["a"].as_tensor(), variables["b"].as_tensor());
            let squares = (a.sqr()?.sum_all()? + b.sqr()?.sum_all()?)?;
            let loss = ((a.exp()?.sum_all()? + b.exp()?.sum_all()?)? + squares.sqr()?)?;
            gradients(&loss, &variables).map_err(candle_core::Error::wrap)
        }).unwrap();
        let w: Vec<f64> = [a, b].concat();
        let squares: f64 = w.iter().map(|w| w * w).sum();
        let along: f64 = w.iter().zip(&direction).map(|(w, d)| w * d).sum();
        let expected: Vec<f64> =
            w.iter().zip(&direction).map(|(w, d)| w.exp() * d + 4.0 * squares * d + 8.0 * w * along).collect();
        // Truncation: h² (1 + ‖w‖)² times third derivatives, with h = 6e-6 some 1e-9.
        assert_close(&[values(&product["a"]), values(&product["b"])].concat(), &expected, 1e-8, "Hv");
    }
}

#[test]
fn grasp_on_a_quadratic_is_its_closed_form_and_leaves_the_weights() {
    for (dtype, relative) in [(DType::F64, 1e-9), (DType::F32, 1e-3)] {
        let w = [0.3, -1.2, 2.0];
        let var = Var::from_tensor(&tensor(&w).to_dtype(dtype).unwrap()).unwrap();
        let variables = BTreeMap::from([("w".to_owned(), var.clone())]);
        let product = hessian_gradient_product(&variables, || quadratic(&var)).unwrap();
        let expected = times_a(&times_a(&w));
        assert_close(&values(&product["w"]), &expected, relative, "Hg");
        assert_eq!(values(&var), values(&tensor(&w).to_dtype(dtype).unwrap()), "the weights moved");

        let inputs = Inputs { hessian_gradient: Some(&product["w"]), ..Inputs::of(&var) };
        let scores = values(&Grasp.score("w", &inputs).unwrap());
        let expected: Vec<f64> = w.iter().zip(&expected).map(|(w, hg)| w * hg).collect();
        assert_close(&scores, &expected, relative.max(1e-6), "grasp");
    }
}

#[test]
fn grasp_keeps_the_weight_whose_removal_lowers_the_gradient_norm_most() {
    // Diagonal Hessian: ‖g‖² = Σ (λ w)², its first-order change without weight i is −2 w_i (Hg)_i.
    let var = Var::new(&[1.0f64, 1.0, 1.0], &Device::Cpu).unwrap();
    let lambda = tensor(&[1.0, 3.0, -2.0]);
    let variables = BTreeMap::from([("w".to_owned(), var.clone())]);
    let product = hessian_gradient_product(&variables, || (var.sqr()? * &lambda)?.sum_all()? * 0.5).unwrap();
    let inputs = Inputs { hessian_gradient: Some(&product["w"]), ..Inputs::of(&var) };
    assert_close(&values(&Grasp.score("w", &inputs).unwrap()), &[1.0, 9.0, 4.0], 1e-6, "grasp");
}

#[test]
fn the_weights_are_put_back_when_the_loss_fails() {
    let var = Var::new(&[0.3f64, -1.2, 2.0], &Device::Cpu).unwrap();
    let variables = BTreeMap::from([("w".to_owned(), var.clone())]);
    let mut n_calls = 0;
    let result = hessian_gradient_product(&variables, || {
        n_calls += 1;
        if n_calls == 3 { candle_core::bail!("out of batches") } else { quadratic(&var) }
    });
    assert!(result.unwrap_err().to_string().contains("out of batches"));
    assert_eq!(n_calls, 3);
    assert_eq!(values(&var), [0.3, -1.2, 2.0]);
}

#[test]
fn a_zero_direction_gives_zeros_and_a_bad_one_an_error() {
    let weights = named("w", tensor(&[1.0, 2.0]));
    let unused = |_: &BTreeMap<String, Tensor>| -> candle_core::Result<BTreeMap<String, Tensor>> {
        candle_core::bail!("must not be called")
    };
    let zeros = hessian_vector_product(&weights, &named("w", tensor(&[0.0, 0.0])), unused).unwrap();
    assert_eq!(values(&zeros["w"]), [0.0, 0.0]);
    assert!(hessian_vector_product(&weights, &named("w", tensor(&[f64::NAN, 0.0])), unused).is_err());
    assert!(hessian_vector_product(&weights, &named("w", tensor(&[1.0])), unused).is_err());
    let error = hessian_vector_product(&weights, &named("v", tensor(&[1.0, 0.0])), unused).unwrap_err();
    assert_eq!(error.to_string(), "the direction has no tensor named `w`");
}

#[test]
fn the_empirical_fisher_of_a_linear_regression_is_its_closed_form() {
    // L = ½ (w·x − y)², so g = (w·x − y) x for each sample.
    let w = [0.5, -1.0];
    let samples = [([1.0, 2.0], 0.5), ([-1.0, 0.5], 1.0), ([3.0, 0.0], -1.0)];
    let var = Var::new(&w, &Device::Cpu).unwrap();
    let variables = BTreeMap::from([("w".to_owned(), var.clone())]);
    let mut statistics = GradientStatistics::new();
    let (mut sum, mut squares) = ([0.0; 2], [0.0; 2]);
    for (x, y) in samples {
        let error = ((var.as_tensor() * tensor(&x)).unwrap().sum_all().unwrap() - y).unwrap();
        let loss = (error.sqr().unwrap() * 0.5).unwrap();
        statistics.observe(&gradients(&loss, &variables).unwrap()).unwrap();
        for i in 0..2 {
            let g = (w[0] * x[0] + w[1] * x[1] - y) * x[i];
            sum[i] += g;
            squares[i] += g * g;
        }
    }
    assert_eq!(statistics.n_batches(), 3);
    assert_close(&values(&statistics.sum()["w"]), &sum, 1e-12, "sum");
    assert_close(&values(&statistics.mean().unwrap()["w"]), &sum.map(|s| s / 3.0), 1e-12, "mean");
    let squared = statistics.mean_of_squares().unwrap();
    assert_close(&values(&squared["w"]), &squares.map(|s| s / 3.0), 1e-12, "mean of squares");
    let weights = named("w", var.as_detached_tensor());
    let scores =
        score_all(&EmpiricalFisher, &NamedInputs { squared_gradient: Some(&squared), ..NamedInputs::of(&weights) });
    let expected: Vec<f64> = w.iter().zip(squares).map(|(w, s)| 0.5 * w * w * s / 3.0).collect();
    assert_close(&values(&scores.unwrap()["w"]), &expected, 1e-6, "empirical fisher");
}

#[test]
fn collected_gradients_do_not_change_with_what_they_were_made_from() {
    let gradient = Var::new(&[1f32, 2.0], &Device::Cpu).unwrap();
    let mut statistics = GradientStatistics::new();
    statistics.observe(&named("w", gradient.as_detached_tensor())).unwrap();
    gradient.set(&Tensor::new(&[0f32, 0.0], &Device::Cpu).unwrap()).unwrap();
    assert_eq!(values(&statistics.sum()["w"]), [1.0, 2.0]);
}

#[test]
fn batches_of_different_names_or_shapes_are_errors_and_change_nothing() {
    let mut statistics = GradientStatistics::new();
    statistics.observe(&named("w", tensor(&[1.0, 2.0]))).unwrap();
    let error = statistics.observe(&named("v", tensor(&[1.0, 2.0]))).unwrap_err();
    assert_eq!(error.to_string(), "this batch of gradients has no tensor named `w`");
    let both = BTreeMap::from([("w".to_owned(), tensor(&[1.0, 2.0])), ("x".to_owned(), tensor(&[1.0]))]);
    let error = statistics.observe(&both).unwrap_err();
    assert_eq!(error.to_string(), "the batch before has no tensor named `x`");
    let error = statistics.observe(&named("w", tensor(&[1.0]))).unwrap_err();
    assert_eq!(error.to_string(), "gradient of `w` has shape [1], expected [2]");
    assert_eq!((statistics.n_batches(), values(&statistics.sum()["w"])), (1, vec![1.0, 2.0]));
}

#[test]
fn a_variable_that_the_loss_does_not_use_has_gradient_zero() {
    let (used, unused) = (Var::new(&[1f32], &Device::Cpu).unwrap(), Var::new(&[1f32, 2.0], &Device::Cpu).unwrap());
    let variables = BTreeMap::from([("used".to_owned(), used.clone()), ("unused".to_owned(), unused)]);
    let gradients = gradients(&used.sqr().unwrap().sum_all().unwrap(), &variables).unwrap();
    assert_eq!(values(&gradients["used"]), [2.0]);
    assert_eq!(values(&gradients["unused"]), [0.0, 0.0]);
}
