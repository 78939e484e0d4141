//! A stressed MySQL: rows locked by others, a full disk, and a slow, narrow or unreliable network. Incoming work
//! waits, what is healthy stays so, and afterwards everything is there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use reqwest::Method;

use crate::database::{Through, through};
use crate::disk::Disk;
use crate::mariadb::{Database, MariaDb};
use crate::oracle;
use crate::program::Serving;
use crate::proxy::{Fault, Proxy};
use crate::run::Run;
use crate::world::{Limit, Plan, World};

/// Share of the documents that change per second.
const CHANGES: f64 = 0.1;
/// The files of a fresh server, and some room to grow.
const DISK_MIB: u64 = 160;
/// A server without space is reported within this.
const FULL_WITHIN: Duration = Duration::from_secs(60);
/// Recovery time once there is room again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);
/// The service's limit of connections to MySQL.
const CONNECTIONS_MAX: usize = 8;
/// Readers that would exceed the limit if they could.
const READERS: usize = 12;
/// Other clients that lock rows, and for how long; we wait two seconds for one.
const HOLDERS: usize = 8;
const HELD: Duration = Duration::from_millis(300);
const HELD_FOR_LONG: Duration = Duration::from_secs(6);
/// How long the database is away for the count of connection attempts; first it refuses them.
const AWAY: Duration = Duration::from_secs(12);
const REFUSED: Duration = Duration::from_secs(8);
/// `/healthz` answers within this, whatever MySQL does.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// The smallest outbox that can be configured: fetching pauses soon.
const OUTBOX_MAX: u64 = 1 << 20;
/// What may still arrive at a full outbox: calls already in flight.
const OUTBOX_SLACK: u64 = 1 << 20;

/// The database's disk fills up during the work. MariaDB refuses for a while, and crashes when it has no space for its
/// own rollback.
pub(crate) async fn disk_full(mut run: Run) {
    let disk = Disk::new(DISK_MIB, 5).unwrap();
    let server = tokio::task::block_in_place(|| MariaDb::start_on(Some(disk.path().as_path())));
    let (world, serving) = begin(&run, Database::on(&server.url()).await).await;
    let some = run.random.u64(1..200);
    let database = world.database.as_ref().unwrap();
    while database.rows::<u64>("SELECT COUNT(*) FROM shipments").await[0] < some {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    disk.fill();
    run.note(format!("full, with {some} documents or more inside"));
    no_room(run, world, serving, server, &disk).await;
}

/// The database's disk is full before the first document: there is not even space for the tables.
pub(crate) async fn disk_full_at_start(run: Run) {
    let disk = Disk::new(DISK_MIB, 5).unwrap();
    let server = tokio::task::block_in_place(|| MariaDb::start_on(Some(disk.path().as_path())));
    // A database takes a block too.
    let database = Database::on(&server.url()).await;
    disk.fill();
    let (world, serving) = begin(&run, database).await;
    no_room(run, world, serving, server, &disk).await;
}

/// A service with much to write to this database.
async fn begin(run: &Run, database: Database) -> (World, Serving) {
    let detail = Limit { calls: 100, seconds: 1 };
    let mut world = World::open(run, Plan { mysql: Some(database), detail, ..Plan::of(2, [400, 100]) }).await;
    world.walk_often();
    let serving = world.start().await;
    world.register_all(&serving).await;
    (world, serving)
}

/// The disk is full for a while; then the backlog drains without a restart of the service.
async fn no_room(run: Run, world: World, mut serving: Serving, mut server: MariaDb, disk: &Disk) {
    let stirring = world.stir(CHANGES / 4.0);
    until_healthy(&world, &serving, false, FULL_WITHIN).await;
    let error = serving.get("/api/v1/status").await["sink"]["error"].to_string();
    run.note(format!("the server runs: {}; {}; we say {error}", server.is_alive(), server.last_error()));
    let (begun, lasts) = (Instant::now(), Duration::from_secs(run.tier.pick(3, 60, 120)));
    while begun.elapsed() < lasts {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(serving.is_alive(), "it ended while MySQL was full:\n{}", world.tail());
        let status = serving.get("/api/v1/status").await;
        assert!(status["outbox"].as_u64() > Some(0) && status["parked"] == 0, "{status}\n{}", world.tail());
    }
    disk.free();
    if !server.is_alive() {
        tokio::task::block_in_place(|| {
            server.kill();
            server.run();
        });
    }
    drop(stirring);
    until_healthy(&world, &serving, true, RECOVERS_WITHIN).await;
    run.note("room again, and it is used");
    oracle::judge(world, serving).await;
}

/// Waits until the service reports this state of its sink.
pub(crate) async fn until_healthy(world: &World, serving: &Serving, healthy: bool, at_most: Duration) {
    let begun = Instant::now();
    loop {
        let status = serving.get("/api/v1/status").await;
        if status["sink"]["healthy"] == healthy {
            return;
        }
        let late = begun.elapsed() > at_most;
        assert!(!late, "healthy is not {healthy} after {at_most:?}: {status}\n{}", world.tail());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Half a second per statement, then a kilobyte per second, then every other connection torn.
pub(crate) async fn slow(run: Run) {
    let Through { proxy, mut world } = through(&run).await;
    world.folder.set("WAYBILL_LIMITS_OUTBOX_MAX_BYTES", &OUTBOX_MAX.to_string());
    let serving = world.start().await;
    world.register_all(&serving).await;
    let stirring = world.stir(CHANGES);
    let quarter = Duration::from_millis(250);
    let mut faults = [Fault::Latency(quarter, quarter), Fault::Bandwidth(1024), Fault::Resets(50)];
    let mut random = run.random.clone();
    random.shuffle(&mut faults);
    for fault in faults {
        let lasts = Duration::from_secs(run.tier.pick(8, 60, 400));
        let most = bear(&world, &serving, &proxy, &fault, lasts).await;
        run.note(format!("{most} connections at most"));
        proxy.set(Fault::None);
    }
    drop(stirring);
    oracle::judge(world, serving).await;
}

/// Other clients lock rows of the same shop, in any order, mostly for a moment, occasionally longer than our timeout.
/// Races are lost and deadlocks broken; no document is blamed for either.
pub(crate) async fn contention(run: Run) {
    let detail = Limit { calls: 100, seconds: 1 };
    let database = Database::fresh().await;
    let mut world = World::open(&run, Plan { mysql: Some(database), detail, ..Plan::of(1, [150, 50]) }).await;
    world.walk_often();
    let serving = world.start().await;
    world.register_all(&serving).await;
    serving.idle(Duration::from_secs(60)).await;
    let stirring = world.stir(CHANGES);
    let database = world.database.as_ref().unwrap();
    let (client, shop) = world.shops.iter().next().unwrap();
    let mut holders = tokio::task::JoinSet::new();
    let until = Instant::now() + Duration::from_secs(run.tier.pick(10, 40, 120));
    let mut random = run.random.clone();
    for _ in 0..HOLDERS {
        let ids = world.from_the_start[client].clone();
        holders.spawn(hold_rows(database.conn().await, shop.clone(), ids, until, random.fork()));
    }
    let mut races = 0;
    while let Some(lost) = holders.join_next().await {
        races += lost.unwrap();
    }
    run.note(format!("the others lost {races} races"));
    let status = serving.get("/api/v1/status").await;
    assert_eq!(status["parked"], 0, "{status} {}\n{}", serving.get("/api/v1/parked").await, world.tail());
    drop(stirring);
    oracle::judge(world, serving).await;
}

/// Locks some rows of a shop one by one, holds them, releases them; again and again. Returns how often it lost a race.
async fn hold_rows(mut conn: Conn, shop: String, ids: Vec<String>, until: Instant, mut random: fastrand::Rng) -> u64 {
    let mut lost = 0;
    while Instant::now() < until {
        conn.query_drop("START TRANSACTION").await.unwrap();
        for _ in 0..random.u8(2..6) {
            let id = &ids[random.usize(..ids.len())];
            let row = format!("SELECT 1 FROM shipments WHERE shop_id = '{shop}' AND shipment_id = '{id}' FOR UPDATE");
            match conn.query_drop(row).await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(random.u64(0..30))).await,
                Err(mysql_async::Error::Server(error)) if matches!(error.code, 1205 | 1213) => {
                    lost += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        let most = if random.u8(..10) == 0 { HELD_FOR_LONG } else { HELD };
        tokio::time::sleep(most.mul_f64(random.f64())).await;
        conn.query_drop("ROLLBACK").await.unwrap();
    }
    conn.disconnect().await.unwrap();
    lost
}

/// What holds while MySQL is hard to reach; returns the peak number of connections.
async fn bear(world: &World, serving: &Serving, proxy: &Proxy, fault: &Fault, lasts: Duration) -> usize {
    let before = world.market.sandbox.audit().details_read;
    world.run.note(format!("{fault:?} for {lasts:?}"));
    let (begun, mut most, mut readers) = (Instant::now(), 0, tokio::task::JoinSet::new());
    // Lists are read in turns, a few at a time; single documents are not.
    let shop = world.shops.values().next().unwrap();
    let document = format!("/api/v1/shipments/{shop}/none");
    let mut paths = ["/api/v1/shipments?limit=5", document.as_str(), document.as_str()].into_iter().cycle();
    proxy.set(fault.clone());
    let mut set_at = begun;
    let mut pace = tokio::time::interval(Duration::from_millis(80));
    while begun.elapsed() < lasts {
        pace.tick().await;
        // Draw again: a lucky connection would otherwise stay so for the whole time.
        if set_at.elapsed() > Duration::from_secs(1) {
            set_at = Instant::now();
            proxy.set(fault.clone());
        }
        // One more at a time: a key's requests are limited.
        if readers.len() < READERS {
            readers.spawn(serving.call(Method::GET, paths.next().unwrap()).send());
        }
        while let Some(answer) = readers.try_join_next() {
            let status = answer.unwrap().unwrap().status().as_u16();
            assert!(matches!(status, 200 | 404 | 429 | 503), "a read over a bad line: {status}");
        }
        let count = connections(proxy.port);
        assert!(count <= CONNECTIONS_MAX, "{count} connections, {CONNECTIONS_MAX} are allowed");
        most = most.max(count);
        lively(world, serving).await;
    }
    let (_, status) = world.insist(serving, Method::GET, "/api/v1/status", None).await;
    let full = status["outbox_bytes"].as_u64() >= Some(OUTBOX_MAX);
    let fetched = world.market.sandbox.audit().details_read - before;
    assert!(fetched > 0 || full, "no document was read for {lasts:?}: {status}");
    assert!(status["outbox_bytes"].as_u64() <= Some(OUTBOX_MAX + OUTBOX_SLACK), "{status}");
    let parked = serving.get("/api/v1/parked").await;
    assert_eq!(status["parked"], 0, "{status} {parked}\n{}", world.tail());
    most
}

/// Everything that needs no MySQL is quick.
async fn lively(world: &World, serving: &Serving) {
    let begun = Instant::now();
    let (status, _) = world.ask(serving, Method::GET, "/healthz", None).await.expect("an answer of /healthz");
    let took = begun.elapsed();
    assert!(status == 200 && took < ANSWERS_WITHIN, "/healthz: {status} after {took:?}");
    for path in ["/api/v1/shops", "/api/v1/runs"] {
        let (status, answer) = world.ask(serving, Method::GET, path, None).await.expect("an answer of a list");
        assert!(matches!(status, 200 | 429), "{path}: {status} {answer}");
    }
}

/// Connections of this machine to that port, established or pending, by the kernel's own list. The proxy cannot see
/// which of its connections the other end has abandoned: that news travels the slow line, too. The list is not atomic
/// and may show a connection twice: the lower of two counts is used.
fn connections(port: u16) -> usize {
    let to = format!("0100007F:{port:04X}");
    let look = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let words = table.lines().map(|line| line.split_whitespace().skip(1).take(3).collect::<Vec<_>>());
        let open = words.filter(|words| words.len() == 3 && words[1] == to && matches!(words[2], "01" | "02"));
        open.map(|words| words[0].to_owned()).collect::<BTreeSet<String>>().len()
    };
    look().min(look())
}

/// An unreachable server is contacted once a second on average, at most.
pub(crate) async fn asks_seldom(world: &World, serving: &Serving, proxy: &Proxy) {
    let (begun, before) = (Instant::now(), proxy.accepted());
    // Every existing connection ends with its next answer; then new ones are refused or get no answer.
    proxy.set(Fault::CutAfter(0));
    until_healthy(world, serving, false, FULL_WITHIN).await;
    for (fault, until) in [(Fault::Refuse, REFUSED), (Fault::BlackHole, AWAY)] {
        proxy.set(fault.clone());
        tokio::time::sleep(until.saturating_sub(begun.elapsed())).await;
        let (asked, seconds) = (proxy.accepted() - before, begun.elapsed().as_secs());
        world.run.note(format!("{fault:?}: {asked} connections asked for in {seconds} s"));
        assert!(asked <= seconds, "{asked} connections asked for in {seconds} s");
    }
    proxy.set(Fault::None);
}
