//! What the trainer needs of a network.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::{DType, ModuleT, Tensor};
use candle_nn::VarMap;
use lth_kernels::{Pattern, PatternSlot, with_dense_gradients};

use crate::{Error, Parameter, Parameters, Role};

/// How a forward pass is to be run.
///
/// Randomness is addressed, not consumed: a layer that draws noise keys its stream by (`seed`, `step`, its own name), so
/// that neither threads nor a resumed run nor a new layer shift other draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Batch statistics and dropout (`true`), or running statistics and none (`false`).
    pub train: bool,
    /// Whether a backward pass follows. Without it parameters enter detached and intermediate values are freed at once.
    pub track: bool,
    /// The run's seed.
    pub seed: u64,
    /// Training batches of the run before this pass.
    pub step: u64,
    /// Whether gradients are wanted of pruned weights, too: layers then compute with their zeros instead of around them.
    pub dense_gradients: bool,
}

impl Pass {
    /// A training pass, to be followed by a backward pass.
    pub fn train(seed: u64, step: u64) -> Self {
        Self { train: true, track: true, seed, step, dense_gradients: false }
    }

    /// An evaluation pass that keeps no graph.
    pub fn eval() -> Self {
        Self { train: false, track: false, seed: 0, step: 0, dense_gradients: false }
    }
}

/// A network that can be trained, pruned and saved.
pub trait Network {
    /// The output for a batch `x`; logits `[N, classes]` for the losses of this crate.
    /// # Errors
    /// If the input's shape does not fit or candle fails.
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor>;

    /// All parameters and buffers.
    fn parameters(&self) -> &Parameters;

    /// Tells the network which weights are pruned (name → u8, 1 = keep; a parameter without a mask is dense), so that it
    /// can compute with the kept ones alone. The values themselves are the caller's to zero. Masks of parameters without
    /// a sparse operator are ignored.
    /// # Errors
    /// If a mask does not fit its parameter; the network is then as before.
    fn set_masks(&mut self, _masks: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        Ok(())
    }
}

impl<N: Network + ?Sized> Network for Box<N> {
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        (**self).forward(x, pass)
    }

    fn parameters(&self) -> &Parameters {
        (**self).parameters()
    }

    fn set_masks(&mut self, masks: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        (**self).set_masks(masks)
    }
}

/// Any candle `ModuleT` and the `VarMap` it was built from, as a [`Network`].
///
/// Roles are read from names and shapes: `running_mean` and `running_var` are buffers; other tensors of rank 0 or 1 called
/// `….weight` are norms, or else biases; tables of rank 2 that are called after embeddings (`wte`,
/// `….word_embeddings.weight`) and have no bias beside them are embeddings; the rest are weights.
/// [`ModuleNetwork::with_role`] says otherwise.
///
/// Layers of `lth_nn::drop_in`, which stand in for candle-nn's, and any layer that holds the [`PatternSlot`] of its weight
/// compute with the kept weights alone; other layers multiply the zeros of pruned weights.
///
/// candle's own dropout and initial values cannot be seeded on a CPU. `lth_nn::seeded_builder` makes a `VarBuilder` whose
/// initial values can; a fit refuses a network whose passes draw noise of their own
/// ([`Trainer::allow_unseeded`](crate::Trainer::allow_unseeded)).
pub struct ModuleNetwork<M> {
    module: M,
    parameters: Parameters,
    variables: VarMap,
}

impl<M: fmt::Debug> fmt::Debug for ModuleNetwork<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { module, parameters, .. } = self;
        f.debug_struct("ModuleNetwork").field("module", module).field("parameters", parameters).finish_non_exhaustive()
    }
}

/// Layers that live on do so without masks, which are the network's.
impl<M> Drop for ModuleNetwork<M> {
    fn drop(&mut self) {
        clear_patterns(&self.parameters);
    }
}

/// Makes every layer of these parameters dense.
fn clear_patterns(parameters: &Parameters) {
    for (_, parameter) in parameters.iter() {
        if let Some(slot) = PatternSlot::held(parameter.var().as_tensor()) {
            slot.set(None);
        }
    }
}

impl<M: ModuleT> ModuleNetwork<M> {
    /// The module with the variables of `variables`.
    /// # Errors
    /// [`Error::State`] if the map's lock is poisoned.
    pub fn new(module: M, variables: &VarMap) -> Result<Self, Error> {
        let data = variables.data().lock().map_err(|_| Error::State("the VarMap's lock is poisoned".to_owned()))?;
        let mut parameters = Parameters::new();
        for (name, var) in data.iter() {
            parameters
                .insert(name.as_str(), Parameter::new(var.clone(), role(name, var.rank(), |n| data.contains_key(n))));
        }
        drop(data);
        // Those of a network before on the same variables are not this one's.
        clear_patterns(&parameters);
        Ok(Self { module, parameters, variables: variables.clone() })
    }

    /// The same with another role for the parameter `name`.
    /// # Errors
    /// [`Error::NoParameter`] if there is none.
    pub fn with_role(mut self, name: &str, role: Role) -> Result<Self, Error> {
        let var = self.parameters.require(name)?.var().clone();
        self.parameters.insert(name, Parameter::new(var, role));
        Ok(self)
    }

    /// The module itself.
    pub fn module(&self) -> &M {
        &self.module
    }
}

impl<M: ModuleT> Network for ModuleNetwork<M> {
    /// # Errors
    /// If a variable has joined the map since [`ModuleNetwork::new`]: it would never be trained, saved or pruned.
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        let forward = || self.module.forward_t(x, pass.train);
        let y = if pass.dense_gradients { with_dense_gradients(forward) } else { forward() }?;
        let poisoned = |_| candle_core::Error::Msg("the VarMap's lock is poisoned".to_owned());
        let data = self.variables.data().lock().map_err(poisoned)?;
        if data.len() != self.parameters.len() {
            let mut new: Vec<String> =
                data.keys().filter(|name| self.parameters.get(name).is_none()).cloned().collect();
            new.sort();
            return Err(candle_core::Error::wrap(Error::NewVariables { names: new }));
        }
        Ok(y)
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn set_masks(&mut self, masks: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        // All are checked before the first is set.
        let mut found = Vec::new();
        for (name, parameter) in self.parameters.iter() {
            let Some(slot) = PatternSlot::held(parameter.var().as_tensor()) else { continue };
            let pattern = masks.get(name).map(|mask| pattern(name, mask, parameter.var().dims())).transpose()?;
            found.push((slot, pattern));
        }
        found.into_iter().for_each(|(slot, pattern)| slot.set(pattern));
        Ok(())
    }
}

fn pattern(name: &str, mask: &Tensor, dims: &[usize]) -> candle_core::Result<Pattern> {
    if mask.dtype() != DType::U8 || mask.dims() != dims {
        let (dtype, got) = (mask.dtype().as_str(), mask.dims());
        candle_core::bail!("mask of `{name}` is {dtype} {got:?}, expected u8 {dims:?}");
    }
    Pattern::new(mask)
}

fn role(name: &str, rank: usize, exists: impl Fn(&str) -> bool) -> Role {
    let (layer, leaf) = name.rsplit_once('.').map_or(("", name), |(layer, leaf)| (layer, leaf));
    let sibling = |leaf: &str| if layer.is_empty() { leaf.to_owned() } else { format!("{layer}.{leaf}") };
    match leaf {
        "running_mean" | "running_var" | "num_batches_tracked" => Role::Buffer,
        _ if rank >= 2 && is_embedding(layer, leaf) && !exists(&sibling("bias")) => Role::Embedding,
        _ if rank >= 2 => Role::Weight,
        "weight" => Role::Norm,
        // A shift beside running statistics belongs to the normalisation, too.
        "bias" if exists(&sibling("running_mean")) => Role::Norm,
        _ => Role::Bias,
    }
}

/// By the names that BERT, GPT-2, LLaMA and ViT have in candle-transformers and in timm.
fn is_embedding(layer: &str, leaf: &str) -> bool {
    let own = if leaf == "weight" { layer.rsplit('.').next().unwrap_or(layer) } else { leaf };
    own.contains("embed") || matches!(own, "wte" | "wpe" | "cls_token" | "mask_token" | "distillation_token")
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarBuilder;

    use super::*;

    #[test]
    fn roles_are_read_from_names_and_shapes() -> Result<(), Error> {
        let variables = VarMap::new();
        let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let conv = candle_nn::conv2d(3, 4, 3, candle_nn::Conv2dConfig::default(), builder.pp("conv"))?;
        candle_nn::batch_norm(4, candle_nn::BatchNormConfig::default(), builder.pp("bn"))?;
        candle_nn::layer_norm(4, candle_nn::LayerNormConfig::default(), builder.pp("ln"))?;
        let network = ModuleNetwork::new(conv, &variables)?;
        let roles: Vec<_> = network.parameters().iter().map(|(name, parameter)| (name, parameter.role())).collect();
        assert_eq!(
            roles,
            [
                ("bn.bias", Role::Norm),
                ("bn.running_mean", Role::Buffer),
                ("bn.running_var", Role::Buffer),
                ("bn.weight", Role::Norm),
                ("conv.bias", Role::Bias),
                ("conv.weight", Role::Weight),
                ("ln.bias", Role::Bias),
                ("ln.weight", Role::Norm),
            ]
        );
        assert_eq!(network.parameters().trainable().count(), 6);
        Ok(())
    }

    #[test]
    fn tables_are_no_weights_and_projections_of_patches_are() {
        let names = [
            "bert.embeddings.word_embeddings.weight",
            "transformer.wte.weight",
            "wpe.weight",
            "model.embed_tokens.weight",
            "cls_token",
            "pos_embed",
            "embeddings.position_embeddings",
            "patch_embed.proj.weight",
            "patch_embed.proj.bias",
            "vit.embeddings.patch_embeddings.projection.weight",
            "time_embed.weight",
            "time_embed.bias",
        ];
        let weights: Vec<&str> =
            names.into_iter().filter(|name| role(name, 2, |other| names.contains(&other)) == Role::Weight).collect();
        assert_eq!(
            weights,
            [
                "patch_embed.proj.weight",
                "patch_embed.proj.bias",
                "vit.embeddings.patch_embeddings.projection.weight",
                "time_embed.weight",
                "time_embed.bias"
            ]
        );
    }
}
