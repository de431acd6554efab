//! Threads, processes, killed processes, the environment.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lth_data::download::{Downloader, Options, Proxies};

use super::{ALL, bytes, downloader, files, options, quiet, resource};
use crate::http::{Server, file, head};

#[test]
fn threads_that_want_the_same_file_fetch_it_once() {
    let content = bytes(200_000);
    let body = content.clone();
    let server = Server::start(move |_, request, stream| {
        std::thread::sleep(Duration::from_millis(150));
        file(stream, request, &body, "\"a\"", ALL);
    });
    let folder = tempfile::tempdir().unwrap();
    let wanted = resource(&[server.url("/f")], &content);
    let downloader = downloader(&folder);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| downloader.fetch(&wanted, &quiet).unwrap())).collect();
        for thread in threads {
            assert_eq!(fs::read(thread.join().unwrap().path).unwrap(), content);
        }
    });
    assert_eq!(server.requests().len(), 1);
}

const CHILD_FOLDER: &str = "LTH_TEST_CHILD_FOLDER";

const CHILD_URL: &str = "LTH_TEST_CHILD_URL";

/// This test program again, running one test with the child's variables set.
fn child(test: &str, folder: &Path, url: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD_FOLDER, folder).env(CHILD_URL, url);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command
}

/// Folder and address, in a child.
fn in_child() -> Option<(PathBuf, String)> {
    Some((PathBuf::from(std::env::var_os(CHILD_FOLDER)?), std::env::var(CHILD_URL).ok()?))
}

#[test]
fn a_killed_process_is_continued_by_the_next() {
    let content = bytes(300_000);
    if let Some((folder, url)) = in_child() {
        let (options, _) = options();
        // The parent kills this process long before the silence ends.
        let options = Options { stall: Duration::from_secs(20), ..options };
        Downloader::new(folder, options).fetch(&resource(&[url], &content), &quiet).unwrap();
        return;
    }
    let body = content.clone();
    let server = Server::start(move |number, request, stream| {
        if number == 0 {
            file(stream, request, &body, "\"a\"", 120_000);
            std::thread::sleep(Duration::from_secs(8));
        } else {
            file(stream, request, &body, "\"a\"", ALL);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let url = server.url("/f");
    let mut killed =
        child("download::processes::a_killed_process_is_continued_by_the_next", folder.path(), &url).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let has_bytes = || {
        files(folder.path()).iter().any(|path| {
            path.extension().is_some_and(|end| end == "part") && fs::metadata(path).unwrap().len() == 120_000
        })
    };
    while !has_bytes() {
        assert!(Instant::now() < deadline, "the child wrote nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let fetched = downloader(&folder).fetch(&resource(&[url], &content), &quiet).unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), content);
    let ranges: Vec<_> = server.requests().iter().map(crate::http::Request::range).collect();
    assert_eq!(ranges, [None, Some(120_000)]);
}

#[test]
fn a_process_that_comes_second_waits_and_fetches_nothing() {
    let content = bytes(100_000);
    if let Some((folder, url)) = in_child() {
        let (options, _) = options();
        let options = Options { stall: Duration::from_secs(20), ..options };
        Downloader::new(folder, options).fetch(&resource(&[url], &content), &quiet).unwrap();
        return;
    }
    let body = content.clone();
    let server = Server::start(move |_, request, stream| {
        std::thread::sleep(Duration::from_millis(600));
        file(stream, request, &body, "\"a\"", ALL);
    });
    let folder = tempfile::tempdir().unwrap();
    let url = server.url("/f");
    let test = "download::processes::a_process_that_comes_second_waits_and_fetches_nothing";
    let mut children: Vec<_> = (0..2).map(|_| child(test, folder.path(), &url).spawn().unwrap()).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn the_proxy_of_the_environment_is_used() {
    let content = bytes(1_000);
    if let Some((folder, url)) = in_child() {
        let (options, _) = options();
        let options = Options { proxies: Proxies::Environment, ..options };
        Downloader::new(folder, options).fetch(&resource(&[url], &content), &quiet).unwrap();
        return;
    }
    let body = content.clone();
    // Stands for the proxy and, through its tunnel, for the server behind it.
    let proxy = Server::start(move |_, request, stream| {
        if request.method == "CONNECT" {
            head(stream, "200 OK", &[]);
            tunnelled(stream, &body);
        } else {
            file(stream, request, &body, "\"a\"", ALL);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let url = "http://a-host-that-is-none.invalid/f";
    let mut command = child("download::processes::the_proxy_of_the_environment_is_used", folder.path(), url);
    for name in ["ALL_PROXY", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command.env("all_proxy", proxy.url(""));
    assert!(command.status().unwrap().success());
    assert!(proxy.requests()[0].path.contains("a-host-that-is-none.invalid"));
}

fn tunnelled(stream: &mut TcpStream, body: &[u8]) {
    use std::io::Read;
    // The request for the file itself; its content does not matter here.
    let _ = stream.read(&mut [0; 4_096]);
    head(stream, "200 OK", &[("Content-Length", body.len().to_string())]);
    let _ = stream.write_all(body);
}
