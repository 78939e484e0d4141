//! The writer: outbox -> sink -> acknowledge. The only task that writes documents to the sink.
//!
//! It reads a batch, writes it in one transaction and acknowledges it after the commit. The class of a failure decides
//! what happens next: repeat, reconnect, wait, or bisect the batch to find the refused document and park it. Nothing
//! is dropped, and no failure stops the task.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Mysql, SinkError, SinkErrorClass};
use crate::domain::{Backoff, Entry, LogThrottle};
use crate::store::{IndexCheck, OutboxItem, OutboxPosition, Store, StoreError, blocking};
use crate::supervisor::{OWNERSHIP, describe_join_error};

/// Entries per transaction: beyond a few hundred the server gains nothing.
const BATCH_MAX: usize = 128;
/// Stored bytes per batch; decrypted and decompressed they are several times as large.
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Attempts of a transaction that loses races before it is split in half.
const REPEATS_MAX: u32 = 5;
/// The same for the halves: each attempt may wait for a row lock of another client.
const REPEATS_OF_PART_MAX: u32 = 2;
/// Connections that the same batch may lose, while the server answers pings in between, before it is suspected.
const SUSPECT_AFTER: u32 = 2;
/// How often a document on its own must come under suspicion before it is parked. A link that drops every other
/// connection suspects an innocent document once in eight tries, so parks one in ten million.
const SUSPICIONS_MAX: u32 = 8;
/// Short enough in the end to find a server that takes over an address within ten seconds.
const RECONNECT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(8));
const NO_ROOM_PAUSE: Duration = Duration::from_secs(30);
const OPERATOR_PAUSE: Duration = Duration::from_secs(15);
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How many times as long as a step of the indexing takes, it rests after it.
const INDEX_RESTS: u32 = 3;
const LEFT_PAUSE: Duration = Duration::from_secs(2);

/// What the health says while calls wait for MySQL, and the writer has no trouble with it.
const CALLS_WAIT: &str = "it has not confirmed in time that this process is the one that calls; calls wait for it, too";

/// State of the sink, for the status page.
#[derive(Clone, Debug, Default)]
pub struct SinkHealth(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    last: Mutex<LastAnswer>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct LastAnswer {
    /// How often it became healthy.
    recoveries: u64,
    /// Whether the sink has answered or failed at least once.
    is_known: bool,
    error: Option<String>,
    /// Calls wait until MySQL confirms that this process owns the schema.
    calls_wait: bool,
}

impl SinkHealth {
    /// The last failure, until a write succeeds; else that calls wait, if they do.
    pub fn error(&self) -> Option<String> {
        let state = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        state.error.clone().or_else(|| state.calls_wait.then(|| CALLS_WAIT.to_owned()))
    }

    /// Sets whether calls wait until MySQL confirms that this process owns the schema. The end counts as a recovery: MySQL
    /// may have been restored from a backup meanwhile.
    pub fn set_calls_wait(&self, calls_wait: bool) {
        let mut state = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut state.calls_wait, calls_wait) == calls_wait {
            return;
        }
        state.recoveries += u64::from(!calls_wait);
        self.0.changed.notify_one();
    }

    /// Whether the sink has answered or failed since the start; until then its health is unknown.
    pub fn is_known(&self) -> bool {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).is_known
    }

    /// How often the sink became healthy since the start: the first answer counts, and the end of each outage.
    pub fn recoveries(&self) -> u64 {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).recoveries
    }

    /// Records the result of a call made outside the writer: for sinks without a writer, and while it waits.
    pub fn note(&self, error: Option<String>) {
        self.set(error);
    }

    /// Sets or clears the failure; returns true if the sink changed between healthy and failing.
    fn set(&self, error: Option<String>) -> bool {
        let mut state = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        let news = state.error.is_some() != error.is_some();
        let is_same = state.is_known && state.error == error;
        let has_recovered = error.is_none() && (news || !state.is_known);
        let recoveries = state.recoveries + u64::from(has_recovered);
        *state = LastAnswer { is_known: true, error, recoveries, ..*state };
        if !is_same {
            self.0.changed.notify_one();
        }
        news
    }

    /// Waits until the state changes after the last call. For a single waiter. Cancel safe.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

/// Moves documents into the embedded archive, and keeps its index, until stopped.
pub async fn run_archive(store: Store, stop: CancellationToken) {
    while let Err(error) = store.begin_index().await {
        error.warn("the index of the archive could not be begun; trying again");
        if pause(&stop, STORE_PAUSE).await {
            return;
        }
    }
    tokio::join!(move_documents(&store, &stop), keep_index(&store, &stop));
}

/// Indexes what was archived without an index, and sorts the index when it has grown.
async fn keep_index(store: &Store, stop: &CancellationToken) {
    check_index(store, stop).await;
    loop {
        let begun = Instant::now();
        let rest = match store.index_some().await {
            // Beside all other work.
            Ok(true) => begun.elapsed() * INDEX_RESTS,
            Ok(false) => {
                for (resource, shop) in store.grown_indexes() {
                    if let Err(error) = store.merge_index(&resource, &shop).await {
                        error.warn("the index of the archive could not be sorted; it is tried again when it has grown");
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = store.signals().indexed.notified() => {}
                }
                continue;
            }
            Err(error) => {
                error.warn("archived documents could not be indexed; trying again");
                STORE_PAUSE
            }
        };
        if pause(stop, rest).await {
            return;
        }
    }
}

/// Finds documents that an earlier build archived since this one last ran.
async fn check_index(store: &Store, stop: &CancellationToken) {
    let mut next = Some(IndexCheck::default());
    while let Some(from) = next {
        let begun = Instant::now();
        next = store.check_index(from).await.unwrap_or_else(|error| {
            error.warn("the index of the archive could not be checked; the next start does it");
            None
        });
        if pause(stop, begun.elapsed() * INDEX_RESTS).await {
            return;
        }
    }
}

async fn move_documents(store: &Store, stop: &CancellationToken) {
    store.archive_when_settling();
    loop {
        let positions = store.outbox_positions(BATCH_MAX, BATCH_BYTES_MAX).unwrap_or_default();
        if positions.is_empty() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = store.signals().outbox.notified() => {}
            }
            continue;
        }
        if let Err(error) = store.archive(positions).await {
            error.warn("documents could not be archived; trying again");
            if pause(stop, STORE_PAUSE).await {
                return;
            }
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Writes documents to MySQL until stopped. While one batch is written, the next is decrypted and the previous one
/// acknowledged, so that the server, the slow part, never waits.
/// Writes no document before `sink_checked` is cancelled: before the first check of the sink is over, since a new
/// checkpoint would hide that the database is an older one.
pub async fn run_mysql(
    store: Store,
    mysql: Arc<Mysql>,
    health: SinkHealth,
    sink_checked: CancellationToken,
    stop: CancellationToken,
) {
    let acknowledging = JoinSet::new();
    let suspects = BTreeMap::new();
    let refusals = BTreeMap::new();
    let mut writer = Writer {
        store,
        mysql,
        health,
        stop,
        prepared: false,
        fenced: false,
        acknowledging,
        left_behind: false,
        suspects,
        refusals,
    };
    // Prepare the tables now, not with the first batch: queries may use new columns before anything is written.
    writer.write_part(&[], REPEATS_MAX).await;
    tokio::select! {
        () = writer.stop.cancelled() => {}
        () = sink_checked.cancelled() => {}
    }
    let mut batch = Vec::new();
    while !writer.stop.is_cancelled() && !writer.fenced {
        if batch.is_empty() {
            batch = writer.next_from_start().await;
            continue;
        }
        let last = batch.last().map(|item: &OutboxItem| item.position);
        let next = tokio::spawn(read(writer.store.clone(), last));
        writer.write_batch(batch).await;
        batch = writer.opened(next.await).await;
    }
    writer.acknowledged().await;
}

struct Writer {
    store: Store,
    mysql: Arc<Mysql>,
    health: SinkHealth,
    stop: CancellationToken,
    /// The tables match the definitions.
    prepared: bool,
    /// Another process has taken over; nothing is written any more.
    fenced: bool,
    /// Acknowledgement of at most one committed batch; yields whether the store accepted it.
    acknowledging: JoinSet<bool>,
    /// Some entry was deferred (it lost every race, or is suspected) and is still in the outbox.
    left_behind: bool,
    /// Entries that lost their connection when written alone, with the number of times. They are tried after the
    /// others.
    suspects: BTreeMap<OutboxPosition, u32>,
    /// Throttles the warnings about refused documents, by class.
    refusals: BTreeMap<SinkErrorClass, LogThrottle>,
}

/// Decrypts the outbox entries after a position, on a blocking thread.
async fn read(store: Store, after: Option<OutboxPosition>) -> Result<Vec<OutboxItem>, StoreError> {
    blocking(move || store.outbox_batch(after, BATCH_MAX, BATCH_BYTES_MAX)).await
}

impl Writer {
    /// Reads the oldest entries; waits if there are none. Entries whose acknowledgement failed are read again.
    async fn next_from_start(&mut self) -> Vec<OutboxItem> {
        self.acknowledged().await;
        if std::mem::take(&mut self.left_behind) {
            pause(&self.stop, LEFT_PAUSE).await;
        }
        let batch = self.opened(Ok(read(self.store.clone(), None).await)).await;
        if batch.is_empty() {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.store.signals().outbox.notified() => {}
            }
        }
        batch
    }

    async fn opened(&self, read: Result<Result<Vec<OutboxItem>, StoreError>, JoinError>) -> Vec<OutboxItem> {
        let error = match read {
            Ok(Ok(batch)) => return batch,
            Ok(Err(error)) => error.to_string(),
            Err(error) => describe_join_error(&error).to_owned(),
        };
        tracing::warn!(error, "the outbox could not be read; trying again");
        pause(&self.stop, STORE_PAUSE).await;
        Vec::new()
    }

    /// Writes a batch, bisecting it where necessary, until every entry is written, deferred or parked, or the writer
    /// is stopped.
    async fn write_batch(&mut self, batch: Vec<OutboxItem>) {
        let (suspected, others): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|item| self.suspects.contains_key(&item.position));
        let mut left: Vec<_> = suspected.into_iter().map(|one| (vec![one], REPEATS_OF_PART_MAX)).collect();
        if !others.is_empty() {
            left.push((others, REPEATS_MAX));
        }
        while let Some((part, repeats_max)) = left.pop() {
            match self.write_part(&part, repeats_max).await {
                PartResult::Written => self.acknowledge(&part).await,
                PartResult::GivenUp { error, attempts } => {
                    if let [one] = part.as_slice() {
                        self.give_up(one, &error, attempts).await;
                    } else {
                        let mut first = part;
                        let second = first.split_off(first.len() / 2);
                        left.push((second, REPEATS_OF_PART_MAX));
                        left.push((first, REPEATS_OF_PART_MAX));
                    }
                }
                PartResult::Stopped => return,
            }
        }
    }

    async fn write_part(&mut self, part: &[OutboxItem], repeats_max: u32) -> PartResult {
        let entries: Vec<&Entry> = part.iter().filter_map(|item| item.entry.as_ref()).collect();
        let (mut attempts, mut repeats, mut lost, mut failures) = (0, 0, 0, 0);
        loop {
            attempts += 1;
            let error = match self.attempt(&entries).await {
                Ok(()) => {
                    if self.health.set(None) {
                        tracing::info!("the sink takes documents again");
                    }
                    return PartResult::Written;
                }
                Err(error) => error,
            };
            let wait = match error.class {
                SinkErrorClass::Poison => return PartResult::GivenUp { error, attempts },
                SinkErrorClass::Repeat | SinkErrorClass::Unknown => {
                    repeats += 1;
                    if repeats >= repeats_max {
                        return PartResult::GivenUp { error, attempts };
                    }
                    Duration::from_millis(fastrand::u64(10..200))
                }
                SinkErrorClass::Disconnected | SinkErrorClass::Unconfirmed | SinkErrorClass::Unavailable => {
                    // A document too large for a proxy in between can look like a lost connection. One that reached
                    // the commit, was never sent, or met a server that takes no work is not the cause. An unreachable
                    // server is pinged once per attempt.
                    if error.class == SinkErrorClass::Disconnected {
                        lost += u32::from(self.mysql.ping().await.is_ok());
                    }
                    if lost > SUSPECT_AFTER {
                        return PartResult::GivenUp { error, attempts };
                    }
                    let pause = RECONNECT_BACKOFF.pause(failures);
                    failures += 1;
                    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
                }
                SinkErrorClass::NoRoom => NO_ROOM_PAUSE,
                SinkErrorClass::Fenced => {
                    self.fenced = true;
                    tracing::error!(error = error.text, "the sink refuses this process");
                    self.health.set(Some(error.text));
                    self.store.supervisor().part_failed(OWNERSHIP);
                    return PartResult::Stopped;
                }
                SinkErrorClass::Operator => {
                    self.prepared = false;
                    OPERATOR_PAUSE
                }
            };
            if self.health.set(Some(error.text.clone())) {
                tracing::warn!(error = error.text, class = ?error.class, "the sink takes no documents; they wait in the outbox");
            }
            if pause(&self.stop, wait).await {
                return PartResult::Stopped;
            }
        }
    }

    async fn attempt(&mut self, entries: &[&Entry]) -> Result<(), SinkError> {
        if !self.prepared {
            self.mysql.prepare().await.map_err(SinkError::before_documents)?;
            self.prepared = true;
        }
        if entries.is_empty() { Ok(()) } else { self.mysql.write(entries).await }
    }

    /// Starts to acknowledge a part, after the previous acknowledgement has finished.
    async fn acknowledge(&mut self, part: &[OutboxItem]) {
        self.acknowledged().await;
        for item in part {
            self.suspects.remove(&item.position);
        }
        let positions = part.iter().map(|item| item.position).collect();
        let store = self.store.clone();
        self.acknowledging.spawn(async move {
            let acknowledged = store.acknowledge(positions).await;
            if let Err(error) = &acknowledged {
                error.warn("written documents could not be acknowledged; they are written again, which does no harm");
            }
            acknowledged.is_ok()
        });
    }

    /// Waits for the acknowledgement in progress. Pauses after a failed one, because its entries will be written
    /// again.
    async fn acknowledged(&mut self) {
        while let Some(done) = self.acknowledging.join_next().await {
            if !matches!(done, Ok(true)) {
                pause(&self.stop, STORE_PAUSE).await;
            }
        }
    }

    /// Parks a refused document. One that only lost races is deferred: another client holds its row, and the others
    /// must not wait for that. One that lost its connections is deferred a number of times, because the link may be
    /// bad.
    async fn give_up(&mut self, one: &OutboxItem, error: &SinkError, attempts: u32) {
        let later = match error.class {
            SinkErrorClass::Repeat => true,
            SinkErrorClass::Disconnected => {
                let suspicions = self.suspects.entry(one.position).or_default();
                *suspicions += 1;
                *suspicions < SUSPICIONS_MAX
            }
            SinkErrorClass::Unavailable
            | SinkErrorClass::Unconfirmed
            | SinkErrorClass::NoRoom
            | SinkErrorClass::Operator
            | SinkErrorClass::Poison
            | SinkErrorClass::Fenced
            | SinkErrorClass::Unknown => false,
        };
        if later {
            tracing::debug!(error = error.text, "a document is deferred");
            self.left_behind = true;
            return;
        }
        self.suspects.remove(&one.position);
        if let Some(suppressed) = self.refusals.entry(error.class).or_default().allow(Instant::now()) {
            tracing::warn!(error = error.text, suppressed, "the sink refuses a document; it is parked");
        }
        if let Err(error) = self.store.park_entry(one.position, error.text.clone(), attempts).await {
            error.warn("a refused document could not be parked; trying again");
            pause(&self.stop, STORE_PAUSE).await;
        }
    }
}

enum PartResult {
    Written,
    /// Could not be written as it is: refused, or it lost each race or its connections.
    GivenUp {
        error: SinkError,
        attempts: u32,
    },
    Stopped,
}

/// Sleeps; returns true if the writer was stopped meanwhile.
async fn pause(stop: &CancellationToken, time: Duration) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(time) => false,
    }
}
