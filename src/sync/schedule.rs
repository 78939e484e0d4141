//! Starts the walks that are due: the cron scheduler's jobs, and the step that serves them.
//!
//! Tokio-cron-scheduler runs three jobs by name: `sync`, `reconcile` and `housekeeping`. A job of the schedule only starts
//! runs, it makes no call. What is due is decided by [`serve_due`] alone, from the last served tick in the store: ticks
//! missed while the process was down or the machine slept are served once, however many they were.
//!
//! A timer serves too, every five seconds by the monotonic clock, since the scheduler alone misses ticks:
//! - it keeps no last tick, so it knows of none from before the start;
//! - it sleeps until a wall-clock time, so after the clock is set back, for as long as it was ahead;
//! - it takes a zone's offset when a job is added and keeps it, so after a DST change its ticks are an hour off;
//! - it parses an expression again after each tick, and then takes a day and a weekday for both required, where crontab
//!   and [`Schedule`] take either.

use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono_tz::Tz;
use croner::Cron;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio_cron_scheduler::job::JobLocked;
use tokio_cron_scheduler::{JobBuilder, JobScheduler, JobSchedulerError};

use super::{Engine, Inner};
use crate::domain::schedule::{Schedule, Timetable};
use crate::domain::{Mode, Timestamp};
use crate::store::StoreError;

/// A last tick further ahead of the clock than this was stored by a wrong clock.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// Each full minute.
const HOUSEKEEPING: &str = "0 * * * * *";
/// How often the timer serves what the scheduler missed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a job does. It overlaps itself if it runs longer than to its next tick.
pub type Work = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// A job of the scheduler.
fn job(name: &'static str, cron: Cron, zone: Tz, work: Work) -> Result<JobLocked, JobSchedulerError> {
    let mut builder = JobBuilder::new().with_timezone(zone).with_cron_job_type();
    builder.schedule = Some(cron);
    let run = move |_, _| {
        tracing::debug!(job.name = name, "a scheduled job runs");
        work()
    };
    builder.with_run_async(Box::new(run)).build()
}

/// Serves ticks and runs `housekeeping` until the engine stops.
///
/// # Errors
/// The scheduler's errors at start.
pub async fn run_jobs(engine: Engine, timetable: Timetable, housekeeping: Work) -> Result<(), JobSchedulerError> {
    let stop = engine.0.stop.clone();
    let Timetable { sync, reconcile } = timetable.clone();
    let server = Arc::new(Server { engine: Arc::downgrade(&engine.0), timetable, busy: Mutex::const_new(()) });
    drop(engine);
    let serve = || -> Work {
        let server = Arc::clone(&server);
        Box::new(move || Box::pin(Arc::clone(&server).serve()))
    };
    let minutes = HOUSEKEEPING.parse().map_err(|_| JobSchedulerError::ParseSchedule)?;
    let mut scheduler = JobScheduler::new().await?;
    scheduler.add(job("sync", sync.cron().clone(), sync.zone(), serve())?).await?;
    scheduler.add(job("reconcile", reconcile.cron().clone(), reconcile.zone(), serve())?).await?;
    scheduler.add(job("housekeeping", minutes, Tz::UTC, housekeeping)?).await?;
    scheduler.start().await?;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = looks.tick() => Arc::clone(&server).serve().await,
        }
    }
    scheduler.shutdown().await
}

/// Serves the ticks that are due, from whichever side it is called.
struct Server {
    /// Weak, because the scheduler drops its jobs late, and the store would stay open with them.
    engine: Weak<Inner>,
    timetable: Timetable,
    busy: Mutex<()>,
}

impl Server {
    async fn serve(self: Arc<Server>) {
        let Some(engine) = self.engine.upgrade().map(Engine) else { return };
        // Both jobs may fire in the same second, and the timer beside them.
        let Ok(_one) = self.busy.try_lock() else { return };
        // The scheduler survives a panic, so without supervision no walk would start any more.
        let store = engine.0.deps.store.clone();
        let served = async {
            if let Err(error) = serve_due(&engine, &self.timetable).await {
                error.warn("failed to start a scheduled walk; the next look retries");
            }
        };
        store.supervisor().supervise("the schedule", served).await;
    }
}

/// `now`, if a tick after `last` is due. Several missed ticks are one.
pub fn due(schedule: &Schedule, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
    schedule.next(last).filter(|next| *next <= now).map(|_| now)
}

/// Starts the runs that are due. A full run covers an incremental one that is due at the same time.
///
/// # Errors
/// The store's errors; the runs stay due.
pub async fn serve_due(engine: &Engine, timetable: &Timetable) -> Result<(), StoreError> {
    let full = due_now(engine, "reconcile", &timetable.reconcile).await?;
    let incremental = due_now(engine, "sync", &timetable.sync).await?;
    if let Some(at) = full {
        engine.walk_all(Mode::Full).await?;
        engine.0.deps.store.save_time("reconcile", at).await?;
    }
    if let Some(at) = incremental {
        engine.walk_all(Mode::Incremental).await?;
        engine.0.deps.store.save_time("sync", at).await?;
    }
    Ok(())
}

async fn due_now(engine: &Engine, name: &str, schedule: &Schedule) -> Result<Option<Timestamp>, StoreError> {
    let store = &engine.0.deps.store;
    let now = store.clock().now();
    match store.saved_time(name)? {
        Some(last) if last <= now + AHEAD_MAX => Ok(due(schedule, last, now)),
        // The first tick ever, or a clock that was set back: count from now.
        _ => store.save_time(name, now).await.map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use super::{due, job};
    use crate::domain::Timestamp;
    use crate::domain::schedule::{Schedule, time_zone};

    fn at(text: &str) -> Timestamp {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    fn schedule(expression: &str, zone: &str) -> Schedule {
        Schedule::parse(expression, time_zone(zone).unwrap()).unwrap()
    }

    #[test]
    fn missed_ticks_collapse_into_one() {
        let schedule = schedule("0 */15 * * * *", "Europe/Amsterdam");
        let asleep = at("2026-05-01T00:00:00Z");
        let awake = at("2026-05-02T02:00:01Z");
        let served = due(&schedule, asleep, awake).unwrap();
        assert_eq!(due(&schedule, served, awake), None);
        assert_eq!(due(&schedule, served, at("2026-05-02T02:14:59Z")), None);
        assert!(due(&schedule, served, at("2026-05-02T02:15:00Z")).is_some());
        assert_eq!(due(&schedule, at("2100-01-01T00:00:00Z"), awake), None, "stored by a wrong clock");
    }

    #[test]
    fn a_job_of_the_scheduler_first_fires_when_its_schedule_is_due() {
        for expression in ["0 */15 * * * *", "0 30 2 * * *", "0 0 3 1 * MON", "15 4 * * *"] {
            let schedule = schedule(expression, "UTC");
            let before = crate::domain::Clock::system().now();
            let job = job("sync", schedule.cron().clone(), schedule.zone(), Box::new(|| Box::pin(async {})));
            let next = i64::try_from(job.unwrap().job_data().unwrap().next_tick).unwrap() * 1000;
            let next = Timestamp::from_millis(next);
            let after = crate::domain::Clock::system().now();
            assert!(
                [schedule.next(before), schedule.next(after)].contains(&Some(next)),
                "{expression}: {next:?}, {:?}",
                schedule.next(before)
            );
        }
    }
}
