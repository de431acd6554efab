//! Networks of other widths: which tensors a channel runs through, and a network as wide as given tensors.
//!
//! Where whole filters are pruned, channels can be cut out of a network. Which tensors such a cut goes through, and the
//! smaller network itself, are what this module knows; what to cut is somebody else's plan.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_train::{Network, Parameters};

use crate::{
    ConvNet, ConvNetConfig, Error, Head, LeNet, LeNetConfig, Part, ResNet, ResNetConfig, ResNetWidths, Setup, Shortcut,
    Vgg, VggConfig, Weights,
};

/// Channels that live and die together, as plain data: the outputs of one layer, or a residual stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The layer's name, or the stage's.
    pub name: String,
    /// Weights that write the channels, along axis 0; where there are several, their outputs are added.
    pub producers: Vec<String>,
    /// Biases of these layers.
    pub biases: Vec<String>,
    /// Batch norms on the way, by prefix.
    pub norms: Vec<Place>,
    /// Weights that read the channels, along axis 1.
    pub consumers: Vec<Place>,
}

/// How channels lie along an axis: channel c of C at `(copy · C + c) · span` and the `span` − 1 places after it, for each
/// copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The tensor's name, or a norm's prefix.
    pub name: String,
    /// How often all channels are repeated: 2 behind fastai's concatenated pooling.
    pub copies: usize,
    /// How many places a channel takes: height × width behind a flattened feature map.
    pub span: usize,
}

impl Place {
    /// A place for each channel, in order.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), copies: 1, span: 1 }
    }
}

impl Stream {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Adds a convolution without bias and the norm behind it.
    fn convolution(mut self, convolution: &str, norm: &str) -> Self {
        self.producers.push(format!("{convolution}.weight"));
        self.norms.push(Place::new(norm));
        self
    }

    /// Adds a layer with bias.
    fn layer(mut self, layer: &str) -> Self {
        self.producers.push(format!("{layer}.weight"));
        self.biases.push(format!("{layer}.bias"));
        self
    }

    /// Adds a layer that reads the channels.
    fn read_by(mut self, layer: &str) -> Self {
        self.consumers.push(Place::new(format!("{layer}.weight")));
        self
    }
}

impl ResNet {
    /// The channels of such a network: its residual streams (the first runs through the stem, too, unless a projection
    /// leads into it), what is between the convolutions of each block, and what is between the linear layers of fastai's
    /// head.
    ///
    /// Where inputs are padded ([`Shortcut::Padding`]) the residual streams are left out, so that nothing is cut of them: a
    /// channel of one is another channel of the next, which no list of tensors says.
    pub fn streams(config: &ResNetConfig) -> Vec<Stream> {
        let mut streams = Vec::new();
        let mut residual = Vec::new();
        let mut stream = Stream::new("stem").convolution("conv1", "bn1");
        let last = config.block.n_convolutions();
        for (stage_idx, &n_blocks) in config.blocks.iter().enumerate() {
            let stage = format!("layer{}", stage_idx + 1);
            for block_idx in 0..n_blocks {
                let block = format!("{stage}.{block_idx}");
                let conv = |idx: usize| format!("{block}.conv{idx}");
                stream = stream.read_by(&conv(1));
                if block_idx == 0 && config.shortcut_into(stage_idx).is_some() {
                    let projection = format!("{block}.downsample.0");
                    residual.push(stream.read_by(&projection));
                    stream = Stream::new(&stage).convolution(&projection, &format!("{block}.downsample.1"));
                }
                for idx in 1..last {
                    let inner = Stream::new(&conv(idx)).convolution(&conv(idx), &format!("{block}.bn{idx}"));
                    streams.push(inner.read_by(&conv(idx + 1)));
                }
                stream = stream.convolution(&conv(last), &format!("{block}.bn{last}"));
            }
            stream.name = stage;
        }
        match config.head {
            Head::Fc => stream = stream.read_by("fc"),
            Head::Fastai => {
                let twice = |name: &str| Place { copies: 2, ..Place::new(name) };
                stream.norms.push(twice("head.2"));
                stream.consumers.push(twice("head.4.weight"));
                streams.push(Stream::new("head.4").convolution("head.4", "head.6").read_by("head.8"));
            }
        }
        if config.shortcut == Shortcut::Projection {
            streams.append(&mut residual);
            streams.push(stream);
        }
        streams
    }

    /// The network that these tensors belong to: as wide as they are, with their values.
    /// # Errors  if a name is missing or unknown, or a shape does not fit its neighbours.
    pub fn from_tensors(
        config: &ResNetConfig,
        tensors: &BTreeMap<String, Tensor>,
        setup: &Setup,
    ) -> Result<Self, Error> {
        let last = config.block.n_convolutions();
        let mut streams = Vec::new();
        let mut inner = Vec::new();
        for (stage_idx, &n_blocks) in config.blocks.iter().enumerate() {
            let stage = stage_idx + 1;
            streams.push(outputs(tensors, &format!("layer{stage}.0.conv{last}.weight"))?);
            for block_idx in 0..n_blocks {
                for idx in 1..last {
                    inner.push(outputs(tensors, &format!("layer{stage}.{block_idx}.conv{idx}.weight"))?);
                }
            }
        }
        let hidden = match config.head {
            Head::Fc => 0,
            Head::Fastai => outputs(tensors, "head.4.weight")?,
        };
        let widths = ResNetWidths { stem: outputs(tensors, "conv1.weight")?, streams, inner, hidden };
        let network = Self::with_widths(config, &widths, setup)?;
        load(tensors, network.parameters())?;
        Ok(network)
    }
}

impl Vgg {
    /// The channels of such a network: the outputs of each convolution.
    pub fn streams(config: &VggConfig) -> Vec<Stream> {
        let indices = config.indices().concat();
        let layer = |(n, idx): (usize, &usize)| {
            let conv = format!("features.{idx}");
            let stream = Stream::new(&conv).convolution(&conv, &format!("features.{}", idx + 1));
            match indices.get(n + 1) {
                Some(next) => stream.read_by(&format!("features.{next}")),
                None => stream.read_by("classifier"),
            }
        };
        indices.iter().enumerate().map(layer).collect()
    }

    /// The network that these tensors belong to: as wide as they are, with their values.
    /// # Errors
    /// If a name is missing or unknown, or a shape does not fit its neighbours.
    pub fn from_tensors(config: &VggConfig, tensors: &BTreeMap<String, Tensor>, setup: &Setup) -> Result<Self, Error> {
        let stage = |indices: Vec<usize>| {
            indices.iter().map(|idx| outputs(tensors, &format!("features.{idx}.weight"))).collect()
        };
        let widths = config.indices().into_iter().map(stage).collect::<Result<Vec<Vec<usize>>, Error>>()?;
        let network = Self::with_widths(config, &widths, setup)?;
        load(tensors, network.parameters())?;
        Ok(network)
    }
}

impl LeNet {
    /// The channels of such a network: the units of its two hidden layers.
    pub fn streams() -> Vec<Stream> {
        dense_streams()
    }

    /// The network that these tensors belong to: as wide as they are, with their values.
    /// # Errors  if a name is missing or unknown, or a shape does not fit its neighbours.
    pub fn from_tensors(tensors: &BTreeMap<String, Tensor>, setup: &Setup) -> Result<Self, Error> {
        let config = LeNetConfig {
            inputs: width(tensors, "fc1.weight", 1)?,
            hidden: (outputs(tensors, "fc1.weight")?, outputs(tensors, "fc2.weight")?),
            classes: outputs(tensors, "fc3.weight")?,
        };
        let network = Self::new(&config, setup)?;
        load(tensors, network.parameters())?;
        Ok(network)
    }
}

impl ConvNet {
    /// The channels of such a network: the outputs of each convolution and the units of the two hidden linear layers.
    pub fn streams(config: &ConvNetConfig) -> Vec<Stream> {
        let n_pairs = config.n_pairs();
        let (_, height, width) = config.input;
        let span = (height >> n_pairs) * (width >> n_pairs);
        let convolution = |idx: usize| {
            let stream = Stream::new(&format!("conv{idx}")).layer(&format!("conv{idx}"));
            if idx < 2 * n_pairs {
                return stream.read_by(&format!("conv{}", idx + 1));
            }
            Stream { consumers: vec![Place { span, ..Place::new("fc1.weight") }], ..stream }
        };
        (1..=2 * n_pairs).map(convolution).chain(dense_streams()).collect()
    }

    /// The network that these tensors belong to: as wide as they are, with their values.
    /// # Errors  if a name is missing or unknown, or a shape does not fit its neighbours.
    pub fn from_tensors(
        config: &ConvNetConfig,
        tensors: &BTreeMap<String, Tensor>,
        setup: &Setup,
    ) -> Result<Self, Error> {
        let conv = |idx: usize| outputs(tensors, &format!("conv{idx}.weight"));
        let pairs: Vec<[usize; 2]> = (0..config.n_pairs())
            .map(|idx| Ok([conv(2 * idx + 1)?, conv(2 * idx + 2)?]))
            .collect::<Result<_, Error>>()?;
        let dense = [outputs(tensors, "fc1.weight")?, outputs(tensors, "fc2.weight")?];
        let network = Self::with_widths(config, &pairs, dense, setup)?;
        load(tensors, network.parameters())?;
        Ok(network)
    }
}

fn dense_streams() -> Vec<Stream> {
    vec![Stream::new("fc1").layer("fc1").read_by("fc2"), Stream::new("fc2").layer("fc2").read_by("fc3")]
}

fn outputs(tensors: &BTreeMap<String, Tensor>, name: &str) -> Result<usize, Error> {
    width(tensors, name, 0)
}

fn width(tensors: &BTreeMap<String, Tensor>, name: &str, axis: usize) -> Result<usize, Error> {
    let tensor =
        tensors.get(name).ok_or_else(|| Error::Names { missing: vec![name.to_owned()], unexpected: Vec::new() })?;
    Ok(tensor.dim(axis)?)
}

fn load(tensors: &BTreeMap<String, Tensor>, parameters: &Parameters) -> Result<(), Error> {
    Weights { tensors: tensors.clone(), ..Weights::default() }.load_into(parameters, Part::All)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every weight but the first layer's is read along axis 1 and written along axis 0 exactly once, the last one's
    /// outputs apart.
    fn check(streams: &[Stream], network: &impl Network, first: &str, last: &str) {
        for (name, parameter) in network.parameters().iter() {
            let written = streams.iter().flat_map(|s| &s.producers).filter(|p| *p == name).count();
            let read = streams.iter().flat_map(|s| &s.consumers).filter(|p| p.name == name).count();
            let (layer, leaf) = name.rsplit_once('.').unwrap_or(("", name));
            let on_the_way = match leaf {
                "weight" if parameter.var().rank() > 1 => {
                    assert_eq!((written, read), (usize::from(name != last), usize::from(name != first)), "{name}");
                    continue;
                }
                "bias" if streams.iter().flat_map(|s| &s.biases).any(|bias| bias == name) => 1,
                _ => streams.iter().flat_map(|s| &s.norms).filter(|norm| norm.name == layer).count(),
            };
            assert_eq!(on_the_way, usize::from(layer != last.trim_end_matches(".weight")), "{name}");
        }
    }

    #[test]
    fn every_tensor_is_described_once() -> Result<(), Error> {
        let setup = Setup::new(0);
        for head in [Head::Fc, Head::Fastai] {
            let cifar = ResNetConfig { head, ..ResNetConfig::cifar(3, Shortcut::Projection, 3) };
            let imagenet = [ResNetConfig::resnet18, ResNetConfig::resnet34, ResNetConfig::resnet50];
            for config in imagenet.map(|config| config(3, head)).into_iter().chain([cifar]) {
                let last = if head == Head::Fc { "fc.weight" } else { "head.8.weight" };
                check(&ResNet::streams(&config), &ResNet::new(&config, &setup)?, "conv1.weight", last);
            }
        }
        let config = VggConfig::new(crate::VggDepth::Thirteen, 3);
        check(&Vgg::streams(&config), &Vgg::new(&config, &setup)?, "features.0.weight", "classifier.weight");
        let config = LeNetConfig { inputs: 16, ..LeNetConfig::default() };
        check(&LeNet::streams(), &LeNet::new(&config, &setup)?, "fc1.weight", "fc3.weight");
        for depth in [crate::ConvNetDepth::Two, crate::ConvNetDepth::Four, crate::ConvNetDepth::Six] {
            let config = ConvNetConfig { depth, input: (1, 16, 8), classes: 4 };
            check(&ConvNet::streams(&config), &ConvNet::new(&config, &setup)?, "conv1.weight", "fc3.weight");
        }
        Ok(())
    }

    #[test]
    fn a_network_is_rebuilt_from_its_tensors_and_a_wrong_one_is_refused() -> Result<(), Error> {
        let config = ConvNetConfig { depth: crate::ConvNetDepth::Two, input: (1, 8, 8), classes: 4 };
        let mut tensors = Weights::of(ConvNet::new(&config, &Setup::new(0))?.parameters())?.tensors;
        let same = ConvNet::from_tensors(&config, &tensors, &Setup::new(1))?;
        let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        for (name, tensor) in &tensors {
            assert_eq!(values(same.parameters().require(name)?.var())?, values(tensor)?, "{name}");
        }
        let short = tensors["conv2.weight"].narrow(0, 0, 3)?;
        tensors.insert("conv2.weight".to_owned(), short);
        assert!(matches!(ConvNet::from_tensors(&config, &tensors, &Setup::new(1)), Err(Error::Shape { .. })));
        tensors.remove("conv2.weight");
        assert!(matches!(ConvNet::from_tensors(&config, &tensors, &Setup::new(1)), Err(Error::Names { .. })));
        Ok(())
    }
}
