//! Two machines and one database: one process works, the other is a standby. Each fault in turn hits the one that works,
//! while shops sync under sliding windows. A machine is a folder with a boot of its own and its own way to MySQL. The way
//! to the API is one, since an installation has one source and a standby makes no calls.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::mariadb::Database;
use crate::oracle::{self, Allowed};
use crate::program::{Folder, Serving, signal};
use crate::proxy::{Fault, Proxy, port_of};
use crate::run::Run;
use crate::world::{Limit, Plan, World, until};

/// An owner that is gone is replaced within this.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(15);
/// The median of planned changes, from SIGTERM to the new owner.
const HANDS_OVER_WITHIN: Duration = Duration::from_secs(2);
/// The longest of them, which may have to wait for a call in flight.
const HANDS_OVER_AT_MOST: Duration = Duration::from_secs(20);
/// The owner has seen its standby within this.
const SEEN_WITHIN: Duration = Duration::from_secs(30);
/// Longer than the owner may call, and the kernel lets it live, without a heartbeat.
const STOPPED: Duration = Duration::from_secs(13);
const CHANGES: f64 = 0.05;
/// A new owner calls within a window, the restore from MySQL and the interval of walks.
const CALLS_WITHIN: Duration = Duration::from_secs(15);
/// A token of the sandbox lives about this long.
const TOKEN_LIFE: Duration = Duration::from_secs(590);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    Kill,
    Stop,
    MysqlAway,
    MysqlCut,
    ApiCut,
    HandOver,
}

const BLOWS: [Blow; 6] = [Blow::Kill, Blow::Stop, Blow::MysqlAway, Blow::MysqlCut, Blow::ApiCut, Blow::HandOver];

/// A machine with its process.
struct Node {
    folder: Option<Folder>,
    mysql: Proxy,
    serving: Option<Serving>,
}

struct Pair {
    world: World,
    nodes: [Node; 2],
    api: Proxy,
    /// The one that works.
    owner: usize,
    begun: Instant,
    /// Blows after which the successor had to log in again.
    losses: u32,
    /// How long it took until the successor owned the schema, and until it called.
    took: BTreeMap<Blow, Vec<(Duration, Duration)>>,
}

/// All faults, in an order of their own each round.
pub(crate) async fn rounds(mut run: Run) {
    let mut pair = Pair::open(&run).await;
    let stirring = pair.world.stir(CHANGES);
    for round in 0..run.tier.pick(1, 17, 50) {
        let mut blows = BLOWS;
        run.random.shuffle(&mut blows);
        for blow in blows {
            tokio::time::sleep(Duration::from_millis(run.random.u64(0..2_000))).await;
            run.note(format!("round {round}: {blow:?} at {}", pair.owner));
            pair.strike(blow).await;
            pair.judge_windows(blow);
        }
    }
    drop(stirring);
    pair.end().await;
}

impl Pair {
    async fn open(run: &Run) -> Pair {
        let database = Database::fresh().await;
        let (list, detail) = (Limit { calls: 10, seconds: 2 }, Limit { calls: 20, seconds: 2 });
        let url = database.url();
        let plan = Plan { list, detail, mysql: Some(database), ..Plan::of(5, [60, 20]) };
        let mut world = World::open(run, plan).await;
        world.walk_often();
        let market = world.market.base.clone();
        let limits: String = world
            .limits
            .iter()
            .map(|(rule, limit)| format!("\"{rule}\" = \"{}/{}s\"\n", limit.calls, limit.seconds))
            .collect();
        let mut other = Folder::at(&market, &format!("[source.limits]\n{limits}"));
        let api = Proxy::to(port_of(&market), run.seed).await;
        let first = Node::at(&mut world.folder, &url, &api, run).await;
        let second = Node::at(&mut other, &url, &api, run).await;
        let nodes = [first, Node { folder: Some(other), ..second }];
        let mut pair = Pair { world, nodes, api, owner: 0, begun: Instant::now(), losses: 0, took: BTreeMap::new() };
        let mut first = pair.folder(0).spawn(&["serve", "--standby"]);
        tokio::task::block_in_place(|| first.listening());
        pair.world.register_all(&first).await;
        pair.nodes[0].serving = Some(first);
        fs::copy(pair.folder(0).path("data.key"), pair.folder(1).path("data.key")).unwrap();
        pair.stand_by(1);
        pair
    }

    fn folder(&self, node: usize) -> &Folder {
        self.nodes[node].folder.as_ref().unwrap_or(&self.world.folder)
    }

    fn said(&self) -> String {
        let said: Vec<String> = (0..2)
            .map(|node| {
                let said = self.folder(node).said();
                let lines: Vec<&str> = said.lines().collect();
                format!("-- {node}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"))
            })
            .collect();
        said.join("\n")
    }

    /// Starts a process that waits.
    fn stand_by(&mut self, node: usize) {
        let serving = self.folder(node).spawn(&["serve", "--standby"]);
        self.nodes[node].serving = Some(serving);
    }

    fn pid(&self, node: usize) -> u32 {
        self.nodes[node].serving.as_ref().unwrap().pid()
    }

    /// Process, state and promise of the owner's row.
    async fn row(&self) -> (u32, String, u64) {
        let database = self.world.database.as_ref().unwrap();
        let text = "SELECT pid, state, promise_ms FROM waybill_register WHERE role = 'owner'";
        database.rows(text).await.pop().unwrap()
    }

    async fn is_owned_by(&self, node: usize) -> bool {
        let (pid, state, _) = self.row().await;
        pid == self.pid(node) && state == "owned"
    }

    /// Waits until the standby is the owner, and calls.
    async fn taken_over(&mut self, blow: Blow, since: Instant, at_most: Duration) {
        let next = 1 - self.owner;
        while !self.is_owned_by(next).await {
            let row = self.row().await;
            assert!(since.elapsed() < at_most, "not taken over after {at_most:?}: {row:?}\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let owned = since.elapsed();
        let calls = self.world.market.sandbox.calls().len();
        let serving = self.nodes[next].serving.as_mut().unwrap();
        tokio::task::block_in_place(|| serving.listening());
        while self.world.market.sandbox.calls().len() == calls {
            assert!(
                since.elapsed() < owned + CALLS_WITHIN,
                "{next} owns the schema and calls nothing\n{}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let called = since.elapsed();
        self.world.run.note(format!("taken over after {owned:?}, called after {called:?}"));
        self.owner = next;
        self.losses += u32::from(blow != Blow::HandOver);
        self.took.entry(blow).or_default().push((owned, called));
    }

    async fn strike(&mut self, blow: Blow) {
        let promised = async || self.row().await.2 < 60_000;
        let begun = Instant::now();
        while !promised().await {
            assert!(begun.elapsed() < SEEN_WITHIN, "the owner does not see its standby\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let former = self.owner;
        let begun = Instant::now();
        match blow {
            Blow::Kill => {
                let serving = self.nodes[former].serving.take().unwrap();
                tokio::task::block_in_place(|| serving.kill());
                self.taken_over(blow, begun, TAKES_OVER_WITHIN).await;
                self.stand_by(former);
            }
            Blow::Stop => {
                let pid = self.pid(former).to_string();
                signal("STOP", &pid);
                self.taken_over(blow, begun, TAKES_OVER_WITHIN).await;
                tokio::time::sleep(STOPPED.saturating_sub(begun.elapsed())).await;
                let serving = self.nodes[former].serving.take().unwrap();
                // The kernel has ended it; it has a number until we ask.
                signal("CONT", &pid);
                let code = tokio::task::block_in_place(|| serving.ended());
                assert_eq!(code, None, "a stopped owner is ended by the kernel\n{}", self.said());
                self.stand_by(former);
            }
            Blow::MysqlCut => {
                self.nodes[former].mysql.set(Fault::BlackHole);
                self.taken_over(blow, begun, TAKES_OVER_WITHIN).await;
                self.nodes[former].mysql.set(Fault::None);
                let serving = self.nodes[former].serving.take().unwrap();
                let code = tokio::task::block_in_place(|| serving.ended());
                assert_eq!(code, Some(1), "a replaced owner ends\n{}", self.said());
                self.stand_by(former);
            }
            Blow::MysqlAway => {
                for node in &self.nodes {
                    node.mysql.set(Fault::BlackHole);
                }
                tokio::time::sleep(STOPPED).await;
                let last = self.world.market.sandbox.calls().last().map(|call| call.at_us);
                tokio::time::sleep(Duration::from_secs(2)).await;
                let later = self.world.market.sandbox.calls().last().map(|call| call.at_us);
                assert_eq!(last, later, "calls without MySQL, though a standby may take over\n{}", self.said());
                for node in &self.nodes {
                    node.mysql.set(Fault::None);
                }
                self.one_works(former).await;
            }
            Blow::ApiCut => {
                self.api.set(Fault::BlackHole);
                tokio::time::sleep(Duration::from_secs(4)).await;
                self.api.set(Fault::None);
                assert!(self.is_owned_by(former).await, "the API is no reason to change\n{}", self.said());
            }
            Blow::HandOver => {
                self.nodes[former].serving.as_ref().unwrap().ask_to_end();
                self.taken_over(blow, begun, HANDS_OVER_AT_MOST).await;
                let serving = self.nodes[former].serving.take().unwrap();
                let code = tokio::task::block_in_place(|| serving.ended());
                assert_eq!(code, Some(0), "{}", self.said());
                self.stand_by(former);
            }
        }
    }

    /// After an outage for both: whichever works, the other waits.
    async fn one_works(&mut self, former: usize) {
        let begun = Instant::now();
        let calls = self.world.market.sandbox.calls().len();
        while self.world.market.sandbox.calls().len() == calls {
            assert!(begun.elapsed() < SEEN_WITHIN, "no calls after MySQL is back\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if !self.is_owned_by(former).await {
            self.taken_over(Blow::MysqlAway, begun, SEEN_WITHIN).await;
            let serving = self.nodes[former].serving.take().unwrap();
            assert_eq!(tokio::task::block_in_place(|| serving.ended()), Some(1), "{}", self.said());
            self.stand_by(former);
        }
    }

    /// No window of any budget was over, over both machines.
    fn judge_windows(&self, blow: Blow) {
        let audit = self.world.market.sandbox.audit();
        let over = audit.breaches();
        assert!(over.is_empty() && audit.refused_429 == 0, "{blow:?}: {over:#?}\n{}", self.said());
    }

    async fn end(mut self) {
        let audit = self.world.market.sandbox.audit();
        let logins: BTreeMap<&String, &u64> = audit.tokens.iter().collect();
        // That of the registration is not kept.
        let expired = self.begun.elapsed().as_secs() / TOKEN_LIFE.as_secs();
        let most = 2 + u64::from(self.losses) + expired;
        assert!(logins.values().all(|count| **count <= most), "{logins:?}, at most {most}");
        for (blow, took) in &mut self.took {
            took.sort();
            let of = |pick: fn(&(Duration, Duration)) -> Duration| {
                let mut times: Vec<Duration> = took.iter().map(pick).collect();
                times.sort();
                (times[times.len() / 2], *times.last().unwrap())
            };
            let (owned, called) = (of(|took| took.0), of(|took| took.1));
            println!(
                "  {blow:?}: {} times; owned after {:?} (median), {:?} (longest); called after {:?}, {:?}",
                took.len(),
                owned.0,
                owned.1,
                called.0,
                called.1
            );
            assert!(*blow != Blow::HandOver || owned.0 <= HANDS_OVER_WITHIN, "{took:?}");
        }
        drop(self.nodes[1 - self.owner].serving.take());
        let serving = self.nodes[self.owner].serving.take().unwrap();
        until!(self.world, "the owner is idle", Duration::from_secs(60), {
            serving.get("/api/v1/status").await["idle"] == true
        });
        let Pair { world, nodes, .. } = self;
        oracle::judge_allowing(world, serving, Allowed { failed_runs: true, ..Allowed::default() }).await;
        drop(nodes);
    }
}

impl Node {
    /// `folder` reaches MySQL by a proxy of its own, and sees a boot of its own: so each process knows the other by its
    /// heartbeats alone, as on another machine.
    async fn at(folder: &mut Folder, url: &str, api: &Proxy, run: &Run) -> Node {
        let (user, after) = url.split_once("127.0.0.1:").unwrap();
        let (port, database) = after.split_once('/').unwrap();
        let mysql = Proxy::to(port.parse().unwrap(), run.seed).await;
        folder.set("WAYBILL_MYSQL_URL", &format!("{user}127.0.0.1:{}/{database}", mysql.port));
        let base = format!("http://127.0.0.1:{}", api.port);
        folder.set("WAYBILL_SOURCE_BASE_URL", &base);
        folder.set("WAYBILL_SOURCE_TOKEN_URL", &format!("{base}/token"));
        folder.set("WAYBILL_SCHEDULE_SYNC", "*/5 * * * * *");
        folder.set("WAYBILL_SCHEDULE_RECONCILE", "*/20 * * * * *");
        let boot = folder.path("boot_id");
        fs::write(&boot, format!("machine-{}\n", mysql.port)).unwrap();
        let mount = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        folder.run_under(&["unshare", "--mount", "sh", "-c", mount, &boot.display().to_string()]);
        Node { folder: None, mysql, serving: None }
    }
}
