//! Becoming the owner.

use std::sync::Arc;
use std::time::Duration;

use super::bounds::{ALONE, NOTICED, calls_until, promise};
use super::fitness::{Fitness, Unfit};
use super::identity::{self, Life, life_of, share_lock};
use super::rebuild::{replace_store, use_up_budgets};
use super::seat::Seat;
use super::state::{Claimed, Entry, Opened, Opening, Owner, boot_time, refusal};
use super::watch::{Look, Verdict, Watch};
use crate::app::open_store::OpenedStore;
use crate::gate::BootTime;
use crate::sink::mysql::{Claim, Hold, Members, Registered, Role};
use crate::sink::{Mysql, Sink, SinkError, SinkErrorClass};
use crate::store::{Ownership, Store, StoreError};
use crate::sync::HandedBudgets;

/// Interval of looks at the register.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What to do about an owner that works.
const STOP_IT: &str = "Stop that one first (SIGTERM), or start this one with `waybill serve --standby`: it waits, and takes over when \
     that one ends";
/// The same about one that is silent.
const VOUCH: &str = "It may still work, cut off from MySQL";

/// The rows of the register.
pub(super) struct Both {
    pub(super) owner: Registered,
    pub(super) standby: Registered,
}

/// A row that this process has taken.
struct Taken<'a> {
    verdict: Verdict,
    from: &'a Registered,
    claimed: Claimed,
}

/// What to do after a look.
enum Step {
    Take,
    Wait,
    Refuse(String),
}

/// Becomes the owner of the schema before anything else may happen. Without MySQL there is nothing
/// to own. If MySQL cannot be reached, the gate is closed until it confirms, unless this data directory owned the schema
/// on this machine until a moment ago and no standby may have taken over.
///
/// # Errors
/// Another process owns the schema.
pub(in crate::app) async fn open(
    opening: Opening<'_>,
    opened: OpenedStore,
    sink: &Sink,
    entry: &Entry,
) -> anyhow::Result<Opened> {
    let Sink::Mysql(mysql) = sink else { return Ok(Opened { opened, owner: None, handed: None }) };
    mysql.require_owner();
    let owner = Owner::of(&opening, &opened.store, mysql, entry);
    let (watch, seat, fitness) = (Watch::default(), Seat::default(), Fitness::default());
    Claiming { opening, entry, mysql, opened, owner, watch, seat, fitness, taking: None }.run().await
}

/// For a command that owns nothing. It may log in, so it is refused beside an owner that works with
/// another data directory, as far as MySQL can say.
///
/// # Errors
/// Another process owns the schema.
pub(in crate::app) async fn open_at_rest(
    opening: Opening<'_>,
    opened: OpenedStore,
    sink: &Sink,
) -> anyhow::Result<Opened> {
    if let Sink::Mysql(mysql) = sink
        && let Ok(Members { owner: Some(row), .. }) = mysql.register().read().await
    {
        let us = identity::of_this_process(&opened.store, &opening.config.data_dir, "");
        let is_other = row.hold == Hold::Owned && row.member.directory != us.directory;
        if is_other && row.silent < NOTICED && life_of(&row.member) != Life::Gone {
            anyhow::bail!(refusal(&row, mysql, "Run this command there, or ask its API"));
        }
    }
    Ok(Opened { opened, owner: None, handed: None })
}

/// A process on its way to be the owner.
struct Claiming<'a> {
    opening: Opening<'a>,
    entry: &'a Entry,
    mysql: &'a Arc<Mysql>,
    /// It may be replaced by a new one.
    opened: OpenedStore,
    owner: Owner,
    watch: Watch,
    seat: Seat,
    fitness: Fitness,
    /// What this process takes, until that is confirmed.
    taking: Option<(Verdict, Registered)>,
}

impl Claiming<'_> {
    /// # Errors
    /// Another process owns the schema; a standby that could not work.
    async fn run(mut self) -> anyhow::Result<Opened> {
        loop {
            let row = match self.owner.look(self.entry, &mut self.seat).await {
                Ok(row) => row,
                Err(error) if self.entry.is_standby() => {
                    // The owner could not beat either.
                    self.watch.restart();
                    self.wait_for_mysql(&error.text).await;
                    continue;
                }
                // Without room for the register there is no other owner either.
                Err(error) => return self.begin_unconfirmed(&error, error.class == SinkErrorClass::NoRoom),
            };
            // The row is ours already if the answer to an earlier claim was lost.
            let known = self.taking.take().filter(|_| row.member.session == self.owner.0.member.session);
            let is_ours = known.is_some();
            let (verdict, from) = known.unwrap_or_else(|| (self.owner.judge(&mut self.watch, &row), row.clone()));
            let step = step(verdict, self.entry, &from, self.mysql);
            if !is_ours && !self.is_fit(matches!(step, Step::Take)).await? {
                continue;
            }
            match step {
                Step::Wait => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                Step::Refuse(why) => anyhow::bail!(why),
                Step::Take => {}
            }
            if self.owner.is_overtaken(&self.opened.store, &from)? {
                self.leave_seat().await;
                self.opened = replace_store(&self.opening, self.opened).await?;
                self.owner = Owner::of(&self.opening, &self.opened.store, self.mysql, self.entry);
            }
            match self.owner.take(&row).await {
                Ok(Some(claimed)) => {
                    self.leave_seat().await;
                    let taken = Taken { verdict, from: &from, claimed };
                    return self.owner.settle_in(&self.opening, self.opened, taken).await;
                }
                // Another process was first.
                Ok(None) => {}
                Err(error) if error.class == SinkErrorClass::Fenced || self.entry.is_standby() => {
                    tracing::warn!(%error, "the MySQL schema could not be taken over; trying again");
                    self.taking = Some((verdict, from));
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(error) => {
                    let is_ours = self.owner.trusts_budgets(verdict, &from);
                    // The claim may count all the same.
                    if !is_ours {
                        use_up_budgets(self.opening.config, &self.opened.store).await?;
                    }
                    return self.begin_unconfirmed(&error, is_ours && error.class == SinkErrorClass::NoRoom);
                }
            }
        }
    }

    async fn wait_for_mysql(&self, why: &str) {
        self.entry.wait_for(format!("MySQL cannot be reached: {why}"));
        tokio::time::sleep(LOOK_EVERY).await;
    }

    /// Whether a standby could take over; false: not known, and it has waited a moment.
    ///
    /// # Errors
    /// Why it could not.
    async fn is_fit(&mut self, takes_over: bool) -> anyhow::Result<bool> {
        if !self.entry.is_standby() {
            return Ok(true);
        }
        match self.fitness.look(&self.opening, &self.opened.store, self.mysql, takes_over).await {
            Err(Unfit::Unknown(why)) if takes_over => {
                self.wait_for_mysql(&why).await;
                Ok(false)
            }
            Ok(()) | Err(Unfit::Unknown(_)) => Ok(true),
            Err(Unfit::For(why)) => {
                self.leave_seat().await;
                Err(why)
            }
        }
    }

    async fn leave_seat(&mut self) {
        self.seat.leave(&self.owner).await;
        self.seat = Seat::default();
    }

    fn begin_unconfirmed(self, error: &SinkError, has_no_other: bool) -> anyhow::Result<Opened> {
        self.owner.begin_unconfirmed(&self.opened.store, error, has_no_other)?;
        Ok(Opened { opened: self.opened, owner: Some(self.owner), handed: None })
    }
}

fn step(verdict: Verdict, entry: &Entry, row: &Registered, mysql: &Mysql) -> Step {
    match (verdict, entry) {
        (Verdict::Free | Verdict::Handed | Verdict::Ours { .. } | Verdict::Gone, _) => Step::Take,
        (Verdict::Silent(_), Entry::TakeOver { .. }) => Step::Take,
        (Verdict::Unknown, _) => Step::Wait,
        (Verdict::Alive | Verdict::Silent(_), Entry::Standby { .. }) => {
            let Registered { member, .. } = row;
            entry.wait_for(format!("`waybill {}` on {} (process {}) works", member.command, member.host, member.pid));
            Step::Wait
        }
        (Verdict::Alive, Entry::Serve { .. } | Entry::TakeOver { .. }) => Step::Refuse(refusal(row, mysql, STOP_IT)),
        (Verdict::Silent(left), Entry::Serve { .. }) => {
            let what_to_do = format!(
                "{VOUCH}, for {} min more; a start after that takes over. If that process is gone for good, start this one \
                 with --take-over now",
                left.as_secs().div_ceil(60)
            );
            Step::Refuse(refusal(row, mysql, &what_to_do))
        }
    }
}

impl Owner {
    fn of(opening: &Opening<'_>, store: &Store, mysql: &Arc<Mysql>, entry: &Entry) -> Owner {
        let member = identity::of_this_process(store, &opening.config.data_dir, entry.command());
        Owner::new(mysql, mysql.register(), member)
    }

    /// The owner's row. A standby shows itself, too.
    async fn look(&self, entry: &Entry, seat: &mut Seat) -> Result<Registered, SinkError> {
        let Both { owner, standby } = self.rows().await?;
        if entry.is_standby() {
            seat.keep(self, &standby).await?;
        }
        Ok(owner)
    }

    /// Prepares the store for what others did before, and begins.
    ///
    /// # Errors
    /// The store cannot be used; then the schema is let go.
    async fn settle_in(self, opening: &Opening<'_>, opened: OpenedStore, taken: Taken<'_>) -> anyhow::Result<Opened> {
        match self.prepare(opening, opened, taken).await {
            Ok((opened, handed)) => Ok(Opened { opened, owner: Some(self), handed }),
            Err(error) => {
                self.let_go().await;
                Err(error)
            }
        }
    }

    async fn prepare(
        &self,
        opening: &Opening<'_>,
        mut opened: OpenedStore,
        taken: Taken<'_>,
    ) -> anyhow::Result<(OpenedStore, Option<HandedBudgets>)> {
        let Taken { verdict, from, claimed } = taken;
        let mut handed = None;
        if verdict == Verdict::Handed {
            (opened, handed) = self.receive(opening, opened, from.epoch).await?;
        }
        if handed.is_none() && !self.trusts_budgets(verdict, from) {
            use_up_budgets(opening.config, &opened.store).await?;
        }
        self.begin(&opened.store, claimed).await?;
        Ok((opened, handed))
    }

    /// Both rows; made, with their table, if there are none.
    pub(super) async fn rows(&self) -> Result<Both, SinkError> {
        match self.0.register.read().await {
            Ok(Members { owner: Some(owner), standby: Some(standby) }) => return Ok(Both { owner, standby }),
            Ok(_) => {}
            // The tables may not exist yet.
            Err(error) if error.class == SinkErrorClass::Operator => {}
            Err(error) => return Err(error),
        }
        self.0.mysql.prepare_register().await?;
        self.0.register.make().await?;
        let Members { owner, standby } = self.0.register.read().await?;
        let missing = || SinkError::new(SinkErrorClass::Operator, "table `waybill_register` keeps no rows");
        let (owner, standby) = owner.zip(standby).ok_or_else(missing)?;
        Ok(Both { owner, standby })
    }

    pub(super) fn judge(&self, watch: &mut Watch, row: &Registered) -> Verdict {
        let (us, them) = (&self.0.member, &row.member);
        let is_ours = them.directory == us.directory;
        let life = match life_of(them) {
            // We hold the lock that it held.
            Life::Unknown if is_ours && share_lock(us, them) => Life::Gone,
            // An earlier app of this very process.
            Life::Alive if them.pid == us.pid && is_ours => Life::Gone,
            Life::Alive if them.pid == us.pid => Life::Unknown,
            life => life,
        };
        let is_same_boot = identity::boot_of(them) == self.0.boot;
        watch.look(Look { row, life, is_ours, is_same_boot, at: BootTime::now() })
    }

    /// Whether another data directory has owned this schema since ours did.
    fn is_overtaken(&self, store: &Store, row: &Registered) -> anyhow::Result<bool> {
        let them = row.member.directory.as_str();
        let was_owner = store.ownership()?.is_some_and(|known| known.schema == self.0.mysql.schema_name());
        Ok(was_owner && !them.is_empty() && them != self.0.member.directory && !store.is_blank()?)
    }

    /// Whether the store knows all calls of the last owner.
    pub(super) fn trusts_budgets(&self, verdict: Verdict, row: &Registered) -> bool {
        let them = row.member.directory.as_str();
        match verdict {
            Verdict::Ours { is_here } => is_here,
            Verdict::Free | Verdict::Handed => them.is_empty() || them == self.0.member.directory,
            _ => false,
        }
    }

    /// Takes the row and raises the fence. None: the row has changed.
    pub(super) async fn take(&self, row: &Registered) -> Result<Option<Claimed>, SinkError> {
        let at = BootTime::now();
        let is_taken = row.member.session == self.0.member.session;
        let epoch = if is_taken { row.epoch } else { row.epoch + 1 };
        if !is_taken {
            let claim = Claim { role: Role::Owner, from: row, epoch, promise: promise(false) };
            if !self.0.register.claim(claim, &self.0.member).await? {
                return Ok(None);
            }
        }
        let version = self.0.mysql.raise_epoch(epoch).await?;
        Ok(Some(Claimed { epoch, version, at }))
    }

    /// Begins to call and to write.
    ///
    /// # Errors
    /// The store's: versions must be greater than those that others have written.
    pub(super) async fn begin(&self, store: &Store, claimed: Claimed) -> Result<(), StoreError> {
        let Claimed { epoch, version, at } = claimed;
        store.raise_version(version).await?;
        let note = Ownership::claimed(epoch, self.0.mysql.schema_name(), self.0.boot.clone());
        if let Err(error) = store.save_ownership(&note).await {
            error.warn("failed to note the ownership of the schema; a start without MySQL waits for it");
        }
        self.0.mysql.set_epoch(epoch);
        self.0.gate.open_until(calls_until(at, false));
        self.set_claimed(claimed);
        tracing::info!(epoch, "this process owns the MySQL schema");
        Ok(())
    }

    /// Begins without MySQL. It may call if this data directory was the last owner that it knows of, on this boot of this
    /// machine, and without a standby: for what is left of the promise of a process that lost MySQL, else for a whole one. So
    /// it may if it never owned this schema, as before an upgrade, or if MySQL has no room to note any owner.
    fn begin_unconfirmed(&self, store: &Store, error: &SinkError, has_no_other: bool) -> anyhow::Result<()> {
        let now = BootTime::now();
        let until = match store.ownership()?.filter(|known| known.schema == self.0.mysql.schema_name()) {
            _ if has_no_other => Some(now + ALONE),
            None => Some(now + ALONE),
            Some(known) if known.boot != self.0.boot || known.has_standby => None,
            Some(known) => Some(known.last_beat_ms.map_or(now, boot_time) + ALONE),
        };
        let may_call = until.is_some_and(|until| until > now);
        tracing::warn!(
            %error,
            may_call,
            "MySQL has not confirmed that this process is the one that works on its schema; trying again"
        );
        if let Some(until) = until {
            self.0.gate.open_until(until);
        }
        Ok(())
    }
}
