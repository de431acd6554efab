//! What an arm is for.

use serde::{Deserialize, Serialize};

/// One treatment of an experiment, and what a comparison against it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmRecord {
    /// Its name in addresses: "random".
    pub name: String,
    /// Its part in the comparison.
    pub role: ArmRole,
    /// What it is, in a few words: "random mask, same counts per layer".
    pub title: String,
    /// What it says if the ticket is better than it, as a clause: "the choice of weights matters". Empty for the ticket.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub meaning: String,
}

/// An arm's part in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArmRole {
    /// The network without a mask, which everything is held against.
    Dense,
    /// Looks for a mask; its own figures are compared with nothing, and its time counts in the ticket's.
    Search,
    /// What the experiment is about.
    Ticket,
    /// Differs from the ticket in one thing.
    Control,
    /// A copy of another network that sees its data in another order from a step on: the end of a path, compared with
    /// nothing.
    Branch,
}
