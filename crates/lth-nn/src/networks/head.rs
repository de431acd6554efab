//! What turns feature maps into logits.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::InitScheme;
use crate::packed::Step;
use crate::{After, BatchNorm, Builder, Context, Dropout, Error, Init, Linear, Patterns, Sparse};

/// Which head a network gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// torchvision's: the average over positions, then one linear layer `fc`. Other software loads it as it is.
    Fc,
    /// fastai's, see [`FastaiHead`].
    Fastai,
}

impl Head {
    /// Its name in files and on command lines: "fc", "fastai".
    pub fn name(self) -> &'static str {
        match self {
            Self::Fc => "fc",
            Self::Fastai => "fastai",
        }
    }

    /// What the names of its parameters begin with.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Fc => "fc",
            Self::Fastai => "head",
        }
    }

    /// The weight that gives the logits.
    pub(crate) fn output_weight(self) -> &'static str {
        match self {
            Self::Fc => "fc.weight",
            Self::Fastai => "head.8.weight",
        }
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Head {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let unknown = || Error::Config { what: "head", got: name.to_owned(), expected: "fc or fastai" };
        [Self::Fc, Self::Fastai].into_iter().find(|head| head.name() == name).ok_or_else(unknown)
    }
}

/// fastai's head for a body of convolutions: maximum and average over positions side by side (in this order), batch
/// norm, dropout, linear, ReLU, batch norm, dropout, linear; the linear layers without bias.
///
/// The names count fastai's layers: `head.2` and `head.6` are the batch norms, `head.4` and `head.8` the linear layers.
/// Linear weights start Kaiming normal, the norms' shifts at 0.001. Source: fastai 2.8.12, `create_head`.
#[derive(Clone, Debug)]
pub struct FastaiHead {
    norm2: BatchNorm,
    dropout3: Dropout,
    linear4: Linear,
    norm6: BatchNorm,
    dropout7: Dropout,
    linear8: Linear,
}

impl FastaiHead {
    /// A head at the builder's prefix for `channels` feature maps; fastai uses 512 `hidden` units.
    /// # Errors  if a name is taken or a tensor cannot be made.
    pub fn new(builder: &mut Builder<'_>, channels: usize, hidden: usize, classes: usize) -> Result<Self, Error> {
        const SHIFT: f64 = 1e-3;
        Ok(Self {
            norm2: BatchNorm::new(&mut builder.at(2), 2 * channels, SHIFT)?,
            dropout3: Dropout::new(&builder.at(3), 0.25)?,
            linear4: Linear::new(&mut builder.at(4), 2 * channels, hidden, Init::FASTAI, None)?,
            norm6: BatchNorm::new(&mut builder.at(6), hidden, SHIFT)?,
            dropout7: Dropout::new(&builder.at(7), 0.5)?,
            linear8: Linear::new(&mut builder.at(8), hidden, classes, Init::FASTAI, None)?,
        })
    }

    /// Logits [N, classes] for feature maps in the context's layout.
    /// # Errors  if the input does not fit or candle fails.
    pub fn forward(&self, x: &Tensor, context: &mut Context<'_>) -> candle_core::Result<Tensor> {
        let layout = context.layout;
        let (max, mean) = (lth_kernels::global_max_pool(x, layout)?, lth_kernels::global_avg_pool(x, layout)?);
        let x = lth_kernels::concat(&max, &mean, 1)?;
        let x = self.norm2.forward(&x, After::default(), context)?;
        let x = self.dropout3.forward(&x, context)?;
        let x = lth_kernels::relu(&self.linear4.forward(&x, context)?)?;
        let x = self.norm6.forward(&x, After::default(), context)?;
        let x = self.dropout7.forward(&x, context)?;
        self.linear8.forward(&x, context)
    }
}

impl Sparse for FastaiHead {
    fn set_patterns(&mut self, patterns: &Patterns) {
        self.linear4.set_patterns(patterns);
        self.linear8.set_patterns(patterns);
    }
}

/// How large a head is: feature maps, units of fastai's hidden layer, outputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadSize {
    pub(super) channels: usize,
    pub(super) hidden: usize,
    pub(super) classes: usize,
}

/// A head as built.
#[derive(Clone, Debug)]
pub(super) enum BuiltHead {
    Fc(Linear),
    Fastai(Box<FastaiHead>),
}

impl BuiltHead {
    pub(super) fn new(root: &mut Builder<'_>, head: Head, size: HeadSize, init: InitScheme) -> Result<Self, Error> {
        let HeadSize { channels, hidden, classes } = size;
        let mut builder = root.at(head.prefix());
        Ok(match head {
            Head::Fc => Self::Fc(init.output(&mut builder, channels, classes)?),
            Head::Fastai => Self::Fastai(Box::new(FastaiHead::new(&mut builder, channels, hidden, classes)?)),
        })
    }

    /// What its names begin with.
    pub(super) fn prefix(&self) -> &'static str {
        match self {
            Self::Fc(_) => Head::Fc.prefix(),
            Self::Fastai(_) => Head::Fastai.prefix(),
        }
    }

    pub(super) fn forward(&self, x: &Tensor, context: &mut Context<'_>) -> candle_core::Result<Tensor> {
        match self {
            Self::Fc(linear) => linear.forward(&lth_kernels::global_avg_pool(x, context.layout)?, context),
            Self::Fastai(head) => head.forward(x, context),
        }
    }
}

impl BuiltHead {
    pub(super) fn packed(&self) -> candle_core::Result<Vec<Step>> {
        Ok(match self {
            Self::Fc(linear) => vec![Step::Average, Step::Linear(linear.packed(None, false)?)],
            Self::Fastai(head) => vec![
                Step::MaxAndAverage,
                Step::Linear(head.linear4.packed(Some(&head.norm2), true)?),
                Step::Linear(head.linear8.packed(Some(&head.norm6), false)?),
            ],
        })
    }
}

impl Sparse for BuiltHead {
    fn set_patterns(&mut self, patterns: &Patterns) {
        match self {
            Self::Fc(linear) => linear.set_patterns(patterns),
            Self::Fastai(head) => head.set_patterns(patterns),
        }
    }
}

/// Whether a parameter belongs to a head rather than to the body.
pub(crate) fn in_head(name: &str) -> bool {
    name.starts_with("head.") || name.starts_with("fc.")
}
