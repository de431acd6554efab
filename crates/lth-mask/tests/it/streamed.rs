//! Scores that come one tensor at a time.

use std::collections::BTreeMap;
use std::sync::Mutex;

use candle_core::{Device, Tensor};
use lth_mask::{
    Error, Granularity, Mask, MaskSet, Result, Scope, Selection, Streamed, ThresholdRule, select, select_streamed,
    select_within,
};

use crate::every_selection::streamed;

/// Whole numbers with many ties.
fn scores(layers: &[(&str, &[usize])]) -> Result<BTreeMap<String, Tensor>> {
    let tensor = |seed: usize, shape: &[usize]| {
        let n: usize = shape.iter().product();
        Tensor::from_iter((0..n).map(|i| ((i * 7919 + seed * 31) % 23) as f32), &Device::Cpu)?.reshape(shape)
    };
    layers.iter().enumerate().map(|(seed, (name, shape))| Ok(((*name).to_owned(), tensor(seed, shape)?))).collect()
}

fn network() -> Result<BTreeMap<String, Tensor>> {
    scores(&[("a.weight", &[8, 4, 3, 3]), ("b.weight", &[8, 8, 3, 3]), ("c.weight", &[6, 8])])
}

#[test]
fn ties_patterns_and_outputs_are_as_from_memory() -> Result<()> {
    let scores = network()?;
    let every = |n: usize| -> Result<MaskSet> {
        scores.iter().map(|(name, t)| Ok((name.clone(), Mask::from_fn(t.dims(), |i| i % n != 0)?))).collect()
    };
    let ties = vec![vec!["a.weight".to_owned(), "b.weight".to_owned()]];
    let filters = BTreeMap::from([("c.*".to_owned(), Granularity::Row)]);
    let base = Selection::default();
    for selection in [
        Selection { granularity: Granularity::Filter, granularities: filters, tied: ties, ..base.clone() },
        Selection { granularity: Granularity::NM { n: 1, m: 4 }, ..base.clone() },
        Selection { scope: Scope::PerOutput, ..base.clone() },
        Selection { scope: Scope::PerOutput, rule: ThresholdRule::Quantile, ..base.clone() },
        Selection { scope: Scope::Global, keep_dense: vec!["b.*".to_owned()], ..base },
    ] {
        for scope in [selection.scope.clone(), Scope::Global, Scope::ErdosRenyi] {
            if matches!(selection.granularity, Granularity::NM { .. }) && scope != selection.scope {
                continue;
            }
            let selection = Selection { scope, ..selection.clone() };
            assert_eq!(streamed(&scores, 0.5, &selection, None)?, select(&scores, 0.5, &selection)?, "{selection:?}");
            let previous = every(5)?;
            let mut within = select_within(&scores, 0.5, &selection, &previous)?;
            // What is kept dense is not asked for.
            selection.keep_dense.iter().for_each(|_| drop(within.remove("b.weight")));
            assert_eq!(streamed(&scores, 0.5, &selection, Some(&previous))?, within, "{selection:?}");
        }
    }
    Ok(())
}

#[test]
fn each_tensor_is_asked_for_as_often_as_is_said() -> Result<()> {
    let scores = network()?;
    let shapes = scores.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
    for (scope, expected) in [
        (Scope::Local, 1),
        (Scope::PerOutput, 1),
        (Scope::ErdosRenyi, 2),
        (Scope::ErdosRenyiKernel, 2),
        (Scope::Global, 6),
        (Scope::Lamp, 6),
    ] {
        let asked = Mutex::new(Vec::new());
        let load = |name: &str| {
            asked.lock().expect("it is not poisoned").push(name.to_owned());
            Ok::<_, Error>(Streamed { scores: scores[name].clone(), previous: None })
        };
        select_streamed(&shapes, load, 0.5, &Selection { scope: scope.clone(), ..Selection::default() })?;
        let asked = asked.into_inner().expect("it is not poisoned");
        let names: Vec<&String> = shapes.keys().collect();
        let rounds: Vec<Vec<&String>> = asked.chunks(names.len()).map(|round| round.iter().collect()).collect();
        assert_eq!(rounds, vec![names; expected], "{scope:?}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_had_is_named() -> Result<()> {
    let scores = network()?;
    let shapes: BTreeMap<_, _> = scores.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
    let text = |load: &(dyn Fn(&str) -> std::io::Result<Streamed> + Sync)| {
        select_streamed(&shapes, load, 0.5, &Selection::default()).expect_err("it does not fit").to_string()
    };
    let of = |tensor: &Tensor| Streamed { scores: tensor.clone(), previous: None };
    let failed = text(&|name| match name {
        "b.weight" => Err(std::io::Error::other("the disk is gone")),
        _ => Ok(of(&scores[name])),
    });
    assert_eq!(failed, "`b.weight`: its scores cannot be had: the disk is gone");
    let shape = text(&|_| Ok(of(&scores["c.weight"])));
    assert_eq!(shape, "`a.weight`: scores have shape [6, 8], expected [8, 4, 3, 3]");
    let mask = Mask::all_kept([2])?;
    let mask = text(&|name| Ok(Streamed { previous: Some(mask.clone()), ..of(&scores[name]) }));
    assert_eq!(mask, "`a.weight`: mask has shape [2], expected [8, 4, 3, 3]");
    let odd = text(&|name| Ok(of(&scores[name].log().map_err(std::io::Error::other)?)));
    assert!(odd.starts_with("`a.weight`: score at flat index 0 is -inf"), "{odd}");
    let large = BTreeMap::from([("a".to_owned(), vec![usize::MAX, 2])]);
    let large = select_streamed(&large, |_| Err::<Streamed, _>("none"), 0.5, &Selection::default());
    assert!(large.expect_err("it is too large").to_string().contains("too many elements"));
    Ok(())
}

#[test]
fn scores_that_change_between_two_looks_are_refused_or_give_some_mask() -> Result<()> {
    let shapes = BTreeMap::from([("a".to_owned(), vec![200]), ("b".to_owned(), vec![100])]);
    let selection = Selection { scope: Scope::Global, ..Selection::default() };
    let mut refused = 0;
    // Other scores from the n-th look on.
    for from in 0..14 {
        for after in [0.0, 1e9] {
            let looks = Mutex::new(0);
            let load = |name: &str| {
                let mut looks = looks.lock().expect("it is not poisoned");
                *looks += 1;
                let value = if *looks > from { after } else { 3.0 };
                let scores = Tensor::full(value as f32, shapes[name].as_slice(), &Device::Cpu)?;
                Ok::<_, Error>(Streamed { scores, previous: None })
            };
            match select_streamed(&shapes, load, 0.5, &selection) {
                Ok(masks) => assert_eq!(masks.weights(), 300),
                Err(error) => {
                    assert!(matches!(error, Error::Changed), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0);
    Ok(())
}
