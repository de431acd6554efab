//! One attempt to get the rest of a file: what is asked, and what is believed of the answer.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ureq::http::{HeaderMap, StatusCode};

use super::error::{Cause, Error};
use super::mirror::public;
use super::options::{Event, Options};
use super::resource::Resource;
use crate::text::on_one_line;

/// A download under way: the bytes so far, and beside them what the server said about the file they belong to.
///
/// A server that begins anew writes to a second part ([`Part::anew`]), which takes the first one's place once it has come
/// further: what answers in between may be a login page, and no more than a beginning of it is ever there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    path: PathBuf,
    origin_path: PathBuf,
}

/// What the bytes of a [`Part`] are the beginning of.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Origin {
    url: String,
    etag: Option<String>,
    last_modified: Option<String>,
    total: Option<u64>,
}

/// Why an attempt ended early.
pub(super) enum Stop {
    /// This machine's fault: no other attempt would fare better.
    Local(Error),
    /// The server's or the network's fault.
    Remote(Cause, Retry),
}

/// What may help after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// The same again, after a while; the server may have said how long.
    Later(Option<Duration>),
    /// The same without the bytes so far.
    FromScratch,
    /// Only another address.
    Elsewhere,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Local(error)
    }
}

impl Part {
    pub(super) fn beside(target: &Path) -> Part {
        let with = |suffix: &str| {
            let mut name = target.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Part { path: with(".part"), origin_path: with(".part.json") }
    }

    /// Where a beginning anew is written while this part has bytes.
    fn anew(&self) -> Part {
        let mut path = self.path.as_os_str().to_owned();
        path.push(".anew");
        let path = PathBuf::from(path);
        Part { origin_path: path.with_extension("anew.json"), path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Forgets the bytes so far.
    pub(super) fn discard(&self) -> Result<(), Error> {
        for path in [&self.path, &self.origin_path] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("delete", path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the bytes of `whole`, this part or the one beside it, their final name. Of the other nothing is left.
    pub(super) fn finish(&self, whole: &Part, target: &Path) -> Result<(), Error> {
        fs::rename(&whole.path, target).map_err(Error::io("finish", target))?;
        // A leftover is harmless: it is overwritten, or was of use.
        let _ = self.discard();
        let _ = self.anew().discard();
        Ok(())
    }

    /// Bytes that can be gone on from.
    fn usable(&self) -> u64 {
        if self.origin().is_some() { self.len() } else { 0 }
    }

    /// Lets a beginning anew take the place of this part if it has come further, or if this part `is_stale`: of a file
    /// that the server has no longer. Also what a killed process left.
    pub(super) fn settle(&self, is_stale: bool) -> Result<(), Error> {
        let anew = self.anew();
        if anew.usable() > if is_stale { 0 } else { self.usable() } {
            // Bytes must never stand beside another file's origin: without one they are no part.
            let _ = fs::remove_file(&self.origin_path);
            fs::rename(&anew.path, &self.path).map_err(Error::io("continue", &self.path))?;
        }
        if !anew.path.exists() && anew.origin_path.exists() && !self.origin_path.exists() {
            return fs::rename(&anew.origin_path, &self.origin_path).map_err(Error::io("continue", &self.path));
        }
        anew.discard()
    }

    fn origin(&self) -> Option<Origin> {
        serde_json::from_slice(&fs::read(&self.origin_path).ok()?).ok()
    }

    /// An empty part that belongs to `origin`. Emptied first: bytes must never stand beside another file's origin.
    fn start(&self, origin: &Origin) -> Result<File, Error> {
        let file = File::create(&self.path).map_err(Error::io("create", &self.path))?;
        let text = serde_json::to_vec(origin).map_err(io::Error::from);
        text.and_then(|text| fs::write(&self.origin_path, text)).map_err(Error::io("write", &self.origin_path))?;
        Ok(file)
    }

    fn resume(&self, offset: u64) -> Result<File, Error> {
        let open = || {
            let mut file = OpenOptions::new().write(true).open(&self.path)?;
            file.set_len(offset)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        open().map_err(Error::io("continue", &self.path))
    }
}

/// What is asked of a server that has given a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The rest.
    Rest,
    /// The whole file.
    Whole,
}

/// Gets the rest of `resource` from `url` into `part`, or all of it into the part beside it. On success the part that is
/// given back has every byte the server announced; whether they are the right ones is not known yet. On failure `part` has
/// what it had, or more.
pub(super) fn receive(
    agent: &ureq::Agent,
    options: &Options,
    resource: &Resource,
    url: &str,
    part: &Part,
    ask: Ask,
    notify: &dyn Fn(Event<'_>),
) -> Result<Part, Stop> {
    part.settle(false)?;
    let origin = part.origin();
    let mut offset = if ask == Ask::Rest { part.usable() } else { 0 };
    let same_url = origin.as_ref().is_some_and(|origin| origin.url == public(url));
    let validator = origin.as_ref().filter(|_| same_url).and_then(validator);
    if validator.is_none() && !resource.check.covers_the_whole_file() {
        // Nothing would notice if the rest were another file's.
        offset = 0;
    }
    if resource.size.is_some_and(|size| offset > size) {
        // No part of this file: it must not stand in the way of one.
        part.discard()?;
        offset = 0;
    }
    if offset > 0 && resource.size == Some(offset) {
        return Ok(part.clone());
    }

    let mut request = agent.get(url).header("Accept-Encoding", "identity");
    if offset > 0 {
        request = request.header("Range", format!("bytes={offset}-"));
        if let Some(validator) = &validator {
            request = request.header("If-Range", validator);
        }
    }
    let response = request.call().map_err(|error| failed_call(&error, offset))?;

    let (status, headers) = (response.status(), response.headers().clone());
    let answer = Origin {
        url: public(url),
        etag: text(&headers, "etag"),
        last_modified: text(&headers, "last-modified"),
        total: None,
    };
    let total = match status {
        StatusCode::PARTIAL_CONTENT if offset > 0 => {
            let total = check_partial(&headers, offset, resource, same_url, origin.as_ref(), &answer)?;
            Some(total)
        }
        StatusCode::OK => {
            offset = 0;
            response.body().content_length()
        }
        StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
            let whole = text(&headers, "content-range").is_some_and(|range| range == format!("bytes */{offset}"));
            if whole {
                return Ok(part.clone());
            }
            return Err(Stop::Remote(Cause::Status(416), Retry::FromScratch));
        }
        status => return Err(refused(status, &headers)),
    };
    if status == StatusCode::OK && is_page(&headers) && (total.is_none() || total != resource.size) {
        let cause = "a web page instead of the file: does this network ask for a login?".to_owned();
        return Err(Stop::Remote(Cause::BadAnswer(cause), Retry::Elsewhere));
    }
    if let (Some(total), Some(size)) = (total, resource.size)
        && total != size
    {
        return Err(wrong_length(total, size.to_string()));
    }
    let most = total.or(resource.size).unwrap_or(resource.most);
    if most > resource.most {
        return Err(wrong_length(most, format!("at most {}", resource.most)));
    }
    options.check_space(resource, part.path(), total.or(resource.size).map_or(0, |total| total - offset))?;

    let is_stale = same_url && origin.as_ref().is_some_and(|origin| origin.is_another(&answer, total, resource.size));
    let written = if offset == 0 && part.usable() > 0 { part.anew() } else { part.clone() };
    let file = if offset == 0 { written.start(&Origin { total, ..answer })? } else { written.resume(offset)? };
    notify(Event::Started { name: &resource.name, url: &public(url), offset, total });
    let body = response.into_body().into_reader();
    let received = copy(body, &file, options, resource, &written, offset, most, notify);
    let synced = file.sync_all().map_err(Error::io("write", written.path()));
    drop(file);
    let received = received.and_then(|received| match total.or(resource.size) {
        Some(total) if received < total => {
            let reason = "the connection was closed".to_owned();
            Err(Stop::Remote(Cause::CutOff { received, reason }, Retry::Later(None)))
        }
        _ => Ok(()),
    });
    if let Err(Stop::Remote(Cause::WrongLength { .. }, _)) = received {
        // More than there can be: nothing of this answer is believed.
        if offset == 0 { written.discard()? } else { drop(written.resume(offset)?) }
    }
    if received.is_err() && written != *part {
        part.settle(is_stale)?;
    }
    received?;
    synced?;
    Ok(written)
}

impl Origin {
    /// Whether `answer`, from the same address, is certainly of another version of the file: its ETag has changed, and its
    /// length is that of the file, which a login page's is not.
    fn is_another(&self, answer: &Origin, total: Option<u64>, size: Option<u64>) -> bool {
        let strong = |origin: &Origin| origin.etag.clone().filter(|etag| !etag.starts_with("W/"));
        let changed = strong(self).zip(strong(answer)).is_some_and(|(before, now)| before != now);
        changed && total.is_some() && total == size.or(self.total)
    }
}

/// The total length, if a 206 answer continues the bytes so far.
fn check_partial(
    headers: &HeaderMap,
    offset: u64,
    resource: &Resource,
    same_url: bool,
    origin: Option<&Origin>,
    answer: &Origin,
) -> Result<u64, Stop> {
    let range = text(headers, "content-range").unwrap_or_default();
    let Some((first, total)) = content_range(&range) else {
        let cause = Cause::BadAnswer(format!("status 206 with Content-Range `{}`", on_one_line(&range)));
        return Err(Stop::Remote(cause, Retry::FromScratch));
    };
    if first != offset {
        let cause = Cause::BadAnswer(format!("range from byte {first}, asked for {offset}"));
        return Err(Stop::Remote(cause, Retry::FromScratch));
    }
    if resource.size.is_none()
        && let Some(known) = origin.and_then(|origin| origin.total)
        && known != total
    {
        return Err(Stop::Remote(Cause::WrongLength { got: total, expected: known.to_string() }, Retry::FromScratch));
    }
    // A server that knows no If-Range continues a file that has changed since.
    if same_url
        && let (Some(before), Some(now)) = (origin.and_then(|origin| origin.etag.as_ref()), &answer.etag)
        && before != now
    {
        let (before, now) = (on_one_line(before), on_one_line(now));
        let cause = Cause::BadAnswer(format!("the file changed: ETag was {before}, is {now}"));
        return Err(Stop::Remote(cause, Retry::FromScratch));
    }
    Ok(total)
}

/// Copies until the end, `most` bytes in the file, a stall or a full disk. Gives the file's length.
#[expect(clippy::too_many_arguments, reason = "one caller, nothing to group them by")]
fn copy(
    mut body: impl Read,
    mut file: &File,
    options: &Options,
    resource: &Resource,
    part: &Part,
    offset: u64,
    most: u64,
    notify: &dyn Fn(Event<'_>),
) -> Result<u64, Stop> {
    const BYTES_PER_SPACE_CHECK: u64 = 32 << 20;
    let mut buffer = vec![0; 256 << 10];
    let mut received = offset;
    let mut next_space_check = offset + BYTES_PER_SPACE_CHECK;
    let (mut window_start, mut window_bytes) = (Instant::now(), 0);
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => return Ok(received),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if is_timeout(&error) => {
                return Err(Stop::Remote(Cause::Stalled { received }, Retry::Later(None)));
            }
            Err(error) => {
                let reason = error.to_string();
                return Err(Stop::Remote(Cause::CutOff { received, reason }, Retry::Later(None)));
            }
        };
        if received + n as u64 > most {
            return Err(wrong_length(received + n as u64, format!("at most {most}")));
        }
        file.write_all(&buffer[..n]).map_err(Error::io("write", part.path()))?;
        received += n as u64;
        notify(Event::Received { name: &resource.name, received });
        if received >= next_space_check {
            next_space_check = received + BYTES_PER_SPACE_CHECK;
            options.check_space(resource, part.path(), 0)?;
        }
        // A byte now and then never trips the read's own timeout.
        window_bytes += n as u64;
        if window_start.elapsed() >= options.slow_window {
            if window_bytes < options.slow_bytes {
                return Err(Stop::Remote(Cause::Stalled { received }, Retry::Later(None)));
            }
            (window_start, window_bytes) = (Instant::now(), 0);
        }
    }
}

/// What If-Range may carry: a strong ETag, else the date.
fn validator(origin: &Origin) -> Option<String> {
    let strong = origin.etag.as_ref().filter(|etag| !etag.starts_with("W/"));
    strong.or(origin.last_modified.as_ref()).cloned()
}

/// First byte and total length from `bytes 5-9/10`.
fn content_range(value: &str) -> Option<(u64, u64)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total) = (first.parse().ok()?, last.parse::<u64>().ok()?, total.parse().ok()?);
    (first <= last && last < total).then_some((first, total))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_owned())
}

/// Whether the answer says that it is a page for people.
fn is_page(headers: &HeaderMap) -> bool {
    text(headers, "content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
}

fn wrong_length(got: u64, expected: String) -> Stop {
    Stop::Remote(Cause::WrongLength { got, expected }, Retry::Elsewhere)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
        || error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<ureq::Error>())
            .is_some_and(|inner| matches!(inner, ureq::Error::Timeout(_)))
}

/// What a status other than 200 and 206 means.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap) -> Stop {
    let retry = match status.as_u16() {
        408 | 425 | 429 | 500 | 502..=504 => Retry::Later(retry_after(headers)),
        _ => Retry::Elsewhere,
    };
    Stop::Remote(Cause::Status(status.as_u16()), retry)
}

/// How long the server asks to wait: seconds, or until a date, which is measured by the server's own clock where it
/// gives the time. `None` also for what is over already.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, "retry-after")?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = text(headers, "date").and_then(|date| httpdate::parse_http_date(&date).ok());
    let until = httpdate::parse_http_date(&value).ok()?;
    until.duration_since(now.unwrap_or_else(SystemTime::now)).ok().filter(|wait| !wait.is_zero())
}

/// What it means that no answer came at all.
pub(super) fn failed_call(error: &ureq::Error, received: u64) -> Stop {
    use ureq::{Error as E, Timeout};
    match error {
        E::HostNotFound | E::ConnectionFailed | E::Timeout(Timeout::Connect | Timeout::Resolve) => {
            Stop::Remote(Cause::Unreachable(error.to_string()), Retry::Later(None))
        }
        E::Timeout(_) => Stop::Remote(Cause::Stalled { received }, Retry::Later(None)),
        E::Io(io) => match io.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => {
                Stop::Remote(Cause::CutOff { received, reason: io.to_string() }, Retry::Later(None))
            }
            _ => Stop::Remote(Cause::Unreachable(io.to_string()), Retry::Later(None)),
        },
        // Its message quotes the address, password and all.
        E::BadUri(_) => Stop::Remote(Cause::BadAnswer("bad address".to_owned()), Retry::Elsewhere),
        E::TooManyRedirects | E::RedirectFailed | E::LargeResponseHeader(..) | E::RequireHttpsOnly(_) => {
            Stop::Remote(Cause::BadAnswer(on_one_line(&error.to_string())), Retry::Elsewhere)
        }
        // Protocol and TLS: a proxy or a cable may be to blame, so one more try is worth it.
        _ => Stop::Remote(Cause::BadAnswer(on_one_line(&error.to_string())), Retry::Later(None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 10)));
        for bad in ["", "bytes 5-9/*", "bytes */10", "bytes 5-10/10", "bytes 9-5/10", "items 5-9/10", "bytes -5-9/10"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_wish_to_wait_is_seconds_or_a_date() {
        let wait = |after: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", after.parse().unwrap());
            if let Some(date) = date {
                headers.insert("date", date.parse().unwrap());
            }
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(wait("7", None), Some(7));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:00 GMT", now), Some(23));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:00 GMT", now), None, "over already");
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:00 GMT", None), None, "by our own clock");
        assert_eq!(wait("a while", now), None);
    }

    #[test]
    fn a_beginning_anew_takes_over_once_it_has_come_further() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::beside(&folder.path().join("f"));
        let origin = |url: &str| Origin { url: url.to_owned(), etag: None, last_modified: None, total: None };
        let write =
            |part: &Part, url: &str, n: usize| part.start(&origin(url)).unwrap().write_all(&vec![0; n]).unwrap();
        let check = |old: usize, new: usize, is_stale: bool, expected: (&str, u64)| {
            write(&part, "old", old);
            write(&part.anew(), "new", new);
            part.settle(is_stale).unwrap();
            assert_eq!((part.origin().unwrap().url.as_str(), part.len()), expected);
            assert!(!part.anew().path.exists() && !part.anew().origin_path.exists());
        };
        check(5, 3, false, ("old", 5));
        check(5, 5, false, ("old", 5));
        check(5, 6, false, ("new", 6));
        check(5, 3, true, ("new", 3));
        check(5, 0, true, ("old", 5));
        // Killed between the two renames.
        write(&part, "new", 6);
        fs::rename(&part.origin_path, &part.anew().origin_path).unwrap();
        part.settle(false).unwrap();
        assert_eq!((part.origin().unwrap().url.as_str(), part.len()), ("new", 6));
    }

    #[test]
    fn weak_etags_do_not_validate_a_range() {
        let origin = |etag: &str| Origin {
            url: String::new(),
            etag: Some(etag.to_owned()),
            last_modified: Some("date".to_owned()),
            total: None,
        };
        assert_eq!(validator(&origin("\"a\"")).as_deref(), Some("\"a\""));
        assert_eq!(validator(&origin("W/\"a\"")).as_deref(), Some("date"));
    }
}
