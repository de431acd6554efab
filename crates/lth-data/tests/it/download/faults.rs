//! Everything that a server can do wrong in the middle of a file: what was there stays, what is wrong is not kept, and a
//! good server completes it.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lth_data::download::{Downloader, Error, Options};

use super::{ALL, bytes, downloader, files, options, quiet, resource};
use crate::faults::{Fault, with};
use crate::http::{Request, Server, file, head, reset, status};

/// Bytes of the whole file, and of the part that is there.
const WHOLE: usize = 100_000;
const KEPT: usize = 40_000;

type Answer = fn(&Request, &mut TcpStream, &[u8]);

/// 206 from `start` on, with these headers and this much of the body.
fn partial(stream: &mut TcpStream, range: &str, headers: &[(&str, String)], body: &[u8]) {
    let range = [("Content-Range", range.to_owned()), ("ETag", "\"a\"".to_owned())];
    head(stream, "206 Partial Content", &[&range, headers].concat());
    let _ = stream.write_all(body);
}

fn length(n: usize) -> (&'static str, String) {
    ("Content-Length", n.to_string())
}

fn html() -> (&'static str, String) {
    ("Content-Type", "text/html; charset=utf-8".to_owned())
}

const PAGE: &[u8] = b"<html><form>room number</form></html>";

/// What the server does, and what the error says of it; empty: nothing, the file arrives.
const CASES: [(&str, Answer, &str); 29] = [
    ("404", |_, stream, _| status(stream, "404 Not Found", &[]), "status 404"),
    ("403", |_, stream, _| status(stream, "403 Forbidden", &[]), "status 403"),
    ("416", |_, stream, _| status(stream, "416 Range Not Satisfiable", &[]), "status 416"),
    (
        "416 that takes the part for the whole",
        |_, stream, _| {
            status(stream, "416 Range Not Satisfiable", &[("Content-Range", format!("bytes */{KEPT}"))]);
        },
        "status 416",
    ),
    (
        "429",
        |_, stream, _| status(stream, "429 Too Many Requests", &[("Retry-After", "1".to_owned())]),
        "status 429, 3 times",
    ),
    (
        "503",
        |_, stream, _| {
            let date = [
                ("Date", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
                ("Retry-After", "Sun, 06 Nov 1994 08:49:40 GMT".to_owned()),
            ];
            status(stream, "503 Service Unavailable", &date);
        },
        "status 503, 3 times",
    ),
    ("closes at once", |_, _, _| {}, "3 times"),
    (
        "cut in the rest",
        |request, stream, content| file(stream, request, content, "\"a\"", 1_000),
        "cut off after 43000 bytes",
    ),
    (
        "reset in the rest",
        |request, stream, content| {
            file(stream, request, content, "\"a\"", 1_000);
            reset(stream);
        },
        "cut off after",
    ),
    (
        "silent in the rest",
        |request, stream, content| {
            file(stream, request, content, "\"a\"", 1_000);
            std::thread::sleep(Duration::from_millis(700));
        },
        "stalled after 43000 bytes, 3 times",
    ),
    (
        "a byte now and then",
        |request, stream, content| {
            file(stream, request, content, "\"a\"", 0);
            for byte in &content[request.range().unwrap_or(0)..][..100] {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        },
        "stalled after",
    ),
    (
        "slow",
        |request, stream, content| {
            file(stream, request, content, "\"a\"", 0);
            for chunk in content[request.range().unwrap_or(0)..].chunks(6_000) {
                let _ = stream.write_all(chunk);
                std::thread::sleep(Duration::from_millis(60));
            }
        },
        "",
    ),
    (
        "200 with the whole file",
        |_, stream, content| {
            head(stream, "200 OK", &[length(WHOLE)]);
            let _ = stream.write_all(content);
        },
        "",
    ),
    (
        "200 with the whole file of another ETag",
        |request, stream, content| file(stream, request, content, "\"b\"", ALL),
        "",
    ),
    (
        "200 that ends before what is there",
        |_, stream, content| {
            head(stream, "200 OK", &[length(WHOLE)]);
            let _ = stream.write_all(&content[..1_000]);
        },
        "cut off after 1000 bytes",
    ),
    (
        "200 with as many wrong bytes",
        |_, stream, _| {
            head(stream, "200 OK", &[length(WHOLE)]);
            let _ = stream.write_all(&[7; WHOLE]);
        },
        "SHA-256 is",
    ),
    (
        "a page to log in",
        |_, stream, _| {
            head(stream, "200 OK", &[html(), length(PAGE.len())]);
            let _ = stream.write_all(PAGE);
        },
        "a web page instead of the file",
    ),
    (
        "a page without a length",
        |_, stream, _| {
            head(stream, "200 OK", &[html()]);
            let _ = stream.write_all(PAGE);
        },
        "a web page instead of the file",
    ),
    (
        "a page that does not say so",
        |_, stream, _| {
            head(stream, "200 OK", &[length(PAGE.len())]);
            let _ = stream.write_all(PAGE);
        },
        "37 bytes, expected 100000",
    ),
    (
        "a page that says nothing",
        |_, stream, _| {
            head(stream, "200 OK", &[]);
            let _ = stream.write_all(PAGE);
        },
        "cut off after 37 bytes",
    ),
    (
        "too long by one",
        |_, stream, content| {
            head(stream, "200 OK", &[]);
            let _ = stream.write_all(content).and_then(|()| stream.write_all(&[0]));
        },
        "expected at most 100000",
    ),
    (
        "206 from elsewhere",
        |_, stream, content| partial(stream, "bytes 100-99999/100000", &[length(99_900)], &content[100..]),
        "status 206",
    ),
    (
        "206 of a longer file",
        |_, stream, content| partial(stream, "bytes 40000-100000/100001", &[length(60_001)], &content[KEPT..]),
        "100001 bytes, expected 100000",
    ),
    (
        "206 with more than it says",
        |_, stream, content| partial(stream, "bytes 40000-99999/100000", &[length(100_000)], content),
        "expected at most 100000",
    ),
    (
        "206 of another ETag, and then none",
        |request, stream, content| {
            if request.range().is_some() {
                head(
                    stream,
                    "206 Partial Content",
                    &[("Content-Range", "bytes 40000-99999/100000".to_owned()), ("ETag", "\"b\"".to_owned())],
                );
                let _ = stream.write_all(&content[KEPT..]);
            } else {
                status(stream, "404 Not Found", &[]);
            }
        },
        "status 404",
    ),
    (
        "redirect",
        |request, stream, content| match request.path.as_str() {
            "/f" => status(stream, "302 Found", &[("Location", "/elsewhere".to_owned())]),
            _ => file(stream, request, content, "\"a\"", ALL),
        },
        "",
    ),
    ("circle of redirects", |_, stream, _| status(stream, "302 Found", &[("Location", "/f".to_owned())]), "redirect"),
    (
        "no HTTP",
        |_, stream, _| {
            let _ = stream.write_all(b"\x1b[31mSSH-2.0-OpenSSH_9.9\r\n\r\n");
        },
        "bad answer",
    ),
    (
        "a header without end",
        |_, stream, _| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(&[b'a'; 4_096]).is_ok() {}
        },
        "response header is too big",
    ),
];

#[test]
fn nothing_good_is_lost_and_nothing_wrong_kept_whatever_a_server_does() {
    let content = bytes(WHOLE);
    for (name, answer, expected) in CASES {
        // 0: the beginning; 1: the fault; 2: a good server again.
        let turn = Arc::new(AtomicUsize::new(0));
        let (body, now) = (content.clone(), Arc::clone(&turn));
        let server = Server::start(move |_, request, stream| match now.load(Ordering::SeqCst) {
            0 => file(stream, request, &body, "\"a\"", KEPT),
            1 => answer(request, stream, &body),
            _ => file(stream, request, &body, "\"a\"", ALL),
        });
        let folder = tempfile::tempdir().unwrap();
        let wanted = resource(&[server.url("/f")], &content);
        let fetch = |attempts| {
            let (options, pauses) = options();
            let options = Options { attempts, slow_window: Duration::from_millis(250), slow_bytes: 2_000, ..options };
            (Downloader::new(folder.path(), options).fetch(&wanted, &quiet), pauses)
        };
        let part = || files(folder.path()).into_iter().find(|path| path.extension().is_some_and(|end| end == "part"));
        fetch(1).0.expect_err("the beginning is not all");
        assert_eq!(fs::read(part().expect("a part")).unwrap(), content[..KEPT], "{name}");

        turn.store(1, Ordering::SeqCst);
        let (fetched, pauses) = fetch(3);
        let waits: Vec<u64> = pauses.lock().unwrap().iter().map(Duration::as_millis).map(|wait| wait as u64).collect();
        match (fetched, expected) {
            (Ok(fetched), "") => assert_eq!(fs::read(fetched.path).unwrap(), content, "{name}"),
            (Err(error @ Error::Unavailable { .. }), _) if !expected.is_empty() => {
                let text = error.to_string();
                assert!(
                    text.contains(expected) && text.starts_with("cannot download file.bin; tried http"),
                    "{name}: {text}"
                );
                assert!(!text.contains(char::is_control), "{name}: {text:?}");
                let left = fs::read(part().unwrap_or_else(|| panic!("{name}: the part is lost"))).unwrap();
                assert!(left.len() >= KEPT && content.starts_with(&left), "{name}: {} bytes", left.len());
            }
            (other, _) => panic!("{name}: {other:?}, expected `{expected}`"),
        }
        match name {
            "429" => assert_eq!(waits, [1_000, 1_000]),
            "503" => assert_eq!(waits, [3_000, 3_000]),
            _ => {}
        }

        turn.store(2, Ordering::SeqCst);
        let n_before = server.requests().len();
        let fetched = fetch(1).0.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(fs::read(&fetched.path).unwrap(), content, "{name}");
        let more = server.requests()[n_before..].iter().map(Request::range).collect::<Vec<_>>();
        // Either it was there, or only the rest was asked for.
        assert!(
            expected.is_empty() == more.is_empty() && more.iter().all(|from| *from >= Some(KEPT)),
            "{name}: {more:?}"
        );
        let left: Vec<_> = files(folder.path()).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(left, ["file.bin", "file.bin.lock", "file.bin.verified.json"], "{name}");
    }
}

#[test]
fn a_file_that_changed_for_good_arrives_however_often_it_is_cut() {
    // The old beginning is longer than any piece of the new file, and of no use.
    let content = bytes(WHOLE);
    let (old, new) = (vec![1; WHOLE], content.clone());
    let server = Server::start(move |number, request, stream| {
        let (body, etag, at_most) = if number == 0 { (&old, "\"old\"", 80_000) } else { (&new, "\"new\"", 30_000) };
        file(stream, request, body, etag, at_most);
    });
    let folder = tempfile::tempdir().unwrap();
    let patient = Downloader::new(folder.path(), Options { attempts: 9, ..options().0 });
    let fetched = patient.fetch(&resource(&[server.url("/f")], &content), &quiet).unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), content);
    let ranges: Vec<_> = server.requests().iter().map(Request::range).collect();
    assert_eq!(ranges, [None, Some(80_000), Some(30_000), Some(60_000), Some(90_000)]);
}

#[test]
fn a_disk_that_takes_nothing_more_loses_nothing() {
    let content = bytes(WHOLE);
    for fault in Fault::ALL {
        let body = content.clone();
        let server = Server::start(move |number, request, stream| {
            file(stream, request, &body, "\"a\"", if number == 0 { KEPT } else { ALL });
        });
        let folder = tempfile::tempdir().unwrap();
        let wanted = resource(&[server.url("/f")], &content);
        let once = Downloader::new(folder.path(), Options { attempts: 1, ..options().0 });
        once.fetch(&wanted, &quiet).expect_err("the beginning is not all");
        let Some(result) = with(fault, || once.fetch(&wanted, &quiet)) else { return };
        let error = result.expect_err(&format!("{fault:?} went unnoticed"));
        assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("file.bin"), "{fault:?}: {error}");
        let part = files(folder.path()).into_iter().find(|path| path.extension().is_some_and(|end| end == "part"));
        let left = fs::read(part.unwrap_or_else(|| panic!("{fault:?}: the part is lost"))).unwrap();
        assert!(left.len() >= KEPT && content.starts_with(&left), "{fault:?}: {} bytes", left.len());
        // Nor does it need a second name, which many file systems cannot give.
        let Some(fetched) = with(Fault::Link, || once.fetch(&wanted, &quiet)) else { return };
        let fetched = fetched.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(fs::read(&fetched.path).unwrap(), content, "{fault:?}");
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_read() {
    let content = bytes(1_000);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| file(stream, request, &body, "\"a\"", ALL));
    let folder = tempfile::tempdir().unwrap();
    let wanted = resource(&[server.url("/f")], &content);
    let fetched = downloader(&folder).fetch(&wanted, &quiet).unwrap();
    for _ in 0..2 {
        let Some(found) = with(Fault::Create, || downloader(&folder).fetch(&wanted, &quiet)) else { return };
        let found = found.unwrap();
        assert_eq!((found.path, found.sha256), (fetched.path.clone(), fetched.sha256.clone()));
        // The second time without the note of what was verified.
        let note = files(folder.path()).into_iter().find(|path| path.to_string_lossy().ends_with("verified.json"));
        note.into_iter().for_each(|note| fs::remove_file(note).unwrap());
    }
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_note_of_another_file_vouches_for_nothing() {
    let content = bytes(1_000);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| file(stream, request, &body, "\"a\"", ALL));
    let folder = tempfile::tempdir().unwrap();
    let wanted = resource(&[server.url("/f")], &content);
    let path = downloader(&folder).fetch(&wanted, &quiet).unwrap().path;
    let metadata = fs::metadata(&path).unwrap();
    let (time, name) = (metadata.modified().unwrap(), format!("{}.verified.json", path.display()));
    fs::write(&path, [7; 1_000]).unwrap();
    fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
    let note = fs::read_to_string(&name).unwrap().replace(&super::sha256(&content), &super::sha256(&[7; 1_000]));
    fs::write(&name, note).unwrap();
    assert_eq!(fs::read(downloader(&folder).fetch(&wanted, &quiet).unwrap().path).unwrap(), content);
}
