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
    transpose_pitched(x, [rows, columns], [columns, rows], out);
}

/// [`transpose`] of rows that begin `x_pitch` numbers apart into rows that begin `pitch` apart and end with zeros.
pub(crate) fn transpose_pitched<T: Number>(
    x: &[T],
    [rows, columns]: [usize; 2],
    [x_pitch, pitch]: [usize; 2],
    out: &mut [MaybeUninit<T>],
) {
    assert_eq!((x.len(), out.len()), (rows * x_pitch, columns * pitch), "matrices of {rows} times {columns}");
    assert!(x_pitch >= columns && pitch >= rows, "rows of {columns} and {rows} are {x_pitch} and {pitch} apart");
    let out = Shared::new(out);
    for_each(columns.div_ceil(STRIP), rows * columns, |strip| {
        let strip = strip * STRIP..columns.min((strip + 1) * STRIP);
        // SAFETY: a strip is whole rows of `out`, which no other task has.
        let to = unsafe { out.part(strip.start * pitch..strip.end * pitch) };
        if rows > 0 {
            // SAFETY: `to` has as many rows as there are columns, `pitch` apart, of at least `rows` numbers.
            unsafe { transpose_here(&x[strip.start..], [rows, strip.len()], x_pitch, to.as_mut_ptr().cast(), pitch) };
        }
        if pitch > rows {
            to.chunks_exact_mut(pitch).for_each(|to| to[rows..].fill(MaybeUninit::new(T::default())));
        }
    });
}

/// Writes the transpose of `x` `[rows, columns]`, whose rows begin `x_pitch` apart, to rows that begin `pitch` apart, on this thread.
///
/// # Safety
/// From `to` on there is memory for the first `rows` numbers of `columns` rows that begin `pitch` apart, and nobody else uses it.
pub(crate) unsafe fn transpose_here<T: Number>(
    x: &[T],
    [rows, columns]: [usize; 2],
    x_pitch: usize,
    to: *mut T,
    pitch: usize,
) {
    let kernels = T::kernels();
    let in_fours = rows - rows % 4;
    for strip in (0..columns).step_by(STRIP) {
        let strip = strip..columns.min(strip + STRIP);
        for top in (0..in_fours).step_by(LINE) {
            for left in strip.clone().step_by(kernels.lanes) {
                let len = kernels.lanes.min(strip.end - left);
                for row in (top..in_fours.min(top + LINE)).step_by(4) {
                    let from = [0, 1, 2, 3].map(|k| x[(row + k) * x_pitch + left..][..len].as_ptr());
                    // SAFETY: four rows of `len` numbers; by the caller's promise `len` rows, `pitch` apart, with four from here.
                    unsafe { (kernels.transpose)(from, len, to.add(left * pitch + row), pitch) };
                }
            }
        }
        for row in in_fours..rows {
            for (column, &value) in strip.clone().zip(&x[row * x_pitch + strip.start..][..strip.len()]) {
                // SAFETY: the caller's promise.
                unsafe { to.add(column * pitch + row).write(value) };
            }
        }
    }
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

    #[test]
    fn rows_that_lie_apart_end_with_zeros() {
        for (rows, columns, x_pitch, pitch) in [(3, 40, 41, 16), (60, 33, 33, 64), (17, 5, 9, 17), (0, 4, 4, 3)] {
            let x: Vec<f32> = (0..rows * x_pitch).map(|i| i as f32 + 1.0).collect();
            let mut out = vec![MaybeUninit::new(-1.0); columns * pitch];
            transpose_pitched(&x, [rows, columns], [x_pitch, pitch], &mut out);
            for (at, value) in out.iter().enumerate() {
                let (column, row) = (at / pitch, at % pitch);
                let expected = if row < rows { x[row * x_pitch + column] } else { 0.0 };
                // SAFETY: it began with a value.
                assert_eq!(unsafe { value.assume_init() }, expected, "{rows} {columns}: {at}");
            }
        }
    }
}
