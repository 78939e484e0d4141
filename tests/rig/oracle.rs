//! What must hold after each run, seen from outside.
//!
//! First the service becomes idle; by then every document that was listed from the beginning is stored. After one more
//! full walk, scheduled where the run has schedules, the stored set equals the sandbox's, document by document. The
//! counters add up, no window of any budget held more calls than its rule allows (counted here, from the calls alone),
//! the service exits with 0, its log shows no panic, and neither log nor files contain a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::canary;
use crate::data_files;
use crate::program::{ADMIN_KEY, Serving, lossy};
use crate::world::{Limit, World, secret};

/// When the faults are over, all work must be done within this.
const QUIET_WITHIN: Duration = Duration::from_secs(60);
/// SIGTERM ends the service within this.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// Differences named in a failure.
const SHOWN: usize = 5;

/// Shop id and document id.
pub(crate) type Key = (String, String);

/// What a run may leave behind; anything else is a finding.
#[derive(Default)]
pub(crate) struct Allowed {
    /// Documents that were listed all the time may be missing until the next walk.
    pub(crate) late: bool,
    /// Walks may have failed or stopped, if later ones made up for it.
    pub(crate) failed_runs: bool,
    /// Walks may have met a list that no longer showed known rows, if later ones saw them again.
    pub(crate) unproved_runs: bool,
    /// Unreadable documents may be parked.
    pub(crate) parked: bool,
}

/// Judges a run in which nothing may be left over. Ends the service.
pub(crate) async fn judge(world: World, serving: Serving) {
    judge_allowing(world, serving, Allowed::default()).await;
}

/// Judges a run that may leave something behind.
pub(crate) async fn judge_allowing(world: World, serving: Serving, allowed: Allowed) {
    let mut findings = world.server_errors.lock().unwrap().clone();
    serving.idle(QUIET_WITHIN).await;
    let early = if allowed.late { BTreeSet::new() } else { complete(&world, &serving, &mut findings).await };
    if world.walks_often {
        // Converging without help: scheduled walks do not re-read documents without a change, so ask for a full walk.
        world.walked_by_the_clock(&serving).await;
    } else {
        world.walk_all(&serving).await;
    }
    let status = serving.idle(QUIET_WITHIN).await;
    equal(&world, &serving, &early, &mut findings).await;
    add_up(&world, &serving, &status, &allowed, &mut findings).await;
    end(&world, serving, findings);
}

/// Judges in the middle of a run, after the last change and a walk over it: everything is right without another walk.
/// The service keeps running.
pub(crate) async fn judge_now(world: &World, serving: &Serving) {
    judge_now_allowing(world, serving, &Allowed::default()).await;
}

/// The same where something may be left behind.
pub(crate) async fn judge_now_allowing(world: &World, serving: &Serving, allowed: &Allowed) {
    let mut findings = world.server_errors.lock().unwrap().clone();
    let status = serving.idle(QUIET_WITHIN).await;
    let early = complete(world, serving, &mut findings).await;
    equal(world, serving, &early, &mut findings).await;
    add_up(world, serving, &status, allowed, &mut findings).await;
    assert!(findings.is_empty(), "{}\nlog:\n{}", findings.join("\n"), world.tail());
}

/// Judges only calls, exit and secrets: for a run whose budgets are too tight to become idle.
pub(crate) fn judge_calls(world: &World, serving: Serving) {
    let findings = world.server_errors.lock().unwrap().clone();
    end(world, serving, findings);
}

/// Checks what needs no idle service; then reports the verdict.
fn end(world: &World, serving: Serving, mut findings: Vec<String>) {
    windows(world, &mut findings);
    let (code, took) = tokio::task::block_in_place(|| serving.terminate());
    if code != Some(0) || took > STOPS_WITHIN {
        findings.push(format!("SIGTERM: exit code {code:?} after {took:?}"));
    }
    silent(world, &mut findings);
    assert!(findings.is_empty(), "{}\nlog:\n{}", findings.join("\n"), world.tail());
}

/// Everything stored, with its document; ids stored twice are findings.
async fn stored(world: &World, serving: &Serving, findings: &mut Vec<String>) -> BTreeMap<Key, Value> {
    let rows: Vec<(Key, Value)> = match &world.database {
        Some(database) => {
            let text = "SELECT shop_id, shipment_id, document FROM shipments";
            let rows: Vec<(String, String, Vec<u8>)> = database.rows(text).await;
            rows.into_iter().map(|(shop, id, bytes)| ((shop, id), serde_json::from_slice(&bytes).unwrap())).collect()
        }
        None => {
            let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
            let items = serving.all("/api/v1/shipments").await.into_iter();
            items.map(|item| ((text(&item, "shop_id"), text(&item, "id")), item["document"].clone())).collect()
        }
    };
    let count = rows.len();
    let rows: BTreeMap<Key, Value> = rows.into_iter().collect();
    if rows.len() < count {
        world.run.score.doubled.add(count - rows.len());
        findings.push(format!("doubled: {} ids stand there twice", count - rows.len()));
    }
    rows
}

fn name<'a>(what: &str, keys: impl ExactSizeIterator<Item = &'a Key>, findings: &mut Vec<String>) {
    let count = keys.len();
    if count > 0 {
        let shown: Vec<String> = keys.take(SHOWN).map(|(shop, id)| format!("{shop}/{id}")).collect();
        findings.push(format!("{what}: {count}, as {}", shown.join(" ")));
    }
}

/// Complete before any further walk: everything listed from the beginning is stored. Returns the keys that are not.
async fn complete(world: &World, serving: &Serving, findings: &mut Vec<String>) -> BTreeSet<Key> {
    let stored = stored(world, serving, findings).await;
    let mut lost = BTreeSet::new();
    for (client, shop) in &world.shops {
        let ids = world.from_the_start[client].iter().map(|id| (shop.clone(), id.clone()));
        lost.extend(ids.filter(|key| !stored.contains_key(key)));
    }
    // Only what the sandbox still has can be requested; removed documents are judged by their own test.
    let truth = truth(world);
    lost.retain(|key| truth.contains_key(key));
    let parked = parked(serving).await;
    lost.retain(|(_, id)| !parked.contains(id));
    world.run.score.lost.add(lost.len());
    name("lost before the last walk", lost.iter(), findings);
    lost
}

/// What the sandbox serves now, for the registered shops.
pub(crate) fn truth(world: &World) -> BTreeMap<Key, Value> {
    let of = |(client, shop): (&String, &String)| {
        let rows = world.market.sandbox.truth(client).into_iter();
        rows.map(|(_, id, document)| ((shop.clone(), id), document)).collect::<Vec<_>>()
    };
    world.shops.iter().flat_map(of).collect()
}

/// Parked documents, by id.
async fn parked(serving: &Serving) -> BTreeSet<String> {
    let parked = serving.all("/api/v1/parked").await.into_iter();
    parked.filter_map(|one| one["document_id"].as_str().map(str::to_owned)).collect()
}

/// Complete, once, and faithful: both sets and the documents in them are equal.
async fn equal(world: &World, serving: &Serving, early: &BTreeSet<Key>, findings: &mut Vec<String>) {
    let (stored, truth) = (stored(world, serving, findings).await, truth(world));
    let parked = parked(serving).await;
    let score = &world.run.score;
    score.documents.add(truth.len());
    let lost: Vec<&Key> = truth.keys().filter(|key| !stored.contains_key(*key) && !parked.contains(&key.1)).collect();
    score.lost.add(lost.iter().filter(|key| !early.contains(**key)).count());
    name("lost", lost.into_iter(), findings);
    // Documents that the marketplace dropped stay; one that it never had is an error.
    let ever: BTreeSet<&String> = world.from_the_start.values().flatten().collect();
    let made_up: Vec<&Key> = stored.keys().filter(|key| !truth.contains_key(*key) && !ever.contains(&key.1)).collect();
    score.doubled.add(made_up.len());
    name("too much", made_up.into_iter(), findings);
    let differs = |(key, document): &(&Key, &Value)| truth.get(*key).is_some_and(|true_one| true_one != *document);
    let stale: Vec<&Key> = stored.iter().filter(differs).map(|(key, _)| key).collect();
    let stale: Vec<&Key> = stale.into_iter().filter(|key| !parked.contains(&key.1)).collect();
    score.stale.add(stale.len());
    name("stale", stale.into_iter(), findings);
    if let Some(database) = &world.database {
        let items = |document: &Value| document["shipmentItems"].as_array().map_or(0, Vec::len);
        let expected: usize = stored.values().map(items).sum();
        let counted: Vec<usize> = database.rows("SELECT COUNT(*) FROM shipment_items").await;
        if counted != [expected] {
            findings.push(format!("shipment_items: {counted:?} rows, {expected} expected"));
        }
    }
}

/// Nothing vanishes: nothing waits, nothing is parked, and each run's counters add up.
async fn add_up(world: &World, serving: &Serving, status: &Value, allowed: &Allowed, findings: &mut Vec<String>) {
    for name in ["outbox", "outbox_bytes", "pending_jobs", "leased_jobs", "open_runs", "parked"] {
        if status[name] != 0 && !(name == "parked" && allowed.parked) {
            findings.push(format!("{name} is {}", status[name]));
        }
    }
    for run in serving.all("/api/v1/runs").await {
        if world.shops.values().all(|shop| run["shop_id"] != *shop.as_str()) {
            // Its shop was removed.
            continue;
        }
        if allowed.failed_runs && run["state"] == "canceled" {
            continue;
        }
        let count = |name: &str| run[name].as_u64().unwrap_or_default();
        let adds_up = count("to_fetch")
            == count("fetched") + count("gone") + count("parked") - count("refused") + count("pending");
        // The schedule may have started one meanwhile.
        let open = run["ended_at"].is_null();
        // A refused shop's run stops; the documents that it found are read once the shop is active again.
        let stopped = run["state"] == "stopped";
        let unproved = run["state"] == "unproved" && (allowed.unproved_runs || allowed.failed_runs);
        let ended_well = run["state"] == "done" || unproved || allowed.failed_runs && run["state"] == "failed";
        if !adds_up || !open && !stopped && (!ended_well || count("pending") > 0) {
            findings.push(format!("a run that does not add up: {run}"));
        }
    }
}

/// When calls arrived, in microseconds and in order, by account and rule.
pub(crate) fn call_times(world: &World) -> BTreeMap<(String, String), Vec<u64>> {
    let mut times: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
    for call in world.market.sandbox.calls() {
        if let Some(rule) = call.rule.filter(|rule| world.limits.contains_key(rule)) {
            times.entry((call.account, rule)).or_default().push(call.at_us);
        }
    }
    times.values_mut().for_each(|times| times.sort_unstable());
    times
}

/// Rate limits, from the calls alone: every window that ends with a call.
fn windows(world: &World, findings: &mut Vec<String>) {
    for ((account, rule), times) in call_times(world) {
        let limit = &world.limits[&rule];
        world.run.score.windows_checked.add(times.len());
        let over = overdrawn(&times, *limit);
        if over > 0 {
            world.run.score.rate_breaches.add(over);
            findings.push(format!("{rule} of {account}: {over} windows of {limit:?} hold more calls"));
        }
    }
    let audit = world.market.sandbox.audit();
    // Those requested by the test itself do not count.
    let calls = world.market.sandbox.calls();
    let refused = calls.iter().filter(|call| call.status == 429 && !call.token && !call.faulted).count();
    if audit.unrecorded > 0 || audit.unknown_parameters > 0 || refused > 0 {
        let (a, b, c) = (audit.unrecorded, audit.unknown_parameters, refused);
        findings.push(format!("unrecorded calls: {a}, unknown parameters: {b}, refused with 429: {c}"));
    }
}

/// Windows that end with one of the sorted calls (in microseconds) and hold more than the limit.
fn overdrawn(times: &[u64], limit: Limit) -> usize {
    let length = u64::from(limit.seconds) * 1_000_000;
    let calls = limit.calls as usize;
    (calls..times.len()).filter(|&newest| times[newest] - times[newest - calls] < length).count()
}

/// No panic was logged, and no secret is anywhere but where it belongs.
fn silent(world: &World, findings: &mut Vec<String>) {
    let said = world.folder.said();
    let panics = said.matches("panicked").count();
    if panics > 0 {
        world.run.score.panics.add(panics);
        let line = said.lines().find(|line| line.contains("panicked")).unwrap_or_default();
        findings.push(format!("{panics} panics, the first: {line}"));
    }
    let mut secrets: Vec<String> = world.clients.iter().map(|client| secret(client)).collect();
    secrets.push(ADMIN_KEY.to_owned());
    secrets.extend(world.clients.first().map(|client| format!("{client}:{}", secret(client))));
    let key = world.data_dir.with_extension("key");
    secrets.push(lossy(&key).trim().to_owned());
    // Access tokens have this prefix; mail addresses represent all data of a customer.
    secrets.extend(["eyJhbGciOiJSUzI1NiI".to_owned(), "@verkopen.example".to_owned()]);
    let needles = canary::Needles::of(secrets.iter().filter(|secret| !secret.is_empty()));
    let mut places = data_files::contents(&world.data_dir);
    let said = ["serve.stdout", "serve.stderr"].map(|name| world.folder.path(name));
    places.extend(said.map(|path| (path.clone(), fs::read(&path).unwrap_or_default())));
    for (place, bytes) in places {
        let found = needles.found_in(&bytes);
        world.run.score.secrets_found.add(found.len());
        if let Some(first) = found.first() {
            findings.push(format!("secrets in {}: {first}", place.display()));
        }
    }
}

/// Self-test: the rig refuses to run if its own checks see nothing.
pub(crate) fn sees() {
    let limit = Limit { calls: 2, seconds: 1 };
    assert_eq!(overdrawn(&[0, 500_000, 999_999, 1_500_000], limit), 1);
    assert_eq!(overdrawn(&[0, 500_000, 1_000_000, 1_500_000], limit), 0);
    canary::sees();
}
