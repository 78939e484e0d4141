//! M2: a failover. The database takes no writes any more, for a while; then another server, with the same rows, has its
//! address, and the old one lives on, read-only, with whoever is still connected to it.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;

use crate::mariadb::{Database, MariaDb};
use crate::oracle;
use crate::proxy::{Proxy, port_of};
use crate::run::Run;
use crate::strain::until_healthy;
use crate::world::{Limit, Plan, World};

/// Share of the documents that change in a second.
const CHANGES: f64 = 0.1;
/// Work for a server that takes none is noticed within this: there is some every five seconds.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);
/// Writing again after the address has moved (M2).
const WRITES_WITHIN: Duration = Duration::from_secs(10);

/// Two servers take turns.
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
    // A user who may not pass over the server's being read-only, as root may.
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
        // Readers have connections to the old one, too.
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

/// All rows of a database, to another server.
fn copy(from: &MariaDb, to: &MariaDb, name: &str) {
    let place =
        |server: &MariaDb| format!("--no-defaults --host=127.0.0.1 --port={} --user=root", port_of(&server.url()));
    let (from, to) = (place(from), place(to));
    let script = format!("set -o pipefail; mariadb-dump {from} --single-transaction {name} | mariadb {to} {name}");
    let done = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
