//! Garbage collection of the engine's log, paid for by the commits that make the garbage.
//!
//! sled collects in two places. One is its flusher thread, twice a second; once the file was large it moves pages back
//! and forth without end, megabytes a second while nothing happens, so that thread is not started. The other is the
//! replacement of a page, which moves one page out of a segment that is at least half garbage. There are too few of
//! those when most changes are small: without more, the log grows to ten times what it holds. So after a commit this
//! collector replaces a page of its own until as many bytes were moved as were written, or nothing is left to move.
//! Without commits it does nothing.
//!
//! Called by `sled` after each durable batch.

use std::sync::{Mutex, PoisonError};

/// Log size below which sled's own collection is enough.
const LOG_MIN: u64 = 32 * 1024 * 1024;
/// Bytes written between two steps, and moved by one: few enough for the room that is held ahead.
const STEP: i64 = 256 * 1024;
/// The most that one large commit leaves to later steps.
const OWED_MAX: i64 = 4 * 1024 * 1024;
/// The key that is written to have a page replaced; it is never read.
const SPARE: &[u8] = b"mspare";
/// sled replaces a page instead of adding an eleventh change to it.
const CHANGES: u8 = 11;
/// Pages moved between two looks at how far that went. Each look writes the end of the log.
const PAGES: u8 = 12;
/// More than a change of the spare key takes in the log. Where that is all that was written, nothing was moved.
const CHANGE_BYTES: i64 = 128;

/// How much was written since the last step.
#[derive(Default)]
pub(crate) struct Collector(Mutex<WrittenBytes>);

#[derive(Default)]
struct WrittenBytes {
    /// Offset in the endless log up to which everything was counted; none: the process has just begun.
    until: Option<i64>,
    /// Bytes written that are not balanced by moved bytes yet.
    owed: i64,
}

impl Collector {
    /// Does one bounded step if enough was written since the last one. True: the caller must sync the log.
    ///
    /// # Errors
    /// The engine's write errors.
    pub(crate) fn step(&self, db: &sled::Db, log_bytes: u64) -> sled::Result<bool> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = end_of_log(db);
        let since = written.until.map_or(0, |until| begin - until);
        written.until = Some(begin);
        written.owed = (written.owed + since).min(OWED_MAX);
        if written.owed < STEP || log_bytes < LOG_MIN {
            return Ok(false);
        }
        let mut end = begin;
        while end - begin < STEP && written.owed > 0 {
            let before = end;
            for change in 0..CHANGES * PAGES {
                // With another value each time: the engine drops a change that changes nothing.
                db.insert(SPARE, &[change])?;
            }
            db.flush()?;
            end = end_of_log(db);
            let moved = end - before;
            let is_done = moved < CHANGE_BYTES * i64::from(CHANGES * PAGES);
            written.owed = if is_done { 0 } else { written.owed - moved };
        }
        written.until = Some(end);
        Ok(true)
    }
}

fn end_of_log(db: &sled::Db) -> i64 {
    db.context.pagecache.log.stable_offset()
}
