//! Health for every surface: collects faults of the installation as a whole, and logs changes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use super::{Service, ServiceError};
use crate::domain::clock::rfc3339;
use crate::domain::health::{Code, Fault, Health, HealthChange, Known, Problem};
use crate::domain::{ShopId, Timestamp, counted, rough_duration};
use crate::sink::Sink;
use crate::store::{LOGIN_RULE, StoreError, blocking};

/// Least time between two checks: changes within it are combined.
const PAUSE: Duration = Duration::from_millis(250);
/// Check interval for the disk, the outbox and login pauses, which send no notification.
const FAULTS_EVERY: Duration = Duration::from_secs(10);
/// Most changes logged one by one per check; an API outage affects every stream.
const LOGGED_MAX: usize = 50;

/// Shops that are not restored and named in the reason.
const UNRESTORED_NAMED: usize = 5;

/// Name of the stored time since when the sink accepts nothing, so that a restart does not reset it. 0: it accepts.
const SINK_AWAY: &str = "sink_away";

impl Service {
    /// The current health.
    pub(super) fn health_now(&self) -> Result<Arc<Health>, StoreError> {
        self.health_book.look(self.faults())
    }

    /// The health of some shops. Faults of the installation are shown without names and numbers.
    pub(super) fn health_of(&self, of: &HashSet<ShopId>) -> Result<Health, StoreError> {
        let faults = self.faults();
        let said: Vec<Fault> = faults.iter().map(without_names).collect();
        self.health_book.look_at(of, faults, &said)
    }

    /// What is not well of the streams that a pass was asked for, which began then. Shops that an operator paused are
    /// left out.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be read.
    pub fn pass_problems(
        &self,
        began: Timestamp,
        takes: impl Fn(&str, &str) -> bool,
    ) -> Result<Vec<Problem>, ServiceError> {
        let shops = self.store.shops()?;
        let left_out: HashSet<&str> =
            shops.iter().filter(|shop| shop.is_paused_on_request()).map(|shop| shop.id.as_str()).collect();
        let is_asked_for = |shop: &ShopId, resource: &str| !left_out.contains(shop.as_str()) && takes(shop, resource);
        Ok(self.health_book.look_whole(self.faults())?.problems(began, is_asked_for))
    }

    /// Faults of the installation as a whole, including host and user names.
    fn faults(&self) -> Vec<Fault> {
        let now = self.store.clock().now();
        let mut found = Vec::new();
        let mut add = |code, text: String| found.push(Fault { code, since: None, text });
        if *self.store.failed().borrow() {
            let part = self.store.supervisor().failed_part().unwrap_or("the store");
            add(Code::PartFailed, format!("{part} failed; the process must be restarted"));
        }
        if let Err(error) = self.store.check_room() {
            add(Code::NoRoom, format!("nothing can be written now: {error}"));
        }
        if let Some(error) = self.sink_health.error() {
            add(Code::SinkUnavailable, format!("MySQL takes no documents; they wait in the outbox: {error}"));
        }
        let sink_away = self.sink_away().unwrap_or_default().filter(|at| *at <= now);
        let is_mysql = matches!(self.sink, Sink::Mysql(_));
        if is_mysql && !self.sink_health.is_known() {
            let (code, text) = match sink_away {
                // The state of the previous process holds until MySQL responds.
                Some(_) => {
                    (Code::SinkUnavailable, "MySQL took no documents before the start, and has not answered since")
                }
                None => (Code::SinkUnknown, "MySQL has not answered yet since the start"),
            };
            add(code, text.to_owned());
        }
        if self.is_moving_archive() {
            let left = match self.archive_left() {
                0 => String::new(),
                left => format!(", {left} are left"),
            };
            let text = "documents of the embedded archive move to MySQL";
            add(Code::ArchiveMoving, format!("{text}{left}; until then MySQL and the API do not show all documents"));
        }
        // A process that runs has noted the new kind, and says of each resource what it does.
        if matches!(self.sink, Sink::Archive(_))
            && let Some(kind) = self.store.sink_kind().unwrap_or_default().filter(|kind| *kind != self.sink.kind())
        {
            let text = format!("the documents are in another sink ({kind}), which is not configured any more");
            add(Code::SinkChanged, format!("{text}: they are read again into the embedded archive"));
        }
        let bytes = self.store.outbox_bytes().unwrap_or(0);
        if bytes > self.outbox_bytes_max {
            add(Code::OutboxFull, format!("the outbox holds {bytes} bytes, so fetching pauses"));
        }
        match self.restore_error() {
            Some(why) => add(Code::RestorePending, format!("the shops in MySQL are not restored yet: {why}")),
            None if is_mysql && self.store.is_blank().unwrap_or(false) => {
                add(Code::RestorePending, "the shops in MySQL could not be read yet".to_owned());
            }
            None => {}
        }
        if let Some(text) = self.unrestored_text() {
            add(Code::ShopsUnrestored, text);
        }
        if let Some(left) = self.store.pause_left("", LOGIN_RULE).ok().filter(|left| !left.is_zero()) {
            let until = now + left;
            add(Code::LoginsPaused, format!("logins are paused until {}, as the login host asked", rfc3339(until)));
        }
        if let Some(ahead) = self.source.clock_ahead() {
            add(Code::ClockWrong, clock_text(ahead));
        }
        for fault in found.iter_mut().filter(|fault| matches!(fault.code, Code::SinkUnavailable | Code::SinkUnknown)) {
            fault.since = sink_away;
        }
        self.health_book.note_since(&mut found, now);
        found
    }

    /// Which shops of MySQL are not restored though its others are; none: all are.
    fn unrestored_text(&self) -> Option<String> {
        let shops = self.store.unrestored_shops().ok().filter(|shops| !shops.is_empty())?;
        // All of them wait for the master key, which is said.
        if self.restore_error().is_some() {
            return None;
        }
        let named = shops.iter().take(UNRESTORED_NAMED);
        let named: Vec<String> = named.map(|shop| format!("{} ({}): {}", shop.id, shop.name, shop.fault)).collect();
        let more = match shops.len().saturating_sub(UNRESTORED_NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let count = counted(shops.len(), "shop of MySQL is not restored", "shops of MySQL are not restored");
        Some(format!("{count}, and not synced: {}{more}", named.join("; ")))
    }

    /// Since when the sink accepts nothing; none: it accepted documents when last checked.
    fn sink_away(&self) -> Result<Option<Timestamp>, StoreError> {
        self.store.saved_time(SINK_AWAY)
    }

    /// Stores since when the sink accepts nothing, or that it accepts again. Writes only on a change.
    async fn store_sink_away(&self) -> Result<(), StoreError> {
        let away = self.sink_health.error().is_some();
        match self.sink_away()? {
            None if away => self.store.save_time(SINK_AWAY, self.store.clock().now()).await,
            Some(_) if !away && self.sink_health.is_known() => self.store.clear_time(SINK_AWAY).await,
            _ => Ok(()),
        }
    }

    /// Logs changes of the health until the process ends. Checks when a record or the sink's state changes, and when
    /// something becomes overdue.
    pub(crate) async fn watch_health(self, stop: CancellationToken) {
        let mut known = Known::default();
        // Logs the state at the start too, so that each recovery in the log has its beginning.
        if let Some(health) = self.health_book.take_first() {
            log_changes(known.changes(&health));
        }
        while !stop.is_cancelled() {
            let service = self.clone();
            match blocking(move || service.health_now()).await {
                Ok(health) => self.log_changes(known.changes(&health)),
                Err(error) => error.warn("failed to compute the health; trying again"),
            }
            if let Err(error) = self.store_sink_away().await {
                error.warn("failed to store the time of the sink outage; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.store.signals().changed.notified() => {}
                () = self.sink_health.changed() => {}
                () = tokio::time::sleep(self.until_next_look()) => {}
            }
        }
    }

    fn log_changes(&self, changes: Vec<HealthChange>) {
        for change in &changes {
            if let HealthChange::Well { shop_id: Some(shop), resource: Some(resource), .. } = change {
                self.engine.log_failures(shop, resource);
            }
        }
        log_changes(changes);
    }

    fn until_next_look(&self) -> Duration {
        let now = self.store.clock().now();
        let left = self.health_book.next_change().map(|at| at.since(now));
        left.map_or(FAULTS_EVERY, |left| left.min(FAULTS_EVERY))
    }
}

/// A fault for a restricted key: errors name hosts, users and folders, and numbers count the documents of all shops.
fn without_names(fault: &Fault) -> Fault {
    let text = match fault.code {
        Code::SinkUnavailable => "MySQL takes no documents now; they wait in the outbox",
        Code::ArchiveMoving => "documents move to MySQL; until then MySQL and the API do not show all documents",
        Code::OutboxFull => "the outbox is full, so fetching pauses",
        Code::NoRoom => "nothing can be written now",
        Code::RestorePending => "the shops in MySQL are not restored yet",
        Code::ShopsUnrestored => "shops of MySQL are not restored",
        _ => &fault.text,
    };
    Fault { text: text.to_owned(), ..fault.clone() }
}

/// Text about a wrong clock, in whole minutes: a reason with a new text counts as a change.
fn clock_text(ahead: SignedDuration) -> String {
    let way = if ahead.is_positive() { "ahead of" } else { "behind" };
    format!(
        "the clock of this machine is more than {} {way} the dates on the API's answers",
        rough_duration(Duration::from_secs(ahead.unsigned_abs().as_secs() / 60 * 60))
    )
}

fn log_changes(changes: Vec<HealthChange>) {
    let count = changes.len();
    for change in changes.into_iter().take(LOGGED_MAX) {
        match change {
            HealthChange::Unwell { state, reason } => tracing::warn!(
                shop.id = reason.shop_id.as_deref(),
                resource = reason.resource,
                state = state.name(),
                code = reason.code.name(),
                reason = reason.text,
                remedy = reason.remedy,
                "not well"
            ),
            HealthChange::Well { shop_id, resource, was } => {
                tracing::info!(shop.id = shop_id.as_deref(), resource, was, "well again");
            }
        }
    }
    if count > LOGGED_MAX {
        tracing::warn!(more = count - LOGGED_MAX, "more health changes; `waybill status` shows the current health");
    }
}
