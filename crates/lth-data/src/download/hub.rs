//! Files of the Hugging Face hub: those that other software has cached, and the hub itself.

use std::path::PathBuf;

use super::downloader::{Downloader, Fetched};
use super::error::{Attempt, Cause, Error, Result};
use super::mirror::public;
use super::options::Event;
use super::resource::{Check, Digests, Resource, resnet18_weights};
use super::transfer::{Stop, failed_call, refused};

/// The hub and its cache on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// Where hub software keeps its files; `None` where the system names no home.
    pub cache: Option<PathBuf>,
    /// The hub's address.
    pub endpoint: String,
    /// Whether the hub must not be asked.
    pub offline: bool,
}

/// torchvision's weights, as safetensors with the same names.
const REPOSITORY: &str = "timm/resnet18.tv_in1k";
const FILE: &str = "model.safetensors";
/// Longest file that is taken from the hub.
const MOST: u64 = 1 << 30;

impl Hub {
    /// As `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` say.
    pub fn from_env() -> Hub {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = || directories::BaseDirs::new().map(|dirs| dirs.home_dir().join(".cache"));
        let base = || set("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).map(|base| base.join("huggingface"));
        let in_home = || set("HF_HOME").map(PathBuf::from).or_else(base).map(|home| home.join("hub"));
        let offline = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_uppercase();
        let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
        Hub {
            cache: set("HF_HUB_CACHE").map(PathBuf::from).or_else(in_home),
            endpoint: endpoint.map_or_else(
                || "https://huggingface.co".to_owned(),
                |endpoint| endpoint.trim_end_matches('/').to_owned(),
            ),
            offline: ["1", "ON", "YES", "TRUE"].contains(&offline.as_str()),
        }
    }

    /// A file of a repository, if hub software has cached it and it is undamaged. No network.
    pub fn cached(&self, repository: &str, file: &str) -> Option<Fetched> {
        let folder = self.cache.as_ref()?.join(format!("models--{}", repository.replace('/', "--")));
        let snapshots = folder.join("snapshots");
        let main = std::fs::read_to_string(folder.join("refs/main")).ok();
        let path = snapshots.join(main?.trim()).join(file);
        // Large files are links to blobs that are named by their SHA-256.
        let blob = path.canonicalize().ok()?;
        let digests = Digests::of_file(&blob).ok()?;
        let named = blob.file_name()?.to_str()?;
        let check = is_sha256(named).then(|| Check::Sha256(named.to_owned()));
        if check.is_some() && named != digests.sha256 {
            return None;
        }
        let name = format!("{}-{file}", repository.replace('/', "-"));
        Some(Fetched { path, name, size: digests.size, sha256: digests.sha256, url: None, check })
    }

    /// A file of a repository: from hub software's cache, or else downloaded.
    ///
    /// # Errors
    /// If `HF_HUB_OFFLINE` is set, the hub gives no SHA-256 for it (a small file), or as [`Downloader::fetch`].
    pub fn fetch(
        &self,
        downloader: &Downloader,
        repository: &str,
        file: &str,
        notify: &dyn Fn(Event<'_>),
    ) -> Result<Fetched> {
        if let Some(fetched) = self.cached(repository, file) {
            return Ok(fetched);
        }
        let resource = self.resource(downloader, repository, file)?;
        downloader.fetch(&resource, notify)
    }

    /// The file as a resource: the hub says its length and SHA-256 before it gives it.
    fn resource(&self, downloader: &Downloader, repository: &str, file: &str) -> Result<Resource> {
        let name = format!("{}-{file}", repository.replace('/', "-"));
        let url = format!("{}/{repository}/resolve/main/{file}", self.endpoint);
        let unavailable = |cause| {
            let attempt = Attempt { url: public(&url), times: 1, cause };
            Error::Unavailable { name: name.clone(), tried: vec![attempt] }
        };
        if self.offline {
            return Err(unavailable(Cause::Offline));
        }
        let mut ask = url.clone();
        for _ in 0..3 {
            let request =
                downloader.agent().head(&ask).config().max_redirects(0).max_redirects_will_error(false).build();
            let response = match request.call() {
                Ok(response) => response,
                Err(error) => return Err(remote(failed_call(&error, 0)).map_or_else(|error| error, unavailable)),
            };
            let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
            let sum = header("x-linked-etag").map(|etag| etag.trim_matches('"').to_lowercase());
            if let Some(sum) = sum.filter(|sum| is_sha256(sum)) {
                let size = header("x-linked-size").and_then(|size| size.parse().ok());
                return Ok(Resource { name, urls: vec![url], size, most: MOST, check: Check::Sha256(sum) });
            }
            match header("location") {
                // A renamed repository is a path on the same host.
                Some(path) if response.status().is_redirection() && path.starts_with('/') => {
                    ask = format!("{}{path}", self.endpoint);
                }
                _ if response.status().is_client_error() || response.status().is_server_error() => {
                    let stop = refused(response.status(), response.headers());
                    return Err(remote(stop).map_or_else(|error| error, unavailable));
                }
                _ => break,
            }
        }
        Err(unavailable(Cause::BadAnswer("the hub gives no SHA-256 for this file".to_owned())))
    }
}

impl Downloader {
    /// ResNet-18's ImageNet weights: a `.pth` from this downloader's folder, a `.safetensors` that hub software has
    /// cached, or else downloaded from torchvision's address, or else from the hub. With a mirror only from there.
    ///
    /// # Errors
    /// As [`Downloader::fetch`].
    pub fn fetch_resnet18(&self, hub: &Hub, notify: &dyn Fn(Event<'_>)) -> Result<Fetched> {
        let weights = resnet18_weights();
        if self.mirror().is_some() {
            return self.fetch(&weights, notify);
        }
        if let Some(fetched) = self.cached(&weights)? {
            return Ok(fetched);
        }
        if let Some(fetched) = hub.cached(REPOSITORY, FILE) {
            return Ok(fetched);
        }
        let first = match self.fetch(&weights, notify) {
            Err(error) if error.is_about_the_source() => error,
            other => return other,
        };
        let second = match hub.fetch(self, REPOSITORY, FILE, notify) {
            Err(error) if error.is_about_the_source() => error,
            other => return other,
        };
        match (first, second) {
            (Error::Unavailable { name, mut tried }, Error::Unavailable { tried: more, .. }) => {
                tried.extend(more);
                Err(Error::Unavailable { name, tried })
            }
            (first, _) => Err(first),
        }
    }
}

fn remote(stop: Stop) -> Result<Cause, Error> {
    match stop {
        Stop::Local(error) => Err(error),
        Stop::Remote(cause, _) => Ok(cause),
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit())
}
