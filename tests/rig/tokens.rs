//! Tokens that expire early, behave oddly or cannot be obtained. Judged by the sandbox's record of the logins: how
//! many each client made, and never two at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sandbox::{Call, Fault, FaultBody, FaultKind};
use serde_json::{Value, json};

use crate::oracle::{self, Allowed};
use crate::program::Serving;
use crate::run::Run;
use crate::world::{Limit, Plan, World, until};

const SHOPS: usize = 3;
/// Details leave in bursts of this size: as many calls carry one dead token.
const BURST: usize = 50;
/// Time of each answer: two logins of a client that are closer than this overlapped.
const ANSWER_TAKES: Duration = Duration::from_millis(150);
/// Real tokens outlive the run.
const LONG: Duration = Duration::from_secs(599);
const HEALS_WITHIN: Duration = Duration::from_secs(60);
/// The login host answers 429 with this `Retry-After`.
const WAIT_S: u64 = 3;

/// Everything that tokens can do, one after the other, to working shops.
pub(crate) async fn tokens(mut run: Run) {
    let options: fn(&mut sandbox::Options) = |options| options.latency = ANSWER_TAKES;
    let list = Limit { calls: 10_000, seconds: 1 };
    let detail = Limit { calls: BURST as u32, seconds: 1 };
    let rounds = run.tier.pick(3, 4, 4);
    // Enough that the first walk is still reading when the last round begins.
    let rows = [rounds * 3 * BURST, 40];
    let mut world = World::open(&run, Plan { list, detail, options, ..Plan::of(SHOPS, rows) }).await;
    let serving = world.start().await;
    world.register_all(&serving).await;
    revoked(&world, &serving, rounds).await;
    serving.idle(HEALS_WITHIN).await;
    let stirring = world.stir(0.05);
    let mut lives = LIVES.to_vec();
    run.random.shuffle(&mut lives);
    for life in &lives[..run.tier.pick(5, lives.len(), lives.len())] {
        lived(&world, &serving, life).await;
    }
    asked_to_wait(&world, &serving).await;
    slow(&world, &serving).await;
    rotated(&world, &serving).await;
    drop(stirring);
    one_at_a_time(&world);
    // A failed login ends no walk; changes missed by the last one come with the next.
    oracle::judge_allowing(world, serving, Allowed { late: true, ..Allowed::default() }).await;
}

/// Logins since `from`, by client.
fn logins(world: &World, from: usize) -> BTreeMap<String, Vec<Call>> {
    let mut logins: BTreeMap<String, Vec<Call>> = BTreeMap::new();
    for call in world.market.sandbox.calls().drain(from..).filter(|call| call.token) {
        logins.entry(call.client_id.clone()).or_default().push(call);
    }
    logins
}

/// No client made more logins than this since `from`.
fn at_most(world: &World, from: usize, most: usize, what: &str) {
    for (client, logins) in logins(world, from) {
        world.run.note(format!("{what}: {} logins of {client}", logins.len()));
        assert!(logins.len() <= most, "{what}: {} logins of {client}, {most} allowed", logins.len());
    }
}

/// Tokens end during the first walk, just before a burst: a single login resolves all its 401s.
async fn revoked(world: &World, serving: &Serving, times: usize) {
    let mut most = None;
    for round in 1..=times {
        let details = || world.market.sandbox.calls().iter().filter(|call| call.id.is_some()).count();
        let before = details();
        until!(world, "a burst", HEALS_WITHIN, details() >= before + BURST);
        let from = world.market.sandbox.calls().len();
        world.market.sandbox.kill_tokens();
        let refused = || {
            let mut refused: BTreeMap<String, usize> = BTreeMap::new();
            for call in world.market.sandbox.calls().drain(from..).filter(|call| call.status == 401) {
                *refused.entry(call.client_id).or_default() += 1;
            }
            refused
        };
        until!(world, "calls with a dead token", HEALS_WITHIN, refused().len() == SHOPS);
        until!(world, "new tokens", HEALS_WITHIN, logins(world, from).len() == SHOPS);
        tokio::time::sleep(ANSWER_TAKES * 4).await;
        world.run.note(format!("tokens revoked, {round}: refused {:?}", refused()));
        most = refused().into_values().max().max(most);
        at_most(world, from, 1, "revoked");
    }
    // Not every round meets a burst; at least one must.
    assert!(most >= Some(BURST / 2), "only {most:?} calls at once met a dead token");
    let status = serving.get("/api/v1/status").await;
    assert_eq!(status["parked"], 0, "a token's end costs no document");
}

/// The announced and the real lifetime of a token.
#[derive(Clone, Copy)]
struct Life {
    claimed: &'static str,
    real: Duration,
    /// Whether the token can be used at all.
    usable: bool,
    /// The shortest time after which a login is due again.
    each: Duration,
}

const fn life(claimed: &'static str, usable: bool, real: Duration, each: Duration) -> Life {
    Life { claimed, real, usable, each }
}

const LIVES: [Life; 8] = [
    life("0", false, LONG, LONG),
    life("-1", false, LONG, LONG),
    life("\"soon\"", false, LONG, LONG),
    // Renewed at three quarters of its life.
    life("1", true, LONG, Duration::from_millis(750)),
    life("null", true, LONG, LONG),
    life("\"599\"", true, LONG, LONG),
    life("1e9", true, LONG, LONG),
    life("1000000000", true, Duration::from_secs(2), Duration::from_secs(2)),
];

/// Works with one kind of token, then checks.
async fn lived(world: &World, serving: &Serving, life: &Life) {
    let sandbox = &world.market.sandbox;
    let claimed: Value = serde_json::from_str(life.claimed).unwrap();
    let (begun, from) = (Instant::now(), sandbox.calls().len());
    sandbox.set_token_life(life.real, Some(claimed));
    sandbox.kill_tokens();
    world.walk_all(serving).await;
    until!(world, "a login", HEALS_WITHIN, !logins(world, from).is_empty());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let lasted = begun.elapsed();
    let what = format!("expires_in {}", life.claimed);
    if life.usable {
        let lives = (lasted.as_millis() / life.each.as_millis()) as usize;
        at_most(world, from, lives + 2, &what);
        let calls = sandbox.calls();
        assert!(calls[from..].iter().any(|call| !call.token && call.status == 200), "{what}: nothing was called");
    } else {
        // Pauses double, starting at a second.
        at_most(world, from, (lasted.as_secs_f64() + 1.0).log2() as usize + 1, &what);
    }
    sandbox.set_token_life(LONG, None);
    sandbox.kill_tokens();
    serving.idle(HEALS_WITHIN).await;
}

/// The login host answers 429: no one logs in before the wait is over.
async fn asked_to_wait(world: &World, serving: &Serving) {
    let sandbox = &world.market.sandbox;
    let headers = BTreeMap::from([("Retry-After".to_owned(), WAIT_S.to_string())]);
    let kind = FaultKind::Status { code: 429, body: FaultBody::Json, headers };
    sandbox.set_faults(vec![Fault::times("/token", kind, 1)]);
    let from = sandbox.calls().len();
    sandbox.kill_tokens();
    world.walk_all(serving).await;
    let all = || logins(world, from).into_values().flatten().collect::<Vec<_>>();
    until!(world, "a login after the wait", HEALS_WITHIN, all().iter().any(|call| call.status == 200));
    serving.idle(HEALS_WITHIN).await;
    let claimed = all().iter().find(|call| call.status == 429).expect("one login met the 429").at_us;
    // Logins already in flight when the answer came do not count.
    let silence = claimed + ANSWER_TAKES.as_micros() as u64 * 2..claimed + WAIT_S * 1_000_000;
    let early = all().iter().filter(|call| silence.contains(&call.at_us)).count();
    assert_eq!(early, 0, "logins although the host asked to wait");
    sandbox.set_faults(Vec::new());
}

/// The login host is slow: everyone waits for the one login.
async fn slow(world: &World, serving: &Serving) {
    let sandbox = &world.market.sandbox;
    sandbox.set_faults(vec![Fault::times("/token", FaultKind::Slow { ms: 2_500 }, SHOPS as u64)]);
    let from = sandbox.calls().len();
    sandbox.kill_tokens();
    world.walk_all(serving).await;
    serving.idle(HEALS_WITHIN).await;
    at_most(world, from, 1, "a slow login host");
    sandbox.set_faults(Vec::new());
}

/// The secret changes at the marketplace: that shop stops with a reason, the others continue, and the new secret
/// restores it.
async fn rotated(world: &World, serving: &Serving) {
    let sandbox = &world.market.sandbox;
    let (bad, new) = (&world.clients[1], "canary-secret-after-its-rotation");
    let from = sandbox.calls().len();
    sandbox.set_secret(bad, new).unwrap();
    sandbox.kill_tokens();
    world.walk_all(serving).await;
    until!(world, "the shop stops", HEALS_WITHIN, world.shop(serving, bad).await["state"] == "refused");
    let shop = world.shop(serving, bad).await;
    assert!(shop["reason"].as_str().is_some_and(|reason| reason.contains("credentials are refused")), "{shop}");
    let (status, answer) = world.change(serving, bad, json!({"client_secret": "another-wrong-one"})).await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(world.shop(serving, bad).await["state"], "refused");
    let others = world.shops.iter().filter(|(client, _)| *client != bad).map(|(_, shop)| shop.clone());
    let others: Vec<String> = others.collect();
    until!(world, "the others are done", HEALS_WITHIN, {
        let runs = serving.all("/api/v1/runs").await;
        runs.iter().all(|run| !run["ended_at"].is_null() || others.iter().all(|shop| run["shop_id"] != *shop.as_str()))
    });
    // One refused login, and one by hand.
    let tried = logins(world, from).get(bad).map_or(0, Vec::len);
    assert!(tried <= 3, "{tried} logins with refused secrets");
    let (status, answer) = world.change(serving, bad, json!({"client_secret": new})).await;
    assert_eq!((status, &answer["state"]), (200, &json!("active")), "{answer}");
    serving.idle(HEALS_WITHIN).await;
}

/// The login host answers 404, as to a blocked address: no shop logs in any more, also not after a kill and a start. A
/// process that a supervisor keeps restarting must not prolong the block.
pub(crate) async fn blocked(run: Run) {
    let options: fn(&mut sandbox::Options) = |options| options.latency = ANSWER_TAKES;
    let limit = Limit { calls: 10_000, seconds: 1 };
    let mut world = World::open(&run, Plan { list: limit, detail: limit, options, ..Plan::of(SHOPS, [60, 20]) }).await;
    let serving = world.start().await;
    world.register_all(&serving).await;
    serving.idle(HEALS_WITHIN).await;
    let sandbox = &world.market.sandbox;
    let from = sandbox.calls().len();
    sandbox.set_login_blocked(true);
    sandbox.kill_tokens();
    world.walk_all(&serving).await;
    until!(world, "a login", HEALS_WITHIN, !logins(&world, from).is_empty());
    until!(world, "the log says so", HEALS_WITHIN, world.tail().contains("all logins pause"));
    let some_time = Duration::from_secs(run.tier.pick(2, 30, 30));
    tokio::time::sleep(some_time).await;
    // Each may have been in flight when the first answer came, none afterwards.
    at_most(&world, from, 1, "blocked");
    let all: Vec<Call> = logins(&world, from).into_values().flatten().collect();
    let [first, last] = [all.iter().map(|call| call.at_us).min(), all.iter().map(|call| call.at_us).max()];
    let apart = Duration::from_micros(last.zip(first).map_or(0, |(last, first)| last - first));
    assert!(apart < ANSWER_TAKES * 4, "a login {apart:?} after the first 404");
    sandbox.set_login_blocked(false);
    let blocked = sandbox.calls().len();
    let mut serving = serving;
    for _ in 0..run.tier.pick(1, 5, 5) {
        world.kill(serving);
        serving = world.start().await;
        world.walk_all(&serving).await;
        tokio::time::sleep(some_time).await;
    }
    at_most(&world, blocked, 0, "started again");
    oracle::judge_calls(&world, serving);
}

/// No client ever had two concurrent logins.
fn one_at_a_time(world: &World) {
    for (client, logins) in logins(world, 0) {
        let mut times: Vec<u64> = logins.iter().map(|call| call.at_us).collect();
        times.sort_unstable();
        let least = times.windows(2).map(|pair| Duration::from_micros(pair[1] - pair[0])).min();
        world.run.note(format!("{} logins of {client}, {least:?} apart at the least", times.len()));
        assert!(least.is_none_or(|least| least >= ANSWER_TAKES), "two logins of {client} within {least:?}");
    }
}
