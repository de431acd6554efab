//! Gets files into a folder: addresses in turn, attempts with growing pauses, checksums, one process at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::error::{Attempt, Cause, Error, Result};
use super::mirror::{Mirror, Sums, check_url, public};
use super::options::{Event, Options};
use super::resource::{Check, Digests, Resource};
use super::transfer::{Ask, Part, Retry, Stop, failed_call, receive, refused};

/// A file that is whole and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// Where it lies.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// Its length.
    pub size: u64,
    /// SHA-256 of the whole file.
    pub sha256: String,
    /// Where it came from, this time or when it was fetched; without user name and password.
    pub url: Option<String>,
    /// What it was held against; `None` for a file of other software that bears no checksum.
    pub check: Option<Check>,
}

/// Beside a verified file: spares reading it all again while its length and time stay the same.
#[derive(serde::Serialize, serde::Deserialize)]
struct Verified {
    size: u64,
    modified_nanoseconds: u128,
    sha256: String,
    url: Option<String>,
}

/// Downloads into one folder.
#[derive(Clone, Debug)]
pub struct Downloader {
    folder: PathBuf,
    mirror: Option<Mirror>,
    options: Options,
    agent: ureq::Agent,
}

/// Attempts per address, however much each of them brings.
const MOST_ATTEMPTS: u32 = 200;
/// An attempt that brought this much was no failure: it costs no patience.
const PROGRESS: u64 = 1 << 20;
/// Longest `SHA256SUMS` that is read.
const MOST_SUMS: u64 = 1 << 20;

impl Downloader {
    /// A downloader into `folder`, which need not exist yet. Files come from their own addresses.
    pub fn new(folder: impl Into<PathBuf>, options: Options) -> Downloader {
        Downloader { folder: folder.into(), mirror: None, agent: options.agent(), options }
    }

    /// A downloader that takes every file from `url/<file name>`. Reads `url/SHA256SUMS` if there is one; status 403 says
    /// that there is none, as 404 does: it is how object stores answer who may not list their files.
    ///
    /// # Errors
    /// [`Error::BadMirror`] if `url` is no http address, [`Error::Unavailable`] if the mirror cannot be reached or fails,
    /// [`Error::BadSums`] if its list is none.
    pub fn with_mirror(folder: impl Into<PathBuf>, url: &str, options: Options) -> Result<Downloader> {
        let url = check_url(url)?;
        let mut downloader = Downloader::new(folder, options);
        let sums = downloader.fetch_sums(&url)?;
        downloader.mirror = Some(Mirror::new(url, sums));
        Ok(downloader)
    }

    /// The mirror in use.
    pub fn mirror(&self) -> Option<&Mirror> {
        self.mirror.as_ref()
    }

    pub(super) fn agent(&self) -> &ureq::Agent {
        &self.agent
    }

    /// The file, if it lies in the folder, whole and verified. No network.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn cached(&self, resource: &Resource) -> Result<Option<Fetched>> {
        let resource = self.mirrored(resource)?;
        self.look_up(&resource, &|_| {}).map(|found| found.and_then(Result::ok))
    }

    /// The file: from the folder, or else downloaded into it, going on with what an earlier attempt left.
    ///
    /// # Errors
    /// If no address gives it, the disk is full, or the folder cannot be written. Nothing complete that was in the
    /// folder is lost; the bytes so far are kept for the next time.
    pub fn fetch(&self, resource: &Resource, notify: &dyn Fn(Event<'_>)) -> Result<Fetched> {
        let resource = self.mirrored(resource)?;
        // First without a lock: nothing need be written where the file is there, and a shared cache may be read-only.
        if let Some(Ok(fetched)) = self.look_up(&resource, notify)? {
            return Ok(fetched);
        }
        let target = self.target(&resource);
        let folder = target.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let _lock = lock(&target, &resource.name, notify)?;
        match self.look_up(&resource, notify)? {
            Some(Ok(fetched)) => return Ok(fetched),
            Some(Err(_)) => set_aside(&target, notify)?,
            None => {}
        }
        let part = Part::beside(&target);
        let mut tried = Vec::new();
        for url in &resource.urls {
            match self.try_url(&resource, url, &part, notify)? {
                Ok((whole, digests)) => {
                    part.finish(&whole, &target)?;
                    sync_folder(folder);
                    return remember(&target, &resource, digests, Some(public(url)));
                }
                Err(attempt) => tried.push(attempt),
            }
        }
        Err(Error::Unavailable { name: resource.name, tried })
    }

    /// All files of the first set that can be had whole. A set that lies in the folder already comes before all
    /// others, then those that the mirror's list names, then the rest in order.
    ///
    /// # Errors
    /// If no set can be had; the error names every address tried. As [`Downloader::fetch`] otherwise.
    pub fn fetch_any(&self, sets: &[Vec<Resource>], notify: &dyn Fn(Event<'_>)) -> Result<Vec<Fetched>> {
        let (mut order, others): (Vec<_>, Vec<_>) =
            sets.iter().partition(|set| self.mirror.as_ref().is_some_and(|mirror| mirror.lists(set)));
        order.extend(others);
        for set in &order {
            let cached = set.iter().map(|resource| self.cached(resource)).collect::<Result<Option<Vec<_>>>>()?;
            if let Some(files) = cached {
                return Ok(files);
            }
        }
        let (mut names, mut all_tried) = (Vec::new(), Vec::new());
        for set in order {
            match set.iter().map(|resource| self.fetch(resource, notify)).collect() {
                Err(Error::Unavailable { name, tried }) => {
                    names.push(name);
                    all_tried.extend(tried);
                }
                other => return other,
            }
        }
        Err(Error::Unavailable { name: names.join(" or "), tried: all_tried })
    }

    /// The resource as the mirror has it, once its name is known to stay inside the folder.
    fn mirrored(&self, resource: &Resource) -> Result<Resource> {
        let name = &resource.name;
        if Path::new(name).file_name().is_none_or(|plain| plain != name.as_str()) || name.contains(['/', '\\', ':']) {
            return Err(Error::BadName { name: name.clone() });
        }
        Ok(self.mirror.as_ref().map_or_else(|| resource.clone(), |mirror| mirror.apply(resource)))
    }

    /// Where the file lies when it is whole: a folder per checksum, so that a mirror's other file of the same name
    /// replaces nothing.
    fn target(&self, resource: &Resource) -> PathBuf {
        self.folder.join(resource.check.folder()).join(&resource.name)
    }

    /// The file in the folder: none, a good one, or what is wrong with it.
    fn look_up(
        &self,
        resource: &Resource,
        notify: &dyn Fn(Event<'_>),
    ) -> Result<Option<std::result::Result<Fetched, Cause>>> {
        let target = self.target(resource);
        let metadata = match fs::metadata(&target) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &target)(error)),
        };
        let verified =
            fs::read(verified_path(&target)).ok().and_then(|text| serde_json::from_slice::<Verified>(&text).ok());
        if let Some(verified) = &verified
            && verified.size == metadata.len()
            && resource.might_be(verified.size, &verified.sha256)
            && verified.modified_nanoseconds == modified(&metadata)
        {
            let Verified { size, sha256, url, .. } = verified;
            let name = resource.name.clone();
            let (sha256, url, check) = (sha256.clone(), url.clone(), Some(resource.check.clone()));
            return Ok(Some(Ok(Fetched { path: target, name, size: *size, sha256, url, check })));
        }
        notify(Event::Verifying { name: &resource.name });
        let digests = Digests::of_file(&target).map_err(Error::io("read", &target))?;
        match resource.verify(&digests) {
            Ok(()) => {
                let url = verified.and_then(|verified| verified.url);
                remember(&target, resource, digests, url).map(|fetched| Some(Ok(fetched)))
            }
            Err(cause) => Ok(Some(Err(cause))),
        }
    }

    /// Tries one address until a part is whole and verified, or patience ends.
    fn try_url(
        &self,
        resource: &Resource,
        url: &str,
        part: &Part,
        notify: &dyn Fn(Event<'_>),
    ) -> Result<std::result::Result<(Part, Digests), Attempt>> {
        let options = &self.options;
        let (mut failures, mut restarts) = (0, 0);
        let (mut times, mut ask) = (0, Ask::Rest);
        loop {
            times += 1;
            let before = part.len();
            let stop = match receive(&self.agent, options, resource, url, part, ask, notify) {
                Ok(whole) => {
                    notify(Event::Verifying { name: &resource.name });
                    let digests = Digests::of_file(whole.path()).map_err(Error::io("read", whole.path()))?;
                    match resource.verify(&digests) {
                        Ok(()) => return Ok(Ok((whole, digests))),
                        Err(cause) => {
                            if matches!(cause, Cause::WrongChecksum { .. }) {
                                whole.discard()?;
                            }
                            Stop::Remote(cause, Retry::FromScratch)
                        }
                    }
                }
                Err(stop) => stop,
            };
            let (cause, retry) = match stop {
                Stop::Local(error) => return Err(error),
                Stop::Remote(cause, retry) => (cause, retry),
            };
            ask = if retry == Retry::FromScratch { Ask::Whole } else { Ask::Rest };
            let unreachable = matches!(cause, Cause::Unreachable(_));
            let (go_on, pause) = match retry {
                Retry::Elsewhere => (false, Duration::ZERO),
                Retry::FromScratch => {
                    restarts += 1;
                    (restarts < 2, Duration::ZERO)
                }
                Retry::Later(asked) => {
                    failures = if part.len() >= before + PROGRESS { 1 } else { failures + 1 };
                    let patience = if unreachable { options.attempts.min(2) } else { options.attempts };
                    (failures < patience, options.pause_after(failures, asked))
                }
            };
            let url = public(url);
            if !go_on || times >= MOST_ATTEMPTS {
                return Ok(Err(Attempt { url, times, cause }));
            }
            notify(Event::Retrying { name: &resource.name, url: &url, cause: &cause, pause });
            if !pause.is_zero() {
                (options.sleep)(pause);
            }
        }
    }

    /// The mirror's list of checksums, `None` if it has none.
    fn fetch_sums(&self, mirror: &str) -> Result<Option<Sums>> {
        let url = format!("{mirror}/SHA256SUMS");
        let bad = |reason: String| Error::BadSums { url: public(mirror), reason };
        let unavailable = |times, cause| {
            let attempt = Attempt { url: public(&url), times, cause };
            Error::Unavailable { name: "the mirror's SHA256SUMS".to_owned(), tried: vec![attempt] }
        };
        let mut failures = 0;
        loop {
            let stop = match self.read_small(&url) {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) => {
                    let text = String::from_utf8(bytes).map_err(|_| bad("SHA256SUMS is no text".to_owned()))?;
                    return Sums::parse(&text).map(Some).map_err(bad);
                }
                Err(stop) => stop,
            };
            let (cause, retry) = match stop {
                Stop::Local(error) => return Err(error),
                Stop::Remote(cause, retry) => (cause, retry),
            };
            failures += 1;
            let patience = if matches!(cause, Cause::Unreachable(_)) {
                self.options.attempts.min(2)
            } else {
                self.options.attempts
            };
            let Retry::Later(asked) = retry else { return Err(unavailable(failures, cause)) };
            if failures >= patience {
                return Err(unavailable(failures, cause));
            }
            (self.options.sleep)(self.options.pause_after(failures, asked));
        }
    }

    /// The content of a small file; `None` if the server has none.
    fn read_small(&self, url: &str) -> std::result::Result<Option<Vec<u8>>, Stop> {
        // The whole answer within one limit: a byte now and then would keep the read's own timeout quiet for ever.
        let request = self.agent.get(url).config().timeout_recv_body(Some(self.options.stall)).build();
        let mut response = request.call().map_err(|error| failed_call(&error, 0))?;
        match response.status().as_u16() {
            200 => {}
            403 | 404 | 410 => return Ok(None),
            _ => return Err(refused(response.status(), response.headers())),
        }
        match response.body_mut().with_config().limit(MOST_SUMS).read_to_vec() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                let cause = Cause::BadAnswer(format!("longer than {MOST_SUMS} bytes"));
                Err(Stop::Remote(cause, Retry::Elsewhere))
            }
            Err(error) => Err(failed_call(&error, 0)),
        }
    }
}

/// Whether a file was downloaded and verified and has not changed since, as the note beside it says.
pub(crate) fn is_noted(target: &Path) -> bool {
    let note = fs::read(verified_path(target)).ok().and_then(|text| serde_json::from_slice::<Verified>(&text).ok());
    let is_of = |metadata: fs::Metadata| {
        note.is_some_and(|note| note.size == metadata.len() && note.modified_nanoseconds == modified(&metadata))
    };
    fs::symlink_metadata(target).is_ok_and(is_of)
}

fn verified_path(target: &Path) -> PathBuf {
    suffixed(target, ".verified.json")
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn modified(metadata: &fs::Metadata) -> u128 {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    modified.map_or(0, |time| time.as_nanos())
}

/// Notes beside a verified file what it is.
fn remember(target: &Path, resource: &Resource, digests: Digests, url: Option<String>) -> Result<Fetched> {
    let metadata = fs::metadata(target).map_err(Error::io("read", target))?;
    let Digests { size, sha256, .. } = digests;
    let note = Verified { size, modified_nanoseconds: modified(&metadata), sha256: sha256.clone(), url: url.clone() };
    // In a folder that cannot be written the note is missing and the file is read again next time.
    if let Ok(text) = serde_json::to_vec(&note) {
        let _ = fs::write(verified_path(target), text);
    }
    let (name, check) = (resource.name.clone(), Some(resource.check.clone()));
    Ok(Fetched { path: target.to_path_buf(), name, size, sha256, url, check })
}

/// Renames a file that is not the one expected; it may be the user's own.
fn set_aside(target: &Path, notify: &dyn Fn(Event<'_>)) -> Result<()> {
    let free = (1..).map(|n| suffixed(target, &format!(".unexpected-{n}"))).find(|path| !path.exists());
    let path = free.unwrap_or_else(|| suffixed(target, ".unexpected"));
    fs::rename(target, &path).map_err(Error::io("set aside", target))?;
    notify(Event::SetAside { path: &path });
    Ok(())
}

/// Waits until no other process downloads this file. The lock ends with the process that holds it, however it ends.
fn lock(target: &Path, name: &str, notify: &dyn Fn(Event<'_>)) -> Result<File> {
    let path = suffixed(target, ".lock");
    let open = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(Error::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            notify(Event::Waiting { name });
            file.lock().map_err(Error::io("lock", &path))?;
        }
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            tracing::warn!("this file system has no locks: do not download {name} twice at once");
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
    }
    Ok(file)
}

/// Makes a rename last through a power cut, where the system lets a folder be synced.
fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}
