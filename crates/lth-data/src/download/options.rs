//! How a download is watched, and how patient it is.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::error::{Cause, Error, Result};
use super::resource::Resource;

/// What happens during a download, for a progress bar or a log.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another process downloads the same file; this one waits for it.
    Waiting {
        /// The file.
        name: &'a str,
    },
    /// Bytes begin to arrive.
    Started {
        /// The file.
        name: &'a str,
        /// From where, without user name and password.
        url: &'a str,
        /// Bytes kept from an attempt before.
        offset: u64,
        /// Length of the whole file, where it is known.
        total: Option<u64>,
    },
    /// Some bytes have arrived.
    Received {
        /// The file.
        name: &'a str,
        /// Bytes there are now, those from before included.
        received: u64,
    },
    /// An attempt failed, and another will be made.
    Retrying {
        /// The file.
        name: &'a str,
        /// From where.
        url: &'a str,
        /// Why the attempt failed.
        cause: &'a Cause,
        /// The pause before the next.
        pause: Duration,
    },
    /// The file is whole and its checksum is computed.
    Verifying {
        /// The file.
        name: &'a str,
    },
    /// A file in the folder was not the one expected; it was renamed and a good one is fetched.
    SetAside {
        /// The file's new name.
        path: &'a Path,
    },
}

/// Where proxies come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proxies {
    /// `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in either case.
    #[default]
    Environment,
    /// None.
    Direct,
}

/// Patience and limits.
///
/// Servers' certificates are held against those that the system trusts, or, where it names none, against Mozilla's.
#[derive(Clone)]
pub struct Options {
    /// Attempts per address that bring nothing before it is given up. An address that cannot be reached at all gets 2.
    pub attempts: u32,
    /// The first pause between attempts; each further one is twice as long.
    pub pause: Duration,
    /// The longest pause, also where a server asks for more.
    pub longest_pause: Duration,
    /// How long a connection may take.
    pub connect: Duration,
    /// How long a server may send nothing.
    pub stall: Duration,
    /// Less than `slow_bytes` in this time is a stall too.
    pub slow_window: Duration,
    /// See `slow_window`.
    pub slow_bytes: u64,
    /// Bytes of the disk that are left free.
    pub spare: u64,
    /// Where proxies come from.
    pub proxies: Proxies,
    /// How to pause.
    pub sleep: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            attempts: 6,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            slow_window: Duration::from_secs(60),
            slow_bytes: 60 << 10,
            spare: 64 << 20,
            proxies: Proxies::Environment,
            sleep: Arc::new(std::thread::sleep),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("attempts", &self.attempts)
            .field("pause", &self.pause)
            .field("longest_pause", &self.longest_pause)
            .field("connect", &self.connect)
            .field("stall", &self.stall)
            .field("slow_window", &self.slow_window)
            .field("slow_bytes", &self.slow_bytes)
            .field("spare", &self.spare)
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// An error if writing `bytes` more beside `path` would leave less than `spare` free.
    pub(super) fn check_space(&self, resource: &Resource, path: &Path, bytes: u64) -> Result<()> {
        let folder = path.parent().unwrap_or(path);
        let needed = bytes.saturating_add(self.spare);
        match fs4::available_space(folder) {
            Ok(available) if available < needed => {
                Err(Error::DiskFull { name: resource.name.clone(), folder: folder.to_path_buf(), needed, available })
            }
            // Some network file systems do not say; writing will.
            _ => Ok(()),
        }
    }

    /// The client with these limits.
    pub(super) fn agent(&self) -> ureq::Agent {
        let proxy = match self.proxies {
            Proxies::Environment => proxy_of_the_environment(),
            Proxies::Direct => None,
        };
        ureq::Agent::config_builder()
            .proxy(proxy)
            .tls_config(TlsConfig::builder().root_certs(trusted()).build())
            .http_status_as_error(false)
            .max_redirects(5)
            .timeout_resolve(Some(self.connect))
            .timeout_connect(Some(self.connect))
            .timeout_send_request(Some(self.stall))
            .timeout_recv_response(Some(self.stall))
            .timeout_per_read(Some(self.stall))
            .timeout_per_write(Some(self.stall))
            .user_agent(concat!("lth-data/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent()
    }

    /// The pause after `failures` failed attempts in a row; `asked`: what the server wishes.
    pub(super) fn pause_after(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.pause.saturating_mul(1 << failures.saturating_sub(1).min(16));
        asked.unwrap_or(doubled).min(self.longest_pause)
    }
}

/// The first of the environment's proxies that is an address. Of one that is none its name is said, never its value, which
/// may hold a password.
fn proxy_of_the_environment() -> Option<ureq::Proxy> {
    for name in ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        let value = std::env::var(name).unwrap_or_default();
        if !value.is_empty() && ureq::Proxy::new(&value).is_err() {
            tracing::warn!("{name} is no address of a proxy, such as http://host:3128: it is not used");
        }
    }
    ureq::Proxy::try_from_env()
}

/// Whose signature a server's certificate needs: those whom this system trusts (on Linux also `SSL_CERT_FILE` and
/// `SSL_CERT_DIR`), as behind a proxy that reads along; where the system names none, those built in, which are Mozilla's.
fn trusted() -> RootCerts {
    static TRUSTED: OnceLock<RootCerts> = OnceLock::new();
    let load = || {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!("certificates of this system: {error}");
        }
        let certificates: Vec<Certificate<'static>> =
            found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        if certificates.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(Arc::new(certificates)) }
    };
    TRUSTED.get_or_init(load).clone()
}
