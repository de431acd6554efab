//! What a ticket's file says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recorded;

/// Whether a file holds what training starts from or what it ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Rewound weights, masked: what a ticket is trained from. Its answers mean nothing yet.
    Ticket,
    /// A trained network.
    Trained,
}

/// The header of a ticket or trained network: everything about it that the tensors do not say.
///
/// In the file it is the safetensors `__metadata__`: one entry per field, strings as they are, everything else as JSON,
/// beside those of the file itself ([`Ticket`](crate::Ticket)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TicketHeader {
    /// What the weights are.
    pub stage: Stage,
    /// The network they belong to.
    pub network: NetworkInfo,
    /// How the mask came about; absent for a dense network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruning: Option<PruningInfo>,
    /// The run's seed.
    pub seed: u64,
    /// The training data.
    pub dataset: DatasetInfo,
    /// `content_sha256` of the network that this one was pruned or trained from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Entries of the file that are not this version's: what others wrote. They are written again as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, String>,
}

/// A network, and what must be done to a picture before it sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct NetworkInfo {
    /// "resnet18", "lenet-300-100".
    pub name: String,
    /// "fastai", "fc"; absent where the network has but one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Length of its answer.
    pub n_outputs: usize,
    /// Sizes of one input: channels, height, width, or the number of features.
    pub input: Vec<usize>,
    /// What is done to values in [0, 1]; absent where they go in as they are, or are no picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
    /// Names of the outputs, in order; empty where they have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
}

/// (value − mean) / std, per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Subtracted from values in [0, 1].
    pub mean: Vec<f32>,
    /// Divides the difference.
    pub std: Vec<f32>,
}

/// A [`NetworkInfo`] as a file has it, also from before schema 2, when every network was one of square pictures.
#[derive(Deserialize)]
struct Fields {
    name: String,
    head: Option<String>,
    n_outputs: Option<usize>,
    input: Option<Vec<usize>>,
    preprocessing: Option<Preprocessing>,
    #[serde(default)]
    class_names: Vec<String>,
    image_size: Option<usize>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
}

impl TryFrom<Fields> for NetworkInfo {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        let Fields { name, head, n_outputs, input, preprocessing, class_names, image_size, mean, std } = fields;
        let old = mean.zip(std).map(|(mean, std)| Preprocessing { mean, std });
        let preprocessing = preprocessing.or(old);
        let n_channels = preprocessing.as_ref().map(|preprocessing| preprocessing.mean.len());
        let old_input = || n_channels.zip(image_size).map(|(channels, side)| vec![channels, side, side]);
        Ok(Self {
            name,
            head,
            n_outputs: n_outputs.or(image_size.map(|_| class_names.len())).ok_or("missing field `n_outputs`")?,
            input: input.or_else(old_input).ok_or("missing field `input`")?,
            preprocessing,
            class_names,
        })
    }
}

/// How a mask came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PruningInfo {
    /// Saliency score.
    pub criterion: String,
    /// What was pruned as one, over what the budget was shared, by which rule. Of [`Groups`](lth_mask::Groups) of one's own
    /// a file has the name, and what is read from it selects nothing.
    #[serde(deserialize_with = "recorded::selection")]
    pub selection: lth_mask::Selection,
    /// When how much was pruned. Of a [`Curve`](lth_schedule::Curve) of one's own a file has the name, and what is read
    /// from it has no plan.
    #[serde(deserialize_with = "recorded::schedule")]
    pub schedule: lth_schedule::SparsitySchedule,
    /// Pruned / prunable as counted in the masks, in [0, 1].
    pub sparsity: f64,
    /// To where the kept weights were rewound; absent if they never were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewind: Option<crate::Rewind>,
}

/// Which data a network was trained on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetInfo {
    /// "pets", "toy-pets".
    pub name: String,
    /// SHA-256 of what the data are, however they were packed; absent where nobody computed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Fields that are strings in the file.
const PLAIN: [&str; 2] = ["stage", "parent"];
/// Fields that are JSON.
const JSON: [&str; 4] = ["network", "pruning", "seed", "dataset"];

impl TicketHeader {
    /// As safetensors metadata, `other` included.
    pub(crate) fn to_metadata(&self) -> Result<BTreeMap<String, String>, serde_json::Error> {
        let mut metadata = self.other.clone();
        let own = Self { other: BTreeMap::new(), ..self.clone() };
        if let serde_json::Value::Object(fields) = serde_json::to_value(own)? {
            metadata.extend(fields.into_iter().map(|(name, value)| match value {
                serde_json::Value::String(text) => (name, text),
                other => (name, other.to_string()),
            }));
        }
        Ok(metadata)
    }

    /// From safetensors metadata. What is neither the header's nor, by `is_files`, the file's own is `other`.
    pub(crate) fn from_metadata(
        metadata: BTreeMap<String, String>,
        is_files: impl Fn(&str) -> bool,
    ) -> Result<Self, serde_json::Error> {
        let mut fields = serde_json::Map::new();
        let mut other = BTreeMap::new();
        for (name, text) in metadata {
            if PLAIN.contains(&name.as_str()) {
                fields.insert(name, text.into());
            } else if JSON.contains(&name.as_str()) {
                let value = serde_json::from_str(&text)?;
                fields.insert(name, value);
            } else if !is_files(&name) {
                other.insert(name, text);
            }
        }
        let header: Self = serde_json::from_value(serde_json::Value::Object(fields))?;
        Ok(Self { other, ..header })
    }

    /// Whether the entry `name` is a field of the header.
    pub(crate) fn has(name: &str) -> bool {
        PLAIN.contains(&name) || JSON.contains(&name)
    }
}
