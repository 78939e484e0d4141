//! Ends walks that could not prove that they saw the whole list.
//!
//! Such a walk moves no checkpoint and marks nothing as no longer listed; the next one is full. A list that shows none of
//! the rows that it showed before is in doubt too, until another walk, an hour later, finds the same. Called by the end
//! of a pass.

use std::time::Duration;

use crate::domain::{Doubt, Run, RunState, Timestamp, Unproved};
use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::listing_state;
use crate::store::ops::retry;
use crate::store::ops::run_progress;
use crate::store::ops::start_run;
use crate::store::records::ledger::RowNote;
use crate::store::records::runs;
use crate::store::records::unproved;
use crate::store::texts;
use crate::store::tx::transaction::Tx;

/// How long a list must show none of its earlier rows until that counts as true.
const VANISHED_FOR: Duration = Duration::from_secs(60 * 60);

/// Ends a run whose pages gave reason to doubt that they are the whole list.
pub(crate) fn end(tx: &mut Tx<'_>, run: &Run, now: Timestamp) -> Result<(), StoreError> {
    let opened = texts::open(tx.keys, &run.stream.shop, run.clone())?;
    let reason = match opened.doubts.as_slice() {
        [] => return Ok(()),
        [one] => text(one),
        [first, more @ ..] => format!("{} (and {} more)", text(first), more.len()),
    };
    let why =
        Unproved { reason, class: run.doubts.first().and_then(|doubt| doubt.class), since: now, vanished_at: None };
    end_as(tx, run, why, now)
}

fn text(doubt: &Doubt) -> String {
    match doubt.skipped {
        true => format!("page {} could not be read, so its rows may be missing: {}", doubt.page, doubt.reason),
        false => format!("page {}: {}", doubt.page, doubt.reason),
    }
}

/// Ends a run in doubt when its list shows none of the rows that it showed before, unless a walk found the same long
/// enough ago; returns whether it ended it.
pub(crate) fn end_if_vanished(tx: &mut Tx<'_>, run: &Run, now: Timestamp) -> Result<bool, StoreError> {
    // Rows that the run met and that were known before it.
    if run.listed > run.new + run.rejected || !hides_some(tx, run)? {
        return Ok(false);
    }
    // A clock that was ahead must not confirm it now.
    let first = unproved::read(tx, &run.stream)?.and_then(|doubt| doubt.vanished_at).filter(|at| *at <= now);
    if first.is_some_and(|at| now.since(at) >= VANISHED_FOR) {
        return Ok(false);
    }
    let reason = "the API answered without an error, and its list shows none of the rows that it showed before; they are \
                  not yet marked as no longer listed: that is done when a walk at least an hour after the first one sees \
                  the same"
        .to_owned();
    let why = Unproved { reason, class: None, since: now, vanished_at: Some(first.unwrap_or(now)) };
    end_as(tx, run, why, now)?;
    Ok(true)
}

/// Whether a row was listed before this run, which did not meet it, and is on no other list of the resource.
fn hides_some(tx: &Tx<'_>, run: &Run) -> Result<bool, StoreError> {
    let prefix = keyspace::rows(&run.stream);
    // Rows that cannot be stored come before all ids.
    let from = [prefix.as_slice(), b" "].concat();
    let siblings = listing_state::siblings(tx, &run.stream)?;
    for pair in tx.pairs(&prefix, &from) {
        let (key, bytes) = pair?;
        let note: RowNote = decode("a ledger row", &bytes)?;
        if note.unlisted_at.is_none() && note.seen < run.id {
            let id = key.strip_prefix(prefix.as_slice()).map(String::from_utf8_lossy).unwrap_or_default();
            if !listing_state::is_listed(tx, &siblings, &id)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn end_as(tx: &mut Tx<'_>, run: &Run, why: Unproved, now: Timestamp) -> Result<(), StoreError> {
    let stream = &run.stream;
    let since = unproved::read(tx, stream)?.map_or(now, |doubt| doubt.since.min(now));
    let reason = why.reason.clone();
    let doubt = Unproved { since, ..why };
    unproved::put(tx, stream, &doubt)?;
    runs::leave(tx, stream);
    run_progress::update(tx, Some(run.id), now, |run| {
        run.state = RunState::Unproved;
        run.error = Some(reason);
    })?;
    // The API answers: what was given up while it did not may work now.
    retry::auto_retry(tx, run, false, now)?;
    start_run::follow(tx, run, now)
}
