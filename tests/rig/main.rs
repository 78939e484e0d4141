//! The reliability rig: the real binary under kills, power cuts, and faults of disk, database, network and clock,
//! judged from outside by what the sandbox served and what can be queried afterwards.
//!
//! `cargo test --test rig -- --tier p` runs what each submission runs; `scripts/test` calls it so. Without a tier it
//! only prints its usage, so that a plain `cargo test` skips it. Each run has one seed; `--only TEST --seed N` repeats
//! it.
//!
//! | file | holds |
//! | --- | --- |
//! | `run`, `summary` | one run with its seed and diary; the totals over all runs |
//! | `world` | sandbox, service, sink and shops of one run |
//! | `oracle` | what must hold after each run |
//! | `answers` | every bad answer of the API |
//! | `browser` | a headless Chromium |
//! | `canary` | finds secrets in bytes |
//! | `database`, `proxy` | MariaDB outages, network faults, lost answers to COMMIT, every error code |
//! | `mysql_stress` | a database that is away, without disk space or hard to reach; rows locked by other clients |
//! | `gate`, `triggers` | kill -9 at an exact moment of an exchange |
//! | `data_files` | the bytes of a data directory |
//! | `dark`, `network` | kill -9 while packets are lost, between two network namespaces |
//! | `disk` | a file system that can be full or lose its power |
//! | `fast_clock` | rate windows under a clock that runs fast |
//! | `failover` | a read-only database, then another server at its address; a restored backup |
//! | `kill` | kill -9, again and again, on one data directory |
//! | `power` | power cuts |
//! | `memory` | memory and files of a process |
//! | `edge_content`, `pages` | unusual but legal content in MySQL, API and log; the dashboard shows it as text |
//! | `process` | full disk, second process, suspended process |
//! | `rates` | rate windows under kills, delay and clock jumps; budget use without them |
//! | `rot` | bit rot in the data directory |
//! | `scale` | ten thousand shops; slow and failing shops beside healthy ones |
//! | `schema` | documents that change their form |
//! | `standby` | two machines and one database: takeovers under faults |
//! | `sweep` | a fault at the N-th system call |
//! | `tests` | all tests, with their requirements and number of runs |
//! | `tamper` | sealed records that were changed on disk |
//! | `tokens` | tokens that expire early, behave oddly or cannot be obtained |
//! | `upstream` | lists that shift, documents that cannot be read |

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a run that cannot go on fails by panic")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a runner of its own: its output is its purpose")]

mod answers;
mod backlog;
mod browser;
mod canary;
mod dark;
#[path = "../it/support/data_files.rs"]
mod data_files;
mod database;
mod disk;
mod edge_content;
mod failover;
mod fast_clock;
mod gate;
mod kill;
mod many_shops;
#[path = "../it/support/mariadb.rs"]
#[allow(dead_code, reason = "the other binary uses the rest")]
mod mariadb;
mod memory;
mod mysql_stress;
mod network;
mod oracle;
mod pages;
mod power;
mod process;
#[path = "../it/support/program.rs"]
#[allow(dead_code, reason = "the other binary uses the rest")]
mod program;
mod proxy;
mod rates;
mod rot;
mod rotate;
mod run;
mod scale;
mod schema;
mod standby;
mod summary;
mod sweep;
mod tamper;
mod tests;
mod tokens;
mod triggers;
mod upstream;
mod world;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use run::{Run, Tier};
use summary::Score;
use tests::{TESTS, Test, runs};
use tokio::runtime::Runtime;
use tokio::signal::{self, unix::SignalKind};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const USAGE: &str = "the reliability rig; each run takes minutes, so it waits for a choice:
  cargo test --test rig -- --tier p|release|soak [--only TEST[,TEST...]] [--seed N] [--jobs N]
--jobs: runs at a time; what measures the machine's own pace has it to itself all the same.
WAYBILL_RIG_BINARY=target/release/waybill tests that build. Tests:";
/// Set in the process that has its own mount namespace.
const INSIDE: &str = "WAYBILL_RIG_INSIDE";

/// How often the rig checks whether it was stalled itself, and from when it reports that.
const BEAT: Duration = Duration::from_millis(100);
const STOOD_STILL: Duration = Duration::from_secs(1);

/// The command line.
struct Asked {
    tier: Tier,
    only: Vec<String>,
    seed: Option<u64>,
    jobs: u32,
}

/// None: no tier was named, so nothing runs.
fn asked() -> Result<Option<Asked>, String> {
    let mut words = std::env::args().skip(1);
    let (mut tier, mut only, mut seed, mut jobs) = (None, Vec::new(), None, 1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--tier" => {
                tier = Some(match value()?.as_str() {
                    "p" => Tier::P,
                    "release" => Tier::Release,
                    "soak" => Tier::Soak,
                    other => return Err(format!("no tier `{other}`: p, release or soak")),
                });
            }
            "--only" => only = value()?.split(',').map(str::to_owned).collect(),
            "--seed" => seed = Some(value()?.parse().map_err(|_| "--seed needs a number".to_owned())?),
            "--jobs" => {
                jobs = value()?.parse().ok().filter(|jobs| *jobs > 0).ok_or("--jobs needs a number from 1 on")?;
            }
            // Arguments of a plain `cargo test` are for the other binaries.
            _ if tier.is_none() => {}
            other => return Err(format!("`{other}` is unknown")),
        }
    }
    if let Some(stranger) = only.iter().find(|name| TESTS.iter().all(|test| test.name != **name)) {
        return Err(format!("no test `{stranger}`"));
    }
    Ok(tier.map(|tier| Asked { tier, only, seed, jobs }))
}

fn main() -> ExitCode {
    let asked = match asked() {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            let names: Vec<&str> = TESTS.iter().map(|test| test.name).collect();
            eprintln!("{USAGE}\n  {}", names.join(" "));
            return ExitCode::SUCCESS;
        }
        Err(what) => {
            eprintln!("rig: {what}");
            return ExitCode::from(2);
        }
    };
    if std::env::var_os(INSIDE).is_none() && runs("unshare", &["--mount", "true"]) {
        // Our mounts end with this process, however it ends.
        let mut again = Command::new("unshare");
        again.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
        eprintln!("rig: {}", again.args(std::env::args().skip(1)).env(INSIDE, "1").exec());
        return ExitCode::from(1);
    }
    oracle::sees();
    gate::sees();
    // The run reports its failure; a backtrace of the runtime adds nothing.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("rig: a run stops at {place}");
    }));
    let failed = runtime().block_on(all(&asked));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs the requested tests, roughly in order; returns the number of failed runs.
async fn all(asked: &Asked) -> usize {
    let score = Arc::new(Score::default());
    // First come, first served: a run that wants every slot blocks those behind it until it has them.
    let turns = Arc::new(Semaphore::new(asked.jobs as usize));
    let mut begun = JoinSet::new();
    let mut skipped = 0;
    let place = asked.tier.pick(0, 1, 2);
    for test in TESTS.iter().filter(|test| asked.only.is_empty() || asked.only.iter().any(|name| name == test.name)) {
        // A named test runs even if its tier leaves it out.
        let count = match (asked.seed, asked.only.is_empty()) {
            (Some(_), _) => 1,
            (None, true) => test.runs[place],
            (None, false) => test.runs[place].max(1),
        };
        if let Some(missing) = test.needs.iter().find_map(|need| need.missing()) {
            println!("SKIPPED {}: {missing}", test.name);
            skipped += count;
            continue;
        }
        for _ in 0..count {
            let run = Run::new(asked.tier, asked.seed.unwrap_or_else(|| fastrand::u64(..)), &score);
            let wanted = if test.alone { asked.jobs } else { 1 };
            begun.spawn(in_turn(test, run, test.at_most[place], Arc::clone(&turns), wanted));
        }
    }
    let (mut passed, mut failed) = (0, 0);
    while let Some(outcome) = begun.join_next().await {
        match outcome.unwrap() {
            Outcome::Passed => passed += 1,
            Outcome::Failed | Outcome::Stopped => failed += 1,
            Outcome::NotBegun => {}
        }
    }
    if turns.is_closed() {
        println!("stopped by a signal");
    }
    println!("{score}");
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    failed
}

/// Reports when the rig's own threads were stalled: a failure then may be the judge's.
async fn watch(name: &str) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(BEAT).await;
        let late = last.elapsed().saturating_sub(BEAT);
        if late >= STOOD_STILL {
            println!("  rig: {name} stood still for {:.1} s", late.as_secs_f64());
        }
        last = Instant::now();
    }
}

/// Starts the run when as many slots as it wants are free.
async fn in_turn(test: &'static Test, run: Run, at_most: Duration, turns: Arc<Semaphore>, wanted: u32) -> Outcome {
    match turns.acquire_many(wanted).await {
        Ok(_turn) => {
            let outcome = one(test, run, at_most).await;
            if matches!(outcome, Outcome::Stopped) {
                // Before its slots are released: runs in progress receive the same signal, the others do not start.
                turns.close();
            }
            outcome
        }
        Err(_closed) => Outcome::NotBegun,
    }
}

enum Outcome {
    Passed,
    Failed,
    Stopped,
    NotBegun,
}

async fn stop_signal() {
    let mut terminate = signal::unix::signal(SignalKind::terminate()).unwrap();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = signal::ctrl_c() => {}
    }
}

/// One run, within its time limit. However it ends, dropping its values unmounts and kills what it started.
async fn one(test: &Test, run: Run, at_most: Duration) -> Outcome {
    let begun = Instant::now();
    println!("run {} seed={}", test.name, run.seed);
    // A runtime of its own: a run that judges a hundred thousand documents must not delay another's sockets.
    let runtime = runtime();
    runtime.spawn(watch(test.name));
    let mut body = runtime.spawn((test.body)(run.clone()));
    let ended = tokio::select! {
        ended = tokio::time::timeout(at_most, &mut body) => Some(ended),
        () = stop_signal() => None,
    };
    if ended.as_ref().is_none_or(Result::is_err) {
        body.abort();
        drop(body.await);
    }
    // A thread that waits for a process of an aborted run must not block the shutdown.
    runtime.shutdown_background();
    let failure = match ended {
        Some(Ok(Ok(()))) => {
            println!("  ok   {} seed={} ({:.1} s)", test.name, run.seed, begun.elapsed().as_secs_f64());
            return Outcome::Passed;
        }
        Some(Ok(Err(error))) => said(error.into_panic()),
        Some(Err(_elapsed)) => format!("not ended after {at_most:?}"),
        None => return Outcome::Stopped,
    };
    println!("  FAILED {} ({:.1} s): {failure}", test.name, begun.elapsed().as_secs_f64());
    println!("  repeat with --only {} --seed {}; SCHEDULE:\n  {}", test.name, run.seed, run.diary());
    Outcome::Failed
}

/// The text of a panic.
fn said(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).unwrap_or_default(),
    }
}
