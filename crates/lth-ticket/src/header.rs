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
/// In the file it is the safetensors `__metadata__`: one entry per field, strings as they are, everything else as JSON;
/// besides it `format` = "pt" (PyTorch's order of dimensions), `lth_version` and `content_sha256`. A reader leaves other
/// entries alone.
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
}

/// A network and what must be done to a picture before it sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// "resnet18", "lenet-300-100".
    pub name: String,
    /// "fastai", "fc".
    pub head: String,
    /// Height and width of the input in pixels.
    pub image_size: usize,
    /// Subtracted from values in [0, 1], per channel.
    pub mean: Vec<f32>,
    /// Divides the difference, per channel.
    pub std: Vec<f32>,
    /// Names of the outputs, in order.
    pub class_names: Vec<String>,
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
    /// SHA-256 of the archive; of several, that of the text of their `SHA256SUMS`, in order of names; absent for a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl TicketHeader {
    /// As safetensors metadata.
    pub(crate) fn to_metadata(&self) -> Result<BTreeMap<String, String>, serde_json::Error> {
        let serde_json::Value::Object(fields) = serde_json::to_value(self)? else { return Ok(BTreeMap::new()) };
        Ok(fields
            .into_iter()
            .map(|(name, value)| match value {
                serde_json::Value::String(text) => (name, text),
                other => (name, other.to_string()),
            })
            .collect())
    }

    /// From safetensors metadata, of which only the header's own fields are looked at.
    pub(crate) fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, serde_json::Error> {
        const PLAIN: [&str; 2] = ["stage", "parent"];
        const JSON: [&str; 4] = ["network", "pruning", "seed", "dataset"];
        let known = |name: &str| PLAIN.contains(&name) || JSON.contains(&name);
        let fields = metadata.iter().filter(|(name, _)| known(name)).map(|(name, text)| {
            let value = if PLAIN.contains(&name.as_str()) { text.as_str().into() } else { serde_json::from_str(text)? };
            Ok((name.clone(), value))
        });
        serde_json::from_value(serde_json::Value::Object(fields.collect::<Result<_, serde_json::Error>>()?))
    }
}
