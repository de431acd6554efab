//! Mirrors, sets of files, the Hugging Face hub.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;

use lth_data::download::{Cause, Check, Downloader, Error, Hub, Resource};

use super::{ALL, bytes, downloader, files, only_cause, options, quiet, resource, sha256};
use crate::http::{Server, file, head, status};

#[test]
fn a_mirrors_list_replaces_lengths_and_checksums() {
    let content = bytes(7_000);
    let list = format!("{}  file.bin\n", sha256(&content));
    let (body, text) = (content.clone(), list.clone());
    let server = Server::start(move |_, request, stream| match request.path.as_str() {
        "/m/SHA256SUMS" => file(stream, request, text.as_bytes(), "\"s\"", ALL),
        "/m/file.bin" => file(stream, request, &body, "\"a\"", ALL),
        _ => status(stream, "404 Not Found", &[]),
    });
    let folder = tempfile::tempdir().unwrap();
    let mirrored = Downloader::with_mirror(folder.path(), &server.url("/m/"), options().0).unwrap();
    let sums = mirrored.mirror().unwrap().sums.clone().unwrap();
    assert_eq!((sums.text.as_str(), sums.sha256), (list.as_str(), sha256(list.as_bytes())));
    // Built-in length and checksum are of another file.
    let wanted = resource(&["http://127.0.0.1:9/never-asked".to_owned()], b"another");
    let fetched = mirrored.fetch(&wanted, &quiet).unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), content);
    assert_eq!(fetched.url, Some(server.url("/m/file.bin")));
}

#[test]
fn a_mirror_without_a_list_must_have_the_known_files() {
    let content = bytes(7_000);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| match request.path.as_str() {
        "/file.bin" => file(stream, request, &body, "\"a\"", ALL),
        _ => status(stream, "404 Not Found", &[]),
    });
    let folder = tempfile::tempdir().unwrap();
    let mirrored = Downloader::with_mirror(folder.path(), &server.url(""), options().0).unwrap();
    assert_eq!(mirrored.mirror().unwrap().sums, None);
    assert_eq!(mirrored.fetch(&resource(&[], &content), &quiet).unwrap().size, 7_000);
    let (cause, _) = only_cause(mirrored.fetch(&resource(&[], b"another"), &quiet));
    assert!(matches!(cause, Cause::WrongLength { .. }), "{cause}");
}

#[test]
fn an_object_store_that_forbids_what_is_not_there_has_no_list() {
    let content = bytes(700);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| match request.path.as_str() {
        "/file.bin" => file(stream, request, &body, "\"a\"", ALL),
        _ => status(stream, "403 Forbidden", &[]),
    });
    let folder = tempfile::tempdir().unwrap();
    let mirrored = Downloader::with_mirror(folder.path(), &server.url(""), options().0).unwrap();
    assert_eq!(mirrored.mirror().unwrap().sums, None);
    let fetched = mirrored.fetch(&resource(&[], &content), &quiet).unwrap();
    assert_eq!((fetched.size, fetched.check), (700, Some(Check::Sha256(sha256(&content)))));
}

#[test]
fn a_password_is_sent_to_the_mirror_and_kept_nowhere() {
    let content = bytes(700);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| match request.path.as_str() {
        "/file.bin" => file(stream, request, &body, "\"a\"", ALL),
        _ => status(stream, "404 Not Found", &[]),
    });
    let folder = tempfile::tempdir().unwrap();
    let url = server.url("").replace("http://", "http://me:pass-1234@");
    let mirrored = Downloader::with_mirror(folder.path(), &url, options().0).unwrap();
    let said = std::cell::RefCell::new(format!("{mirrored:?} {:?}", mirrored.mirror()));
    let fetched =
        mirrored.fetch(&resource(&[], &content), &|event| *said.borrow_mut() += &format!("{event:?}")).unwrap();
    *said.borrow_mut() += &format!("{fetched:?} {}", mirrored.fetch(&resource(&[], b"no"), &quiet).unwrap_err());
    assert!(!said.borrow().contains("pass-1234"), "{}", said.borrow());
    assert!(server.requests().iter().all(|request| request.header("authorization").is_some()));
    for path in files(folder.path()) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains("pass-1234"), "{}", path.display());
    }
}

#[test]
fn a_mirror_that_cannot_be_used_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let check = |url: &str, expected: &str| {
        let text = Downloader::with_mirror(folder.path(), url, options().0).unwrap_err().to_string();
        assert!(text.contains(expected) && text.contains("mirror"), "{text}");
    };
    let endless = Server::start(|_, _, stream| {
        head(stream, "200 OK", &[]);
        while stream.write_all(&[b'a'; 65_536]).is_ok() {}
    });
    check(&endless.url(""), "longer than");
    let page = Server::start(|_, request, stream| file(stream, request, b"<html>", "\"a\"", ALL));
    check(&page.url(""), "line 1");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check(&format!("http://{closed}"), "no connection");
    check("ftp://host", "http://");
    let broken = Server::start(|_, _, stream| status(stream, "500 Internal Server Error", &[]));
    check(&broken.url(""), "status 500, 4 times");
    let closed_to_us = Server::start(|_, _, stream| status(stream, "401 Unauthorized", &[]));
    check(&closed_to_us.url(""), "status 401");
    // What is wrong with the address is another error than what is wrong with the mirror.
    let error = |url: &str| Downloader::with_mirror(folder.path(), url, options().0).unwrap_err();
    assert!(matches!(error("ftp://host"), Error::BadMirror { .. }));
    assert!(matches!(error(&page.url("")), Error::BadSums { .. }));
    for url in [broken.url(""), format!("http://{closed}")] {
        assert!(matches!(error(&url), Error::Unavailable { .. }));
    }
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn the_first_set_that_can_be_had_whole_is_taken() {
    let content = bytes(3_000);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| match request.path.as_str() {
        "/one" | "/other" => file(stream, request, &body, "\"a\"", ALL),
        _ => status(stream, "404 Not Found", &[]),
    });
    let named =
        |name: &str| Resource { name: name.to_owned(), ..resource(&[server.url(&format!("/{name}"))], &content) };
    let sets = [vec![named("one"), named("missing")], vec![named("other")]];
    let folder = tempfile::tempdir().unwrap();
    let fetched = downloader(&folder).fetch_any(&sets, &quiet).unwrap();
    assert_eq!(fetched.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["other"]);
    // Now it lies in the folder: the first set is not asked for again.
    let before = server.requests().len();
    assert_eq!(downloader(&folder).fetch_any(&sets, &quiet).unwrap(), fetched);
    assert_eq!(server.requests().len(), before);
    let error = downloader(&folder).fetch_any(&[vec![named("missing")], vec![named("gone")]], &quiet).unwrap_err();
    assert!(error.to_string().contains("/missing") && error.to_string().contains("/gone"), "{error}");
}

#[test]
fn a_mirrors_list_decides_which_set_is_asked_first() {
    let content = bytes(3_000);
    let list = format!("{}  second\n", sha256(&content));
    let server = Server::start(move |_, request, stream| match request.path.as_str() {
        "/SHA256SUMS" => file(stream, request, list.as_bytes(), "\"s\"", ALL),
        _ => file(stream, request, &content, "\"a\"", ALL),
    });
    let folder = tempfile::tempdir().unwrap();
    let named = |name: &str| vec![Resource { name: name.to_owned(), ..resource(&[], b"built in") }];
    let mirrored = Downloader::with_mirror(folder.path(), &server.url(""), options().0).unwrap();
    let fetched = mirrored.fetch_any(&[named("first"), named("second")], &quiet).unwrap();
    assert_eq!(fetched[0].name, "second");
}

#[test]
fn weights_that_hub_software_has_cached_need_no_network() {
    let content = bytes(2_000);
    let cache = tempfile::tempdir().unwrap();
    let model = cache.path().join("models--timm--resnet18.tv_in1k");
    fs::create_dir_all(model.join("snapshots/abc")).unwrap();
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), "abc").unwrap();
    fs::write(model.join("snapshots/abc/model.safetensors"), &content).unwrap();
    let hub = Hub { cache: Some(cache.path().to_path_buf()), endpoint: "http://127.0.0.1:9".to_owned(), offline: true };
    let folder = tempfile::tempdir().unwrap();
    let fetched = downloader(&folder).fetch_resnet18(&hub, &quiet).unwrap();
    assert_eq!((fetched.sha256, fetched.url), (sha256(&content), None));
    assert_eq!(hub.cached("timm/resnet18.tv_in1k", "other.safetensors"), None);
}

#[test]
fn the_hub_says_what_a_file_must_be_before_it_gives_it() {
    let content = bytes(9_000);
    let (body, sum) = (content.clone(), sha256(&content));
    let server = Server::start(move |_, request, stream| match (request.method.as_str(), request.path.as_str()) {
        ("HEAD", "/old/name/resolve/main/f") => {
            status(stream, "307 Temporary Redirect", &[("Location", "/new/name/resolve/main/f".to_owned())]);
        }
        ("HEAD", "/new/name/resolve/main/f") => {
            let headers = [
                ("Location", "http://127.0.0.1:9/elsewhere".to_owned()),
                ("X-Linked-Size", "9000".to_owned()),
                ("X-Linked-ETag", format!("\"{sum}\"")),
            ];
            status(stream, "302 Found", &headers);
        }
        ("GET", "/old/name/resolve/main/f") => file(stream, request, &body, "\"a\"", ALL),
        _ => status(stream, "404 Not Found", &[]),
    });
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub { cache: None, endpoint: server.url(""), offline: false };
    let fetched = hub.fetch(&downloader(&folder), "old/name", "f", &quiet).unwrap();
    assert_eq!((fs::read(&fetched.path).unwrap(), fetched.name.as_str()), (content, "old-name-f"));
    let (cause, _) = only_cause(hub.fetch(&downloader(&folder), "old/name", "other", &quiet));
    assert_eq!(cause, Cause::Status(404));
    let offline = Hub { offline: true, ..hub };
    let before = server.requests().len();
    let (cause, _) = only_cause(offline.fetch(&downloader(&folder), "old/name", "f", &quiet));
    assert_eq!((cause, server.requests().len()), (Cause::Offline, before));
}

#[cfg(unix)]
#[test]
fn a_damaged_file_of_the_hubs_cache_is_not_taken() {
    let content = bytes(2_000);
    let cache = tempfile::tempdir().unwrap();
    let model = cache.path().join("models--a--b");
    for folder in ["snapshots/abc", "refs", "blobs"] {
        fs::create_dir_all(model.join(folder)).unwrap();
    }
    fs::write(model.join("refs/main"), "abc\n").unwrap();
    let blob = model.join("blobs").join(sha256(&content));
    fs::write(&blob, &content).unwrap();
    std::os::unix::fs::symlink(&blob, model.join("snapshots/abc/f")).unwrap();
    let hub = Hub { cache: Some(cache.path().to_path_buf()), endpoint: String::new(), offline: true };
    assert_eq!(hub.cached("a/b", "f").unwrap().size, 2_000);
    fs::write(&blob, &content[..1_999]).unwrap();
    assert_eq!(hub.cached("a/b", "f"), None);
}
