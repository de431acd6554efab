//! LAMP as a criterion under a global scope and as a scope over magnitudes: one rule.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use lth_criteria::{Criterion, Lamp, LargeFinal, NamedInputs, score_all};
use lth_mask::{MaskSet, Scope, Selection, select};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn masks(
    weights: &BTreeMap<String, Tensor>,
    criterion: &dyn Criterion,
    scope: Scope,
    sparsity: f64,
) -> Outcome<MaskSet> {
    let scores = score_all(criterion, &NamedInputs::of(weights))?;
    Ok(select(&scores, sparsity, &Selection { scope, ..Selection::default() })?)
}

#[test]
fn layers_of_equal_weights_keep_the_same_number() -> Outcome<()> {
    let layer = |n: usize| Tensor::full(0.5f32, n, &Device::Cpu);
    let weights = BTreeMap::from([("large".to_owned(), layer(1000)?), ("small".to_owned(), layer(100)?)]);
    let sparsity = 1.0 - 100.0 / 1100.0;
    for (criterion, scope) in [(&Lamp as &dyn Criterion, Scope::Global), (&LargeFinal, Scope::Lamp)] {
        let masks = masks(&weights, criterion, scope, sparsity)?;
        let kept: Vec<_> = masks.iter().map(|(_, mask)| mask.kept()).collect();
        assert_eq!(kept, [50, 50], "{}", criterion.name());
    }
    Ok(())
}

#[test]
fn the_criterion_and_the_scope_make_the_same_masks() -> Outcome<()> {
    // Small whole numbers: ties within layers and between them.
    let layer = |n: usize, step: usize, most: usize| {
        let values: Vec<f32> = (0..n).map(|i| (i * step % (2 * most + 1)) as f32 - most as f32).collect();
        Tensor::new(values, &Device::Cpu)
    };
    let weights = BTreeMap::from([
        ("a".to_owned(), layer(300, 7, 3)?),
        ("b".to_owned(), layer(40, 5, 9)?),
        ("c".to_owned(), layer(90, 11, 30)?),
    ]);
    for percent in 0..=100 {
        let sparsity = f64::from(percent) / 100.0;
        let by_criterion = masks(&weights, &Lamp, Scope::Global, sparsity)?;
        assert_eq!(by_criterion, masks(&weights, &LargeFinal, Scope::Lamp, sparsity)?, "{percent} %");
    }
    Ok(())
}
