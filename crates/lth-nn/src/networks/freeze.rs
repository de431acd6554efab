//! Which parameters train.

use std::fmt;
use std::str::FromStr;

use lth_train::{Parameters, Role};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Which parameters of a network with body and head stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freeze {
    /// The body's weights and biases; the head and every batch norm train, as after fastai's `freeze`.
    Body,
    /// None.
    None,
}

impl Freeze {
    /// Freezes and thaws; the head is what is called `head` and a dot.
    pub(super) fn apply(self, parameters: &Parameters, head: &str) {
        let in_head = |name: &str| name.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'));
        for (name, parameter) in parameters.iter() {
            let frozen = self == Self::Body && !in_head(name) && parameter.role() != Role::Norm;
            parameter.set_trainable(!frozen);
        }
    }
}

/// `body` or `none`, as on command lines and in files.
impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Body => "body",
            Self::None => "none",
        })
    }
}

impl FromStr for Freeze {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let unknown = || Error::Config { what: "what is frozen", got: name.to_owned(), expected: "body or none" };
        [Self::Body, Self::None].into_iter().find(|freeze| freeze.to_string() == name).ok_or_else(unknown)
    }
}
