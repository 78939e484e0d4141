//! Reads `[mysql]`. The messages never quote the address, as it contains a password.

use secrecy::SecretString;
use url::Url;

use super::settings::Settings;

/// `Some(None)`: not set.
pub(super) fn mysql_url(settings: &mut Settings) -> Option<Option<SecretString>> {
    if !settings.is_set("mysql.url") {
        return Some(None);
    }
    let text = settings.text("mysql.url", "");
    let example = "write it like mysql://user:password@127.0.0.1:3306/waybill";
    let what = match Url::parse(&text) {
        Err(error) => {
            format!("is not an address ({error}); {example}, and # / ? @ % in a password like %23 %2F %3F %40 %25")
        }
        Ok(url) if url.scheme() != "mysql" => format!("must begin with mysql://; {example}"),
        Ok(url) if url.host_str().is_none_or(str::is_empty) => format!("names no host; {example}"),
        Ok(url) if url.path().trim_matches('/').is_empty() => format!("names no database at its end; {example}"),
        Ok(_) => return Some(Some(text.into())),
    };
    settings.problem_at("mysql.url", what);
    None
}
