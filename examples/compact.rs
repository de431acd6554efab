//! A network pruned by filter, rebuilt physically smaller: the same outputs in less time.
//!
//! `cargo run --example compact`
#![allow(clippy::print_stdout)] // an example talks to its reader

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use lth_criteria::{LargeFinal, NamedInputs, score_all};
use lth_mask::{Axis, Channels, CompactionPlan, Connections, Granularity, MaskSet, Selection, select};
use lth_nn::{Head, ResNet, ResNetConfig, Setup, Stream};
use lth_train::{Network, Parameters, Pass, Role};

fn main() -> Result<()> {
    let config = ResNetConfig::resnet18(2, Head::Fc);
    let network = ResNet::new(&config, &Setup::new(42))?;
    unsettle(network.parameters())?;
    let x = wave(&[16, 3, 64, 64], 1.)?;

    // Half of the filters of every convolution go. Those that write to one residual stream are tied: they lose the same.
    let streams = ResNet::streams(&config);
    let masks = prune(network.parameters(), &streams, 4, Granularity::Filter)?;
    println!("{}", masks.stats());
    let (masked, small) = compact(network.parameters(), &streams, &masks)?;
    let small = ResNet::from_tensors(&config, &small, &Setup::new(0))?;
    network.parameters().restore(&masked)?;

    println!("           values   forward pass");
    let mut outputs = Vec::new();
    for (what, network) in [("masked", &network), ("rebuilt", &small)] {
        network.forward(&x, &Pass::eval())?; // the first pass sizes its buffers
        let start = Instant::now();
        outputs.push(network.forward(&x, &Pass::eval())?);
        let elapsed = 1e3 * start.elapsed().as_secs_f64();
        println!("{what:8} {:8}   {elapsed:6.1} ms", network.parameters().n_values());
    }
    println!("\nThe outputs differ by at most {:.1e}.", distance(&outputs[0], &outputs[1])?);
    Ok(())
}

/// Masks that prune half of the groups of every weight of this rank but the last layer's, by magnitude.
fn prune(parameters: &Parameters, streams: &[Stream], rank: usize, granularity: Granularity) -> Result<MaskSet> {
    let has_rank = |name: &str| parameters.get(name).is_some_and(|weight| weight.var().rank() == rank);
    let written = streams.iter().flat_map(|stream| &stream.producers).filter(|name| has_rank(name));
    let weights: BTreeMap<String, Tensor> = written
        .map(|name| Ok((name.clone(), parameters.require(name)?.var().as_detached_tensor())))
        .collect::<Result<_>>()?;
    let scores = score_all(&LargeFinal, &NamedInputs::of(&weights))?;
    let tied = streams.iter().map(|stream| stream.producers.clone()).filter(|tie| tie.len() > 1).collect();
    Ok(select(&scores, 0.5, &Selection { granularity, tied, ..Selection::default() })?)
}

/// The masked tensors, and what is left of them when the dead channels are cut out.
///
/// A pruned filter's bias or batch norm would still add its shift: the plan's masks take in those, too.
fn compact(
    parameters: &Parameters,
    streams: &[Stream],
    masks: &MaskSet,
) -> Result<(BTreeMap<String, Tensor>, BTreeMap<String, Tensor>)> {
    let mut tensors = parameters.snapshot(|_, _| true)?;
    let plan = CompactionPlan::new(&connections(streams), masks, &tensors)?;
    plan.masks().apply(&mut tensors)?;
    let small = plan.apply(&tensors)?;
    Ok((tensors, small))
}

/// The network's own description of its channels as `lth-mask` takes it. The two crates do not know each other.
fn connections(streams: &[Stream]) -> Connections {
    let channels = |stream: &Stream| {
        let mut channels = Channels::new(&stream.name);
        channels = stream.producers.iter().fold(channels, |channels, weight| channels.producer(weight));
        channels = stream.biases.iter().fold(channels, |channels, bias| channels.bias(bias));
        channels = stream.norms.iter().fold(channels, |channels, norm| {
            channels.batch_norm_at(&norm.name, &Axis::new("", 0).repeated(norm.copies).spanning(norm.span))
        });
        stream.consumers.iter().fold(channels, |channels, weight| {
            channels.consumer_at(Axis::new(&weight.name, 1).repeated(weight.copies).spanning(weight.span))
        })
    };
    Connections::new(streams.iter().map(channels).collect::<Vec<_>>())
}

/// Gives biases, norms and their statistics values that a trained network could have: a new one's are all 0 or 1.
fn unsettle(parameters: &Parameters) -> Result<()> {
    let mut values = BTreeMap::new();
    for (idx, (name, parameter)) in parameters.iter().enumerate().filter(|(_, (_, p))| p.var().rank() == 1) {
        let is_scale = parameter.role() == Role::Norm && name.ends_with("weight");
        let centre = if is_scale || name.ends_with("running_var") { 1. } else { 0. };
        values.insert(name.to_owned(), wave(parameter.var().dims(), idx as f64)?.affine(0.1, centre)?);
    }
    Ok(parameters.restore(&values)?)
}

/// Numbers between -1 and 1, the same on every machine but for the last bit.
fn wave(shape: &[usize], phase: f64) -> Result<Tensor> {
    let n = shape.iter().product::<usize>();
    let values = (0..n).map(|i| (i as f64 * 0.73 + phase).sin() as f32);
    Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape(shape)?)
}

fn distance(a: &Tensor, b: &Tensor) -> Result<f32> {
    Ok((a - b)?.abs()?.to_dtype(DType::F32)?.max_all()?.to_scalar()?)
}

#[cfg(test)]
mod tests {
    use lth_nn::{ConvNet, ConvNetConfig, ConvNetDepth, LeNet, LeNetConfig, NetworkSpec};

    use super::*;

    /// Outputs are near 1, and f32 adds up fewer numbers in another order.
    const TOLERANCE: f32 = 1e-5;

    /// Masks the network and compares it with the one rebuilt from what is left; gives the values of both.
    fn check<N: Network>(
        network: &N,
        streams: &[Stream],
        masks: &MaskSet,
        x: &Tensor,
        rebuild: impl Fn(&BTreeMap<String, Tensor>) -> Result<N, lth_nn::Error>,
    ) -> Result<(usize, usize)> {
        let (masked, small) = compact(network.parameters(), streams, masks)?;
        network.parameters().restore(&masked)?;
        let small = rebuild(&small)?;
        let (expected, got) = (network.forward(x, &Pass::eval())?, small.forward(x, &Pass::eval())?);
        let spread = expected.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!((0.05..50.).contains(&spread), "outputs up to {spread} show nothing");
        let distance = distance(&expected, &got)?;
        assert!(distance <= TOLERANCE, "outputs differ by {distance}");
        Ok((network.parameters().n_values(), small.parameters().n_values()))
    }

    fn resnet18(head: Head, is_tied: bool) -> Result<(usize, usize)> {
        let config = ResNetConfig::resnet18(3, head);
        let network = ResNet::new(&config, &Setup::new(1))?;
        unsettle(network.parameters())?;
        let streams = ResNet::streams(&config);
        let masks = if is_tied {
            prune(network.parameters(), &streams, 4, Granularity::Filter)?
        } else {
            let alone = |producer: &String| Stream { producers: vec![producer.clone()], ..Stream::default() };
            let untied: Vec<_> = streams.iter().flat_map(|stream| &stream.producers).map(alone).collect();
            prune(network.parameters(), &untied, 4, Granularity::Filter)?
        };
        let x = wave(&[2, 3, 33, 40], 0.5)?;
        check(&network, &streams, &masks, &x, |small| ResNet::from_tensors(&config, small, &Setup::new(0)))
    }

    #[test]
    fn a_resnet18_with_tied_streams_has_a_quarter_of_its_convolutions() -> Result<()> {
        for head in [Head::Fc, Head::Fastai] {
            let (before, after) = resnet18(head, true)?;
            assert!(after < before * 3 / 10, "{after} of {before}");
        }
        Ok(())
    }

    #[test]
    fn a_resnet18_with_filters_pruned_anywhere_computes_the_same() -> Result<()> {
        for head in [Head::Fc, Head::Fastai] {
            let (before, after) = resnet18(head, false)?;
            assert!(after < before * 7 / 10, "{after} of {before}");
        }
        Ok(())
    }

    #[test]
    fn input_channels_that_nothing_reads_are_cut_as_well() -> Result<()> {
        let config = ResNetConfig::resnet18(3, Head::Fc);
        let network = ResNet::new(&config, &Setup::new(1))?;
        unsettle(network.parameters())?;
        let streams = ResNet::streams(&config);
        // Of the convolutions inside of blocks alone: a stream has several readers, which would have to agree.
        let inner = streams.iter().filter(|stream| stream.producers.len() == 1);
        let reader = |consumer: &lth_nn::Place| Stream { producers: vec![consumer.name.clone()], ..Stream::default() };
        let readers: Vec<_> = inner.flat_map(|stream| &stream.consumers).map(reader).collect();
        let masks = prune(network.parameters(), &readers, 4, Granularity::SharedKernel)?;
        assert_eq!(masks.len(), 8);
        let x = wave(&[2, 3, 32, 32], 0.5)?;
        let (before, after) =
            check(&network, &streams, &masks, &x, |small| ResNet::from_tensors(&config, small, &Setup::new(0)))?;
        assert!(after < before * 6 / 10, "{after} of {before}");
        Ok(())
    }

    #[test]
    fn a_lenet_loses_hidden_units() -> Result<()> {
        let network = LeNet::new(&LeNetConfig { inputs: 64, ..LeNetConfig::default() }, &Setup::new(1))?;
        unsettle(network.parameters())?;
        let masks = prune(network.parameters(), &LeNet::streams(), 2, Granularity::Row)?;
        let x = wave(&[4, 8, 8], 0.5)?;
        let sizes = check(&network, &LeNet::streams(), &masks, &x, |small| LeNet::from_tensors(small, &Setup::new(0)))?;
        let values = |a: usize, b: usize| 64 * a + a + a * b + b + b * 10 + 10;
        assert_eq!(sizes, (values(300, 100), values(150, 50)));
        Ok(())
    }

    #[test]
    fn networks_by_name_compute_the_same_without_their_pruned_filters() -> Result<()> {
        for (name, side, share) in [
            // Where inputs are padded, only what is between two convolutions of a block can go.
            ("resnet-20", 16, 0.6),
            ("resnet-20-b", 16, 0.3),
            ("resnet-18-cifar", 16, 0.3),
            ("resnet-50", 33, 0.3),
            ("vgg-13", 16, 0.3),
        ] {
            let spec = NetworkSpec::new(name.parse()?, 5, [3, side, side]);
            let network = spec.build(&Setup::new(1))?;
            unsettle(network.parameters())?;
            let streams = spec.streams()?;
            let masks = prune(network.parameters(), &streams, 4, Granularity::Filter)?;
            let x = wave(&[3, 3, side, side], 0.5)?;
            let rebuild = |small: &BTreeMap<String, Tensor>| spec.from_tensors(small, &Setup::new(0));
            let (before, after) = check(&network, &streams, &masks, &x, rebuild)?;
            assert!((after as f64) < share * before as f64, "{name}: {after} of {before}");
        }
        Ok(())
    }

    #[test]
    fn conv_nets_lose_filters_and_hidden_units() -> Result<()> {
        for depth in [ConvNetDepth::Two, ConvNetDepth::Four, ConvNetDepth::Six] {
            let config = ConvNetConfig { depth, input: (3, 16, 24), classes: 5 };
            let network = ConvNet::new(&config, &Setup::new(1))?;
            unsettle(network.parameters())?;
            let streams = ConvNet::streams(&config);
            let mut masks = prune(network.parameters(), &streams, 4, Granularity::Filter)?;
            for (name, mask) in prune(network.parameters(), &streams, 2, Granularity::Row)? {
                masks.insert(name, mask);
            }
            let x = wave(&[3, 3, 16, 24], 0.5)?;
            let (before, after) =
                check(&network, &streams, &masks, &x, |small| ConvNet::from_tensors(&config, small, &Setup::new(0)))?;
            assert!(after < before * 3 / 10, "{depth:?}: {after} of {before}");
        }
        Ok(())
    }
}
