//! Which parameters train.

use lth_train::{Parameters, Role};

/// Which parameters of a network with body and head stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
