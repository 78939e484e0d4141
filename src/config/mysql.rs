//! Reads `[mysql]`. The messages never quote the address, as it contains a password.

use secrecy::SecretString;
use url::Url;

use super::settings::Settings;

/// `Some(None)`: not set.
pub(super) fn mysql_url(settings: &mut Settings) -> Option<Option<SecretString>> {
    if !settings.is_set("mysql.url") {
        return Some(None);
    }
    settings.parsed("mysql.url", "", address).map(Some)
}

fn address(text: &str) -> Result<SecretString, String> {
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
    Ok(text.into())
}
