//! The engine in a simulated world: its own code, on a paused clock, against a marketplace and a network made from
//! a seed, killed and started again over what its store had made durable. A day takes a moment.
//!
//! Each seed is a test. `WAYBILL_SIM_SEEDS=N` runs more of them, `WAYBILL_SIM_SEED=S` one again,
//! `WAYBILL_SIM_SHOPS=N` a larger world.

mod market;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::{Instant, sleep, timeout};

use super::schedule::{Schedule, Timetable, serve_due};
use super::{Engine, Parts};
use crate::catalog::{Definition, RuleTable, reader};
use crate::domain::clock::Millis;
use crate::domain::{Clock, Mode, RetryPolicy, RunState, Trigger};
use crate::source::Upstream;
use crate::store::{Memory, NewShop, Store};
use market::Market;

/// The world begins on a day with nothing special: 2026-11-24T12:00Z.
const BEGIN: Millis = 1_795_521_600_000;
const DAY: Duration = Duration::from_secs(86_400);
/// At the end all must be quiet within this.
const QUIET_WITHIN: Duration = Duration::from_secs(6 * 3600);
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

/// What a seed decides.
struct World {
    seed: u64,
    random: fastrand::Rng,
    market: Arc<Market>,
    memory: Memory,
    definition: Arc<Definition>,
    rules: RuleTable,
    clients: Vec<String>,
    length: Duration,
    now: Millis,
    /// What the last process's wall clock was off by.
    skew: Millis,
    diary: String,
}

fn world(seed: u64, shops: Option<usize>) -> World {
    let mut random = fastrand::Rng::with_seed(seed);
    let table = DEFINITION.parse::<toml::Table>().unwrap();
    let definition = Arc::new(reader::read("things", &table).unwrap());
    let some = |random: &mut fastrand::Rng, choices: &[&str]| (*random.choice(choices).unwrap()).to_owned();
    let limits = BTreeMap::from([
        ("GET /things".to_owned(), some(&mut random, &["2/s", "7/3s", "25/min", "9/10s"])),
        ("GET /things/*".to_owned(), some(&mut random, &["5/s", "20/10s", "50/min"])),
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

/// A process: store, engine and the way into the archive.
struct Life {
    store: Store,
    engine: Engine,
}

impl World {
    /// Starts a process whose wall clock is off by so much.
    async fn start(&self, skew: Millis) -> Life {
        let store = Store::simulated(&self.memory, Clock::of_runtime(self.now + skew)).unwrap();
        let market: Arc<dyn Upstream> = Arc::<Market>::clone(&self.market);
        let engine = Engine::start(Parts {
            store: store.clone(),
            source: market,
            definitions: vec![Arc::clone(&self.definition)],
            rules: self.rules.clone(),
            retry: RetryPolicy::default(),
            outbox_bytes_max: 1 << 20,
            lane_width: 16,
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
        Life { store, engine }
    }

    /// One life of the process, until it is killed.
    fn live(&mut self, life: Duration, skew: Millis) {
        let runtime = runtime();
        let end = runtime.block_on(async {
            let another_clock = std::mem::replace(&mut self.skew, skew) != skew;
            // Sometimes nothing goes right for a whole life.
            let trouble = if self.random.u8(..8) == 0 { 100 } else { self.random.u8(..12) };
            self.market.begin(self.now, trouble, another_clock);
            let running = self.start(skew).await;
            let begun = Instant::now();
            let stirring = tokio::spawn(stir(Arc::clone(&self.market)));
            let ticking = tick(&running.engine);
            assert!(timeout(life.saturating_sub(begun.elapsed()), ticking).await.is_err(), "a schedule has no end");
            stirring.abort();
            self.market.now()
        });
        // Here every task ends where it is, as at kill -9.
        drop(runtime);
        self.now = end + Millis::from(self.random.u16(..5_000));
    }

    /// The last life: nothing goes wrong any more, and all becomes quiet and right.
    fn settle(&mut self) {
        let runtime = runtime();
        runtime.block_on(async {
            self.market.begin(self.now, 0, self.skew != 0);
            let life = self.start(0).await;
            quiet(&life.store).await;
            for shop in life.store.shops().unwrap() {
                life.engine.walk(&shop, None, Mode::Full, Trigger::Request).await.unwrap();
            }
            quiet(&life.store).await;
            // What was parked while the network was bad comes back by itself, within a day.
            if life.store.counters().unwrap().parked > 0 {
                sleep(Duration::from_secs(24 * 3600)).await;
                for shop in life.store.shops().unwrap() {
                    life.engine.walk(&shop, None, Mode::Incremental, Trigger::Schedule).await.unwrap();
                }
                quiet(&life.store).await;
            }
            self.judge(&life.store);
        });
    }

    fn judge(&self, store: &Store) {
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
            // A list that answers with nothing for one call is in doubt until the next walk.
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

    /// The whole story; how many lives it had.
    fn run(&mut self) -> usize {
        // Jitter of retries comes from the thread's own.
        fastrand::seed(self.seed);
        let end = self.now + millis(self.length);
        let mut lives = 0;
        while self.now < end {
            let longest = if self.random.u8(..3) == 0 { Duration::from_secs(5) } else { self.length / 3 };
            let life = Duration::from_millis(self.random.u64(..u64::try_from(longest.as_millis()).unwrap()) + 1);
            let skew = if self.random.u8(..8) == 0 { self.random.i64(-7_200_000..7_200_000) } else { 0 };
            writeln!(self.diary, "{} ms: lives {life:?}, clock off by {skew} ms", self.now - BEGIN).unwrap();
            self.live(life, skew);
            lives += 1;
        }
        self.settle();
        lives
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap()
}

async fn tick(engine: &Engine) {
    let read = |text: &str| Schedule::parse(text, "Europe/Amsterdam").unwrap();
    let timetable = Timetable { sync: read("0 */30 * * * *"), reconcile: read("0 0 */6 * * *") };
    loop {
        serve_due(engine, &timetable).await.unwrap();
        sleep(Duration::from_secs(60)).await;
    }
}

async fn stir(market: Arc<Market>) {
    loop {
        sleep(Duration::from_secs(fastrand::u64(10..600))).await;
        market.stir();
    }
}

/// Moves documents into the archive, as the writer does.
async fn archive(store: Store) {
    loop {
        let slots = store.outbox_slots(64, usize::MAX).unwrap();
        if slots.is_empty() {
            store.signals().outbox.notified().await;
        } else {
            sleep(Duration::from_millis(5)).await;
            store.archive(slots).await.unwrap();
        }
    }
}

async fn quiet(store: &Store) {
    let begun = Instant::now();
    loop {
        let counters = store.counters().unwrap();
        let left = counters.ready_jobs + counters.leased_jobs + counters.retrying_jobs + counters.outbox;
        if left + counters.open_runs == 0 {
            return;
        }
        assert!(begun.elapsed() < QUIET_WITHIN, "not quiet: {counters:?}");
        sleep(Duration::from_secs(1)).await;
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs a seed; tells its story when it fails. Its lives and calls.
fn seed(seed: u64, shops: Option<usize>) -> (usize, u64) {
    let mut world = world(seed, shops);
    match std::panic::catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(lives) => (lives, world.market.calls()),
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
        seeds.map(|one| seed(one, None)).fold((0, 0), |sum, told| (sum.0 + told.0, sum.1 + told.1))
    };
    let (lives, calls) = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
        let told = running.into_iter().map(|one| one.join().unwrap());
        told.fold((0, 0), |sum, told| (sum.0 + told.0, sum.1 + told.1))
    });
    println!("{count} worlds from seed {first} on, {lives} lives, {calls} calls");
}

/// `WAYBILL_SIM_SHOPS=200 cargo test --release --lib a_day_of_many_shops -- --nocapture`
#[test]
fn a_day_of_many_shops_takes_a_moment() {
    let shops = number("WAYBILL_SIM_SHOPS").unwrap_or(5);
    let begun = std::time::Instant::now();
    let (lives, calls) = seed(number("WAYBILL_SIM_SEED").unwrap_or(1), Some(usize::try_from(shops).unwrap()));
    println!("a day of {shops} shops: {:.1} s, {lives} lives, {calls} calls", begun.elapsed().as_secs_f64());
}

/// Ticks that are served over a stretch of time by an engine that wakes each half minute, but for `asleep`.
fn served(expression: &str, from: &str, hours: u64, asleep: Option<(u64, u64)>) -> usize {
    let runtime = runtime();
    runtime.block_on(async {
        let from = from.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let mut world = world(1, Some(0));
        world.now = from;
        let life = world.start(0).await;
        let schedule = Schedule::parse(expression, "Europe/Amsterdam").unwrap();
        let never = Schedule::parse("0 0 0 1 1 *", "Europe/Amsterdam").unwrap();
        let timetable = Timetable { sync: schedule, reconcile: never };
        let (mut count, mut last) = (0, None);
        for half_minute in 0..hours * 120 {
            if asleep.is_none_or(|(start, end)| !(start * 120..end * 120).contains(&half_minute)) {
                serve_due(&life.engine, &timetable).await.unwrap();
                let kept = life.store.kept_time("sync").unwrap();
                count += usize::from(last.is_some() && kept != last);
                last = kept;
            }
            sleep(Duration::from_secs(30)).await;
        }
        count
    })
}

#[test]
fn each_tick_is_served_once_over_both_changes_of_summer_time_and_once_after_a_sleep() {
    // The days of 2026 with 23 and with 25 hours, in Amsterdam.
    let (spring, autumn) = ("2026-03-28T22:59:00Z", "2026-10-24T21:59:00Z");
    for (from, hours, quarters) in [(spring, 23, 92), (autumn, 25, 100)] {
        assert_eq!(served("0 30 2 * * *", from, hours, None), 1, "daily, {from}");
        assert_eq!(served("0 */15 * * * *", from, hours, None), quarters, "quarters, {from}");
    }
    assert_eq!(served("0 30 2 * * *", "2026-06-01T00:00:00Z", 48, Some((1, 47))), 2, "one before, one for all missed");
    assert_eq!(served("0 */15 * * * *", "2026-06-01T00:01:00Z", 30, Some((2, 28))), 8 + 1 + 8);
}
