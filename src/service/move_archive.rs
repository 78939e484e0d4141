//! Moves the documents of the embedded archive to MySQL, when a store that had no MySQL gets one.
//!
//! Runs beside everything else, and ends when MySQL has all of them. Makes no call to the API, so it also moves what the API
//! no longer has. What is on the disk says what is left: a new process goes on where the last one ended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Service;
use crate::sink::Sink;
use crate::store::{StoreError, blocking};

/// The move pauses while the outbox holds more, so that new documents do not wait long behind old ones.
const OUTBOX_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Pause between two looks for room in the outbox, in case no notification arrives.
const ROOM_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a failure of the store.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

impl Service {
    /// Checks whether the archive has documents for MySQL. Until they are moved, the service is not idle.
    pub(crate) fn look_at_archive(&self) -> Result<(), StoreError> {
        if !matches!(self.sink, Sink::Mysql(_)) {
            return Ok(());
        }
        if self.store.has_archived(&self.resources())? {
            self.archive_move.is_running.store(true, Ordering::Relaxed);
        }
        let left = self.store.archived_resources_but(&self.resources())?;
        if !left.is_empty() {
            tracing::warn!(
                resources = left.join(", "),
                "the embedded archive has documents of resources that are not configured: they do not move to MySQL, and no \
                 command shows them; add these resources to `resources` to have them moved at the next start"
            );
        }
        Ok(())
    }

    /// Whether documents of the archive are not in MySQL yet.
    pub(super) fn is_moving_archive(&self) -> bool {
        self.archive_move.is_running.load(Ordering::Relaxed)
    }

    /// Documents that still have to reach MySQL.
    pub(super) fn archive_left(&self) -> u64 {
        let waiting = self.store.counters().map_or(0, |counters| counters.outbox);
        self.archive_move.left.load(Ordering::Relaxed) + waiting
    }

    /// Documents of the archive that this process has moved to MySQL; at least, while others wait in the outbox.
    pub fn archive_moved(&self) -> u64 {
        let moved = self.archive_move.moved.load(Ordering::Relaxed);
        if !self.is_moving_archive() {
            return moved;
        }
        moved.saturating_sub(self.store.counters().map_or(u64::MAX, |counters| counters.outbox))
    }

    /// The names of all configured resources.
    fn resources(&self) -> Vec<String> {
        self.definitions.iter().map(|definition| definition.name.clone()).collect()
    }

    /// Moves all archived documents to MySQL, then ends.
    pub(crate) async fn move_archive(self, stop: CancellationToken) {
        if !self.is_moving_archive() {
            return;
        }
        let (store, resources) = (self.store.clone(), self.resources());
        match blocking(move || store.count_archived(&resources)).await {
            Ok(count) => {
                self.archive_move.left.store(count, Ordering::Relaxed);
                tracing::info!(
                    documents = count,
                    "moving the documents of the embedded archive to MySQL, without calls to the API"
                );
            }
            Err(error) => error.warn("failed to count the documents of the embedded archive; moving them to MySQL"),
        }
        let Some(last_record) = self.move_all(&stop).await else { return };
        while self.is_in_outbox(last_record) {
            if self.pause(&stop, ROOM_PAUSE).await {
                return;
            }
        }
        tracing::info!(documents = self.archive_moved(), "moved the documents of the embedded archive to MySQL");
        self.archive_move.is_running.store(false, Ordering::Relaxed);
        // Watchers of idleness look again.
        self.store.signals().progress.notify_waiters();
        self.store.signals().changed.notify_one();
    }

    /// Moves everything to the outbox; returns the record of the last document. None: stopped.
    async fn move_all(&self, stop: &CancellationToken) -> Option<u64> {
        let (mut last_record, room) = (0, OUTBOX_BYTES_MAX.min(self.outbox_bytes_max / 2));
        let resources = self.resources();
        loop {
            // What left the archive would wait in the outbox, and nothing would say that it is not in MySQL.
            if self.is_sink_away() || self.store.outbox_bytes().unwrap_or(u64::MAX) > room {
                if self.pause(stop, ROOM_PAUSE).await {
                    return None;
                }
                continue;
            }
            if stop.is_cancelled() {
                return None;
            }
            match self.store.move_archived(&resources).await {
                Ok(moved) => {
                    last_record = last_record.max(moved.last_record);
                    self.archive_move.moved.fetch_add(moved.count, Ordering::Relaxed);
                    let left = self.archive_move.left.load(Ordering::Relaxed).saturating_sub(moved.count);
                    self.archive_move.left.store(left, Ordering::Relaxed);
                    if moved.is_last {
                        return Some(last_record);
                    }
                }
                Err(error) => {
                    error.warn("failed to move documents of the embedded archive; trying again");
                    if self.pause(stop, FAILED_PAUSE).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Whether the outbox still has an entry of this record or of an older one.
    fn is_in_outbox(&self, record: u64) -> bool {
        match self.store.outbox_positions(1, 1) {
            Ok(first) => first.first().is_some_and(|first| first.record() <= record),
            Err(_) => true,
        }
    }

    /// Waits until work has moved along, at most `time`; returns true if the process stops.
    async fn pause(&self, stop: &CancellationToken, time: Duration) -> bool {
        let progress = self.store.signals().progress.notified();
        tokio::select! {
            () = stop.cancelled() => true,
            () = progress => false,
            () = tokio::time::sleep(time) => false,
        }
    }
}
