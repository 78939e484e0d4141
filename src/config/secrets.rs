//! Reads the master key and the admin key. Neither has a value in the file.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use secrecy::SecretString;

use super::checked::MasterKeySource;
use super::paths;
use super::settings::Settings;

/// Shorter admin keys could be guessed; generated ones have 256 bits.
const ADMIN_KEY_MIN: usize = 32;
/// Different characters of an admin key: 32 random hexadecimal digits have fewer once in 25 million times.
const ADMIN_KEY_DIFFERENT: usize = 8;

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
    if let Some(weakness) = weakness(key.as_bytes()) {
        let what = format!(
            "{weakness}; make one with: openssl rand -base64 32. Or leave it unset: `waybill serve` and `waybill keys \
             create --scope admin` make keys of their own"
        );
        settings.problem("WAYBILL_ADMIN_KEY".to_owned(), what);
        return None;
    }
    Some(Some(key.as_str().into()))
}

/// Why a key could be guessed, if so. Never quotes it.
fn weakness(key: &[u8]) -> Option<String> {
    if !key.iter().all(u8::is_ascii_graphic) {
        return Some("needs visible ASCII characters, without spaces".to_owned());
    }
    if key.len() < ADMIN_KEY_MIN {
        return Some(format!("has {} characters, and needs at least {ADMIN_KEY_MIN}", key.len()));
    }
    let different = key.iter().collect::<BTreeSet<_>>().len();
    if different < ADMIN_KEY_DIFFERENT {
        return Some(format!("has {different} different characters, and needs at least {ADMIN_KEY_DIFFERENT}"));
    }
    let repeats = |period: usize| key.iter().skip(period).zip(key).all(|(later, earlier)| later == earlier);
    if (1..=key.len() / 2).any(repeats) {
        return Some("is a shorter text repeated".to_owned());
    }
    // Like 123, cba or 111. Of a random key few characters have such a neighbour; a quarter that have none is enough.
    let steps = key.iter().skip(1).zip(key).filter(|(next, last)| next.abs_diff(**last) <= 1).count();
    (steps * 4 > key.len() * 3).then(|| "is mostly a row of neighbouring characters, like abc or 111".to_owned())
}

#[cfg(test)]
mod tests {
    use super::weakness;

    #[test]
    fn an_admin_key_is_long_and_various() {
        for (key, why) in [
            ("password1234", "at least 32"),
            ("0123456789abcdef0123456789abcde", "at least 32"),
            ("a key of more than enough letters, but with spaces", "without spaces"),
            ("schl\u{fc}ssel-mit-mehr-als-zweiunddreissig", "ASCII"),
            ("passwordpasswordpasswordpassword", "different"),
            ("11111111111111111111111111111111", "different"),
            ("password1234password1234password1234", "repeated"),
            ("aaaabbbbccccddddeeeeffffgggghhhhiiii", "neighbouring"),
            ("abcdefghijklmnopqrstuvwxyz0123456789", "neighbouring"),
        ] {
            let found = weakness(key.as_bytes()).unwrap_or_else(|| panic!("{key} is accepted"));
            assert!(found.contains(why), "{key}: {found}");
        }
        for key in [
            "EWqkWlxQyvWcYRf8vDvgJl8yVJm4LMP0X0KJbUB0wXo=",
            "5f2d9b0c6a7e41d88c3b1a0f9e6d7c25",
            "3d5e9f7c-1a2b-4c8d-9e0f-6a7b8c9d0e1f",
            "an-admin-key-for-tests-0123456789abcdef",
            "exam-admin-key-0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(weakness(key.as_bytes()), None, "{key}");
        }
    }
}
