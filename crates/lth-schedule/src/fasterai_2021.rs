//! The three schedules of fasterai as of February 2021, the version that printed the lottery-ticket notebook's numbers.
//!
//! Kept for comparisons, in its own form: start, end and result in one unit of the caller's (percent there), `pos` in
//! [0, 1], nothing checked. [`one_shot`] and [`iterative`] are what [`Schedule`](crate::Schedule) computes too;
//! [`agp`] is not.
//!
//! Source: github.com/nathanhubens/fasterai, `fasterai/sparse/schedule.py` before commit 91ba92f.

/// `end`, at any position.
pub fn one_shot(_start: f64, end: f64, _pos: f64) -> f64 {
    end
}

/// `start` and then `n_steps` equal jumps (three in the notebook), the last one at pos > 1 − 1/n.
pub fn iterative(start: f64, end: f64, pos: f64, n_steps: u32) -> f64 {
    let n_steps = f64::from(n_steps);
    start + ((end - start) / n_steps) * (pos * n_steps).ceil()
}

/// end + start − end · (1 − pos)³.
///
/// PARITY: with a start other than 0 it overshoots to start + end; [`Schedule::Agp`](crate::Schedule::Agp) is the
/// paper's curve.
///
/// ```
/// assert_eq!(lth_schedule::fasterai_2021::agp(10.0, 80.0, 1.0), 90.0);
/// ```
pub fn agp(start: f64, end: f64, pos: f64) -> f64 {
    end + start - end * (1.0 - pos).powi(3)
}
