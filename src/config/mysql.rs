//! Reads `[mysql]`. The messages never quote the address, as it contains a password.
//!
//! The password must not leave this machine in clear text, nor lie in a file that others can read.

use std::net::IpAddr;

use secrecy::SecretString;
use url::Url;

use super::exposure::{exposure, is_own};
use super::problem::ConfigProblem;
use super::settings::Settings;

const URL: &str = "mysql.url";
const PLAINTEXT: &str = "mysql.allow_plaintext";
const UNVERIFIED: &str = "mysql.allow_unverified";

/// `Some(None)`: not set.
pub(super) fn mysql_url(settings: &mut Settings) -> Option<Option<SecretString>> {
    if !settings.is_set(URL) {
        return Some(None);
    }
    let url = settings.parsed(URL, "", address)?;
    check_transport(settings, &url);
    check_privacy(settings, &url);
    Some(Some(settings.text(URL, "").into()))
}

fn address(text: &str) -> Result<Url, String> {
    let example = "write it like mysql://user:password@127.0.0.1:3306/waybill";
    let url = Url::parse(text).map_err(|error| {
        format!("is not an address ({error}); {example}, and # / ? @ % in a password like %23 %2F %3F %40 %25")
    })?;
    if url.scheme() != "mysql" {
        return Err(format!("must begin with mysql://; {example}"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("names no host; {example}"));
    }
    if url.path().trim_matches('/').is_empty() {
        return Err(format!("names no database at its end; {example}"));
    }
    Ok(url)
}

/// A database on another machine needs an encrypted connection to a server that proves who it is, or the operator's word.
fn check_transport(settings: &mut Settings, url: &Url) {
    let option =
        |name: &str| url.query_pairs().filter(|(key, _)| key == name).last().map(|(_, value)| value.into_owned());
    let says = |name: &str, value: &str| option(name).as_deref() == Some(value);
    if is_here(url.host_str().unwrap_or_default()) || option("socket").is_some() {
        return;
    }
    let is_asked_for = says("require_ssl", "true");
    let has_authority = !settings.text("mysql.ca_file", "").is_empty();
    if !is_asked_for && !has_authority && !settings.flag(PLAINTEXT, false) {
        let what = "the database is on another machine, and its password and all documents would travel unencrypted; add \
                    ?require_ssl=true to the address, or name the server's authority with mysql.ca_file. If the network \
                    between is yours alone, set mysql.allow_plaintext = true";
        settings.problem_at(URL, what);
    }
    let skipped = ["verify_ca", "verify_identity"].into_iter().find(|name| says(name, "false"));
    if let Some(name) = skipped.filter(|_| is_asked_for && !settings.flag(UNVERIFIED, false)) {
        let what = format!(
            "with {name}=false another machine on the way can pose as the database and read its password; leave {name} \
             out, and name the authority that signed the server's certificate with mysql.ca_file. If you accept that, set \
             mysql.allow_unverified = true"
        );
        settings.problem_at(URL, what);
    }
}

/// Whether a host is this machine. Names below `localhost` are, by RFC 6761.
fn is_here(host: &str) -> bool {
    // The parser leaves addresses of an unknown scheme as text.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// A file with a password must be for its owner alone. One that this user owns is closed before anything starts.
fn check_privacy(settings: &mut Settings, url: &Url) {
    let has_password = url.password().is_some_and(|password| !password.is_empty());
    if !has_password || settings.is_from_environment(URL) {
        return;
    }
    let Some(what) = exposure(&settings.path) else { return };
    let what = format!("contains a password, and {what}");
    if is_own(&settings.path) {
        let problem = settings.problem_with(URL, "");
        settings.exposed = Some(ConfigProblem { what, ..problem });
    } else {
        settings.problem_at(URL, what);
    }
}

#[cfg(test)]
mod tests {
    use super::is_here;

    #[test]
    fn only_loopback_is_this_machine() {
        for here in
            ["127.0.0.1", "127.8.9.1", "[::1]", "::1", "[::ffff:127.0.0.1]", "localhost", "LOCALHOST", "db.localhost"]
        {
            assert!(is_here(here), "{here}");
        }
        for away in ["10.0.0.1", "[fe80::1]", "db", "db.example.com", "localhost.example.com", "0.0.0.0", ""] {
            assert!(!is_here(away), "{away}");
        }
    }
}
