//! Small helpers for requests: the client with its root certificates, header values that are never logged, and
//! percent-encoding.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use reqwest::header::HeaderValue;

/// Builds a client. A machine without root certificates (a slim container) falls back to those of browsers.
///
/// # Errors
/// The client library's.
pub(crate) fn build_client(builder: impl Fn() -> reqwest::ClientBuilder) -> reqwest::Result<reqwest::Client> {
    let bundled = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    let bundled = bundled.filter_map(|der| reqwest::Certificate::from_der(der).ok());
    builder().build().or_else(|_| builder().tls_certs_merge(bundled).build())
}

/// A header value that the client library never logs.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Percent-encodes everything but letters, digits and `-_.~`, so that a text stays one segment of a path
/// or one value of a query.
pub(super) fn encoded(text: &str) -> PercentEncode<'_> {
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, ESCAPED)
}
