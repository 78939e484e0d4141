//! The standby's row in the register: once the owner has seen it, the owner keeps the short bounds.

use super::bounds::{BEAT, END};
use super::identity::{boot_of, life_of};
use super::state::Owner;
use super::watch::{Look, Verdict, Watch};
use crate::gate::BootTime;
use crate::sink::SinkError;
use crate::sink::mysql::{Claim, Hold, Promise, Registered, Role};

/// The place of the standby, and whether we have it. There is one; a second standby waits without it.
#[derive(Default)]
pub(super) struct Seat {
    watch: Watch,
    beaten_at: Option<BootTime>,
}

impl Seat {
    /// Takes the place if it is empty, or beats.
    pub(super) async fn keep(&mut self, owner: &Owner, row: &Registered) -> Result<(), SinkError> {
        let (register, us) = (&owner.0.register, &owner.0.member);
        let now = BootTime::now();
        if let Some(beaten_at) = self.beaten_at {
            if now.since(beaten_at) < BEAT {
                return Ok(());
            }
            let is_kept = register.beat(Role::Standby, &us.session, Promise { time: END, standby: "" }).await?;
            self.beaten_at = is_kept.then_some(now);
            return Ok(());
        }
        let is_ours = row.member.directory == us.directory;
        let is_same_boot = boot_of(&row.member) == owner.0.boot;
        let verdict = self.watch.look(Look { row, life: life_of(&row.member), is_ours, is_same_boot, at: now });
        if matches!(verdict, Verdict::Alive | Verdict::Unknown | Verdict::Silent(_)) {
            return Ok(());
        }
        let claim = Claim { role: Role::Standby, from: row, epoch: row.epoch, promise: END };
        if register.claim(claim, us).await? {
            self.beaten_at = Some(now);
        }
        Ok(())
    }

    /// Lets the place go. A failure costs the owner half a minute of short bounds.
    pub(super) async fn leave(&self, owner: &Owner) {
        if self.beaten_at.is_none() {
            return;
        }
        if let Err(error) = owner.0.register.leave(Role::Standby, &owner.0.member.session, Hold::Free).await {
            tracing::debug!(%error, "the standby's row in MySQL was not let go");
        }
    }
}
