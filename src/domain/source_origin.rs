//! Where an installation's secrets go: the addresses of one marketplace, in one spelling.
//!
//! A data directory, a MySQL schema and each sealed secret belong to one [`SourceOrigin`]; another one is refused before
//! anything is sent. Two spellings of an address are one origin: letter case, a default port, a trailing dot of the
//! host and a trailing slash do not count. The path does: behind one host, `/tenant-a/token` and `/tenant-b/token` can
//! be two parties, and `/retailer` and `/retailer-demo` two sets of documents.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::source_access::{Auth, SourceUrl};

/// The addresses that one marketplace's credentials and tokens are sent to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceOrigin {
    /// Gets the tokens; without a login host, the secrets themselves.
    api: Address,
    /// Gets the secrets. None where `source.auth` sends them with each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login: Option<Address>,
}

/// An address in its one spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Address(String);

impl SourceOrigin {
    /// The origin of a checked `[source]`.
    pub fn new(base_url: &SourceUrl, token_url: &SourceUrl, auth: &Auth) -> SourceOrigin {
        SourceOrigin {
            api: Address::of(base_url.as_url()),
            login: auth.has_logins().then(|| Address::of(token_url.as_url())),
        }
    }

    /// The address of the API, without a trailing slash.
    pub fn api(&self) -> &str {
        &self.api.0
    }

    /// The address that logins are sent to; None where `source.auth` sends the secret with each call.
    pub fn login(&self) -> Option<&str> {
        self.login.as_ref().map(|address| address.0.as_str())
    }

    /// One text for one origin, to seal for and to store: the API's address, a space, and that of the login host or
    /// `-`. No address holds a space. It never changes for an origin.
    pub fn canonical(&self) -> String {
        format!("{} {}", self.api(), self.login().unwrap_or("-"))
    }

    /// Reads a [`SourceOrigin::canonical`]; None: it is none.
    pub fn from_canonical(text: &str) -> Option<SourceOrigin> {
        let (api, login) = text.split_once(' ')?;
        let api = Address::try_from(api.to_owned()).ok()?;
        let login = match login {
            "-" => None,
            login => Some(Address::try_from(login.to_owned()).ok()?),
        };
        Some(SourceOrigin { api, login })
    }
}

/// For people.
impl fmt::Display for SourceOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.login() {
            Some(login) => write!(f, "API {}, login {login}", self.api()),
            None => write!(f, "API {}, no login host", self.api()),
        }
    }
}

/// What a data directory or a schema says of the source that its shops belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedSource {
    Known(SourceOrigin),
    /// A move to this source is not finished.
    Moving(SourceOrigin),
    /// It has shops, and no record of their source.
    Unknown,
}

/// A data directory or a schema belongs to another source than the configured one: no call, login or takeover.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct OtherSource {
    /// Such as `the data directory data`.
    pub place: String,
    pub recorded: RecordedSource,
    pub configured: SourceOrigin,
}

impl fmt::Display for OtherSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOVE: &str = "run `waybill source move`, which asks, and proves each shop's credentials there first";
        let OtherSource { place, recorded, configured } = self;
        match recorded {
            RecordedSource::Moving(to) if to == configured => write!(
                f,
                "the move of {place} to this source ({to}) is not finished, so nothing is called; run `waybill source \
                 move` again, which goes on where it stopped"
            ),
            RecordedSource::Known(recorded) | RecordedSource::Moving(recorded) => write!(
                f,
                "{place} belongs to another source ({recorded}) than [source] names ({configured}), so nothing was \
                 called. Put source.base_url, source.token_url and source.auth back; or, to read its shops from the new \
                 address, {MOVE}"
            ),
            RecordedSource::Unknown => write!(
                f,
                "{place} has shops of an earlier release, which did not record their source, and the data directory, \
                 which could say it, is empty; so nothing was called. If they are shops of the configured source \
                 ({configured}), {MOVE}"
            ),
        }
    }
}

impl Address {
    fn of(url: &Url) -> Address {
        // The parser lowers case, decodes the host, resolves dots of the path and drops the scheme's own port.
        let host = match url.host() {
            Some(Host::Domain(name)) => name.strip_suffix('.').unwrap_or(name).to_owned(),
            Some(host) => host.to_string(),
            None => String::new(),
        };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Address(format!("{}://{host}{port}{}", url.scheme(), url.path().trim_end_matches('/')))
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Address, String> {
        SourceUrl::parse(&text, "https://api.example.com").map(|url| Address::of(url.as_url()))
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.0
    }
}

#[cfg(test)]
mod tests {
    use super::SourceOrigin;
    use crate::domain::{Auth, SourceUrl};

    const API: &str = "https://api.example.com";
    const LOGIN: &str = "https://login.example.com/token";

    fn origin(api: &str, login: &str, auth: &Auth) -> SourceOrigin {
        let parse = |text: &str| SourceUrl::parse(text, API).unwrap();
        SourceOrigin::new(&parse(api), &parse(login), auth)
    }

    #[test]
    fn spellings_of_one_address_are_one_origin_and_other_addresses_are_not() {
        let known = origin(API, LOGIN, &Auth::ClientCredentials);
        for (api, login) in [
            (API, LOGIN),
            ("https://api.example.com/", "https://login.example.com/token/"),
            ("HTTPS://API.Example.COM", "https://LOGIN.example.com/token"),
            ("https://api.example.com:443", "https://login.example.com:443/token"),
            ("https://api.example.com.", "https://login.example.com./token"),
            ("https://%61pi.example.com", "https://login.example.com/a/../token"),
            ("https://API.EXAMPLE.com.:443//", "https://login.example.com./token"),
        ] {
            assert_eq!(origin(api, login, &Auth::ClientCredentials), known, "{api} {login}");
        }
        for (api, login) in [
            ("https://api.example.com:8443", LOGIN),
            ("https://api.example.com:80", LOGIN),
            ("https://api.example.org", LOGIN),
            ("https://example.com", LOGIN),
            ("https://api.example.com.evil.example", LOGIN),
            ("https://api.example.com/demo", LOGIN),
            ("https://xn--pi-eka.example.com", LOGIN),
            (API, "https://login.example.org/token"),
            (API, "https://login.example.com:8443/token"),
            (API, "https://login.example.com/tenant-b/token"),
            (API, "https://login.example.com/Token"),
            (API, "https://login.example.com"),
            (LOGIN, API),
        ] {
            assert_ne!(origin(api, login, &Auth::ClientCredentials), known, "{api} {login}");
        }
        let port = |scheme: &str, port: &str| origin(&format!("{scheme}://127.0.0.1{port}"), LOGIN, &Auth::default());
        assert_eq!(port("http", ":80"), port("http", ""));
        assert_ne!(port("http", ""), port("https", ""), "the scheme counts");
        assert_ne!(port("http", ":8080"), port("http", ":8081"));
        assert_eq!(origin("http://127.1", LOGIN, &Auth::default()), port("http", ""));
        assert_eq!(
            origin("http://[0:0::1]:9", LOGIN, &Auth::default()),
            origin("http://[::1]:9/", LOGIN, &Auth::default())
        );
    }

    #[test]
    fn a_login_host_counts_only_where_secrets_are_sent_to_it() {
        let without = origin(API, LOGIN, &Auth::Basic);
        assert_eq!(without, origin(API, "https://other.example/token", &Auth::Bearer));
        assert_ne!(without, origin(API, LOGIN, &Auth::ClientCredentials));
        assert_eq!(
            (without.login(), without.to_string().as_str()),
            (None, "API https://api.example.com, no login host")
        );
    }

    #[test]
    fn it_is_stored_and_sealed_for_in_one_spelling() {
        let known = origin("https://API.example.com.:443/", LOGIN, &Auth::ClientCredentials);
        assert_eq!(known.canonical(), "https://api.example.com https://login.example.com/token");
        assert_eq!(known.to_string(), "API https://api.example.com, login https://login.example.com/token");
        let stored = r#"{"api":"https://api.example.com","login":"https://login.example.com/token"}"#;
        assert_eq!(serde_json::to_string(&known).unwrap(), stored);
        let without = origin(API, LOGIN, &Auth::Basic);
        assert_eq!(serde_json::to_string(&without).unwrap(), r#"{"api":"https://api.example.com"}"#);
        for one in [known, without] {
            let json = serde_json::to_string(&one).unwrap();
            assert_eq!(serde_json::from_str::<SourceOrigin>(&json).unwrap(), one);
            assert_eq!(SourceOrigin::from_canonical(&one.canonical()), Some(one));
        }
        for wrong in ["", "https://api.example.com", "nothing -", "https://api.example.com nothing", "ftp://a -"] {
            assert_eq!(SourceOrigin::from_canonical(wrong), None, "{wrong}");
        }
        assert!(serde_json::from_str::<SourceOrigin>(r#"{"api":"nothing"}"#).is_err());
    }
}
