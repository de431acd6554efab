//! A small HTTP server on this machine that misbehaves on request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First byte asked for.
    pub(crate) fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// Answers each request by a function of its number (from 0).
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(usize, &Request, &mut TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (seen, stop, answer) = (Arc::clone(&requests), Arc::clone(&stopped), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
                    if let Some(request) = read_request(&stream) {
                        let number = {
                            let mut seen = seen.lock().unwrap();
                            seen.push(request.clone());
                            seen.len() - 1
                        };
                        answer(number, &request, &mut stream);
                    }
                });
            }
        });
        Server { address, requests, stopped }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    Some(Request { method, path, headers })
}

/// Status line and headers; the connection is closed after the body.
pub(crate) fn head(stream: &mut TcpStream, status: &str, headers: &[(&str, String)]) {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    // The client may be gone already; that is its affair.
    let _ = stream.write_all((text + "\r\n").as_bytes());
}

pub(crate) fn status(stream: &mut TcpStream, status: &str, headers: &[(&str, String)]) {
    let mut headers = headers.to_vec();
    headers.push(("Content-Length", "0".to_owned()));
    head(stream, status, &headers);
}

/// A file as a good server gives it: with ETag, Range and If-Range. At most `at_most` bytes of the body are sent.
pub(crate) fn file(stream: &mut TcpStream, request: &Request, body: &[u8], etag: &str, at_most: usize) {
    let valid = request.header("if-range").is_none_or(|value| value == etag);
    let start = request.range().filter(|start| valid && *start < body.len());
    let rest = &body[start.unwrap_or(0)..];
    let mut headers = vec![("Content-Length", rest.len().to_string()), ("ETag", etag.to_owned())];
    if let Some(start) = start {
        headers.push(("Content-Range", format!("bytes {start}-{}/{}", body.len() - 1, body.len())));
    }
    head(stream, if start.is_some() { "206 Partial Content" } else { "200 OK" }, &headers);
    let _ = stream.write_all(&rest[..rest.len().min(at_most)]);
}

/// Ends the connection with a reset, on Linux; elsewhere in order.
pub(crate) fn reset(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code)] // the standard library cannot say it yet
    {
        use std::os::fd::AsRawFd;
        let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
        let size = size_of_val(&at_once) as libc::socklen_t;
        // SAFETY: the socket is open, and the setting is a `linger` of the size given.
        unsafe {
            libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const at_once).cast(), size);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}
