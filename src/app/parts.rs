//! The parts of the program, made from the configuration. Nothing runs yet, and nothing is connected.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::catalog::Definition;
use crate::config::{Config, SourceSettings};
use crate::http;
use crate::sink::{Mysql, Sink};
use crate::source::SourceConfig;

/// Burst of logins, in seconds of their rate.
const LOGIN_BURST_S: u32 = 2;

/// Connects to nothing yet.
pub(super) fn open_mysql(config: &Config) -> anyhow::Result<Option<Arc<Mysql>>> {
    let Some(url) = &config.mysql_url else { return Ok(None) };
    Ok(Some(Arc::new(Mysql::at(url, config.mysql_ca_file.as_deref(), config.definitions.clone())?)))
}

/// The definitions by which documents are read: MySQL finds them without facets.
pub(super) fn definitions_for(sink: &Sink, config: &Config) -> Vec<Arc<Definition>> {
    match sink {
        Sink::Archive(_) => config.definitions.clone(),
        Sink::Mysql(_) => config.definitions.iter().map(|one| Arc::new(one.without_facets())).collect(),
    }
}

pub(super) fn digest(key: &secrecy::SecretString) -> [u8; 32] {
    use secrecy::ExposeSecret as _;
    Sha256::digest(key.expose_secret().as_bytes()).into()
}

pub(super) fn http_limits(config: &Config, connections: usize) -> http::ServerLimits {
    let limits = http::ServerLimits::default();
    let connections_max = limits.connections_max.min(connections);
    // Behind a proxy that is not trusted to name them all clients have its address.
    let per_peer_max = if config.behind_proxy && config.trusted_proxies.is_empty() {
        connections_max
    } else {
        limits.connections_per_peer_max
    };
    http::ServerLimits { connections_max, connections_per_peer_max: per_peer_max, ..limits }
}

pub(super) fn source_config(settings: &SourceSettings) -> SourceConfig {
    let mut config = SourceConfig::new(settings.base_url.clone(), settings.token_url.clone());
    config.auth = settings.auth.clone();
    config.in_flight_max = settings.in_flight_max;
    config.calls_per_second = settings.calls_per_second;
    config.logins_per_second = settings.logins_per_second;
    config.login_burst = settings.logins_per_second.saturating_mul(LOGIN_BURST_S);
    config
}
