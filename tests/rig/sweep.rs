//! A fault at the N-th system call of one kind, for every N that a small sync makes. The fault is a kill, an error
//! once, or an error from then on.
//!
//! strace counts the calls of each thread separately, so N is the N-th call of whichever thread gets there first. A
//! first run without a fault shows how far N goes.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::oracle;
use crate::run::Run;
use crate::world::{Limit, Plan, World};

/// A point is over when the service is idle, has ended, or this has passed.
const POINT_WITHIN: Duration = Duration::from_secs(20);
/// Number of points per system call in the release tier; a sync makes some hundred writes, many of them alike.
const POINTS_MAX: usize = 150;

/// The fault at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Kill,
    Once(&'static str),
    ForGood(&'static str),
}

/// The process dies there.
pub(crate) async fn kills(run: Run) {
    let calls = ["pwrite64", "fdatasync", "fsync", "sync_file_range", "rename", "ftruncate", "openat"];
    sweep(run, &calls, &[Effect::Kill]).await;
}

/// The call fails there.
pub(crate) async fn errors(run: Run) {
    let effects = [Effect::Once("EIO"), Effect::ForGood("EIO"), Effect::Once("ENOSPC"), Effect::ForGood("ENOSPC")];
    sweep(run, &["pwrite64", "fdatasync", "fsync", "sync_file_range", "openat"], &effects).await;
}

async fn sweep(mut run: Run, calls: &[&'static str], effects: &[Effect]) {
    let most = calibrate(&run, calls).await;
    run.note(format!("calls of one thread: {most:?}"));
    for call in calls {
        let last = most.get(*call).copied().unwrap_or_default();
        for effect in effects {
            let points = run.tier.pick(if effect == &Effect::Kill { 3 } else { 1 }, POINTS_MAX, POINTS_MAX);
            let step = last.div_ceil(points).max(1);
            let mut place = run.random.usize(0..step) + 1;
            while place <= last {
                point(&run, call, *effect, place).await;
                place += step;
            }
        }
    }
}

async fn world(run: &Run) -> World {
    let free = Limit { calls: 10_000, seconds: 1 };
    World::open(run, Plan { list: free, detail: free, ..Plan::of(2, [30, 10]) }).await
}

/// Maximum number of calls of each kind by one thread.
async fn calibrate(run: &Run, calls: &[&str]) -> BTreeMap<String, usize> {
    let mut world = world(run).await;
    under_strace(&mut world, calls, None);
    let (ended, _) = work(&mut world).await;
    assert_eq!(ended, None, "without a fault it ended:\n{}", world.tail());
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in traced(&world).lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let call = rest.trim_start().split('(').next().unwrap_or_default();
        if !calls.contains(&call) {
            continue;
        }
        *counts.entry((thread.to_owned(), call.to_owned())).or_default() += 1;
    }
    let mut most = BTreeMap::new();
    for ((_, call), count) in counts {
        let known: &mut usize = most.entry(call).or_default();
        *known = count.max(*known);
    }
    most
}

fn under_strace(world: &mut World, calls: &[&str], inject: Option<String>) {
    let output = world.folder.path("strace.log").display().to_string();
    let trace = format!("trace={}", calls.join(","));
    // -D: the service stays our child, and strace is the one that goes with it.
    let mut command = vec!["strace", "-D", "-f", "-qq", "-o", &output, "-e", &trace];
    let inject = inject.map(|inject| format!("inject={inject}"));
    let data = world.folder.path("data");
    let places: Vec<String> = ["", "sled", "sled/db", "sled/wal", "sled/conf", "sled/blobs"]
        .map(|name| data.join(name).display().to_string())
        .into();
    if let Some(inject) = &inject {
        command.extend(["-e", inject]);
        // Errors in other paths are the system's, not the store's.
        if inject.contains("error=") {
            places.iter().for_each(|place| command.extend(["-P", place.trim_end_matches('/')]));
        }
    }
    world.folder.run_under(&command);
}

fn traced(world: &World) -> String {
    fs::read_to_string(world.folder.path("strace.log")).unwrap_or_default()
}

/// Starts the service, registers both shops and waits until it is idle. Then kills it, unless it ended by itself:
/// returns its exit code then (None for a signal), and its state.
async fn work(world: &mut World) -> (Option<Option<i32>>, &'static str) {
    let begun = Instant::now();
    let mut serving = world.folder.spawn_serve();
    let mut stage = "starting";
    if tokio::task::block_in_place(|| serving.listens()) {
        stage = "registering";
        for client in world.clients.clone() {
            world.register(&serving, &client).await;
        }
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        while serving.is_alive() && begun.elapsed() < POINT_WITHIN {
            pace.tick().await;
            stage = "working";
            let path = "/api/v1/status";
            let status = world.ask(&serving, reqwest::Method::GET, path, None).await;
            if status.is_some_and(|(_, status)| status["idle"] == true) {
                stage = "idle";
                break;
            }
        }
    }
    if stage == "idle" || serving.is_alive() && begun.elapsed() >= POINT_WITHIN {
        tokio::task::block_in_place(|| serving.kill());
        return (None, stage);
    }
    (Some(tokio::task::block_in_place(|| serving.ended())), stage)
}

async fn point(run: &Run, call: &'static str, effect: Effect, place: usize) {
    let mut world = world(run).await;
    // Full paths, as strace compares them.
    world.move_data(world.folder.path("data"));
    let inject = match effect {
        Effect::Kill => format!("{call}:signal=SIGKILL:when={place}"),
        Effect::Once(error) => format!("{call}:error={error}:when={place}"),
        Effect::ForGood(error) => format!("{call}:error={error}:when={place}+"),
    };
    under_strace(&mut world, &[call], Some(inject.clone()));
    let (ended, stage) = work(&mut world).await;
    let hit = effect == Effect::Kill && ended == Some(None) || traced(&world).contains("(INJECTED)");
    run.note(format!("{inject}: {stage}, ended {ended:?}, hit {hit}"));
    if effect == Effect::Kill && hit {
        run.score.kills.add(1);
    }
    run.score.sweeps.add(usize::from(hit));
    if effect != Effect::Kill {
        // It may survive an error, or end with a reason; it must not end as if all were well, nor be killed.
        assert!(!matches!(ended, Some(None | Some(0))), "{inject}: ended {ended:?}\n{}", world.tail());
    }
    world.folder.run_under(&[]);
    let serving = world.start().await;
    world.register_all(&serving).await;
    oracle::judge(world, serving).await;
}
