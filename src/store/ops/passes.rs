//! The end of a pass over a list: another pass, or the end of the walk with its checkpoint; and the sweep that marks
//! rows as no longer listed.
//!
//! A full walk reads the list up to [`PASSES_MAX`] times. It reads it again where [`least_passes`] says so; after a pass that
//! found unknown rows below known ones; after one that lacks rows of the pass before, other than at the old end; and when
//! rows are missing that were known before the walk. So a row that is marked as no longer listed was missing from two
//! passes at least.
//!
//! Called inside a transaction when a page's or a sweep's attempt settles.

use crate::domain::{
    Checkpoint, Mode, Pass, Priority, Run, RunId, RunState, StreamId, Sweep, Timestamp, WalkRule, least_passes,
};
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
use crate::store::records::ledger::{self, RowNote};
use crate::store::records::outbox;
use crate::store::records::ready_queue::enqueue;
use crate::store::records::runs;
use crate::store::records::unproved;
use crate::store::records::walk_costs;
use crate::store::tx::transaction::Tx;

/// Passes of one walk; a list that still moves after the last one is reported.
const PASSES_MAX: u32 = 3;
/// Rows looked at by one sweep job.
const SWEPT_MAX: usize = 500;

/// A pass came to the end of the list, or to where an incremental walk may stop.
pub(crate) fn end_pass(
    tx: &mut Tx<'_>,
    run_id: RunId,
    pages: u64,
    rule: WalkRule,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(run) = runs::read(tx, run_id)? else { return Ok(()) };
    if !run.doubts.is_empty() {
        return end_unproved::end(tx, &run, now);
    }
    if run.mode == Mode::Incremental {
        // A partial list may be empty; an empty whole list is suspicious.
        let is_empty = !rule.news_are_partial && run.listed == 0;
        return if is_empty && end_unproved::end_if_vanished(tx, &run, now)? {
            Ok(())
        } else {
            end_walk(tx, run_id, now)
        };
    }
    let first_walk = checkpoints::checkpoint(tx, &run.stream)?.full_walk_at.is_none();
    let is_unconfirmed = run.pass.number < least_passes(first_walk, pages, run.listed);
    if (run.pass.missed > 0 || is_unconfirmed) && run.pass.number < PASSES_MAX {
        return pass_again(tx, &run, now);
    }
    run_progress::update(tx, Some(run_id), now, |run| run.list_moved = run.pass.missed > 0)?;
    // A first walk of one page has no older rows to sweep, but for unusable ones that a failed walk noted.
    if first_walk && run.pass.number == 1 && !ledger::has_unusable_row(tx, &run.stream)? {
        return end_walk(tx, run_id, now);
    }
    // Rows that the first pass misses may show in another one.
    if run.pass.number > 1 && end_unproved::end_if_vanished(tx, &run, now)? {
        return Ok(());
    }
    sweep_from(tx, &run, String::new())
}

fn pass_again(tx: &mut Tx<'_>, run: &Run, now: Timestamp) -> Result<(), StoreError> {
    let pass = Pass { number: run.pass.number + 1, ..Pass::default() };
    run_progress::update(tx, Some(run.id), now, |run| run.pass = pass)?;
    start_run::first_page(tx, run.id, &run.stream)
}

fn end_walk(tx: &mut Tx<'_>, run_id: RunId, now: Timestamp) -> Result<(), StoreError> {
    let Some(run) = runs::read(tx, run_id)? else { return Ok(()) };
    let stream = &run.stream;
    // A time from a clock that was ahead must not stay in the checkpoint.
    let before = checkpoints::checkpoint(tx, stream)?.until(now);
    // A walk whose list kept moving does not count as whole: the next one is full again.
    let whole = run.mode == Mode::Full && !run.list_moved;
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
    retry::auto_retry(tx, &run, true, now)?;
    start_run::follow(tx, &run, now)
}

fn sweep_from(tx: &mut Tx<'_>, run: &Run, after: String) -> Result<(), StoreError> {
    let StreamId { shop, resource, combination } = &run.stream;
    let sweep = Sweep { run: run.id, combination: combination.clone(), after };
    let job = new_job(tx, shop, resource, Priority::List, sweep)?;
    enqueue(tx, &job)
}

/// Scans the ledger for rows that the last pass did not meet. Starts another pass when the list moved; else marks rows
/// that no pass met as no longer listed, and ends the walk. Only changes are written.
pub(crate) fn apply_sweep(tx: &mut Tx<'_>, sweep: &Sweep, now: Timestamp) -> Result<(), StoreError> {
    let Some(mut run) = runs::read(tx, sweep.run)?.filter(|run| run.state == RunState::Walking) else { return Ok(()) };
    let stream = run.stream.clone();
    let prefix = keyspace::rows(&stream);
    let mut from = [prefix.as_slice(), sweep.after.as_bytes()].concat();
    if !sweep.after.is_empty() {
        from.push(0);
    }
    let rows = tx.scan(&prefix, &from, SWEPT_MAX)?;
    let siblings = listing_state::siblings(tx, &stream)?;
    let mut last = None;
    for (key, bytes) in &rows {
        let mut note: RowNote = decode("a ledger row", bytes)?;
        let id = key.strip_prefix(prefix.as_slice()).map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        // An unusable row that is not on the list any more: its dead letter is resolved.
        if id.starts_with(char::is_control) {
            if note.seen < run.id {
                if let Some(parked) = note.parked {
                    dead_letters::forget(tx, parked)?;
                }
                tx.delete(key.clone());
            }
            last = Some(id);
            continue;
        }
        match missing(&note, &run) {
            Missing::None => {}
            Missing::Once if run.pass.number < PASSES_MAX => return pass_again(tx, &run, now),
            Missing::Once => run.list_moved = true,
            Missing::Whole => {
                note.unlisted_at = Some(now);
                tx.put(key.clone(), encode("a ledger row", &note)?);
                if !listing_state::is_listed(tx, &siblings, &id)? {
                    outbox::append_listing(tx, &stream, &id, Some(now), now)?;
                }
            }
        }
        last = Some(id);
    }
    let list_moved = run.list_moved;
    run_progress::update(tx, Some(run.id), now, |run| run.list_moved = list_moved)?;
    match last {
        Some(after) if rows.len() == SWEPT_MAX => sweep_from(tx, &run, after),
        _ => end_walk(tx, run.id, now),
    }
}

/// Whether a row is missing from the list.
enum Missing {
    None,
    /// From one pass only: it was removed during the walk, which may have hidden others, or a page shifted.
    Once,
    /// From every one of several passes.
    Whole,
}

fn missing(note: &RowNote, run: &Run) -> Missing {
    if run.pass.unreadable {
        // It may be one of the unreadable rows.
        return Missing::None;
    }
    if note.seen == run.id && note.pass + 1 == run.pass.number {
        // Rows that age out disappear from the tail and do not shift others.
        let came_of_age = note.time.zip(run.pass.oldest).is_some_and(|(time, oldest)| time <= oldest);
        return if came_of_age { Missing::None } else { Missing::Once };
    }
    if note.seen >= run.id || note.unlisted_at.is_some() {
        return Missing::None;
    }
    if run.pass.number == 1 { Missing::Once } else { Missing::Whole }
}
