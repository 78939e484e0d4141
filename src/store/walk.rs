//! What a page changes: the ledger of rows, jobs for new and changed ones, the next page, or the end
//! of the walk with its checkpoint. And the sweep that notes what a full walk no longer saw.
//!
//! A full walk passes over the list again, [`PASSES_MAX`] times in all: after the very first pass; after one that
//! found rows below known ones which were not known; after one that lacks rows of the pass before, other than at
//! the old end; and when rows are absent that were known before the walk. What is noted as no longer listed was
//! so absent from two passes at least.
//!
//! Called inside a transaction when a page's attempt settles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::detail;
use super::keys;
use super::queue::new_job;
use super::ready::{enqueue, enqueue_alike};
use super::{Store, StoreError, Tx, decode, encode, listed, outbox, parked, runs, unreadable, walk_costs};
use crate::domain::{Checkpoint, Class, Job, JobKind, Mode, Next, Pass, Rejected, Run, RunState, StreamId, Trigger};

/// Pages of one walk; an API that never ends a list must not keep us for ever.
const PAGES_MAX: u64 = 100_000;
/// Passes of one walk; a list that still moves then is reported as drift.
const PASSES_MAX: u32 = 3;
/// Rows looked at by one sweep job.
const SWEPT_MAX: usize = 500;

/// What a page's transaction must know of the resource's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkRule {
    /// Rows come newest first, so an incremental walk may stop early.
    pub newest_first: bool,
    /// How old a page must be, in milliseconds, before the walk may stop at it.
    pub overlap_ms: i64,
}

/// A page whose row bodies, if any, are sealed.
pub(super) struct Page {
    pub(super) rows: Vec<SealedRow>,
    pub(super) rejected: Vec<Rejected>,
    pub(super) digest: String,
    pub(super) next: Next,
}

pub(super) struct SealedRow {
    pub(super) id: String,
    pub(super) hash: u64,
    pub(super) time: Option<i64>,
    /// Present when the row is the document.
    pub(super) sealed: Option<Vec<u8>>,
}

/// The ledger's note of a list row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RowNote {
    /// Digest of its content.
    #[serde(rename = "h")]
    pub(super) hash: u64,
    #[serde(rename = "f")]
    pub(super) first_listed_at: i64,
    /// The last full walk that saw it.
    #[serde(rename = "s")]
    pub(super) seen: u64,
    /// The pass of that walk that saw it last.
    #[serde(rename = "p", default = "first_pass", skip_serializing_if = "is_first_pass")]
    pub(super) pass: u32,
    /// Its own time, as the list told it.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<i64>,
    /// Since when full walks no longer see it.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub(super) gone_at: Option<i64>,
}

fn first_pass() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_first_pass(pass: &u32) -> bool {
    *pass == 1
}

impl Store {
    /// When a row was first listed in a stream.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn first_listed_at(&self, stream: &StreamId, id: &str) -> Result<Option<i64>, StoreError> {
        let bytes = self.0.kv.get(&keys::row(stream, id))?;
        Ok(bytes.map(|bytes| decode::<RowNote>("a ledger row", &bytes)).transpose()?.map(|note| note.first_listed_at))
    }
}

impl Store {
    /// The first row after an id, in the order of ids, that the last whole walk of one of the streams still saw.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn next_listed(&self, streams: &[StreamId], after: Option<&str>) -> Result<Option<String>, StoreError> {
        let mut first: Option<String> = None;
        for stream in streams {
            let prefix = keys::stream(b'r', stream);
            let from = after.map_or_else(Vec::new, |after| [prefix.as_slice(), after.as_bytes(), &[0]].concat());
            for pair in self.0.kv.scan(&prefix, &from) {
                let (key, bytes) = pair?;
                let note: RowNote = decode("a ledger row", &bytes)?;
                let id = key.strip_prefix(prefix.as_slice()).map(String::from_utf8_lossy).unwrap_or_default();
                // Marks of rows that cannot be followed begin with a control character.
                if note.gone_at.is_none() && !id.starts_with(char::is_control) {
                    first = [first, Some(id.into_owned())].into_iter().flatten().min();
                    break;
                }
            }
        }
        Ok(first)
    }
}

/// What a page taught, for the run's counters and for the decision to go on.
#[derive(Default)]
struct Tally {
    /// Rows that this run had not met yet.
    listed: u64,
    pass: Pass,
    new: u64,
    changed: u64,
    to_fetch: u64,
    newest: Option<i64>,
    /// Something on the page is younger than the overlap, or nothing tells its age.
    young: bool,
}

/// Whether a page is one that this pass has seen already. A circle of any length is found before the walk has gone three
/// times around it: once a page whose number is a power of two lies in it, and the next such is further than it is long.
fn repeats(number: u64, previous: Option<&str>, mark: Option<&str>, page: &Page) -> Option<String> {
    let same = |other: Option<&str>| number > 1 && !page.rows.is_empty() && other == Some(page.digest.as_str());
    if same(previous) {
        return Some(format!(
            "page {number} is equal to the page before it: the API seems to ignore the page parameter"
        ));
    }
    same(mark).then(|| format!("page {number} is equal to an earlier one: the list leads in a circle"))
}

pub(super) fn apply_page(tx: &mut Tx<'_>, job: &Job, page: Page, rule: WalkRule, now: i64) -> Result<(), StoreError> {
    let JobKind::ListPage { run: run_id, page: number, previous, mark, .. } = &job.kind else { return Ok(()) };
    let Some(run) = runs::read(tx, *run_id)?.filter(|run| run.state == RunState::Walking) else { return Ok(()) };
    let stream = job.stream();
    if let Some(error) = repeats(*number, previous.as_deref(), mark.as_deref(), &page) {
        return runs::fail(tx, run.id, &stream, error, now);
    }
    let mut tally = note_rows(tx, &run, &page.rows, rule, now)?;
    let parked = note_rejected(tx, &run, &page.rejected, now)?;
    let rejected = page.rejected.len() as u64;
    // Those that are parked already were told of when they were.
    let alarmed = unreadable::tell_rows(&run, parked, page.rows.len() as u64 + rejected);
    tally.to_fetch += parked;
    tally.pass.unreadable |= page.rejected.iter().any(|row| row.unreadable.is_some());
    if run.pass.number == 1 {
        tally.listed += rejected;
    }
    runs::update(tx, Some(run.id), now, |run| {
        run.pages += 1;
        run.listed += tally.listed;
        run.pass = Pass { pages: run.pass.pages + 1, ..tally.pass };
        run.new += tally.new;
        run.changed += tally.changed;
        run.to_fetch += tally.to_fetch;
        run.parked += parked;
        run.alarmed = alarmed;
        run.newest = run.newest.max(tally.newest);
    })?;
    let settled = rule.newest_first && run.mode == Mode::Incremental && tally.new + tally.changed == 0 && !tally.young;
    match page.next {
        Next::More { cursor } if !settled => {
            if *number >= PAGES_MAX {
                return runs::fail(tx, run.id, &stream, format!("the list did not end within {PAGES_MAX} pages"), now);
            }
            let kind = JobKind::ListPage {
                run: run.id,
                combination: stream.combination.clone(),
                page: number + 1,
                cursor,
                mark: if number.is_power_of_two() { Some(page.digest.clone()) } else { mark.clone() },
                previous: Some(page.digest),
            };
            let next = new_job(tx, &stream.shop, &stream.resource, Class::List, kind)?;
            enqueue(tx, &next)
        }
        Next::End if rule.newest_first && run.mode == Mode::Incremental && !settled => {
            go_on_below(tx, run.id, now)?;
            end_pass(tx, run.id, *number, now)
        }
        Next::More { .. } | Next::End => end_pass(tx, run.id, *number, now),
    }
}

/// A walk for news came to the end of a list that shows the newest first, and to no page where it may stop. When the
/// list showed rows below that end before, it may have answered with nothing for one call: a whole walk follows, which
/// finds what is there, or notes what went. Without news the next walk goes as far as this one should have; so do
/// walks over lists in no order, whatever they met.
fn go_on_below(tx: &mut Tx<'_>, run_id: u64, now: i64) -> Result<(), StoreError> {
    let Some(run) = runs::read(tx, run_id)? else { return Ok(()) };
    let Some(oldest) = run.pass.oldest.filter(|_| run.new + run.changed > 0) else { return Ok(()) };
    // It may not even have come down to where the last walk began.
    let newest = runs::checkpoint(tx, &run.stream)?.newest;
    if newest.is_some_and(|newest| oldest > newest) || stands_below(tx, &run.stream, oldest)? {
        runs::start(tx, &run.stream.into(), (Mode::Full, Trigger::Schedule), now)?;
    }
    Ok(())
}

/// Whether a row that is still listed is older than this. A list that was cut lacks many, so one of them is among the
/// first.
fn stands_below(tx: &Tx<'_>, stream: &StreamId, oldest: i64) -> Result<bool, StoreError> {
    let prefix = keys::stream(b'r', stream);
    for pair in tx.pairs(&prefix, &prefix).take(SWEPT_MAX) {
        let note: RowNote = decode("a ledger row", &pair?.1)?;
        if note.gone_at.is_none() && note.time.is_some_and(|time| time < oldest) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn note_rows(tx: &mut Tx<'_>, run: &Run, rows: &[SealedRow], rule: WalkRule, now: i64) -> Result<Tally, StoreError> {
    let checkpoint = runs::checkpoint(tx, &run.stream)?;
    let first_walk = checkpoint.full_walk_at.is_none();
    // From the last walk that ended well on: what one that failed has noted since says nothing of what is below it.
    let young_from = checkpoint.walked_at.map_or(now, |at| at.min(now)).saturating_sub(rule.overlap_ms);
    let mut wanted: BTreeMap<Class, Vec<String>> = BTreeMap::new();
    let young = rows.iter().all(|row| row.time.is_none());
    let mut tally = Tally { young, pass: run.pass, ..Tally::default() };
    for row in rows {
        tally.newest = tally.newest.max(row.time);
        let is_young = row.time.is_some_and(|time| time > young_from);
        tally.young |= is_young;
        let key = keys::row(&run.stream, &row.id);
        let known: Option<RowNote> = tx.get(&key)?.map(|bytes| decode("a ledger row", &bytes)).transpose()?;
        let class = match &known {
            None if first_walk => Some(Class::History),
            None => Some(Class::New),
            Some(note) if note.hash != row.hash => Some(Class::Changed),
            Some(_) => None,
        };
        let met = known.as_ref().is_some_and(|note| note.seen == run.id);
        // While rows arrive, the tail of one page comes again at the head of the next: that is not known before.
        let met_in_pass = known.as_ref().is_some_and(|note| met && note.pass == run.pass.number);
        tally.listed += u64::from(!met);
        tally.pass.met_known |= known.is_some() && !met_in_pass;
        tally.pass.oldest = [tally.pass.oldest, row.time].into_iter().flatten().min();
        // Where new rows come at the head, one below a known row was there before: the last pass missed it. Or it came
        // late, as young ones may; those are gone over by walks for news.
        let is_missed = rule.newest_first && known.is_none() && tally.pass.met_known && !is_young;
        tally.pass.missed += u64::from(is_missed);
        let first_listed_at = known.as_ref().map_or(now, |note| note.first_listed_at);
        let (seen, pass) = (run.id, run.pass.number);
        let note = RowNote { hash: row.hash, first_listed_at, seen, pass, time: row.time, gone_at: None };
        match class {
            Some(Class::Changed) => tally.changed += 1,
            Some(_) => tally.new += 1,
            None => {}
        }
        if let Some(class) = class {
            match &row.sealed {
                Some(sealed) => keep_row(tx, run, (row, sealed), &note, now)?,
                None => wanted.entry(class).or_default().push(row.id.clone()),
            }
        } else if run.mode == Mode::Full
            && !met
            && row.sealed.is_none()
            && detail::is_doubtful(tx, &run.stream, &row.id, now)?
        {
            // The API did not know it when it was asked for, and lists it all the same: that may have passed. Or nobody
            // knows whether it is final.
            wanted.entry(Class::Changed).or_default().push(row.id.clone());
        } else if run.mode == Mode::Full && run.trigger == Trigger::Request && !met {
            tally.to_fetch += u64::from(detail::read_early(tx, run, &row.id)?);
        }
        if known.as_ref().is_some_and(|note| note.gone_at.is_some()) {
            outbox::append_listing(tx, &run.stream, &row.id, None, now)?;
        }
        // An incremental walk over known rows leaves the ledger untouched.
        if class.is_some()
            || (run.mode == Mode::Full && !met_in_pass)
            || known.is_some_and(|note| note.gone_at.is_some())
        {
            tx.put(key, encode("a ledger row", &note)?);
        }
    }
    for (class, ids) in wanted {
        tally.to_fetch += ids.len() as u64;
        want(tx, run, class, ids)?;
    }
    Ok(tally)
}

/// Asks for the details of rows.
fn want(tx: &mut Tx<'_>, run: &Run, class: Class, ids: Vec<String>) -> Result<(), StoreError> {
    let StreamId { shop, resource, combination } = &run.stream;
    let kind = JobKind::FetchDetail { run: Some(run.id), combination: combination.clone(), id: String::new() };
    enqueue_alike(tx, &Job::new(0, shop, resource, class, kind), ids)
}

/// Takes a row as the document that it is.
fn keep_row(
    tx: &mut Tx<'_>,
    run: &Run,
    (row, sealed): (&SealedRow, &[u8]),
    note: &RowNote,
    now: i64,
) -> Result<(), StoreError> {
    let fetched = detail::Fetched { sealed: sealed.to_vec(), hash: row.hash, refresh_after_ms: None };
    let place = detail::Place { stream: &run.stream, run: Some(run.id), id: &row.id, row: note };
    detail::store(tx, &place, fetched, now)
}

/// Parks rows that cannot be followed, each once. Returns how many are new.
fn note_rejected(tx: &mut Tx<'_>, run: &Run, rejected: &[Rejected], now: i64) -> Result<u64, StoreError> {
    let mut parked = 0;
    for row in rejected {
        // A control character leads: no followed id begins with one.
        let mark = format!("\u{1}{}", row.mark());
        let key = keys::row(&run.stream, &mark);
        if tx.get(&key)?.is_none() {
            parked::park_row(tx, run, row, now)?;
            parked += 1;
            tx.put(
                key,
                encode(
                    "a ledger row",
                    &RowNote { hash: 0, first_listed_at: now, seen: u64::MAX, pass: 1, time: None, gone_at: None },
                )?,
            );
        }
    }
    Ok(parked)
}

/// A pass came to the end of the list, or to where an incremental walk may stop.
fn end_pass(tx: &mut Tx<'_>, run_id: u64, pages: u64, now: i64) -> Result<(), StoreError> {
    let Some(run) = runs::read(tx, run_id)? else { return Ok(()) };
    if run.mode == Mode::Incremental {
        return end_walk(tx, run_id, now);
    }
    let first_walk = runs::checkpoint(tx, &run.stream)?.full_walk_at.is_none();
    // Against the first pass of all nothing can be held; what stood on one page cannot have moved, unless it was none.
    let untested = first_walk && run.pass.number == 1 && (pages > 1 || run.listed == 0);
    if (run.pass.missed > 0 || untested) && run.pass.number < PASSES_MAX {
        return pass_again(tx, &run, now);
    }
    runs::update(tx, Some(run_id), now, |run| run.drift = run.pass.missed > 0)?;
    // Of a first walk on one page there is nothing to look for.
    if first_walk && run.pass.number == 1 { end_walk(tx, run_id, now) } else { sweep_from(tx, &run, String::new()) }
}

fn pass_again(tx: &mut Tx<'_>, run: &Run, now: i64) -> Result<(), StoreError> {
    let pass = Pass { number: run.pass.number + 1, ..Pass::default() };
    runs::update(tx, Some(run.id), now, |run| run.pass = pass)?;
    runs::first_page(tx, run.id, &run.stream)
}

fn end_walk(tx: &mut Tx<'_>, run_id: u64, now: i64) -> Result<(), StoreError> {
    let Some(run) = runs::read(tx, run_id)? else { return Ok(()) };
    let stream = &run.stream;
    // What a clock noted that was ahead once must not stand for ever.
    let before = runs::checkpoint(tx, stream)?.until(now);
    // A walk that lost its race with the list does not count as whole: the next one is full again.
    let whole = run.mode == Mode::Full && !run.drift;
    let checkpoint = before.advance(&Checkpoint {
        walked_at: Some(run.started_at.min(now)),
        walked_before: None,
        full_walk_at: whole.then_some(run.started_at.min(now)),
        newest: run.newest,
    });
    tx.put(keys::stream(b'k', stream), encode("a checkpoint", &checkpoint)?);
    runs::leave(tx, stream);
    outbox::append_checkpoint(tx, stream, &checkpoint, now)?;
    walk_costs::note(tx, &run)?;
    runs::update(tx, Some(run_id), now, |run| run.state = RunState::Fetching)?;
    parked::revive(tx, &run, now)?;
    runs::follow(tx, &run, now)
}

fn sweep_from(tx: &mut Tx<'_>, run: &Run, after: String) -> Result<(), StoreError> {
    let StreamId { shop, resource, combination } = &run.stream;
    let kind = JobKind::Sweep { run: run.id, combination: combination.clone(), after };
    let job = new_job(tx, shop, resource, Class::List, kind)?;
    enqueue(tx, &job)
}

/// Looks through the ledger for rows that the last pass did not meet. Asks for another pass when that means that
/// the list moved; else notes those that no pass met as no longer listed, and ends the walk. Only changes are
/// written.
pub(super) fn apply_sweep(tx: &mut Tx<'_>, job: &Job, now: i64) -> Result<(), StoreError> {
    let JobKind::Sweep { run: run_id, after, .. } = &job.kind else { return Ok(()) };
    let Some(mut run) = runs::read(tx, *run_id)?.filter(|run| run.state == RunState::Walking) else { return Ok(()) };
    let stream = run.stream.clone();
    let prefix = keys::stream(b'r', &stream);
    let mut from = [prefix.as_slice(), after.as_bytes()].concat();
    if !after.is_empty() {
        from.push(0);
    }
    let rows = tx.scan(&prefix, &from, SWEPT_MAX)?;
    let siblings = listed::siblings(tx, &stream)?;
    let mut last = None;
    for (key, bytes) in &rows {
        let mut note: RowNote = decode("a ledger row", bytes)?;
        let id = key.strip_prefix(prefix.as_slice()).map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        match absence(&note, &run) {
            Absence::None => {}
            Absence::Once if run.pass.number < PASSES_MAX => return pass_again(tx, &run, now),
            Absence::Once => run.drift = true,
            Absence::Whole => {
                note.gone_at = Some(now);
                tx.put(key.clone(), encode("a ledger row", &note)?);
                if !listed::is_listed(tx, &siblings, &id)? {
                    outbox::append_listing(tx, &stream, &id, Some(now), now)?;
                }
            }
        }
        last = Some(id);
    }
    let drift = run.drift;
    runs::update(tx, Some(run.id), now, |run| run.drift = drift)?;
    match last {
        Some(after) if rows.len() == SWEPT_MAX => sweep_from(tx, &run, after),
        _ => end_walk(tx, run.id, now),
    }
}

/// How a row is absent.
enum Absence {
    None,
    /// From one pass only: it went while the list was walked, and may have pulled others out of sight; or a page
    /// slipped.
    Once,
    /// From all of several passes.
    Whole,
}

fn absence(note: &RowNote, run: &Run) -> Absence {
    if run.pass.unreadable {
        // It may be one of those.
        return Absence::None;
    }
    if note.seen == run.id && note.pass + 1 == run.pass.number {
        // What reaches the age at which the API drops it goes at the end, and moves nothing.
        let came_of_age = note.time.zip(run.pass.oldest).is_some_and(|(time, oldest)| time <= oldest);
        return if came_of_age { Absence::None } else { Absence::Once };
    }
    if note.seen >= run.id || note.gone_at.is_some() {
        return Absence::None;
    }
    if run.pass.number == 1 { Absence::Once } else { Absence::Whole }
}
