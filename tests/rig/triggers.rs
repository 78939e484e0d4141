//! kill -9 at an exact moment: when a token has arrived, a page or a document in half or whole, when a COMMIT is in
//! flight, during a shop's deletion, the creation of keys, a start, a schema change, a repair. After each, the service
//! starts again and everything must be right at once.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::gate::Armed;
use crate::gate::Moment::{self, Answered, Asked, Half, Whole};
use crate::mariadb::Database;
use crate::oracle;
use crate::program::Serving;
use crate::proxy::{Proxy, is_commit, port_of};
use crate::run::{Run, Tier};
use crate::world::{Limit, Plan, World, secret, until};

/// A trigger comes within this.
const COMES_WITHIN: Duration = Duration::from_secs(20);
/// Documents that change before a walk.
const CHANGED: usize = 12;
/// Rows that are deleted from the database without the service's knowledge.
const TAKEN: usize = 9;
/// MySQL's number of the command that runs a prepared statement.
const EXECUTE: u8 = 0x17;
/// Bytes of such a command with a shop's id and no other value.
const DELETE_MAX: usize = 36;

/// The moment of the kill.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// A token is in flight.
    Token(Moment),
    /// A page of a list.
    Page(Moment),
    Detail(Moment),
    Commit(Moment),
    /// A shop's deletion, as its caller sees it.
    Deletion(Moment),
    /// Its rows are deleted from the database.
    Purge(Moment),
    KeyMade(Moment),
    KeyRevoked(Moment),
    /// `waybill keys create` has printed the key.
    KeyTold,
    /// The first tenth of a second of a start.
    Start,
    /// A start adds a column to a table.
    Migration(Moment),
    /// `waybill verify --mend` reads a document again.
    RepairRead(Moment),
    /// It writes a document.
    RepairWritten(Moment),
}

const POINTS: [Point; 22] = [
    Point::Token(Half),
    Point::Token(Whole),
    Point::Page(Half),
    Point::Page(Whole),
    Point::Detail(Asked),
    Point::Detail(Half),
    Point::Detail(Whole),
    Point::Commit(Asked),
    Point::Commit(Answered),
    Point::Commit(Whole),
    Point::Deletion(Answered),
    Point::Deletion(Whole),
    Point::Purge(Asked),
    Point::Purge(Answered),
    Point::Purge(Whole),
    Point::KeyMade(Answered),
    Point::KeyMade(Whole),
    Point::KeyRevoked(Answered),
    Point::KeyTold,
    Point::Start,
    Point::Migration(Answered),
    Point::RepairRead(Half),
];
/// For the longer tiers only.
const MORE_POINTS: [Point; 9] = [
    Point::Token(Asked),
    Point::Page(Asked),
    Point::Migration(Asked),
    Point::Migration(Whole),
    Point::KeyRevoked(Whole),
    Point::RepairRead(Whole),
    Point::RepairWritten(Asked),
    Point::RepairWritten(Answered),
    Point::RepairWritten(Whole),
];

/// Kills at every point, in some order.
pub(crate) async fn every(run: Run) {
    let mut scene = Scene::open(&run).await;
    let mut serving = scene.world.start().await;
    for client in scene.world.clients.clone().iter().filter(|client| **client != scene.guest) {
        assert!(scene.world.register(&serving, client).await);
    }
    oracle::judge_now(&scene.world, &serving).await;
    let mut points = POINTS.to_vec();
    if run.tier != Tier::P {
        points.extend(MORE_POINTS);
    }
    scene.random.shuffle(&mut points);
    for point in points {
        run.note(format!("{point:?}"));
        serving = scene.strike(point, serving).await;
        oracle::judge_now(&scene.world, &serving).await;
    }
    scene.world.register_all(&serving).await;
    oracle::judge(scene.world, serving).await;
}

/// A world in which every connection can be stopped.
struct Scene {
    world: World,
    market: Proxy,
    database: Proxy,
    /// A client whose shop is registered and removed again.
    guest: String,
    /// The configuration without the columns of migrations.
    config: String,
    /// Columns that migrations brought.
    columns: usize,
    random: fastrand::Rng,
}

/// One kill at a point and the start after it.
impl Scene {
    async fn open(run: &Run) -> Scene {
        let mut random = run.random.clone();
        let database = Database::fresh().await;
        let url = url::Url::parse(&database.url()).unwrap();
        let behind = Proxy::to(url.port().unwrap(), run.seed).await;
        // Tight budgets reveal calls that a restart forgot; wide ones leave no time between kills.
        let calls = run.tier.pick(200, *random.choice(&[40, 90]).unwrap(), *random.choice(&[25, 40, 90]).unwrap());
        let detail = Limit { calls, seconds: 1 };
        let mut world = World::open(run, Plan { mysql: Some(database), detail, ..Plan::of(3, [60, 15]) }).await;
        let mut through = url;
        through.set_port(Some(behind.port)).unwrap();
        world.folder.set("WAYBILL_MYSQL_URL", through.as_str());
        let market = Proxy::to(port_of(&world.market.base), run.seed).await;
        world.reach_market_at(market.port);
        let guest = world.clients[2].clone();
        let config = std::fs::read_to_string(world.folder.path("waybill.toml")).unwrap();
        Scene { world, market, database: behind, guest, config, columns: 0, random }
    }

    async fn strike(&mut self, point: Point, serving: Serving) -> Serving {
        match point {
            Point::Token(moment) => self.at_token(moment, serving).await,
            Point::Page(moment) => {
                let page = format!("page={}", self.random.u8(1..=2));
                let wanted = move |bytes: &[u8]| begins(bytes, "GET /retailer/shipments?") && holds(bytes, &page);
                let armed = self.market.arm(moment, wanted);
                self.at_walk(moment, armed, serving).await
            }
            Point::Detail(moment) => {
                let armed = self.market.arm(moment, later(self.random.usize(..CHANGED), is_detail));
                self.at_walk(moment, armed, serving).await
            }
            Point::Commit(moment) => {
                let armed = self.database.arm(moment, is_commit);
                self.at_walk(moment, armed, serving).await
            }
            Point::Deletion(moment) => self.at_deletion(moment, serving).await,
            Point::Purge(moment) => self.at_purge(moment, serving).await,
            Point::KeyMade(moment) => self.at_new_key(moment, serving).await,
            Point::KeyRevoked(moment) => self.at_revoked_key(moment, serving).await,
            Point::KeyTold => self.at_printed_key(serving).await,
            Point::Start => {
                self.world.kill(serving);
                let starting = self.world.folder.spawn_serve();
                // The moment is random; nothing is waited for.
                tokio::time::sleep(Duration::from_millis(self.random.u64(0..100))).await;
                self.world.kill(starting);
                self.world.start().await
            }
            Point::Migration(moment) => self.at_migration(moment, serving).await,
            Point::RepairRead(moment) => {
                let armed = self.market.arm(moment, later(self.random.usize(..TAKEN), is_detail));
                self.at_repair(moment, armed, serving).await
            }
            Point::RepairWritten(moment) => {
                let armed = self.database.arm(moment, is_commit);
                self.at_repair(moment, armed, serving).await
            }
        }
    }

    /// Kills when the gate has closed.
    async fn kill(&mut self, moment: Moment, armed: Armed, serving: Serving) {
        self.comes(moment, armed).await;
        self.world.kill(serving);
    }

    /// Waits until the gate has closed; after a whole answer a little longer, for what follows it.
    async fn comes(&mut self, moment: Moment, armed: Armed) {
        assert!(armed.closed(COMES_WITHIN).await, "the trigger does not come:\n{}", self.world.tail());
        if moment == Whole {
            let after = *self.random.choice(&[0, 1, 4, 16]).unwrap();
            self.world.run.note(format!("{after} ms later"));
            tokio::time::sleep(Duration::from_millis(after)).await;
        }
    }

    /// The token that verifies a new shop's credentials.
    async fn at_token(&mut self, moment: Moment, serving: Serving) -> Serving {
        self.guest_leaves(&serving).await;
        let armed = self.market.arm(moment, |bytes| begins(bytes, "POST /token"));
        let body = json!({"name": self.guest, "client_id": self.guest, "client_secret": secret(&self.guest)});
        let answer = ask(serving.call(Method::POST, "/api/v1/shops").json(&body));
        self.kill(moment, armed, serving).await;
        let answer = answer.await.unwrap();
        let serving = self.world.start().await;
        if let Some((201, shop)) = answer {
            let path = format!("/api/v1/shops/{}", shop["id"].as_str().unwrap());
            serving.get(&path).await;
        }
        let guest = self.guest.clone();
        assert!(self.world.register(&serving, &guest).await);
        serving
    }

    /// A walk that meets changed documents.
    async fn at_walk(&mut self, moment: Moment, armed: Armed, serving: Serving) -> Serving {
        for client in self.world.shops.keys() {
            let mut ids = self.world.from_the_start[client].clone();
            self.random.shuffle(&mut ids);
            for id in &ids[..CHANGED] {
                assert!(self.world.market.sandbox.change_row(client, id).unwrap());
            }
        }
        self.world.walk_all(&serving).await;
        self.kill(moment, armed, serving).await;
        self.world.start().await
    }

    async fn at_deletion(&mut self, moment: Moment, mut serving: Serving) -> Serving {
        let shop = self.guest_comes(&serving).await;
        let (front, armed) = self.before(&mut serving, moment, "DELETE /api/v1/shops/").await;
        let answer = ask(serving.call(Method::DELETE, &format!("/api/v1/shops/{shop}?purge=true")));
        self.kill(moment, armed, serving).await;
        heard(moment, answer, front).await;
        // The service has answered, whether or not the client received it.
        self.world.shops.remove(&self.guest);
        let serving = self.world.start().await;
        self.is_gone(&serving, &shop).await;
        serving
    }

    async fn at_purge(&mut self, moment: Moment, serving: Serving) -> Serving {
        let shop = self.guest_comes(&serving).await;
        let id = shop.clone();
        // Its text was sent when it was prepared, maybe long ago; but it has the shop as its only value.
        let wanted =
            move |bytes: &[u8]| bytes.get(4) == Some(&EXECUTE) && holds(bytes, &id) && bytes.len() < DELETE_MAX;
        let armed = self.database.arm(moment, wanted);
        self.guest_leaves(&serving).await;
        self.kill(moment, armed, serving).await;
        let serving = self.world.start().await;
        self.is_gone(&serving, &shop).await;
        serving
    }

    async fn at_new_key(&mut self, moment: Moment, mut serving: Serving) -> Serving {
        let name = format!("key-{}", self.random.u32(..));
        let (front, armed) = self.before(&mut serving, moment, "POST /api/v1/keys").await;
        let answer = ask(serving.call(Method::POST, "/api/v1/keys").json(&json!({"name": name})));
        self.kill(moment, armed, serving).await;
        let answer = heard(moment, answer, front).await;
        let serving = self.world.start().await;
        let keys = serving.get("/api/v1/keys").await;
        let count = keys["items"].as_array().unwrap().iter().filter(|key| key["name"] == *name).count();
        assert_eq!(count, 1, "a key that was answered for");
        if let Some((status, key)) = answer {
            assert_eq!(status, 201, "{key}");
            assert_eq!(opens(&serving, key["key"].as_str().unwrap()).await, 200);
        }
        serving
    }

    async fn at_revoked_key(&mut self, moment: Moment, mut serving: Serving) -> Serving {
        let made = self.world.insist(&serving, Method::POST, "/api/v1/keys", Some(json!({"name": "brief"}))).await;
        let (id, key) = (made.1["id"].as_str().unwrap(), made.1["key"].as_str().unwrap());
        assert_eq!(opens(&serving, key).await, 200);
        let (front, armed) = self.before(&mut serving, moment, "DELETE /api/v1/keys/").await;
        let answer = ask(serving.call(Method::DELETE, &format!("/api/v1/keys/{id}")));
        self.kill(moment, armed, serving).await;
        heard(moment, answer, front).await;
        let serving = self.world.start().await;
        assert_eq!(opens(&serving, key).await, 401, "a key whose end was answered for");
        serving
    }

    async fn at_printed_key(&mut self, serving: Serving) -> Serving {
        self.world.kill(serving);
        let mut command = self.world.folder.spawn(&["keys", "create", "--name", "printed"]);
        let key = tokio::task::block_in_place(|| command.line()).expect("a key is printed");
        tokio::task::block_in_place(|| command.kill());
        self.world.run.score.kills.add(1);
        let serving = self.world.start().await;
        assert_eq!(opens(&serving, key.trim()).await, 200);
        serving
    }

    /// A start that finds a column in the definition which the table lacks.
    async fn at_migration(&mut self, moment: Moment, serving: Serving) -> Serving {
        self.world.kill(serving);
        self.columns += 1;
        let column = |number| format!("more_{number} = {{ from = \"/orderId\", type = \"text(64)\" }}\n");
        let columns: String = (1..=self.columns).map(column).collect();
        let table = format!("{}\n[resource.shipments.table.columns]\n{columns}", self.config);
        self.world.folder.write("waybill.toml", &table);
        let armed = self.database.arm(moment, |bytes| holds(bytes, "ADD COLUMN `more_"));
        let starting = self.world.folder.spawn_serve();
        self.kill(moment, armed, starting).await;
        let serving = self.world.start().await;
        let counted = "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() \
                       AND TABLE_NAME = 'shipments' AND COLUMN_NAME LIKE 'more\\_%'";
        let database = self.world.database.as_ref().unwrap();
        // The service answers before its tables are ready: the database may be away at a start.
        until!(self.world, "all columns of the definition", COMES_WITHIN, {
            database.rows::<usize>(counted).await == [self.columns]
        });
        serving
    }

    /// The database has lost rows, and `waybill verify --mend` is killed while it restores them.
    async fn at_repair(&mut self, moment: Moment, armed: Armed, serving: Serving) -> Serving {
        self.world.kill(serving);
        let client = &self.world.clients[0];
        let mut ids = self.world.from_the_start[client].clone();
        self.random.shuffle(&mut ids);
        let shop = &self.world.shops[client];
        for table in ["shipment_items", "shipments"] {
            let ids = ids[..TAKEN].join("', '");
            let text = format!("DELETE FROM {table} WHERE shop_id = '{shop}' AND shipment_id IN ('{ids}')");
            self.world.database.as_ref().unwrap().run(&text).await;
        }
        let mut command = self.world.folder.spawn(&["verify", "--mend", "--quiet"]);
        self.comes(moment, armed).await;
        if command.is_alive() {
            tokio::task::block_in_place(|| command.kill());
            self.world.run.score.kills.add(1);
        } else {
            // After the last of the answers there was little left to do.
            assert_eq!((moment, command.ended()), (Whole, Some(0)), "{}", self.world.tail());
        }
        self.world.start().await
    }

    /// A proxy before our own API, with a gate for one call; calls of `serving` go through it.
    async fn before(&self, serving: &mut Serving, moment: Moment, call: &'static str) -> (Proxy, Armed) {
        let front = Proxy::to(port_of(&serving.base), 0).await;
        serving.base = format!("http://127.0.0.1:{}", front.port);
        let armed = front.arm(moment, move |bytes| begins(bytes, call));
        (front, armed)
    }

    /// The guest is registered and read; returns its shop.
    async fn guest_comes(&mut self, serving: &Serving) -> String {
        let guest = self.guest.clone();
        if !self.world.shops.contains_key(&guest) {
            assert!(self.world.register(serving, &guest).await);
            serving.idle(COMES_WITHIN).await;
        }
        self.world.shops[&guest].clone()
    }

    /// The guest is not registered; its rows may still be being deleted.
    async fn guest_leaves(&mut self, serving: &Serving) {
        if let Some(shop) = self.world.shops.remove(&self.guest) {
            let path = format!("/api/v1/shops/{shop}?purge=true");
            let (status, answer) = self.world.insist(serving, Method::DELETE, &path, None).await;
            assert_eq!(status, 204, "{answer}");
        }
    }

    /// Nothing of a deleted shop is left, and nothing brings it back.
    async fn is_gone(&self, serving: &Serving, shop: &str) {
        let (status, _) = self.world.insist(serving, Method::GET, &format!("/api/v1/shops/{shop}"), None).await;
        assert_eq!(status, 404, "a shop whose deletion was answered for");
        serving.idle(COMES_WITHIN).await;
        for table in ["shipments", "shipment_items"] {
            let text = format!("SELECT COUNT(*) FROM {table} WHERE shop_id = '{shop}'");
            let counted: Vec<usize> = self.world.database.as_ref().unwrap().rows(&text).await;
            assert_eq!(counted, [0], "{table} of a purged shop");
        }
    }
}

/// Sends a request without waiting for an answer that may never come.
fn ask(call: RequestBuilder) -> JoinHandle<Option<(u16, Value)>> {
    tokio::spawn(async move {
        let answer = call.send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null)))
    })
}

/// The answer to a call through a proxy whose gate has closed, if it came.
async fn heard(moment: Moment, answer: JoinHandle<Option<(u16, Value)>>, front: Proxy) -> Option<(u16, Value)> {
    if moment == Whole {
        return answer.await.unwrap();
    }
    // The client that waits for the rest is disconnected only now.
    drop(front);
    answer.await.unwrap()
}

/// The status of a call with this key.
async fn opens(serving: &Serving, key: &str) -> u16 {
    let call = reqwest::Client::new().get(format!("{}/api/v1/shops", serving.base)).bearer_auth(key);
    call.send().await.unwrap().status().as_u16()
}

fn begins(bytes: &[u8], text: &str) -> bool {
    bytes.starts_with(text.as_bytes())
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

fn is_detail(bytes: &[u8]) -> bool {
    begins(bytes, "GET /retailer/shipments/")
}

/// Not the first of its kind, but the one after this many.
fn later(mut skip: usize, wanted: impl Fn(&[u8]) -> bool) -> impl FnMut(&[u8]) -> bool {
    move |bytes| {
        let passes = wanted(bytes) && skip == 0;
        skip -= usize::from(wanted(bytes) && skip > 0);
        passes
    }
}
