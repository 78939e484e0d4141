//! A large backlog while the database is away. It is bounded in memory and on disk, survives a kill, and is written
//! completely in the end.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::database::{Through, through_of};
use crate::memory;
use crate::oracle;
use crate::program::Serving;
use crate::proxy::Fault;
use crate::run::Run;
use crate::world::{Limit, Plan, World, until};

/// High enough not to limit anything.
const FREE: Limit = Limit { calls: 10_000, seconds: 1 };
const SHOPS: usize = 20;
const MEMORY_MAX_MIB: u64 = 256;
/// The data directory may take three times its live data, plus this.
const SPARE_MIB: u64 = 64;
const COMES_WITHIN: Duration = Duration::from_secs(300);
const DRAINS_WITHIN: Duration = Duration::from_secs(300);

pub(crate) async fn backlog(run: Run) {
    let documents = run.tier.pick(4_000, 100_000, 100_000);
    let each = documents / SHOPS;
    let plan = Plan { list: FREE, detail: FREE, ..Plan::of(SHOPS, [each * 3 / 4, each / 4]) };
    let Through { proxy, mut world } = through_of(&run, plan).await;
    let serving = world.start().await;
    proxy.set(Fault::Refuse);
    world.register_all(&serving).await;
    until!(world, "everything waits for the database", COMES_WITHIN, {
        let status = serving.get("/api/v1/status").await;
        let waits = |name: &str| status[name].as_u64().unwrap_or(0);
        waits("outbox") >= documents as u64 && waits("ready_jobs") + waits("leased_jobs") + waits("open_runs") == 0
    });
    bounded(&world, &serving).await;
    world.kill(serving);
    let serving = world.start().await;
    bounded(&world, &serving).await;
    proxy.set(Fault::None);
    let begun = Instant::now();
    until!(world, "the database has caught up", DRAINS_WITHIN, { serving.get("/api/v1/status").await["outbox"] == 0 });
    run.note(format!("caught up after {:?}", begun.elapsed()));
    let peak = memory::peak_mib(serving.pid());
    assert!(peak <= MEMORY_MAX_MIB, "{peak} MiB while it caught up");
    oracle::judge(world, serving).await;
    drop(proxy);
}

/// Memory during the backlog.
async fn bounded(world: &World, serving: &Serving) {
    let status = serving.get("/api/v1/status").await;
    let waits = status["outbox_bytes"].as_u64().unwrap();
    let (peak, disk) = (memory::peak_mib(serving.pid()), size(&world.data_dir));
    world.run.note(format!("{} MiB wait; {peak} MiB of memory, {} MiB of disk", waits >> 20, disk >> 20));
    assert!(peak <= MEMORY_MAX_MIB, "{peak} MiB");
    assert!(disk <= 3 * waits + (SPARE_MIB << 20), "{} MiB of disk for {} MiB", disk >> 20, waits >> 20);
}

/// Total size of the files in a directory, in bytes. Files deleted meanwhile count as zero.
fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => std::os::unix::fs::MetadataExt::blocks(&found) * 512,
        Err(_) => 0,
    };
    entries.map(of).sum()
}
