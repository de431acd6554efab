//! Which kept weights are dropped and which pruned ones grow in their place.

use std::cmp::Ordering;

use lth_mask::Mask;

use crate::Error;

/// `mask` without its `n` weights of smallest magnitude, and with `n` others that `grow` chooses, given all places that are
/// not kept then, in rising order. A weight that was just dropped may be among them, as in the papers.
///
/// Of equal magnitudes the lower index is kept.
pub(crate) fn exchanged(
    mask: &Mask,
    weights: &[f64],
    n: usize,
    grow: impl FnOnce(Vec<usize>, usize) -> Vec<usize>,
) -> Result<Mask, Error> {
    let n = n.min(mask.kept());
    let kept = mask.kept_indices().collect();
    let mut keep: Vec<bool> = mask.iter().collect();
    let smallest = |a: &usize, b: &usize| weights[*a].abs().total_cmp(&weights[*b].abs()).then(b.cmp(a));
    for dropped in first(kept, n, smallest) {
        keep[dropped] = false;
    }
    let places = keep.iter().enumerate().filter(|(_, keep)| !**keep).map(|(place, _)| place).collect();
    for grown in grow(places, n) {
        keep[grown] = true;
    }
    Ok(Mask::from_fn(mask.shape(), |index| keep[index])?)
}

/// The `n` places of largest magnitude; of equal ones the lower index.
pub(crate) fn largest(places: Vec<usize>, n: usize, values: &[f64]) -> Vec<usize> {
    first(places, n, |a, b| values[*b].abs().total_cmp(&values[*a].abs()).then(a.cmp(b)))
}

/// The first `n` in an order in which no two are equal.
fn first(mut places: Vec<usize>, n: usize, order: impl Fn(&usize, &usize) -> Ordering) -> Vec<usize> {
    if n < places.len() {
        places.select_nth_unstable_by(n, order);
        places.truncate(n);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> Result<Mask, Error> {
        let keep: Vec<bool> = text.chars().map(|c| c == '1').collect();
        Ok(Mask::from_fn([2, 4], |index| keep[index])?)
    }

    /// Kept: 0, 1, 2, 4, 5 with |w| = 0.5, 0.1, 0.3, 0.1, 0.9. Two drop: of the two 0.1 both. Not kept then: 1, 3, 4, 6, 7
    /// with |g| = 0.2, 0.7, 0.8, 0.7, 0.1. Two grow: 4, which was dropped, and of the two 0.7 the lower index, 3.
    #[test]
    fn the_smallest_weights_go_and_the_steepest_come_worked_out_by_hand() -> Result<(), Error> {
        let weights = [0.5, -0.1, 0.3, 0.0, 0.1, -0.9, 0.0, 0.0];
        let gradients = [9.0, 0.2, 9.0, -0.7, 0.8, 9.0, 0.7, 0.1];
        let after = exchanged(&mask("11101100")?, &weights, 2, |places, n| largest(places, n, &gradients))?;
        assert_eq!(after, mask("10111100")?);
        // Of two equal magnitudes the higher index goes.
        let after = exchanged(&mask("11101100")?, &weights, 1, |places, n| largest(places, n, &gradients))?;
        assert_eq!(after, mask("11101100")?, "4 goes, and comes back");
        let gradients = [9.0, 0.2, 9.0, -0.7, 0.0, 9.0, 0.7, 0.1];
        let after = exchanged(&mask("11101100")?, &weights, 1, |places, n| largest(places, n, &gradients))?;
        assert_eq!(after, mask("11110100")?);
        Ok(())
    }

    #[test]
    fn as_many_come_as_go_at_both_ends() -> Result<(), Error> {
        let weights = [0.5, 0.1, 0.3, 0.2, 0.1, 0.9, 0.6, 0.7];
        for text in ["11111111", "00000000", "10000000", "11111110"] {
            for n in 0..10 {
                let before = mask(text)?;
                let after = exchanged(&before, &weights, n, |places, n| largest(places, n, &weights))?;
                assert_eq!(after.kept(), before.kept(), "{n} of {text}");
            }
        }
        Ok(())
    }
}
