//! Planned change: the owner leaves its whole state for the standby, which goes on with it.
//!
//! Nothing is called twice and no window is waited for: jobs, outbox, ledger, tokens and API keys are records of the
//! store, and the used slots of the budgets travel as time left, which counts from their arrival. Parts are sealed with the
//! master key that both have. Whatever fails, the standby restores from MySQL, as after a crash.

use std::collections::HashMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::rebuild::wait_for_lock;
use super::state::{Opening, Owner};
use crate::app::open_store::{OpenedStore, open_or_set_aside};
use crate::app::parts::open_mysql;
use crate::config::Config;
use crate::sink::mysql::{Hold, Members, Role};
use crate::source::SlotsLeft;
use crate::store::{self, Parts, Store, blocking};
use crate::supervisor::OWNERSHIP;
use crate::sync::{HandedBudgets, LaneKey};

/// The head of a hand-over.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    budgets: Vec<BudgetLeft>,
}

/// What is left of one budget.
#[derive(Serialize, Deserialize)]
struct BudgetLeft {
    account: String,
    rule: String,
    left: SlotsLeft,
}

/// The version of the head, and of what the parts hold.
const VERSION: u32 = 1;

impl Owner {
    /// The end of this process, which calls, writes and commits nothing any more: the standby goes on, or whoever comes.
    pub(in crate::app) async fn end(&self, store: &Store, budgets: HashMap<LaneKey, SlotsLeft>) {
        self.0.gate.close();
        let is_replaced = self.lost().is_some() || store.supervisor().failed_part() == Some(OWNERSHIP);
        if self.has_standby()
            && !is_replaced
            && let Err(error) = self.hand_over(store, budgets).await
        {
            tracing::warn!(%error, "the standby could not be left everything; it restores from MySQL");
        }
        self.leave().await;
    }

    /// Leaves everything for the standby. Nothing calls, writes or commits any more.
    ///
    /// # Errors
    /// The store's or the register's; then the standby restores from MySQL.
    async fn hand_over(&self, store: &Store, budgets: HashMap<LaneKey, SlotsLeft>) -> anyhow::Result<()> {
        let begun = Instant::now();
        let Some(claimed) = self.claimed() else { return Ok(()) };
        let budgets =
            budgets.into_iter().map(|(LaneKey { account, rule }, left)| BudgetLeft { account, rule, left }).collect();
        let head = serde_json::to_vec(&Head { version: VERSION, budgets })?;
        let (source, register) = (store.clone(), &self.0.register);
        let Parts(parts) = blocking(move || source.export(claimed.epoch, &head)).await?;
        let (count, bytes) = (parts.len(), parts.iter().map(Vec::len).sum::<usize>());
        register.clear_parts(claimed.epoch).await?;
        for (number, part) in (0..).zip(parts) {
            register.put_part(claimed.epoch, number, part).await?;
        }
        let is_ours = register.leave(Role::Owner, &self.0.member.session, Hold::Handed).await?;
        anyhow::ensure!(is_ours, "another process has taken over already");
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(parts = count, bytes, took_ms, "left everything for the standby");
        Ok(())
    }

    /// Takes what the owner of an epoch left into the blank store; the store is opened again.
    ///
    /// # Errors
    /// With the store, which is blank still, or was made again.
    pub(super) async fn receive(
        &self,
        opening: &Opening<'_>,
        opened: OpenedStore,
        epoch: u64,
    ) -> anyhow::Result<(OpenedStore, Option<HandedBudgets>)> {
        let received = tokio::time::Instant::now();
        let parts = match self.0.register.parts(epoch).await {
            Ok(parts) if opened.store.is_blank()? => Parts(parts),
            Ok(_) => return Ok((opened, None)),
            Err(error) => {
                tracing::warn!(%error, "failed to read what the former owner left; restoring from MySQL");
                return Ok((opened, None));
            }
        };
        let OpenedStore { store, master, .. } = opened;
        drop(store);
        let directory = opening.config.data_dir.clone();
        wait_for_lock(&directory).await;
        let taken = blocking(move || store::import(&directory, &master, epoch, &parts)).await;
        wait_for_lock(&opening.config.data_dir).await;
        let opened = open_or_set_aside(opening.config, opening.clock)?;
        let head = match taken.map(|head| serde_json::from_slice::<Head>(&head)) {
            Ok(Ok(head)) if head.version == VERSION => head,
            Ok(_) => {
                tracing::warn!("what the former owner left is of another version: budgets count as used up");
                return Ok((opened, None));
            }
            Err(error) => {
                tracing::warn!(%error, "what the former owner left cannot be taken; restoring from MySQL");
                return Ok((opened, None));
            }
        };
        if let Err(error) = self.0.register.clear_parts(epoch).await {
            tracing::debug!(%error, "the parts of a hand-over stay in MySQL until the next one");
        }
        let of = |BudgetLeft { account, rule, left }| (LaneKey { account, rule }, left);
        let budgets = head.budgets.into_iter().map(of).collect();
        tracing::info!(epoch, "took over the state of the former owner");
        Ok((opened, Some(HandedBudgets { budgets, received })))
    }
}

/// The standby that the owner of the configured schema knows, as text for people.
///
/// # Errors
/// MySQL cannot be reached.
pub(crate) async fn standby_of(config: &Config) -> anyhow::Result<Option<String>> {
    let Some(mysql) = open_mysql(config)? else { return Ok(None) };
    let Members { owner, standby } = mysql.register().read().await?;
    let known = owner.zip(standby).filter(|(owner, standby)| {
        owner.hold == Hold::Owned && !owner.standby.is_empty() && owner.standby == standby.member.session
    });
    Ok(known.map(|(_, standby)| format!("the standby on {} (process {})", standby.member.host, standby.member.pid)))
}
