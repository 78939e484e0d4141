//! The service is killed and started again while the path to the marketplace loses its packets. The kernel goes on
//! sending what the dead process asked for: should it arrive, it counts.

use std::time::{Duration, Instant};

use sandbox::Options;
use tokio::task::{JoinSet, block_in_place};

use crate::network::Network;
use crate::oracle;
use crate::program::Serving;
use crate::run::{Run, all_of};
use crate::world::{Limit, Plan, World, secret, until};

const DETAILS: Limit = Limit { calls: 20, seconds: 10 };
const WINDOW: Duration = Duration::from_secs(DETAILS.seconds as u64);
/// A call takes so long that all of a window are made at once, each over its own connection.
const LATENCY: Duration = Duration::from_millis(100);
/// The path is cut so long before the next window's calls.
const CUT_BEFORE: Duration = Duration::from_secs(1);
/// Calls that must be on their way when the service is killed.
const LOST_MIN: usize = 5;
/// How long packets are lost after the kill: the kernel resends after 6 and after 12 s, when new slots are free.
const DARK_MS: std::ops::Range<u64> = 8_000..11_500;
/// And in half of the longer tiers' rounds.
const ANY_DARK_MS: std::ops::Range<u64> = 100..14_000;
const PATIENCE: Duration = Duration::from_secs(60);
/// The last resend that could arrive, after the kill.
const LAST_RESEND: Duration = Duration::from_secs(28);

/// Several rounds at a time: they mostly wait.
pub(crate) async fn dark(mut run: Run) {
    let mut rounds = JoinSet::new();
    for number in 0..run.tier.pick(3, 5, 5) {
        let any = run.tier.pick(false, number % 2 == 1, number % 2 == 1);
        let part = run.part();
        rounds.spawn(round(number, part, if any { ANY_DARK_MS } else { DARK_MS }));
    }
    all_of(rounds).await;
}

async fn round(number: usize, mut run: Run, dark: std::ops::Range<u64>) {
    let network = Network::new().unwrap();
    let options = |options: &mut Options| options.latency = LATENCY;
    let plan = Plan { detail: DETAILS, options, network: Some(network), ..Plan::of(1, [150, 0]) };
    let world = World::open(&run, plan).await;
    let network = world.network.as_ref().unwrap();
    let client = &world.clients[0];
    let add = ["shops", "add", "--name", client, "--client-id", client];
    // Its API cannot be reached from here.
    block_in_place(|| world.folder.feed(&add, &secret(client)).expect(0));
    let serving = start(&world);
    until!(world, "the first window's calls", PATIENCE, details(&world) >= DETAILS.calls as usize);
    tokio::time::sleep(WINDOW - CUT_BEFORE).await;
    network.lose_packets();
    until!(world, "calls on their way", PATIENCE, network.unacknowledged() >= LOST_MIN);
    tokio::time::sleep(Duration::from_millis(run.random.u64(0..500))).await;
    world.kill(serving);
    let killed = Instant::now();
    let lost = network.unacknowledged();
    assert!(lost >= LOST_MIN, "{lost} calls of the dead process are on their way");
    let before = details(&world);
    let serving = start(&world);
    let dark = Duration::from_millis(run.random.u64(dark));
    run.note(format!("round {number}: {lost} calls on their way, {before} made; dark for {dark:?}"));
    tokio::time::sleep(dark.saturating_sub(killed.elapsed())).await;
    network.deliver_packets();
    let window = before + DETAILS.calls as usize;
    until!(world, "a window's calls after the kill", PATIENCE, details(&world) >= window);
    run.note(format!("round {number}: a window's calls {:?} after the kill", killed.elapsed()));
    let rest =
        if run.tier.pick(true, false, false) { WINDOW / 2 } else { LAST_RESEND.saturating_sub(killed.elapsed()) };
    tokio::time::sleep(rest).await;
    oracle::judge_calls(&world, serving);
}

fn start(world: &World) -> Serving {
    let mut serving = world.folder.spawn_serve();
    block_in_place(|| serving.listening());
    serving
}

/// How many documents were asked for.
fn details(world: &World) -> usize {
    world.market.sandbox.calls().iter().filter(|call| call.id.is_some()).count()
}
