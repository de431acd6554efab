//! A network's channels as data.

/// Where channels lie in a tensor: along one of its axes.
///
/// Channel `c` of `C` is at `offset + copy · C · span + c · span + s`, for each copy and each `s` below `span`. Most often it
/// is simply at `c`; `span` is what a channel becomes when a feature map is flattened before a linear layer (height times
/// width), `copies` how often all channels are repeated one after the other (2 after concatenated maximum and average
/// pooling), `offset` where these channels begin among others that are concatenated with them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Axis {
    /// The tensor's name.
    pub tensor: String,
    /// The axis: 0 or 1.
    pub axis: usize,
    /// Where the first channel lies.
    pub offset: usize,
    /// How often the channels are repeated.
    pub copies: usize,
    /// How many places one channel takes.
    pub span: usize,
}

impl Axis {
    /// Channels along an axis, one place each.
    #[must_use]
    pub fn new(tensor: impl Into<String>, axis: usize) -> Self {
        Self { tensor: tensor.into(), axis, offset: 0, copies: 1, span: 1 }
    }

    /// The same with this many places for each channel.
    #[must_use]
    pub fn spanning(self, span: usize) -> Self {
        Self { span, ..self }
    }

    /// The same with the channels repeated.
    #[must_use]
    pub fn repeated(self, copies: usize) -> Self {
        Self { copies, ..self }
    }

    /// The same beginning further on.
    #[must_use]
    pub fn starting_at(self, offset: usize) -> Self {
        Self { offset, ..self }
    }
}

/// Channels that live and die together: the outputs of one layer, or of all layers that write to one residual stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Channels {
    /// What to call them.
    pub name: String,
    /// The weights that write them, each all of them, added up where there are several (a residual stream). None: the
    /// channels come from outside, and only what nothing reads can be cut.
    pub producers: Vec<Axis>,
    /// The weights through which each channel goes by itself (a depthwise convolution).
    pub through: Vec<Axis>,
    /// Biases and norms' scales and shifts on the way: they must be 0 for a channel that is always zero to stay zero.
    pub affine: Vec<Axis>,
    /// Norms' running statistics: only cut along.
    pub statistics: Vec<Axis>,
    /// The weights that read them. None: they are the network's outputs, and only what is always zero can be cut.
    pub consumers: Vec<Axis>,
}

impl Channels {
    /// No channels yet.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a weight `[O, I, …]` that writes them along axis 0.
    #[must_use]
    pub fn producer(mut self, weight: &str) -> Self {
        self.producers.push(Axis::new(weight, 0));
        self
    }

    /// Adds a bias along axis 0.
    #[must_use]
    pub fn bias(mut self, bias: &str) -> Self {
        self.affine.push(Axis::new(bias, 0));
        self
    }

    /// Adds a batch norm by its prefix: `weight`, `bias`, `running_mean` and `running_var`.
    #[must_use]
    pub fn batch_norm(self, prefix: &str) -> Self {
        self.batch_norm_at(prefix, &Axis::new("", 0))
    }

    /// Adds a batch norm whose values lie along its only axis as `like`'s places do, such as those of the linear layer after
    /// it: behind a flattened map or a concatenated pooling.
    #[must_use]
    pub fn batch_norm_at(mut self, prefix: &str, like: &Axis) -> Self {
        let at = |part: &str| Axis { tensor: format!("{prefix}.{part}"), axis: 0, ..like.clone() };
        self.affine.extend(["weight", "bias"].map(at));
        self.statistics.extend(["running_mean", "running_var"].map(at));
        self
    }

    /// Adds a depthwise convolution's weight `[C, 1, …]`.
    #[must_use]
    pub fn depthwise(mut self, weight: &str) -> Self {
        self.through.push(Axis::new(weight, 0));
        self
    }

    /// Adds a weight `[O, I, …]` that reads them along axis 1.
    #[must_use]
    pub fn consumer(self, weight: &str) -> Self {
        self.consumer_at(Axis::new(weight, 1))
    }

    /// Adds a weight that reads them in another way.
    #[must_use]
    pub fn consumer_at(mut self, axis: Axis) -> Self {
        self.consumers.push(axis);
        self
    }

    /// Everything they lie in.
    pub(crate) fn axes(&self) -> impl Iterator<Item = &Axis> {
        let lists = [&self.producers, &self.through, &self.affine, &self.statistics, &self.consumers];
        lists.into_iter().flatten()
    }
}

/// All channels of a network that may be cut. A tensor's axis is described whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Connections {
    /// In any order.
    pub channels: Vec<Channels>,
}

impl Connections {
    /// These channels.
    #[must_use]
    pub fn new(channels: impl Into<Vec<Channels>>) -> Self {
        Self { channels: channels.into() }
    }
}
