//! A full disk, a second process on the same directory, and a suspended process.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::disk::Disk;
use crate::oracle;
use crate::program::{Serving, signal};
use crate::run::Run;
use crate::world::{Limit, Plan, World, until};

const DISK_MIB: u64 = 96;
const FREE: Limit = Limit { calls: 10_000, seconds: 1 };
/// A second process gives up within this.
const REFUSES_WITHIN: Duration = Duration::from_secs(2);
/// Recovery time once there is room again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);
/// Tokens end while the process is stopped.
const TOKEN_LIFE: Duration = Duration::from_secs(3);

/// The disk fills up during the work. Reads continue, writes are refused with the reason, and a start on the full disk
/// works; once there is room again everything resumes, and nothing is lost.
pub(crate) async fn disk_full(mut run: Run) {
    let disk = Disk::new(DISK_MIB, 5).unwrap();
    // More than the space that the store keeps in reserve.
    let mut world = World::open(&run, Plan { list: FREE, detail: FREE, ..Plan::of(3, [1_500, 500]) }).await;
    world.move_data(disk.path().join("data"));
    let mut serving = world.start().await;
    let first = world.clients[0].clone();
    assert!(world.register(&serving, &first).await);
    tokio::time::sleep(Duration::from_millis(run.random.u64(0..1500))).await;
    disk.fill();
    until_full(&mut world, &serving).await;
    run.note("full, and what was allocated before is used up");
    bear(&world, &mut serving, Duration::from_secs(run.tier.pick(4, 60, 60))).await;
    world.kill(serving);
    let mut serving = world.start().await;
    run.note("started on the full disk");
    // A start releases the store's reserve.
    until_full(&mut world, &serving).await;
    bear(&world, &mut serving, Duration::from_secs(1)).await;
    // Once more: the first start may have used up the reserve.
    world.kill(serving);
    let serving = world.start().await;
    disk.free();
    run.note("room again");
    until_ready_says(RECOVERS_WITHIN, &world, &serving, 200).await;
    world.register_all(&serving).await;
    oracle::judge(world, serving).await;
}

/// Uses up the store's reserve: the shops refused so far need more than fits.
async fn until_full(world: &mut World, serving: &Serving) {
    for client in world.clients.clone() {
        world.register(serving, &client).await;
    }
    until_ready_says(Duration::from_secs(60), world, serving, 503).await;
}

/// Waits until `/readyz` gives this answer.
async fn until_ready_says(at_most: Duration, world: &World, serving: &Serving, wanted: u16) {
    let said = async || world.ask(serving, Method::GET, "/readyz", None).await.map(|(status, _)| status);
    until!(world, format!("/readyz answers {wanted}"), at_most, said().await == Some(wanted));
}

/// Keeps a service on a full disk busy for a while; it must stay up, and report that it is not ready.
async fn bear(world: &World, serving: &mut Serving, hold: Duration) {
    let begun = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let mut refused = 0;
    while begun.elapsed() < hold {
        pace.tick().await;
        refused += usize::from(busy_on_full_disk(world, serving).await == Some(507));
        assert!(serving.is_alive(), "it ended on the full disk:\n{}", world.tail());
    }
    world.run.note(format!("{refused} writes were refused with 507"));
    assert!(refused > 0, "no write was refused with 507:\n{}", world.tail());
    let (status, answer) = world.ask(serving, Method::GET, "/readyz", None).await.unwrap();
    assert_eq!(status, 503, "{answer}");
    assert!(answer.to_string().contains("full"), "{answer}");
}

/// Reads are answered; a write is accepted, or refused with the reason. Returns the answer to the write.
async fn busy_on_full_disk(world: &World, serving: &Serving) -> Option<u16> {
    if let Some((status, answer)) = world.ask(serving, Method::GET, "/api/v1/shops", None).await {
        assert_eq!(status, 200, "a read on a full disk: {answer}");
    }
    let path = format!("/api/v1/shops/{}", world.shops[&world.clients[0]]);
    let body = json!({"name": format!("name {}", fastrand::u32(..))});
    let (status, answer) = world.ask(serving, Method::PATCH, &path, Some(body)).await?;
    assert!(matches!(status, 200 | 503 | 507), "a write on a full disk: {status} {answer}");
    Some(status)
}

/// A second process on the same directory gives up at once, and the first does not notice.
pub(crate) async fn two_processes(run: Run) {
    let mut world = World::open(&run, Plan::of(2, [100, 20])).await;
    let serving = world.start().await;
    for client in world.clients.clone() {
        assert!(world.register(&serving, &client).await);
        let begun = Instant::now();
        let second = world.folder.spawn_serve();
        let code = tokio::task::block_in_place(|| second.ended());
        let took = begun.elapsed();
        run.note(format!("the second ended with {code:?} after {took:?}"));
        assert_eq!(code, Some(1), "{}", world.tail());
        assert!(took < REFUSES_WITHIN, "the second took {took:?}");
        assert!(world.tail().contains("already in use"), "{}", world.tail());
    }
    // The lock of a killed process blocks no one.
    world.kill(serving);
    let serving = world.start().await;
    oracle::judge(world, serving).await;
}

/// Suspended past the end of tokens and windows, and resumed.
pub(crate) async fn stopped(mut run: Run) {
    let options: fn(&mut sandbox::Options) = |options| options.token_life = TOKEN_LIFE;
    let mut world = World::open(&run, Plan { options, ..Plan::of(3, [250, 50]) }).await;
    world.walk_often();
    let serving = world.start().await;
    world.register_all(&serving).await;
    let begun = Instant::now();
    let stirring = world.stir(0.05);
    let pid = serving.pid().to_string();
    let stops = run.tier.pick(3, 3, 4);
    for _ in 0..stops {
        tokio::time::sleep(Duration::from_millis(run.random.u64(0..1500))).await;
        let away = Duration::from_millis(run.random.u64(800..run.tier.pick(5_000, 120_000, 120_000)));
        run.note(format!("SIGSTOP for {away:?}"));
        signal("STOP", &pid);
        tokio::time::sleep(away).await;
        signal("CONT", &pid);
    }
    drop(stirring);
    serving.idle(Duration::from_secs(60)).await;
    // Token discipline: one per lifetime, one more for each refusal, and the one of the registration.
    let audit = world.market.sandbox.audit();
    let lives = begun.elapsed().as_secs().div_ceil(TOKEN_LIFE.as_secs() - 1) + 2;
    let allowed = lives * world.clients.len() as u64 + audit.refused_401;
    assert!(audit.token_requests <= allowed, "{} token requests, {allowed} allowed", audit.token_requests);
    assert_eq!(audit.token_refused, 0);
    oracle::judge(world, serving).await;
}
