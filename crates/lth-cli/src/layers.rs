//! Which tensors of a checkpoint are the weights of layers, and how they lie: by name, rank and, where the same names are
//! used for both, by shape.

use std::collections::BTreeMap;

use lth_mask::Granularity;
use lth_nn::TensorInfo;
use serde::Serialize;

/// A checkpoint's tensors of floating-point numbers with at least two dimensions, told apart.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    /// The shapes of layers' weights.
    pub(crate) weights: BTreeMap<String, Vec<usize>>,
    /// Those whose inputs come first.
    pub(crate) transposed: Vec<String>,
    /// Those of fused experts.
    pub(crate) experts: Vec<String>,
    /// What is not taken for a weight.
    pub(crate) left_out: Vec<LeftOut>,
}

/// A tensor that is not pruned, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LeftOut {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) reason: &'static str,
}

/// Zeros of all floating-point numbers of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Totals {
    pub(crate) values: usize,
    pub(crate) zeros: usize,
    pub(crate) sparsity: f64,
}

/// How a weight lies.
enum Lie {
    OutputsFirst,
    InputsFirst,
    /// Fused experts, `[E, O, I]`.
    Experts,
    /// Fused experts, `[E, I, O]`.
    ExpertsInputsFirst,
    /// Not to be told, which matters unless single weights or whole layers are pruned.
    Unknown {
        experts: bool,
    },
}

impl Layers {
    pub(crate) fn of(tensors: &BTreeMap<String, TensorInfo>, granularity: &Granularity) -> Self {
        let mut layers = Self::default();
        let orientation_matters = !matches!(granularity, Granularity::Weight | Granularity::Layer);
        for (name, TensorInfo { shape, .. }) in
            tensors.iter().filter(|(_, tensor)| tensor.shape.len() >= 2 && tensor.dtype.is_float())
        {
            let mut leave = |reason| layers.left_out.push(LeftOut { name: name.clone(), shape: shape.clone(), reason });
            if !is_weight(name, shape.len()) {
                leave(match shape.len() {
                    2..=4 => "its name is not that of a layer's weight",
                    _ => "it has more than four dimensions",
                });
                continue;
            }
            match lie(name, tensors) {
                Lie::OutputsFirst => {}
                Lie::InputsFirst => layers.transposed.push(name.clone()),
                Lie::Experts => layers.experts.push(name.clone()),
                Lie::ExpertsInputsFirst => {
                    layers.transposed.push(name.clone());
                    layers.experts.push(name.clone());
                }
                Lie::Unknown { .. } if orientation_matters => {
                    leave("whether its inputs or its outputs come first cannot be told");
                    continue;
                }
                Lie::Unknown { experts: true } => layers.experts.push(name.clone()),
                Lie::Unknown { experts: false } => {}
            }
            layers.weights.insert(name.clone(), shape.clone());
        }
        layers
    }

    /// Leaves out the weights for which `dense` says so.
    pub(crate) fn keep_dense(&mut self, dense: impl Fn(&str) -> bool) {
        let (out, weights) = std::mem::take(&mut self.weights).into_iter().partition(|(name, _)| dense(name));
        self.weights = weights;
        let out: BTreeMap<String, Vec<usize>> = out;
        self.left_out.extend(out.into_iter().map(|(name, shape)| LeftOut { name, shape, reason: "kept dense" }));
        self.left_out.sort_by(|a, b| a.name.cmp(&b.name));
        self.transposed.retain(|name| self.weights.contains_key(name));
        self.experts.retain(|name| self.weights.contains_key(name));
    }
}

impl Totals {
    /// Adds a tensor of floating-point numbers: what a file has reached, whatever was pruned.
    pub(crate) fn add(&mut self, values: usize, zeros: usize) {
        self.values += values;
        self.zeros += zeros;
        self.sparsity = if self.values == 0 { 0.0 } else { self.zeros as f64 / self.values as f64 };
    }
}

/// The last part of a name and what is before it.
fn last(name: &str) -> (&str, &str) {
    name.rsplit_once('.').map_or(("", name), |(before, last)| (before, last))
}

/// PyTorch's names: `weight`; an attention's merged or separate projections; a recurrent layer's weights; the tensors of
/// fused experts, which have no layer of their own.
fn is_weight(name: &str, rank: usize) -> bool {
    let (_, last) = last(name);
    let recurrent = ["weight_ih_l", "weight_hh_l", "weight_hr_l"].iter().any(|start| last.starts_with(start));
    let projection = matches!(last, "in_proj_weight" | "q_proj_weight" | "k_proj_weight" | "v_proj_weight");
    match rank {
        2 => last == "weight" || recurrent || projection,
        3 => last == "weight" || is_expert(name),
        4 => last == "weight",
        _ => false,
    }
}

/// A weight under a part of the name that says experts.
fn is_expert(name: &str) -> bool {
    const TENSORS: [&str; 9] = ["weight", "gate_up_proj", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3", "wi"];
    let (before, last) = last(name);
    let says = |part: &str| {
        let part = part.to_lowercase();
        part.contains("expert") || part.contains("moe")
    };
    TENSORS.contains(&last) && before.split('.').any(says)
}

fn lie(name: &str, tensors: &BTreeMap<String, TensorInfo>) -> Lie {
    let dims = |name: &str| tensors.get(name).map(|tensor| tensor.shape.as_slice());
    let (before, last_part) = last(name);
    match dims(name) {
        Some([_, _, _]) if is_expert(name) => {
            // Of [2·F, H] and [H, F] for each expert the second's outputs are the first's inputs; turned round,
            // [H, 2·F] and [F, H].
            let pair = (dims(&format!("{before}.gate_up_proj")), dims(&format!("{before}.down_proj")));
            match pair {
                (Some(&[_, a, b]), Some(&[_, c, d])) if a == 2 * d && b == c => Lie::Experts,
                (Some(&[_, a, b]), Some(&[_, c, d])) if b == 2 * c && a == d => Lie::ExpertsInputsFirst,
                _ => Lie::Unknown { experts: true },
            }
        }
        Some([_, _]) if last_part == "weight" && is_gpt2(last(before).1) => gpt2(tensors),
        _ => Lie::OutputsFirst,
    }
}

/// The names of GPT-2's layers, which are `Conv1D`, `[I, O]`, in OpenAI's and Hugging Face's models, and linear,
/// `[O, I]`, in others.
fn is_gpt2(layer: &str) -> bool {
    matches!(layer, "c_attn" | "q_attn" | "c_proj" | "c_fc")
}

/// Query, key and value are three times as many as the inputs, the hidden layer four times.
fn gpt2(tensors: &BTreeMap<String, TensorInfo>) -> Lie {
    let inputs_first = tensors.iter().find_map(|(name, tensor)| {
        let times = match last(name.strip_suffix(".weight")?).1 {
            "c_attn" => 3,
            "c_fc" => 4,
            _ => return None,
        };
        match *tensor.shape {
            [a, b] if b == times * a => Some(true),
            [a, b] if a == times * b => Some(false),
            _ => None,
        }
    });
    match inputs_first {
        Some(true) => Lie::InputsFirst,
        Some(false) => Lie::OutputsFirst,
        None => Lie::Unknown { experts: false },
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    fn layers(tensors: &[(&str, &[usize])], granularity: &Granularity) -> Layers {
        let info = |&(name, shape): &(&str, &[usize])| {
            (name.to_owned(), TensorInfo { dtype: DType::F32, shape: shape.to_vec() })
        };
        Layers::of(&tensors.iter().map(info).collect(), granularity)
    }

    #[test]
    fn merged_attention_and_recurrent_weights_are_weights() {
        let found = layers(
            &[
                ("attn.in_proj_weight", &[12, 4]),
                ("attn.in_proj_bias", &[12]),
                ("attn.out_proj.weight", &[4, 4]),
                ("lstm.weight_ih_l0", &[8, 3]),
                ("lstm.weight_hh_l0_reverse", &[8, 2]),
                ("pos_embed", &[1, 5, 4]),
                ("video.weight", &[2, 2, 2, 2, 2]),
            ],
            &Granularity::Row,
        );
        let names: Vec<&str> = found.weights.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["attn.in_proj_weight", "attn.out_proj.weight", "lstm.weight_hh_l0_reverse", "lstm.weight_ih_l0"]
        );
        let left: Vec<_> = found.left_out.iter().map(|left| left.name.as_str()).collect();
        assert_eq!(left, ["pos_embed", "video.weight"]);
    }

    #[test]
    fn gpt2_s_weights_lie_as_their_shapes_say() {
        let names = ["h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight", "h.0.mlp.c_fc.weight"];
        let conv1d: [&[usize]; 3] = [&[4, 12], &[4, 4], &[4, 16]];
        let linear: [&[usize]; 3] = [&[12, 4], &[4, 4], &[16, 4]];
        let of = |shapes: [&'static [usize]; 3]| {
            let tensors: Vec<_> = names.into_iter().zip(shapes).chain([("wte.weight", &[9, 4][..])]).collect();
            layers(&tensors, &Granularity::Row)
        };
        assert_eq!(of(conv1d).transposed, names);
        assert!(of(linear).transposed.is_empty());
        let unknown = |granularity| layers(&[(names[1], &[4, 4])], granularity);
        assert_eq!(unknown(&Granularity::Row).left_out.len(), 1);
        assert_eq!(unknown(&Granularity::Weight).weights.len(), 1);
    }

    #[test]
    fn fused_experts_are_told_from_convolutions() {
        let (up, down) = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj");
        let found = layers(&[(up, &[3, 8, 6]), (down, &[3, 6, 4]), ("conv.weight", &[4, 3, 5])], &Granularity::Row);
        assert_eq!((found.experts.len(), found.transposed.len(), found.weights.len()), (2, 0, 3));
        let found = layers(&[(up, &[3, 6, 8]), (down, &[3, 4, 6])], &Granularity::Row);
        assert_eq!((found.experts.len(), found.transposed.len()), (2, 2));
        let found = layers(&[(down, &[3, 4, 6])], &Granularity::Row);
        assert_eq!((found.weights.len(), found.left_out.len()), (0, 1));
    }
}
