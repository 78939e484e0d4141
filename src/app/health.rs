//! Health as every surface shows it: gathers the facts, computes it, and logs its changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Inner;
use super::keeper::LOGIN;
use crate::domain::StreamId;
use crate::domain::clock::{Millis, rfc3339};
use crate::domain::health::{
    self, Change, Code, Facts, Fault, Health, Known, OpenRun, ResourceFacts, ShopFacts, StreamFacts, Ticks,
};
use crate::sink::Sink;
use crate::store::{StoreError, blocking};

/// A result is reused for this many times as long as it took, so that frequent readers cost little with thousands of shops.
const SERVES_FOR: u32 = 20;
/// Between two looks for changes: a quarter of a schedule, within these bounds.
const LOOK_MIN: Duration = Duration::from_millis(250);
const LOOK_MAX: Duration = Duration::from_secs(10);
/// The pause between two looks, as a multiple of how long one took.
const REST: u32 = 100;
/// The same where that would be longer than [`LOOK_MAX`].
const REST_MIN: u32 = 10;
/// Changes logged one by one at one look; an outage of the API concerns every stream.
const LOGGED_MAX: usize = 50;

/// Since when the sink takes nothing, as the store keeps it: a restart must not make the streams look younger. 0: it does.
const SINK_AWAY: &str = "sink_away";

/// What is remembered between two looks.
#[derive(Default)]
pub(super) struct HealthBook {
    last: Mutex<Option<Computed>>,
    /// When each fault of the installation was first seen.
    since: Mutex<BTreeMap<Code, Millis>>,
}

struct Computed {
    at: Instant,
    took: Duration,
    health: Arc<Health>,
}

impl Inner {
    /// How everything is. May be as old as a few times what computing it takes.
    pub(super) fn health_now(&self) -> Result<Arc<Health>, StoreError> {
        let mut last = self.health_book.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.as_ref().filter(|known| known.at.elapsed() < known.took * SERVES_FOR) {
            return Ok(Arc::clone(&known.health));
        }
        let begun = Instant::now();
        let health = Arc::new(self.health_of(None)?);
        let took = begun.elapsed();
        // What takes no time to compute is always computed.
        *last = (took > Duration::from_millis(5)).then(|| Computed {
            at: Instant::now(),
            took,
            health: Arc::clone(&health),
        });
        Ok(health)
    }

    /// How some shops are, or all. Of some, what is wrong with the installation is said without its names.
    pub(super) fn health_of(&self, of: Option<&HashSet<String>>) -> Result<Health, StoreError> {
        let now = self.store.clock().now();
        let sync = self.timetable.sync.clone();
        let ticks = Ticks::at(now, move |after| sync.next(after));
        let facts = Facts {
            now,
            means: self.means,
            stale_after: self.stale_after.map(|limit| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX)),
            ticks: &ticks,
            faults: self.faults(now, of.is_none()),
            shops: self.shop_facts(of)?,
        };
        Ok(health::assess(&facts))
    }

    fn shop_facts(&self, of: Option<&HashSet<String>>) -> Result<Vec<ShopFacts>, StoreError> {
        let mut open: HashMap<StreamId, Vec<OpenRun>> = HashMap::new();
        for run in self.store.open_runs()? {
            let (started_at, pending) = (run.started_at, run.pending());
            open.entry(run.stream).or_default().push(OpenRun { started_at, pending });
        }
        let mut parked = self.store.parked_by_resource()?;
        let mut found = Vec::new();
        for shop in self.store.shops()? {
            if of.is_some_and(|of| !of.contains(&shop.id)) {
                continue;
            }
            let mut resources = Vec::new();
            for definition in self.definitions_of(&shop) {
                let streams = definition.streams(&shop.id).map(|stream| {
                    let open = open.remove(&stream).unwrap_or_default();
                    let (status, unproved) = (self.store.stream_status(&stream)?, self.store.unproved(&stream)?);
                    Ok(StreamFacts { status, unproved, open })
                });
                let streams = streams.collect::<Result<Vec<_>, StoreError>>()?;
                let every = definition.list.every.map(|every| i64::try_from(every.as_millis()).unwrap_or(i64::MAX));
                let parked = parked.remove(&(shop.id.clone(), definition.name.clone())).unwrap_or(0);
                resources.push(ResourceFacts { name: definition.name.clone(), every, streams, parked });
            }
            found.push(ShopFacts { shop, resources });
        }
        Ok(found)
    }

    /// What is wrong with the installation as a whole. `in_full`: with what names its hosts and users.
    fn faults(&self, now: Millis, in_full: bool) -> Vec<Fault> {
        let mut found = Vec::new();
        let mut add = |code, text: String| found.push(Fault { code, since: None, text });
        if *self.store.failed().borrow() {
            let part = self.store.failed_part().unwrap_or("the store");
            add(Code::PartFailed, format!("{part} failed; the process must be restarted"));
        }
        if let Err(error) = self.store.has_room() {
            add(Code::NoRoom, format!("nothing can be written now: {error}"));
        }
        if let Some(error) = self.health.error() {
            let error = if in_full { error } else { "the database takes no documents now".to_owned() };
            add(Code::SinkUnavailable, format!("MySQL takes no documents; they wait in the outbox: {error}"));
        }
        let is_mysql = matches!(self.sink, Sink::Mysql(_));
        if is_mysql && !self.health.is_known() {
            add(Code::SinkUnknown, "MySQL has not answered yet since the start".to_owned());
        }
        let bytes = self.store.outbox_bytes().unwrap_or(0);
        if bytes > self.outbox_bytes_max {
            add(Code::OutboxFull, format!("the outbox holds {bytes} bytes, so fetching pauses"));
        }
        match self.unrestored() {
            Some(why) => add(Code::RestorePending, format!("the shops that MySQL knows are not restored yet: {why}")),
            None if is_mysql && self.store.is_blank().unwrap_or(false) => {
                add(Code::RestorePending, "which shops MySQL knows could not be read yet".to_owned());
            }
            None => {}
        }
        if let Some(left) = self.store.pause_left("", LOGIN).ok().filter(|left| !left.is_zero()) {
            let until = now.saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
            add(Code::LoginsPaused, format!("the login host wants no logins until {}", rfc3339(until)));
        }
        let mut since = self.health_book.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|code, _| found.iter().any(|fault| fault.code == *code));
        let sink_away = self.sink_away().unwrap_or_default().filter(|at| *at <= now);
        for fault in &mut found {
            let seen = *since.entry(fault.code).or_insert(now);
            let is_sink = matches!(fault.code, Code::SinkUnavailable | Code::SinkUnknown);
            fault.since = Some(sink_away.filter(|_| is_sink).map_or(seen, |away| away.min(seen)));
        }
        found
    }

    /// Since when the sink takes nothing; none: it took documents when that was last known.
    fn sink_away(&self) -> Result<Option<Millis>, StoreError> {
        Ok(self.store.kept_time(SINK_AWAY)?.filter(|at| *at > 0))
    }

    /// Stores when the sink began to take nothing, and that it takes documents again. Writes at a change only.
    async fn store_sink_away(&self) -> Result<(), StoreError> {
        let away = self.health.error().is_some();
        match self.sink_away()? {
            None if away => self.store.keep_time(SINK_AWAY, self.store.clock().now()).await,
            Some(_) if !away && self.health.is_known() => self.store.keep_time(SINK_AWAY, 0).await,
            _ => Ok(()),
        }
    }

    /// Looks again and again until the process ends, and logs what changed.
    pub(super) async fn watch_health(self: Arc<Inner>) {
        let mut known = Known::default();
        while !self.stop.is_cancelled() {
            let inner = Arc::clone(&self);
            let looked = blocking(move || {
                let begun = Instant::now();
                inner.health_of(None).map(|health| (health, begun.elapsed()))
            });
            let took = match looked.await {
                Ok((health, took)) => {
                    log_changes(known.changes(&health));
                    took
                }
                Err(error) => {
                    error.warn("the health could not be computed; trying again");
                    LOOK_MAX
                }
            };
            if let Err(error) = self.store_sink_away().await {
                error.warn("the time since which the sink takes nothing could not be stored; trying again");
            }
            // One slow look, as on a busy machine, must not hold the news up for long.
            let rest = (took * REST).min(LOOK_MAX.max(took * REST_MIN));
            let pause = self.look_pause().max(rest);
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn look_pause(&self) -> Duration {
        let now = self.store.clock().now();
        let first = self.timetable.sync.next(now);
        let second = first.and_then(|first| self.timetable.sync.next(first));
        let gap = first.zip(second).and_then(|(first, second)| u64::try_from(second - first).ok());
        gap.map_or(LOOK_MAX, |gap| Duration::from_millis(gap / 4)).clamp(LOOK_MIN, LOOK_MAX)
    }
}

fn log_changes(changes: Vec<Change>) {
    let count = changes.len();
    for change in changes.into_iter().take(LOGGED_MAX) {
        match change {
            Change::Unwell { state, reason } => tracing::warn!(
                shop.id = reason.shop_id,
                resource = reason.resource,
                state = state.name(),
                code = reason.code.name(),
                reason = reason.text,
                remedy = reason.remedy,
                "not well"
            ),
            Change::Well { shop_id, resource, was } => {
                tracing::info!(shop.id = shop_id, resource, was, "well again");
            }
        }
    }
    if count > LOGGED_MAX {
        tracing::warn!(more = count - LOGGED_MAX, "more changes of health; `waybill status` shows how all is now");
    }
}
