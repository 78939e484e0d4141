//! M1 and M3: the database goes away under load, in every way, and the service with it; and the answer to a COMMIT is lost, so
//! that nobody knows whether it happened. Nothing is lost and nothing is there twice.

use std::time::Duration;

use crate::mariadb::{Database, MariaDb};
use crate::oracle;
use crate::proxy::{Fault, Proxy};
use crate::run::Run;
use crate::world::{Limit, Plan, World};

/// Share of the documents that change in a second.
const CHANGES: f64 = 0.1;

/// M1: kill -9, a clean stop, and a server that hangs.
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
        // What waits for the database is safe without it: kill the one that keeps it.
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

/// M3: the server commits, and its OK is swallowed.
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

/// The network between us and the database: black holes, resets, cuts, delay.
pub(crate) async fn bad_network(run: Run) {
    let Through { proxy, mut world } = through(&run).await;
    let serving = world.start().await;
    world.register_all(&serving).await;
    let stirring = world.stir(CHANGES);
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

struct Through {
    proxy: Proxy,
    world: World,
}

/// A world whose service reaches the database through a proxy, and the rig directly.
async fn through(run: &Run) -> Through {
    let database = Database::fresh().await;
    let url = url::Url::parse(&database.url()).unwrap();
    let proxy = Proxy::to(url.port().unwrap(), run.seed).await;
    let detail = Limit { calls: 100, seconds: 1 };
    let mut world = World::open(run, Plan { mysql: Some(database), detail, ..Plan::of(2, [150, 50]) }).await;
    let mut through = url.clone();
    through.set_port(Some(proxy.port)).unwrap();
    world.folder.set("WAYBILL_MYSQL_URL", through.as_str());
    world.walk_often();
    Through { proxy, world }
}
