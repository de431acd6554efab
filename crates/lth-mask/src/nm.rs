//! N of every M inputs.

use crate::error::{Error, Result};
use crate::granularity::{Granularity, Layer};
use crate::mask::Mask;
use crate::rank::{Cut, key};
use crate::rule::ThresholdRule;

/// The mask that keeps the highest `n` of every `m` consecutive inputs (of equal ones the first), or more of them where
/// the sparsity is below 1 − n/m: see [`Granularity::NM`]. What `previous` has pruned stays so, and its place in a
/// block goes to the next best.
pub(crate) fn select(
    scores: &[f32],
    shape: &[usize],
    layer: Layer,
    (n, m): (usize, usize),
    sparsity: f64,
    previous: Option<&Mask>,
) -> Result<Mask> {
    let misfit = |reason: &'static str| Granularity::NM { n, m }.misfit(shape, reason);
    if n == 0 || n > m {
        return Err(misfit("expected 1 <= N <= M"));
    }
    let Some((_, axis)) = layer.output_input_axes() else {
        return Err(misfit("only linear and convolution weights have inputs"));
    };
    if !shape[axis].is_multiple_of(m) {
        return Err(misfit("the inputs are no multiple of M (such a layer can be kept dense by name)"));
    }
    let weights = scores.len();
    let asked = weights - ThresholdRule::ExactCount.kept(sparsity, weights)?;
    let most = weights / m * (m - n);
    if asked > most {
        return Err(Error::PatternTooSparse { n, m, most, weights, asked });
    }
    let mut scores = std::borrow::Cow::Borrowed(scores);
    if let Some(previous) = previous {
        let pruned = scores.to_mut().iter_mut().zip(previous.iter()).filter(|(_, keep)| !keep);
        pruned.for_each(|(score, _)| *score = f32::NEG_INFINITY);
    }
    // What the pattern keeps stands above every score; the rest is cut by count.
    let mut ranked = scores.to_vec();
    let inner: usize = shape[axis + 1..].iter().product();
    let mut block: Vec<usize> = Vec::with_capacity(m);
    let mut patterned = 0;
    for start in (0..weights / m).map(|b| b / inner * (m * inner) + b % inner) {
        block.clear();
        block.extend((0..m).map(|i| start + i * inner));
        block.sort_by_key(|&i| std::cmp::Reverse(key(scores[i])));
        for &i in block[..n].iter().filter(|&&i| scores[i] != f32::NEG_INFINITY) {
            ranked[i] = f32::INFINITY;
            patterned += 1;
        }
    }
    // At the pattern's own sparsity a block that has fewer than N left gives none of its places to another.
    let count = if asked == most { patterned } else { weights - asked };
    let mask = Mask::from_packed(shape, Cut::Count(count).apply(&ranked))?;
    // Where fewer are left than the sparsity would keep, the count reaches into what was pruned.
    previous.map_or(Ok(mask.clone()), |previous| mask.intersection(previous))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_four_inputs_are_kept_in_each_row() -> Result<()> {
        let scores = [4., 1., 2., 3., 1., 1., 1., 1., 0., 9., 9., 9., 1., 2., 3., 4.];
        let mask = select(&scores, &[2, 8], Layer::Linear, (2, 4), 0.5, None)?;
        assert_eq!(mask.to_bytes(), [0b0011_1001, 0b1100_0110]);
        let looser = select(&scores, &[2, 8], Layer::Linear, (2, 4), 0.25, None)?;
        assert_eq!(looser.zeros(), 4);
        assert_eq!(mask.first_outside(&looser)?, None);
        let tighter = select(&scores, &[2, 8], Layer::Linear, (2, 4), 0.6, None);
        assert!(matches!(tighter, Err(Error::PatternTooSparse { most: 8, asked: 10, .. })));
        Ok(())
    }

    #[test]
    fn convolutions_have_blocks_of_input_channels_at_each_position() -> Result<()> {
        // [O, I, H, W] = [1, 4, 1, 2]: position 0 has scores 0 2 4 6, position 1 has 7 5 3 1.
        let scores = [0., 7., 2., 5., 4., 3., 6., 1.];
        let mask = select(&scores, &[1, 4, 1, 2], Layer::Conv, (1, 4), 0.75, None)?;
        assert_eq!(mask.kept_indices().collect::<Vec<_>>(), [1, 6]);
        // [I, O, H, W] = [4, 1, 1, 2]: the same numbers.
        let mask = select(&scores, &[4, 1, 1, 2], Layer::TransposedConv, (1, 4), 0.75, None)?;
        assert_eq!(mask.kept_indices().collect::<Vec<_>>(), [1, 6]);
        Ok(())
    }

    #[test]
    fn a_previous_mask_leaves_its_places_to_the_next_best() -> Result<()> {
        let previous = Mask::from_fn([1, 4], |i| i > 0)?;
        let mask = select(&[4.0, 3.0, 2.0, 1.0], &[1, 4], Layer::Linear, (2, 4), 0.5, Some(&previous))?;
        assert_eq!(mask.kept_indices().collect::<Vec<_>>(), [1, 2]);
        let only_one = Mask::from_fn([1, 4], |i| i == 3)?;
        let mask = select(&[4.0, 3.0, 2.0, 1.0], &[1, 4], Layer::Linear, (2, 4), 0.5, Some(&only_one))?;
        assert_eq!(mask, only_one);
        Ok(())
    }

    #[test]
    fn inputs_that_do_not_divide_are_an_error() {
        let odd = select(&[0.0; 6], &[2, 3], Layer::Linear, (2, 4), 0.5, None);
        assert!(matches!(odd, Err(Error::Granularity { .. })));
        let none = select(&[0.0; 8], &[2, 4], Layer::Linear, (0, 4), 0.5, None);
        assert!(matches!(none, Err(Error::Granularity { .. })));
        let vector = select(&[0.0; 8], &[8], Layer::Other, (2, 4), 0.5, None);
        assert!(matches!(vector, Err(Error::Granularity { .. })));
    }
}
