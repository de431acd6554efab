//! Threads, processes, killed processes, the environment.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lth_data::download::{Downloader, Event, Options, Proxies};

use super::{ALL, bytes, downloader, files, options, quiet, resource};
use crate::http::{Server, file, head, status};

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
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
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
    command.env("all_proxy", proxy.url(""));
    assert!(command.status().unwrap().success());
    assert!(proxy.requests()[0].path.contains("a-host-that-is-none.invalid"));
}

#[test]
fn a_password_of_the_proxy_is_sent_to_it_and_said_nowhere() {
    let content = bytes(1_000);
    if let Some((folder, url)) = in_child() {
        let (options, _) = options();
        let options = Options { proxies: Proxies::Environment, ..options };
        let downloader = Downloader::new(&folder, options);
        let said = std::cell::RefCell::new(format!("{downloader:?}"));
        let notify = |event: Event<'_>| *said.borrow_mut() += &format!("\n{event:?}");
        let result = downloader.fetch(&resource(&[url.clone(), url.replace("http:", "https:")], &content), &notify);
        let error = result.expect_err("the proxy gives nothing");
        fs::write(folder.join("said"), format!("{}\n{error:?}\n{error}", said.borrow())).unwrap();
        return;
    }
    let proxy = Server::start(move |_, _, stream| {
        status(stream, "407 Proxy Authentication Required", &[("Proxy-Authenticate", "Basic".to_owned())]);
    });
    let folder = tempfile::tempdir().unwrap();
    let test = "download::processes::a_password_of_the_proxy_is_sent_to_it_and_said_nowhere";
    let mut command = child(test, folder.path(), "http://a-host-that-is-none.invalid/f");
    command.env("https_proxy", proxy.url("").replace("http://", "http://me:pass-1234@"));
    assert!(command.status().unwrap().success());
    let requests = proxy.requests();
    // me:pass-1234
    let expected = Some("Basic bWU6cGFzcy0xMjM0");
    assert!(!requests.is_empty() && requests.iter().all(|request| request.header("proxy-authorization") == expected));
    let said = fs::read_to_string(folder.path().join("said")).unwrap();
    assert!(said.contains("407") && !said.contains("pass-1234") && !said.contains("bWU6"), "{said}");
}

/// Answers https with the certificate in `golden/tls`.
fn serve_tls(body: Vec<u8>) -> String {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let path = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tls").join(name);
    let certificate = CertificateDer::from_pem_file(path("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(path("server.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            // A client that does not trust us hangs up.
            let _ = std::io::Read::read(&mut stream, &mut [0; 4_096]);
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    format!("https://{address}/f")
}

#[test]
fn whom_the_system_trusts_is_trusted_and_nobody_else() {
    let content = bytes(100_000);
    if let Some((folder, url)) = in_child() {
        let result = Downloader::new(&folder, options().0).fetch(&resource(&[url], &content), &quiet);
        let said = result.map_or_else(|error| error.to_string(), |fetched| fetched.sha256);
        fs::write(folder.join("said"), said).unwrap();
        return;
    }
    let url = serve_tls(content.clone());
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tls");
    let test = "download::processes::whom_the_system_trusts_is_trusted_and_nobody_else";
    let said = |trusted: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = child(test, folder.path(), &url);
        command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        if let Some(name) = trusted {
            command.env("SSL_CERT_FILE", golden.join(name));
        }
        assert!(command.status().unwrap().success());
        fs::read_to_string(folder.path().join("said")).unwrap()
    };
    if cfg!(target_os = "linux") {
        assert_eq!(said(Some("ca.pem")), super::sha256(&content));
    }
    // A file without certificates leaves those built in, which do not vouch for us either.
    for trusted in [None, Some("make.sh")] {
        let said = said(trusted);
        assert!(said.contains("cannot download file.bin") && said.contains("certificate"), "{trusted:?}: {said}");
    }
}

fn tunnelled(stream: &mut TcpStream, body: &[u8]) {
    use std::io::Read;
    // The request for the file itself; its content does not matter here.
    let _ = stream.read(&mut [0; 4_096]);
    head(stream, "200 OK", &[("Content-Length", body.len().to_string())]);
    let _ = stream.write_all(body);
}
