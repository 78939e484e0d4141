//! Reads `[source]`: the addresses of the marketplace, how its calls are authenticated, and limits over all shops.

use super::checked::SourceSettings;
use super::settings::Settings;
use crate::catalog::{self, SourceDefaults};
use crate::domain::{Auth, AuthScheme, SourceUrl};

/// Enough to keep a thousand accounts at their limits with answers of a quarter second; one shop uses a quarter of it
/// at most.
const IN_FLIGHT_MAX_DEFAULT: u64 = 256;
/// Zero: no global limit, only the rate rules of each account.
const CALLS_PER_SECOND_DEFAULT: u64 = 0;
/// The login host blocks addresses that request tokens too often.
const LOGINS_PER_SECOND_DEFAULT: u64 = 5;

pub(super) fn source(settings: &mut Settings, defaults: &SourceDefaults) -> Option<SourceSettings> {
    let base_url = address(settings, "source.base_url", &defaults.base_url);
    let token_url = address(settings, "source.token_url", &defaults.token_url);
    let in_flight_max = settings.bounded("source.in_flight_max", IN_FLIGHT_MAX_DEFAULT, 1..=10_000);
    let calls = settings.bounded("source.calls_per_second", CALLS_PER_SECOND_DEFAULT, 0..=1_000_000);
    let auth = auth(settings);
    let logins = settings.bounded("source.logins_per_second", LOGINS_PER_SECOND_DEFAULT, 1..=1_000);
    Some(SourceSettings {
        base_url: base_url?,
        token_url: token_url?,
        auth: auth?,
        in_flight_max: usize::try_from(in_flight_max?).ok()?,
        calls_per_second: u32::try_from(calls?).ok().filter(|calls| *calls > 0),
        logins_per_second: u32::try_from(logins?).ok()?,
    })
}

fn auth(settings: &mut Settings) -> Option<Auth> {
    let names: Vec<&str> = AuthScheme::ALL.iter().map(|scheme| scheme.name()).collect();
    let text = settings.text("source.auth", Auth::default().scheme().name());
    let header = settings.text("source.api_key_header", "");
    let Some(scheme) = AuthScheme::ALL.iter().find(|scheme| scheme.name() == text) else {
        let hint = catalog::did_you_mean(&text, names.iter().copied());
        settings.problem_at("source.auth", format!("`{text}` is unknown{hint} There are {}", names.join(", ")));
        return None;
    };
    if *scheme != AuthScheme::ApiKey && !header.is_empty() {
        settings.problem_at("source.api_key_header", "needs auth = \"api-key\"");
        return None;
    }
    match scheme {
        AuthScheme::ClientCredentials => Some(Auth::ClientCredentials),
        AuthScheme::Basic => Some(Auth::Basic),
        AuthScheme::Bearer => Some(Auth::Bearer),
        AuthScheme::ApiKey => {
            let is_name = !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            let ours = ["host", "accept", "content-length", "connection", "user-agent", "accept-encoding"];
            if is_name && !ours.contains(&header.to_ascii_lowercase().as_str()) {
                return Some(Auth::ApiKey(header));
            }
            let what = match header.as_str() {
                "" => "auth = \"api-key\" needs the name of the header that takes the key".to_owned(),
                header if is_name => format!("`{header}` is reserved; name the header that takes the key"),
                header => format!("`{header}` is not a header name (letters, digits and -)"),
            };
            settings.problem_at("source.api_key_header", format!("{what}, like \"X-Api-Key\""));
            None
        }
    }
}

fn address(settings: &mut Settings, key: &str, default: &str) -> Option<SourceUrl> {
    settings.parsed(key, default, |text| SourceUrl::parse(text, default))
}
