//! kill -9 again and again on one data directory while the marketplace changes: nothing is lost, nothing is stored
//! twice, nothing stays stale, no budget is exceeded, every start is quick.

use std::time::Duration;

use crate::mariadb::Database;
use crate::oracle;
use crate::run::Run;
use crate::world::{Plan, World};

/// Share of the documents that change per second.
const CHANGES: f64 = 0.02;

pub(crate) async fn archive(run: Run) {
    cycles(run, None).await;
}

pub(crate) async fn mysql(run: Run) {
    let database = Database::fresh().await;
    cycles(run, Some(database)).await;
}

async fn cycles(mut run: Run, mysql: Option<Database>) {
    let (shops, rows) = run.tier.pick((8, [60, 20]), (50, [90, 30]), (50, [90, 30]));
    let kills = run.tier.pick(30, 50, 250);
    let mut world = World::open(&run, Plan { mysql, ..Plan::of(shops, rows) }).await;
    world.walk_often();
    let stirring = world.stir(CHANGES);
    for kill in 0..kills {
        // A third within the first 100 ms, while files are opened and repaired.
        let after = if kill % 3 == 0 { run.random.u64(0..100) } else { run.random.u64(0..3000) };
        run.note(format!("kill {kill} after {after} ms"));
        // New shops join while there are any, each killed right after its 201.
        if kill % 2 == 1 && world.shops.len() < shops {
            let serving = world.start().await;
            let client = world.clients[world.shops.len()].clone();
            assert!(world.register(&serving, &client).await, "{client} was not taken:\n{}", world.tail());
            world.kill(serving);
            continue;
        }
        let serving = world.folder.spawn_serve();
        // The moment is random; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(after)).await;
        world.kill(serving);
    }
    let serving = world.start().await;
    world.register_all(&serving).await;
    drop(stirring);
    oracle::judge(world, serving).await;
}
