//! Which square of a picture is used.

use crate::random::{Purpose, stream, unit};

/// A square cut-out of a picture, in pixels from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Square {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns and rows.
    pub side: usize,
}

impl Square {
    /// The largest square of a `width` by `height` picture, at (int(u1·(w − s)), int(u2·(h − s))).
    /// `u`: where along the longer side, in [0, 1); the shorter side leaves no choice.
    ///
    /// Source: fastai's `Resize` with the method "crop", which cuts before it scales.
    pub fn largest(width: usize, height: usize, u: (f64, f64)) -> Square {
        let side = width.min(height);
        let place = |u: f64, room: usize| ((u * room as f64) as usize).min(room);
        Square { left: place(u.0, width - side), top: place(u.1, height - side), side }
    }

    /// The largest square in the middle: what validation looks at.
    pub fn centred(width: usize, height: usize) -> Square {
        Square::largest(width, height, (0.5, 0.5))
    }
}

/// Where training cuts picture `picture` in `epoch`: two numbers in [0, 1), for [`Square::largest`].
/// A pure function of its arguments, so neither threads nor the order of the batches nor a resumed run change it.
pub fn training_draw(seed: u64, epoch: usize, picture: usize) -> (f64, f64) {
    let mut random = stream(seed, Purpose::Crop, epoch as u64, picture as u64);
    let first = unit(&mut random);
    (first, unit(&mut random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn square_is_the_largest_and_stays_inside() {
        for (width, height) in [(1, 1), (7, 300), (300, 7), (64, 64), (97, 64)] {
            for u in [0.0, 0.25, 0.5, 0.999_999_999, 1.0] {
                let square = Square::largest(width, height, (u, u));
                assert_eq!(square.side, width.min(height));
                assert!(square.left + square.side <= width && square.top + square.side <= height, "{square:?}");
            }
        }
    }

    #[test]
    fn square_moves_along_the_longer_side_only() {
        assert_eq!(Square::largest(90, 121, (0.999, 0.999)), Square { left: 0, top: 30, side: 90 });
        assert_eq!(Square::largest(201, 150, (0.1, 0.9)), Square { left: 5, top: 0, side: 150 });
        assert_eq!(Square::centred(40, 33), Square { left: 3, top: 0, side: 33 });
    }

    #[test]
    fn draws_change_with_seed_epoch_and_picture_and_with_nothing_else() {
        let base = training_draw(1, 2, 3);
        assert_eq!(base, training_draw(1, 2, 3));
        assert_ne!(base.0, base.1);
        for other in [training_draw(2, 2, 3), training_draw(1, 3, 3), training_draw(1, 2, 4)] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn draws_are_frozen() {
        // Every published number depends on them.
        let (u1, u2) = training_draw(42, 5, 1_234);
        assert_eq!((u1.to_bits(), u2.to_bits()), FROZEN);
    }

    const FROZEN: (u64, u64) = (4_603_451_766_188_698_727, 4_605_389_060_996_690_087);
}
