//! The reliability rig: the real binary under kills, power cuts, faults of disk, database, network and
//! clock, judged from outside by what the sandbox served and what can be queried afterwards.
//!
//! `cargo test --test rig -- --tier p` runs what each submission runs; `scripts/test` calls it so.
//! Without a tier it only says how it is used, so a plain `cargo test` passes by. Each run has one
//! seed; `--only TEST --seed N` repeats it.
//!
//! | file | holds |
//! | --- | --- |
//! | `run`, `score` | one run with its seed and diary; what all runs add up to |
//! | `world` | sandbox, service, sink and the shops between them |
//! | `oracle` | what must hold after each run |
//! | `answers` | U5: each bad answer of the API |
//! | `browser` | a headless Chromium |
//! | `canary` | finds secrets in bytes |
//! | `database`, `proxy` | M1, M3, M4: MariaDB goes away, the network is bad, a COMMIT's fate is unknown, each error code |
//! | `strain` | M1, M5, M7, M8: a database that is away, without room, or hard to reach; rows that others lock |
//! | `gate`, `triggers` | A2: kill -9 exactly at a trigger |
//! | `disk` | a file system that can be full or lose its power |
//! | `failover` | M2, M6: the database is read-only, and then another server has its address; a backup is put back |
//! | `kill` | A1: kill -9, again and again, on one data directory |
//! | `power` | A5: power cuts |
//! | `memory` | what a process holds |
//! | `odd`, `pages` | U8: odd content in MySQL, API and log; the dashboard shows it as text |
//! | `process` | A7, A8, A9: full disk, second process, stopped process |
//! | `rates` | U1, U2: windows under kills, delay and jumps of the clock; the use of budgets without |
//! | `rot` | A6: bits rot in the state files |
//! | `scale` | U10: ten thousand shops; P11: slow and failing ones delay no other |
//! | `schema` | U7: documents that change their form |
//! | `sweep` | A3, A4: a fault at the N-th system call |
//! | `tests` | all of them, with their needs and their numbers |
//! | `tamper` | S9: sealed records that somebody changed |
//! | `tokens` | U6: tokens that end early, live oddly or cannot be had |
//! | `upstream` | U4, U9: lists that shift, documents that cannot be read |

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a run that cannot go on fails by panic")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a runner of its own: its output is its purpose")]

mod answers;
mod backlog;
mod browser;
mod canary;
mod database;
mod disk;
mod failover;
mod gate;
mod kill;
#[path = "../it/support/mariadb.rs"]
#[allow(dead_code, reason = "the other binary uses the rest")]
mod mariadb;
mod memory;
mod odd;
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
mod run;
mod scale;
mod schema;
mod score;
mod strain;
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
use score::Score;
use tests::{TESTS, Test, runs};
use tokio::runtime::Runtime;
use tokio::signal::{self, unix::SignalKind};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const USAGE: &str = "the reliability rig; each run takes minutes, so it waits to be told:
  cargo test --test rig -- --tier p|release|soak [--only TEST[,TEST...]] [--seed N] [--jobs N]
--jobs: runs at a time; what measures the machine's own pace has it to itself all the same.
WAYBILL_RIG_BINARY=target/release/waybill tests that build. Tests:";
/// Set in the process that has mounts of its own.
const INSIDE: &str = "WAYBILL_RIG_INSIDE";

/// How often the rig looks whether it stands still itself, and what it tells of.
const BEAT: Duration = Duration::from_millis(100);
const STOOD_STILL: Duration = Duration::from_secs(1);

/// What the command line asks for.
struct Asked {
    tier: Tier,
    only: Vec<String>,
    seed: Option<u64>,
    jobs: u32,
}

/// None: no tier was named, so nothing is to be done.
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
        // Mounts of our own end with us, whichever way we end.
        let mut again = Command::new("unshare");
        again.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
        eprintln!("rig: {}", again.args(std::env::args().skip(1)).env(INSIDE, "1").exec());
        return ExitCode::from(1);
    }
    oracle::sees();
    gate::sees();
    // The run prints what went wrong; a backtrace of the runtime says nothing more.
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

/// Runs what was asked for, in about its order; the number of runs that failed.
async fn all(asked: &Asked) -> usize {
    let score = Arc::new(Score::default());
    // First come, first served: a run that wants every turn holds up those behind it until it has them.
    let turns = Arc::new(Semaphore::new(asked.jobs as usize));
    let mut begun = JoinSet::new();
    let mut skipped = 0;
    let place = asked.tier.pick(0, 1, 2);
    for test in TESTS.iter().filter(|test| asked.only.is_empty() || asked.only.iter().any(|name| name == test.name)) {
        // What is named runs, also in a tier that leaves it out.
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

/// Tells when the run's own threads stood still: what fails then may have failed by its judge.
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

/// The run, when as many turns as it wants are free.
async fn in_turn(test: &'static Test, run: Run, at_most: Duration, turns: Arc<Semaphore>, wanted: u32) -> Outcome {
    match turns.acquire_many(wanted).await {
        Ok(_turn) => {
            let outcome = one(test, run, at_most).await;
            if matches!(outcome, Outcome::Stopped) {
                // Before the turn is free: those under way hear the same signal, the others do not begin.
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

/// One run, within its time. However it ends, its values' ends have unmounted and killed what it began.
async fn one(test: &Test, run: Run, at_most: Duration) -> Outcome {
    let begun = Instant::now();
    println!("run {} seed={}", test.name, run.seed);
    // Of its own: a run that judges a hundred thousand documents must not hold up another's sockets.
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
    // A thread that waits for a process of a run that was cut short must not hold us.
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
