//! Deterministic simulation: the real engine on a paused clock, against a marketplace and a network made from
//! a seed, killed and restarted on what its store had made durable. A simulated day takes a second.
//!
//! Each seed is a test. `WAYBILL_SIM_SEEDS=N` sets their number, `WAYBILL_SIM_SEED=S` repeats one,
//! `WAYBILL_SIM_SHOPS=N` simulates more shops.

mod market;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::{Instant, sleep, timeout};

use super::schedule::serve_due;
use super::{Engine, EngineDeps, Selection};
use crate::catalog::{Definition, RuleTable, reader};
use crate::domain::schedule::{Schedule, Timetable};
use crate::domain::{Clock, Mode, RetryPolicy, RunState, Timestamp, Trigger};
use crate::source::Upstream;
use crate::store::{Memory, NewShop, Store};
use market::Market;

/// Start of the simulated time, an ordinary day: 2026-11-24T12:00Z.
const BEGIN: Timestamp = Timestamp::from_millis(1_795_521_600_000);
const DAY: Duration = Duration::from_secs(86_400);
/// At the end the engine must be idle within this.
const IDLE_WITHIN: Duration = Duration::from_secs(6 * 3600);
const DEFINITION: &str = r#"
    media_type = "application/json"
    id = "/id"
    [list]
    path = "/things"
    items = "/things"
    order = "newest-first"
    time = "/at"
    overlap = "2h"
    pages = { style = "number", parameter = "page" }
    parameters = { kind = ["a", "b"] }
    [detail]
    path = "/things/{id}"
    [detail.refresh]
    until = { at = "/events/*/code", in = ["DONE"] }
    time = "/at"
    every = "1h"
    max_age = "60d"
    [table.columns]
    row = { from = "/row", type = "integer" }"#;

/// A world made from a seed.
struct World {
    seed: u64,
    random: fastrand::Rng,
    market: Arc<Market>,
    memory: Memory,
    definition: Arc<Definition>,
    rules: RuleTable,
    clients: Vec<String>,
    length: Duration,
    now: Timestamp,
    /// Error of the last process's wall clock, in milliseconds.
    skew: i64,
    /// Printed when the seed fails.
    diary: String,
}

fn world(seed: u64, shops: Option<usize>) -> World {
    let mut random = fastrand::Rng::with_seed(seed);
    let table = DEFINITION.parse::<toml::Table>().unwrap();
    let definition = Arc::new(reader::read("things", &table).unwrap());
    let pick = |random: &mut fastrand::Rng, choices: &[&str]| (*random.choice(choices).unwrap()).to_owned();
    let limits = BTreeMap::from([
        ("GET /things".to_owned(), pick(&mut random, &["2/s", "7/3s", "25/min", "9/10s"])),
        ("GET /things/*".to_owned(), pick(&mut random, &["5/s", "20/10s", "50/min"])),
    ]);
    let rules = RuleTable::build([&limits]).unwrap();
    let count = shops.unwrap_or_else(|| random.usize(1..4));
    let clients: Vec<String> = (0..count).map(|number| format!("client-{number}")).collect();
    let things = if shops.is_some() { 12 } else { 60 };
    let market = Market::new(random.u64(..), rules.clone(), &clients, things, BEGIN);
    let length = if shops.is_some() { DAY } else { DAY.mul_f64(0.1 + random.f64() * 0.4) };
    let diary = format!("limits {limits:?}, {count} shops, {length:?}\n");
    World {
        seed,
        random,
        market: Arc::new(market),
        memory: Memory::default(),
        definition,
        rules,
        clients,
        length,
        now: BEGIN,
        skew: 0,
        diary,
    }
}

/// A simulated process: store and engine.
struct Process {
    store: Store,
    engine: Engine,
}

impl World {
    /// Starts a process with this error of its wall clock.
    async fn start(&self, skew: i64) -> Process {
        let store =
            Store::simulated(&self.memory, Clock::of_runtime(Timestamp::from_millis(self.now.as_millis() + skew)))
                .unwrap();
        let market: Arc<dyn Upstream> = Arc::<Market>::clone(&self.market);
        let engine = Engine::start(EngineDeps {
            handed: None,
            store: store.clone(),
            source: market,
            definitions: vec![Arc::clone(&self.definition)],
            rules: self.rules.clone(),
            retry: RetryPolicy::default(),
            outbox_bytes_max: 1 << 20,
            lane_width: 16,
            // Fewer than there are lanes.
            lanes_at_once: 2,
            only: Selection::default(),
        });
        let engine = engine.await.unwrap();
        tokio::spawn(archive(store.clone()));
        for client in &self.clients {
            if !store.has_client(client).unwrap() {
                let shop = NewShop {
                    name: client.clone(),
                    client_id: client.clone(),
                    client_secret: SecretString::from("secret"),
                    account: None,
                    resources: vec!["things".to_owned()],
                };
                let shop = store.create_shop(shop).await.unwrap();
                engine.walk(&shop, None, Mode::Full, Trigger::Schedule).await.unwrap();
            }
        }
        Process { store, engine }
    }

    /// Runs one process until it is killed after `life`.
    fn run_process(&mut self, life: Duration, skew: i64) {
        let runtime = runtime();
        let end = runtime.block_on(async {
            let another_clock = std::mem::replace(&mut self.skew, skew) != skew;
            // Some processes see nothing but failures.
            let trouble = if self.random.u8(..8) == 0 { 100 } else { self.random.u8(..12) };
            self.market.begin(self.now, trouble, another_clock);
            let process = self.start(skew).await;
            let begun = Instant::now();
            let changing = tokio::spawn(change(Arc::clone(&self.market)));
            let ticking = tick(&process.engine);
            assert!(timeout(life.saturating_sub(begun.elapsed()), ticking).await.is_err(), "a schedule has no end");
            changing.abort();
            self.market.now()
        });
        // Every task ends where it is, as at kill -9.
        drop(runtime);
        self.now = end + Duration::from_millis(u64::from(self.random.u16(..5_000)));
    }

    /// Runs the last process, without failures, until it is idle, and checks the result.
    fn settle(&mut self) {
        let runtime = runtime();
        runtime.block_on(async {
            self.market.begin(self.now, 0, self.skew != 0);
            let process = self.start(0).await;
            idle(&process.store).await;
            for shop in process.store.shops().unwrap() {
                process.engine.walk(&shop, None, Mode::Full, Trigger::Request).await.unwrap();
            }
            idle(&process.store).await;
            // Jobs parked during failures are retried within a day.
            if process.store.counters().unwrap().parked > 0 {
                sleep(Duration::from_secs(24 * 3600)).await;
                for shop in process.store.shops().unwrap() {
                    process.engine.walk(&shop, None, Mode::Incremental, Trigger::Schedule).await.unwrap();
                }
                idle(&process.store).await;
            }
            self.check(&process.store);
        });
    }

    fn check(&self, store: &Store) {
        for shop in store.shops().unwrap() {
            for thing in self.market.truth(&shop.client_id) {
                let found = store.archived_one("things", &shop.id, &thing.id).unwrap();
                let found = found.unwrap_or_else(|| panic!("{} of {} is lost", thing.id, shop.client_id));
                let document: serde_json::Value = serde_json::from_slice(&found.body).unwrap();
                assert_eq!(document, thing.document(), "{} of {} is stale", thing.id, shop.client_id);
                assert_eq!(found.no_longer_listed_at, None, "{} is listed", thing.id);
            }
        }
        for run in store.runs(None, usize::MAX, |_| true).unwrap() {
            // A list with one empty answer is in doubt until the next walk.
            let was_cut = matches!(run.state, RunState::Failed | RunState::Unproved);
            assert!(run.state == RunState::Done || was_cut, "{run:?}");
            assert!(was_cut || run.pending() == 0, "{run:?}");
        }
        assert_eq!(store.parked(None, 9, |_| true).unwrap(), []);
        let counters = store.counters().unwrap();
        assert_eq!((counters.ready_jobs, counters.leased_jobs, counters.parked), (0, 0, 0), "{counters:?}");
        assert_eq!((counters.outbox, counters.outbox_bytes, counters.open_runs), (0, 0, 0), "{counters:?}");
        assert_eq!(self.market.breaches(), Vec::<String>::new());
    }

    /// Runs the world; returns the number of processes.
    fn run(&mut self) -> usize {
        // The jitter of retries uses the thread's generator.
        fastrand::seed(self.seed);
        let end = self.now + self.length;
        let mut processes = 0;
        while self.now < end {
            let longest = if self.random.u8(..3) == 0 { Duration::from_secs(5) } else { self.length / 3 };
            let life = Duration::from_millis(self.random.u64(..u64::try_from(longest.as_millis()).unwrap()) + 1);
            let skew = if self.random.u8(..8) == 0 { self.random.i64(-7_200_000..7_200_000) } else { 0 };
            writeln!(self.diary, "{:?}: a process of {life:?}, clock off by {skew} ms", self.now.since(BEGIN)).unwrap();
            self.run_process(life, skew);
            processes += 1;
        }
        self.settle();
        processes
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

async fn tick(engine: &Engine) {
    let read = |text: &str| Schedule::parse(text, chrono_tz::Europe::Amsterdam).unwrap();
    let timetable = Timetable { sync: read("0 */30 * * * *"), reconcile: read("0 0 */6 * * *") };
    loop {
        serve_due(engine, &timetable).await.unwrap();
        sleep(Duration::from_secs(60)).await;
    }
}

async fn change(market: Arc<Market>) {
    loop {
        sleep(Duration::from_secs(fastrand::u64(10..600))).await;
        market.change();
    }
}

/// Moves documents into the archive, as the writer does.
async fn archive(store: Store) {
    loop {
        let slots = store.outbox_positions(64, usize::MAX).unwrap();
        if slots.is_empty() {
            store.signals().outbox.notified().await;
        } else {
            sleep(Duration::from_millis(5)).await;
            store.archive(slots).await.unwrap();
        }
    }
}

async fn idle(store: &Store) {
    let begun = Instant::now();
    loop {
        let counters = store.counters().unwrap();
        let left = counters.ready_jobs + counters.leased_jobs + counters.retrying_jobs + counters.outbox;
        if left + counters.open_runs == 0 {
            return;
        }
        assert!(begun.elapsed() < IDLE_WITHIN, "not idle: {counters:?}");
        sleep(Duration::from_secs(1)).await;
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs a seed; prints its diary when it fails. Returns the numbers of processes and calls.
fn seed(seed: u64, shops: Option<usize>) -> (usize, u64) {
    let mut world = world(seed, shops);
    match std::panic::catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(processes) => (processes, world.market.calls()),
        Err(panic) => {
            println!("repeat with WAYBILL_SIM_SEED={seed}: {}", world.diary);
            std::panic::resume_unwind(panic)
        }
    }
}

#[test]
fn nothing_is_lost_doubled_stale_or_over_the_limit_in_any_simulated_world() {
    if let Some(one) = number("WAYBILL_SIM_SEED") {
        seed(one, None);
        return;
    }
    let count = number("WAYBILL_SIM_SEEDS").unwrap_or(200);
    let first = fastrand::u64(..u64::MAX / 2);
    let threads = u64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap();
    let part = |thread: u64| {
        let seeds =
            (first..first + count).skip(usize::try_from(thread).unwrap()).step_by(usize::try_from(threads).unwrap());
        seeds.map(|one| seed(one, None)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    let (processes, calls) = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
        let results = running.into_iter().map(|one| one.join().unwrap());
        results.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    println!("{count} worlds from seed {first} on, {processes} processes, {calls} calls");
}

/// `WAYBILL_SIM_SHOPS=200 cargo test --release --lib a_day_of_many_shops -- --nocapture`
#[test]
fn a_day_of_many_shops_is_simulated_in_seconds() {
    let shops = number("WAYBILL_SIM_SHOPS").unwrap_or(5);
    let begun = std::time::Instant::now();
    let (processes, calls) = seed(number("WAYBILL_SIM_SEED").unwrap_or(1), Some(usize::try_from(shops).unwrap()));
    println!("a day of {shops} shops: {:.1} s, {processes} processes, {calls} calls", begun.elapsed().as_secs_f64());
}

/// Number of ticks served within some hours by an engine that wakes every half minute, except in `asleep`.
fn served(expression: &str, from: &str, hours: u64, asleep: Option<(u64, u64)>) -> usize {
    let runtime = runtime();
    runtime.block_on(async {
        let mut world = world(1, Some(0));
        world.now = from.parse::<jiff::Timestamp>().unwrap().into();
        let process = world.start(0).await;
        let schedule = Schedule::parse(expression, chrono_tz::Europe::Amsterdam).unwrap();
        let never = Schedule::parse("0 0 0 1 1 *", chrono_tz::Europe::Amsterdam).unwrap();
        let timetable = Timetable { sync: schedule, reconcile: never };
        let (mut count, mut last) = (0, None);
        for half_minute in 0..hours * 120 {
            if asleep.is_none_or(|(start, end)| !(start * 120..end * 120).contains(&half_minute)) {
                serve_due(&process.engine, &timetable).await.unwrap();
                let kept = process.store.saved_time("sync").unwrap();
                count += usize::from(last.is_some() && kept != last);
                last = kept;
            }
            sleep(Duration::from_secs(30)).await;
        }
        count
    })
}

#[test]
fn each_tick_is_served_once_over_both_dst_changes_and_once_after_a_suspend() {
    // The days of 2026 with 23 and with 25 hours, in Amsterdam.
    let (spring, autumn) = ("2026-03-28T22:59:00Z", "2026-10-24T21:59:00Z");
    for (from, hours, quarters) in [(spring, 23, 92), (autumn, 25, 100)] {
        assert_eq!(served("0 30 2 * * *", from, hours, None), 1, "daily, {from}");
        assert_eq!(served("0 */15 * * * *", from, hours, None), quarters, "quarters, {from}");
    }
    assert_eq!(served("0 30 2 * * *", "2026-06-01T00:00:00Z", 48, Some((1, 47))), 2, "one before, one for all missed");
    assert_eq!(served("0 */15 * * * *", "2026-06-01T00:01:00Z", 30, Some((2, 28))), 8 + 1 + 8);
}
