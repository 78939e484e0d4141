//! Every fault on every surface: while it lasts each says so and names shop and resource, and each says when it is over.
//!
//! A row is a fault, in a process of its own that syncs each second. It begins well; the fault comes, and every surface
//! must show it within one schedule: once a run that began after it has ended, none may look well. The process is
//! restarted in the middle of it, and must not turn green; the fault goes, and every surface must show that too. The table
//! is printed at the end.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop, and shows its table")]

#[path = "../rig/browser.rs"]
#[allow(dead_code, reason = "the rig uses the rest")]
pub(crate) mod browser;
#[path = "../rig/disk.rs"]
#[allow(dead_code, reason = "the rig uses the rest")]
mod disk;
mod network;
mod parcels;
mod rows;
mod schedules;
mod surfaces;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, block_in_place};

use rows::{Fault, World};
use schedules::{Cell, Since};
use surfaces::{Dashboard, SURFACES, Said, Seen};

/// Longer than any surface takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Rows at the same time.
const ROWS_AT_ONCE: usize = 6;
/// Looks while a fault lasts, each of which must see it.
const LOOKS: usize = 6;

/// The page asks by itself each few seconds; and the log's lines are not in one order with the runs'.
const SLACK: u64 = 2;

/// A row of the table.
struct Row {
    fault: Fault,
    begun: Vec<Said>,
    ended: Vec<Said>,
    /// Runs of what the fault is about that ended before all surfaces said so.
    seen_after: u64,
    /// The same until all of them said that it is over; runs that ended well, of each stream.
    over_after: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_shows_on_every_surface_and_so_does_its_end() {
    let dashboard = Dashboard::open();
    let places = Arc::new(Semaphore::new(ROWS_AT_ONCE));
    let mut rows = JoinSet::new();
    let only = std::env::var("WAYBILL_TEST_FAULT").ok();
    for fault in Fault::ALL.into_iter().filter(|fault| only.as_deref().is_none_or(|only| fault.name().contains(only))) {
        if let Err(missing) = block_in_place(|| fault.is_possible()) {
            eprintln!("SKIPPED: {}: {missing}", fault.name());
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
    let start = Since::now(world.serving()).await;
    let (healthy, _) = until(&world, dashboard, &Wanted::Well(start, u64::MAX)).await;
    assert!(
        healthy.iter().all(Result::is_ok),
        "{}: it never was well: {healthy:?}\n{}",
        fault.name(),
        world.folder.said()
    );

    let from = surfaces::log(&world.folder).len();
    world.begin().await;
    let since = Since::now(world.serving()).await;
    let (mut begun, seen_after) = until(&world, dashboard, &Wanted::Unwell(since, from)).await;
    hold(&world, &mut begun, "green again").await;
    if fault.is_recorded() {
        world.stop();
        begun.push(command(&world, 1));
        // A restart forgets nothing: there is no moment in which it looks well.
        world.start();
        hold(&world, &mut begun, "green after a restart").await;
    } else {
        begun.push(Ok("not at rest".to_owned()));
    }

    let from = surfaces::log(&world.folder).len();
    world.end().await;
    let since = Since::now(world.serving()).await;
    let (mut ended, over_after) = until(&world, dashboard, &Wanted::Well(since, fault.over_within())).await;
    if let Some(log) = ended.get_mut(3) {
        *log =
            patiently(|| surfaces::log_well(&world.folder, from, &world.about, (since, fault.over_within() + SLACK)))
                .await;
    }
    world.stop();
    ended.push(command(&world, 0));
    Row { fault, begun, ended, seen_after, over_after }
}

/// What all surfaces are waited for to say.
enum Wanted {
    /// That something is wrong, as it is since; with the length of the log before.
    Unwell(Since, usize),
    /// That all is well again, within this number of schedules.
    Well(Since, u64),
}

/// Looks until everything is as it should be, or gives up; what status, `/readyz`, metrics, log and dashboard say, and how
/// many runs had ended by then.
async fn until(world: &World, dashboard: &Dashboard, wanted: &Wanted) -> (Vec<Said>, u64) {
    let begun = Instant::now();
    let (about, serving) = (&world.about, world.serving());
    let mut cells = [const { Cell::new() }; 5];
    loop {
        let (walked, allowed) = match wanted {
            Wanted::Unwell(since, _) => (since.walked(serving, about).await, world.fault.seen_within()),
            Wanted::Well(since, allowed) => (since.walked_well(serving).await, *allowed),
        };
        let seen = Seen::at(serving, &world.metrics).await;
        let mut said: Vec<Said> = match wanted {
            Wanted::Unwell(since, from) => {
                let log = surfaces::log_unwell(&world.folder, *from, about, (*since, allowed + SLACK));
                seen.unwell(about).into_iter().chain([log]).collect()
            }
            Wanted::Well(..) => seen.well().into_iter().chain([Ok(String::new())]).collect(),
        };
        for (cell, said) in cells.iter_mut().zip(&said).take(3) {
            cell.look(said, walked, allowed);
        }
        let is_late = begun.elapsed() > PATIENCE;
        if said.iter().all(Result::is_ok) || is_late {
            let shown = block_in_place(|| match wanted {
                Wanted::Unwell(..) => surfaces::dashboard_unwell(dashboard, &serving.base, about),
                Wanted::Well(..) => surfaces::dashboard_well(dashboard, &serving.base),
            });
            cells[4].look(&shown, walked, allowed.saturating_add(SLACK));
            let is_done = shown.is_ok();
            said.push(shown);
            if is_done || is_late {
                return (said.into_iter().zip(cells).map(|(said, cell)| cell.judge(said)).collect(), walked);
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
        // Of a fault that makes no stream old each good run makes it younger.
        let is_younger = age < oldest && !world.about.all_fresh;
        if let (true, Some(cell)) = (is_younger, begun.get_mut(2)) {
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

/// `waybill status` at rest: it reads what the service showed.
fn command(world: &World, code: i32) -> Said {
    let schedule = Fault::schedule_at_rest(code == 0);
    block_in_place(|| surfaces::command(&world.folder, code, schedule, &world.about))
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
        let (seen, over) = (row.seen_after, row.over_after);
        println!("| {} | {} | {seen} runs | {over} runs |", row.fault.name(), cells.join(" | "));
    }
}
