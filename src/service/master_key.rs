//! Rotation of the master key: online, and resumed after a crash.
//!
//! Its steps: the next key is in a file of its own; the store wraps its data keys by it, in one replacement; the rows of
//! `waybill_shops` are sealed again; the next key takes the place of the old one. Nothing notes how far it came: the
//! store and each row say which key they need, and the file of the next key is there until the end.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::RETRY_AFTER;
use super::rotation_state::{MasterKeyFiles, MasterKeyView, RotationView};
use super::{Service, ServiceError};
use crate::domain::Shop;
use crate::sink::{Mysql, Sink};
use crate::store::master_key_id;

/// Rows sealed again in one transaction.
const ROWS_AT_ONCE: usize = 100;
/// Pause before rows that the outbox has yet to write are looked at again, and between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

impl Service {
    /// The master key in use, and how far its rotation is.
    pub fn master_key(&self) -> MasterKeyView {
        let known = self.rotation.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let to_do = self.rotation.to_do.lock().unwrap_or_else(PoisonError::into_inner).clone();
        MasterKeyView { id: self.store.master_key_id(), rotation: known, to_do }
    }

    /// Rotates the master key while the service runs: begins, and finishes in the background. Does nothing while a
    /// rotation is under way.
    ///
    /// # Errors
    /// As [`Service::begin_rotation`].
    pub async fn rotate_master_key(&self) -> Result<MasterKeyView, ServiceError> {
        if self.master_key().rotation.is_none() {
            self.begin_rotation().await?;
            let finishing = self.clone().finish_rotation_later(self.closing.clone());
            tokio::spawn(self.store.supervisor().supervise("the rotation of the master key", finishing));
        }
        Ok(self.master_key())
    }

    /// Begins a rotation, or goes on with one that was cut off: the data keys are wrapped by the next key when this
    /// returns. [`Service::finish_rotation`] does the rest.
    ///
    /// # Errors
    /// `Conflict` until the shops of MySQL are restored: their rows need the old key. `Unavailable`: the next key can be neither read nor made, or the data keys could not be written.
    pub async fn begin_rotation(&self) -> Result<(), ServiceError> {
        let _turn = self.rotation.turn.lock().await;
        if self.waits_for_restore()? {
            let what =
                "the shops of MySQL are not restored yet, and need the present master key; see GET /api/v1/status";
            return Err(ServiceError::Conflict(what.into()));
        }
        let next = self.with_key_files(|files| files.next_or_new()).await?;
        let (from, to) = (self.store.master_key_id(), master_key_id(&next));
        self.rotation.set(Some(RotationView::default()));
        *self.rotation.to_do.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(error) = self.store.rotate_master(&next).await {
            self.rotation.set(None);
            return Err(error.into());
        }
        tracing::warn!(
            from,
            to,
            "the data keys are wrapped by the next master key; the old one does not open the data directory any more"
        );
        Ok(())
    }

    /// Whether MySQL may have shops that only the present master key restores.
    fn waits_for_restore(&self) -> Result<bool, ServiceError> {
        Ok(matches!(self.sink, Sink::Mysql(_)) && self.store.is_blank()?)
    }

    /// Seals the rows of MySQL again and puts the next key in the place of the old one. False: some rows have to be
    /// written from the outbox first, or their shops restored.
    ///
    /// # Errors
    /// `Unavailable` while MySQL cannot be written, or the file of the key cannot be replaced.
    pub async fn finish_rotation(&self) -> Result<bool, ServiceError> {
        let _turn = self.rotation.turn.lock().await;
        if self.waits_for_restore()? {
            return Ok(false);
        }
        if let Sink::Mysql(mysql) = &self.sink
            && mysql.has_mirror().await?
            && self.reseal_rows(mysql).await? > 0
        {
            return Ok(false);
        }
        let to_do = self.with_key_files(|files| files.finish()).await?;
        self.store.also_open_with(None);
        self.rotation.set(None);
        tracing::warn!(id = self.store.master_key_id(), "the master key is rotated");
        if let Some(to_do) = &to_do {
            tracing::warn!("{to_do}");
        }
        *self.rotation.to_do.lock().unwrap_or_else(PoisonError::into_inner) = to_do;
        Ok(true)
    }

    /// Finishes a rotation in the background, until it is over or the process ends.
    pub(crate) async fn finish_rotation_later(self, stop: CancellationToken) {
        let mut reported = false;
        self.rotation.begin();
        loop {
            match self.finish_rotation().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    if !std::mem::replace(&mut reported, true) {
                        tracing::warn!(%error, "the rotation of the master key waits; trying again");
                    }
                    let mut view = self.rotation.view.lock().unwrap_or_else(PoisonError::into_inner);
                    view.get_or_insert_default().error = Some(error.to_string());
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Seals rows of MySQL under the master key in use; how many are left. Those of shops that are not known here, or
    /// whose secret is damaged, stay.
    async fn reseal_rows(&self, mysql: &Mysql) -> Result<u64, ServiceError> {
        let rows = mysql.shops().await?;
        let (mut stale, mut left, mut foreign) = (Vec::<(Shop, Vec<u8>)>::new(), 0, 0_u64);
        let count = rows.len() as u64;
        for row in rows.into_iter().filter(|row| !self.store.is_sealed_with_master(&row.sealed)) {
            match self.store.mirror_row(&row.shop.id)? {
                Some((shop, sealed)) if shop.updated_at == row.shop.updated_at => stale.push((shop, sealed)),
                // The outbox holds a later change of it.
                Some(_) => left += 1,
                None => foreign += 1,
            }
        }
        let mut done = 0;
        for some in stale.chunks(ROWS_AT_ONCE) {
            self.rotation
                .set(Some(RotationView { rows: Some((count, left + stale.len() as u64 - done)), error: None }));
            done += mysql.reseal_shops(some).await?;
        }
        let left = left + (stale.len() as u64).saturating_sub(done);
        self.rotation.set(Some(RotationView { rows: Some((count, left)), error: None }));
        if foreign > 0 && left == 0 {
            tracing::warn!(
                rows = foreign,
                "rows of waybill_shops that cannot be read stay sealed with the old master key"
            );
        }
        Ok(left)
    }

    async fn with_key_files<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn MasterKeyFiles) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let files = Arc::clone(&self.key_files);
        let unavailable = |detail| ServiceError::Unavailable { detail, retry_after: RETRY_AFTER };
        match tokio::task::spawn_blocking(move || ask(&*files)).await {
            Ok(answer) => answer.map_err(|error| unavailable(format!("{error:#}"))),
            Err(_) => Err(unavailable("the master key could not be read".to_owned())),
        }
    }
}
