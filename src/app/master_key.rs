//! Reads the master key from the environment or a file, which the first start creates.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::secret_file;
use crate::config::MasterKeySource;
use crate::config::exposure::exposure;

/// Reads or creates the key. A new file has mode 0600 and is durable before anything is sealed with it.
///
/// # Errors
/// The file is unreadable, invalid or open to other users, or is missing although the store exists: a new key could decrypt nothing.
pub(super) fn obtain(source: &MasterKeySource, data_dir: &Path) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    match source {
        MasterKeySource::Env(text) => given(text),
        MasterKeySource::File(path) => match read(path, data_dir)? {
            Some(key) => Ok(key),
            None => create(path).with_context(|| format!("master key file {}", path.display())),
        },
    }
}

/// Whether the key exists; if not, the first start creates its file.
///
/// # Errors
/// As [`obtain`].
pub(crate) fn is_made(source: &MasterKeySource, data_dir: &Path) -> anyhow::Result<bool> {
    Ok(existing(source, data_dir)?.is_some())
}

/// The key, if it exists.
///
/// # Errors
/// As [`obtain`].
pub(super) fn existing(source: &MasterKeySource, data_dir: &Path) -> anyhow::Result<Option<Zeroizing<[u8; 32]>>> {
    match source {
        MasterKeySource::Env(text) => given(text).map(Some),
        MasterKeySource::File(path) => read(path, data_dir),
    }
}

fn given(text: &SecretString) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    decode(text.expose_secret()).context("WAYBILL_MASTER_KEY")
}

/// Reads the key file. None: there is no file, and no sealed data.
fn read(path: &Path, data_dir: &Path) -> anyhow::Result<Option<Zeroizing<[u8; 32]>>> {
    if let Some(what) = exposure(path) {
        bail!("the master key file opens all secrets, and {what}");
    }
    match std::fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => decode(&text).map(Some).with_context(|| format!("master key file {}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if data_dir.join("sled").join("db").exists() {
                bail!(
                    "the master key file {} is missing, but {} holds data that is sealed with it; restore the file",
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
    getrandom::fill(&mut *key).map_err(|error| anyhow::anyhow!("the system provides no random bytes: {error}"))?;
    std::fs::create_dir_all(secret_file::folder(path))?;
    // Written under a temporary name, so that a crash leaves no partial key. The name has the process id: of two
    // concurrent starts one creates the key and the other reads it.
    let fresh = path.with_extension(format!("key.new.{}", std::process::id()));
    secret_file::write(&fresh, &Zeroizing::new(STANDARD.encode(*key)))?;
    match std::fs::hard_link(&fresh, path) {
        Ok(()) => std::fs::remove_file(&fresh)?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            std::fs::remove_file(&fresh)?;
            key = decode(&Zeroizing::new(std::fs::read_to_string(path)?))?;
        }
        // The file system has no hard links.
        Err(_) => std::fs::rename(&fresh, path)?,
    }
    secret_file::sync_folder(path)?;
    Ok(key)
}
