//! The master key: from the environment, or from a file that the first start makes.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::private;
use crate::config::MasterKeySource;

/// The key. A new file gets mode 0600 and is on the disk before anything is sealed with it.
///
/// # Errors
/// The file is unreadable or no key, or is missing although the store exists: a new key would open nothing.
pub(super) fn obtain(source: &MasterKeySource, data_dir: &Path) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    match source {
        MasterKeySource::Env(text) => given(text),
        MasterKeySource::File(path) => match read(path, data_dir)? {
            Some(key) => Ok(key),
            None => create(path).with_context(|| format!("master key file {}", path.display())),
        },
    }
}

/// Whether the key is there; if not, the first start makes its file.
///
/// # Errors
/// As [`obtain`].
pub(crate) fn is_made(source: &MasterKeySource, data_dir: &Path) -> anyhow::Result<bool> {
    match source {
        MasterKeySource::Env(text) => given(text).map(|_| true),
        MasterKeySource::File(path) => Ok(read(path, data_dir)?.is_some()),
    }
}

fn given(text: &SecretString) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    decode(text.expose_secret()).context("WAYBILL_MASTER_KEY")
}

/// None: there is no file, and nothing that was sealed with one.
fn read(path: &Path, data_dir: &Path) -> anyhow::Result<Option<Zeroizing<[u8; 32]>>> {
    match std::fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => decode(&text).map(Some).with_context(|| format!("master key file {}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if data_dir.join("sled").join("db").exists() {
                bail!(
                    "the master key file {} is missing, but {} holds data that was sealed with it; bring the file back",
                    path.display(),
                    data_dir.display()
                );
            }
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("master key file {}", path.display())),
    }
}

fn decode(text: &str) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).context("it must be 32 bytes in base64")?);
    let key: [u8; 32] = bytes.as_slice().try_into().context("it must be 32 bytes in base64")?;
    Ok(Zeroizing::new(key))
}

fn create(path: &Path) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *key).map_err(|error| anyhow::anyhow!("no random bytes from the system: {error}"))?;
    std::fs::create_dir_all(private::folder(path))?;
    // Under another name first: a crash in between must not leave half a key. And under one of its own: of two starts at
    // once one makes the key, and the other takes it.
    let fresh = path.with_extension(format!("key.new.{}", std::process::id()));
    private::write(&fresh, &Zeroizing::new(STANDARD.encode(*key)))?;
    match std::fs::hard_link(&fresh, path) {
        Ok(()) => std::fs::remove_file(&fresh)?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            std::fs::remove_file(&fresh)?;
            key = decode(&Zeroizing::new(std::fs::read_to_string(path)?))?;
        }
        // A file system without links.
        Err(_) => std::fs::rename(&fresh, path)?,
    }
    private::sync_folder(path)?;
    Ok(key)
}
