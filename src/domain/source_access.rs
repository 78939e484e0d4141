//! How a marketplace is reached: its addresses, and the authentication scheme of its calls.

use url::{Host, Url};

use super::variants::with_all;

/// An address that secrets are sent to: https, or http on loopback. Without user, password, query and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceUrl(Url);

impl SourceUrl {
    /// Parses an address; `example` shows people a right one.
    ///
    /// # Errors
    /// What is wrong and how to write it. Never quotes an address that may contain a password.
    pub fn parse(text: &str, example: &str) -> Result<SourceUrl, String> {
        let shown = if text.contains('@') { "this".to_owned() } else { format!("`{text}`") };
        let url = Url::parse(text)
            .map_err(|error| format!("{shown} is not an address ({error}); write it like \"{example}\""))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user or password; the credentials belong to each shop".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("must end with its path, without ? or #; write it like \"{example}\""));
        }
        match (url.scheme(), is_loopback(&url)) {
            ("https", _) | ("http", true) => Ok(SourceUrl(url)),
            ("http", false) => {
                Err(format!("{shown} would send secrets in clear text; use https (http only on loopback)"))
            }
            _ => Err(format!("{shown} is not a web address; write it like \"{example}\"")),
        }
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    pub fn as_url(&self) -> &Url {
        &self.0
    }

    pub fn into_url(self) -> Url {
        self.0
    }
}

/// Whether an address is on this machine. Names below `localhost` are, by RFC 6761.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

with_all! {
    /// How API calls are authenticated.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum AuthScheme {
        ClientCredentials,
        Basic,
        Bearer,
        ApiKey,
    }
}

impl AuthScheme {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            AuthScheme::ClientCredentials => "client-credentials",
            AuthScheme::Basic => "basic",
            AuthScheme::Bearer => "bearer",
            AuthScheme::ApiKey => "api-key",
        }
    }
}

/// An authentication scheme with what the configuration says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// OAuth 2 client credentials: a short-lived token from the token address.
    #[default]
    ClientCredentials,
    /// `Authorization: Basic` with client id and secret.
    Basic,
    /// `Authorization: Bearer` with the secret itself.
    Bearer,
    /// The secret in the header of this name.
    ApiKey(String),
}

impl Auth {
    pub fn scheme(&self) -> AuthScheme {
        match self {
            Auth::ClientCredentials => AuthScheme::ClientCredentials,
            Auth::Basic => AuthScheme::Basic,
            Auth::Bearer => AuthScheme::Bearer,
            Auth::ApiKey(_) => AuthScheme::ApiKey,
        }
    }

    /// Whether a login host gives tokens for the credentials; else each call carries them.
    pub fn has_logins(&self) -> bool {
        match self {
            Auth::ClientCredentials => true,
            Auth::Basic | Auth::Bearer | Auth::ApiKey(_) => false,
        }
    }

    /// Whether a shop may have no secret, as where an API key is the user of basic authentication.
    pub fn takes_empty_secrets(&self) -> bool {
        match self {
            Auth::Basic => true,
            Auth::ClientCredentials | Auth::Bearer | Auth::ApiKey(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SourceUrl;

    #[test]
    fn an_address_that_would_expose_secrets_is_refused() {
        let parse = |text: &str| SourceUrl::parse(text, "https://api.example.com");
        for wrong in [
            "http://api.example.com",
            "ftp://127.0.0.1",
            "api.example.com",
            "",
            "https://u:p@x.example",
            "https://x/?a=b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("http://10.0.0.1/token").unwrap_err().contains("clear text"));
        for right in [
            "https://api.example.com",
            "http://127.0.0.1:9",
            "http://localhost:9/x",
            "http://api.localhost",
            "http://[::1]:9",
        ] {
            assert!(parse(right).is_ok(), "{right}");
        }
        let error = parse("https//admin:canary@api.example.com").unwrap_err();
        assert!(!error.contains("canary"), "{error}");
    }
}
