//! Guards against using built-in parts with another marketplace.
//!
//! The built-in definitions, rate rules and login address are those of one marketplace. With another host they apply
//! only where the configuration names them. Loopback counts as a sandbox of the built-in one, except for the login
//! address: a sandbox has its own, and a real one must not get its secrets.

use url::Url;

use super::checked::SourceSettings;
use super::problem::ConfigProblem;
use super::settings::Settings;
use crate::catalog::{self, SourceDefaults};
use crate::domain::source_access::is_loopback;

const BASE: &str = "source.base_url";

/// Whether `source.base_url` is another marketplace than the built-in one.
pub(super) fn is_foreign(settings: &Settings, defaults: &SourceDefaults) -> bool {
    is_elsewhere(settings, defaults) && !base(settings, defaults).as_ref().is_some_and(is_loopback)
}

/// Whether `source.base_url` is another host than the built-in marketplace's.
fn is_elsewhere(settings: &Settings, defaults: &SourceDefaults) -> bool {
    let (Ok(ours), Some(url)) = (Url::parse(&defaults.base_url), base(settings, defaults)) else { return false };
    url.host() != ours.host()
}

fn base(settings: &Settings, defaults: &SourceDefaults) -> Option<Url> {
    Url::parse(&settings.text(BASE, &defaults.base_url)).ok()
}

/// Why nothing can be synced: the default resources belong to the built-in marketplace.
pub(super) fn unnamed(settings: &mut Settings, defaults: &SourceDefaults) -> Option<ConfigProblem> {
    if settings.is_set("resources") || !is_foreign(settings, defaults) {
        return None;
    }
    let what = format!(
        "`resources` is not set, and its default, {}, is for {}; name what to sync from this host, like \
         resources = [\"things\"]",
        catalog::RESOURCES_DEFAULT.join(", "),
        defaults.base_url
    );
    Some(settings.problem_with(BASE, what))
}

/// Refuses a login address or an authentication scheme that belongs to the other marketplace.
pub(super) fn check_login(settings: &mut Settings, source: &SourceSettings, defaults: &SourceDefaults) {
    let has_logins = source.auth.has_logins();
    if has_logins && !settings.is_set("source.token_url") && is_elsewhere(settings, defaults) {
        let what = format!(
            "source.token_url is not set, so the client secrets would go to {}; name the token address of this host, or \
             another source.auth",
            defaults.token_url
        );
        settings.problem_at(BASE, what);
    }
    if !has_logins && !settings.is_set(BASE) {
        let what = format!(
            "{} accepts client credentials only; name the host that accepts this with source.base_url",
            defaults.base_url
        );
        settings.problem_at("source.auth", what);
    }
}
