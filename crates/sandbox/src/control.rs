//! The controls: what a test or the demo can inspect and change while the sandbox runs.
//!
//! `admin` exposes the same over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use crate::audit::{Audit, Call};
use crate::document::Method;
use crate::error::SandboxError;
use crate::fault::Fault;
use crate::fault_check;
use crate::limits::Rules;
use crate::state::{Sandbox, lock};

impl Sandbox {
    /// Rotates a shop's secret; existing tokens stay valid.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn set_secret(&self, client_id: &str, secret: &str) -> Result<(), SandboxError> {
        let shop = self.known(client_id)?;
        secret.clone_into(&mut lock(&shop.secret));
        Ok(())
    }

    /// Switches a shop off (403 everywhere) or on.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn set_active(&self, client_id: &str, active: bool) -> Result<(), SandboxError> {
        self.known(client_id)?.active.store(active, Ordering::SeqCst);
        Ok(())
    }

    /// Returns every shipment of a shop: method, id and document, FBR first, newest first. Empty for an unknown shop.
    pub fn truth(&self, client_id: &str) -> Vec<(String, String, Value)> {
        let Some(shop) = self.shop(client_id) else { return Vec::new() };
        let all: Vec<_> = self.stock(&shop).all().map(Arc::clone).collect();
        all.iter()
            .map(|shipment| {
                let document = serde_json::from_slice(shipment.detail()).unwrap_or(Value::Null);
                (shipment.spec.method.name().to_owned(), shipment.id.clone(), document)
            })
            .collect()
    }

    /// Adds shipments at the head of a list; returns their ids, oldest first.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn add_shipments(&self, client_id: &str, method: Method, count: usize) -> Result<Vec<String>, SandboxError> {
        let shop = self.known(client_id)?;
        let now = self.0.clock.now();
        let mut stock = self.stock(&shop);
        Ok((0..count).map(|_| stock.push(method, now, now)).collect())
    }

    /// Adds the next transport event to a shipment without changing its list row. False if the id is unknown or its
    /// last event has happened.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn grow_events(&self, client_id: &str, id: &str) -> Result<bool, SandboxError> {
        let shop = self.known(client_id)?;
        let grown = self.stock(&shop).grow(id, self.0.clock.now());
        Ok(grown)
    }

    /// Adds an event to each of the newest `count` shipments in transit; returns their ids.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn grow_newest(&self, client_id: &str, count: usize) -> Result<Vec<String>, SandboxError> {
        let shop = self.known(client_id)?;
        let grown = self.stock(&shop).grow_some(count, self.0.clock.now());
        Ok(grown)
    }

    /// Changes a shipment's list row, and its detail with it. False if the id is unknown.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn change_row(&self, client_id: &str, id: &str) -> Result<bool, SandboxError> {
        let shop = self.known(client_id)?;
        let changed = self.stock(&shop).change_row(id);
        Ok(changed)
    }

    /// Puts a shipment with exactly this list row and detail, JSON or not: replaces the one with this id, or adds it
    /// at the head of the list.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn put(&self, client_id: &str, method: Method, id: &str, texts: [String; 2]) -> Result<(), SandboxError> {
        let shop = self.known(client_id)?;
        self.stock(&shop).put(method, id, texts.map(Into::into), self.0.clock.now());
        Ok(())
    }

    /// Returns a shipment's list row as served; None if the id is unknown.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn row(&self, client_id: &str, id: &str) -> Result<Option<Value>, SandboxError> {
        let shop = self.known(client_id)?;
        let found = self.stock(&shop).get(id);
        Ok(found.and_then(|shipment| serde_json::from_slice(shipment.row()).ok()))
    }

    /// Removes a shipment from list and detail. False if the id is unknown.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn remove(&self, client_id: &str, id: &str) -> Result<bool, SandboxError> {
        let shop = self.known(client_id)?;
        let removed = self.stock(&shop).remove(id);
        Ok(removed)
    }

    /// Replaces all fault rules; an empty list ends all faults.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        lock(&self.0.faults).set(faults);
    }

    /// Like [`Sandbox::set_faults`], for rules from outside this program.
    ///
    /// # Errors
    /// A rule that can never take effect; then nothing changes.
    pub fn set_checked_faults(&self, faults: Vec<Fault>) -> Result<(), SandboxError> {
        fault_check::check(&faults, |client_id| self.shop(client_id).is_some()).map_err(SandboxError::Faults)?;
        self.set_faults(faults);
        Ok(())
    }

    /// Ends all tokens now, before the time that was announced; returns how many.
    pub fn kill_tokens(&self) -> usize {
        lock(&self.0.tokens).kill(self.0.clock.now())
    }

    /// The tokens that it issued, but those that ended long ago.
    pub fn tokens(&self) -> Vec<String> {
        lock(&self.0.tokens).given()
    }

    /// Makes the login host answer 404 to everyone, as it does to a blocked address, or ends that.
    pub fn set_login_blocked(&self, blocked: bool) {
        lock(&self.0.tokens).set_blocked(blocked);
    }

    /// Replaces the limits that override the API's own, and restarts all windows.
    ///
    /// # Errors
    /// A limit that cannot be parsed; then nothing changes.
    pub fn set_limits(&self, limits: &BTreeMap<String, String>) -> Result<(), SandboxError> {
        let rules = Rules::with(limits).map_err(SandboxError::Limits)?;
        self.change(|settings| settings.rules = rules);
        lock(&self.0.limiter).clear();
        Ok(())
    }

    /// Sets the lifetime of new tokens, and the announced `expires_in` (see [`crate::Options`]).
    pub fn set_token_life(&self, life: Duration, expires_in: Option<Value>) {
        self.change(|settings| {
            settings.token_life = life;
            settings.expires_in = expires_in;
        });
    }

    /// Sets the delay before every answer.
    pub fn set_latency(&self, latency: Duration) {
        self.change(|settings| settings.latency = latency);
    }

    /// Sets how far the dates on all answers are ahead of the sandbox's clock; negative: behind.
    pub fn set_dates_off(&self, ms: i64) {
        self.change(|settings| settings.dates_off_ms = ms);
    }

    /// Sends 429 with or without `Retry-After`.
    pub fn set_retry_after(&self, retry_after: bool) {
        self.change(|settings| settings.retry_after = retry_after);
    }

    /// Ends lists with an empty array, or with `{}`.
    pub fn set_empty_array(&self, empty_array: bool) {
        self.change(|settings| settings.empty_array = empty_array);
    }

    /// Returns the totals over all calls.
    pub fn audit(&self) -> Audit {
        let settings = self.settings();
        lock(&self.0.ledger).sums(&settings.rules)
    }

    /// Returns all calls, in the order they were recorded.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.0.ledger).calls().to_vec()
    }

    /// Forgets all calls.
    pub fn reset_audit(&self) {
        lock(&self.0.ledger).reset();
    }
}
