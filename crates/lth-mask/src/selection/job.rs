//! Tensors that are to be pruned, joined into units, cut, and made into masks.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;
use rayon::prelude::*;

use super::{Selection, Streamed};
use crate::cut::{self, Layers};
use crate::error::{Error, Named, Result};
use crate::granularity::{Granularity, Layer};
use crate::group::{Grouping, check_finite};
use crate::layerwise::{Layerwise, Scores};
use crate::mask::Mask;
use crate::pattern::matches_any;
use crate::rank::Cut;
use crate::rule::{ThresholdRule, check_sparsity};
use crate::scope::{Scope, erdos_renyi_weight, lamp};
use crate::set::MaskSet;
use crate::values::Values;

/// A tensor that is to be pruned.
pub(super) struct Member<'a> {
    pub(super) name: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) layer: Layer,
    pub(super) granularity: &'a Granularity,
}

/// Where the scores of members come from, and what each is selected within.
pub(super) enum Source<'a> {
    /// Memory, in the members' order.
    Held(Vec<(Values<'a>, Option<&'a Mask>)>),
    /// What makes those of a name, one tensor at a time.
    Streamed(&'a (dyn Fn(&str) -> Result<Streamed> + Sync)),
}

pub(super) struct Job<'a> {
    pub(super) selection: &'a Selection,
    pub(super) members: Vec<Member<'a>>,
    source: Source<'a>,
}

/// Tensors that are decided together: one, or those of a tie.
pub(super) struct Unit {
    pub(super) members: Vec<usize>,
    /// How weights form groups; `None` where each is one, in order.
    pub(super) groupings: Vec<Option<Grouping>>,
    n_groups: usize,
}

impl<'a> Job<'a> {
    /// # Errors
    /// If a setting of the selection cannot be, or fits none of the names.
    pub(super) fn new(
        shapes: impl Iterator<Item = (&'a str, &'a [usize])> + Clone,
        selection: &'a Selection,
        source: Source<'a>,
    ) -> Result<Self> {
        if selection.round_to == 0 {
            return Err(Error::Selection("round_to is 0, expected at least 1".to_owned()));
        }
        selection.check_patterns(shapes.clone().map(|(name, _)| name))?;
        let mut members = Vec::new();
        for (name, shape) in shapes.filter(|(name, _)| !matches_any(&selection.keep_dense, name)) {
            let layer = selection.layer_of(name, shape)?;
            members.push(Member { name, shape, layer, granularity: selection.granularity_of(name) });
        }
        Ok(Self { selection, members, source })
    }

    /// # Errors
    /// As [`new`](Self::new), and if scores are not finite numbers or a previous mask is missing or does not fit.
    pub(super) fn held(
        scores: &BTreeMap<&'a str, &'a Tensor>,
        selection: &'a Selection,
        previous: Option<&'a MaskSet>,
    ) -> Result<Self> {
        let shapes = scores.iter().map(|(name, tensor)| (*name, tensor.dims()));
        let mut job = Self::new(shapes, selection, Source::Held(Vec::new()))?;
        let hold = |member: &Member<'a>| -> Result<_> {
            let previous = match previous {
                Some(set) => Some(set.get(member.name).ok_or(Error::Missing { what: "previous mask" })?),
                None => None,
            };
            previous.map_or(Ok(()), |mask| mask.check_shape(member.shape))?;
            Ok((Values::of(scores[member.name])?, previous))
        };
        let held = job.members.iter().map(|member| hold(member).named(member.name)).collect::<Result<Vec<_>>>()?;
        for (member, (values, _)) in job.members.iter().zip(&held) {
            check_finite(values.as_slice()).named(member.name)?;
        }
        job.source = Source::Held(held);
        Ok(job)
    }

    pub(super) fn select(&self, sparsity: f64) -> Result<MaskSet> {
        check_sparsity(sparsity)?;
        if self.selection.scope == Scope::PerOutput {
            return self.select_per_output(sparsity);
        }
        let patterned = self.select_patterns(sparsity)?;
        let units = self.units()?;
        let masks = match self.selection.scope {
            Scope::Global | Scope::Lamp | Scope::ErdosRenyi | Scope::ErdosRenyiKernel => {
                self.select_shared(&units, sparsity)?
            }
            _ => self.each(&units, |unit| {
                let own = self.selection.scope.own_sparsity(self.members[unit.members[0]].name, sparsity)?;
                self.with_unit(unit, |groups, previous| {
                    let scores = Scores { groups: &groups, previous };
                    let cut = self.own_cut(scores, own)?;
                    self.masks(unit, cut, scores)
                })
            })?,
        };
        let masks = masks.into_iter().flatten().map(|(member, mask)| (self.members[member].name.to_owned(), mask));
        Ok(patterned.into_iter().chain(masks).collect())
    }

    /// What `find` finds in each, side by side where all scores are in memory; of several errors the first.
    pub(super) fn each<T: Sync, R: Send>(&self, all: &[T], find: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
        match self.source {
            Source::Held(_) => all.par_iter().map(&find).collect::<Vec<_>>().into_iter().collect(),
            Source::Streamed(_) => all.iter().map(find).collect(),
        }
    }

    /// What `find` finds in a member's scores and previous mask.
    fn with<R>(&self, member: usize, find: impl FnOnce(&[f32], Option<&Mask>) -> Result<R>) -> Result<R> {
        let Member { name, shape, .. } = self.members[member];
        let load = match &self.source {
            Source::Held(held) => {
                let (values, previous) = &held[member];
                return find(values.as_slice(), *previous);
            }
            Source::Streamed(load) => load,
        };
        let Streamed { scores, previous } = load(name).named(name)?;
        if scores.dims() != shape {
            let text = format!("scores have shape {:?}, expected {shape:?}", scores.dims());
            return Err(Error::Selection(text)).named(name);
        }
        previous.as_ref().map_or(Ok(()), |mask| mask.check_shape(shape)).named(name)?;
        let values = Values::of(&scores).named(name)?;
        check_finite(values.as_slice()).named(name)?;
        find(values.as_slice(), previous.as_ref())
    }

    /// What `find` finds in the scores of a unit's groups, and what each of its members is selected within.
    pub(super) fn with_unit<R>(
        &self,
        unit: &Unit,
        find: impl FnOnce(Cow<'_, [f32]>, &[Option<&Mask>]) -> Result<R>,
    ) -> Result<R> {
        if let ([member], [grouping]) = (&unit.members[..], &unit.groupings[..]) {
            return self.with(*member, |values, previous| {
                find(self.grouped(*member, grouping.as_ref(), values, previous)?, &[previous])
            });
        }
        let mut sums = vec![0.0; unit.n_groups];
        let mut previous = Vec::new();
        for (&member, grouping) in unit.members.iter().zip(&unit.groupings) {
            self.with(member, |values, kept| {
                let groups = self.grouped(member, grouping.as_ref(), values, kept)?;
                sums.iter_mut().zip(groups.iter()).for_each(|(sum, &score)| *sum += f64::from(score));
                previous.push(kept.cloned());
                Ok(())
            })?;
        }
        let n = unit.members.len() as f64;
        // Dead in one is dead in all: −∞ stays −∞.
        let groups = sums.into_iter().map(|sum| (sum / n) as f32).collect();
        find(groups, &previous.iter().map(Option::as_ref).collect::<Vec<_>>())
    }

    /// A member's scores by groups, −∞ where `previous` has nothing left.
    fn grouped<'v>(
        &self,
        member: usize,
        grouping: Option<&Grouping>,
        values: &'v [f32],
        previous: Option<&Mask>,
    ) -> Result<Cow<'v, [f32]>> {
        let kept = previous.filter(|mask| mask.zeros() > 0);
        let mut scores = match grouping {
            None => Cow::Borrowed(values),
            Some(grouping) => {
                Cow::Owned(grouping.reduce(values, self.selection.reduction, kept).named(self.members[member].name)?)
            }
        };
        if let Some(mask) = kept {
            let gone = |(score, dead): (&mut f32, bool)| {
                if dead {
                    *score = f32::NEG_INFINITY;
                }
            };
            let scores = scores.to_mut().iter_mut();
            match grouping {
                None => scores.zip(mask.iter().map(|keep| !keep)).for_each(gone),
                Some(grouping) => scores.zip(grouping.dead(mask)).for_each(gone),
            }
        }
        Ok(scores)
    }

    /// The members, those that are tied joined; none with an N:M pattern, which are decided by themselves.
    pub(super) fn units(&self) -> Result<Vec<Unit>> {
        let mut units = (0..self.members.len()).map(|member| self.unit(member)).collect::<Result<Vec<_>>>()?;
        for tie in &self.selection.tied {
            self.join(tie, &mut units)?;
        }
        Ok(units.into_iter().flatten().collect())
    }

    fn unit(&self, member: usize) -> Result<Option<Unit>> {
        let Member { name, shape, layer, granularity } = self.members[member];
        if matches!(granularity, Granularity::NM { .. }) {
            return Ok(None);
        }
        let n = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
        let n = n.ok_or_else(|| Error::TooManyElements(shape.to_vec())).named(name)?;
        if n == 0 {
            // Nothing to group; and a shape such as [2^40, 0] has groups without end.
            return Ok(Some(Unit { members: vec![member], groupings: vec![None], n_groups: 0 }));
        }
        let grouping = granularity.groups(shape, layer).named(name)?;
        let n_groups = grouping.n_groups();
        let grouping = (!grouping.is_elementwise()).then_some(grouping);
        Ok(Some(Unit { members: vec![member], groupings: vec![grouping], n_groups }))
    }

    fn join(&self, tie: &[String], units: &mut [Option<Unit>]) -> Result<()> {
        let mut found = Vec::new();
        for name in tie.iter().collect::<BTreeSet<_>>() {
            let member = self.members.iter().position(|m| m.name == name);
            let member = member.ok_or(Error::Missing { what: "score (it is tied)" }).named(name)?;
            found.push(units[member].take().ok_or(Error::Name("tied twice")).named(name)?);
        }
        let Some((first, rest)) = found.split_first_mut() else {
            return Ok(());
        };
        for unit in rest.iter_mut() {
            if unit.n_groups != first.n_groups {
                let (got, expected) = (unit.n_groups, first.n_groups);
                let other = self.members[first.members[0]].name;
                let text = format!("tied, with {got} groups, expected {expected} as in `{other}`");
                return Err(Error::Selection(text)).named(self.members[unit.members[0]].name);
            }
            first.members.append(&mut unit.members);
            first.groupings.append(&mut unit.groupings);
        }
        let at = first.members[0];
        units[at] = Some(found.swap_remove(0));
        Ok(())
    }

    /// Where a unit that shares no budget is cut.
    fn own_cut(&self, scores: Scores<'_>, own: f64) -> Result<Cut> {
        let Selection { scope, rule, minimum_kept, round_to, .. } = self.selection;
        let layers = Layers {
            scores: &[scores.groups][..],
            sizes: vec![scores.groups.len()],
            bounds: vec![bounds(scores, *minimum_kept)],
            own: vec![own],
            erdos_renyi: vec![0.0],
            round_to: *round_to,
        };
        Ok(cut::cuts(&layers, scope, *rule, own)?[0])
    }

    /// The masks of units that share one budget.
    fn select_shared(&self, units: &[Unit], sparsity: f64) -> Result<Vec<Vec<(usize, Mask)>>> {
        let Selection { scope, rule, minimum_kept, round_to, .. } = self.selection;
        let erdos_renyi = |unit: &Unit| {
            let kernel = *scope == Scope::ErdosRenyiKernel;
            let weight = |&member: &usize| erdos_renyi_weight(self.members[member].one_layer(), kernel);
            unit.members.iter().map(weight).sum::<f64>() / unit.members.len() as f64
        };
        let own = Shared::new(self, units, None)?;
        let all: Vec<usize> = (0..units.len()).collect();
        let bounds = own.look(&all, |_, scores| Ok(bounds(scores, *minimum_kept)))?;
        let lamps = (*scope == Scope::Lamp).then(|| Shared::new(self, units, Some(&own))).transpose()?;
        let layers = Layers {
            scores: lamps.as_ref().unwrap_or(&own),
            sizes: units.iter().map(|unit| unit.n_groups).collect(),
            bounds,
            own: vec![sparsity; units.len()],
            erdos_renyi: units.iter().map(erdos_renyi).collect(),
            round_to: *round_to,
        };
        let cuts = cut::cuts(&layers, scope, *rule, sparsity)?;
        // An exact count is taken by the scores themselves, which LAMP only shares out.
        let cut_by = if *rule == ThresholdRule::ExactCount { &own } else { layers.scores };
        cut_by.look(&all, |i, scores| self.masks(&units[i], cuts[i], scores))
    }

    fn masks(&self, unit: &Unit, cut: Cut, scores: Scores<'_>) -> Result<Vec<(usize, Mask)>> {
        let kept = cut.apply(scores.groups);
        let mask = |((&member, grouping), previous): ((&usize, &Option<Grouping>), &Option<&Mask>)| {
            let Member { name, shape, .. } = self.members[member];
            let mut mask = match grouping {
                Some(grouping) => grouping.expand(shape, &kept),
                None => Mask::from_packed(shape, kept.clone()),
            }
            .named(name)?;
            if let Some(previous) = previous {
                mask = mask.intersection(previous).named(name)?;
            }
            Ok((member, mask))
        };
        unit.members.iter().zip(&unit.groupings).zip(scores.previous).map(mask).collect()
    }

    /// The masks of the members that have an N:M pattern.
    fn select_patterns(&self, sparsity: f64) -> Result<MaskSet> {
        let Selection { scope, rule, round_to, tied, .. } = self.selection;
        let mut masks = MaskSet::new();
        for (i, member) in self.members.iter().enumerate() {
            let Granularity::NM { n, m } = *member.granularity else { continue };
            if !matches!(scope, Scope::Local | Scope::PerLayer(_)) {
                return Err(Error::Selection(format!(
                    "{n}:{m} fixes each layer's share, expected scope local or per layer"
                )));
            }
            if *rule != ThresholdRule::ExactCount || *round_to != 1 || !tied.is_empty() {
                return Err(Error::Selection(format!(
                    "{n}:{m} takes only the exact-count rule, no round_to and no ties"
                )));
            }
            let own = scope.own_sparsity(member.name, sparsity)?;
            let mask = self.with(i, |values, previous| member.select_pattern(values, previous, own, (n, m)));
            masks.insert(member.name, mask.named(member.name)?);
        }
        Ok(masks)
    }
}

impl Member<'_> {
    fn select_pattern(
        &self,
        values: &[f32],
        previous: Option<&Mask>,
        sparsity: f64,
        (n, m): (usize, usize),
    ) -> Result<Mask> {
        // 0.667 is what a person writes for 1:3.
        let whole = 1.0 - n as f64 / m as f64;
        let sparsity = if sparsity > whole && sparsity - whole <= 0.0005 { whole } else { sparsity };
        crate::nm::select(values, self.shape, self.layer, (n, m), sparsity, previous)
    }

    /// The shape of one layer: that of one expert where several are fused.
    fn one_layer(&self) -> &[usize] {
        match self.layer {
            Layer::Experts | Layer::TransposedExperts => &self.shape[1..],
            _ => self.shape,
        }
    }
}

/// The least and the most groups that a unit keeps.
pub(super) fn bounds(scores: Scores<'_>, minimum_kept: usize) -> (usize, usize) {
    let whole = scores.previous.iter().all(|mask| mask.is_none_or(|mask| mask.zeros() == 0));
    let available =
        if whole { scores.groups.len() } else { scores.groups.iter().filter(|score| score.is_finite()).count() };
    (available.min(minimum_kept), available)
}

/// Units that are compared with one another, by their own scores or by LAMP's.
struct Shared<'j, 'a> {
    job: &'j Job<'a>,
    units: &'j [Unit],
    is_lamp: bool,
    /// What is looked at often is held where all scores are in memory anyway: what was made of them.
    held: Vec<Option<Vec<f32>>>,
}

impl<'j, 'a> Shared<'j, 'a> {
    /// `of`: the own scores, where it is LAMP's that are wanted.
    fn new(job: &'j Job<'a>, units: &'j [Unit], of: Option<&Self>) -> Result<Self> {
        let mut shared = Self { job, units, is_lamp: of.is_some(), held: units.iter().map(|_| None).collect() };
        if matches!(job.source, Source::Streamed(_)) {
            return Ok(shared);
        }
        shared.held = match of {
            None => job.each(units, |unit| {
                job.with_unit(unit, |groups, _| match groups {
                    Cow::Borrowed(_) => Ok(None),
                    Cow::Owned(groups) => Ok(Some(groups)),
                })
            })?,
            // One after the other, each in parallel: one sort's memory at a time.
            Some(own) => (0..units.len())
                .map(|i| own.with(i, |scores| shared.lamp(i, scores).map(Some)))
                .collect::<Result<_>>()?,
        };
        Ok(shared)
    }

    fn with<R>(&self, i: usize, find: impl FnOnce(Scores<'_>) -> Result<R>) -> Result<R> {
        if let (Some(groups), Source::Held(members)) = (&self.held[i], &self.job.source) {
            let previous: Vec<_> = self.units[i].members.iter().map(|&member| members[member].1).collect();
            return find(Scores { groups, previous: &previous });
        }
        self.job.with_unit(&self.units[i], |groups, previous| {
            let scores = Scores { groups: &groups, previous };
            if self.is_lamp {
                let groups = self.lamp(i, scores)?;
                return find(Scores { groups: &groups, previous });
            }
            find(scores)
        })
    }

    fn lamp(&self, i: usize, own: Scores<'_>) -> Result<Vec<f32>> {
        lamp(own.groups).named(self.job.members[self.units[i].members[0]].name)
    }
}

impl Layerwise for Shared<'_, '_> {
    fn look<R: Send>(&self, layers: &[usize], find: impl Fn(usize, Scores<'_>) -> Result<R> + Sync) -> Result<Vec<R>> {
        self.job.each(layers, |&i| self.with(i, |scores| find(i, scores)))
    }
}
