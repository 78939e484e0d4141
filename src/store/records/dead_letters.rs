//! The parking lot: what was given up on, with its reason, until somebody retries it. Reads that failed as they do
//! while an API is away are put back after a walk, ever less often; pages go with the next walk that ends well.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::domain::{Cause, Job, JobKind, Mode, Next, Parked, Rejected, Run, RunState, ShopState, StreamId};
use crate::store::keyspace;
use crate::store::ops::detail;
use crate::store::ops::list_page;
use crate::store::ops::listing_state;
use crate::store::ops::listing_state::Standing;
use crate::store::ops::parse_alert;
use crate::store::records::outbox::{self, Head};
use crate::store::records::ready_queue::enqueue;
use crate::store::records::runs;
use crate::store::records::shops;
use crate::store::tx::counters;
use crate::store::tx::counters::Counter;
use crate::store::tx::notify::Signal;
use crate::store::{Store, StoreError, Tx, blocking, decode, encode};

/// The pause before a read that may work later is put back unasked; twice as long each time.
const REVIVE_AFTER_MS: i64 = 10 * 60 * 1000;
const REVIVE_AFTER_MAX_MS: i64 = 24 * 60 * 60 * 1000;
/// Looked at, and so put back at most, by one walk.
const REVIVED_MAX: usize = 500;
/// Put back by one commit, when all of a shop are: so many, or so many bytes.
const RETRIED_MAX: usize = 500;
const RETRIED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The sequence that gives parked records their ids.
const SEQUENCE: &str = "parked";

#[derive(Serialize, Deserialize)]
struct Record {
    parked: Parked,
    what: What,
}

/// What a retry puts back.
#[derive(Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum What {
    Job {
        job: Job,
    },
    Entry {
        head: Head,
        sealed: String,
    },
    /// A list row without a usable id; a retry forgets it, so that the next walk looks again.
    Row {
        key: String,
    },
}

fn put(tx: &mut Tx<'_>, record: &Record) -> Result<(), StoreError> {
    tx.put(keyspace::numbered(b'p', record.parked.id), encode("a parked record", record)?);
    count(tx, (&record.parked.shop_id, &record.parked.resource), 1)?;
    tx.parked.insert(record.parked.shop_id.clone());
    tx.raise(Signal::Progress);
    Ok(())
}

/// Counts what is parked, of a shop's resource, of the shop and of all.
pub(crate) fn count(tx: &mut Tx<'_>, (shop, resource): (&str, &str), by: i64) -> Result<(), StoreError> {
    for key in [keyspace::texts(b'y', &[shop]), keyspace::texts(b'Y', &[shop, resource])] {
        match counters::number(tx.get(&key)?).saturating_add_signed(by) {
            0 => tx.delete(key),
            some => tx.put(key, some.to_be_bytes().to_vec()),
        }
    }
    tx.count(Counter::Parked, by);
    Ok(())
}

/// Counts anew by shop when what is noted does not add up: a store of before has no such notes, and a program of
/// before may have been at work since. Part of the opening.
pub(crate) fn recount(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let total = counters::before(tx, Counter::Parked)?;
    let mut noted = Vec::new();
    let mut adds_up = true;
    for prefix in [b"y", b"Y"] {
        let mut sum = 0;
        for pair in tx.pairs(prefix, prefix) {
            let (key, parked) = pair?;
            sum += counters::number(Some(parked));
            noted.push(key);
        }
        adds_up &= sum == total;
    }
    if adds_up {
        return Ok(());
    }
    let mut parked: BTreeMap<(String, String), i64> = BTreeMap::new();
    for pair in tx.pairs(b"p", b"p") {
        let Parked { shop_id, resource, .. } = decode::<Record>("a parked record", &pair?.1)?.parked;
        *parked.entry((shop_id, resource)).or_default() += 1;
    }
    noted.into_iter().for_each(|key| tx.delete(key));
    tx.count(Counter::Parked, 0_i64.saturating_sub_unsigned(total));
    parked.into_iter().try_for_each(|((shop, resource), parked)| count(tx, (&shop, &resource), parked))
}

/// Pauses shops of which the transaction parked something, and that have as much parked as may be: a fault that
/// lasts must end, and what it parks must stay a list that somebody can look through. What comes after, from calls
/// that were under way, is parked too. A shop that is not active has its own reason, and keeps it. Returns the shops that
/// the transaction paused, those for a breach too: their runs are to be ended.
pub(crate) fn pause_full(tx: &mut Tx<'_>, parked_max: u64, now: i64) -> Result<Vec<String>, StoreError> {
    let mut paused = Vec::new();
    for shop in std::mem::take(&mut tx.parked) {
        let parked = counters::number(tx.get(&keyspace::texts(b'y', &[&shop]))?);
        if parked < parked_max || !shops::is_active(tx, &shop)? {
            continue;
        }
        tracing::warn!(shop.id = shop, parked, parked_max, "so much of the shop is parked that it is paused");
        let reason = format!(
            "paused by Waybill: {parked} pages and documents of this shop are parked, and limits.parked_max allows \
             {parked_max}. While `waybill serve` runs, GET /api/v1/parked?shop={shop} says why; correct that, put them back \
             with POST /api/v1/shops/{shop}/parked/retry, and resume the shop"
        );
        shops::set_state(tx, &shop, ShopState::Paused, Some(reason), now)?;
        paused.push(shop);
    }
    paused.extend(std::mem::take(&mut tx.breached));
    Ok(paused)
}

/// What a walk that ends well does away with: a parked read that may work by now, a page that it has read again.
#[derive(Serialize, Deserialize)]
struct MayPass {
    parked: u64,
    not_before: i64,
    /// Of a page or a sweep: how far its walk was to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page_of: Option<Mode>,
}

/// Parks a job. `next`: where the walk goes on behind a page.
pub(crate) fn park_job(
    tx: &mut Tx<'_>,
    mut job: Job,
    (cause, may_pass, next): (Cause, bool, Option<Next>),
    now: i64,
) -> Result<(), StoreError> {
    let Cause { class, text: reason } = cause;
    let (name, document_id) = match &job.kind {
        JobKind::ListPage { .. } => ("list_page", None),
        JobKind::Sweep { .. } => ("sweep", None),
        JobKind::FetchDetail { id, .. } => ("fetch_detail", Some(id.clone())),
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
        JobKind::ListPage { run, page, .. } => {
            let mode = runs::read(tx, *run)?.map_or(Mode::Full, |run| run.mode);
            forget_page(tx, &job.stream(), (mode, *page))?;
            let goes_on = match next {
                Some(next) => list_page::pass_over(tx, &job, next, &reason, now)?,
                None => false,
            };
            if !goes_on {
                let cause = Cause::new(class, format!("page {page} was given up: {reason}"));
                runs::fail(tx, *run, &job.stream(), cause, now)?;
            }
        }
        JobKind::FetchDetail { run, .. } => {
            parse_alert::count(&job.resource);
            runs::update(tx, *run, now, |run| run.parked += 1)?;
        }
        JobKind::Sweep { run, .. } => {
            let cause = Cause::new(class, format!("marking rows as no longer listed was given up: {reason}"));
            runs::fail(tx, *run, &job.stream(), cause, now)?;
        }
    }
    let is_page = job.document().is_none();
    if may_pass || is_page {
        let pause = REVIVE_AFTER_MS.saturating_mul(1 << job.revived.min(10)).min(REVIVE_AFTER_MAX_MS);
        let run = job.run().filter(|_| is_page).map(|run| runs::read(tx, run)).transpose()?.flatten();
        let page_of = is_page.then(|| run.map_or(Mode::Full, |run| run.mode));
        let note = MayPass { parked: parked.id, not_before: now.saturating_add(pause), page_of };
        tx.put(keyspace::parked_job(&job.stream(), parked.id), encode("a parked job", &note)?);
    }
    job.attempts = 0;
    job.last_error = Some(reason);
    put(tx, &Record { parked, what: What::Job { job } })
}

/// Forgets the parked record of a page that an earlier walk gave up, when another walk does: one says it all.
fn forget_page(tx: &mut Tx<'_>, stream: &StreamId, (mode, number): (Mode, u64)) -> Result<(), StoreError> {
    let prefix = keyspace::stream(b'h', stream);
    for (key, bytes) in tx.scan(&prefix, &prefix, REVIVED_MAX)? {
        let note: MayPass = decode("a parked job", &bytes)?;
        if note.page_of != Some(mode) {
            continue;
        }
        let record: Option<Record> = tx
            .get(&keyspace::numbered(b'p', note.parked))?
            .map(|bytes| decode("a parked record", &bytes))
            .transpose()?;
        if let Some(Record { what: What::Job { job }, .. }) = record
            && matches!(job.kind, JobKind::ListPage { page, .. } if page == number)
        {
            forget(tx, note.parked)?;
            tx.delete(key);
        }
    }
    Ok(())
}

/// Deletes a parked record that there is nothing left to do about.
pub(crate) fn forget(tx: &mut Tx<'_>, id: u64) -> Result<(), StoreError> {
    let key = keyspace::numbered(b'p', id);
    let Some(bytes) = tx.get(&key)? else { return Ok(()) };
    let record: Record = decode("a parked record", &bytes)?;
    tx.delete(key);
    count(tx, (&record.parked.shop_id, &record.parked.resource), -1)
}

/// Parks a row that cannot be kept; returns the record's id.
pub(crate) fn park_row(tx: &mut Tx<'_>, run: &Run, row: &Rejected, now: i64) -> Result<u64, StoreError> {
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
    let mark = format!("\u{1}{}", row.mark());
    let key = STANDARD.encode(keyspace::row(&run.stream, &mark));
    put(tx, &Record { parked, what: What::Row { key } })?;
    Ok(id)
}

pub(crate) fn park_entry(
    tx: &mut Tx<'_>,
    head: Head,
    sealed: Vec<u8>,
    (reason, attempts): (String, u32),
    now: i64,
) -> Result<(), StoreError> {
    let (shop_id, resource, document_id) = match &head {
        Head::Document(head) => (head.shop.clone(), head.resource.clone(), Some(head.id.clone())),
        Head::Listing { shop, resource, id, .. } => (shop.clone(), resource.clone(), Some(id.clone())),
        Head::Checkpoint { stream, .. } => (stream.shop.clone(), stream.resource.clone(), None),
        Head::Shop { shop } | Head::ShopDeleted { shop, .. } => (shop.clone(), String::new(), None),
    };
    if let Head::Document(head) = &head {
        runs::update(tx, head.run, now, |run| run.refused += 1)?;
    }
    let id = tx.next(SEQUENCE)?;
    let parked =
        Parked { id, shop_id, resource, document_id, job: "write".to_owned(), reason, attempts, parked_at: now };
    put(tx, &Record { parked, what: What::Entry { head, sealed: STANDARD.encode(sealed) } })
}

/// After a walk to the end of a list: puts reads of its stream back that may work by now, and, when the walk saw the
/// whole list, forgets pages that were given up. What was parked while the API was away needs no request.
pub(crate) fn revive(tx: &mut Tx<'_>, walked: &Run, is_whole: bool, now: i64) -> Result<(), StoreError> {
    let prefix = keyspace::stream(b'h', &walked.stream);
    for (key, bytes) in tx.scan(&prefix, &prefix, REVIVED_MAX)? {
        let note: MayPass = decode("a parked job", &bytes)?;
        // A clock that was ahead once must not put it off for ever.
        let is_due = note.not_before <= now || note.not_before > now.saturating_add(REVIVE_AFTER_MAX_MS);
        match note.page_of {
            None if is_due => drop(retry(tx, note.parked, true, now)?),
            // A walk for news does not read what a whole one gave up.
            Some(mode) if is_whole && (walked.mode == Mode::Full || mode == Mode::Incremental) => {
                forget(tx, note.parked)?;
                tx.delete(key);
            }
            _ => {}
        }
    }
    Ok(())
}

fn retry(tx: &mut Tx<'_>, id: u64, unasked: bool, now: i64) -> Result<bool, StoreError> {
    let key = keyspace::numbered(b'p', id);
    let Some(bytes) = tx.get(&key)? else { return Ok(false) };
    let record: Record = decode("a parked record", &bytes)?;
    match record.what {
        What::Job { mut job } => {
            tx.delete(keyspace::parked_job(&job.stream(), id));
            job.revived = if unasked { job.revived.saturating_add(1) } else { 0 };
            retry_job(tx, &job, now)?;
        }
        What::Entry { head, sealed } => {
            if let Head::Document(head) = &head {
                runs::update(tx, head.run, now, |run| run.refused = run.refused.saturating_sub(1))?;
            }
            let sealed = STANDARD
                .decode(sealed)
                .map_err(|error| StoreError::Record { what: format!("parked {id}"), detail: error.to_string() })?;
            put_back(tx, head, &sealed, now)?;
        }
        What::Row { key } => {
            if let Ok(key) = STANDARD.decode(key) {
                tx.delete(key);
            }
        }
    }
    tx.delete(key);
    count(tx, (&record.parked.shop_id, &record.parked.resource), -1)?;
    Ok(true)
}

/// Puts back what the sink refused, unless something newer is known by now: that is on its way, in the sink, or parked
/// itself, and must not be overwritten.
fn put_back(tx: &mut Tx<'_>, head: Head, sealed: &[u8], now: i64) -> Result<(), StoreError> {
    match head {
        Head::Document(head) => detail::put_back(tx, head, sealed, now),
        Head::Listing { shop, resource, id, no_longer_listed_at } => {
            let no_longer_listed_at = match listing_state::standing(tx, &shop, &resource, &id)? {
                Standing::Unknown => no_longer_listed_at,
                Standing::Listed => None,
                Standing::Gone(at) => Some(at),
            };
            outbox::append(tx, &Head::Listing { shop, resource, id, no_longer_listed_at }, sealed, now).map(drop)
        }
        other => outbox::append(tx, &other, sealed, now).map(drop),
    }
}

/// Puts the first of these back, as many as one commit takes. The last one that was looked at, and how many were
/// there still.
fn retry_some(tx: &mut Tx<'_>, found: &[Parked], now: i64) -> Result<(u64, u64), StoreError> {
    let (mut done, mut retried) = (0, 0);
    for parked in found {
        // Documents may be large, and one of any size must pass.
        if retried > 0 && tx.size() > RETRIED_BYTES_MAX {
            break;
        }
        retried += u64::from(retry(tx, parked.id, false, now)?);
        done = parked.id;
    }
    Ok((done, retried))
}

fn retry_job(tx: &mut Tx<'_>, job: &Job, now: i64) -> Result<(), StoreError> {
    match &job.kind {
        JobKind::ListPage { run, .. } | JobKind::Sweep { run, .. } => {
            // Its run is not kept any more: the next walk reads the page.
            if runs::read(tx, *run)?.is_none() {
                return Ok(());
            }
            // A newer walk reads this page too, and sweeps.
            if runs::walking(tx, &job.stream())?.is_some() {
                return Ok(());
            }
            tx.put(keyspace::stream(b'v', &job.stream()), encode("a walk", run)?);
            let from = if let JobKind::ListPage { page, .. } = &job.kind { Some(*page) } else { None };
            runs::update(tx, Some(*run), now, |run| {
                run.state = RunState::Walking;
                (run.error, run.error_class) = (None, None);
                // It reads the pages from here on again.
                run.doubts.retain(|doubt| from.is_some_and(|from| doubt.page < from));
            })?;
        }
        JobKind::FetchDetail { run, .. } => runs::update(tx, *run, now, |run| {
            run.parked = run.parked.saturating_sub(1);
            if run.state == RunState::Done {
                run.state = RunState::Fetching;
            }
        })?,
    }
    enqueue(tx, job)
}

impl Store {
    /// From now on a shop of which so much is parked is paused.
    pub fn bound_parked(&self, parked_max: u64) {
        self.0.parked_max.store(parked_max, Ordering::Relaxed);
    }

    pub(crate) fn parked_max(&self) -> u64 {
        self.0.parked_max.load(Ordering::Relaxed)
    }

    /// How much of a shop is parked.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn parked_of(&self, shop: &str) -> Result<u64, StoreError> {
        Ok(counters::number(self.0.kv.get(&keyspace::texts(b'y', &[shop]))?))
    }

    /// Parked records above the id `after`, oldest first, of shops that are wanted.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn parked(
        &self,
        after: Option<u64>,
        limit: usize,
        wanted: impl Fn(&Parked) -> bool,
    ) -> Result<Vec<Parked>, StoreError> {
        let from = after.map_or_else(|| vec![b'p'], |after| keyspace::numbered(b'p', after.saturating_add(1)));
        let mut found = Vec::new();
        for pair in self.0.kv.scan(b"p", &from) {
            if found.len() == limit {
                break;
            }
            let record: Record = decode("a parked record", &pair?.1)?;
            if wanted(&record.parked) {
                found.push(record.parked);
            }
        }
        Ok(found)
    }

    /// One parked record.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn parked_one(&self, id: u64) -> Result<Option<Parked>, StoreError> {
        let bytes = self.0.kv.get(&keyspace::numbered(b'p', id))?;
        Ok(bytes.map(|bytes| decode::<Record>("a parked record", &bytes)).transpose()?.map(|record| record.parked))
    }

    /// Puts all back that is parked of a shop, or of one resource of it, as [`Store::retry_parked`] does one; in
    /// bounded steps, so that it holds up nobody. How many. What is parked meanwhile is not looked at: it would go
    /// round and round.
    ///
    /// # Errors
    /// The engine's errors; what was put back by then stays so.
    pub async fn retry_all_parked(&self, shop: &str, resource: Option<&str>) -> Result<u64, StoreError> {
        let last = counters::last(&*self.0.kv, SEQUENCE)?;
        let (mut after, mut retried) = (None, 0);
        loop {
            let (store, shop, resource) = (self.clone(), shop.to_owned(), resource.map(str::to_owned));
            let found = blocking(move || {
                let is_asked = |parked: &Parked| resource.as_ref().is_none_or(|name| parked.resource == *name);
                store.parked(after, RETRIED_MAX, |parked| {
                    parked.id <= last && parked.shop_id == shop && is_asked(parked)
                })
            });
            let found = found.await?;
            if found.is_empty() {
                return Ok(retried);
            }
            let now = self.now();
            let (done, some) = self.transact(move |tx| retry_some(tx, &found, now)).await?;
            (after, retried) = (Some(done), retried + some);
        }
    }

    /// Puts a parked job or document back with fresh attempts. False: no such record.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn retry_parked(&self, id: u64) -> Result<bool, StoreError> {
        let now = self.now();
        self.transact(move |tx| retry(tx, id, false, now)).await
    }
}
