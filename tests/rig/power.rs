//! Power cuts. The data lies on its own ext4; the service is killed, the device copied without unmounting, and started
//! on the copy. What was acknowledged is there, what was received is stored in the end, and no budget is exceeded over
//! the cut.

use std::time::Duration;

use reqwest::Method as Verb;
use sandbox::Method;

use crate::disk::Disk;
use crate::mariadb::Database;
use crate::oracle;
use crate::program::Serving;
use crate::run::Run;
use crate::world::{Plan, World};

const DISK_MIB: u64 = 64;

/// When the power fails.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The very first start was killed; the next one registered a shop: right after its 201.
    AfterKilledFirstStart,
    /// Right after a 201.
    AfterShop,
    /// This long after the shops' 201, while the store grows.
    WhileItGrows,
    /// After all work was done, and a little more: right after a 202.
    Settled,
}

/// With the archive, so that the documents themselves are at stake.
pub(crate) async fn archive(run: Run) {
    cuts(run, None).await;
}

/// With MySQL: what left the outbox is in MySQL, what is not in MySQL is in the outbox.
pub(crate) async fn mysql(run: Run) {
    let database = Database::fresh().await;
    cuts(run, Some(database)).await;
}

async fn cuts(mut run: Run, mysql: Option<Database>) {
    let commit = if run.random.bool() { 5 } else { 300 };
    run.note(format!("commit={commit}"));
    let mut world = World::open(&run, Plan { mysql, ..Plan::of(3, [150, 50]) }).await;
    let mut disk = Disk::new(DISK_MIB, commit).unwrap();
    world.move_data(disk.path().join("data"));
    let first = if run.random.bool() { Moment::AfterKilledFirstStart } else { Moment::AfterShop };
    for moment in [first, Moment::AfterShop, Moment::WhileItGrows, Moment::WhileItGrows, Moment::Settled] {
        run.note(format!("{moment:?}"));
        until(&mut world, &mut run, moment).await;
        disk = disk.cut();
        world.move_data(disk.path().join("data"));
        run.score.powercuts.add(1);
        run.note("cut");
    }
    let serving = world.start().await;
    all_shops(&world, &serving).await;
    // The last 202 is honoured without another request.
    oracle::judge_now(&world, &serving).await;
    oracle::judge(world, serving).await;
    drop(disk);
}

/// Lets the service work until the moment, then kills it.
async fn until(world: &mut World, run: &mut Run, moment: Moment) {
    if matches!(moment, Moment::AfterKilledFirstStart) {
        let early = world.folder.spawn_serve();
        tokio::time::sleep(Duration::from_millis(run.random.u64(0..60))).await;
        world.kill(early);
    }
    let serving = world.start().await;
    all_shops(world, &serving).await;
    match moment {
        Moment::AfterKilledFirstStart | Moment::AfterShop => {
            let client = world.clients[world.shops.len()].clone();
            assert!(world.register(&serving, &client).await, "{client} was not taken:\n{}", world.tail());
        }
        Moment::WhileItGrows => {
            let left = world.clients.get(world.shops.len()).cloned();
            if let Some(client) = left {
                assert!(world.register(&serving, &client).await, "{client} was not taken:\n{}", world.tail());
            }
            tokio::time::sleep(Duration::from_millis(run.random.u64(0..2500))).await;
        }
        Moment::Settled => {
            serving.idle(Duration::from_secs(60)).await;
            add_large(world, run);
            world.walk_all(&serving).await;
            serving.idle(Duration::from_secs(60)).await;
            for client in world.clients.clone() {
                world.market.sandbox.add_shipments(&client, Method::Fbr, 5).unwrap();
            }
            world.walk_all(&serving).await;
        }
    }
    world.kill(serving);
}

/// Adds a shipment that is too large for the write-ahead log: the engine takes over all commits before it, and the log is
/// written from its beginning again.
fn add_large(world: &World, run: &mut Run) {
    let (sandbox, client) = (&world.market.sandbox, &world.clients[0]);
    let (method, id, mut detail) = sandbox.truth(client).swap_remove(0);
    let mut row = sandbox.row(client, &id).unwrap().unwrap();
    let (method, new) = (if method == "FBR" { Method::Fbr } else { Method::Fbb }, "99999999901");
    // It does not compress to less than a megabyte.
    let text: String = (0..1_600_000).map(|_| run.random.alphanumeric()).collect();
    for document in [&mut row, &mut detail] {
        document["shipmentId"] = new.into();
    }
    detail["large"] = text.into();
    sandbox.put(client, method, new, [row.to_string(), detail.to_string()]).unwrap();
}

/// Acknowledged is durable: every shop that got its 201 is there.
async fn all_shops(world: &World, serving: &Serving) {
    let (_, answer) = world.ask(serving, Verb::GET, "/api/v1/shops?limit=500", None).await.unwrap();
    let known: Vec<&str> = answer["items"].as_array().unwrap().iter().filter_map(|shop| shop["id"].as_str()).collect();
    let gone: Vec<&String> =
        world.shops.iter().filter(|(_, id)| !known.contains(&id.as_str())).map(|(client, _)| client).collect();
    world.run.score.lost.add(gone.len());
    assert!(gone.is_empty(), "shops that were acknowledged and are gone: {gone:?}");
}
