//! Lists that shift while they are read, and documents that cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sandbox::{Fault, FaultBody, FaultKind, Method};

use crate::oracle::{self, Allowed};
use crate::run::Run;
use crate::world::{Limit, Plan, World};

const FREE: Limit = Limit { calls: 10_000, seconds: 1 };
/// Healthy documents must not wait for those that are retried.
const OTHERS_WITHIN: Duration = Duration::from_secs(10);

/// Arrivals only: new shipments push old ones to later pages.
pub(crate) async fn arrivals(run: Run) {
    shifting(run, 0).await;
}

/// Removals pull unread entries to pages that were already read.
pub(crate) async fn removals(run: Run) {
    shifting(run, 20).await;
}

/// Lists that change during their first walk. What was listed all the time is stored when it is over, or the run
/// reports that the list kept moving, and the next walk has the rest.
async fn shifting(mut run: Run, removals_max: u8) {
    for round in 0..run.tier.pick(2, 15, 50) {
        let part = run.part();
        let inserts = run.random.u8(1..50);
        let removals = run.random.u8(0..=removals_max);
        run.note(format!("round {round}: {inserts} arrivals and {removals} removals a second"));
        let options: fn(&mut sandbox::Options) = |options| options.latency = Duration::from_millis(40);
        let plan = Plan { list: FREE, detail: FREE, options, ..Plan::of(1, [600, 100]) };
        let mut world = World::open(&part, plan).await;
        let serving = world.start().await;
        let client = world.clients[0].clone();
        assert!(world.register(&serving, &client).await);
        shift(&world, &client, &mut run.random, [inserts, removals]).await;
        serving.idle(Duration::from_secs(60)).await;
        let runs = serving.all("/api/v1/runs").await;
        assert!(runs.iter().all(|run| run["passes"].as_u64().is_some_and(|passes| passes <= 3)), "{runs:?}");
        let drift = runs.iter().any(|run| run["drift"] == true);
        run.note(format!("drift: {drift}"));
        oracle::judge_allowing(world, serving, Allowed { late: drift, ..Allowed::default() }).await;
    }
}

/// Shifts the list for as long as its first walk takes.
async fn shift(world: &World, client: &str, random: &mut fastrand::Rng, [inserts, removals]: [u8; 2]) {
    let sandbox = &world.market.sandbox;
    let ids = &world.from_the_start[client];
    let begun = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while begun.elapsed() < Duration::from_millis(1500) {
        pace.tick().await;
        if random.u8(..50) < inserts {
            sandbox.add_shipments(client, Method::Fbr, 1).unwrap();
        }
        if random.u8(..50) < removals {
            // False if it was already removed.
            drop(sandbox.remove(client, &ids[random.usize(..ids.len())]));
        }
    }
}

/// Lists that show nothing for one call, or in another order, in a first walk and in incremental ones. No walk is
/// requested: what was listed for two intervals is stored, without a scheduled full walk.
pub(crate) async fn empty(mut run: Run) {
    const PAGES: &str = "/retailer/shipments?";
    const INTERVAL: Duration = Duration::from_secs(4);
    let nothing = FaultKind::Status { code: 200, body: FaultBody::Text("{}".to_owned()), headers: BTreeMap::new() };
    for round in 0..run.tier.pick(2, 10, 40) {
        let part = run.part();
        let mut world = World::open(&part, Plan { list: FREE, detail: FREE, ..Plan::of(1, [400, 100]) }).await;
        world.folder.set("WAYBILL_SCHEDULE_SYNC", &format!("*/{} * * * * *", INTERVAL.as_secs()));
        let mut once = |pages: u64| {
            let skip = run.random.u64(0..pages);
            run.note(format!("round {round}: nothing at call {skip}, then another order"));
            let empty = Fault { skip, ..Fault::times(PAGES, nothing.clone(), 1) };
            vec![empty, Fault { skip: 1, ..Fault::times(PAGES, FaultKind::Reversed, 2) }]
        };
        world.market.sandbox.set_faults(once(13));
        let serving = world.start().await;
        world.register_all(&serving).await;
        serving.idle(Duration::from_secs(60)).await;
        let client = world.clients[0].clone();
        for _ in 0..2 {
            world.market.sandbox.set_faults(once(5));
            world.market.sandbox.add_shipments(&client, Method::Fbr, 120).unwrap();
            tokio::time::sleep(INTERVAL * 2 + Duration::from_secs(2)).await;
        }
        world.market.sandbox.set_faults(Vec::new());
        tokio::time::sleep(INTERVAL * 2 + Duration::from_secs(1)).await;
        let allowed = Allowed { unproved_runs: true, ..Allowed::default() };
        oracle::judge_now_allowing(&world, &serving, &allowed).await;
        oracle::judge_allowing(world, serving, allowed).await;
    }
}

/// Some, most or all documents of a shop cannot be read. The others are stored at once; the counters add up; and when
/// the fault is removed, a retry stores everything.
pub(crate) async fn poison(mut run: Run) {
    let toml = "[limits]\nattempts_max = 4\n";
    let mut world = World::open(&run, Plan { list: FREE, detail: FREE, toml, ..Plan::of(2, [80, 20]) }).await;
    let share = *run.random.choice(&[1, 10, 100]).unwrap();
    let bad = world.clients[0].clone();
    let mut ids = world.from_the_start[&bad].clone();
    run.random.shuffle(&mut ids);
    ids.truncate((ids.len() * share).div_ceil(100));
    let ids: BTreeSet<String> = ids.into_iter().collect();
    run.note(format!("{} of {} documents of {bad} are poison", ids.len(), world.from_the_start[&bad].len()));
    let faults = ids.iter().map(|id| Fault {
        client_id: Some(bad.clone()),
        ..Fault::always(&format!("/retailer/shipments/{id}"), kind(&mut run.random))
    });
    // And a page that fails for a while: an error is not the end of a list.
    let busy = FaultKind::Status { code: 503, body: FaultBody::Html, headers: BTreeMap::new() };
    let page = Fault::times("/retailer/shipments?fulfilment-method=FBR&page=2", busy, 3);
    let page = Fault { client_id: Some(bad.clone()), ..page };
    world.market.sandbox.set_faults(faults.chain([page]).collect());
    let serving = world.start().await;
    world.register_all(&serving).await;
    let others: usize = world.from_the_start.values().map(Vec::len).sum::<usize>() - ids.len();
    let begun = Instant::now();
    while serving.all("/api/v1/shipments").await.len() < others {
        assert!(begun.elapsed() < OTHERS_WITHIN, "healthy documents wait for the poisoned ones");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    serving.idle(Duration::from_secs(60)).await;
    let parked = serving.all("/api/v1/parked").await;
    let found: BTreeSet<String> =
        parked.iter().filter_map(|one| one["document_id"].as_str().map(str::to_owned)).collect();
    assert_eq!(found, ids, "parked are exactly the poisoned ones");
    assert!(parked.iter().all(|one| one["reason"].as_str().is_some_and(|reason| !reason.is_empty())));
    assert_eq!(serving.all("/api/v1/shipments").await.len(), others, "stored + parked = listed");
    world.market.sandbox.set_faults(Vec::new());
    world.retry_parked(&serving).await;
    oracle::judge(world, serving).await;
}

fn kind(random: &mut fastrand::Rng) -> FaultKind {
    match random.u8(0..4) {
        0 => FaultKind::Garbage,
        1 => FaultKind::Cut { after: 60 },
        2 => FaultKind::Nested { depth: 100_000 },
        _ => FaultKind::WrongContentLength { by: 40 },
    }
}
