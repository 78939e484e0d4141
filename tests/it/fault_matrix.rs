//! Every fault on every surface: while it lasts each says so and names shop and resource, and each says when it is over.
//!
//! A row is a fault, in a process of its own that syncs each second. It begins well; the fault comes, and every surface
//! must show it; the process is restarted in the middle of it, and must not turn green; the fault goes, and every surface
//! must show that too. The table is printed at the end. A full disk is in the rig (`tests/rig/disk.rs`): it needs a mount.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop, and shows its table")]

#[path = "../rig/browser.rs"]
#[allow(dead_code, reason = "the rig uses the rest")]
mod browser;
mod network;
mod parcels;
mod rows;
mod surfaces;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, block_in_place};

use rows::{Fault, World};
use surfaces::{Dashboard, SURFACES, Said, Seen};

/// Longer than any surface takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Rows at the same time.
const ROWS_AT_ONCE: usize = 6;
/// Looks while a fault lasts, each of which must see it.
const LOOKS: usize = 6;

/// A row of the table.
struct Row {
    fault: Fault,
    begun: Vec<Said>,
    ended: Vec<Said>,
    seen_after: Duration,
    over_after: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_shows_on_every_surface_and_so_does_its_end() {
    let dashboard = Dashboard::open();
    let places = Arc::new(Semaphore::new(ROWS_AT_ONCE));
    let mut rows = JoinSet::new();
    let only = std::env::var("WAYBILL_TEST_FAULT").ok();
    for fault in Fault::ALL.into_iter().filter(|fault| only.as_deref().is_none_or(|only| fault.name().contains(only))) {
        if !fault.is_possible() {
            eprintln!("SKIPPED: {}, it needs libfaketime (Debian package `faketime`)", fault.name());
            continue;
        }
        let (places, dashboard) = (Arc::clone(&places), dashboard.clone());
        rows.spawn(async move {
            let _place = places.acquire().await.unwrap();
            row(fault, &dashboard).await
        });
    }
    let mut rows = rows.join_all().await;
    rows.sort_by_key(|row| row.fault);
    print(&rows);
    let wrong: Vec<String> = rows.iter().flat_map(wrong).collect();
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

async fn row(fault: Fault, dashboard: &Dashboard) -> Row {
    let mut world = World::open(fault).await;
    let healthy = until(&world, dashboard, None).await;
    assert!(
        healthy.iter().all(Result::is_ok),
        "{}: it never was well: {healthy:?}\n{}",
        fault.name(),
        world.folder.said()
    );

    let (from, begun_at) = (surfaces::log(&world.folder).len(), Instant::now());
    world.begin().await;
    let mut begun = until(&world, dashboard, Some(from)).await;
    let seen_after = begun_at.elapsed();
    hold(&world, &mut begun, "green again").await;
    world.stop();
    begun.push(command(&world, 1).await);
    // A restart forgets nothing: there is no moment in which it looks well.
    world.start();
    hold(&world, &mut begun, "green after a restart").await;

    let (from, ended_at) = (surfaces::log(&world.folder).len(), Instant::now());
    world.end().await;
    let mut ended = until(&world, dashboard, None).await;
    let over_after = ended_at.elapsed();
    if let Some(log) = ended.get_mut(3) {
        *log = patiently(|| surfaces::log_well(&world.folder, from, &world.about)).await;
    }
    world.stop();
    ended.push(command(&world, 0).await);
    Row { fault, begun, ended, seen_after, over_after }
}

/// Looks until everything is as it should be, or gives up; what status, `/readyz`, metrics, log and dashboard say.
/// With the length of the log before the fault: while it lasts; without: when all is well.
async fn until(world: &World, dashboard: &Dashboard, unwell_from: Option<usize>) -> Vec<Said> {
    let begun = Instant::now();
    loop {
        let seen = Seen::at(world.serving(), &world.metrics).await;
        let (about, base) = (&world.about, &world.serving().base);
        let mut said: Vec<Said> = match unwell_from {
            Some(_) => seen.unwell(about).into(),
            None => seen.well().into(),
        };
        said.push(match unwell_from {
            Some(from) => surfaces::log_unwell(&world.folder, from, about),
            None => Ok(String::new()),
        });
        let is_late = begun.elapsed() > PATIENCE;
        if said.iter().all(Result::is_ok) || is_late {
            let shown = block_in_place(|| match unwell_from {
                Some(_) => surfaces::dashboard_unwell(dashboard, base, about),
                None => surfaces::dashboard_well(dashboard, base),
            });
            let is_done = shown.is_ok();
            said.push(shown);
            if is_done || is_late {
                return said;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// While a fault lasts nothing may look well, not for a moment.
async fn hold(world: &World, begun: &mut [Said], what: &str) {
    let mut oldest = None;
    for _ in 0..LOOKS {
        let seen = Seen::at(world.serving(), &world.metrics).await;
        let age = seen.age(&world.about);
        if let (true, Some(cell)) = (age < oldest, begun.get_mut(2)) {
            *cell = Err(format!("{what}: younger than before: {age:?} after {oldest:?}"));
        }
        oldest = age;
        for (cell, now) in begun.iter_mut().zip(seen.unwell(&world.about)) {
            if let (true, Err(now)) = (cell.is_ok(), now) {
                *cell = Err(format!("{what}: {now}"));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `waybill status`, until it ends so.
async fn command(world: &World, code: i32) -> Said {
    let schedule = world.fault.schedule_at_rest(code == 0);
    patiently(|| surfaces::command(&world.folder, code, schedule, &world.about)).await
}

async fn patiently(look: impl Fn() -> Said + Send + Sync) -> Said {
    let begun = Instant::now();
    loop {
        let said = block_in_place(&look);
        if said.is_ok() || begun.elapsed() > PATIENCE {
            return said;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn wrong(row: &Row) -> Vec<String> {
    let cells = |what: &str, said: &[Said]| -> Vec<String> {
        let cell = |(surface, said): (&&str, &Said)| {
            said.as_ref().err().map(|said| format!("{}, {what}, {surface}: {said}", row.fault.name()))
        };
        SURFACES.iter().zip(said).filter_map(cell).collect()
    };
    [cells("while it lasts", &row.begun), cells("when it is over", &row.ended)].concat()
}

/// The table, as Markdown.
fn print(rows: &[Row]) {
    let cell = |said: Option<&Said>| match said {
        Some(Ok(said)) => said.clone(),
        _ => "WRONG".to_owned(),
    };
    println!("| fault | {} | seen after | over after |", SURFACES.join(" | "));
    println!("|{}", " --- |".repeat(SURFACES.len() + 3));
    for row in rows {
        let cells: Vec<String> = (0..SURFACES.len())
            .map(|at| format!("{} / {}", cell(row.begun.get(at)), cell(row.ended.get(at))))
            .collect();
        let (seen, over) = (row.seen_after.as_secs_f64(), row.over_after.as_secs_f64());
        println!("| {} | {} | {seen:.1} s | {over:.1} s |", row.fault.name(), cells.join(" | "));
    }
}
