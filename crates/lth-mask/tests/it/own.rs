//! Groups of a user's own.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use lth_mask::{
    Error, Granularity, Groups, Layer, MaskSet, Reduction, Result, Scope, Selection, ThresholdRule, select,
    select_within, shuffle_within,
};
use proptest::prelude::*;

use crate::every_selection::{RULES, axes, groups, network, run, scopes};

/// What is the built-in granularity, by another hand.
#[derive(Debug)]
struct Like(Granularity);

impl Groups for Like {
    fn name(&self) -> &str {
        "like"
    }

    fn groups(&self, shape: &[usize], layer: Layer) -> Result<Vec<usize>, String> {
        let inputs: [usize; 1];
        let axes = match (layer.output_input_axes(), &self.0) {
            // A row runs over the inputs, which only the layer knows.
            (Some((_, axis)), Granularity::Row) if shape.len() < 4 => {
                inputs = [axis];
                &inputs
            }
            _ => axes(&self.0, shape.len()).ok_or("no such granularity")?,
        };
        let mut group_of = vec![0; shape.iter().product()];
        for (group, members) in groups(shape, axes).iter().enumerate() {
            members.iter().for_each(|&weight| group_of[weight] = group);
        }
        Ok(group_of)
    }
}

/// Whatever a user may return.
#[derive(Debug)]
struct Listed(Vec<usize>);

impl Groups for Listed {
    fn name(&self) -> &str {
        "listed"
    }

    fn groups(&self, _: &[usize], _: Layer) -> Result<Vec<usize>, String> {
        Ok(self.0.clone())
    }
}

const REDUCTIONS: [Reduction; 4] = [Reduction::Mean, Reduction::Sum, Reduction::L2, Reduction::Max];

/// The masks of both, or neither.
fn same(own: Result<MaskSet>, built_in: Result<MaskSet>, what: &Selection) -> Result<Option<MaskSet>, TestCaseError> {
    match (own, built_in) {
        (Ok(own), Ok(built_in)) => {
            prop_assert_eq!(&own, &built_in, "{:?}", what);
            Ok(Some(own))
        }
        (Err(_), Err(_)) => Ok(None),
        (own, built_in) => Err(TestCaseError::fail(format!("{own:?} and {built_in:?} of {what:?}"))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn groups_equal_to_built_in_ones_select_the_same_masks(
        rounds in network(2), (first, then) in (0.0..=1.0f64, 0.0..=1.0f64), round_to in 1usize..3,
    ) {
        let (first, then) = (first.min(then), first.max(then));
        let (before, after) = (run(rounds[0].scores())?, run(rounds[1].scores())?);
        for granularity in Granularity::NAMED {
            let linear = if axes(&granularity, 2).is_some() { granularity.clone() } else { Granularity::Row };
            for (scope, rule) in scopes().into_iter().chain([Scope::PerOutput]).flat_map(|scope| RULES.map(|rule| (scope.clone(), rule))) {
                for reduction in REDUCTIONS {
                    let built_in = Selection {
                        granularity: granularity.clone(),
                        granularities: BTreeMap::from([("fc.*".to_owned(), linear.clone())]),
                        scope: scope.clone(),
                        rule,
                        reduction,
                        round_to,
                        ..Selection::default()
                    };
                    let own = Selection {
                        granularity: Granularity::own(Like(granularity.clone())),
                        granularities: BTreeMap::from([("fc.*".to_owned(), Granularity::own(Like(linear.clone())))]),
                        ..built_in.clone()
                    };
                    let masks = same(select(&before, first, &own), select(&before, first, &built_in), &own)?;
                    prop_assert!(masks.is_some() || scope == Scope::PerOutput, "{:?}", own);
                    if let Some(masks) = masks {
                        let within = |selection: &Selection| select_within(&after, then, selection, &masks);
                        same(within(&own), within(&built_in), &own)?;
                    }
                }
            }
        }
    }

    #[test]
    fn rows_of_ones_own_know_the_layout(values in proptest::collection::vec(0u8..20, 48), sparsity in 0.0..=1.0f64, seed: u64) {
        let values: Vec<f32> = values.into_iter().map(f32::from).collect();
        for (name, shape) in
            [("linear", &[6, 8][..]), ("conv1d", &[6, 4, 2]), ("conv", &[3, 4, 2, 2]), ("experts", &[2, 6, 4])]
        {
            let scores = run(Tensor::from_vec(values.clone(), shape, &Device::Cpu).map_err(Error::from))?;
            let scores = BTreeMap::from([(name.to_owned(), scores)]);
            for transposed in [vec![], vec![name.to_owned()]] {
                let experts = if name == "experts" { vec![name.to_owned()] } else { vec![] };
                let built_in = Selection { granularity: Granularity::Row, transposed, experts, ..Selection::default() };
                let own = Selection { granularity: Granularity::own(Like(Granularity::Row)), ..built_in.clone() };
                let masks = same(select(&scores, sparsity, &own), select(&scores, sparsity, &built_in), &own)?;
                let Some(masks) = masks else { return Err(TestCaseError::fail(format!("{name} has rows"))) };
                same(shuffle_within(&masks, &own, seed), shuffle_within(&masks, &built_in, seed), &own)?;
            }
        }
    }
}

#[test]
fn diagonals_are_pruned_as_a_whole() -> Result<()> {
    // Diagonal d of a circulant [3, 3] has its columns at (row + d) % 3.
    let diagonals = Listed((0..9).map(|i| (i % 3 + 3 - i / 3) % 3).collect());
    let scores = Tensor::new(&[[5f32, 1.0, 3.0], [3.0, 5.0, 1.0], [1.0, 3.0, 5.0]], &Device::Cpu)?;
    let scores = BTreeMap::from([("fc.weight".to_owned(), scores)]);
    let selection = Selection { granularity: Granularity::own(diagonals), ..Selection::default() };
    let masks = select(&scores, 1.0 / 3.0, &selection)?;
    let kept: Vec<usize> = masks.iter().flat_map(|(_, mask)| mask.kept_indices()).collect();
    assert_eq!(kept, [0, 2, 3, 4, 7, 8]);
    Ok(())
}

#[test]
fn what_are_no_groups_of_one_size_is_refused_with_the_reason() -> Result<()> {
    let scores = BTreeMap::from([("fc.weight".to_owned(), Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?)]);
    for (groups, expected) in [
        (&[0, 1, 0][..], "groups of 3 weights are given, expected 4"),
        (&[0, 1, 0, 4], "a group is 4, expected less than 4"),
        (&[0, 1, 0, usize::MAX], &format!("a group is {}, expected less than 4", usize::MAX)),
        (&[0, 2, 0, 2], "group 1 of 3 is empty, expected groups counted from 0"),
        (&[1, 1, 2, 2], "group 0 of 3 is empty, expected groups counted from 0"),
        (&[0, 0, 0, 1], "group 1 has 1 weights and group 0 3, expected one size"),
    ] {
        let granularity = Granularity::own(Listed(groups.to_vec()));
        let message = select(&scores, 0.5, &Selection { granularity, ..Selection::default() });
        let message = message.err().map(|error| error.to_string());
        let expected = format!("`fc.weight`: granularity own(listed) does not fit shape [2, 2]: {expected}");
        assert_eq!(message.as_deref(), Some(expected.as_str()));
    }
    let granularity = Granularity::own(Like(Granularity::Filter));
    let message = select(&scores, 0.5, &Selection { granularity, ..Selection::default() });
    assert!(
        matches!(message, Err(Error::Named { source, .. }) if source.to_string().ends_with(": no such granularity"))
    );
    Ok(())
}

#[test]
fn no_weights_need_no_groups() -> Result<()> {
    let scores = BTreeMap::from([("fc.weight".to_owned(), Tensor::from_vec(Vec::<f32>::new(), (0, 2), &Device::Cpu)?)]);
    for rule in [ThresholdRule::ExactCount, ThresholdRule::Quantile] {
        let granularity = Granularity::own(Listed(vec![7]));
        let masks = select(&scores, 0.5, &Selection { granularity, rule, ..Selection::default() })?;
        assert_eq!(masks.len(), 1);
    }
    Ok(())
}

#[test]
fn groups_are_written_by_name_and_cannot_be_read() -> Result<(), serde_json::Error> {
    let own = Granularity::own(Listed(vec![0]));
    assert_eq!(own, Granularity::own(Listed(vec![1])));
    assert_ne!(own, Granularity::own(Like(Granularity::Row)));
    let text = own.to_string();
    assert!(matches!(text.parse::<Granularity>(), Err(Error::Own { granularity }) if granularity == text));
    let selection = Selection { granularity: own, ..Selection::default() };
    let json = serde_json::to_value(&selection)?;
    assert_eq!(json["granularity"], serde_json::json!({ "own": "listed" }));
    let message = serde_json::from_value::<Selection>(json).err().map(|error| error.to_string());
    let expected = "`own(listed)` is a granularity of one's own, which cannot be read";
    assert!(message.as_ref().is_some_and(|message| message.starts_with(expected)), "{message:?}");
    Ok(())
}
