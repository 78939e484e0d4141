//! Database outages under load, of every kind, with kills of the service; and lost answers to COMMIT. Nothing is lost
//! and nothing is stored twice.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::mariadb::{Database, MariaDb};
use crate::mysql_stress;
use crate::oracle;
use crate::program::Serving;
use crate::proxy::{Fault, Proxy};
use crate::run::{Run, Tier};
use crate::world::{Limit, Plan, World, until};

/// Share of the documents that change per second.
const CHANGES: f64 = 0.1;

/// The server is killed, stopped cleanly, or hangs.
pub(crate) async fn outages(mut run: Run) {
    let mut server = tokio::task::block_in_place(MariaDb::start);
    let database = Database::on(&server.url()).await;
    let mut world = World::open(&run, Plan { mysql: Some(database), ..Plan::of(4, [200, 50]) }).await;
    world.walk_often();
    let mut serving = world.start().await;
    world.register_all(&serving).await;
    let stirring = world.stir(CHANGES);
    let mut ways = ["KILL", "TERM", "STOP"];
    run.random.shuffle(&mut ways);
    for way in ways {
        tokio::time::sleep(Duration::from_millis(run.random.u64(0..1500))).await;
        let away = Duration::from_millis(run.random.u64(500..run.tier.pick(4_000, 20_000, 60_000)));
        run.note(format!("SIG{way} for {away:?}"));
        tokio::task::block_in_place(|| server.signal(way));
        tokio::time::sleep(away / 2).await;
        // The backlog survives without the database: kill the service that holds it.
        world.kill(serving);
        serving = world.start().await;
        tokio::time::sleep(away / 2).await;
        if way == "STOP" {
            server.signal("CONT");
        } else {
            tokio::task::block_in_place(|| {
                server.kill();
                server.run();
            });
        }
    }
    drop(stirring);
    oracle::judge(world, serving).await;
}

/// The server commits, but its answer is lost.
pub(crate) async fn unknown_commits(run: Run) {
    let through = through(&run).await;
    let Through { proxy, world } = through;
    let serving = world.start().await;
    let mut world = world;
    world.register_all(&serving).await;
    let stirring = world.stir(CHANGES);
    let mut random = run.random.clone();
    let wanted = run.tier.pick(20, 30, 100);
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for number in 0..wanted {
        let skip = random.u64(0..3);
        proxy.set(Fault::SwallowCommit(skip));
        while proxy.swallowed() <= number {
            pace.tick().await;
        }
        run.note(format!("swallowed {} (after {skip} others)", number + 1));
    }
    drop(stirring);
    oracle::judge(world, serving).await;
    drop(proxy);
}

/// The network to the database fails: outage (with few reconnects), black hole, resets, cuts, delay.
pub(crate) async fn bad_network(run: Run) {
    let Through { proxy, mut world } = through(&run).await;
    let serving = world.start().await;
    world.register_all(&serving).await;
    let stirring = world.stir(CHANGES);
    mysql_stress::asks_seldom(&world, &serving, &proxy).await;
    let mut random = run.random.clone();
    for _ in 0..run.tier.pick(6, 15, 60) {
        let fault = match random.u8(0..4) {
            0 => Fault::BlackHole,
            1 => Fault::Refuse,
            2 => Fault::CutAfter(random.u64(100..20_000)),
            _ => Fault::Latency(Duration::from_millis(1), Duration::from_millis(200)),
        };
        let lasts = Duration::from_millis(random.u64(200..2500));
        run.note(format!("{fault:?} for {lasts:?}"));
        proxy.set(fault);
        tokio::time::sleep(lasts).await;
        proxy.set(Fault::None);
        tokio::time::sleep(Duration::from_millis(random.u64(0..700))).await;
    }
    drop(stirring);
    oracle::judge(world, serving).await;
    drop(proxy);
}

/// What should happen to a document that the server answers with an error code.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It is parked, at once or after some attempts, and no other is. A lost connection needs many attempts.
    Parked,
    /// It is deferred, and others are written.
    LeftForLater,
    /// Everything waits, and nothing is parked.
    AllWait,
}

const CODES: [(u16, Fate); 15] = [
    (1205, Fate::LeftForLater),
    (1213, Fate::LeftForLater),
    (1020, Fate::LeftForLater),
    (2006, Fate::Parked),
    (1040, Fate::AllWait),
    (1053, Fate::AllWait),
    (1290, Fate::AllWait),
    (1836, Fate::AllWait),
    (1366, Fate::Parked),
    (1406, Fate::Parked),
    (1292, Fate::Parked),
    (4025, Fate::Parked),
    (1064, Fate::Parked),
    (1114, Fate::AllWait),
    (1142, Fate::AllWait),
];

/// The server answers one document with each error code in turn, until the fault is removed.
pub(crate) async fn codes(run: Run) {
    let mut random = run.random.clone();
    let database = Database::fresh().await;
    let free = Limit { calls: 10_000, seconds: 1 };
    let mut world =
        World::open(&run, Plan { mysql: Some(database), list: free, detail: free, ..Plan::of(1, [60, 20]) }).await;
    let serving = world.start().await;
    world.register_all(&serving).await;
    serving.idle(Duration::from_secs(60)).await;
    let mut codes = CODES.to_vec();
    random.shuffle(&mut codes);
    // Those that wait half a minute run in the longer tiers only.
    codes.retain(|(code, _)| run.tier != Tier::P || !matches!(code, 1114 | 1142));
    codes.truncate(run.tier.pick(4, CODES.len(), CODES.len()));
    for (code, fate) in codes {
        let client = world.clients[0].clone();
        let ids = &world.from_the_start[&client];
        let victim = random.choice(ids).unwrap().clone();
        run.note(format!("{code} for {victim}: {fate:?}"));
        inject(&world, code, Some(&victim)).await;
        let sandbox = &world.market.sandbox;
        let change = |id: &String| assert!(sandbox.change_row(&client, id).unwrap());
        ids.iter().take(20).chain([&victim]).for_each(change);
        world.walk_all(&serving).await;
        if fate == Fate::AllWait {
            // The victim may have been the last document, written alone; then the others wait with it.
            until!(world, "a sink that takes nothing", Duration::from_secs(60), {
                serving.get("/api/v1/status").await["sink"]["healthy"] == false
            });
            ids.iter().take(20).for_each(change);
            world.walk_all(&serving).await;
        }
        let held = hold(&serving, fate).await;
        inject(&world, code, None).await;
        let status = serving.idle(Duration::from_secs(90)).await;
        let parked = serving.all("/api/v1/parked").await;
        assert_eq!(status["parked"], if fate == Fate::Parked { 1 } else { 0 }, "{code}: {held}; {parked:?}");
        for one in &parked {
            assert_eq!(one["document_id"], victim.as_str(), "{code}");
        }
        world.retry_parked(&serving).await;
        serving.idle(Duration::from_secs(60)).await;
    }
    oracle::judge(world, serving).await;
}

/// Makes the server refuse one document with a code, or accepts all.
async fn inject(world: &World, code: u16, victim: Option<&str>) {
    let database = world.database.as_ref().unwrap();
    database.run("DROP TRIGGER IF EXISTS fault").await;
    if let Some(victim) = victim {
        let signal = format!("SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'injected'");
        let text = format!("IF NEW.shipment_id = '{victim}' THEN {signal}; END IF");
        database.run(&format!("CREATE TRIGGER fault BEFORE INSERT ON shipments FOR EACH ROW BEGIN {text}; END")).await;
    }
}

/// Waits until the outcome shows; returns the status.
async fn hold(serving: &Serving, fate: Fate) -> Value {
    let begun = Instant::now();
    loop {
        let status = serving.get("/api/v1/status").await;
        let outbox = status["outbox"].as_u64().unwrap();
        let shows = match fate {
            Fate::Parked => status["parked"] == 1 && outbox == 0,
            Fate::LeftForLater => outbox == 1 && status["parked"] == 0 && status["leased_jobs"] == 0,
            Fate::AllWait => status["sink"]["healthy"] == false && outbox > 1,
        };
        if shows {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{fate:?} does not show: {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) struct Through {
    pub(crate) proxy: Proxy,
    pub(crate) world: World,
}

/// A world whose service reaches the database through a proxy, and the rig directly.
pub(crate) async fn through(run: &Run) -> Through {
    let detail = Limit { calls: 100, seconds: 1 };
    let mut through = through_of(run, Plan { detail, ..Plan::of(2, [150, 50]) }).await;
    through.world.walk_often();
    through
}

/// The same for a world of another plan, without scheduled walks.
pub(crate) async fn through_of(run: &Run, plan: Plan) -> Through {
    let database = Database::fresh().await;
    let url = url::Url::parse(&database.url()).unwrap();
    let proxy = Proxy::to(url.port().unwrap(), run.seed).await;
    let mut world = World::open(run, Plan { mysql: Some(database), ..plan }).await;
    let mut through = url.clone();
    through.set_port(Some(proxy.port)).unwrap();
    world.folder.set("WAYBILL_MYSQL_URL", through.as_str());
    Through { proxy, world }
}
