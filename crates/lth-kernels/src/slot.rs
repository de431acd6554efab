//! The pattern of a weight that a layer and whoever masks it share.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use candle_core::{Tensor, TensorId};

use crate::forced::Forced;
use crate::pattern::Pattern;

/// Where a layer looks for the pattern of its weight, and whoever masks the weight puts it.
///
/// A layer of a model of one's own and the trainer that prunes it know of each other only the variable that they share. The
/// slot belongs to that variable: whoever asks with it, or with a tensor that is the same variable, has the same slot, for as
/// long as anyone holds it.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use lth_kernels::{Pattern, PatternSlot, linear, with_dense_gradients};
///
/// # fn main() -> candle_core::Result<()> {
/// let weight = Var::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
/// // The layer's, made with the layer.
/// let own = PatternSlot::of(weight.as_tensor());
/// // The trainer's, found by the variable.
/// let shared = PatternSlot::held(weight.as_tensor()).expect("a layer holds it");
/// shared.set(Some(Pattern::new(&Tensor::new(&[[1u8, 0], [0, 1]], &Device::Cpu)?)?));
///
/// let x = Tensor::new(&[[10f32, 100.0]], &Device::Cpu)?;
/// let y = |slot: &PatternSlot| linear(&x, weight.as_tensor(), None, slot.get().as_ref())?.to_vec2::<f32>();
/// assert_eq!(y(&own)?, [[10.0, 400.0]]);
/// // Where gradients of pruned weights are asked for, their zeros are multiplied as other weights are.
/// assert_eq!(with_dense_gradients(|| y(&own))?, [[210.0, 430.0]]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PatternSlot(Arc<Slot>);

#[derive(Debug)]
struct Slot {
    weight: TensorId,
    pattern: RwLock<Option<Pattern>>,
}

/// The slots that anyone holds. It is only ever looked into by key.
static SLOTS: LazyLock<Mutex<HashMap<TensorId, Weak<Slot>>>> = LazyLock::new(Mutex::default);

fn slots() -> MutexGuard<'static, HashMap<TensorId, Weak<Slot>>> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PatternSlot {
    /// The slot of the variable that `weight` is, made now if nobody holds it.
    pub fn of(weight: &Tensor) -> Self {
        let mut slots = slots();
        if let Some(held) = slots.get(&weight.id()).and_then(Weak::upgrade) {
            return Self(held);
        }
        let slot = Arc::new(Slot { weight: weight.id(), pattern: RwLock::new(None) });
        slots.insert(weight.id(), Arc::downgrade(&slot));
        Self(slot)
    }

    /// The slot of the variable that `weight` is, if any layer holds it.
    pub fn held(weight: &Tensor) -> Option<Self> {
        slots().get(&weight.id())?.upgrade().map(Self)
    }

    /// The pattern to compute with; `None` if the weight is dense, and within [`with_dense_gradients`].
    pub fn get(&self) -> Option<Pattern> {
        if Forced::get().ignores_patterns {
            return None;
        }
        self.0.pattern.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes `pattern` that of the weight. Of the same mask it stays as it was, and with it the lists that its kernels have
    /// made.
    pub fn set(&self, pattern: Option<Pattern>) {
        let mut own = self.0.pattern.write().unwrap_or_else(PoisonError::into_inner);
        if *own != pattern {
            *own = pattern;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = slots();
        // Another may have been made for the same variable meanwhile.
        if slots.get(&self.weight).is_some_and(|slot| slot.strong_count() == 0) {
            slots.remove(&self.weight);
        }
    }
}

/// Runs `work` on this thread with every [`PatternSlot`] empty: its layers multiply the zeros of pruned weights, so that a
/// backward pass through what they made gives gradients of pruned weights, too.
pub fn with_dense_gradients<R>(work: impl FnOnce() -> R) -> R {
    Forced { ignores_patterns: true, ..Forced::get() }.run(work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Result, Var};

    #[test]
    fn a_slot_lives_as_long_as_anyone_holds_it() -> Result<()> {
        let weight = Var::new(&[[1f32, 2.0]], &Device::Cpu)?;
        let id = weight.as_tensor().id();
        let is_listed = || slots().contains_key(&id);
        assert!(PatternSlot::held(weight.as_tensor()).is_none());
        let layer = PatternSlot::of(&weight.as_tensor().clone());
        let copy = layer.clone();
        let pattern = Pattern::new(&Tensor::new(&[[1u8, 0]], &Device::Cpu)?)?;
        PatternSlot::held(weight.as_tensor()).expect("held").set(Some(pattern.clone()));
        assert_eq!((layer.get(), copy.get()), (Some(pattern.clone()), Some(pattern)));
        drop(layer);
        assert!(copy.get().is_some() && is_listed());
        drop(copy);
        assert!(PatternSlot::held(weight.as_tensor()).is_none() && !is_listed());
        // A detached weight is another tensor, which nobody masks.
        let layer = PatternSlot::of(&weight.as_detached_tensor());
        assert!(PatternSlot::held(weight.as_tensor()).is_none() && layer.get().is_none());
        Ok(())
    }
}
