//! What is kept of each tensor, and the smaller tensors.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};

use super::connections::{Axis, Channels, Connections};
use crate::error::{Error, Named, Result};
use crate::mask::Mask;
use crate::set::MaskSet;

/// Which channels of a network are kept, and which indices of each of its tensors.
///
/// A channel goes if it is always zero (all that writes it is pruned) or nothing reads it (all that reads it is pruned).
/// What goes takes other channels with it: a filter whose remaining inputs have all gone is always zero too. A residual
/// stream keeps a channel that any of its writers writes. Of each list of channels at least one is kept.
///
/// A channel that is zero must stay so on its way: through ReLU, GELU, pooling and dropout it does, through a sigmoid not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionPlan {
    /// By the channels' names.
    kept: BTreeMap<String, Vec<usize>>,
    /// By tensor: axis, and the indices kept on it.
    cuts: BTreeMap<String, Vec<(usize, Vec<u32>)>>,
    shapes: BTreeMap<String, Vec<usize>>,
    masks: MaskSet,
}

impl CompactionPlan {
    /// The plan for a network with these masks. Of `tensors`, the network's, only the shapes are used.
    ///
    /// # Errors
    /// If a tensor is missing, a mask's shape is another than its tensor's, or the description does not fit the tensors.
    pub fn new(connections: &Connections, masks: &MaskSet, tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        for (name, mask) in masks.iter() {
            let tensor = tensors.get(name).ok_or(Error::Missing { what: "tensor (it has a mask)" }).named(name)?;
            mask.check_shape(tensor.dims()).named(name)?;
        }
        let sizes = connections.channels.iter().map(|c| size(c, tensors)).collect::<Result<Vec<_>>>()?;
        let mut names = BTreeSet::new();
        if let Some(twice) = connections.channels.iter().find(|c| !names.insert(&c.name)) {
            return Err(Error::Name("there twice")).named(&twice.name);
        }
        check_cover(connections, &sizes, tensors)?;
        let gone = gone(connections, &sizes, masks, tensors)?;

        let mut keep: BTreeMap<(&str, usize), Vec<bool>> = BTreeMap::new();
        let mut affine: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
        for ((channels, &size), gone) in connections.channels.iter().zip(&sizes).zip(&gone) {
            for axis in channels.axes() {
                let keep = keep.entry((&axis.tensor, axis.axis)).or_insert_with(|| vec![true; dim(axis, tensors)]);
                each_place(axis, size, |channel, place| keep[place] &= !gone.cut[channel]);
            }
            for axis in &channels.affine {
                let alive = affine.entry(&axis.tensor).or_insert_with(|| vec![true; dim(axis, tensors)]);
                each_place(axis, size, |channel, place| alive[place] &= !gone.silent[channel]);
            }
        }
        let mut all_masks = masks.clone();
        for (name, alive) in affine.into_iter().filter(|(_, alive)| alive.contains(&false)) {
            let shape = tensors[name].dims();
            let inner = shape[1..].iter().product::<usize>().max(1);
            let mut mask = Mask::from_fn(shape, |i| alive[i / inner]).named(name)?;
            if let Some(given) = masks.get(name) {
                mask = mask.intersection(given).named(name)?;
            }
            all_masks.insert(name, mask);
        }

        let mut cuts: BTreeMap<String, Vec<(usize, Vec<u32>)>> = BTreeMap::new();
        let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (name, tensor) in tensors {
            shapes.insert(name.clone(), tensor.dims().to_vec());
        }
        for ((name, axis), keep) in keep.into_iter().filter(|(_, keep)| keep.contains(&false)) {
            let kept: Vec<u32> = (0u32..).zip(keep).filter(|(_, keep)| *keep).map(|(i, _)| i).collect();
            if let Some(shape) = shapes.get_mut(name) {
                shape[axis] = kept.len();
            }
            cuts.entry(name.to_owned()).or_default().push((axis, kept));
        }
        let kept =
            connections.channels.iter().zip(gone).map(|(channels, gone)| {
                (channels.name.clone(), (0..gone.cut.len()).filter(|&c| !gone.cut[c]).collect())
            });
        Ok(Self { kept: kept.collect(), cuts, shapes, masks: all_masks })
    }

    /// The channels kept, ascending, of those with this name.
    #[must_use]
    pub fn kept(&self, channels: &str) -> Option<&[usize]> {
        self.kept.get(channels).map(Vec::as_slice)
    }

    /// The indices kept on each axis of this tensor that is cut, ascending.
    #[must_use]
    pub fn indices(&self, tensor: &str) -> &[(usize, Vec<u32>)] {
        self.cuts.get(tensor).map_or(&[], Vec::as_slice)
    }

    /// The shapes of the smaller tensors, by name: what the smaller network is built from.
    #[must_use]
    pub fn shapes(&self) -> &BTreeMap<String, Vec<usize>> {
        &self.shapes
    }

    /// The masks under which the network computes what the smaller one does: those given, and those of the biases and
    /// norms' scales and shifts of channels that are always zero.
    ///
    /// Without these a pruned filter's batch norm still adds its shift; fasterai zeroes them too (`sparsify_batchnorm`).
    #[must_use]
    pub fn masks(&self) -> &MaskSet {
        &self.masks
    }

    /// The smaller tensors; those that the plan does not cut are copies.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or is not masked by [`CompactionPlan::masks`]: the smaller network would
    /// compute something else.
    pub fn apply(&self, tensors: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        for (name, mask) in self.masks.iter() {
            let tensor = tensors.get(name).ok_or(Error::Missing { what: "tensor" }).named(name)?;
            mask.check_shape(tensor.dims()).named(name)?;
            let nonzero = Mask::from_tensor(&tensor.ne(0f64)?).named(name)?;
            if let Some(index) = nonzero.first_outside(mask).named(name)? {
                return Err(Error::NotMasked { index }).named(name);
            }
        }
        if let Some(name) = self.cuts.keys().find(|name| !tensors.contains_key(*name)) {
            return Err(Error::Missing { what: "tensor" }).named(name);
        }
        tensors.iter().map(|(name, tensor)| Ok((name.clone(), self.cut(name, tensor)?))).collect()
    }

    /// The smaller tensors' masks.
    ///
    /// # Errors
    /// If a mask's shape is another than its tensor's.
    pub fn apply_to_masks(&self, masks: &MaskSet) -> Result<MaskSet> {
        let cut = |(name, mask): (&str, &Mask)| {
            let small = self.cut(name, &mask.to_tensor(&Device::Cpu)?)?;
            Ok((name.to_owned(), Mask::from_tensor(&small).named(name)?))
        };
        masks.iter().map(cut).collect()
    }

    fn cut(&self, name: &str, tensor: &Tensor) -> Result<Tensor> {
        if self.indices(name).is_empty() {
            return tensor.copy().named(name);
        }
        let mut tensor = tensor.clone();
        for (axis, kept) in self.indices(name) {
            let indices = Tensor::new(kept.as_slice(), tensor.device()).named(name)?;
            tensor = tensor.contiguous().and_then(|t| t.index_select(&indices, *axis)).named(name)?;
        }
        Ok(tensor)
    }
}

/// Which channels of one list go.
struct Gone {
    /// Those that are always zero.
    silent: Vec<bool>,
    /// Those that are cut out.
    cut: Vec<bool>,
}

/// The number of channels: as many as the first tensor that lists them alone has places for.
fn size(channels: &Channels, tensors: &BTreeMap<String, Tensor>) -> Result<usize> {
    let described = |axis: &Axis, reason| {
        let text = format!("channels `{}` {reason}", channels.name);
        Err(Error::Selection(text)).named(&axis.tensor)
    };
    for axis in channels.axes() {
        let Some(tensor) = tensors.get(&axis.tensor) else {
            return Err(Error::Missing { what: "tensor (the network's connections name it)" }).named(&axis.tensor);
        };
        if axis.axis >= tensor.rank() || axis.axis > 1 {
            return described(axis, "lie along an axis that it does not have");
        }
        if axis.copies == 0 || axis.span == 0 {
            return described(axis, "have no place in it");
        }
    }
    for axis in channels.producers.iter().chain(&channels.consumers) {
        if !matches!(tensors[&axis.tensor].rank(), 2..) {
            return described(axis, "are written or read by a tensor of less than two dimensions");
        }
    }
    let whole = channels.axes().find(|axis| axis.offset == 0).or(channels.axes().next());
    let Some(axis) = whole else {
        return Err(Error::Selection("channels lie in no tensor".to_owned())).named(&channels.name);
    };
    Ok(dim(axis, tensors) / axis.copies.saturating_mul(axis.span))
}

fn dim(axis: &Axis, tensors: &BTreeMap<String, Tensor>) -> usize {
    tensors[&axis.tensor].dims()[axis.axis]
}

/// Calls `visit(channel, place)` for each place of each channel.
fn each_place(axis: &Axis, size: usize, mut visit: impl FnMut(usize, usize)) {
    for copy in 0..axis.copies {
        for channel in 0..size {
            let start = axis.offset + (copy * size + channel) * axis.span;
            (start..start + axis.span).for_each(|place| visit(channel, place));
        }
    }
}

/// Every place of every axis named belongs to exactly one channel.
fn check_cover(connections: &Connections, sizes: &[usize], tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut taken: BTreeMap<(&str, usize), Vec<bool>> = BTreeMap::new();
    for (channels, &size) in connections.channels.iter().zip(sizes) {
        for axis in channels.axes() {
            let dim = dim(axis, tensors);
            let name = &channels.name;
            let places = size.checked_mul(axis.copies).and_then(|n| n.checked_mul(axis.span)?.checked_add(axis.offset));
            if places.is_none_or(|places| places > dim) {
                let text = format!("axis {} has {dim} places, too few for {size} channels `{name}`", axis.axis);
                return Err(Error::Selection(text)).named(&axis.tensor);
            }
            let taken = taken.entry((&axis.tensor, axis.axis)).or_insert_with(|| vec![false; dim]);
            let mut twice = None;
            each_place(axis, size, |_, place| {
                if std::mem::replace(&mut taken[place], true) {
                    twice = Some(place);
                }
            });
            if let Some(place) = twice {
                let text = format!("place {place} on axis {} belongs to two channels, one of `{name}`", axis.axis);
                return Err(Error::Selection(text)).named(&axis.tensor);
            }
        }
    }
    for ((tensor, axis), taken) in taken {
        if let Some(place) = taken.iter().position(|taken| !taken) {
            let text = format!("place {place} on axis {axis} belongs to no channel, but others there do");
            return Err(Error::Selection(text)).named(tensor);
        }
    }
    Ok(())
}

/// A weight as a matrix of its first two axes: whether anything between two indices is kept.
struct Links {
    columns: usize,
    alive: Vec<bool>,
}

impl Links {
    fn new(tensor: &Tensor, mask: Option<&Mask>) -> Self {
        let dims = tensor.dims();
        let columns = dims.get(1).copied().unwrap_or(1);
        let inner = dims.iter().skip(2).product::<usize>();
        let mut alive = vec![mask.is_none(); dims[0] * columns];
        mask.into_iter().flat_map(Mask::kept_indices).for_each(|i| alive[i / inner] = true);
        Self { columns, alive }
    }

    fn places(&self, axis: usize, place: usize) -> impl Iterator<Item = usize> + use<> {
        let rows = self.alive.len() / self.columns.max(1);
        let (start, step, count) =
            if axis == 0 { (place * self.columns, 1, self.columns) } else { (place, self.columns, rows) };
        (0..count).map(move |i| start + i * step)
    }

    /// Whether each channel has anything alive.
    fn live_channels(&self, axis: &Axis, size: usize) -> Vec<bool> {
        let mut live = vec![false; size];
        each_place(axis, size, |channel, place| {
            live[channel] = live[channel] || self.places(axis.axis, place).any(|at| self.alive[at]);
        });
        live
    }

    fn clear(&mut self, axis: &Axis, size: usize, channels: &[bool]) {
        each_place(axis, size, |channel, place| {
            if channels[channel] {
                self.places(axis.axis, place).for_each(|at| self.alive[at] = false);
            }
        });
    }
}

fn gone(
    connections: &Connections,
    sizes: &[usize],
    masks: &MaskSet,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Vec<Gone>> {
    let mut links: BTreeMap<&str, Links> = BTreeMap::new();
    for channels in &connections.channels {
        for axis in channels.producers.iter().chain(&channels.through).chain(&channels.consumers) {
            let name = axis.tensor.as_str();
            links.entry(name).or_insert_with(|| Links::new(&tensors[name], masks.get(name)));
        }
    }
    let mut gone: Vec<Gone> = sizes.iter().map(|&n| Gone { silent: vec![false; n], cut: vec![false; n] }).collect();
    loop {
        let mut changed = false;
        for ((channels, &size), gone) in connections.channels.iter().zip(sizes).zip(&mut gone) {
            let live = |axis: &Axis| links[axis.tensor.as_str()].live_channels(axis, size);
            let written: Vec<_> = channels.producers.iter().map(live).collect();
            let passed: Vec<_> = channels.through.iter().map(live).collect();
            let read: Vec<_> = channels.consumers.iter().map(live).collect();
            let mut newly = vec![false; size];
            for channel in (0..size).filter(|&c| !gone.cut[c]).collect::<Vec<_>>() {
                let none = |lists: &[Vec<bool>]| !lists.is_empty() && lists.iter().all(|live| !live[channel]);
                let silent = none(&written) || passed.iter().any(|live| !live[channel]);
                if silent || none(&read) {
                    gone.silent[channel] = silent;
                    gone.cut[channel] = true;
                    newly[channel] = true;
                    changed = true;
                }
            }
            for axis in channels.producers.iter().chain(&channels.consumers) {
                if let Some(links) = links.get_mut(axis.tensor.as_str()) {
                    links.clear(axis, size, &newly);
                }
            }
        }
        if !changed {
            break;
        }
    }
    for gone in &mut gone {
        if gone.cut.iter().all(|&cut| cut)
            && let Some(first) = gone.cut.first_mut()
        {
            *first = false; // a network without any channel here is none; its weights stay zero
        }
    }
    Ok(gone)
}
