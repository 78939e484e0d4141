//! Failover to another database server, and a database restored from an old backup.
//!
//! In a failover the database accepts no writes for a while; then another server with the same rows takes over its
//! address, and the old one stays up, read-only, for existing connections.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;

use crate::mariadb::{Database, MariaDb};
use crate::mysql_stress::until_healthy;
use crate::oracle;
use crate::program::Serving;
use crate::proxy::{Proxy, port_of};
use crate::run::Run;
use crate::world::{Limit, Plan, World, until};

/// Share of the documents that change per second.
const CHANGES: f64 = 0.1;
/// How soon a server that accepts no writes is noticed: there is work every five seconds.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);
/// How soon writing resumes after the address has moved.
const WRITES_WITHIN: Duration = Duration::from_secs(10);
/// Documents that leave their list after the backup.
const LEAVE: usize = 5;
/// A scheduled full walk, and the re-reading of what it found missing.
const HEALS_WITHIN: Duration = Duration::from_secs(120);

/// Two servers alternate.
pub(crate) async fn failovers(mut run: Run) {
    let servers = tokio::task::block_in_place(|| [MariaDb::start(), MariaDb::start()]);
    let first = Database::on(&servers[0].url()).await;
    let second = first.twin(&servers[1].url()).await;
    for database in [&first, &second] {
        let all = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX";
        database.run("CREATE USER app@'127.0.0.1' IDENTIFIED BY 'app'").await;
        database.run(&format!("GRANT {all} ON `{}`.* TO app@'127.0.0.1'", database.name)).await;
    }
    let proxy = Proxy::to(port_of(&servers[0].url()), run.seed).await;
    let detail = Limit { calls: 100, seconds: 1 };
    let mut world = World::open(&run, Plan { detail, ..Plan::of(2, [150, 50]) }).await;
    // An unprivileged user: root could write to a read-only server.
    let url = format!("mysql://app:app@127.0.0.1:{}/{}", proxy.port, first.name);
    world.folder.set("WAYBILL_MYSQL_URL", &url);
    world.walk_often();
    let serving = world.start().await;
    world.register_all(&serving).await;
    let stirring = world.stir(CHANGES);
    let mut old = (&servers[0], first);
    let mut new = (&servers[1], second);
    for _ in 0..run.tier.pick(2, 5, 10) {
        tokio::time::sleep(Duration::from_millis(run.random.u64(0..4_000))).await;
        old.1.run("SET GLOBAL read_only = 1").await;
        until_healthy(&world, &serving, false, NOTICED_WITHIN).await;
        let lasts = Duration::from_millis(run.random.u64(1_000..run.tier.pick(8_000, 30_000, 60_000)));
        run.note(format!("read-only for {lasts:?}"));
        tokio::time::sleep(lasts).await;
        // Readers are connected to the old server, too.
        let (status, _) = world.insist(&serving, Method::GET, "/api/v1/shipments?limit=5", None).await;
        assert_eq!(status, 200, "a read-only server is read");
        let status = serving.get("/api/v1/status").await;
        let parked = serving.get("/api/v1/parked").await;
        assert_eq!(status["parked"], 0, "blamed for a server that takes nothing: {status} {parked}\n{}", world.tail());
        tokio::task::block_in_place(|| copy(old.0, new.0, &old.1.name));
        new.1.run("SET GLOBAL read_only = 0").await;
        proxy.lead_to(port_of(&new.0.url()));
        run.note("the other has the address");
        until_healthy(&world, &serving, true, WRITES_WITHIN).await;
        std::mem::swap(&mut old, &mut new);
    }
    drop(stirring);
    world.database = Some(old.1);
    oracle::judge(world, serving).await;
}

/// A backup is restored without the service's knowledge. Later changes come back by themselves: documents and their
/// newest versions, a newly registered shop, rows that left their list; and purged rows are purged again.
pub(crate) async fn set_back(mut run: Run) {
    let server = tokio::task::block_in_place(MariaDb::start);
    let database = Database::on(&server.url()).await;
    let detail = Limit { calls: 100, seconds: 1 };
    let mut world = World::open(&run, Plan { mysql: Some(database), detail, ..Plan::of(3, [100, 50]) }).await;
    world.walk_often();
    let serving = world.start().await;
    let [stays, goes, comes] = [0, 1, 2].map(|number| world.clients[number].clone());
    assert!(world.register(&serving, &stays).await && world.register(&serving, &goes).await);
    serving.idle(Duration::from_secs(60)).await;
    let stirring = world.stir(CHANGES);
    let name = world.database.as_ref().unwrap().name.clone();
    let backup = world.folder.path("backup.sql").display().to_string();
    tokio::task::block_in_place(|| shell(&format!("mariadb-dump {} {name} > {backup}", place(&server))));
    run.note("a backup");
    let goes_id = world.shops.remove(&goes).unwrap();
    let path = format!("/api/v1/shops/{goes_id}?purge=true");
    assert_eq!(world.insist(&serving, Method::DELETE, &path, None).await.0, 204);
    assert!(world.register(&serving, &comes).await);
    let mut left = world.from_the_start[&stays].clone();
    run.random.shuffle(&mut left);
    left.truncate(LEAVE);
    for id in &left {
        assert!(world.market.sandbox.remove(&stays, id).unwrap());
    }
    let left = BTreeSet::from_iter(left);
    noted(&world, &left).await;
    tokio::time::sleep(Duration::from_millis(run.random.u64(3_000..run.tier.pick(8_000, 40_000, 60_000)))).await;
    tokio::task::block_in_place(|| shell(&format!("mariadb {} {name} < {backup}", place(&server))));
    run.note("is put back");
    drop(stirring);
    healed(&world, &serving, &goes_id).await;
    noted(&world, &left).await;
    oracle::judge(world, serving).await;
}

/// Waits until exactly these documents are marked as no longer listed.
async fn noted(world: &World, left: &BTreeSet<String>) {
    let noted = "SELECT shipment_id FROM shipments WHERE no_longer_listed_at IS NOT NULL";
    until!(world, "what left its list is noted", HEALS_WITHIN, {
        let noted: Vec<String> = world.database.as_ref().unwrap().rows(noted).await;
        noted.into_iter().collect::<BTreeSet<_>>() == *left
    });
}

/// Waits until a restored database holds what it should, and nothing of a purged shop.
async fn healed(world: &World, serving: &Serving, purged: &str) {
    let database = world.database.as_ref().unwrap();
    for shop in world.shops.values() {
        let path = format!("/api/v1/shops/{shop}/completeness");
        until!(world, "a shop that is whole again", HEALS_WITHIN, {
            let (status, answer) = world.insist(serving, Method::GET, &path, None).await;
            status == 200 && answer["complete"] == true
        });
    }
    until!(world, "the shops as they are now", HEALS_WITHIN, {
        let shops: BTreeSet<String> = database.rows("SELECT id FROM waybill_shops").await.into_iter().collect();
        shops == world.shops.values().cloned().collect()
    });
    for table in ["shipments", "shipment_items", "shipment_transport_events"] {
        let rows = format!("SELECT COUNT(*) FROM {table} WHERE shop_id = '{purged}'");
        until!(world, "what was purged is gone", HEALS_WITHIN, database.rows::<u64>(&rows).await == [0]);
    }
}

/// Copies all rows of a database to another server.
fn copy(from: &MariaDb, to: &MariaDb, name: &str) {
    shell(&format!("mariadb-dump {} --single-transaction {name} | mariadb {} {name}", place(from), place(to)));
}

fn place(server: &MariaDb) -> String {
    format!("--no-defaults --host=127.0.0.1 --port={} --user=root", port_of(&server.url()))
}

fn shell(script: &str) {
    let done = Command::new("bash").args(["-o", "pipefail", "-c", script]).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}
