//! `lth infer`: what a trained network says of pictures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use candle_core::{Device, Module, Tensor};
use clap::Args;
use lth_data::{Normalisation, Resizer};
use lth_files::on_one_line;
use lth_nn::{NetworkSpec, PackedNetwork, Setup};
use lth_ticket::{Preprocessing, Ticket};
use lth_train::Network;
use rayon::prelude::*;
use serde::Serialize;

use crate::console::Console;
use crate::failure::{Blame, Result};
use crate::system;

/// Classifies pictures with a trained network, dense or sparse.
///
/// Pictures are cut to their middle square and scaled as in validation. Batch norms are folded into the convolutions,
/// and of a pruned network only the kept weights are multiplied. A file of stage `ticket` is refused: it holds what
/// training starts from.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth infer runs/pets-5f0c1a2b/fits/ticket/level-02/seed-42/trained.safetensors cat.jpg dog.jpg
  lth infer runs/pets-5f0c1a2b/fits/ticket/level-02/seed-42/trained.safetensors pictures/*.jpg --json")]
pub struct Options {
    /// The trained network, such as a fit's trained.safetensors
    file: PathBuf,
    /// Pictures: JPEG, PNG, GIF, BMP or WebP
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Pictures that go through the network at once; it changes results by rounding alone
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch_size: u32,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Leave damaged pictures out, and say which
    #[arg(long)]
    skip_damaged: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const CHANNELS: usize = 3;
/// A larger side in a header is no honest network's, and would ask for gigabytes.
const MAX_IMAGE_SIZE: usize = 4096;
const MAX_OUTPUTS: usize = 100_000;

/// What is said of a picture.
#[derive(Debug, Serialize)]
struct Answer {
    image: PathBuf,
    /// The most probable class.
    class: String,
    /// Its softmax, in [0, 1].
    probability: f32,
    /// Of every class.
    probabilities: BTreeMap<String, f32>,
}

pub(crate) fn run(options: &Options) -> Result {
    lth_kernels::keep_freed_memory();
    let console = Console::new(options.json);
    if options.threads.is_some() {
        system::set_threads(options.threads)?;
    }
    let mut classifier = Classifier::open(&options.file).data()?;
    let mut answers = Vec::new();
    let mut n_damaged = 0;
    for images in options.images.chunks(options.batch_size as usize) {
        let mut batch = Vec::new();
        for (path, picture) in images.iter().zip(classifier.read(images)) {
            match picture {
                Ok(x) => batch.push((path, x)),
                Err(error) if options.skip_damaged => {
                    console.note(format!("left out {error:#}"));
                    n_damaged += 1;
                }
                Err(error) => return Err(error).data(),
            }
        }
        let new = classifier.classify(&batch).data()?;
        for answer in &new {
            let Answer { image, class, probability, .. } = answer;
            if !options.json {
                let answer = format!("{}: {class} ({:.1} %)", image.display(), 100. * probability);
                console.line(on_one_line(&answer));
            }
        }
        answers.extend(new);
    }
    let seconds = classifier.in_network.as_secs_f64();
    let rate = if seconds > 0.0 { answers.len() as f64 / seconds } else { 0.0 };
    console.note(format!(
        "pictures: {}, left out: {n_damaged}; {:.1} ms in the network, {rate:.0} pictures a second",
        answers.len(),
        1e3 * seconds
    ));
    console.json(&serde_json::to_string_pretty(&answers).data()?);
    console.finish()
}

/// A network and what it takes to ask it.
struct Classifier {
    network: PackedNetwork,
    normalisation: Normalisation,
    image_size: usize,
    class_names: Vec<String>,
    in_network: Duration,
}

impl Classifier {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let Ticket { header, tensors, masks } = Ticket::read_trained(path, &Device::Cpu)?;
        let info = header.network;
        let of_file = || path.display().to_string();
        let image_size = || match info.input[..] {
            [CHANNELS, height, width] if height == width && (1..=MAX_IMAGE_SIZE).contains(&height) => Ok(height),
            _ => bail!("its input is {:?}, expected [{CHANNELS}, n, n] with n from 1 to {MAX_IMAGE_SIZE}", info.input),
        };
        let class_names = || {
            let n_names = info.class_names.len();
            if n_names == 0 {
                return Ok((0..info.n_outputs.min(MAX_OUTPUTS)).map(|class| class.to_string()).collect());
            }
            ensure!(n_names == info.n_outputs, "it names {n_names} classes, expected {}", info.n_outputs);
            Ok(info.class_names.clone())
        };
        let network = || {
            let spec = NetworkSpec {
                name: info.name.parse()?,
                head: info.head.as_deref().map(str::parse).transpose()?,
                n_outputs: info.n_outputs,
                input: info.input.clone(),
            };
            // As wide as its tensors: it may have been trained narrower, or compacted.
            let mut network = spec.from_tensors(&tensors, &Setup::new(0))?;
            network.set_masks(&masks.to_tensors(&Device::Cpu)?)?;
            anyhow::Ok(network.packed()?)
        };
        let image_size = image_size().with_context(of_file)?;
        let preprocessing = info.preprocessing.clone().context("it does not say how its pictures are normalised");
        let Preprocessing { mean, std } = preprocessing.with_context(of_file)?;
        let normalisation = Normalisation { mean, std };
        normalisation.check(CHANNELS).with_context(of_file)?;
        Ok(Self {
            network: network().with_context(of_file)?,
            normalisation,
            image_size,
            class_names: class_names().with_context(of_file)?,
            in_network: Duration::ZERO,
        })
    }

    /// The pictures as the network sees them, in order.
    fn read(&self, images: &[PathBuf]) -> Vec<anyhow::Result<Tensor>> {
        let read = |resizer: &mut Resizer, path: &PathBuf| {
            let name = || path.display().to_string();
            let bytes = std::fs::read(path).with_context(name)?;
            let picture = lth_data::decode(&bytes).map_err(anyhow::Error::msg).with_context(name)?;
            self.normalisation.picture(&picture, resizer).with_context(name)
        };
        images.par_iter().map_init(|| Resizer::new(self.image_size), read).collect()
    }

    fn classify(&mut self, batch: &[(&PathBuf, Tensor)]) -> anyhow::Result<Vec<Answer>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let x = Tensor::stack(&batch.iter().map(|(_, x)| x).collect::<Vec<_>>(), 0)?;
        let start = Instant::now();
        let logits = self.network.forward(&x)?;
        self.in_network += start.elapsed();
        let probabilities = candle_nn::ops::softmax(&logits, 1)?.to_vec2::<f32>()?;
        batch.iter().zip(probabilities).map(|((path, _), of_classes)| self.answer(path, &of_classes)).collect()
    }

    fn answer(&self, path: &Path, probabilities: &[f32]) -> anyhow::Result<Answer> {
        ensure!(probabilities.iter().all(|p| p.is_finite()), "{}: the network's answer is not finite", path.display());
        let named = || self.class_names.iter().cloned().zip(probabilities.iter().copied());
        let (class, probability) = named().max_by(|a, b| a.1.total_cmp(&b.1)).context("the network has no classes")?;
        Ok(Answer { image: path.to_owned(), class, probability, probabilities: named().collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lth_data::toy_pets::ToyPets;
    use lth_data::{Loader, LoaderConfig, MemoryPictures, Picture, Split};
    use lth_mask::MaskSet;
    use lth_nn::{Head, ResNet, ResNetConfig};
    use lth_ticket::{DatasetInfo, NetworkInfo, Stage, TicketHeader};
    use lth_train::Pass;

    use super::*;

    const SIDE: usize = 32;

    fn ticket(network: &ResNet, stage: Stage) -> anyhow::Result<Ticket> {
        let Normalisation { mean, std } = Normalisation::imagenet();
        Ok(Ticket {
            header: TicketHeader {
                stage,
                network: NetworkInfo {
                    name: "resnet18".to_owned(),
                    head: Some("fastai".to_owned()),
                    n_outputs: 2,
                    input: vec![CHANNELS, SIDE, SIDE],
                    preprocessing: Some(Preprocessing { mean, std }),
                    class_names: vec!["dog".to_owned(), "cat".to_owned()],
                },
                pruning: None,
                seed: 1,
                dataset: DatasetInfo { name: "toy-pets".to_owned(), sha256: None },
                parent: None,
                other: BTreeMap::new(),
            },
            tensors: network.parameters().snapshot(|_, _| true)?,
            masks: MaskSet::new(),
        })
    }

    /// Validation's loader and the network's own evaluation pass are the reference.
    #[test]
    fn answers_are_those_of_validation() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let network = ResNet::new(&ResNetConfig::resnet18(2, Head::Fastai), &Setup::new(1))?;
        let file = folder.path().join("a.trained.safetensors");
        ticket(&network, Stage::Trained)?.write(&file)?;
        let pets = ToyPets { side: 40, ..ToyPets::default() };
        let (mut paths, mut pictures) = (Vec::new(), Vec::new());
        for index in 0..3 {
            let path = folder.path().join(format!("{index}.jpg"));
            let bytes = pets.picture(index).jpeg()?;
            std::fs::write(&path, &bytes)?;
            let lth_data::Decoded { width, height, rgb, .. } = lth_data::decode(&bytes).map_err(anyhow::Error::msg)?;
            pictures.push(Picture { name: index.to_string(), label: 0, width, height, bytes: rgb });
            paths.push(path);
        }
        // A loader wants one to train on.
        pictures.push(Picture { name: "3".to_owned(), ..pictures[0].clone() });
        let pictures = MemoryPictures::new(3, vec!["dog".to_owned(), "cat".to_owned()], pictures)?;
        let split = Split { train: vec![3], valid: vec![0, 1, 2], test: vec![] };
        let config = LoaderConfig { valid_batch_size: 3, ..LoaderConfig::new(SIDE, 1, 0) };
        let (x, _) = Loader::new(Arc::new(pictures), split, config)?.valid().next().context("a batch")??;
        let expected = candle_nn::ops::softmax(&network.forward(&x, &Pass::eval())?, 1)?.to_vec2::<f32>()?;

        let mut classifier = Classifier::open(&file)?;
        let read: Vec<_> = classifier.read(&paths).into_iter().collect::<anyhow::Result<_>>()?;
        let answers = classifier.classify(&paths.iter().zip(read).collect::<Vec<_>>())?;
        assert_eq!(answers.len(), 3);
        for ((answer, path), expected) in answers.iter().zip(&paths).zip(expected) {
            assert_eq!(&answer.image, path);
            assert!((answer.probabilities["dog"] - expected[0]).abs() < 1e-5, "{answer:?}, expected {expected:?}");
            assert_eq!(answer.class, if expected[0] > expected[1] { "dog" } else { "cat" });
        }
        Ok(())
    }

    #[test]
    fn a_ticket_is_refused_with_the_reason() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let network = ResNet::new(&ResNetConfig::resnet18(2, Head::Fastai), &Setup::new(1))?;
        let file = folder.path().join("a.safetensors");
        ticket(&network, Stage::Ticket)?.write(&file)?;
        let error = Classifier::open(&file).err().context("it was taken")?;
        assert!(error.to_string().contains("its answers mean nothing yet"), "{error}");
        Ok(())
    }

    #[test]
    fn a_header_that_lies_is_refused() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let network = ResNet::new(&ResNetConfig::resnet18(2, Head::Fastai), &Setup::new(1))?;
        let honest = ticket(&network, Stage::Trained)?;
        let file = folder.path().join("a.safetensors");
        let refused = |change: &dyn Fn(&mut NetworkInfo)| -> anyhow::Result<String> {
            let mut ticket = honest.clone();
            change(&mut ticket.header.network);
            ticket.write(&file)?;
            let error = Classifier::open(&file).err().context("it was taken")?;
            Ok(format!("{error:#}"))
        };
        assert!(refused(&|info| info.input[1] = usize::MAX)?.contains("its input is"));
        assert!(refused(&|info| info.n_outputs = usize::MAX)?.contains("n_outputs is"));
        assert!(refused(&|info| info.preprocessing = None)?.contains("normalised"));
        assert!(refused(&|info| info.head = None)?.contains("fc.weight"));
        assert!(refused(&|info| info.name = "vgg".to_owned())?.contains("expected one of lenet-300-100"));
        assert!(refused(&|info| info.head = Some("mlp".to_owned()))?.contains("expected fc or fastai"));
        assert!(refused(&|info| info.class_names.truncate(1))?.contains("names 1 classes, expected 2"));
        let one = |info: &mut NetworkInfo| {
            info.class_names.truncate(1);
            info.n_outputs = 1;
        };
        assert!(refused(&one)?.contains("head.8.weight"));
        assert!(
            refused(&|info| info.preprocessing.iter_mut().for_each(|how| how.std = vec![0.0; 3]))?
                .contains("normalisation")
        );
        Ok(())
    }
}
