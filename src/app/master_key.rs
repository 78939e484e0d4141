//! Reads the master key from the environment or a file, which the first start creates.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::secret_file;
use crate::config::MasterKeySource;
use crate::config::exposure::exposure;
use crate::service::MasterKeyFiles;

/// Extension of a new key's file before it gets its name; the id of the process follows.
const TEMPORARY: &str = "key.new.";

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

/// The files of the master key and of the one that follows it.
pub(super) struct KeyFiles {
    source: MasterKeySource,
    next: PathBuf,
}

impl KeyFiles {
    pub(super) fn of(source: &MasterKeySource, data_dir: &Path) -> KeyFiles {
        let next = match source {
            MasterKeySource::File(path) => secret_file::beside(path, ".new"),
            MasterKeySource::Env(_) => secret_file::beside(data_dir, ".key.new"),
        };
        KeyFiles { source: source.clone(), next }
    }

    /// Removes the file of the next key where the environment holds that key by now.
    pub(super) fn forget_next(&self, key: &[u8; 32]) -> anyhow::Result<()> {
        if let MasterKeySource::Env(_) = &self.source
            && self.next()?.is_some_and(|next| *next == *key)
        {
            std::fs::remove_file(&self.next)?;
            secret_file::sync_folder(&self.next)?;
        }
        Ok(())
    }
}

impl MasterKeyFiles for KeyFiles {
    fn next(&self) -> anyhow::Result<Option<Zeroizing<[u8; 32]>>> {
        if let Some(what) = exposure(&self.next) {
            bail!("the file of the next master key opens all secrets, and {what}");
        }
        match std::fs::read_to_string(&self.next).map(Zeroizing::new) {
            Ok(text) => decode(&text).map(Some).with_context(|| format!("master key file {}", self.next.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("master key file {}", self.next.display())),
        }
    }

    fn next_or_new(&self) -> anyhow::Result<Zeroizing<[u8; 32]>> {
        match self.next()? {
            Some(next) => Ok(next),
            None => create(&self.next).with_context(|| {
                format!(
                    "the next master key needs the file {}, which cannot be made; make the folder writable",
                    self.next.display()
                )
            }),
        }
    }

    fn finish(&self) -> anyhow::Result<Option<String>> {
        remove_temporary(&self.next);
        match &self.source {
            MasterKeySource::File(path) => {
                let replaced = std::fs::rename(&self.next, path).and_then(|()| secret_file::sync_folder(path));
                match replaced {
                    // It took its place before a crash.
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    replaced => replaced
                        .map(|()| None)
                        .with_context(|| format!("{} to {}", self.next.display(), path.display())),
                }
            }
            MasterKeySource::Env(_) => Ok(Some(format!(
                "set WAYBILL_MASTER_KEY to the content of {next} before the next start, which then removes the file; the \
                 old key opens nothing any more",
                next = self.next.display()
            ))),
        }
    }
}

/// Removes what a crash left of making a key: a copy would outlive it.
fn remove_temporary(key: &Path) {
    let temporary = key.with_extension(TEMPORARY);
    let begin = temporary.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in std::fs::read_dir(secret_file::folder(key)).into_iter().flatten().flatten() {
        let is_left = entry
            .file_name()
            .to_string_lossy()
            .strip_prefix(begin.as_str())
            .is_some_and(|process| !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit()));
        if is_left && let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::warn!(%error, file = %entry.path().display(), "failed to remove a copy of the master key; remove it");
        }
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
    let fresh = path.with_extension(format!("{TEMPORARY}{}", std::process::id()));
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
