//! Gradients of a backward pass, those of masked weights by their kept values.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};

use crate::elementwise::add;
use crate::kept::KeptPlaces;
use crate::pattern::Pattern;

/// The gradients of a backward pass, by variable. Those of masked weights may be there by their kept values alone.
///
/// ```
/// # use candle_core::{Device, Tensor, Var};
/// # use lth_kernels::{Pattern, backward_kept, cross_entropy, linear};
/// let weight = Var::new(&[[1f32, 0., 0., 0.], [0., 0., 0., 2.]], &Device::Cpu)?;
/// let pattern = Pattern::new(&weight.ne(0f32)?)?;
/// let logits = linear(&Tensor::new(&[[1f32, 2., 3., 4.]], &Device::Cpu)?, &weight, None, Some(&pattern))?;
/// let mut gradients = backward_kept(&cross_entropy(&logits, &Tensor::new(&[0u32], &Device::Cpu)?)?)?;
/// // Two numbers, or all eight where the kernel that ran gives all.
/// let kept = gradients.kept(&weight).map(|(places, kept)| places.scatter(kept)).transpose()?;
/// let whole = gradients.whole()?.get(&weight).expect("a gradient").to_vec2::<f32>()?;
/// assert!(kept.is_none_or(|kept| kept.to_vec2::<f32>().is_ok_and(|kept| kept == whole)));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Gradients {
    whole: GradStore,
    /// Only ever looked into by key; what becomes of all of it does not depend on the order.
    kept: HashMap<TensorId, Kept>,
}

#[derive(Debug)]
struct Kept {
    variable: Tensor,
    pattern: Pattern,
    values: Tensor,
}

impl Kept {
    fn whole(&self) -> Result<Tensor> {
        // Of one dimension more than the mask, where a layer is computed as another.
        self.pattern.places().scatter(&self.values)?.reshape(self.variable.shape())
    }
}

impl From<GradStore> for Gradients {
    fn from(whole: GradStore) -> Self {
        Self { whole, kept: HashMap::new() }
    }
}

impl Gradients {
    /// The gradient of `variable`, if all of it is there.
    pub fn get(&self, variable: &Tensor) -> Option<&Tensor> {
        self.whole.get(variable)
    }

    /// The gradient of a masked `variable`, if it is there by its kept values alone, `[n_kept]`, and where those are: all others
    /// are 0.
    pub fn kept(&self, variable: &Tensor) -> Option<(&KeptPlaces, &Tensor)> {
        self.kept.get(&variable.id()).map(|kept| (kept.pattern.places(), &kept.values))
    }

    /// All of every gradient, from now on.
    ///
    /// # Errors
    /// If candle fails.
    pub fn whole(&mut self) -> Result<&mut GradStore> {
        for (_, kept) in self.kept.drain() {
            self.whole.insert(&kept.variable, kept.whole()?);
        }
        Ok(&mut self.whole)
    }

    /// All of every gradient.
    ///
    /// # Errors
    /// If candle fails.
    pub fn into_whole(mut self) -> Result<GradStore> {
        self.whole()?;
        Ok(self.whole)
    }

    /// Takes out the gradient of `x`.
    pub(crate) fn take(&mut self, x: &Tensor) -> Option<Tensor> {
        self.whole.remove(x)
    }

    pub(crate) fn add(&mut self, x: &Tensor, gradient: &Tensor) -> Result<()> {
        let before = match self.kept.remove(&x.id()) {
            Some(kept) => Some(kept.whole()?),
            None => self.whole.remove(x),
        };
        let sum = match before {
            Some(before) => add(&before, gradient)?,
            None => gradient.detach(),
        };
        self.whole.insert(x, sum);
        Ok(())
    }

    /// Adds the gradient of the values of `x` that `pattern` keeps. What is no variable is handed on as a whole.
    pub(crate) fn add_kept(&mut self, x: &Tensor, pattern: Pattern, values: Tensor) -> Result<()> {
        let kept = Kept { variable: x.clone(), pattern, values };
        if !x.is_variable() || self.whole.get(x).is_some() {
            return self.add(x, &kept.whole()?);
        }
        match self.kept.entry(x.id()) {
            Entry::Vacant(place) => {
                place.insert(kept);
            }
            Entry::Occupied(mut before) if before.get().pattern == kept.pattern => {
                let before = before.get_mut();
                before.values = add(&before.values, &kept.values)?;
            }
            Entry::Occupied(_) => return self.add(x, &kept.whole()?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::{
        Kernel, backward, backward_kept, conv2d, cross_entropy, global_avg_pool, linear, multiply_by, reshape,
    };

    fn noise(shape: &[usize], seed: u32) -> Result<Tensor> {
        let values =
            (0..shape.iter().product::<usize>()).map(|i| ((i as f32 + 1.0) * (seed as f32 + 0.7)).sin()).collect();
        Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu)
    }

    /// A pattern that keeps one in `n`.
    fn one_in(n: usize, shape: &[usize]) -> Result<Pattern> {
        let bits = (0..shape.iter().product::<usize>()).map(|i| u8::from(i % n == 1)).collect();
        Pattern::new(&Tensor::from_vec::<_, u8>(bits, shape, &Device::Cpu)?)
    }

    /// The loss of two convolutions by one weight, one of each pattern, and of a linear layer.
    fn loss(conv: &Tensor, patterns: [&Pattern; 2], last: &Tensor, of_last: &Pattern) -> Result<Tensor> {
        let params = crate::Conv2dParams { padding: (1, 1), layout: crate::Layout::Chwn, ..Default::default() };
        let mut x = noise(&[8, 4, 4, 16], 1)?;
        for pattern in patterns {
            x = conv2d(&x, conv, Some(pattern), &params)?;
        }
        let x = reshape(&global_avg_pool(&x, params.layout)?, &[16, 8])?;
        let labels: Vec<u32> = (0..16).map(|i| i % 4).collect();
        cross_entropy(&linear(&x, last, None, Some(of_last))?, &Tensor::new(labels, &Device::Cpu)?)
    }

    #[test]
    fn kept_gradients_are_those_of_the_whole_to_the_bit() -> Result<()> {
        let (shape, last_shape) = ([8, 8, 3, 3], [4, 8]);
        let (conv, last) = (Var::from_tensor(&noise(&shape, 2)?)?, Var::from_tensor(&noise(&last_shape, 3)?)?);
        let (third, fourth, of_last) = (one_in(3, &shape)?, one_in(4, &shape)?, one_in(3, &last_shape)?);
        let bits = |x: &Tensor| -> Result<Vec<u32>> {
            Ok(x.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
        };
        for (patterns, stays_kept) in [([&third, &third], true), ([&third, &fourth], false)] {
            Kernel::Sparse.run(|| -> Result<()> {
                let loss = loss(&conv, patterns, &last, &of_last)?;
                let (whole, mut gradients) = (backward(&loss)?, backward_kept(&loss)?);
                assert_eq!(gradients.kept(&conv).is_some(), stays_kept);
                let (places, kept) = gradients.kept(&last).expect("by its kept values");
                assert_eq!((places, kept.dims()), (of_last.places(), &[of_last.places().n_kept()][..]));
                assert!(gradients.get(&last).is_none() && gradients.get(&conv).is_none() == stays_kept);
                for variable in [&conv, &last] {
                    let expected = bits(whole.get(variable).expect("a gradient"))?;
                    assert_eq!(bits(gradients.whole()?.get(variable).expect("a gradient"))?, expected);
                    assert!(gradients.kept(variable).is_none() && expected.iter().any(|&bits| bits != 0));
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    #[test]
    fn of_what_is_no_variable_all_is_handed_on() -> Result<()> {
        let shape = [8, 8, 3, 3];
        let (half, last) = (Var::from_tensor(&noise(&shape, 2)?)?, Var::from_tensor(&noise(&[4, 8], 3)?)?);
        let (third, of_last) = (one_in(3, &shape)?, one_in(3, &[4, 8])?);
        Kernel::Sparse.run(|| {
            // An operator of this crate, so that the backward pass is its own.
            let conv = multiply_by(&half, &Tensor::full(2f32, &shape, &Device::Cpu)?)?;
            let loss = loss(&conv, [&third, &third], &last, &of_last)?;
            let (whole, gradients) = (backward(&loss)?, backward_kept(&loss)?);
            let of = |store: &Gradients| store.get(&half).expect("all of it").flatten_all()?.to_vec1::<f32>();
            assert_eq!(of(&gradients)?, of(&whole.into())?);
            Ok(())
        })
    }
}
