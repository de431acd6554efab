//! Servers that lie, stall or never end.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use lth_data::download::{Cause, Downloader, Error, Options, Resource};

use super::{ALL, bytes, downloader, files, only_cause, options, quiet, resource, sha256};
use crate::http::{Server, file, head, status};

#[test]
fn a_lying_content_range_is_not_believed() {
    let content = bytes(100_000);
    let body = content.clone();
    let server = Server::start(move |number, request, stream| match number {
        0 => file(stream, request, &body, "\"a\"", 40_000),
        1 => {
            // Says and sends a range that begins elsewhere.
            let headers =
                [("Content-Length", "90000".to_owned()), ("Content-Range", "bytes 10000-99999/100000".to_owned())];
            head(stream, "206 Partial Content", &headers);
            let _ = stream.write_all(&body[10_000..]);
        }
        _ => file(stream, request, &body, "\"a\"", ALL),
    });
    let folder = tempfile::tempdir().unwrap();
    let fetched = downloader(&folder).fetch(&resource(&[server.url("/f")], &content), &quiet).unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), content);
    assert_eq!(server.requests()[2].range(), None);
}

#[test]
fn wrong_content_is_tried_once_more_and_leaves_nothing() {
    let content = bytes(50_000);
    let server = Server::start(|_, request, stream| file(stream, request, &[7; 50_000], "\"a\"", ALL));
    let folder = tempfile::tempdir().unwrap();
    let result = downloader(&folder).fetch(&resource(&[server.url("/f")], &content), &quiet);
    let (cause, times) = only_cause(result);
    let expected = sha256(&content);
    assert!(matches!(&cause, Cause::WrongChecksum { expected: e, .. } if *e == expected), "{cause}");
    assert_eq!((times, server.requests().len()), (2, 2));
    let left: Vec<_> = files(folder.path());
    assert!(left.iter().all(|path| path.extension().is_some_and(|end| end == "lock")), "{left:?}");
}

#[test]
fn wrong_content_once_is_forgiven() {
    let content = bytes(50_000);
    let body = content.clone();
    let server = Server::start(move |number, request, stream| {
        let wrong = vec![7; 50_000];
        file(stream, request, if number == 0 { &wrong } else { &body }, "\"a\"", ALL);
    });
    let folder = tempfile::tempdir().unwrap();
    let fetched = downloader(&folder).fetch(&resource(&[server.url("/f")], &content), &quiet).unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), content);
}

#[test]
fn a_server_that_falls_silent_is_left_and_its_bytes_kept() {
    let content = bytes(80_000);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| {
        file(stream, request, &body, "\"a\"", 30_000);
        std::thread::sleep(Duration::from_millis(1_500));
    });
    let folder = tempfile::tempdir().unwrap();
    let (options, _) = options();
    let options = Options { attempts: 1, ..options };
    let started = Instant::now();
    let wanted = resource(&[server.url("/f")], &content);
    let (cause, _) = only_cause(Downloader::new(folder.path(), options).fetch(&wanted, &quiet));
    assert_eq!(cause, Cause::Stalled { received: 30_000 });
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let kept = files(folder.path()).into_iter().find(|path| path.extension().is_some_and(|end| end == "part")).unwrap();
    assert_eq!(fs::read(kept).unwrap(), content[..30_000]);
}

#[test]
fn a_byte_now_and_then_is_a_stall_too() {
    let content = bytes(80_000);
    let server = Server::start(move |_, _, stream| {
        head(stream, "200 OK", &[("Content-Length", "80000".to_owned())]);
        for _ in 0..200 {
            if stream.write_all(b"x").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (options, _) = options();
    let options = Options { attempts: 1, slow_window: Duration::from_millis(300), slow_bytes: 1_000, ..options };
    let wanted = resource(&[server.url("/f")], &content);
    let (cause, _) = only_cause(Downloader::new(folder.path(), options).fetch(&wanted, &quiet));
    assert!(matches!(cause, Cause::Stalled { received } if received < 200), "{cause}");
}

#[test]
fn a_circle_of_redirects_ends() {
    let server = Server::start(|_, _, stream| status(stream, "302 Found", &[("Location", "/again".to_owned())]));
    let folder = tempfile::tempdir().unwrap();
    let (cause, _) = only_cause(downloader(&folder).fetch(&resource(&[server.url("/f")], b"x"), &quiet));
    assert!(matches!(cause, Cause::BadAnswer(_)), "{cause}");
    assert!(server.requests().len() < 10);
}

#[test]
fn a_body_without_end_is_refused_at_the_limit() {
    let server = Server::start(|_, _, stream| {
        head(stream, "200 OK", &[("Transfer-Encoding", "chunked".to_owned())]);
        let chunk = [&b"10000\r\n"[..], &[0; 0x10000], b"\r\n"].concat();
        while stream.write_all(&chunk).is_ok() {}
    });
    let folder = tempfile::tempdir().unwrap();
    let mut wanted = resource(&[server.url("/f")], b"x");
    (wanted.size, wanted.most) = (None, 1 << 20);
    let (cause, times) = only_cause(downloader(&folder).fetch(&wanted, &quiet));
    assert!(matches!(cause, Cause::WrongLength { .. }), "{cause}");
    assert_eq!(times, 1);
    assert!(files(folder.path()).iter().all(|path| fs::metadata(path).unwrap().len() == 0));
}

#[test]
fn an_announced_length_that_is_wrong_is_refused_before_the_body() {
    let content = bytes(1_000);
    for length in ["999", "1001", "18446744073709551615"] {
        let server = Server::start(move |_, _, stream| {
            head(stream, "200 OK", &[("Content-Length", length.to_owned())]);
            let _ = stream.write_all(&[0; 999]);
        });
        let folder = tempfile::tempdir().unwrap();
        let (cause, _) = only_cause(downloader(&folder).fetch(&resource(&[server.url("/f")], &content), &quiet));
        assert!(matches!(cause, Cause::WrongLength { .. }), "{cause}");
    }
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["", "..", "../x", "a/b", "/etc/x", "a\\b", "c:x"] {
        let wanted = Resource { name: name.to_owned(), ..resource(&[], b"x") };
        let error = downloader(&folder).fetch(&wanted, &quiet).unwrap_err();
        assert!(matches!(error, Error::BadName { .. }), "{name}: {error}");
    }
}
