//! Parking: gives up on a job, a row or an outbox entry, and keeps why.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::{
    Backoff, Cause, FetchDetail, Job, JobKind, ListPage, Mode, Parked, Rejected, Run, ShopId, ShopState, StreamId,
    Sweep, Timestamp, counted,
};
use crate::store::codec::{decode, encode, number};
use crate::store::entry::EntryHead;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::parse_alert;
use crate::store::ops::run_progress;
use crate::store::ops::shop_state;
use crate::store::ops::start_run;
use crate::store::ops::stream_status;
use crate::store::records::dead_letters::{self, AutoRetry, DeadLetter, SEQUENCE, What};
use crate::store::records::runs;
use crate::store::records::shops;
use crate::store::tx::transaction::Tx;

/// The pause before an automatic retry.
pub(crate) const AUTO_RETRY_AFTER: Backoff = Backoff::new(Duration::from_secs(10 * 60), AUTO_RETRY_AFTER_MAX);

pub(crate) const AUTO_RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Dead letters that one walk retries or deletes at most.
pub(crate) const AUTO_RETRIED_MAX: usize = 500;

/// Pauses shops whose parked records have reached the limit in this transaction: a fault that
/// lasts must end, and the parked records must stay few enough to review. Calls that are
/// under way may still park more. A shop that is not active has its own reason, and keeps it. Returns the shops that
/// the transaction paused, those for a broken invariant too: the caller ends their runs.
pub(crate) fn pause_full(tx: &mut Tx<'_>, parked_max: u64, now: Timestamp) -> Result<Vec<ShopId>, StoreError> {
    let mut paused = Vec::new();
    for shop in std::mem::take(&mut tx.parked) {
        let parked = number(tx.get(&keyspace::parked_of_shop(&shop))?);
        if parked < parked_max || !shops::is_active(tx, &shop)? {
            continue;
        }
        tracing::warn!(
            shop.id = shop.as_str(),
            parked,
            parked_max,
            "the shop is paused: its number of parked records reached limits.parked_max"
        );
        let reason = format!(
            "paused by Waybill: {} parked, and limits.parked_max allows {parked_max}. While `waybill serve` runs, GET \
             /api/v1/parked?shop={shop} says why; correct that, put them back with POST \
             /api/v1/shops/{shop}/parked/retry, and resume the shop",
            counted(parked, "page or document of this shop is", "pages and documents of this shop are")
        );
        shop_state::set_state(tx, &shop, ShopState::Paused, Some(reason), now)?;
        paused.push(shop);
    }
    paused.extend(std::mem::take(&mut tx.breached));
    Ok(paused)
}

/// Why a job is given up.
pub(crate) struct Parking {
    pub(crate) cause: Cause,
    /// It may succeed later without a change by anybody: such a read is retried automatically.
    pub(crate) transient: bool,
    /// Of a list page: the walk continues with the page after it.
    pub(crate) walk_continues: bool,
    /// Of a detail: "not found", by a call that is not proved to work.
    pub(crate) doubted: bool,
}

/// Parks a job; a page whose walk does not go on fails its run.
pub(crate) fn park_job(
    tx: &mut Tx<'_>,
    mut job: Job,
    Parking { cause, transient, walk_continues, doubted }: Parking,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Cause { class, text: reason } = cause;
    let (name, document_id) = match &job.kind {
        JobKind::ListPage(_) => ("list_page", None),
        JobKind::Sweep(_) => ("sweep", None),
        JobKind::FetchDetail(detail) => ("fetch_detail", Some(detail.id.clone())),
    };
    let parked = Parked {
        id: tx.next(SEQUENCE)?,
        shop_id: job.shop.clone(),
        resource: job.resource.clone(),
        document_id,
        job: name.to_owned(),
        reason: reason.clone(),
        attempts: job.attempts,
        parked_at: now,
    };
    match &job.kind {
        JobKind::ListPage(ListPage { run, page, .. }) => {
            let mode = runs::read(tx, *run)?.map_or(Mode::Full, |run| run.mode);
            forget_page(tx, &job.stream(), mode, *page)?;
            if !walk_continues {
                let cause = Cause::new(class, format!("page {page} was given up: {reason}"));
                start_run::fail(tx, *run, &job.stream(), cause, now)?;
            }
        }
        JobKind::FetchDetail(FetchDetail { run, .. }) => {
            parse_alert::count(&job.resource);
            run_progress::update(tx, *run, now, |run| run.parked += 1)?;
        }
        JobKind::Sweep(Sweep { run, .. }) => {
            let cause = Cause::new(class, format!("marking rows as no longer listed was given up: {reason}"));
            start_run::fail(tx, *run, &job.stream(), cause, now)?;
        }
    }
    let is_page = job.document().is_none();
    if transient || is_page {
        let pause = AUTO_RETRY_AFTER.pause(job.auto_retries);
        let run = job.run().filter(|_| is_page).map(|run| runs::read(tx, run)).transpose()?.flatten();
        let page_of = is_page.then(|| run.map_or(Mode::Full, |run| run.mode));
        let note = AutoRetry { parked: parked.id, not_before: now + pause, page_of, doubted };
        tx.put(keyspace::parked_job(&job.stream(), parked.id), encode("a parked job", &note)?);
    }
    job.attempts = 0;
    job.last_error = Some(class);
    dead_letters::put(tx, &DeadLetter { parked, what: What::Job { job } })
}

/// Deletes the dead letter of a page that an earlier walk gave up, when another walk gives it up too: one is enough.
pub(crate) fn forget_page(tx: &mut Tx<'_>, stream: &StreamId, mode: Mode, number: u64) -> Result<(), StoreError> {
    let prefix = keyspace::parked_jobs(stream);
    for (key, bytes) in tx.scan(&prefix, &prefix, AUTO_RETRIED_MAX)? {
        let note: AutoRetry = decode("a parked job", &bytes)?;
        if note.page_of != Some(mode) {
            continue;
        }
        let record: Option<DeadLetter> =
            tx.get(&keyspace::parked(note.parked))?.map(|bytes| decode("a parked record", &bytes)).transpose()?;
        if let Some(DeadLetter { what: What::Job { job }, .. }) = record
            && matches!(job.kind, JobKind::ListPage(ListPage { page, .. }) if page == number)
        {
            dead_letters::forget(tx, note.parked)?;
            tx.delete(key);
        }
    }
    Ok(())
}

/// Parks a row that cannot be stored; returns the record's id.
pub(crate) fn park_row(tx: &mut Tx<'_>, run: &Run, row: &Rejected, now: Timestamp) -> Result<u64, StoreError> {
    let id = tx.next(SEQUENCE)?;
    let parked = Parked {
        id,
        shop_id: run.stream.shop.clone(),
        resource: run.stream.resource.clone(),
        document_id: row.id.clone(),
        job: "list_page".to_owned(),
        reason: row.reason.clone(),
        attempts: 1,
        parked_at: now,
    };
    parse_alert::count(&parked.resource);
    let key = STANDARD.encode(keyspace::rejected_row(&run.stream, &row.fingerprint()));
    dead_letters::put(tx, &DeadLetter { parked, what: What::Row { key } })?;
    Ok(id)
}

/// Why the sink refuses an entry, and after how many attempts.
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) attempts: u32,
}

/// Parks an entry that the sink refuses.
pub(crate) fn park_entry(
    tx: &mut Tx<'_>,
    head: EntryHead,
    sealed: Vec<u8>,
    refusal: Refusal,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (shop_id, resource, document_id) = match &head {
        EntryHead::Document(head) => (head.shop.clone(), head.resource.clone(), Some(head.id.clone())),
        EntryHead::Listing { shop, resource, id, .. } => (shop.clone(), resource.clone(), Some(id.clone())),
        EntryHead::Checkpoint { stream, .. } => (stream.shop.clone(), stream.resource.clone(), None),
        EntryHead::Shop { shop } | EntryHead::ShopDeleted { shop, .. } => (shop.clone(), String::new(), None),
    };
    if let EntryHead::Document(head) = &head {
        run_progress::update(tx, head.run, now, |run| run.refused += 1)?;
        stream_status::document_refused(tx, head, &refusal.reason, now)?;
    }
    let (id, Refusal { reason, attempts }) = (tx.next(SEQUENCE)?, refusal);
    let parked =
        Parked { id, shop_id, resource, document_id, job: "write".to_owned(), reason, attempts, parked_at: now };
    dead_letters::put(tx, &DeadLetter { parked, what: What::Entry { head, sealed: STANDARD.encode(sealed) } })
}
