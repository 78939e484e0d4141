//! The ownership of this process, and how it is described.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::identity;
use crate::app::open_store::OpenedStore;
use crate::app::source_check::SourceRule;
use crate::config::Config;
use crate::domain::Clock;
use crate::domain::clock::rfc3339;
use crate::gate::{BootTime, Gate};
use crate::sink::Mysql;
use crate::sink::mysql::{Hold, Member, Register, Registered, Role};
use crate::sync::HandedBudgets;

/// Time for saying goodbye to the register.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(3);

/// How a process becomes the owner.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// At once, or not at all.
    Serve { command: String },
    /// As `Serve`, and an operator vouches that a silent owner is gone.
    TakeOver { command: String },
    /// Waits until the owner has let the schema go, or is gone. `waiting`: why it waits.
    Standby { command: String, waiting: watch::Sender<String> },
}

impl Entry {
    pub(super) fn command(&self) -> &str {
        match self {
            Entry::Serve { command } | Entry::TakeOver { command } | Entry::Standby { command, .. } => command,
        }
    }

    pub(super) fn is_standby(&self) -> bool {
        matches!(self, Entry::Standby { .. })
    }

    /// Notes why it waits; logs it if it is news.
    pub(super) fn wait_for(&self, why: String) {
        let Entry::Standby { waiting, .. } = self else { return };
        waiting.send_if_modified(|known| {
            let is_news = *known != why;
            if is_news {
                tracing::info!(reason = why, "this process is a standby");
                *known = why;
            }
            is_news
        });
    }
}

/// What the opening of the store needs.
#[derive(Clone, Copy)]
pub(in crate::app) struct Opening<'a> {
    pub(in crate::app) config: &'a Config,
    pub(in crate::app) clock: &'a Clock,
    pub(in crate::app) rule: SourceRule,
}

/// An open store, and this process's ownership of the schema.
pub(in crate::app) struct Opened {
    pub(in crate::app) opened: OpenedStore,
    /// None: there is no MySQL.
    pub(in crate::app) owner: Option<Owner>,
    /// Budgets of the owner that this process goes on for.
    pub(in crate::app) handed: Option<HandedBudgets>,
}

/// A confirmed claim.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimed {
    pub(super) epoch: u64,
    /// The greatest version written by then.
    pub(super) version: u64,
    /// The instant before the claim was sent.
    pub(super) at: BootTime,
}

/// The ownership of a schema by this process. Cheap to clone.
#[derive(Clone)]
pub(in crate::app) struct Owner(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) register: Register,
    pub(super) mysql: Arc<Mysql>,
    pub(super) member: Member,
    pub(super) gate: Gate,
    pub(super) boot: String,
    /// None: MySQL has not confirmed it yet.
    pub(super) claimed: Mutex<Option<Claimed>>,
    /// Why it is lost.
    pub(super) lost: OnceLock<String>,
    /// A standby was there at the last heartbeat.
    pub(super) has_standby: AtomicBool,
}

impl Owner {
    pub(super) fn new(mysql: &Arc<Mysql>, register: Register, member: Member) -> Owner {
        Owner(Arc::new(Inner {
            register,
            mysql: Arc::clone(mysql),
            member,
            gate: Gate::closed(),
            boot: identity::boot(),
            claimed: Mutex::new(None),
            lost: OnceLock::new(),
            has_standby: AtomicBool::new(false),
        }))
    }

    /// The gate that calls and logins ask.
    pub(in crate::app) fn gate(&self) -> Gate {
        self.0.gate.clone()
    }

    /// Why this process is not the owner any more.
    pub(in crate::app) fn lost(&self) -> Option<&str> {
        self.0.lost.get().map(String::as_str)
    }

    /// Whether a standby waits.
    pub(in crate::app) fn has_standby(&self) -> bool {
        self.0.has_standby.load(Ordering::Relaxed)
    }

    /// Lets the schema go: the next process need not wait. Nothing calls or writes any more.
    pub(in crate::app) async fn leave(&self) {
        self.0.gate.close();
        if self.claimed().is_some() {
            self.let_go().await;
        }
    }

    pub(super) async fn let_go(&self) {
        let leaving = self.0.register.leave(Role::Owner, &self.0.member.session, Hold::Free);
        match tokio::time::timeout(LEAVE_TIME_MAX, leaving).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the register in MySQL could not be updated at the end"),
            Err(_) => tracing::debug!("MySQL did not answer in time that this process ends"),
        }
    }

    pub(super) fn claimed(&self) -> Option<Claimed> {
        *self.0.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_claimed(&self, claimed: Claimed) {
        *self.0.claimed.lock().unwrap_or_else(PoisonError::into_inner) = Some(claimed);
    }

    /// Ends this process's ownership. The first reason counts.
    pub(super) fn lose(&self, why: String) {
        self.0.gate.close();
        tracing::error!(reason = why, "this process owns the MySQL schema no longer");
        self.0.lost.set(why).ok();
    }
}

/// The refusal: who has it, where, since when, and what to do.
pub(super) fn refusal(row: &Registered, mysql: &Mysql, what_to_do: &str) -> String {
    let Registered { member, started_at, silent, .. } = row;
    format!(
        "{} belongs to another process: `waybill {}` on {} (process {}), since {}, last heard from {} s ago, with another \
         data directory. One process at a time may call the API and write to a schema. {what_to_do}",
        mysql.schema_name(),
        member.command,
        member.host,
        member.pid,
        rfc3339(*started_at),
        silent.as_secs(),
    )
}

/// The instant of a time since the boot.
pub(super) fn boot_time(milliseconds: u64) -> BootTime {
    BootTime::after_boot(Duration::from_millis(milliseconds))
}
