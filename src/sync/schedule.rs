//! Cron schedules: when walks are due, and the loop that starts them.
//!
//! A schedule is a cron expression of six fields (seconds first; five are read as second 0) in a time
//! zone. Around a DST change it does what people expect:
//! - an expression whose hour is free (`0 */15 * * * *`) follows real time: it fires in both passes of a
//!   repeated hour, and not in a skipped one;
//! - an expression with a fixed hour (`0 30 2 * * *`) fires exactly once a day: in the first pass of a
//!   repeated hour, and at the end of a skipped one.
//!
//! The tick source (tokio-cron-scheduler, in UTC) only checks what is due; so does a timer of our own, in case the
//! clock is set back. The last served tick is stored, so missed ticks collapse into one, also over a restart.

use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::CronParser;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use tokio::sync::Mutex;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::{Engine, Inner};
use crate::domain::Mode;
use crate::domain::clock::Millis;
use crate::store::StoreError;

/// Periods of equal UTC offset searched for the next tick: a zone has about two a year.
const STRETCHES_MAX: usize = 40;
/// A last tick further ahead of the clock than this was stored by a wrong clock.
const AHEAD_MAX_MS: i64 = 60_000;
/// How often the tick source checks.
const TICK: &str = "* * * * * *";
/// How often our own timer checks, by the monotonic clock.
const POLL_EVERY: Duration = Duration::from_secs(5);

/// A cron expression in a time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    hour_is_free: bool,
}

impl Schedule {
    /// Parses an expression and the name of a zone.
    ///
    /// # Errors
    /// What is wrong and how to write it.
    pub fn parse(expression: &str, zone: &str) -> Result<Schedule, String> {
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let with_seconds = match fields.len() {
            5 => format!("0 {}", fields.join(" ")),
            6 => fields.join(" "),
            _ => {
                return Err(format!(
                    "`{expression}` is not a cron expression; write it like \"0 */15 * * * *\" (seconds first)"
                ));
            }
        };
        let cron = CronParser::builder().build().parse(&with_seconds).map_err(|error| {
            format!("`{expression}` is not a cron expression: {error}; write it like \"0 */15 * * * *\"")
        })?;
        let zone = TimeZone::get(zone)
            .map_err(|_| format!("`{zone}` is not a time zone; write it like \"Europe/Amsterdam\""))?;
        let hour_is_free = with_seconds.split(' ').nth(2).is_some_and(|hour| hour.starts_with('*'));
        Ok(Schedule { cron, zone, hour_is_free })
    }

    /// The first tick after an instant; None when the expression never fires again.
    pub fn next(&self, after: Millis) -> Option<Millis> {
        let mut after = Timestamp::from_millisecond(after).ok()?;
        for _ in 0..STRETCHES_MAX {
            let offset = self.zone.to_offset(after);
            let end = self.zone.following(after).next().map(|change| (change.timestamp(), change.offset()));
            let candidate = self.next_at_offset(after, offset)?;
            let Some((change, new_offset)) = end.filter(|(change, _)| candidate >= *change) else {
                return Some(candidate.as_millisecond());
            };
            // In skipped local time: a fixed hour fires when the skip ends.
            let skipped_end = change.as_second() + i64::from(new_offset.seconds());
            let local = candidate.as_second() + i64::from(offset.seconds());
            if !self.hour_is_free && new_offset > offset && local < skipped_end {
                return Some(change.as_millisecond());
            }
            if let Some(found) = self.first_after_change(change, offset, new_offset) {
                return Some(found);
            }
            after = change;
        }
        None
    }

    /// The next match if the UTC offset did not change.
    fn next_at_offset(&self, after: Timestamp, offset: Offset) -> Option<Timestamp> {
        let local = DateTime::<Utc>::from_timestamp(after.as_second() + i64::from(offset.seconds()), 0)?;
        let next = self.cron.find_next_occurrence(&local, false).ok()?;
        Timestamp::from_second(next.timestamp() - i64::from(offset.seconds())).ok()
    }

    /// The first match from the change on, before the next change.
    fn first_after_change(&self, change: Timestamp, old: Offset, new: Offset) -> Option<Millis> {
        let just_before = change.checked_sub(jiff::SignedDuration::from_secs(1)).ok()?;
        let mut candidate = self.next_at_offset(just_before, new)?;
        if !self.hour_is_free && new < old {
            // The second pass of repeated local time: a fixed hour has fired in the first.
            let repeated_until = change.as_second() + i64::from(old.seconds() - new.seconds());
            while candidate.as_second() < repeated_until {
                candidate = self.next_at_offset(candidate, new)?;
            }
        }
        let end = self.zone.following(change).next().map(|next| next.timestamp());
        end.is_none_or(|end| candidate < end).then(|| candidate.as_millisecond())
    }
}

/// The tick to serve at `now` when `last` was the last one, if any is due. Several missed ticks are one.
pub fn due(schedule: &Schedule, last: Millis, now: Millis) -> Option<Millis> {
    if last > now + AHEAD_MAX_MS {
        return None;
    }
    schedule.next(last).filter(|next| *next <= now).map(|_| now)
}

/// The two schedules of the engine.
#[derive(Clone, Debug)]
pub struct Timetable {
    /// Incremental runs.
    pub sync: Schedule,
    /// Full runs.
    pub reconcile: Schedule,
}

/// Serves ticks until the engine stops. A tick starts runs and makes no call.
///
/// # Errors
/// The tick source's errors at start.
pub async fn tick(engine: Engine, timetable: Timetable) -> Result<(), JobSchedulerError> {
    let mut scheduler = JobScheduler::new().await?;
    let stop = engine.0.stop.clone();
    let ticker = Ticker { engine: Arc::downgrade(&engine.0), timetable, busy: Mutex::const_new(()) };
    let ticker = Arc::new(ticker);
    drop(engine);
    let ticks = Arc::clone(&ticker);
    let job = Job::new_async(TICK, move |_, _| {
        let ticker = Arc::clone(&ticks);
        Box::pin(async move { ticker.serve().await })
    })?;
    scheduler.add(job).await?;
    scheduler.start().await?;
    // The tick source sleeps until a wall-clock time: after the clock is set back, for as long as it was ahead.
    let mut poll = tokio::time::interval(POLL_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = poll.tick() => ticker.serve().await,
        }
    }
    scheduler.shutdown().await
}

struct Ticker {
    /// Weak, because the tick source drops its job late, and the store would stay open with it.
    engine: Weak<Inner>,
    timetable: Timetable,
    busy: Mutex<()>,
}

impl Ticker {
    async fn serve(&self) {
        let Some(engine) = self.engine.upgrade().map(Engine) else { return };
        // The tick source starts the next tick also while one is running.
        let Ok(_one) = self.busy.try_lock() else { return };
        // The tick source survives a panic, so without supervision no walk would start any more.
        let store = engine.0.deps.store.clone();
        let served = async {
            if let Err(error) = serve_due(&engine, &self.timetable).await {
                error.warn("failed to start a scheduled walk; the next tick retries");
            }
        };
        store.supervisor().supervise("the schedule", served).await;
    }
}

/// Starts the runs that are due. A full run covers an incremental one that is due at the same time.
///
/// # Errors
/// The store's errors; the runs stay due.
pub async fn serve_due(engine: &Engine, timetable: &Timetable) -> Result<(), StoreError> {
    let full = take_due(engine, "reconcile", &timetable.reconcile).await?;
    let incremental = take_due(engine, "sync", &timetable.sync).await?;
    if let Some(at) = full {
        engine.walk_all(Mode::Full).await?;
        engine.0.deps.store.keep_time("reconcile", at).await?;
    }
    if let Some(at) = incremental {
        engine.walk_all(Mode::Incremental).await?;
        engine.0.deps.store.keep_time("sync", at).await?;
    }
    Ok(())
}

async fn take_due(engine: &Engine, name: &str, schedule: &Schedule) -> Result<Option<Millis>, StoreError> {
    let store = &engine.0.deps.store;
    let now = store.clock().now();
    match store.kept_time(name)? {
        Some(last) if last <= now + AHEAD_MAX_MS => Ok(due(schedule, last, now)),
        // The first tick ever, or a clock that was set back: count from now.
        _ => store.keep_time(name, now).await.map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use super::{Schedule, due};

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    }

    fn ticks(expression: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
        let schedule = Schedule::parse(expression, zone).unwrap();
        let (mut now, until) = (at(from), at(until));
        let mut found = Vec::new();
        while let Some(next) = schedule.next(now).filter(|next| *next < until) {
            assert!(next > now, "{expression}: a tick must lie ahead");
            found.push(crate::domain::clock::rfc3339(next));
            now = next;
        }
        found
    }

    /// Ticks within one local day, given by its bounds in UTC.
    fn count(expression: &str, from: &str, until: &str) -> usize {
        let before = crate::domain::clock::rfc3339(at(from) - 1000);
        ticks(expression, "Europe/Amsterdam", &before, until).len()
    }

    #[test]
    fn a_fixed_hour_fires_once_a_day_over_both_dst_changes() {
        // 2026-03-29: 02:00 -> 03:00. 2026-10-25: 03:00 -> 02:00.
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Amsterdam", "2026-03-27T12:00:00Z", "2026-03-31T12:00:00Z"),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]
        );
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Amsterdam", "2026-10-23T12:00:00Z", "2026-10-27T12:00:00Z"),
            ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z", "2026-10-27T01:30:00Z"]
        );
        assert_eq!(count("0 30 3 * * *", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"), 1);
    }

    #[test]
    fn quarter_hours_follow_real_time_over_both_dst_changes() {
        assert_eq!(count("0 */15 * * * *", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"), 92);
        assert_eq!(count("0 */15 * * * *", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"), 100);
        assert_eq!(count("*/15 * * * *", "2026-06-01T22:00:00Z", "2026-06-02T22:00:00Z"), 96);
    }

    #[test]
    fn dst_changes_of_half_an_hour_are_handled() {
        // Lord Howe moves by half an hour.
        assert_eq!(
            ticks("0 45 1 * * *", "Australia/Lord_Howe", "2026-04-03T00:00:00Z", "2026-04-06T00:00:00Z").len(),
            3
        );
        assert_eq!(
            ticks("0 15 2 * * *", "Australia/Lord_Howe", "2026-10-02T00:00:00Z", "2026-10-05T00:00:00Z").len(),
            3
        );
        assert_eq!(ticks("0 0 0 1 1 *", "UTC", "2026-01-02T00:00:00Z", "2028-06-01T00:00:00Z").len(), 2);
    }

    #[test]
    fn missed_ticks_collapse_into_one() {
        let schedule = Schedule::parse("0 */15 * * * *", "Europe/Amsterdam").unwrap();
        let asleep = at("2026-05-01T00:00:00Z");
        let awake = at("2026-05-02T02:00:01Z");
        let served = due(&schedule, asleep, awake).unwrap();
        assert_eq!(due(&schedule, served, awake), None);
        assert_eq!(due(&schedule, served, at("2026-05-02T02:14:59Z")), None);
        assert!(due(&schedule, served, at("2026-05-02T02:15:00Z")).is_some());
        assert_eq!(due(&schedule, at("2100-01-01T00:00:00Z"), awake), None, "stored by a wrong clock");
    }

    #[test]
    fn an_invalid_schedule_is_rejected_with_an_example() {
        assert!(Schedule::parse("every day", "UTC").unwrap_err().contains("0 */15 * * * *"));
        assert!(Schedule::parse("0 99 * * * *", "UTC").is_err());
        assert!(Schedule::parse("0 0 * * * *", "Europe/Rotterdam").unwrap_err().contains("Europe/Amsterdam"));
        assert_eq!(Schedule::parse("0 0 0 30 2 *", "UTC").unwrap().next(0), None, "never");
    }
}
