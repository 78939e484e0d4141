//! How to reach the marketplace, and the HTTP client for that. Called by the client.

use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderValue};

use super::body::ENCODING;
use super::budget::RESENT_FOR;
use super::http::build_client;
use super::problem::root_cause;
use crate::domain::{Auth, SourceUrl};
use crate::gate::Gate;

/// Idle connections are closed before the usual minute of servers and load balancers, so that a call
/// rarely races with the server closing its connection.
const IDLE_MAX: Duration = Duration::from_secs(45);

/// How to reach the marketplace.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    pub base_url: SourceUrl,
    pub token_url: SourceUrl,
    pub auth: Auth,
    pub connect_timeout: Duration,
    /// From the request's start to the end of its body.
    pub total_timeout: Duration,
    /// Bytes, after decompression.
    pub body_max: usize,
    /// Calls in flight to the API, of all shops.
    pub in_flight_max: usize,
    pub user_agent: String,
    /// Calls per second to the API, of all shops; none: only the rate rules hold.
    pub calls_per_second: Option<u32>,
    /// Logins per second, of all shops, and the burst allowed after a rest.
    pub logins_per_second: u32,
    pub login_burst: u32,
    /// Asked before each call and login.
    pub gate: Gate,
}

impl SourceConfig {
    /// Default limit of a body, in bytes.
    pub const BODY_MAX: usize = 8 * 1024 * 1024;

    /// The addresses with the default limits.
    pub fn new(base_url: SourceUrl, token_url: SourceUrl) -> SourceConfig {
        SourceConfig {
            base_url,
            token_url,
            auth: Auth::default(),
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(30),
            body_max: SourceConfig::BODY_MAX,
            in_flight_max: 256,
            user_agent: concat!("waybill/", env!("CARGO_PKG_VERSION")).to_owned(),
            calls_per_second: None,
            logins_per_second: 5,
            login_burst: 10,
            gate: Gate::opened(),
        }
    }
}

/// An invalid configuration: its key, what is wrong and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct SourceConfigError {
    pub key: &'static str,
    pub problem: String,
}

/// Builds the HTTP client; `secure`: for https only.
pub(super) fn http_client(config: &SourceConfig, secure: bool) -> Result<reqwest::Client, SourceConfigError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread installed it first.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    build_client(|| client_builder(config, secure))
        .map_err(|error| wrong("source", format!("the HTTP client cannot be built: {}", root_cause(&error))))
}

fn client_builder(config: &SourceConfig, secure: bool) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(&config.user_agent)
        .no_proxy()
        .referer(false)
        .https_only(secure)
        .redirect(reqwest::redirect::Policy::none())
        // One call is one request: the library's own retries would use slots without counting them.
        .retry(reqwest::retry::never())
        .default_headers([(ACCEPT_ENCODING, HeaderValue::from_static(ENCODING))].into_iter().collect())
        .gzip(false)
        .connect_timeout(config.connect_timeout)
        .timeout(config.total_timeout)
        // With fewer idle ones than calls at once, calls that follow one another would connect again.
        .pool_max_idle_per_host(config.in_flight_max)
        .pool_idle_timeout(IDLE_MAX)
        .tcp_keepalive(Duration::from_secs(30))
        // Nothing arrives later than the budgets count with, not even after kill -9 while packets are lost. A reset at
        // close (SO_LINGER) would do so too, but the library does not show its sockets, and idle ones should end well.
        .tcp_user_timeout(RESENT_FOR)
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(10))
}

pub(super) fn wrong(key: &'static str, problem: impl Into<String>) -> SourceConfigError {
    SourceConfigError { key, problem: problem.into() }
}
