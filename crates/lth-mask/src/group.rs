//! Scores of groups from scores of weights, and masks of weights from masks of groups.

use crate::error::{Error, Result};
use crate::mask::Mask;

/// How the scores of a group become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their mean, as in fasterai.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// The square root of the sum of their squares.
    L2,
    /// The highest.
    Max,
}

/// Which group each weight of a tensor belongs to. All groups of a tensor have the same size.
///
/// A weight's group is the sum of one number per axis, looked up by its index on that axis.
pub(crate) struct Grouping {
    tables: Vec<Vec<usize>>,
    n_groups: usize,
    group_size: usize,
}

impl Grouping {
    /// Groups that run over the axes for which `inside` says so.
    pub(crate) fn over(shape: &[usize], inside: impl Fn(usize) -> bool) -> Self {
        let mut tables: Vec<Vec<usize>> = Vec::with_capacity(shape.len());
        let (mut n_groups, mut group_size) = (1, 1);
        for (axis, &dim) in shape.iter().enumerate().rev() {
            if inside(axis) {
                tables.push(vec![0; dim]);
                group_size *= dim;
            } else {
                tables.push((0..dim).map(|i| i * n_groups).collect());
                n_groups *= dim;
            }
        }
        tables.reverse();
        Self { tables, n_groups, group_size }
    }

    /// Groups of whole slices along one axis: `group` says to which one each index there belongs.
    pub(crate) fn blocks(shape: &[usize], axis: usize, group: impl Fn(usize) -> usize, n_groups: usize) -> Self {
        let mut tables: Vec<Vec<usize>> = shape.iter().map(|&dim| vec![0; dim]).collect();
        tables[axis] = (0..shape[axis]).map(group).collect();
        let group_size = shape.iter().product::<usize>() / n_groups.max(1);
        Self { tables, n_groups, group_size }
    }

    /// Groups of the places that `size` consecutive slices along one axis share.
    pub(crate) fn places(shape: &[usize], axis: usize, size: usize) -> Self {
        let mut n_groups = 1;
        let table = |(at, &dim): (usize, &usize)| {
            let per = if at == axis { size } else { 1 };
            let table = (0..dim).map(|i| i / per * n_groups).collect();
            n_groups *= dim.div_ceil(per);
            table
        };
        let mut tables: Vec<Vec<usize>> = shape.iter().enumerate().rev().map(table).collect();
        tables.reverse();
        Self { tables, n_groups, group_size: size }
    }

    /// Groups as they are listed, one per weight in row-major order.
    ///
    /// # Errors
    /// If these are no groups of one size, counted from 0.
    pub(crate) fn listed(shape: &[usize], groups: Vec<usize>) -> Result<Self, String> {
        let weights: usize = shape.iter().product();
        if groups.len() != weights {
            return Err(format!("groups of {} weights are given, expected {weights}", groups.len()));
        }
        let mut sizes = vec![0_usize; weights];
        for &group in &groups {
            *sizes.get_mut(group).ok_or_else(|| format!("a group is {group}, expected less than {weights}"))? += 1;
        }
        let n_groups = groups.iter().max().map_or(0, |&last| last + 1);
        let group_size = sizes.first().copied().unwrap_or_default();
        sizes.truncate(n_groups);
        if let Some(group) = sizes.iter().position(|&size| size == 0) {
            return Err(format!("group {group} of {n_groups} is empty, expected groups counted from 0"));
        }
        if let Some(group) = sizes.iter().position(|&size| size != group_size) {
            let size = sizes[group];
            return Err(format!("group {group} has {size} weights and group 0 {group_size}, expected one size"));
        }
        Ok(Self { tables: vec![groups], n_groups, group_size })
    }

    pub(crate) fn n_groups(&self) -> usize {
        self.n_groups
    }

    /// Whether each weight is a group, in order.
    pub(crate) fn is_elementwise(&self) -> bool {
        self.group_size == 1
            && self
                .tables
                .iter()
                .rev()
                .scan(1, |stride, table| {
                    let ordered = table.iter().enumerate().all(|(i, &group)| group == i * *stride);
                    *stride *= table.len();
                    Some(ordered)
                })
                .all(|ordered| ordered)
    }

    /// Calls `visit` with each weight's group, in row-major order of the weights.
    pub(crate) fn each(&self, mut visit: impl FnMut(usize)) {
        fn walk(tables: &[Vec<usize>], base: usize, visit: &mut impl FnMut(usize)) {
            match tables {
                [] => visit(base),
                [table] => table.iter().for_each(|&group| visit(base + group)),
                [table, inner @ ..] => table.iter().for_each(|&group| walk(inner, base + group, visit)),
            }
        }
        if self.tables.iter().all(|t| !t.is_empty()) {
            walk(&self.tables, 0, &mut visit);
        }
    }

    /// One score per group, added up in f64 in row-major order. Weights that `previous` has pruned count nothing, whatever
    /// their scores: for the mean and the sums as if they were 0, and the highest is that of the kept ones.
    ///
    /// # Errors
    /// If a group's score is too large for f32, or a score is negative where its square would turn the order round.
    pub(crate) fn reduce(&self, scores: &[f32], reduction: Reduction, previous: Option<&Mask>) -> Result<Vec<f32>> {
        if reduction == Reduction::L2
            && let Some(index) = scores.iter().position(|&score| score < 0.0)
        {
            return Err(Error::NegativeNorm { index, value: scores[index] });
        }
        if self.group_size == 0 {
            return Ok(vec![0.0; self.n_groups]);
        }
        let start = if reduction == Reduction::Max { f64::NEG_INFINITY } else { 0.0 };
        let mut groups = vec![start; self.n_groups];
        let mut scores = scores.iter().map(|&s| f64::from(s));
        let mut kept = previous.map(Mask::iter);
        self.each(|group| {
            let total = &mut groups[group];
            let score = scores.next().unwrap_or_default(); // as many as weights
            if kept.as_mut().is_some_and(|kept| kept.next() == Some(false)) {
                return;
            }
            match reduction {
                Reduction::Mean | Reduction::Sum => *total += score,
                Reduction::L2 => *total += score * score,
                Reduction::Max => *total = total.max(score),
            }
        });
        let finish = |total: f64| match reduction {
            Reduction::Mean => total / self.group_size as f64,
            // Nothing of the group is left: it cannot be chosen.
            Reduction::Max if total == f64::NEG_INFINITY => 0.0,
            Reduction::Sum | Reduction::Max => total,
            Reduction::L2 => total.sqrt(),
        };
        let groups: Vec<f32> = groups.into_iter().map(|total| finish(total) as f32).collect();
        check_finite(&groups)?;
        Ok(groups)
    }

    /// Whether each group has no weight that `mask` keeps.
    pub(crate) fn dead(&self, mask: &Mask) -> Vec<bool> {
        let mut dead = vec![true; self.n_groups];
        let mut kept = mask.iter();
        self.each(|group| dead[group] &= !kept.next().unwrap_or_default());
        dead
    }

    /// The mask in which each group has the bits of the group that `order` puts in its place.
    pub(crate) fn exchange(&self, mask: &Mask, order: &[usize]) -> Result<Mask> {
        let mut members: Vec<Vec<bool>> = vec![Vec::with_capacity(self.group_size); self.n_groups];
        let mut bits = mask.iter();
        self.each(|group| members[group].push(bits.next().unwrap_or_default()));
        let mut next = vec![0; self.n_groups];
        let mut words = vec![0u64; mask.words().len()];
        let mut at = 0;
        self.each(|group| {
            let bit = members[order[group]][next[group]];
            next[group] += 1;
            words[at / 64] |= u64::from(bit) << (at % 64);
            at += 1;
        });
        Mask::from_packed(mask.shape(), words)
    }

    /// The mask of the weights whose groups are kept.
    pub(crate) fn expand(&self, shape: &[usize], kept: &[u64]) -> Result<Mask> {
        let mut words = Vec::new();
        let (mut word, mut filled) = (0u64, 0);
        self.each(|group| {
            word |= (kept[group / 64] >> (group % 64) & 1) << filled;
            filled += 1;
            if filled == 64 {
                words.push(word);
                (word, filled) = (0, 0);
            }
        });
        if filled > 0 {
            words.push(word);
        }
        Mask::from_packed(shape, words)
    }
}

/// # Errors
/// At the first value that is NaN or infinite.
pub(crate) fn check_finite(scores: &[f32]) -> Result<()> {
    use rayon::prelude::*;
    // The sign bit aside, NaN and infinity are the bit patterns from that of infinity on.
    let odd = |score: &f32| score.to_bits() & 0x7FFF_FFFF >= f32::INFINITY.to_bits();
    match scores.par_chunks(1 << 16).position_first(|chunk| chunk.iter().any(odd)) {
        None => Ok(()),
        Some(chunk) => {
            let start = chunk << 16;
            let index = scores[start..].iter().position(odd).map_or(start, |i| start + i);
            Err(Error::NotFinite { index, value: scores[index] })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_are_what_they_are_called() -> Result<()> {
        let rows = Grouping::over(&[2, 3], |axis| axis == 1);
        let scores = [1.0, 2.0, -6.0, 0.5, 0.0, 0.25];
        assert_eq!(rows.reduce(&scores, Reduction::Mean, None)?, [-1.0, 0.25]);
        assert_eq!(rows.reduce(&scores, Reduction::Sum, None)?, [-3.0, 0.75]);
        assert_eq!(rows.reduce(&scores, Reduction::Max, None)?, [2.0, 0.5]);
        assert_eq!(rows.reduce(&[3.0, 4.0, 0.0, 0.0, 2.0, 0.0], Reduction::L2, None)?, [5.0, 2.0]);
        Ok(())
    }

    #[test]
    fn pruned_weights_do_not_speak_for_their_group() -> Result<()> {
        let rows = Grouping::over(&[2, 2], |axis| axis == 1);
        let previous = Mask::from_fn([2, 2], |i| i != 0)?;
        let scores = [9.0, 0.1, 1.0, 1.0];
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::L2, Reduction::Max] {
            let groups = rows.reduce(&scores, reduction, Some(&previous))?;
            assert!(groups[0] < groups[1], "{reduction:?}: {groups:?}");
        }
        Ok(())
    }

    #[test]
    fn a_norm_of_negative_scores_is_refused() {
        let rows = Grouping::over(&[2, 2], |axis| axis == 1);
        let result = rows.reduce(&[-5.0, -5.0, -1.0, -1.0], Reduction::L2, None);
        assert!(matches!(result, Err(Error::NegativeNorm { index: 0, value: -5.0 })));
    }

    #[test]
    fn a_group_too_large_for_f32_is_named() {
        let all = Grouping::over(&[2], |_| true);
        let result = all.reduce(&[f32::MAX, f32::MAX], Reduction::Sum, None);
        assert!(matches!(result, Err(Error::NotFinite { index: 0, .. })));
    }

    #[test]
    fn groups_expand_to_their_weights() -> Result<()> {
        let columns = Grouping::over(&[2, 3], |axis| axis == 0);
        assert_eq!(columns.expand(&[2, 3], &[0b101])?.to_bytes(), [0b101_101]);
        let heads = Grouping::blocks(&[4, 2], 0, |row| row % 2, 2);
        assert_eq!(heads.expand(&[4, 2], &[0b10])?.to_bytes(), [0b1100_1100]);
        let empty = Grouping::over(&[0, 3], |axis| axis == 0);
        assert!(empty.expand(&[0, 3], &[0b111])?.is_empty());
        Ok(())
    }

    #[test]
    fn only_single_weights_in_order_are_elementwise() {
        assert!(Grouping::over(&[2, 3, 4], |_| false).is_elementwise());
        assert!(Grouping::over(&[2, 1, 4], |axis| axis == 1).is_elementwise());
        assert!(!Grouping::over(&[2, 3], |axis| axis == 0).is_elementwise());
        assert!(!Grouping::blocks(&[2, 1], 0, |i| 1 - i, 2).is_elementwise());
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() {
        let mut scores = vec![0.0; 200_000];
        assert!(check_finite(&scores).is_ok());
        scores[150_000] = f32::NEG_INFINITY;
        scores[70_001] = f32::NAN;
        assert!(matches!(check_finite(&scores), Err(Error::NotFinite { index: 70_001, value }) if value.is_nan()));
    }
}
