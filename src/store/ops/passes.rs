//! The end of a pass over a list: another pass, or the end of the walk with its checkpoint; and the sweep that notes
//! what a full walk no longer saw.
//!
//! A full walk passes over the list again, [`PASSES_MAX`] times in all: after the very first pass; after one that
//! found rows below known ones which were not known; after one that lacks rows of the pass before, other than at
//! the old end; and when rows are absent that were known before the walk. What is noted as no longer listed was
//! so absent from two passes at least.
//!
//! Called inside a transaction when a page's or a sweep's attempt settles.

use crate::domain::{Checkpoint, Class, Job, JobKind, Mode, Pass, Run, RunState, StreamId};
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::end_unproved;
use crate::store::ops::listing_state;
use crate::store::ops::retry;
use crate::store::ops::run_progress;
use crate::store::ops::start_run;
use crate::store::records::checkpoints;
use crate::store::records::dead_letters;
use crate::store::records::jobs::new_job;
use crate::store::records::ledger::RowNote;
use crate::store::records::outbox;
use crate::store::records::ready_queue::enqueue;
use crate::store::records::runs;
use crate::store::records::unproved;
use crate::store::records::walk_costs;
use crate::store::tx::transaction::Tx;

/// Passes of one walk; a list that still moves then is reported as drift.
const PASSES_MAX: u32 = 3;
/// Rows looked at by one sweep job.
const SWEPT_MAX: usize = 500;

/// A pass came to the end of the list, or to where an incremental walk may stop.
pub(crate) fn end_pass(tx: &mut Tx<'_>, run_id: u64, pages: u64, rule: WalkRule, now: i64) -> Result<(), StoreError> {
    let Some(run) = runs::read(tx, run_id)? else { return Ok(()) };
    if !run.doubts.is_empty() {
        return end_unproved::end(tx, &run, now);
    }
    if run.mode == Mode::Incremental {
        // A list of news may be empty; one of everything was not.
        let is_empty = !rule.news_are_partial && run.listed == 0;
        return if is_empty && end_unproved::end_if_vanished(tx, &run, now)? {
            Ok(())
        } else {
            end_walk(tx, run_id, now)
        };
    }
    let first_walk = checkpoints::checkpoint(tx, &run.stream)?.full_walk_at.is_none();
    // Against the first pass of all nothing can be held; what stood on one page cannot have moved, unless it was none.
    let untested = first_walk && run.pass.number == 1 && (pages > 1 || run.listed == 0);
    if (run.pass.missed > 0 || untested) && run.pass.number < PASSES_MAX {
        return pass_again(tx, &run, now);
    }
    run_progress::update(tx, Some(run_id), now, |run| run.drift = run.pass.missed > 0)?;
    // Of a first walk on one page there is nothing to look for.
    if first_walk && run.pass.number == 1 {
        return end_walk(tx, run_id, now);
    }
    // What the first pass does not show another one may.
    if run.pass.number > 1 && end_unproved::end_if_vanished(tx, &run, now)? {
        return Ok(());
    }
    sweep_from(tx, &run, String::new())
}

fn pass_again(tx: &mut Tx<'_>, run: &Run, now: i64) -> Result<(), StoreError> {
    let pass = Pass { number: run.pass.number + 1, ..Pass::default() };
    run_progress::update(tx, Some(run.id), now, |run| run.pass = pass)?;
    start_run::first_page(tx, run.id, &run.stream)
}

fn end_walk(tx: &mut Tx<'_>, run_id: u64, now: i64) -> Result<(), StoreError> {
    let Some(run) = runs::read(tx, run_id)? else { return Ok(()) };
    let stream = &run.stream;
    // What a clock noted that was ahead once must not stand for ever.
    let before = checkpoints::checkpoint(tx, stream)?.until(now);
    // A walk that lost its race with the list does not count as whole: the next one is full again.
    let whole = run.mode == Mode::Full && !run.drift;
    let checkpoint = before.advance(&Checkpoint {
        walked_at: Some(run.started_at.min(now)),
        walked_before: None,
        full_walk_at: whole.then_some(run.started_at.min(now)),
        newest: run.newest,
    });
    tx.put(keyspace::checkpoint(stream), encode("a checkpoint", &checkpoint)?);
    runs::leave(tx, stream);
    outbox::append_checkpoint(tx, stream, &checkpoint, now)?;
    walk_costs::note(tx, &run)?;
    if run.mode == Mode::Full {
        unproved::clear(tx, stream)?;
    }
    run_progress::update(tx, Some(run_id), now, |run| run.state = RunState::Fetching)?;
    retry::revive(tx, &run, true, now)?;
    start_run::follow(tx, &run, now)
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
pub(crate) fn apply_sweep(tx: &mut Tx<'_>, job: &Job, now: i64) -> Result<(), StoreError> {
    let JobKind::Sweep { run: run_id, after, .. } = &job.kind else { return Ok(()) };
    let Some(mut run) = runs::read(tx, *run_id)?.filter(|run| run.state == RunState::Walking) else { return Ok(()) };
    let stream = run.stream.clone();
    let prefix = keyspace::rows(&stream);
    let mut from = [prefix.as_slice(), after.as_bytes()].concat();
    if !after.is_empty() {
        from.push(0);
    }
    let rows = tx.scan(&prefix, &from, SWEPT_MAX)?;
    let siblings = listing_state::siblings(tx, &stream)?;
    let mut last = None;
    for (key, bytes) in &rows {
        let mut note: RowNote = decode("a ledger row", bytes)?;
        let id = key.strip_prefix(prefix.as_slice()).map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        // A row that could not be kept, and is not on the list any more: there is nothing left to look at.
        if id.starts_with(char::is_control) {
            if note.seen < run.id
                && let Some(parked) = note.parked
            {
                dead_letters::forget(tx, parked)?;
                tx.delete(key.clone());
            }
            last = Some(id);
            continue;
        }
        match absence(&note, &run) {
            Absence::None => {}
            Absence::Once if run.pass.number < PASSES_MAX => return pass_again(tx, &run, now),
            Absence::Once => run.drift = true,
            Absence::Whole => {
                note.gone_at = Some(now);
                tx.put(key.clone(), encode("a ledger row", &note)?);
                if !listing_state::is_listed(tx, &siblings, &id)? {
                    outbox::append_listing(tx, &stream, &id, Some(now), now)?;
                }
            }
        }
        last = Some(id);
    }
    let drift = run.drift;
    run_progress::update(tx, Some(run.id), now, |run| run.drift = drift)?;
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

/// What a page's transaction must know of the resource's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkRule {
    /// Rows come newest first, so an incremental walk may stop early.
    pub newest_first: bool,
    /// How old a page must be, in milliseconds, before the walk may stop at it.
    pub overlap_ms: i64,
    /// A walk for news asks for a part of the list only: for the last days, or what changed in the last minutes.
    pub news_are_partial: bool,
}
