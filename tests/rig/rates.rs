//! No window of any budget is exceeded, with kills, delays and repeated walks, nor when the wall clock jumps; and
//! without faults, no budget is left unused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sandbox::{Fault, FaultBody, FaultKind};

use crate::oracle;
use crate::proxy::{self, Proxy};
use crate::run::Run;
use crate::world::{Limit, Plan, World};

/// Jitter on the way to the marketplace.
const DELAY: (Duration, Duration) = (Duration::ZERO, Duration::from_millis(400));

/// Many clients with tight budgets, killed again and again behind a slow and unsteady network.
pub(crate) async fn windows(mut run: Run) {
    let shops = run.tier.pick(12, 100, 200);
    let list = *run.random.choice(&[Limit { calls: 8, seconds: 12 }, Limit { calls: 7, seconds: 18 }]).unwrap();
    let detail = Limit { calls: 25, seconds: 1 };
    run.note(format!("lists {list:?}, details {detail:?}"));
    let mut world = World::open(&run, Plan { list, detail, ..Plan::of(shops, [120, 60]) }).await;
    let proxy = Proxy::to(proxy::port_of(&world.market.base), run.seed).await;
    proxy.set(proxy::Fault::Latency(DELAY.0, DELAY.1));
    world.reach_market_at(proxy.port);
    world.walk_often();
    let serving = world.start().await;
    world.register_all(&serving).await;
    world.kill(serving);
    let begun = Instant::now();
    let lasts = Duration::from_secs(run.tier.pick(45, 300, 1800));
    while begun.elapsed() < lasts {
        let after = run.random.u64(0..5000);
        run.note(format!("kill after {after} ms"));
        let serving = world.start().await;
        world.walk_all(&serving).await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        world.kill(serving);
    }
    let serving = world.start().await;
    oracle::judge_calls(&world, serving);
    drop(proxy);
}

/// Minimum use of a budget while there is work for all of it.
const USED_AT_LEAST: f64 = 0.9;

/// Without faults both budgets are used up. A slot is free one window after its answer ended, so what is missing is
/// the network time and our own overhead.
pub(crate) async fn used(mut run: Run) {
    let list = *run.random.choice(&[Limit { calls: 2, seconds: 2 }, Limit { calls: 1, seconds: 1 }]).unwrap();
    let detail = *run.random.choice(&[Limit { calls: 50, seconds: 2 }, Limit { calls: 25, seconds: 1 }]).unwrap();
    let pages = run.tier.pick(9, 60, 300);
    run.note(format!("lists {list:?}, details {detail:?}"));
    let mut world = World::open(&run, Plan { list, detail, ..Plan::of(2, [50 * (pages - 1), 50]) }).await;
    let serving = world.start().await;
    world.register_all(&serving).await;
    serving.idle(Duration::from_secs(run.tier.pick(60, 300, 1200))).await;
    for ((account, rule), times) in oracle::call_times(&world) {
        let used = share_used(&times, world.limits[&rule]);
        run.note(format!("{rule} of {account}: {:.1} % of {} calls", used * 100.0, times.len()));
        assert!(used >= USED_AT_LEAST, "{rule} of {account}: only {:.1} % of the budget are used", used * 100.0);
    }
    oracle::judge_calls(&world, serving);
}

/// Share of a budget used by the sorted calls, in the steady middle of them.
fn share_used(times: &[u64], limit: Limit) -> f64 {
    let calls = limit.calls as usize;
    let first = times.len() / 5;
    // Whole windows: calls come in bursts, and part of one would count too much or too little.
    let windows = (times.len() * 3 / 5) / calls;
    assert!(windows >= 5, "{} calls are too few to tell", times.len());
    let took = times[first + windows * calls] - times[first];
    (windows as u64 * u64::from(limit.seconds) * 1_000_000) as f64 / took as f64
}

/// Where the wall clock jumps to, in libfaketime's format.
const STEPS: [&str; 9] = [
    "+1",
    "-1",
    "+3600",
    "-3600",
    "+86400",
    "-86400",
    "@1970-01-01 00:00:10",
    "@2038-01-19 03:14:05",
    "@2100-02-28 23:59:58",
];

/// The clock jumps during the work, and over a restart.
pub(crate) async fn clock(run: Run) {
    jumps(run, Vec::new()).await;
}

/// The clock jumps while calls fail, so that retries wait for a time by that clock.
pub(crate) async fn clock_with_retries(run: Run) {
    let busy = FaultKind::Status { code: 500, body: FaultBody::Json, headers: BTreeMap::new() };
    jumps(run, vec![Fault { probability: Some(0.1), ..Fault::always("/retailer", busy) }]).await;
}

async fn jumps(mut run: Run, faults: Vec<Fault>) {
    let list = Limit { calls: 10, seconds: 2 };
    let detail = Limit { calls: 40, seconds: 1 };
    let mut world = World::open(&run, Plan { list, detail, ..Plan::of(3, [150, 50]) }).await;
    world.walk_often();
    let now = world.folder.path("clock");
    let set = |text: &str| {
        // Renamed into place: a partial time must not be read.
        let fresh = now.with_extension("new");
        std::fs::write(&fresh, format!("{text}\n")).unwrap();
        std::fs::rename(&fresh, &now).unwrap();
    };
    set("+0");
    world.folder.set("LD_PRELOAD", &library().unwrap().display().to_string());
    world.folder.set("FAKETIME_TIMESTAMP_FILE", &now.display().to_string());
    world.folder.set("FAKETIME_NO_CACHE", "1");
    world.folder.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut serving = world.start().await;
    world.register_all(&serving).await;
    let stirring = world.stir(0.05);
    world.market.sandbox.set_faults(faults);
    let mut steps = STEPS;
    run.random.shuffle(&mut steps);
    for step in &steps[..run.tier.pick(5, 9, 9)] {
        run.note(format!("the clock: {step}"));
        set(step);
        tokio::time::sleep(Duration::from_millis(run.random.u64(500..3000))).await;
        if run.random.bool() {
            run.note("kill and start");
            world.kill(serving);
            serving = world.start().await;
        }
    }
    // A wait for a time of a clock that was ahead must not last after the clock is right again.
    let ahead = run.random.choice(["+3600", "+86400", "@2100-02-28 23:59:58"]).unwrap();
    run.note(format!("the clock: {ahead}, until it is right"));
    set(ahead);
    tokio::time::sleep(Duration::from_millis(run.random.u64(2_000..8_000))).await;
    drop(stirring);
    world.market.sandbox.set_faults(Vec::new());
    set("+0");
    run.note("the clock is right again");
    // Token discipline: a jump may end a token early, but must not start a storm of logins.
    serving.idle(Duration::from_secs(60)).await;
    let audit = world.market.sandbox.audit();
    let allowed = (steps.len() as u64 + 3) * world.clients.len() as u64 + audit.refused_401;
    assert!(audit.token_requests <= allowed, "{} token requests, {allowed} allowed", audit.token_requests);
    oracle::judge(world, serving).await;
}

/// The library that fakes the time.
pub(crate) fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}
