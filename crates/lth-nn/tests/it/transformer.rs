//! The layers of transformers against PyTorch (`tests/golden/transformer.py`) and finite differences.

use std::collections::{BTreeMap, HashMap};

use candle_core::{D, DType, Device, Module, Tensor, Var};
use candle_nn::VarBuilder;
use lth_nn::transformer::{
    AttentionConfig, Rotary, attention, causal_mask, layer_norm, multi_head_attention, rms_norm, rope,
    rope_interleaved, softmax, softmax_last_dim,
};

use crate::named::{Result, golden, values};

/// A case of the file.
struct Case {
    inputs: BTreeMap<String, Tensor>,
    output: Tensor,
    cotangent: Tensor,
    gradients: BTreeMap<String, Tensor>,
}

fn tensor(value: &serde_json::Value) -> Tensor {
    let numbers = |key: &str| value[key].as_array().into_iter().flatten();
    let shape: Vec<usize> = numbers("shape").filter_map(|n| Some(n.as_u64()? as usize)).collect();
    let values: Vec<f64> = numbers("values").filter_map(serde_json::Value::as_f64).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("committed file")
}

fn case(name: &str) -> Case {
    let text = std::fs::read_to_string(golden("transformer.json")).expect("committed file");
    let all: serde_json::Value = serde_json::from_str(&text).expect("committed file");
    let case = &all[name];
    let map = |key: &str| {
        let object = case[key].as_object().expect("committed file");
        object.iter().map(|(name, value)| (name.clone(), tensor(value))).collect()
    };
    let (output, cotangent) = (tensor(&case["output"]), tensor(&case["cotangent"]));
    Case { inputs: map("inputs"), output, cotangent, gradients: map("gradients") }
}

/// The largest difference, relative to the larger of 1 and the largest value expected.
fn error(got: &Tensor, expected: &Tensor) -> Result<f64> {
    assert_eq!(got.dims(), expected.dims());
    let (got, expected) = (values(got)?, values(expected)?);
    let scale = expected.iter().fold(1f64, |m, v| m.max(v.abs()));
    Ok(got.iter().zip(&expected).fold(0f64, |m, (a, b)| if a.is_nan() { f64::NAN } else { m.max((a - b).abs()) })
        / scale)
}

type Function<'a> = &'a dyn Fn(&Tensor, VarBuilder<'_>) -> candle_core::Result<Tensor>;

/// Output and the gradients of all inputs; all but `x` reach `function` through a `VarBuilder`.
fn run(case: &Case, dtype: DType, function: Function<'_>) -> Result<(Tensor, BTreeMap<String, Tensor>)> {
    let vars: BTreeMap<&String, Var> = case
        .inputs
        .iter()
        .map(|(name, value)| Ok((name, Var::from_tensor(&value.to_dtype(dtype)?)?)))
        .collect::<Result<_>>()?;
    let tensors: HashMap<String, Tensor> =
        vars.iter().map(|(name, var)| ((*name).clone(), var.as_tensor().clone())).collect();
    let x = tensors["x"].clone();
    let y = function(&x, VarBuilder::from_tensors(tensors, dtype, &Device::Cpu))?;
    assert_eq!(y.dtype(), dtype);
    let gradients = (&y * case.cotangent.to_dtype(dtype)?)?.sum_all()?.backward()?;
    let of = |(name, var): (&&String, &Var)| {
        ((*name).clone(), gradients.get(var).unwrap_or_else(|| panic!("`{name}` has no gradient")).clone())
    };
    Ok((y, vars.iter().map(of).collect()))
}

/// Output and gradients are PyTorch's in f64 and f32; the half types are the f64 result to within their own rounding.
fn check(name: &str, function: Function<'_>) -> Result<()> {
    let case = case(name);
    // f16 has 11 bits and bf16 8; inputs, output and cotangent are each rounded, and a gradient adds up several.
    for (dtype, tolerance) in [(DType::F64, 1e-7), (DType::F32, 2e-6), (DType::F16, 4e-3), (DType::BF16, 4e-2)] {
        let half = matches!(dtype, DType::F16 | DType::BF16);
        let rounded = |t: &Tensor| -> Result<Tensor> { Ok(t.to_dtype(dtype)?.to_dtype(DType::F64)?) };
        let (output, gradients) = if half {
            // What PyTorch was given is not what a half type can hold.
            let inputs = case.inputs.iter().map(|(name, t)| Ok((name.clone(), rounded(t)?))).collect::<Result<_>>()?;
            let cotangent = rounded(&case.cotangent)?;
            let exact = Case { inputs, output: case.output.clone(), cotangent, gradients: BTreeMap::new() };
            run(&exact, DType::F64, function)?
        } else {
            (case.output.clone(), case.gradients.clone())
        };
        let (y, got) = run(&case, dtype, function)?;
        let off = error(&y, &output)?;
        assert!(off < tolerance, "{name} in {dtype:?}: the output is off by {off}");
        assert_eq!(got.len(), gradients.len());
        for (input, expected) in &gradients {
            let off = error(&got[input], expected)?;
            assert!(off < tolerance, "{name} in {dtype:?}: the gradient of {input} is off by {off}");
        }
    }
    Ok(())
}

#[test]
fn norms_and_their_gradients_are_pytorchs() -> Result<()> {
    check("layer_norm", &|x, builder| layer_norm(6, 1e-5, builder)?.forward(x))?;
    check("layer_norm_no_bias", &|x, builder| {
        lth_nn::transformer::LayerNorm::new_no_bias(builder.get(6, "weight")?, 1e-3).forward(x)
    })?;
    check("rms_norm", &|x, builder| rms_norm(6, 1e-6, builder)?.forward(x))
}

#[test]
fn softmax_and_its_gradient_are_pytorchs() -> Result<()> {
    check("softmax_last", &|x, _| softmax_last_dim(x))?;
    check("softmax_middle", &|x, _| softmax(x, 1))
}

#[test]
fn rotary_embedding_and_its_gradient_are_pytorchs() -> Result<()> {
    check("rope", &|x, _| Rotary::new(6, 9, 10_000.0, &Device::Cpu)?.turn(x, 0))?;
    check("rope_interleaved", &|x, _| {
        let angle = |at: usize| (at / 3) as f64 * 10_000f64.powf(-2.0 * (at % 3) as f64 / 6.0);
        let angles = Tensor::from_vec((0..15).map(angle).collect(), (5, 3), &Device::Cpu)?;
        rope_interleaved(x, &angles.cos()?, &angles.sin()?)
    })
}

#[test]
fn attention_and_its_gradients_are_pytorchs() -> Result<()> {
    let config = AttentionConfig::new(2);
    check("attention", &|x, builder| multi_head_attention(8, &config, builder)?.forward(x, None))?;
    check("attention_masked", &|x, builder| {
        // The second sample's last position is padding.
        let padding = Tensor::new(&[[1u8, 1, 1, 1], [1, 1, 1, 0]], &Device::Cpu)?.reshape((2, 1, 1, 4))?;
        let own = Tensor::new(&[0u8, 0, 0, 1], &Device::Cpu)?.reshape((1, 1, 4, 1))?;
        let mask = causal_mask(4, &Device::Cpu)?.broadcast_mul(&padding.broadcast_add(&own)?.ne(0u8)?)?;
        multi_head_attention(8, &config, builder)?.forward(x, Some(&mask))
    })?;
    let rotary = Some(Rotary::new(4, 4, 10_000.0, &Device::Cpu)?);
    let config = AttentionConfig { rotary, ..AttentionConfig::new(2) };
    check("attention_rotary", &|x, builder| {
        multi_head_attention(8, &config, builder)?.forward(x, Some(&causal_mask(4, &Device::Cpu)?))
    })
}

#[test]
fn gradients_are_the_differences() -> Result<()> {
    // Attention of two heads after both norms, through everything, with respect to its input.
    let (norm, block) = (case("layer_norm"), case("attention"));
    let tensors: HashMap<String, Tensor> = block.inputs.clone().into_iter().collect();
    let attention = multi_head_attention(
        8,
        &AttentionConfig { rotary: Some(Rotary::new(4, 4, 100.0, &Device::Cpu)?), ..AttentionConfig::new(2) },
        VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu),
    )?;
    let weight = Tensor::cat(&[&norm.inputs["weight"], &norm.inputs["bias"].narrow(0, 0, 2)?], 0)?;
    let loss = |x: &Tensor| -> Result<Tensor> {
        let x = lth_nn::transformer::LayerNorm::new(weight.clone(), weight.clone(), 1e-5).forward(x)?;
        let x = lth_nn::transformer::RmsNorm::new(weight.clone(), 1e-6).forward(&x)?;
        Ok((attention.forward(&x, None)? * &block.cotangent)?.sum_all()?)
    };
    let x = Var::from_tensor(&block.inputs["x"])?;
    let gradients = loss(&x)?.backward()?;
    let got = values(gradients.get(&x).expect("tracked"))?;
    let base = values(&x)?;
    for i in 0..base.len() {
        let at = |delta: f64| -> Result<f64> {
            let mut moved = base.clone();
            moved[i] += delta;
            Ok(loss(&Tensor::from_vec(moved, x.dims(), &Device::Cpu)?)?.to_scalar::<f64>()?)
        };
        let expected = (at(1e-5)? - at(-1e-5)?) / 2e-5;
        assert!((got[i] - expected).abs() < 1e-6 * expected.abs().max(1.0), "{i}: {} and {expected}", got[i]);
    }
    Ok(())
}

#[test]
fn candles_own_values_come_out() -> Result<()> {
    let x = case("rope").inputs["x"].to_dtype(DType::F32)?;
    let scale = case("layer_norm").inputs["weight"].to_dtype(DType::F32)?;
    let (cos, sin) = (x.narrow(0, 0, 1)?.narrow(1, 0, 1)?.squeeze(0)?.squeeze(0)?.narrow(1, 0, 3)?, x.narrow(0, 1, 1)?);
    let sin = sin.narrow(1, 0, 1)?.squeeze(0)?.squeeze(0)?.narrow(1, 0, 3)?;
    let (cos, sin) = (cos.contiguous()?, sin.contiguous()?);
    for (ours, candles) in [
        (softmax_last_dim(&x)?, candle_nn::ops::softmax_last_dim(&x)?),
        (rope(&x, &cos, &sin)?, candle_nn::rotary_emb::rope(&x, &cos, &sin)?),
        (rope_interleaved(&x, &cos, &sin)?, candle_nn::rotary_emb::rope_i(&x, &cos, &sin)?),
        (
            lth_nn::transformer::LayerNorm::new(scale.clone(), scale.clone(), 1e-5).forward(&x)?,
            candle_nn::LayerNorm::new(scale.clone(), scale.clone(), 1e-5).forward(&x)?,
        ),
        (
            lth_nn::transformer::RmsNorm::new(scale.clone(), 1e-6).forward(&x)?,
            candle_nn::RmsNorm::new(scale.clone(), 1e-6).forward(&x)?,
        ),
    ] {
        let off = error(&ours, &candles)?;
        assert!(off < 1e-6, "{off}");
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused_by_name() -> Result<()> {
    let x = Tensor::ones((1, 3, 5), DType::F32, &Device::Cpu)?;
    let message = |result: candle_core::Result<Tensor>| result.expect_err("refused").to_string();
    let odd = message(rope(&x, &x, &x));
    assert!(odd.contains("last axis to turn is 5 values"), "{odd}");
    let odd = message(Rotary::new(5, 2, 1e4, &Device::Cpu).and_then(|rotary| rotary.turn(&x, 0)));
    assert!(odd.contains("is 5, expected even"), "{odd}");
    let long = message(Rotary::new(4, 2, 1e4, &Device::Cpu).and_then(|rotary| rotary.turn(&x.narrow(2, 0, 4)?, 0)));
    assert!(long.contains("3 from 0 on, of a table of 2"), "{long}");
    let mask = message(attention(&x, &x, &x, Some(&x)));
    assert!(mask.contains("F32") && mask.contains("U8"), "{mask}");
    let builder = VarBuilder::zeros(DType::F32, &Device::Cpu);
    let heads = multi_head_attention(8, &AttentionConfig::new(3), builder).map(|_| x.clone());
    assert!(message(heads).contains("3 for 8 values"));
    assert!(softmax(&x, 3).is_err() && softmax(&x, D::Minus(4)).is_err());
    Ok(())
}
