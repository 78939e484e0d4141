//! Staying the owner: heartbeats in the register, and an end of calls before another process may begin.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::bounds::{BEAT, BEAT_ALONE, END, STANDBY_GONE, calls_until, promise};
use super::state::{Claimed, Owner, refusal};
use super::watch::{Verdict, Watch};
use crate::gate::{BootTime, Watchdog};
use crate::sink::mysql::{Claim, Hold, Promise, Registered, Role};
use crate::sink::{SinkError, SinkErrorClass, SinkHealth};
use crate::store::{Ownership, Store, StoreError};
use crate::supervisor::OWNERSHIP;

/// Pause after a heartbeat that was not answered.
const MISSED_PAUSE: Duration = Duration::from_millis(500);
/// Pause between attempts to become the owner after a start without MySQL.
const CLAIM_PAUSE: Duration = Duration::from_secs(1);
/// Interval of looks whether the calls in flight are dropped.
const DROP_LOOK: Duration = Duration::from_millis(10);

/// What became of a heartbeat.
enum Beaten {
    /// The standby's row, if it could be read.
    Confirmed(Option<Box<Registered>>),
    /// The row is another's.
    Replaced(Box<Registered>),
    Away(SinkError),
}

/// A heartbeat: when it was sent, what it promised, and what became of it.
struct Beat {
    sent: BootTime,
    standby: String,
    beaten: Beaten,
}

/// What the owner holds itself to.
struct Tenure {
    /// When the last confirmed heartbeat was sent.
    last: BootTime,
    /// The short bounds hold, for the sake of a standby.
    has_standby: bool,
    is_open: bool,
    is_away: bool,
    /// The standby's session and beats, and when they last moved.
    seen: Option<(String, u64, BootTime)>,
    watchdog: Option<Watchdog>,
}

impl Tenure {
    /// The standby to promise the short bounds for; empty: none.
    fn standby(&self) -> String {
        let fresh = self.seen.as_ref().filter(|(_, _, at)| BootTime::now().since(*at) < STANDBY_GONE);
        fresh.filter(|_| self.has_standby).map(|(session, ..)| session.clone()).unwrap_or_default()
    }

    /// Notes the standby's row; returns whether one is there.
    fn notes_standby(&mut self, row: &Registered, now: BootTime) -> bool {
        let (session, beats) = (&row.member.session, row.beats);
        match &self.seen {
            _ if row.hold != Hold::Owned => self.seen = None,
            Some((known, counted, _)) if known == session && *counted == beats => {}
            // One heartbeat may be an old one.
            Some((known, ..)) if known == session => self.seen = Some((session.clone(), beats, now)),
            _ => {
                let long_ago = BootTime::after_boot(now.since_boot().saturating_sub(STANDBY_GONE));
                self.seen = Some((session.clone(), beats, long_ago));
            }
        }
        self.seen.as_ref().is_some_and(|(_, _, at)| now.since(*at) < STANDBY_GONE)
    }
}

impl Owner {
    /// Beats until the process ends, or until another one has taken over.
    pub(in crate::app) async fn keep(self, store: Store, health: SinkHealth, stop: CancellationToken) {
        let kept = async {
            if self.claimed().is_none() {
                health.set_calls_wait(!self.0.gate.is_open());
                self.claim_later(&store).await?;
                health.set_calls_wait(false);
            }
            self.beat_on(&store, &health).await
        };
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = kept => ended,
        };
        if let Err(why) = ended {
            self.lose(why);
            store.supervisor().part_failed(OWNERSHIP);
        }
    }

    /// Becomes the owner once MySQL can be reached. Only what changes nothing else may happen now: lanes and budgets are
    /// made already.
    async fn claim_later(&self, store: &Store) -> Result<(), String> {
        let mut watch = Watch::default();
        loop {
            tokio::time::sleep(CLAIM_PAUSE).await;
            let Ok(rows) = self.rows().await else {
                watch.restart();
                continue;
            };
            let verdict = self.judge(&mut watch, &rows.owner);
            let is_blank = store.is_blank().unwrap_or(false);
            match verdict {
                Verdict::Unknown => {}
                Verdict::Alive | Verdict::Silent(_) => {
                    return Err(refusal(&rows.owner, &self.0.mysql, "This process made no call without MySQL"));
                }
                _ if !is_blank && !self.trusts_budgets(verdict, &rows.owner) => {
                    return Err(
                        "the MySQL schema had another owner meanwhile: this process must begin again".to_owned()
                    );
                }
                _ => match self.take(&rows.owner).await {
                    Ok(Some(claimed)) => {
                        return self.begin(store, claimed).await.map_err(|error| error.to_string());
                    }
                    Ok(None) => watch.restart(),
                    Err(error) => tracing::debug!(%error, "the ownership of the MySQL schema is not confirmed yet"),
                },
            }
        }
    }

    /// # Errors
    /// Why this process is the owner no longer.
    async fn beat_on(&self, store: &Store, health: &SinkHealth) -> Result<(), String> {
        let Some(Claimed { epoch, at, .. }) = self.claimed() else { return Ok(()) };
        let mut tenure =
            Tenure { last: at, has_standby: false, is_open: true, is_away: false, seen: None, watchdog: None };
        let mut pause = Duration::ZERO;
        loop {
            let mut next = pin!(self.beat_after(pause, epoch, tenure.standby()));
            let beat = loop {
                let deadline = calls_until(tenure.last, tenure.has_standby);
                tokio::select! {
                    biased;
                    beat = &mut next => break beat,
                    () = tokio::time::sleep(deadline.since(BootTime::now())), if tenure.is_open => {
                        health.set_calls_wait(true);
                        self.suspend(&mut tenure).await;
                    }
                }
            };
            pause = self.after_beat(store, &mut tenure, beat).await?;
            health.set_calls_wait(!tenure.is_open);
        }
    }

    /// The pause until the next heartbeat.
    async fn after_beat(&self, store: &Store, tenure: &mut Tenure, beat: Beat) -> Result<Duration, String> {
        let Beat { sent, standby, beaten } = beat;
        match beaten {
            Beaten::Confirmed(row) => {
                let is_there = row.is_some_and(|row| tenure.notes_standby(&row, sent));
                self.0.has_standby.store(is_there, Ordering::Relaxed);
                metrics::gauge!("waybill_standby").set(f64::from(u8::from(is_there)));
                self.confirmed(tenure, sent).await;
                if tenure.has_standby && standby.is_empty() {
                    self.give_up_short_bounds(store, tenure).await;
                } else if !tenure.has_standby && is_there {
                    self.take_on_short_bounds(store, tenure).await;
                    // Promised with the next one, at once.
                    return Ok(if tenure.has_standby { Duration::ZERO } else { BEAT_ALONE });
                }
                Ok(if tenure.has_standby { BEAT } else { BEAT_ALONE })
            }
            Beaten::Replaced(row) => Err(refusal(&row, &self.0.mysql, "It took over from this one")),
            Beaten::Away(error) => {
                if !std::mem::replace(&mut tenure.is_away, true) {
                    tracing::warn!(%error, "MySQL does not answer a heartbeat of this process; trying again");
                    self.note(store, |known| known.last_beat_ms = Some(milliseconds(tenure.last))).await;
                }
                Ok(MISSED_PAUSE)
            }
        }
    }

    /// Moves the deadlines on.
    async fn confirmed(&self, tenure: &mut Tenure, sent: BootTime) {
        tenure.last = sent;
        if tenure.has_standby
            && let Some(watchdog) = &tenure.watchdog
            && let Err(error) = watchdog.end_at(Some(sent + END)).await
        {
            tracing::error!(%error, "failed to move the watchdog on; it will end this process");
        }
        self.0.gate.open_until(calls_until(sent, tenure.has_standby));
        if !std::mem::replace(&mut tenure.is_open, true) || std::mem::take(&mut tenure.is_away) {
            tracing::info!("MySQL confirms again that this process owns the schema");
        }
    }

    /// Keeps the short bounds from now on. Only after this may they be promised.
    async fn take_on_short_bounds(&self, store: &Store, tenure: &mut Tenure) {
        let armed = async {
            let watchdog = match tenure.watchdog.take() {
                Some(watchdog) => watchdog,
                None => Watchdog::start().await?,
            };
            watchdog.end_at(Some(tenure.last + END)).await?;
            Ok::<Watchdog, std::io::Error>(watchdog)
        };
        match armed.await {
            Ok(watchdog) => tenure.watchdog = Some(watchdog),
            Err(error) => {
                return tracing::error!(%error, "this machine has no timer that ends a stopped process: the standby waits long");
            }
        }
        if !self.note(store, |known| known.has_standby = true).await {
            return self.disarm(tenure).await;
        }
        tenure.has_standby = true;
        self.0.gate.open_until(calls_until(tenure.last, true));
        tracing::info!("a standby is there: without MySQL, calls stop after {} s", super::bounds::CALLS.as_secs());
    }

    /// The register says again that no standby may take over soon.
    async fn give_up_short_bounds(&self, store: &Store, tenure: &mut Tenure) {
        tenure.has_standby = false;
        self.disarm(tenure).await;
        self.0.gate.open_until(calls_until(tenure.last, false));
        self.note(store, |known| known.has_standby = false).await;
        tracing::info!("the standby is gone");
    }

    async fn disarm(&self, tenure: &mut Tenure) {
        if let Some(watchdog) = &tenure.watchdog
            && let Err(error) = watchdog.end_at(None).await
        {
            tracing::error!(%error, "failed to disarm the watchdog; it will end this process");
        }
    }

    /// Stops calling, before the deadline of the watchdog: then the process may live on, to serve reads and to write.
    async fn suspend(&self, tenure: &mut Tenure) {
        self.0.gate.close();
        tenure.is_open = false;
        tracing::warn!("MySQL has not confirmed in time that this process owns the schema: calls wait for it");
        while self.0.gate.in_flight() > 0 {
            tokio::time::sleep(DROP_LOOK).await;
        }
        self.disarm(tenure).await;
    }

    async fn beat_after(&self, pause: Duration, epoch: u64, standby: String) -> Beat {
        tokio::time::sleep(pause).await;
        let sent = BootTime::now();
        let promised = Promise { time: promise(!standby.is_empty()), standby: &standby };
        let beaten = match self.0.register.beat(Role::Owner, &self.0.member.session, promised).await {
            Ok(true) => {
                let members = self.0.register.read().await;
                Beaten::Confirmed(members.ok().and_then(|members| members.standby).map(Box::new))
            }
            Ok(false) => self.reassert(epoch, &standby).await,
            // What does not exist cannot be taken; the writer makes the table again.
            Err(error) => Beaten::Away(error),
        };
        Beat { sent, standby, beaten }
    }

    /// Claims a row again that MySQL has forgotten, as after a restore from a backup.
    async fn reassert(&self, epoch: u64, standby: &str) -> Beaten {
        let row = match self.rows().await {
            Ok(rows) => rows.owner,
            Err(error) => return Beaten::Away(error),
        };
        if row.member.session == self.0.member.session {
            return Beaten::Confirmed(None);
        }
        if row.epoch > epoch || (row.epoch == epoch && !row.member.session.is_empty()) {
            return Beaten::Replaced(Box::new(row));
        }
        tracing::warn!(
            epoch,
            known = row.epoch,
            "MySQL had forgotten that this process owns the schema; noting it again"
        );
        let claim = Claim { role: Role::Owner, from: &row, epoch, promise: promise(!standby.is_empty()) };
        match self.0.register.claim(claim, &self.0.member).await {
            Ok(true) => Beaten::Confirmed(None),
            Ok(false) => Beaten::Away(SinkError::new(SinkErrorClass::Repeat, "the register has changed meanwhile")),
            Err(error) => Beaten::Away(error),
        }
    }

    /// Changes the note for a start without MySQL. False: it could not be written.
    async fn note(&self, store: &Store, change: impl FnOnce(&mut Ownership)) -> bool {
        let noted = async {
            let Some(mut note) = store.ownership()? else { return Ok::<bool, StoreError>(false) };
            change(&mut note);
            note.boot.clone_from(&self.0.boot);
            store.save_ownership(&note).await?;
            Ok(true)
        };
        noted.await.unwrap_or_else(|error| {
            error.warn("failed to note the ownership of the schema; a start without MySQL waits for it");
            false
        })
    }
}

fn milliseconds(at: BootTime) -> u64 {
    u64::try_from(at.since_boot().as_millis()).unwrap_or(u64::MAX)
}
