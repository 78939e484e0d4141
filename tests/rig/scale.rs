//! Many shops in one process, some of them failing, slow or huge. Memory stays small and flat, a start is quick, and
//! the healthy shops do not wait for the others.
//!
//! Ten thousand registrations through the API would take half an hour at the login rate that is right for bol.com, so
//! `scale` fills the data directory through the library's store before the first start. It raises
//! `source.logins_per_second` for the same reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::{Fault, FaultBody, FaultKind, Options, Sandbox, ShopOptions};
use waybill::domain::Clock;

use crate::many_shops;
use crate::memory;
use crate::oracle::{self, Allowed};
use crate::program::{ADMIN_KEY, Folder, Market, Serving};
use crate::run::Run;
use crate::world::{Limit, Plan, World, secret, until};

const DETAILS: &str = "/retailer/shipments/";
const SHOPS: usize = 10_000;
const HUGE: usize = 20;
const FAILING: usize = 50;
const SLOW: usize = 50;
/// Shipments of a huge shop, by fulfilment.
const HUGE_ROWS: [usize; 2] = [8_000, 2_000];
/// Slow, but within the timeout of a call.
const SLOW_DETAIL_MS: u64 = 20_000;
const SLOW_MS: u64 = 30_000;
const MEMORY_MAX_MIB: u64 = 256;
/// Growth of the second half over the first.
const GROWTH_MAX_MIB: u64 = 16;
const FILES_MAX: usize = 512;
const READY_WITHIN: Duration = Duration::from_secs(5);
/// Time between two walks of everything.
const TICK: Duration = Duration::from_secs(120);
/// All first walks of healthy shops are done within this.
const SETTLED_WITHIN: Duration = Duration::from_secs(15 * 60);

/// Fairness on a small scale: the effect of slow and failing shops on the walks of the others.
pub(crate) async fn fair(run: Run) {
    let (healthy, slow, failing) = (20, 50, 10);
    let list = Limit { calls: 25, seconds: 10 };
    let detail = Limit { calls: 50, seconds: 10 };
    let plan = Plan { list, detail, ..Plan::of(healthy + slow + failing, [30, 15]) };
    let mut world = World::open(&run, plan).await;
    world.folder.set("WAYBILL_SOURCE_LOGINS_PER_SECOND", "200");
    // Their lists are quick, so that each has many details to wait for.
    let (others, good) = world.clients.split_at(slow + failing);
    let (others, good) = (others.to_vec(), good.to_vec());
    world.market.sandbox.set_faults(
        [
            faults(&others[..slow], DETAILS, &FaultKind::Slow { ms: SLOW_DETAIL_MS }),
            faults(&others[slow..], DETAILS, &broken()),
        ]
        .concat(),
    );
    let serving = world.start().await;
    for client in &others {
        assert!(world.register(&serving, client).await);
    }
    // Their details wait by now, and hold whatever slots they can.
    until!(world, "the slow shops are busy", Duration::from_secs(60), {
        let status = serving.get("/api/v1/status").await;
        status["leased_jobs"].as_u64().is_some_and(|leased| leased >= slow as u64)
    });
    let begun = Instant::now();
    for client in &good {
        assert!(world.register(&serving, client).await);
    }
    let registered = begun.elapsed();
    let read = || {
        let calls = world.market.sandbox.calls();
        calls.iter().filter(|call| call.id.is_some() && call.status == 200 && good.contains(&call.client_id)).count()
    };
    until!(world, "the healthy shops are read", Duration::from_secs(120), read() == good.len() * 45);
    run.note(format!("registered in {registered:?}, read after {:?}", begun.elapsed()));
    let waited = begun.elapsed() - registered;
    assert!(waited < Duration::from_secs(10), "healthy shops waited {waited:?} for slow ones");
    world.market.sandbox.set_faults(Vec::new());
    world.retry_parked(&serving).await;
    settle_slow(&world, &serving).await;
    oracle::judge_allowing(world, serving, Allowed { late: true, failed_runs: true, ..Allowed::default() }).await;
}

/// Slow shops keep their last calls in flight for as long as a call may take.
async fn settle_slow(world: &World, serving: &Serving) {
    until!(world, "the slow calls end", Duration::from_secs(120), {
        world.retry_parked(serving).await;
        serving.get("/api/v1/status").await["idle"] == true
    });
}

/// The same fault for each of some clients.
fn faults(clients: &[String], prefix: &str, kind: &FaultKind) -> Vec<Fault> {
    let of = |client: &String| Fault { client_id: Some(client.clone()), ..Fault::always(prefix, kind.clone()) };
    clients.iter().map(of).collect()
}

fn broken() -> FaultKind {
    FaultKind::Status { code: 500, body: FaultBody::Html, headers: BTreeMap::new() }
}

/// Ten thousand shops in one process.
pub(crate) async fn scale(run: Run) {
    let clients: Vec<String> = (0..SHOPS).map(|number| format!("client-{number}")).collect();
    let shop = |(number, client_id): (usize, &String)| {
        let [fbr, fbb] = if number < HUGE { HUGE_ROWS } else { [2, 1] };
        ShopOptions { client_id: client_id.clone(), client_secret: secret(client_id), fbr, fbb }
    };
    let options = Options {
        seed: run.seed,
        shops: clients.iter().enumerate().map(shop).collect(),
        latency: Duration::from_millis(20),
        token_life: Duration::from_secs(6 * 3600),
        ..Options::default()
    };
    let market = Market::open(options).await;
    let mut folder = Folder::at(&market.base, "");
    folder.set("WAYBILL_SOURCE_LOGINS_PER_SECOND", "200");
    folder.set("WAYBILL_SCHEDULE_SYNC", "0 */2 * * * *");
    let begun = Instant::now();
    let key: [u8; 32] = std::array::from_fn(|_| fastrand::u8(..));
    folder.write("data.key", &STANDARD.encode(key));
    many_shops::register(&folder, &key, &clients).await;
    println!("  {SHOPS} shops registered in the data directory in {:.1} s", begun.elapsed().as_secs_f64());
    let serving = start(&folder).await;
    let begun = Instant::now();
    let most = 2 * HUGE as u64;
    // The first walks start during the work: for a moment none is open.
    let pages = 2 * SHOPS as u64;
    while market.sandbox.audit().list_pages < pages || open_runs(&serving).await > most {
        assert!(begun.elapsed() < SETTLED_WITHIN, "{} walks are open", open_runs(&serving).await);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    println!("  first walks over after {:.0} s: {}", begun.elapsed().as_secs_f64(), held(&serving));
    let undisturbed = watch(&market.sandbox, &serving, &clients, run.tier.pick(1, 2, 4)).await;
    let (failing, slow) = clients[HUGE..HUGE + FAILING + SLOW].split_at(FAILING);
    let slow = faults(slow, "/retailer", &FaultKind::Slow { ms: SLOW_MS });
    market.sandbox.set_faults([faults(failing, "/retailer", &broken()), slow].concat());
    let disturbed = watch(&market.sandbox, &serving, &clients, run.tier.pick(1, 10, 60)).await;
    let limit = undisturbed.lag.mul_f64(1.1) + Duration::from_secs(2);
    // Including the first walks, which take the most.
    let peak_mib = memory::peak_mib(serving.pid());
    println!("  undisturbed {undisturbed:?}\n  disturbed {disturbed:?}\n  at most {peak_mib} MiB");
    serving.kill();
    let serving = start(&folder).await;
    serving.kill();
    assert!(disturbed.lag <= limit, "p95 lag {:?}, {limit:?} allowed", disturbed.lag);
    assert!(peak_mib <= MEMORY_MAX_MIB, "{peak_mib} MiB");
    assert!(disturbed.growth_mib <= GROWTH_MAX_MIB, "{} MiB more in the second half", disturbed.growth_mib);
    assert!(disturbed.files <= FILES_MAX, "{} open files", disturbed.files);
}

/// Starts it; it must be quick, whatever is in its directory.
async fn start(folder: &Folder) -> Serving {
    let begun = Instant::now();
    let mut serving = folder.spawn_serve();
    tokio::task::block_in_place(|| serving.listening());
    let answer = serving.call(reqwest::Method::GET, "/readyz").send().await.unwrap();
    let took = begun.elapsed();
    println!("  ready after {:.2} s", took.as_secs_f64());
    assert_eq!(answer.status(), 200);
    assert!(took <= READY_WITHIN, "ready only after {took:?}");
    serving
}

/// From the metrics: the status of the API lists every budget.
async fn open_runs(serving: &Serving) -> u64 {
    let text = serving.call(reqwest::Method::GET, "/metrics").bearer_auth(ADMIN_KEY).send().await.unwrap();
    let text = text.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("waybill_open_runs ")).unwrap_or("0");
    line.trim().parse::<f64>().unwrap() as u64
}

fn held(serving: &Serving) -> String {
    let pid = serving.pid();
    let (now, peak) = (memory::now_kib(pid) >> 10, memory::peak_mib(pid));
    format!("{now} MiB, at most {peak} MiB, {} open files", memory::open_files(pid))
}

/// Measurements over some ticks.
#[derive(Debug)]
struct Seen {
    /// How long after a tick 95 % of the healthy shops had finished their walks.
    lag: Duration,
    growth_mib: u64,
    files: usize,
}

/// Observes whole ticks, from a quiet moment before the first.
async fn watch(sandbox: &Sandbox, serving: &Serving, clients: &[String], ticks: u32) -> Seen {
    let healthy: BTreeSet<&str> = clients[HUGE + FAILING + SLOW..].iter().map(String::as_str).collect();
    let begin = || {
        let now = u64::try_from(Clock::system().now().as_millis()).unwrap();
        TICK - Duration::from_millis(now % TICK.as_millis() as u64)
    };
    tokio::time::sleep(begin()).await;
    sandbox.reset_audit();
    let begun = Instant::now();
    let (mut rss, mut files) = (Vec::new(), 0);
    while begun.elapsed() < TICK * ticks - Duration::from_secs(2) {
        rss.push(memory::now_kib(serving.pid()));
        files = files.max(memory::open_files(serving.pid()));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mean = |part: &[u64]| part.iter().sum::<u64>() / part.len().max(1) as u64;
    let (first, second) = rss.split_at(rss.len() / 2);
    let lag = lag(sandbox, &healthy);
    let growth_mib = mean(second).saturating_sub(mean(first)) >> 10;
    Seen { lag, growth_mib, files }
}

/// The 95th percentile of all walks' ends, counted from the first call of their tick.
fn lag(sandbox: &Sandbox, healthy: &BTreeSet<&str>) -> Duration {
    let calls = sandbox.calls();
    let listed = calls.iter().filter(|call| call.page.is_some() && healthy.contains(call.client_id.as_str()));
    let tick = TICK.as_micros() as u64;
    let first = listed.clone().map(|call| call.at_us).min().expect("walks");
    let mut ends: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    for call in listed {
        let (which, late) = ((call.at_us - first) / tick, (call.at_us - first) % tick);
        let end = ends.entry((which, &call.client_id)).or_default();
        *end = late.max(*end);
    }
    let mut ends: Vec<u64> = ends.into_values().collect();
    ends.sort_unstable();
    Duration::from_micros(ends[ends.len() * 95 / 100])
}
