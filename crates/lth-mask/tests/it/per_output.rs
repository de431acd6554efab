//! What the scope per output promises.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use lth_mask::{Error, Granularity, Mask, MaskSet, Result, Scope, Selection, ThresholdRule, select, select_within};
use proptest::prelude::*;

fn per_output() -> Selection {
    Selection { scope: Scope::PerOutput, ..Selection::default() }
}

fn one(name: &str, tensor: Tensor) -> BTreeMap<String, Tensor> {
    BTreeMap::from([(name.to_owned(), tensor)])
}

fn bits(masks: &MaskSet) -> Vec<bool> {
    masks.get("w").into_iter().flat_map(|mask: &Mask| mask.iter().collect::<Vec<_>>()).collect()
}

/// Distinct scores in no order.
fn scores(shape: &[usize], seed: u64) -> Result<Tensor> {
    let value = |i: u64| (((seed << 32) + i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 + 1.0;
    let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(value).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

#[test]
fn every_row_keeps_its_own_best_as_wanda_is_published() -> Result<()> {
    let scores = Tensor::new(&[[9f32, 8.0], [1.0, 2.0]], &Device::Cpu)?;
    assert_eq!(bits(&select(&one("w", scores), 0.5, &per_output())?), [true, false, false, true]);
    Ok(())
}

#[test]
fn a_filter_of_a_transposed_convolution_is_its_second_dimension() -> Result<()> {
    // [I, O, 1, 1] = [3, 2, 1, 1]: output 0 has 1, 5, 3 and output 1 has 60, 20, 40.
    let scores = Tensor::new(&[[1f32, 60.0], [5.0, 20.0], [3.0, 40.0]], &Device::Cpu)?.reshape((3, 2, 1, 1))?;
    let selection = Selection { transposed: vec!["w".to_owned()], ..per_output() };
    let masks = select(&one("w", scores), 1.0 / 3.0, &selection)?;
    assert_eq!(bits(&masks), [false, true, true, false, true, true]);
    Ok(())
}

#[test]
fn outputs_are_found_in_every_layout() -> Result<()> {
    // The same two outputs of three inputs: 1, 5, 3 and 60, 20, 40; as [I, O], and twice as experts.
    let by_input = [[1f32, 60.0], [5.0, 20.0], [3.0, 40.0]];
    let by_output = [[1f32, 5.0, 3.0], [60.0, 20.0, 40.0]];
    let (transposed, experts) = (vec!["w".to_owned()], vec!["w".to_owned()]);
    let kept =
        |tensor: Tensor, selection: Selection| Ok::<_, Error>(bits(&select(&one("w", tensor), 1.0 / 3.0, &selection)?));
    let (across, along) = ([false, true, true, false, true, true], [false, true, true, true, false, true]);
    let linear = Selection { transposed: transposed.clone(), ..per_output() };
    assert_eq!(kept(Tensor::new(&by_input, &Device::Cpu)?, linear)?, across);
    let fused = Selection { experts: experts.clone(), ..per_output() };
    assert_eq!(kept(Tensor::new(&[by_output, by_output], &Device::Cpu)?, fused)?, [along, along].concat());
    let fused = Selection { experts, transposed, ..per_output() };
    assert_eq!(kept(Tensor::new(&[by_input, by_input], &Device::Cpu)?, fused)?, [across, across].concat());
    Ok(())
}

#[test]
fn a_group_that_is_no_part_of_an_output_is_refused() -> Result<()> {
    let conv = one("w", scores(&[4, 3, 3, 3], 1)?);
    for granularity in [Granularity::Filter, Granularity::SharedKernel, Granularity::Layer, Granularity::SharedWeight] {
        let error = select(&conv, 0.5, &Selection { granularity, ..per_output() }).err().map(|e| e.to_string());
        let error = error.unwrap_or_default();
        assert!(error.starts_with("`w`: granularity ") && error.contains("a part of one output"), "{error}");
    }
    let linear = one("w", scores(&[4, 6], 1)?);
    for granularity in [Granularity::Row, Granularity::Column, Granularity::ColumnBlock { columns: 2 }] {
        assert!(
            select(&linear, 0.5, &Selection { granularity: granularity.clone(), ..per_output() }).is_err(),
            "{granularity}"
        );
    }
    let bias = select(&one("w", scores(&[4], 1)?), 0.5, &per_output());
    assert!(matches!(bias, Err(Error::Named { .. })));
    let tied = Selection { tied: vec![vec!["w".to_owned()]], ..per_output() };
    assert!(matches!(select(&linear, 0.5, &tied), Err(Error::Selection(_))));
    let pattern = Selection { granularity: Granularity::NM { n: 2, m: 4 }, ..per_output() };
    assert!(matches!(select(&linear, 0.5, &pattern), Err(Error::Selection(_))));
    let named = BTreeMap::from([("w".to_owned(), Granularity::NM { n: 2, m: 4 })]);
    let pattern = Selection { granularities: named, ..per_output() };
    assert!(matches!(select(&linear, 0.5, &pattern), Err(Error::Selection(_))));
    Ok(())
}

#[test]
fn an_empty_weight_has_an_empty_mask() -> Result<()> {
    let masks = select(&one("w", scores(&[0, 3], 1)?), 0.5, &per_output())?;
    assert!(bits(&masks).is_empty() && masks.get("w").is_some());
    Ok(())
}

proptest! {
    #[test]
    fn each_output_is_what_local_selection_makes_of_it_alone(
        (outputs, inputs, side) in (1usize..6, 1usize..7, 1usize..4),
        sparsity in 0.0..=1.0f64,
        seed in 0u64..1000,
        kernels: bool,
        rule in prop_oneof![
            Just(ThresholdRule::ExactCount), Just(ThresholdRule::Quantile), Just(ThresholdRule::KthValue)
        ],
        round_to in 1usize..4,
        minimum_kept in 0usize..3,
        before in proptest::option::of(0.0..0.7f64),
    ) {
        let granularity = if kernels && inputs > 1 && side > 1 { Granularity::Kernel } else { Granularity::Weight };
        let selection = Selection { granularity, rule, round_to, minimum_kept, ..per_output() };
        let alone = Selection { scope: Scope::Local, ..selection.clone() };
        let all = scores(&[outputs, inputs, side, side], seed).unwrap();
        let previous = before.map(|before| select(&one("w", scores(all.dims(), seed + 1).unwrap()), before, &per_output()).unwrap());
        let masks = match &previous {
            Some(previous) => select_within(&one("w", all.clone()), sparsity, &selection, previous).unwrap(),
            None => select(&one("w", all.clone()), sparsity, &selection).unwrap(),
        };
        let mut expected = Vec::new();
        for output in 0..outputs {
            let row = one("w", all.narrow(0, output, 1).unwrap());
            let mask = match &previous {
                Some(previous) => {
                    let before = previous.to_tensors(&Device::Cpu).unwrap()["w"].narrow(0, output, 1).unwrap();
                    select_within(&row, sparsity, &alone, &MaskSet::from_tensors(&one("w", before)).unwrap()).unwrap()
                }
                None => select(&row, sparsity, &alone).unwrap(),
            };
            expected.extend(bits(&mask));
        }
        prop_assert_eq!(bits(&masks), expected);
    }
}
