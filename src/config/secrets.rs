//! Reads the master key and the admin key. Neither has a value in the file.

use std::path::Path;

use base64::Engine as _;
use secrecy::SecretString;

use super::checked::MasterKeySource;
use super::paths;
use super::settings::Settings;

/// Shorter admin keys could be guessed; generated ones have 256 bits.
const ADMIN_KEY_MIN: usize = 12;

pub(super) fn master_key(
    settings: &mut Settings,
    data_dir: Option<&Path>,
    variable: Option<&String>,
) -> Option<MasterKeySource> {
    if let Some(key) = variable.filter(|key| !key.is_empty()) {
        let bytes = base64::engine::general_purpose::STANDARD.decode(key.trim()).map(|bytes| bytes.len());
        if bytes != Ok(32) {
            let what = "is not 32 bytes in base64; give the key that the data directory was made with, which no other key \
                        opens. For a new data directory make one with: head -c 32 /dev/urandom | base64";
            settings.problem("WAYBILL_MASTER_KEY".to_owned(), what.to_owned());
            return None;
        }
        return Some(MasterKeySource::Env(key.trim().into()));
    }
    let named = paths::file(settings, "master_key_file")?;
    // Beside the data directory, not in it: a copy of the data alone does not reveal the secrets.
    let beside = || {
        let mut name = data_dir?.file_name()?.to_os_string();
        name.push(".key");
        Some(data_dir?.with_file_name(name))
    };
    let file = match named {
        Some(file) => file,
        None => paths::unblocked(settings, "master_key_file", beside()?)?,
    };
    Some(MasterKeySource::File(file))
}

/// `Some(None)`: not set.
pub(super) fn admin_key(settings: &mut Settings, variable: Option<&String>) -> Option<Option<SecretString>> {
    let Some(key) = variable.filter(|key| !key.is_empty()) else { return Some(None) };
    if key.len() < ADMIN_KEY_MIN || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = format!(
            "needs at least {ADMIN_KEY_MIN} visible ASCII characters without spaces; make one with: head -c 32 /dev/urandom | base64"
        );
        settings.problem("WAYBILL_ADMIN_KEY".to_owned(), what);
        return None;
    }
    Some(Some(key.as_str().into()))
}
