//! A compacted network computes what the masked one does.

use std::collections::BTreeMap;

use candle_core::{D, Device, Tensor};
use lth_mask::{
    Axis, Channels, CompactionPlan, Connections, Error, Granularity, Mask, MaskSet, Result, Selection, select,
};

type Weights = BTreeMap<String, Tensor>;

/// Values in (−1, 1) that depend on the name alone.
fn noise(name: &str, shape: &[usize]) -> Result<Tensor> {
    let seed = name.bytes().fold(7u64, |h, b| h.wrapping_mul(131).wrapping_add(b.into()));
    let value = |i: u64| {
        let mut z = (seed + i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(value).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

fn weights(layers: &[(&str, &[usize])], norms: &[(&str, usize)]) -> Result<Weights> {
    let mut weights = Weights::new();
    for (name, shape) in layers {
        let scale = (2.0 / shape[1..].iter().product::<usize>().max(1) as f64).sqrt();
        weights.insert(name.to_string(), (noise(name, shape)? * scale)?);
    }
    for &(prefix, n) in norms {
        for part in ["weight", "bias", "running_mean", "running_var"] {
            let name = format!("{prefix}.{part}");
            let value = noise(&name, &[n])?;
            let value = if part == "running_var" { (value.abs()? + 0.5)? } else { value };
            weights.insert(name, value);
        }
    }
    Ok(weights)
}

fn conv(w: &Weights, name: &str, x: &Tensor, stride: usize, groups: usize) -> Result<Tensor> {
    let weight = &w[name];
    Ok(x.conv2d(weight, weight.dims()[3] / 2, stride, 1, groups)?)
}

fn batch_norm(w: &Weights, prefix: &str, x: &Tensor) -> Result<Tensor> {
    let part = |part: &str| -> Result<Tensor> {
        let value = &w[&format!("{prefix}.{part}")];
        Ok(if x.rank() == 4 { value.reshape((1, (), 1, 1))? } else { value.clone() })
    };
    let x = x.broadcast_sub(&part("running_mean")?)?;
    let x = x.broadcast_div(&(part("running_var")? + 1e-5)?.sqrt()?)?;
    Ok(x.broadcast_mul(&part("weight")?)?.broadcast_add(&part("bias")?)?)
}

fn linear(w: &Weights, prefix: &str, x: &Tensor) -> Result<Tensor> {
    let y = x.matmul(&w[&format!("{prefix}.weight")].t()?)?;
    Ok(match w.get(&format!("{prefix}.bias")) {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

/// Two residual blocks, the second with stride and downsample, and fastai's head: concatenated pooling, a norm, a linear.
mod residual {
    use super::*;

    pub(super) fn weights() -> Result<Weights> {
        super::weights(
            &[
                ("conv1.weight", &[8, 3, 3, 3]),
                ("layer1.0.conv1.weight", &[8, 8, 3, 3]),
                ("layer1.0.conv2.weight", &[8, 8, 3, 3]),
                ("layer2.0.conv1.weight", &[12, 8, 3, 3]),
                ("layer2.0.conv2.weight", &[12, 12, 3, 3]),
                ("layer2.0.downsample.0.weight", &[12, 8, 1, 1]),
                ("fc.weight", &[5, 24]),
            ],
            &[
                ("bn1", 8),
                ("layer1.0.bn1", 8),
                ("layer1.0.bn2", 8),
                ("layer2.0.bn1", 12),
                ("layer2.0.bn2", 12),
                ("layer2.0.downsample.1", 12),
                ("head", 24),
            ],
        )
    }

    pub(super) fn connections() -> Connections {
        let stream1 = Channels::new("layer1").producer("conv1.weight").batch_norm("bn1");
        let stream1 = stream1.producer("layer1.0.conv2.weight").batch_norm("layer1.0.bn2");
        let stream1 = stream1.consumer("layer1.0.conv1.weight").consumer("layer2.0.conv1.weight");
        let pooled = Axis::new("fc.weight", 1).repeated(2);
        let stream2 = Channels::new("layer2").producer("layer2.0.conv2.weight").batch_norm("layer2.0.bn2");
        let stream2 = stream2.producer("layer2.0.downsample.0.weight").batch_norm("layer2.0.downsample.1");
        let inner = |block: &str| {
            Channels::new(block)
                .producer(&format!("{block}.conv1.weight"))
                .batch_norm(&format!("{block}.bn1"))
                .consumer(&format!("{block}.conv2.weight"))
        };
        Connections::new([
            stream1.consumer("layer2.0.downsample.0.weight"),
            stream2.batch_norm_at("head", &pooled).consumer_at(pooled),
            inner("layer1.0"),
            inner("layer2.0"),
        ])
    }

    pub(super) fn forward(w: &Weights, x: &Tensor) -> Result<Tensor> {
        let x = batch_norm(w, "bn1", &conv(w, "conv1.weight", x, 1, 1)?)?.relu()?;
        let y = batch_norm(w, "layer1.0.bn1", &conv(w, "layer1.0.conv1.weight", &x, 1, 1)?)?.relu()?;
        let y = batch_norm(w, "layer1.0.bn2", &conv(w, "layer1.0.conv2.weight", &y, 1, 1)?)?;
        let x = (x + y)?.relu()?;
        let y = batch_norm(w, "layer2.0.bn1", &conv(w, "layer2.0.conv1.weight", &x, 2, 1)?)?.relu()?;
        let y = batch_norm(w, "layer2.0.bn2", &conv(w, "layer2.0.conv2.weight", &y, 1, 1)?)?;
        let x = batch_norm(w, "layer2.0.downsample.1", &conv(w, "layer2.0.downsample.0.weight", &x, 2, 1)?)?;
        let x = (x + y)?.relu()?.flatten_from(2)?;
        let x = Tensor::cat(&[x.max(D::Minus1)?, x.mean(D::Minus1)?], 1)?;
        linear(w, "fc", &batch_norm(w, "head", &x)?)
    }
}

/// Two convolutions (the second depthwise), flattened into two linear layers with biases.
mod plain {
    use super::*;

    pub(super) fn weights() -> Result<Weights> {
        super::weights(
            &[
                ("conv1.weight", &[6, 3, 3, 3]),
                ("conv2.weight", &[6, 1, 3, 3]),
                ("fc1.weight", &[10, 6 * 16]),
                ("fc1.bias", &[10]),
                ("fc2.weight", &[4, 10]),
                ("fc2.bias", &[4]),
            ],
            &[("bn1", 6)],
        )
    }

    pub(super) fn connections() -> Connections {
        let features = Channels::new("features").producer("conv1.weight").batch_norm("bn1").depthwise("conv2.weight");
        let hidden = Channels::new("hidden").producer("fc1.weight").bias("fc1.bias").consumer("fc2.weight");
        Connections::new([features.consumer_at(Axis::new("fc1.weight", 1).spanning(16)), hidden])
    }

    pub(super) fn forward(w: &Weights, x: &Tensor) -> Result<Tensor> {
        let x = batch_norm(w, "bn1", &conv(w, "conv1.weight", x, 2, 1)?)?.relu()?;
        let x = conv(w, "conv2.weight", &x, 1, w["conv2.weight"].dims()[0])?.relu()?;
        linear(w, "fc2", &linear(w, "fc1", &x.flatten_from(1)?)?.relu()?)
    }
}

fn masks(w: &Weights, pattern: &str, sparsity: f64, selection: &Selection) -> Result<MaskSet> {
    let chosen = w.iter().filter(|(name, w)| w.rank() > 1 && lth_mask::matches(pattern, name));
    let scores: BTreeMap<_, _> = chosen.map(|(name, w)| Ok((name.clone(), w.abs()?))).collect::<Result<_>>()?;
    select(&scores, sparsity, selection)
}

/// Masks a network as the plan says, compacts it, and compares what both compute.
fn check(
    connections: &Connections,
    masks: &MaskSet,
    mut w: Weights,
    forward: impl Fn(&Weights, &Tensor) -> Result<Tensor>,
) -> Result<CompactionPlan> {
    let plan = CompactionPlan::new(connections, masks, &w)?;
    plan.masks().apply(&mut w)?;
    let small = plan.apply(&w)?;
    for (name, tensor) in &small {
        assert_eq!(tensor.dims(), plan.shapes()[name], "{name}");
    }
    let x = noise("input", &[2, 3, 8, 8])?;
    let (masked, compact) = (forward(&w, &x)?, forward(&small, &x)?);
    let difference = (&masked - compact)?.abs()?.max_all()?.to_scalar::<f32>()?;
    let largest = masked.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(difference <= 1e-5 * largest.max(1.0), "differs by {difference} of {largest}");
    assert_eq!(plan.apply_to_masks(plan.masks())?.stats().layers.len(), plan.masks().len());
    Ok(plan)
}

fn filters() -> Selection {
    Selection { granularity: Granularity::Filter, ..Selection::default() }
}

#[test]
fn a_residual_network_computes_the_same() -> Result<()> {
    let (w, connections) = (residual::weights()?, residual::connections());
    let all = masks(&w, "*conv*", 0.5, &filters())?;
    let plan = check(&connections, &all, w.clone(), residual::forward)?;
    assert_eq!(plan.kept("layer2.0").map(<[usize]>::len), Some(6));
    // What either writer of the stream keeps is kept.
    let writes = |name: &str, c: usize| all.get(name).and_then(|m| m.get(c * m.len() / 8)) == Some(true);
    let union: Vec<usize> =
        (0..8).filter(|&c| writes("conv1.weight", c) || writes("layer1.0.conv2.weight", c)).collect();
    assert_eq!(plan.kept("layer1"), Some(&union[..]));
    Ok(())
}

#[test]
fn tied_writers_make_a_residual_stream_smaller() -> Result<()> {
    let (w, connections) = (residual::weights()?, residual::connections());
    let tied = vec![
        vec!["conv1.weight".to_owned(), "layer1.0.conv2.weight".to_owned()],
        vec!["layer2.0.conv2.weight".to_owned(), "layer2.0.downsample.0.weight".to_owned()],
    ];
    let selection = Selection { tied, keep_dense: vec!["fc.weight".to_owned()], ..filters() };
    let plan = check(&connections, &masks(&w, "*", 0.5, &selection)?, w, residual::forward)?;
    let kept = |name| plan.kept(name).map(<[usize]>::len);
    assert_eq!(
        [kept("layer1"), kept("layer2"), kept("layer1.0"), kept("layer2.0")],
        [Some(4), Some(6), Some(4), Some(6)]
    );
    assert_eq!(plan.shapes()["fc.weight"], [5, 12]);
    Ok(())
}

#[test]
fn a_flattened_and_depthwise_network_computes_the_same() -> Result<()> {
    let (w, connections) = (plain::weights()?, plain::connections());
    let plan = check(&connections, &masks(&w, "conv1*", 0.5, &filters())?, w.clone(), plain::forward)?;
    assert_eq!(plan.shapes()["fc1.weight"], [10, 48]);
    assert_eq!(plan.shapes()["conv2.weight"], [3, 1, 3, 3]);
    let depthwise = check(&connections, &masks(&w, "conv2*", 0.3, &filters())?, w.clone(), plain::forward)?;
    assert_eq!(depthwise.kept("features").map(<[usize]>::len), Some(4));
    let rows = Selection { granularity: Granularity::Row, ..Selection::default() };
    let hidden = check(&connections, &masks(&w, "fc1*", 0.4, &rows)?, w, plain::forward)?;
    assert_eq!(hidden.shapes()["fc2.weight"], [4, 6]);
    Ok(())
}

#[test]
fn what_nothing_reads_is_cut_and_not_zeroed() -> Result<()> {
    let (w, connections) = (residual::weights()?, residual::connections());
    let inputs = Selection { granularity: Granularity::SharedKernel, ..Selection::default() };
    let masks = masks(&w, "*.conv2.weight", 0.5, &inputs)?;
    let plan = check(&connections, &masks, w, residual::forward)?;
    assert_eq!(plan.kept("layer1.0").map(<[usize]>::len), Some(4));
    assert_eq!(plan.masks(), &masks);
    Ok(())
}

#[test]
fn what_goes_takes_with_it_what_hung_on_it() -> Result<()> {
    let (w, connections) = (plain::weights()?, plain::connections());
    // Hidden unit 0 reads only channel 1, which is pruned: it is silent too.
    let conv1 = Mask::from_fn([6, 3, 3, 3], |i| i / 27 != 1)?;
    let fc1 = Mask::from_fn([10, 96], |i| i / 96 != 0 || i % 96 / 16 == 1)?;
    let masks: MaskSet = [("conv1.weight".to_owned(), conv1), ("fc1.weight".to_owned(), fc1)].into_iter().collect();
    let plan = check(&connections, &masks, w, plain::forward)?;
    assert_eq!(plan.kept("features"), Some(&[0, 2, 3, 4, 5][..]));
    assert_eq!(plan.kept("hidden"), Some(&[1, 2, 3, 4, 5, 6, 7, 8, 9][..]));
    Ok(())
}

#[test]
fn one_channel_is_always_kept() -> Result<()> {
    let (w, connections) = (plain::weights()?, plain::connections());
    let masks: MaskSet = [("conv1.weight".to_owned(), Mask::all_pruned([6, 3, 3, 3])?)].into_iter().collect();
    let plan = check(&connections, &masks, w, plain::forward)?;
    assert_eq!((plan.kept("features"), plan.kept("hidden")), (Some(&[0][..]), Some(&[0][..])));
    Ok(())
}

#[test]
fn a_network_that_is_not_masked_is_refused() -> Result<()> {
    let (mut w, connections) = (plain::weights()?, plain::connections());
    let masks = masks(&w, "conv1*", 0.5, &filters())?;
    let plan = CompactionPlan::new(&connections, &masks, &w)?;
    masks.apply(&mut w)?;
    let error = plan.apply(&w).expect_err("the norm is not masked");
    assert!(error.to_string().starts_with("`bn1.bias`: weight at flat index"), "{error}");
    Ok(())
}

#[test]
fn descriptions_that_do_not_fit_are_errors() -> Result<()> {
    let w = plain::weights()?;
    let message = |channels: Channels| {
        let plan = CompactionPlan::new(&Connections::new([channels]), &MaskSet::new(), &w);
        plan.err().map(|e| e.to_string()).unwrap_or_default()
    };
    let features = || Channels::new("features").producer("conv1.weight");
    assert!(message(features().consumer("conv9.weight")).starts_with("`conv9.weight`: no tensor"));
    assert!(message(features().consumer("fc1.weight")).contains("place 6 on axis 1 belongs to no channel"));
    assert!(message(features().consumer("conv2.weight")).contains("axis 1 has 1 places, too few"));
    assert!(message(features().producer("conv1.weight")).contains("belongs to two channels"));
    assert!(message(features().consumer("fc1.bias")).contains("along an axis that it does not have"));
    assert!(message(features().producer("fc1.bias")).contains("less than two dimensions"));
    assert!(message(features().consumer_at(Axis::new("fc1.weight", 1).spanning(usize::MAX))).contains("too few"));
    assert!(message(features().consumer_at(Axis::new("fc1.weight", 1).spanning(0))).contains("no place"));
    assert!(message(Channels::new("nothing")).contains("lie in no tensor"));
    let twice = Connections::new([features(), features()]);
    assert!(matches!(CompactionPlan::new(&twice, &MaskSet::new(), &w), Err(Error::Named { .. })));
    let masks: MaskSet = [("conv1.weight".to_owned(), Mask::all_kept([1])?)].into_iter().collect();
    let plan = CompactionPlan::new(&Connections::new([features()]), &masks, &w);
    assert!(plan.is_err_and(|e| e.to_string().contains("mask has shape [1]")));
    Ok(())
}

#[test]
fn a_description_is_data() -> Result<()> {
    let connections = residual::connections();
    let text = serde_json::to_string(&connections).map_err(|e| Error::Selection(e.to_string()))?;
    let read: Connections = serde_json::from_str(&text).map_err(|e| Error::Selection(e.to_string()))?;
    assert_eq!(read, connections);
    Ok(())
}
