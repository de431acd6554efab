//! A file arrives whole, whatever interrupts it.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

use lth_data::download::{Cause, Check, Downloader, Error, Event, Options};

use super::{ALL, bytes, downloader, files, only_cause, options, quiet, resource, sha256};
use crate::http::{Server, file, head, status};

#[test]
fn a_file_is_fetched_once_and_then_found_in_the_folder() {
    let content = bytes(300_000);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| file(stream, request, &body, "\"a\"", ALL));
    let folder = tempfile::tempdir().unwrap();
    let wanted = resource(&[server.url("/file.bin")], &content);
    assert_eq!(downloader(&folder).cached(&wanted).unwrap(), None);
    let first = downloader(&folder).fetch(&wanted, &quiet).unwrap();
    assert_eq!(fs::read(&first.path).unwrap(), content);
    assert_eq!((first.size, &first.sha256), (300_000, &sha256(&content)));
    assert_eq!(first.url, Some(server.url("/file.bin")));
    let second = downloader(&folder).fetch(&wanted, &quiet).unwrap();
    assert_eq!(second, first);
    assert_eq!(server.requests().len(), 1);
    assert!(files(folder.path()).iter().all(|path| !path.to_string_lossy().contains(".part")));
}

#[test]
fn a_cut_connection_is_continued_where_it_ended() {
    let content = bytes(400_000);
    let body = content.clone();
    let server = Server::start(move |number, request, stream| {
        let at_most = if number < 3 { 100_000 } else { ALL };
        file(stream, request, &body, "\"a\"", at_most);
    });
    let folder = tempfile::tempdir().unwrap();
    let fetched = downloader(&folder).fetch(&resource(&[server.url("/f")], &content), &quiet).unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), content);
    let requests = server.requests();
    let ranges: Vec<_> = requests.iter().map(crate::http::Request::range).collect();
    assert_eq!(ranges, [None, Some(100_000), Some(200_000), Some(300_000)]);
    assert!(requests[1..].iter().all(|request| request.header("if-range") == Some("\"a\"")));
}

#[test]
fn a_server_without_ranges_is_asked_from_the_start_again() {
    let content = bytes(200_000);
    let body = content.clone();
    let server = Server::start(move |number, _, stream| {
        head(stream, "200 OK", &[("Content-Length", body.len().to_string())]);
        let _ = stream.write_all(if number == 0 { &body[..70_000] } else { &body });
    });
    let folder = tempfile::tempdir().unwrap();
    let fetched = downloader(&folder).fetch(&resource(&[server.url("/f")], &content), &quiet).unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), content);
    assert_eq!(server.requests()[1].range(), Some(70_000));
}

#[test]
fn a_file_that_changes_in_between_is_fetched_anew() {
    // Whether or not the server knows If-Range, the two halves are never mixed.
    for knows_if_range in [true, false] {
        let (before, after) = (vec![1; 150_000], bytes(150_000));
        let content = after.clone();
        let server = Server::start(move |number, request, stream| {
            if number == 0 {
                file(stream, request, &before, "\"before\"", 60_000);
            } else {
                let mut request = request.clone();
                if !knows_if_range {
                    request.headers.remove("if-range");
                }
                file(stream, &request, &after, "\"after\"", ALL);
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let fetched = downloader(&folder).fetch(&resource(&[server.url("/f")], &content), &quiet).unwrap();
        assert_eq!(fs::read(&fetched.path).unwrap(), content);
        assert_eq!(server.requests().len(), if knows_if_range { 2 } else { 3 });
    }
}

#[test]
fn pauses_double_up_to_their_limit_and_a_server_may_ask_for_more() {
    let content = bytes(10);
    let server = Server::start(|number, _, stream| {
        let headers = [("Retry-After", "7".to_owned())];
        status(stream, "503 Service Unavailable", if number == 1 { &headers } else { &[] });
    });
    let folder = tempfile::tempdir().unwrap();
    let (options, pauses) = options();
    let options = Options { attempts: 6, longest_pause: Duration::from_secs(3), ..options };
    let wanted = resource(&[server.url("/f")], &content);
    let (cause, times) = only_cause(Downloader::new(folder.path(), options).fetch(&wanted, &quiet));
    assert_eq!((cause, times), (Cause::Status(503), 6));
    // The second pause is the server's wish, cut to the limit.
    assert_eq!(*pauses.lock().unwrap(), [500, 3_000, 2_000, 3_000, 3_000].map(Duration::from_millis));
}

#[test]
fn the_next_address_is_tried_and_the_error_names_them_all() {
    let content = bytes(20_000);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| {
        if request.path == "/good" {
            file(stream, request, &body, "\"a\"", ALL);
        } else {
            status(stream, "404 Not Found", &[]);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (missing, good) = (server.url("/missing"), server.url("/good"));
    // A port that was free a moment ago: nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://me:secret@{closed}/f");
    let wanted = resource(&[closed.clone(), missing.clone()], &content);
    let error = downloader(&folder).fetch(&wanted, &quiet).unwrap_err();
    let text = error.to_string();
    let Error::Unavailable { tried, .. } = error else { panic!("{text}") };
    assert!(matches!(tried[0].cause, Cause::Unreachable(_)), "{:?}", tried[0]);
    assert_eq!((tried[0].times, tried[1].cause.clone(), tried[1].times), (2, Cause::Status(404), 1));
    assert!(text.contains(&missing) && text.contains("file.bin") && text.contains("2 times"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let wanted = resource(&[missing, good.clone()], &content);
    assert_eq!(downloader(&folder).fetch(&wanted, &quiet).unwrap().url, Some(good));
}

#[test]
fn a_full_disk_is_noticed_before_the_first_byte() {
    let content = bytes(1_000);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| file(stream, request, &body, "\"a\"", ALL));
    let folder = tempfile::tempdir().unwrap();
    let (options, _) = options();
    let options = Options { spare: u64::MAX / 2, ..options };
    let error =
        Downloader::new(folder.path(), options).fetch(&resource(&[server.url("/f")], &content), &quiet).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("file.bin"));
}

#[test]
fn a_file_of_the_users_own_is_set_aside_and_not_lost() {
    let content = bytes(5_000);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| file(stream, request, &body, "\"a\"", ALL));
    let folder = tempfile::tempdir().unwrap();
    let wanted = resource(&[server.url("/f")], &content);
    let target = downloader(&folder).fetch(&wanted, &quiet).unwrap().path;
    fs::write(&target, b"mine").unwrap();
    let aside = Mutex::new(Vec::new());
    let fetched = downloader(&folder)
        .fetch(&wanted, &|event| {
            if let Event::SetAside { path } = event {
                aside.lock().unwrap().push(path.to_path_buf());
            }
        })
        .unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), content);
    let aside = aside.into_inner().unwrap();
    assert_eq!(aside.len(), 1);
    assert_eq!(fs::read(&aside[0]).unwrap(), b"mine");
}

#[test]
fn without_a_checksum_of_the_whole_only_a_validated_part_is_continued() {
    let content = bytes(1 << 20);
    let body = content.clone();
    let server = Server::start(move |number, request, stream| {
        let at_most = if number == 0 { 500_000 } else { ALL };
        // Neither ETag nor date.
        let start = request.range().unwrap_or(0);
        head(stream, "200 OK", &[("Content-Length", (body.len() - start).to_string())]);
        let _ = stream.write_all(&body[start..body.len().min(start.saturating_add(at_most))]);
    });
    let folder = tempfile::tempdir().unwrap();
    let mut wanted = resource(&[server.url("/f")], &content);
    // MD5 of these very bytes.
    wanted.check = Check::Md5FirstMib("0de6466cb7bdb8b0c7e3a2cb4e9a2d5c".to_owned());
    let error = downloader(&folder).fetch(&wanted, &quiet).unwrap_err();
    let Error::Unavailable { tried, .. } = &error else { panic!("{error}") };
    let Cause::WrongChecksum { got, .. } = &tried[0].cause else { panic!("{error}") };
    assert_eq!(server.requests()[1].range(), None);
    wanted.check = Check::Md5FirstMib(got.clone());
    assert_eq!(fs::read(downloader(&folder).fetch(&wanted, &quiet).unwrap().path).unwrap(), content);
}
