//! The starting weights of a ResNet-18.

use std::cell::RefCell;

use anyhow::Context;
use lth_data::cache_dir;
use lth_data::download::{self, Downloader, Hub, resnet18_weights};
use lth_files::sha256_file;
use lth_nn::Weights;
use lth_runs::WeightsRecord;

use super::options::WeightsName;
use crate::checked;
use crate::console::Console;
use crate::data::Watch;
use crate::failure::{Blame, Failure, Kind, Result};
use crate::inspect;

/// The starting weights of that name; `None` for random ones. `mirror`: where they are fetched from, if not from their makers.
pub(super) fn open(
    name: &WeightsName,
    mirror: Option<&str>,
    console: &Console,
) -> Result<Option<(Weights, WeightsRecord)>> {
    let (path, mut record) = match name {
        WeightsName::None => return Ok(None),
        WeightsName::Imagenet => {
            let folder = cache_dir().data()?.join("downloads");
            let downloader = match mirror {
                None => Downloader::new(folder, download::Options::default()),
                Some(url) => Downloader::with_mirror(folder, url, download::Options::default()).data()?,
            };
            let watch = RefCell::new(Watch { console, bar: None });
            let fetched = downloader.fetch_resnet18(&Hub::from_env(), &|event| watch.borrow_mut().download(event));
            watch.borrow_mut().clear();
            let fetched = fetched.context("the ImageNet weights could not be downloaded").map_err(|error| {
                let hint =
                    "Without a network: give them with --weights FILE, or start from random ones with --weights none";
                Failure::new(Kind::Data, anyhow::anyhow!("{error:#}. {hint}"))
            })?;
            let checked = checked::of_fetched(&fetched, downloader.mirror());
            let from = fetched.url.clone().unwrap_or_else(|| fetched.path.display().to_string());
            let source = format!("downloaded from {from}");
            (fetched.path, WeightsRecord { name: "imagenet".to_owned(), source, sha256: None, checked })
        }
        WeightsName::File(path) => {
            let name =
                path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
            let source = format!("file {}", path.display());
            let checked = checked::of_file(&resnet18_weights(), path)?;
            (path.clone(), WeightsRecord { name, source, sha256: None, checked })
        }
    };
    let weights = Weights::read(&path).data()?;
    inspect::remarks(&weights.folded, None, &[]).into_iter().for_each(|remark| console.note(remark));
    record.sha256 = Some(sha256_file(&path).data()?.0);
    Ok(Some((weights, record)))
}
