//! Masks in which every output of every layer has the sparsity.

use std::borrow::Cow;

use super::job::{Job, Unit};
use crate::cut::{self, Layers};
use crate::error::{Error, Named, Result};
use crate::granularity::Granularity;
use crate::group::Grouping;
use crate::layerwise::Scores;
use crate::mask::Mask;
use crate::scope::Scope;
use crate::set::MaskSet;

/// The groups of a tensor by the outputs that they belong to: as many of each.
struct Outputs {
    /// Groups of one output.
    n_groups: usize,
    /// The groups, output by output; `None` where that is their own order.
    order: Option<Vec<usize>>,
}

impl Job<'_> {
    /// Cuts each output of each tensor by itself: to the rules they are so many layers.
    pub(super) fn select_per_output(&self, sparsity: f64) -> Result<MaskSet> {
        if !self.selection.tied.is_empty() {
            return Err(Error::Selection("scope per output takes no ties, expected none".to_owned()));
        }
        if self.members.iter().any(|member| matches!(member.granularity, Granularity::NM { .. })) {
            return Err(Error::Selection(
                "N:M fixes each output's share, expected scope local or per layer".to_owned(),
            ));
        }
        let units = self.units()?;
        let masks = self.each(&units, |unit| {
            let name = self.members[unit.members[0]].name;
            let mask = self.with_unit(unit, |groups, previous| {
                self.mask_per_output(unit, Scores { groups: &groups, previous }, sparsity).named(name)
            });
            Ok((name.to_owned(), mask?))
        });
        Ok(masks?.into_iter().collect())
    }

    fn mask_per_output(&self, unit: &Unit, scores: Scores<'_>, sparsity: f64) -> Result<Mask> {
        let (member, grouping) = (&self.members[unit.members[0]], &unit.groupings[0]);
        let mut kept = vec![0u64; scores.groups.len().div_ceil(64)];
        if !scores.groups.is_empty() {
            let Outputs { n_groups, order } = self.outputs(unit, scores.groups.len())?;
            let ordered: Cow<'_, [f32]> = match &order {
                None => Cow::Borrowed(scores.groups),
                Some(order) => order.iter().map(|&group| scores.groups[group]).collect(),
            };
            let rows: Vec<&[f32]> = ordered.chunks(n_groups).collect();
            let bounds = |row: &&[f32]| {
                let available = row.iter().filter(|score| score.is_finite()).count();
                (available.min(self.selection.minimum_kept), available)
            };
            let layers = Layers {
                scores: &rows[..],
                sizes: vec![n_groups; rows.len()],
                bounds: rows.iter().map(bounds).collect(),
                own: vec![sparsity; rows.len()],
                erdos_renyi: vec![0.0; rows.len()],
                round_to: self.selection.round_to,
            };
            let cuts = cut::cuts(&layers, &Scope::PerOutput, self.selection.rule, sparsity)?;
            for (output, (row, cut)) in rows.iter().zip(cuts).enumerate() {
                let bits = cut.apply(row);
                for at in 0..row.len() {
                    let place = output * n_groups + at;
                    let group = order.as_ref().map_or(place, |order| order[place]);
                    kept[group / 64] |= (bits[at / 64] >> (at % 64) & 1) << (group % 64);
                }
            }
        }
        let mask = match grouping {
            Some(grouping) => grouping.expand(member.shape, &kept)?,
            None => Mask::from_packed(member.shape, kept)?,
        };
        match scores.previous {
            [Some(previous)] => mask.intersection(previous),
            _ => Ok(mask),
        }
    }

    fn outputs(&self, unit: &Unit, n: usize) -> Result<Outputs> {
        let (member, grouping) = (&self.members[unit.members[0]], &unit.groupings[0]);
        let refused = |reason: &'static str| member.granularity.misfit(member.shape, reason);
        let Some((output_axis, input_axis)) = member.layer.output_input_axes() else {
            return Err(refused("scope per output is for linear layers and convolutions of one or two dimensions"));
        };
        // An axis before both counts layers of their own: fused experts.
        let is_within = |axis| axis != output_axis && axis >= output_axis.min(input_axis);
        let outputs = Grouping::over(member.shape, is_within);
        let n_groups = n / outputs.n_groups();
        if grouping.is_none() && !(0..output_axis).any(is_within) {
            return Ok(Outputs { n_groups, order: None });
        }
        let mut output_of_weight = Vec::new();
        outputs.each(|output| output_of_weight.push(output));
        let output_of = match grouping {
            None => output_of_weight,
            Some(grouping) => {
                let mut output_of: Vec<Option<usize>> = vec![None; n];
                let (mut weights, mut is_part) = (output_of_weight.into_iter(), true);
                grouping.each(|group| {
                    let output = weights.next();
                    is_part &= output_of[group].is_none() || output_of[group] == output;
                    output_of[group] = output;
                });
                // Groups that are whole outputs would each be alone, and none ever pruned.
                if !is_part || n_groups == 1 {
                    let reason = "under scope per output a group is a part of one output, such as a weight or a kernel";
                    return Err(refused(reason));
                }
                output_of.into_iter().flatten().collect()
            }
        };
        let mut order: Vec<usize> = (0..output_of.len()).collect();
        order.sort_by_key(|&group| output_of[group]);
        Ok(Outputs { n_groups, order: Some(order) })
    }
}
