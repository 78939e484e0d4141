//! Tampering with the sealed records of the stopped service: records of two shops swapped, bits flipped, an old record
//! restored. Each such shop stops with a reason; the others do not notice, and a new secret repairs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::oracle::{self, Allowed};
use crate::program::Serving;
use crate::run::Run;
use crate::world::{Limit, Plan, World, secret, until};

const FREE: Limit = Limit { calls: 10_000, seconds: 1 };
const QUIET: Duration = Duration::from_secs(60);
/// The engine's lock is free within this.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
const SHOPS: usize = 6;
/// What is sealed of a shop: its secret in its record, and its data key in the file of the keys.
const SEALED: [&str; 2] = ["secret", "data_key"];

/// Tampers, starts, checks and repairs, again and again on one directory.
pub(crate) async fn tamper(mut run: Run) {
    // Each round needs new tokens; the host must not take that for an attack.
    let options: fn(&mut sandbox::Options) = |options| options.logins_max = None;
    let mut world = World::open(&run, Plan { list: FREE, detail: FREE, options, ..Plan::of(SHOPS, [20, 5]) }).await;
    let serving = world.start().await;
    world.register_all(&serving).await;
    serving.idle(QUIET).await;
    let mut serving = Some(serving);
    for round in 0..run.tier.pick(4, 30, 100) {
        let old = round % 2 == 1;
        let kept = if old { Some(before_rotation(&world, serving.take().unwrap()).await) } else { None };
        if let Some(serving) = serving.take() {
            stop(serving);
        }
        let (broken, what) = match kept {
            Some((client, record, tampered)) => {
                change(&world, &client, |now| *now = record.clone());
                (vec![client], tampered)
            }
            None => damage(&world, &mut run.random),
        };
        run.note(format!("{round}: {what} of {broken:?}"));
        let started = world.start().await;
        judge_shops(&world, &started, &broken, old).await;
        renew_secrets(&world, &started, &broken).await;
        serving = Some(started);
    }
    oracle::judge_allowing(
        world,
        serving.take().unwrap(),
        Allowed { late: true, failed_runs: true, ..Allowed::default() },
    )
    .await;
}

fn stop(serving: Serving) {
    assert_eq!(tokio::task::block_in_place(|| serving.terminate()).0, Some(0));
}

/// The key of a shop's record in the store's key layout.
fn key_of(world: &World, client: &str) -> Vec<u8> {
    [b"s", world.shops[client].as_bytes(), b"\0"].concat()
}

/// Changes one shop's record through the engine.
fn change(world: &World, client: &str, edit: impl FnOnce(&mut Value)) {
    take_over(world);
    let folder = world.data_dir.join("sled");
    let db = sled::Config::new().path(&folder).cache_capacity(8 << 20).open().unwrap();
    let key = key_of(world, client);
    let mut record: Value = serde_json::from_slice(&db.get(&key).unwrap().expect("the shop's record")).unwrap();
    edit(&mut record);
    db.insert(key, record.to_string().into_bytes()).unwrap();
    db.flush().unwrap();
    drop(db);
    until_unlocked(&folder.join("db"));
}

/// Makes the engine apply its write-ahead log, like a store that closes.
fn take_over(world: &World) {
    let key = std::fs::read_to_string(world.folder.path("data.key")).unwrap();
    let key = STANDARD.decode(key.trim()).unwrap().try_into().unwrap();
    drop(waybill::store::Store::open(&world.data_dir, &key, waybill::domain::Clock::system()).unwrap());
    until_unlocked(&world.data_dir.join("lock"));
}

/// Waits until the engine's lock is free. A process that another run of this rig starts may hold a copy of our open
/// files until its exec, and with them the lock. The lock taken to check is released explicitly, so no copy keeps it.
fn until_unlocked(file: &Path) {
    let file = File::open(file).unwrap();
    let give_up = Instant::now() + LOCK_WITHIN;
    while let Err(error) = file.try_lock() {
        assert!(matches!(error, TryLockError::WouldBlock) && Instant::now() < give_up, "the engine's lock: {error}");
        std::thread::sleep(Duration::from_millis(5));
    }
    file.unlock().unwrap();
}

/// The sealed part of a shop, in base64.
fn sealed(world: &World, client: &str, part: &str) -> String {
    if part == "secret" {
        return record(world, client)[part].as_str().unwrap().to_owned();
    }
    let (text, begin) = (keys(world), format!("shop {} ", world.shops[client]));
    let line = text.lines().find_map(|line| line.strip_prefix(&begin)).expect("the line of the shop's key");
    line.split(',').next().unwrap().to_owned()
}

fn keys(world: &World) -> String {
    std::fs::read_to_string(world.data_dir.join("keys")).unwrap()
}

/// Replaces the sealed part of a shop. The line of a key gets its checksum.
fn set_sealed(world: &World, client: &str, part: &str, new: &str) {
    if part == "secret" {
        return change(world, client, |record| record[part] = json!(new));
    }
    let begin = format!("shop {} ", world.shops[client]);
    let line = |line: &str| {
        if !line.starts_with(&begin) {
            return format!("{line}\n");
        }
        let said = format!("{begin}{new}");
        let sum: String = Sha256::digest(said.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{said}, sum {sum}\n")
    };
    let text: String = keys(world).lines().map(line).collect();
    std::fs::write(world.data_dir.join("keys"), text).unwrap();
}

fn record(world: &World, client: &str) -> Value {
    let mut found = Value::Null;
    change(world, client, |record| found = record.clone());
    found
}

/// Rotates a shop's secret, here and at the marketplace, with the service running in between; returns the client, its
/// old record, and the tampering to apply. Leaves the service stopped.
async fn before_rotation(world: &World, serving: Serving) -> (String, Value, String) {
    stop(serving);
    let client = world.clients[world.run.seed as usize % SHOPS].clone();
    let old = record(world, &client);
    let serving = world.start().await;
    let new = format!("canary-new-{}", fastrand::u32(..));
    world.market.sandbox.set_secret(&client, &new).unwrap();
    patch(world, &serving, &client, &new).await;
    serving.idle(QUIET).await;
    stop(serving);
    (client, old, "an old record".to_owned())
}

async fn patch(world: &World, serving: &Serving, client: &str, secret: &str) {
    let (status, answer) = world.change(serving, client, json!({"client_secret": secret})).await;
    assert_eq!((status, &answer["state"]), (200, &json!("active")), "{answer}");
}

/// Swaps sealed parts of two shops, or flips a bit in one; returns the clients, and a description.
fn damage(world: &World, random: &mut fastrand::Rng) -> (Vec<String>, String) {
    let mut clients = world.clients.clone();
    random.shuffle(&mut clients);
    let part = SEALED[random.usize(..SEALED.len())];
    if random.bool() {
        let (one, two) = (clients[0].clone(), clients[1].clone());
        let parts: &[&str] = if random.bool() { &SEALED } else { &[part] };
        for part in parts {
            let (of_one, of_two) = (sealed(world, &one, part), sealed(world, &two, part));
            set_sealed(world, &one, part, &of_two);
            set_sealed(world, &two, part, &of_one);
        }
        return (vec![one, two], format!("swapped {parts:?}"));
    }
    let client = clients[0].clone();
    let mut bytes = STANDARD.decode(sealed(world, &client, part)).unwrap();
    let (at, bit) = (random.usize(..bytes.len()), random.u8(..8));
    bytes[at] ^= 1 << bit;
    set_sealed(world, &client, part, &STANDARD.encode(bytes));
    (vec![client], format!("bit {bit} of byte {at} of {part}"))
}

/// Those shops stop with a reason; the others complete their walks.
async fn judge_shops(world: &World, serving: &Serving, broken: &[String], old: bool) {
    // No cached token may hide the damaged credentials.
    world.market.sandbox.kill_tokens();
    world.walk_all(serving).await;
    let mut states: BTreeMap<&String, Value> = BTreeMap::new();
    until!(world, "the broken shops stop", QUIET, {
        for client in &world.clients {
            states.insert(client, world.shop(serving, client).await);
        }
        broken.iter().all(|client| states[client]["state"] == "refused")
    });
    let expected = if old { "credentials are refused" } else { "credentials cannot be read" };
    for (client, shop) in &states {
        if broken.contains(client) {
            assert!(shop["reason"].as_str().is_some_and(|reason| reason.contains(expected)), "{shop}");
        } else {
            assert_eq!(shop["state"], "active", "{shop}");
        }
    }
    let readable: BTreeSet<String> = serving
        .all("/api/v1/shipments")
        .await
        .iter()
        .map(|item| item["shop_id"].as_str().unwrap().to_owned())
        .collect();
    let others = world.clients.iter().filter(|client| !broken.contains(client));
    assert!(others.into_iter().all(|client| readable.contains(&world.shops[client])), "documents of others are hidden");
    let of_others = |run: &Value| broken.iter().all(|client| run["shop_id"] != *world.shops[client].as_str());
    until!(world, "the others walk to their end", QUIET, {
        let runs = serving.all("/api/v1/runs").await;
        runs.iter().filter(|run| of_others(run)).all(|run| !run["ended_at"].is_null())
    });
}

/// A new secret restores them.
async fn renew_secrets(world: &World, serving: &Serving, broken: &[String]) {
    for client in broken {
        // A refused secret is not tried again for a while.
        let new = format!("{}-{}", secret(client), fastrand::u32(..));
        world.market.sandbox.set_secret(client, &new).unwrap();
        patch(world, serving, client, &new).await;
    }
    serving.idle(QUIET).await;
}
