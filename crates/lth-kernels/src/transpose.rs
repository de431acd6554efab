//! Matrices, transposed by vectors.

use std::mem::MaybeUninit;

use crate::conv::Number;
use crate::parallel::{Shared, for_each};

/// Columns that one task brings into rows.
const STRIP: usize = 32;

/// Rows whose numbers fill a cache line of the transposed matrix.
const LINE: usize = 16;

/// Writes `x` `[rows, columns]` as `[columns, rows]`: all of `out`, which is as long.
pub(crate) fn transpose<T: Number>(x: &[T], rows: usize, columns: usize, out: &mut [MaybeUninit<T>]) {
    assert_eq!((x.len(), out.len()), (rows * columns, rows * columns), "matrices of {rows} times {columns}");
    let kernels = T::kernels();
    let out = Shared::new(out);
    for_each(columns.div_ceil(STRIP), x.len(), |strip| {
        let strip = strip * STRIP..columns.min((strip + 1) * STRIP);
        // SAFETY: a strip is whole rows of `out`, which no other task has.
        let to = unsafe { out.part(strip.start * rows..strip.end * rows) };
        let in_fours = rows - rows % 4;
        for top in (0..in_fours).step_by(LINE) {
            for left in strip.clone().step_by(kernels.lanes) {
                let len = kernels.lanes.min(strip.end - left);
                for row in (top..in_fours.min(top + LINE)).step_by(4) {
                    let from = [0, 1, 2, 3].map(|k| x[(row + k) * columns + left..][..len].as_ptr());
                    let to = &mut to[(left - strip.start) * rows + row..];
                    assert!(to.len() >= (len - 1) * rows + 4);
                    // SAFETY: four rows of `len` numbers; `len` rows of `to`, `rows` apart, that begin with four.
                    unsafe { (kernels.transpose)(from, len, to.as_mut_ptr().cast(), rows) };
                }
            }
        }
        for row in in_fours..rows {
            for (to, &value) in to.chunks_exact_mut(rows).zip(&x[row * columns + strip.start..]) {
                to[row].write(value);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::InstructionSet;

    #[test]
    fn every_number_comes_to_its_place() {
        for (rows, columns) in
            [(1, 1), (1, 70), (70, 1), (4, 8), (60, 784), (33, 41), (17, 5), (64, 1000), (0, 3), (3, 0)]
        {
            let x: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let wide: Vec<f64> = x.iter().copied().map(f64::from).collect();
            let is_right = |found: &mut dyn Iterator<Item = f64>| {
                let expected =
                    (0..columns).flat_map(|column| (0..rows).map(move |row| (row * columns + column) as f64));
                found.eq(expected)
            };
            for set in InstructionSet::ALL {
                let done = set.run(|| {
                    let (mut out, mut out_wide) =
                        (vec![MaybeUninit::new(-1.0); x.len()], vec![MaybeUninit::new(-1.0); x.len()]);
                    transpose(&x, rows, columns, &mut out);
                    transpose(&wide, rows, columns, &mut out_wide);
                    // SAFETY: both began with values.
                    let mut narrow = out.iter().map(|value| f64::from(unsafe { value.assume_init() }));
                    assert!(is_right(&mut narrow), "{set:?} {rows} {columns}");
                    // SAFETY: as above.
                    assert!(
                        is_right(&mut out_wide.iter().map(|value| unsafe { value.assume_init() })),
                        "{rows} {columns}"
                    );
                });
                assert_eq!(done.is_some(), set.is_available());
            }
        }
    }
}
