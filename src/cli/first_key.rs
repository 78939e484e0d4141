//! The file with the admin key of a first start: removed as soon as it is not needed any more, so that no backup of the
//! folder holds a key for a year.

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use zeroize::Zeroizing;

use crate::domain::{Clock, Timestamp};
use crate::service::{KeyView, Service};

/// Content of the file while there is no key in it.
pub(super) const PLACEHOLDER: &str = "not made yet";
/// The name of keys that a start made.
pub(super) const MADE_AT_START: &str = "made at a start";
/// How long the file stays after it was written, once its key is in use.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What is printed where the file is named.
pub(super) const ADVICE: &str = "copy the key to a safe place: this file is removed once there is another admin key, or, \
                                 after a day, once the key was used";

/// The file, and what its fate depends on.
pub(super) struct FirstKey {
    pub(super) service: Service,
    pub(super) file: PathBuf,
    /// The configuration has an admin key.
    pub(super) is_configured: bool,
}

impl FirstKey {
    /// Removes the file when it is time, as long as the service runs.
    pub(super) async fn watch(&self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.retire();
        }
    }

    /// Removes the file if it is not needed any more.
    pub(super) fn retire(&self) {
        let file = self.file.display();
        match self.obsolete(Clock::system().now()) {
            Ok(None) => {}
            Ok(Some(why)) => match fs::remove_file(&self.file) {
                Ok(()) => {
                    tracing::info!(%file, why, "removed the file with the admin key of a start; the key itself stays");
                }
                Err(error) => {
                    tracing::warn!(%file, why, %error, "failed to remove the file with the admin key of a start");
                }
            },
            Err(error) => tracing::debug!(%file, error = format!("{error:#}"), "failed to look at the admin key file"),
        }
    }

    /// Why the file is not needed any more. None: it is, or there is none.
    fn obsolete(&self, now: Timestamp) -> anyhow::Result<Option<&'static str>> {
        let Ok(text) = fs::read_to_string(&self.file).map(Zeroizing::new) else { return Ok(None) };
        let text = text.trim_end();
        if text == PLACEHOLDER {
            return Ok(None);
        }
        let Some(own) = self.service.find_key(text)? else { return Ok(Some("its key is not valid any more")) };
        if self.is_configured {
            return Ok(Some("the configuration has an admin key"));
        }
        // Keys that other starts made may have been shown to no one.
        let is_other = |view: &KeyView| view.key.name != MADE_AT_START && view.administers_at(now);
        if self.service.list_keys()?.iter().any(is_other) {
            return Ok(Some("there is another admin key"));
        }
        let written = fs::metadata(&self.file).and_then(|found| found.modified()).context("its age")?;
        let is_old = written.elapsed().is_ok_and(|age| age >= KEPT);
        Ok((is_old && own.last_used_at.is_some()).then_some("its key is in use for a day"))
    }
}
