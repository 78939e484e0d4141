//! HTTP client for a running Waybill server, for `waybill status`.
//!
//! The API key comes from a file or from the environment, never from an argument, and is sent only over TLS or to this
//! machine, and only after the server has answered `/livez` like a Waybill server.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, LOCATION};
use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::command_error::CommandError;
use super::open::environment;
use super::{first_key, secret_input, table};
use crate::app::secret_file;
use crate::source;

/// Variables for the API key; the first that is set is used.
const KEY_VARIABLES: [&str; 2] = ["WAYBILL_API_KEY", "WAYBILL_ADMIN_KEY"];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than any answer of the server takes.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest body in bytes; a page of shops has less than 2 MB.
const BODY_MAX: usize = 32 * 1024 * 1024;
/// Shops per request.
const SHOPS_PAGE: usize = 500;

/// An API key, and where it came from.
pub(super) struct Key {
    text: SecretString,
    from: String,
}

impl Key {
    /// Reads the key from a file (`-`: standard input), else from the environment.
    ///
    /// # Errors
    /// The named file cannot be read, or has no key.
    pub(super) fn given(file: Option<&Path>) -> Result<Option<Key>, CommandError> {
        if let Some(file) = file {
            return Key::of_file(file).map(Some);
        }
        let mut environment = environment();
        let mut found = KEY_VARIABLES.iter().filter_map(|name| Some((*name, environment.remove(*name)?)));
        let Some((name, text)) = found.find(|(_, text)| !text.is_empty()) else { return Ok(None) };
        Key::read(&Zeroizing::new(text), name.to_owned()).map(Some)
    }

    /// The admin key that `serve` wrote beside a data directory, if there is one.
    pub(super) fn beside(data_dir: &Path) -> Option<Key> {
        let file = secret_file::beside(data_dir, ".admin-key");
        let text = std::fs::read_to_string(&file).ok().filter(|text| text.trim_end() != first_key::PLACEHOLDER)?;
        Key::read(&Zeroizing::new(text), file.display().to_string()).ok()
    }

    fn of_file(file: &Path) -> Result<Key, CommandError> {
        if file == Path::new("-") {
            let hint = "--key-file -: pipe the key into standard input, like: waybill status ... < FILE";
            return Key::read(&secret_input::given("API key", hint)?, "standard input".to_owned());
        }
        Key::read(&secret_input::of_file("--key-file", file)?, file.display().to_string())
    }

    fn read(text: &str, from: String) -> Result<Key, CommandError> {
        let first = secret_input::first_line(text);
        if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_graphic()) {
            let what = format!(
                "{from} has no API key: it needs one line of visible ASCII characters, as `waybill keys create` prints"
            );
            return Err(CommandError::Usage(what));
        }
        Ok(Key { text: first.into(), from })
    }
}

/// A running server.
pub(super) struct RemoteServer {
    base: Url,
    key: Key,
    client: Client,
}

/// A server's health and shops, with the time by its own clock.
pub(super) struct ServerAnswer {
    /// As `waybill status --json` prints it.
    pub(super) status: Value,
    /// The header `Date`.
    pub(super) date: Option<String>,
}

impl RemoteServer {
    /// The server at an address from the command line.
    ///
    /// # Errors
    /// The address is invalid, or a key must not be sent there.
    pub(super) fn at(address: &str, key: Key) -> Result<RemoteServer, CommandError> {
        let usage = |what: &str| CommandError::Usage(format!("--server {}: {what}", table::clean(address)));
        let example = "write it like https://waybill.example.com or http://127.0.0.1:8080";
        let base = Url::parse(address).map_err(|error| usage(&format!("is not an address ({error}); {example}")))?;
        if !base.username().is_empty() || base.password().is_some() || base.query().is_some() {
            return Err(CommandError::Usage(format!("--server: contains a user, a password or parameters; {example}")));
        }
        let is_local = match base.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => return Err(usage(&format!("names no host; {example}"))),
        };
        match (base.scheme(), is_local) {
            ("https", _) | ("http", true) => RemoteServer::new(base, key),
            ("http", false) => Err(usage(
                "would send the API key in clear text; use https, or a tunnel (ssh -L 8080:127.0.0.1:8080 HOST) and \
                 http://127.0.0.1:8080",
            )),
            _ => Err(usage(&format!("is not a web address; {example}"))),
        }
    }

    /// A server on this machine.
    ///
    /// # Errors
    /// No HTTP client can be created.
    pub(super) fn here(address: SocketAddr, key: Key) -> Result<RemoteServer, CommandError> {
        let base = Url::parse(&format!("http://{address}")).map_err(anyhow::Error::from)?;
        RemoteServer::new(base, key)
    }

    fn new(mut base: Url, key: Key) -> Result<RemoteServer, CommandError> {
        // Joined paths must go below it.
        if !base.path().ends_with('/') {
            let below = format!("{}/", base.path());
            base.set_path(&below);
        }
        let builder = || {
            Client::builder()
                .user_agent(concat!("waybill/", env!("CARGO_PKG_VERSION")))
                .no_proxy()
                .referer(false)
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TIMEOUT)
        };
        let client = source::build_client(builder).map_err(anyhow::Error::from)?;
        Ok(RemoteServer { base, key, client })
    }

    /// Requests the health and all shops.
    ///
    /// # Errors
    /// What went wrong, and what to do about it.
    pub(super) async fn status(&self) -> Result<ServerAnswer, CommandError> {
        self.greet().await?;
        let (mut status, date) = self.get("api/v1/status").await?;
        let health = status.get_mut("health").map(Value::take).unwrap_or_default();
        let mut shops = Vec::new();
        let mut after = String::new();
        loop {
            let (mut page, _) = self.get(&format!("api/v1/shops?limit={SHOPS_PAGE}{after}")).await?;
            let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) else {
                return Err(self.is_no_waybill("an answer without `items`"));
            };
            shops.extend(items);
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => after = format!("&cursor={next}"),
                None => break,
            }
        }
        Ok(ServerAnswer { status: json!({"health": health, "shops": shops}), date })
    }

    /// Checks that it is a Waybill server before it gets a key.
    async fn greet(&self) -> Result<(), CommandError> {
        let (status, headers, body) = self.send("livez", None).await?;
        let word: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_redirection() {
            return Err(self.redirects(&headers));
        }
        if status != StatusCode::OK || word.get("status").is_none() {
            return Err(self.is_no_waybill(&format!("{status} to GET /livez")));
        }
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<(Value, Option<String>), CommandError> {
        let (status, headers, body) = self.send(path, Some(&self.key)).await?;
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let kind = header(CONTENT_TYPE).unwrap_or_default();
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status == StatusCode::OK && value.is_object() {
            return Ok((value, header(DATE).map(str::to_owned)));
        }
        if status.is_redirection() {
            return Err(self.redirects(&headers));
        }
        if !kind.starts_with("application/problem+json") {
            return Err(self.is_no_waybill(&format!("{status}, {kind}")));
        }
        let detail = self.quote(value.get("detail").and_then(Value::as_str).unwrap_or_default());
        let (base, from) = (&self.base, &self.key.from);
        Err(CommandError::Failed(match status {
            StatusCode::UNAUTHORIZED => anyhow!(
                "{base} does not accept the API key from {from} (401): it is unknown, revoked or expired; give another \
                 with --key-file or WAYBILL_API_KEY"
            ),
            StatusCode::FORBIDDEN => anyhow!(
                "the API key from {from} may not read the status of {base} (403: {detail}); give one of scope read or \
                 admin with --key-file or WAYBILL_API_KEY"
            ),
            StatusCode::TOO_MANY_REQUESTS => anyhow!("{base} gets too many requests (429: {detail}); try again later"),
            _ => anyhow!("{base} answers {status}: {detail}; its log says more"),
        }))
    }

    async fn send(&self, path: &str, key: Option<&Key>) -> Result<(StatusCode, HeaderMap, Vec<u8>), CommandError> {
        let url = self.base.join(path).map_err(anyhow::Error::from)?;
        let mut request = self.client.get(url);
        if let Some(key) = key {
            request = request.bearer_auth(key.text.expose_secret());
        }
        let mut response = request.send().await.map_err(|error| self.no_answer(&error))?;
        let (status, headers, mut body) = (response.status(), response.headers().clone(), Vec::new());
        while let Some(part) = response.chunk().await.map_err(|error| self.no_answer(&error))? {
            body.extend_from_slice(&part);
            if body.len() > BODY_MAX {
                return Err(self.is_no_waybill("an answer without an end"));
            }
        }
        if self.sent().found_in(&body).is_some() {
            return Err(self.is_no_waybill("it repeats the API key"));
        }
        Ok((status, headers, body))
    }

    fn sent(&self) -> source::Sent<'_> {
        source::Sent::key(self.key.text.expose_secret())
    }

    /// A text of the server as it may be shown: a host that is no Waybill server may quote the key.
    fn quote(&self, text: &str) -> String {
        table::clean(&self.sent().redact(text))
    }

    fn redirects(&self, headers: &HeaderMap) -> CommandError {
        let to = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("another address");
        CommandError::Failed(anyhow!("{} redirects to {}; give that address with --server", self.base, self.quote(to)))
    }

    fn is_no_waybill(&self, what: &str) -> CommandError {
        let (base, what) = (&self.base, self.quote(what));
        CommandError::Failed(anyhow!(
            "{base} is not a Waybill server, or not of this version ({what}); give the address that `waybill serve` says \
             it listens on"
        ))
    }

    fn no_answer(&self, error: &reqwest::Error) -> CommandError {
        let (why, base) = (self.quote(&source::root_cause(error)), &self.base);
        CommandError::Failed(if error.is_timeout() {
            let hint =
                if base.scheme() == "https" { "; if it speaks plain HTTP, on this machine, write http://" } else { "" };
            anyhow!("{base} did not answer in time; see whether the server is there and not too busy{hint}")
        } else if base.scheme() == "https" && is_about_tls(error) {
            anyhow!(
                "no TLS connection to {base}: {why}; for a certificate authority of your own, name its file in \
                 SSL_CERT_FILE; for a server that speaks plain HTTP on this machine, write http://"
            )
        } else if error.is_connect() {
            anyhow!(
                "{base} cannot be reached: {why}; see whether `waybill serve` runs there, and which address it says it \
                 listens on"
            )
        } else {
            anyhow!("{base} does not answer like an HTTP server: {why}; if it speaks TLS, write https://")
        })
    }
}

/// Whether the encryption failed, and not the connection below it.
fn is_about_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    // An I/O error leaves the error that it wraps out of the chain of causes.
    let is_here = match error.downcast_ref::<std::io::Error>() {
        Some(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => true,
        Some(error) => error.get_ref().is_some_and(|inner| is_about_tls(inner)),
        None => error.is::<rustls::Error>(),
    };
    is_here || error.source().is_some_and(is_about_tls)
}

#[cfg(test)]
mod tests {
    use super::{CommandError, Key, RemoteServer};
    use secrecy::ExposeSecret as _;

    fn key(text: &str) -> Result<Key, CommandError> {
        Key::read(text, "KEY".to_owned())
    }

    #[test]
    fn the_key_is_the_first_line() {
        assert_eq!(key(" abc \nmore\n").ok().unwrap().text.expose_secret(), "abc");
        for wrong in ["", "\n", "two words", "sch\u{f6}n"] {
            assert!(
                matches!(key(wrong), Err(CommandError::Usage(what)) if what.contains("has no API key")),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_key_is_sent_only_over_tls_or_to_this_machine() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let at = |address: &str| RemoteServer::at(address, key("abc").ok().unwrap());
        for sound in [
            "https://a.example",
            "https://a.example/below",
            "http://127.0.0.1:80",
            "http://localhost",
            "http://[::1]:1",
        ] {
            assert!(at(sound).is_ok_and(|server| server.base.path().ends_with('/')), "{sound}");
        }
        for (wrong, what) in [
            ("http://a.example", "clear text"),
            ("a.example", "is not an address"),
            ("ftp://a.example", "is not a web address"),
            ("https://u:p@a.example", "contains a user"),
            ("unix:/run/waybill", "names no host"),
        ] {
            assert!(matches!(at(wrong), Err(CommandError::Usage(said)) if said.contains(what)), "{wrong}");
        }
    }
}
