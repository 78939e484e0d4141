//! The service's clock runs fast, as while it is corrected, and the marketplace's does not: no window holds a call too
//! many all the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sandbox::Options;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::disk;
use crate::oracle;
use crate::run::{Run, all_of};
use crate::world::{Limit, Plan, World, until};

/// A clock, the limit that it would break, and how many windows of that are used up.
#[derive(Clone, Copy)]
struct Case {
    gain_ppm: u32,
    limit: Limit,
    windows: usize,
}

/// The most that NTP corrects a clock by, and a clock that gains most of the margin of a short window.
const CASES: [Case; 2] = [
    Case { gain_ppm: 500, limit: Limit { calls: 20, seconds: 60 }, windows: 2 },
    Case { gain_ppm: 2_000, limit: Limit { calls: 20, seconds: 5 }, windows: 8 },
];
/// A short way: a long one hides what the clock gains.
const LATENCY: Duration = Duration::from_millis(5);
const SHOPS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(100);

/// Several rounds at a time: they mostly wait.
pub(crate) async fn fast_clock(mut run: Run) {
    let (_folder, library) = library();
    // A start must be quick, which many at once are not.
    let starts = Arc::new(Mutex::new(()));
    let mut rounds = JoinSet::new();
    for case in CASES {
        for _ in 0..run.tier.pick(3, 5, 5) {
            rounds.spawn(round(run.part(), library.clone(), case, Arc::clone(&starts)));
        }
    }
    all_of(rounds).await;
}

async fn round(run: Run, library: PathBuf, case: Case, starts: Arc<Mutex<()>>) {
    let options = |options: &mut Options| options.latency = LATENCY;
    let calls = case.limit.calls as usize * case.windows;
    let mut world = World::open(&run, Plan { detail: case.limit, options, ..Plan::of(SHOPS, [calls + 10, 0]) }).await;
    let mark = world.folder.path("clock-runs-fast");
    world.folder.set("LD_PRELOAD", &library.display().to_string());
    world.folder.set("RIG_CLOCK_MARK", &mark.display().to_string());
    world.folder.set("RIG_CLOCK_FAST_PPM", &case.gain_ppm.to_string());
    let starting = starts.lock().await;
    let serving = world.start().await;
    drop(starting);
    assert!(mark.exists(), "its clock is true");
    world.register_all(&serving).await;
    until!(world, format!("the calls of {} windows", case.windows), PATIENCE, {
        let times = oracle::call_times(&world).into_iter();
        times.filter(|((_, rule), times)| rule.ends_with('*') && times.len() >= calls).count() == SHOPS
    });
    oracle::judge_calls(&world, serving);
}

/// The library that makes the clock run fast.
fn library() -> (TempDir, PathBuf) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/fast_clock.c").display().to_string();
    let folder = tempfile::Builder::new().prefix("waybill-rig-clock-").tempdir().unwrap();
    let library = folder.path().join("fast_clock.so");
    disk::run("cc", &["-shared", "-fPIC", "-O2", "-Wall", "-o", &library.display().to_string(), &source]).unwrap();
    (folder, library)
}
