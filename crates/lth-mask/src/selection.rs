//! From scores to masks.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;
use rayon::prelude::*;

use crate::cut::{self, Layers};
use crate::error::{Error, Named, Result};
use crate::granularity::{Granularity, Layer};
use crate::group::{Grouping, Reduction, check_finite};
use crate::mask::Mask;
use crate::pattern::{self, matches_any, most_specific};
use crate::rank::Cut;
use crate::rule::{ThresholdRule, check_sparsity};
use crate::scope::{Scope, erdos_renyi_weight};
use crate::set::MaskSet;
use crate::values::Values;

mod per_output;

/// How scores become masks: what is pruned as one, over what the budget is shared, and how it is cut.
///
/// The default prunes single weights, each layer by itself, to the exact count, and empties no layer.
///
/// Layers are named by their parameter's name or by a pattern (see [`matches`](crate::matches)); a pattern that fits none
/// of the scores is an error. So is a field of another name, where a selection is read from a file.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// What is pruned as one.
    pub granularity: Granularity,
    /// What is pruned as one in the layers named here, by the most specific pattern that fits: filters of convolutions
    /// with rows of linear layers, say. Layers that share a budget share it in groups, whatever their size; N:M shares
    /// none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub granularities: BTreeMap<String, Granularity>,
    /// How the scores of a group become one.
    pub reduction: Reduction,
    /// Over what the budget is shared.
    pub scope: Scope,
    /// How a sparsity becomes a cut.
    pub rule: ThresholdRule,
    /// Layers that are not pruned: they get no mask and do not count.
    pub keep_dense: Vec<String>,
    /// Groups that every layer keeps whatever the budget says; a layer with fewer keeps them all. A scope that shares its
    /// budget takes them from the other layers where it can.
    pub minimum_kept: usize,
    /// The number of groups kept in each layer is a multiple of this, or all of them. The budget is held where
    /// `minimum_kept` allows: a layer that has its own keeps the multiple below; of layers that share one, those that miss
    /// most by that keep a multiple more while there is budget for it.
    pub round_to: usize,
    /// Which weights have their inputs before their outputs: transposed convolutions, `[I, O, H, W]`, linear weights
    /// `[I, O]` (GPT-2's `Conv1D`), fused experts `[E, I, O]`.
    pub transposed: Vec<String>,
    /// Which weights of rank 3 are those of fused experts, `[E, O, I]`; others are one-dimensional convolutions'.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub experts: Vec<String>,
    /// Weights that share one decision per group, such as the filters that write to one residual stream: each list's
    /// group scores are averaged, and its masks keep the same groups. A shared group counts once.
    pub tied: Vec<Vec<String>>,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            granularity: Granularity::Weight,
            granularities: BTreeMap::new(),
            reduction: Reduction::Mean,
            scope: Scope::Local,
            rule: ThresholdRule::ExactCount,
            keep_dense: Vec::new(),
            minimum_kept: 1,
            round_to: 1,
            transposed: Vec::new(),
            experts: Vec::new(),
            tied: Vec::new(),
        }
    }
}

impl Selection {
    /// What fasterai did at the time of the 2021 notebook: single weights, each layer by itself, the quantile rule.
    #[must_use]
    pub fn fasterai_2021() -> Self {
        Self { rule: ThresholdRule::Quantile, ..Self::default() }
    }

    pub(crate) fn granularity_of(&self, name: &str) -> &Granularity {
        let pattern = most_specific(self.granularities.keys().map(String::as_str), name);
        pattern.and_then(|pattern| self.granularities.get(pattern)).unwrap_or(&self.granularity)
    }

    /// # Errors
    /// If it is named as experts and has not three dimensions.
    pub(crate) fn layer_of(&self, name: &str, shape: &[usize]) -> Result<Layer> {
        let transposed = matches_any(&self.transposed, name);
        if matches_any(&self.experts, name) {
            return Layer::experts(shape, transposed).named(name);
        }
        Ok(Layer::of(shape, transposed))
    }

    /// Checks that every pattern fits one of these names, as selecting does.
    ///
    /// # Errors
    /// If a pattern fits none.
    pub fn check_patterns<'n>(&self, names: impl Iterator<Item = &'n str> + Clone) -> Result<()> {
        pattern::check("keep_dense", &self.keep_dense, names.clone())?;
        pattern::check("transposed", &self.transposed, names.clone())?;
        pattern::check("experts", &self.experts, names.clone())?;
        pattern::check("granularities", self.granularities.keys(), names.clone())?;
        match &self.scope {
            Scope::PerLayer(map) => pattern::check("scope per layer", map.keys(), names),
            _ => Ok(()),
        }
    }
}

/// Masks that keep the weights with the highest scores, at the sparsity asked for.
///
/// `scores`: a map (`BTreeMap` or `HashMap`) by parameter name, finite, of any rank; f32 (f16 and bf16 are widened, f64
/// rounded).
/// `sparsity`: the fraction pruned of what may be pruned. The masks do not depend on the number of threads, nor on the
/// order of the map.
///
/// # Errors
/// If a score is NaN or infinite, the sparsity is no fraction, a tensor does not have the granularity, or a pattern of the
/// selection fits no name.
pub fn select<'t>(
    scores: impl IntoIterator<Item = (&'t String, &'t Tensor)>,
    sparsity: f64,
    selection: &Selection,
) -> Result<MaskSet> {
    Job::new(by_name(scores)?, selection, None)?.select(sparsity)
}

/// As [`select`], but keeps only what `previous` keeps: masks of one round of iterative pruning after another are nested.
///
/// `sparsity` is still the fraction of all weights; a layer whose previous mask keeps fewer stays as it is. A group of
/// which the previous mask keeps nothing cannot be chosen; of a group that is chosen, what it kept stays. A previous mask
/// that prunes something of a tensor which is not selected now (it is kept dense, or has no score) is among the masks as
/// it was, and does not count.
///
/// # Errors
/// As [`select`], and if a score has no previous mask or one of another shape.
pub fn select_within<'t>(
    scores: impl IntoIterator<Item = (&'t String, &'t Tensor)>,
    sparsity: f64,
    selection: &Selection,
    previous: &MaskSet,
) -> Result<MaskSet> {
    let mut masks = Job::new(by_name(scores)?, selection, Some(previous))?.select(sparsity)?;
    for (name, mask) in previous.iter().filter(|(_, mask)| mask.zeros() > 0) {
        if masks.get(name).is_none() {
            masks.insert(name, mask.clone());
        }
    }
    Ok(masks)
}

/// A tensor that is to be pruned.
struct Member<'a> {
    name: &'a str,
    shape: &'a [usize],
    layer: Layer,
    granularity: &'a Granularity,
    scores: Values<'a>,
    previous: Option<&'a Mask>,
}

struct Job<'a> {
    selection: &'a Selection,
    members: Vec<Member<'a>>,
}

/// Tensors that are decided together: one, or those of a tie.
struct Unit<'m> {
    members: Vec<usize>,
    /// How weights form groups; `None` where each is one, in order.
    groupings: Vec<Option<Grouping>>,
    scores: std::borrow::Cow<'m, [f32]>,
    /// Groups that may be kept.
    available: usize,
}

impl<'a> Job<'a> {
    fn new(
        scores: BTreeMap<&'a str, &'a Tensor>,
        selection: &'a Selection,
        previous: Option<&'a MaskSet>,
    ) -> Result<Self> {
        if selection.round_to == 0 {
            return Err(Error::Selection("round_to is 0, expected at least 1".to_owned()));
        }
        selection.check_patterns(scores.keys().copied())?;
        let mut members = Vec::new();
        for (name, tensor) in scores {
            if matches_any(&selection.keep_dense, name) {
                continue;
            }
            let previous = previous.map(|set| {
                let mask = set.get(name).ok_or(Error::Missing { what: "previous mask" })?;
                mask.check_shape(tensor.dims())?;
                Ok::<_, Error>(mask)
            });
            members.push(Member {
                name,
                shape: tensor.dims(),
                layer: selection.layer_of(name, tensor.dims())?,
                granularity: selection.granularity_of(name),
                scores: Values::of(tensor).named(name)?,
                previous: previous.transpose().named(name)?,
            });
        }
        for member in &members {
            check_finite(member.scores.as_slice()).named(member.name)?;
        }
        Ok(Self { selection, members })
    }

    fn select(&self, sparsity: f64) -> Result<MaskSet> {
        if self.selection.scope == Scope::PerOutput {
            return self.select_per_output(sparsity);
        }
        check_sparsity(sparsity)?;
        let mut patterned = self.select_patterns(sparsity)?;
        let units = self.units()?;
        let cuts = self.cuts(&units, sparsity)?;
        let names: Vec<_> = self.members.iter().map(|m| m.name.to_owned()).collect();
        let masks: Result<Vec<Vec<(usize, Mask)>>> =
            units.par_iter().zip(cuts).map(|(unit, (cut, lamp))| self.masks(unit, cut, lamp.as_deref())).collect();
        let masks = masks?.into_iter().flatten().map(|(member, mask)| (names[member].clone(), mask));
        masks.for_each(|(name, mask)| drop(patterned.insert(name, mask)));
        Ok(patterned)
    }

    /// Groups the weights, joins the ties.
    fn units(&self) -> Result<Vec<Unit<'_>>> {
        let values: Vec<&[f32]> = self.members.iter().map(|m| m.scores.as_slice()).collect();
        let grouped: Result<Vec<_>> = self.members.par_iter().zip(values).map(|(m, v)| self.unit(m, v)).collect();
        let mut units: Vec<Option<Unit<'_>>> = grouped?;
        for (member, unit) in units.iter_mut().enumerate() {
            unit.iter_mut().for_each(|unit| unit.members.push(member));
        }
        for tie in &self.selection.tied {
            self.join(tie, &mut units)?;
        }
        Ok(units.into_iter().flatten().collect())
    }

    /// A member's groups; none of one with an N:M pattern, which is decided by itself.
    fn unit<'m>(&self, member: &'m Member<'_>, values: &'m [f32]) -> Result<Option<Unit<'m>>> {
        if matches!(member.granularity, Granularity::NM { .. }) {
            return Ok(None);
        }
        let Selection { reduction, .. } = *self.selection;
        let kept = member.previous.filter(|mask| mask.zeros() > 0);
        if values.is_empty() {
            // Nothing to group; and a shape such as [2^40, 0] has groups without end.
            let scores = values.into();
            return Ok(Some(Unit { members: Vec::new(), groupings: vec![None], scores, available: 0 }));
        }
        let grouping = member.granularity.groups(member.shape, member.layer).named(member.name)?;
        let (grouping, mut scores): (_, std::borrow::Cow<'_, [f32]>) = if grouping.is_elementwise() {
            (None, values.into())
        } else {
            let scores = grouping.reduce(values, reduction, kept).named(member.name)?;
            (Some(grouping), scores.into())
        };
        let mut available = scores.len();
        if let Some(mask) = kept {
            let dead: Vec<bool> = match &grouping {
                None => mask.iter().map(|keep| !keep).collect(),
                Some(grouping) => grouping.dead(mask),
            };
            available -= dead.iter().filter(|&&dead| dead).count();
            let scores = scores.to_mut();
            for (score, _) in scores.iter_mut().zip(dead).filter(|(_, dead)| *dead) {
                *score = f32::NEG_INFINITY;
            }
        }
        Ok(Some(Unit { members: Vec::new(), groupings: vec![grouping], scores, available }))
    }

    fn join(&self, tie: &[String], units: &mut [Option<Unit<'_>>]) -> Result<()> {
        let mut found = Vec::new();
        for name in tie.iter().collect::<BTreeSet<_>>() {
            let member = self.members.iter().position(|m| m.name == name);
            let member = member.ok_or(Error::Missing { what: "score (it is tied)" }).named(name)?;
            found.push(units[member].take().ok_or(Error::Name("tied twice")).named(name)?);
        }
        let Some((first, rest)) = found.split_first_mut() else {
            return Ok(());
        };
        let mut sums: Vec<f64> = first.scores.iter().map(|&s| f64::from(s)).collect();
        for unit in rest.iter_mut() {
            if unit.scores.len() != sums.len() {
                let (got, expected) = (unit.scores.len(), sums.len());
                let other = self.members[first.members[0]].name;
                let text = format!("tied, with {got} groups, expected {expected} as in `{other}`");
                return Err(Error::Selection(text)).named(self.members[unit.members[0]].name);
            }
            sums.iter_mut().zip(unit.scores.iter()).for_each(|(sum, &s)| *sum += f64::from(s));
            first.members.append(&mut unit.members);
            first.groupings.append(&mut unit.groupings);
        }
        let n = first.members.len() as f64;
        // Dead in one is dead in all: −∞ stays −∞.
        first.scores = sums.iter().map(|&sum| (sum / n) as f32).collect();
        first.available = first.scores.iter().filter(|s| s.is_finite()).count();
        let at = first.members[0];
        units[at] = Some(found.swap_remove(0));
        Ok(())
    }

    /// Where each unit is cut; with LAMP scores where these are what is cut.
    fn cuts(&self, units: &[Unit<'_>], sparsity: f64) -> Result<Vec<(Cut, Option<Vec<f32>>)>> {
        let Selection { scope, rule, minimum_kept, round_to, .. } = self.selection;
        let mut own = Vec::new();
        let mut weights = Vec::new();
        for unit in units {
            let member = |&i: &usize| &self.members[i];
            own.push(scope.own_sparsity(self.members[unit.members[0]].name, sparsity)?);
            let kernel = *scope == Scope::ErdosRenyiKernel;
            let sum: f64 = unit.members.iter().map(|i| erdos_renyi_weight(member(i).one_layer(), kernel)).sum();
            weights.push(sum / unit.members.len() as f64);
        }
        let mut lamps: Vec<Option<Vec<f32>>> = vec![None; units.len()];
        if *scope == Scope::Lamp {
            let lamp =
                |unit: &Unit<'_>| crate::scope::lamp(&unit.scores).named(self.members[unit.members[0]].name).map(Some);
            // One after the other, each in parallel: one sort's memory at a time.
            lamps = units.iter().map(lamp).collect::<Result<_>>()?;
        }
        let layers = Layers {
            scores: units.iter().map(|u| &*u.scores).collect(),
            shared: units.iter().zip(&lamps).map(|(u, lamp)| lamp.as_deref().unwrap_or(&u.scores)).collect(),
            bounds: units.iter().map(|u| (u.available.min(*minimum_kept), u.available)).collect(),
            own,
            erdos_renyi: weights,
            round_to: *round_to,
        };
        let cuts = cut::cuts(&layers, scope, *rule, sparsity)?;
        drop(layers);
        // An exact count is taken by the scores themselves, which LAMP only shares out.
        if *rule == ThresholdRule::ExactCount {
            lamps.fill(None);
        }
        Ok(cuts.into_iter().zip(lamps).collect())
    }

    fn masks(&self, unit: &Unit<'_>, cut: Cut, lamp: Option<&[f32]>) -> Result<Vec<(usize, Mask)>> {
        let kept = cut.apply(lamp.unwrap_or(&unit.scores));
        let mask = |(&i, grouping): (&usize, &Option<Grouping>)| {
            let Member { name, shape, previous, .. } = &self.members[i];
            let mut mask = match grouping {
                Some(grouping) => grouping.expand(shape, &kept),
                None => Mask::from_packed(shape, kept.clone()),
            }
            .named(name)?;
            if let Some(previous) = previous {
                mask = mask.intersection(previous).named(name)?;
            }
            Ok((i, mask))
        };
        unit.members.iter().zip(&unit.groupings).map(mask).collect()
    }

    /// The masks of the members that have an N:M pattern.
    fn select_patterns(&self, sparsity: f64) -> Result<MaskSet> {
        let Selection { scope, rule, round_to, tied, .. } = self.selection;
        let mut masks = MaskSet::new();
        for member in &self.members {
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
            masks.insert(member.name, member.select_pattern(own, n, m).named(member.name)?);
        }
        Ok(masks)
    }
}

impl Member<'_> {
    fn select_pattern(&self, sparsity: f64, n: usize, m: usize) -> Result<Mask> {
        // 0.667 is what a person writes for 1:3.
        let whole = 1.0 - n as f64 / m as f64;
        let sparsity = if sparsity > whole && sparsity - whole <= 0.0005 { whole } else { sparsity };
        crate::nm::select(self.scores.as_slice(), self.shape, self.layer, (n, m), sparsity, self.previous)
    }

    /// The shape of one layer: that of one expert where several are fused.
    fn one_layer(&self) -> &[usize] {
        match self.layer {
            Layer::Experts | Layer::TransposedExperts => &self.shape[1..],
            _ => self.shape,
        }
    }
}

/// # Errors
/// If a name is there twice, which it is in no map.
fn by_name<'t>(scores: impl IntoIterator<Item = (&'t String, &'t Tensor)>) -> Result<BTreeMap<&'t str, &'t Tensor>> {
    let mut sorted = BTreeMap::new();
    for (name, tensor) in scores {
        if sorted.insert(name.as_str(), tensor).is_some() {
            return Err(Error::Name("there twice")).named(name);
        }
    }
    Ok(sorted)
}
