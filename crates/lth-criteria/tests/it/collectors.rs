//! Gradient collectors and Hessian products against closed forms.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use lth_criteria::{
    Criterion, EmpiricalFisher, Error, GradientStatistics, Grasp, Inputs, NamedInputs, Taylor, gradients,
    hessian_gradient_product, hessian_vector_product, score_all,
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

fn named_var(name: &str, var: &Var) -> BTreeMap<String, Var> {
    BTreeMap::from([(name.to_owned(), var.clone())])
}

#[test]
fn the_hessian_of_a_quadratic_times_a_vector_is_exact_but_for_rounding() {
    let (w, v) = ([0.3, -1.2, 2.0], [1.0, 0.5, -0.25]);
    let product = hessian_vector_product(&named("w", tensor(&w)), &named("w", tensor(&v)), |weights| {
        let var = Var::from_tensor(&weights["w"])?;
        let loss = quadratic(&var)?;
        Ok(named("w", loss.backward()?.get(&var).unwrap().clone()))
    });
    // f64's 2e-16 over the step of 1e-9.
    assert_close(&values(&product.unwrap()["w"]), &times_a(&v), 1e-6, "Hv");
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
        // Rounding: gradients of up to 100 where products are 1, at 2e-16 over the step of 1e-9.
        assert_close(&[values(&product["a"]), values(&product["b"])].concat(), &expected, 1e-5, "Hv");
    }
}

#[test]
fn grasp_on_a_quadratic_is_its_closed_form_and_leaves_the_weights() {
    let w = [0.3, -1.2, 2.0];
    let var = Var::from_tensor(&tensor(&w)).unwrap();
    let variables = named_var("w", &var);
    let product = hessian_gradient_product(&variables, || quadratic(&var)).unwrap();
    let expected = times_a(&times_a(&w));
    assert_close(&values(&product["w"]), &expected, 1e-6, "Hg");
    assert_eq!(values(&var), w, "the weights moved");

    let inputs = Inputs { hessian_gradient: Some(&product["w"]), ..Inputs::of(&var) };
    let scores = values(&Grasp.score("w", &inputs).unwrap());
    let expected: Vec<f64> = w.iter().zip(&expected).map(|(w, hg)| w * hg).collect();
    assert_close(&scores, &expected, 1e-6, "grasp");
}

#[test]
fn a_product_in_less_than_double_precision_is_refused() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let var = Var::from_tensor(&tensor(&[0.3, -1.2, 2.0]).to_dtype(dtype).unwrap()).unwrap();
        let error = hessian_gradient_product(&named_var("fc.weight", &var), || candle_core::bail!("not called"));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(&format!("weight `fc.weight` is {}, expected f64", dtype.as_str())), "{error}");
    }
    let var = Var::from_tensor(&tensor(&[0.3, -1.2, 2.0])).unwrap();
    let narrow = || quadratic(&var.to_dtype(DType::F32)?);
    let error = hessian_gradient_product(&named_var("w", &var), narrow).unwrap_err().to_string();
    assert!(error.starts_with("the loss is f32, expected f64"), "{error}");
    // Computed in f32 within, the step is lost: the product would be 0.
    let hidden = || quadratic(&var.to_dtype(DType::F32)?)?.to_dtype(DType::F64);
    assert!(hessian_gradient_product(&named_var("w", &var), hidden).is_err());
    assert_eq!(values(&var), [0.3, -1.2, 2.0]);
}

#[test]
fn half_precision_weights_are_widened_for_a_hessian_vector_product() {
    let (w, v) = ([0.25, -1.0, 2.0], [1.0, 0.5, -0.25]);
    for dtype in [DType::F32, DType::BF16] {
        let narrow = |values: &[f64; 3]| named("w", tensor(values).to_dtype(dtype).unwrap());
        let product = hessian_vector_product(&narrow(&w), &narrow(&v), |weights| {
            let var = Var::from_tensor(&weights["w"])?;
            gradients(&quadratic(&var)?, &named_var("w", &var)).map_err(candle_core::Error::wrap)
        });
        assert_close(&values(&product.unwrap()["w"]), &times_a(&v), 1e-6, "Hv");
        let narrow_gradient = hessian_vector_product(&narrow(&w), &narrow(&v), |_| Ok(narrow(&w)));
        let error = narrow_gradient.unwrap_err().to_string();
        assert!(error.starts_with(&format!("gradient of `w` is {}, expected f64", dtype.as_str())), "{error}");
    }
}

#[test]
fn a_kink_within_the_step_is_an_error() {
    // g = (w₂ where w₁ > 0, relu(w₁)); w₁ is 2e-10 from the kink, the steps are about 2e-9 and 1e-9.
    let var = Var::new(&[2e-10f64, 1.0], &Device::Cpu).unwrap();
    let loss = || var.narrow(0, 0, 1)?.relu()?.mul(&var.narrow(0, 1, 1)?)?.sum_all();
    let error = hessian_gradient_product(&named_var("w", &var), loss).unwrap_err();
    assert!(matches!(error, Error::HessianStep { got, .. } if got > 0.1), "{error}");
    var.set(&tensor(&[0.5, 1.0])).unwrap();
    let product = hessian_gradient_product(&named_var("w", &var), loss).unwrap();
    // H = [[0, 1], [1, 0]], g = [1, 0.5].
    assert_close(&values(&product["w"]), &[0.5, 1.0], 1e-6, "Hg");
}

#[test]
fn a_loss_that_draws_random_numbers_or_has_no_curvature_is_an_error() {
    let var = Var::new(&[0.3f64, -1.2, 2.0], &Device::Cpu).unwrap();
    let mut n_calls = 0;
    let noisy = || {
        n_calls += 1;
        quadratic(&var)? * (1.0 + 1e-3 * f64::from(n_calls * n_calls % 7))
    };
    let error = hessian_gradient_product(&named_var("w", &var), noisy).unwrap_err();
    assert!(matches!(error, Error::HessianStep { .. }), "{error}");
    let error = hessian_gradient_product(&named_var("w", &var), || var.sum_all()).unwrap_err().to_string();
    assert!(error.starts_with("norm of the Hessian-gradient product is 0, expected a positive number"), "{error}");
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
fn variables_without_a_gradient_are_an_error_that_names_them() {
    let (used, frozen) = (Var::new(&[1f32], &Device::Cpu).unwrap(), Var::new(&[1f32, 2.0], &Device::Cpu).unwrap());
    let counter = Var::new(&[1u32], &Device::Cpu).unwrap();
    let mut variables = BTreeMap::from([
        ("used".to_owned(), used.clone()),
        ("fc2.weight".to_owned(), frozen.clone()),
        ("steps".to_owned(), counter),
    ]);
    let loss = || (used.sqr().unwrap().sum_all().unwrap() + frozen.detach().sum_all().unwrap()).unwrap();
    let error = gradients(&loss(), &variables).unwrap_err();
    assert!(matches!(error, Error::NoGradient { .. }));
    let expected = "the loss gives no gradient to `fc2.weight`, expected one for every variable: leave frozen ones out";
    assert!(error.to_string().starts_with(expected), "{error}");
    variables.remove("fc2.weight");
    assert_eq!(values(&gradients(&loss(), &variables).unwrap()["used"]), [2.0]);
    // GraSP's product was 0 without a word.
    let double = Var::new(&[1f64], &Device::Cpu).unwrap();
    let detached = || double.detach().sqr()?.sum_all();
    assert!(matches!(hessian_gradient_product(&named_var("w", &double), detached), Err(Error::NoGradient { .. })));
}

#[test]
fn a_variable_with_two_names_has_its_gradient_under_both() {
    let shared = Var::new(&[3f32, -1.0], &Device::Cpu).unwrap();
    let variables = BTreeMap::from([("embed".to_owned(), shared.clone()), ("head".to_owned(), shared.clone())]);
    let gradients = gradients(&shared.sqr().unwrap().sum_all().unwrap(), &variables).unwrap();
    assert_eq!(values(&gradients["embed"]), [6.0, -2.0]);
    assert_eq!(values(&gradients["head"]), [6.0, -2.0]);
}

#[test]
fn gradients_are_squared_batch_by_batch_before_they_are_averaged() {
    // g = +1 and −1 for the first weight, 0.5 and 0.5 for the second.
    let mut statistics = GradientStatistics::new();
    for gradient in [[1.0, 0.5], [-1.0, 0.5]] {
        statistics.observe(&named("w", tensor(&gradient))).unwrap();
    }
    let (weights, squared) = (named("w", tensor(&[1.0, 2.0])), statistics.mean_of_squares().unwrap());
    let inputs = NamedInputs { squared_gradient: Some(&squared), ..NamedInputs::of(&weights) };
    assert_eq!(values(&score_all(&Taylor, &inputs).unwrap()["w"]), [1.0, 1.0]);
    assert_eq!(values(&score_all(&EmpiricalFisher, &inputs).unwrap()["w"]), [0.5, 0.5]);
    assert_eq!(values(&statistics.mean().unwrap()["w"]), [0.0, 0.5]);
}
