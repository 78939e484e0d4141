//! Bad answers: every kind that an API can give, during healthy work. None is stored as a success, crashes the
//! process, fills its memory or leads it to another host, and everything recovers afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use sandbox::{EchoForm, Fault, FaultBody, FaultKind};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::memory;
use crate::oracle::{self, Allowed};
use crate::program::Serving;
use crate::run::Run;
use crate::world::{Limit, Plan, World};

const FREE: Limit = Limit { calls: 10_000, seconds: 1 };
/// Peak memory of the process, also of a debug build.
const MEMORY_MAX_MIB: u64 = 200;
/// Every fault has affected calls within this: the longest holds a call for the client's 30 s timeout.
const FAULTS_WITHIN: Duration = Duration::from_secs(120);
/// Shops with bad answers; further shops receive endless `Retry-After`s.
const SHOPS: usize = 4;
/// An absurd `Retry-After`, and an unparseable one.
const ABSURD: [&str; 2] = ["99999999999999999999", "soon"];
const LIST: &str = "/retailer/shipments?";
const DETAIL: &str = "/retailer/shipments/";

/// A share of all calls fails, in every possible way.
pub(crate) async fn answers(mut run: Run) {
    let toml = "[limits]\nattempts_max = 5\n";
    let mut world = World::open(&run, Plan { list: FREE, detail: FREE, toml, ..Plan::of(SHOPS + 2, [110, 60]) }).await;
    world.walk_often();
    let trap = Trap::set().await;
    let kinds = kinds(&trap.address);
    let mut faults = absurd_waits(&world);
    for prefix in [DETAIL, LIST] {
        for (name, kind) in &kinds {
            let times = if prefix == DETAIL { run.random.u64(1..=run.tier.pick(2, 20, 20)) } else { 1 };
            run.note(format!("{name} {times} times at {prefix}"));
            let rule = Fault { probability: Some(0.08), ..Fault::times(prefix, kind.clone(), times) };
            faults.push(rule);
        }
    }
    let expected: u64 = faults.iter().filter_map(|fault| fault.times).sum();
    run.random.shuffle(&mut faults[ABSURD.len()..]);
    world.market.sandbox.set_faults(faults);
    let mut serving = world.start().await;
    world.register_all(&serving).await;
    let begun = Instant::now();
    while world.market.sandbox.audit().faulted < expected {
        let met = world.market.sandbox.audit().faulted;
        assert!(begun.elapsed() < FAULTS_WITHIN, "{met} of {expected} faults met a call");
        assert!(serving.is_alive(), "it ended:\n{}", world.tail());
        read_again(&world, &serving).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    run.note(format!("{expected} bad answers after {:?}", begun.elapsed()));
    world.market.sandbox.set_faults(Vec::new());
    truthful(&world, &serving).await;
    waits_obeyed(&mut world, &serving).await;
    heal(&world, &serving).await;
    let peak = memory::peak_mib(serving.pid());
    run.note(format!("peak {peak} MiB"));
    assert!(peak < MEMORY_MAX_MIB, "the process took {peak} MiB");
    assert_eq!(trap.visitors(), 0, "a redirect was followed");
    // An early `{}` is an end like any other: the next walk finds the rest.
    oracle::judge_allowing(world, serving, Allowed { late: true, failed_runs: true, ..Allowed::default() }).await;
}

/// Every kind of bad answer, by name. A duplicate key and half a surrogate pair are not among them: they are read, and
/// counted as tolerated.
fn kinds(trap: &str) -> Vec<(String, FaultKind)> {
    let status = |code: u16, body: FaultBody, headers: &[(&str, &str)]| {
        let headers: BTreeMap<String, String> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        FaultKind::Status { code, body, headers }
    };
    let text = |text: &str| status(200, FaultBody::Text(text.to_owned()), &[]);
    let insert = |text: &str| FaultKind::Insert { text: text.to_owned() };
    let deep = format!("\"deep\":{}{},", "[".repeat(200), "]".repeat(200));
    let mut kinds = vec![
        ("429 without a wait".to_owned(), status(429, FaultBody::Json, &[])),
        ("429 with a wait".to_owned(), status(429, FaultBody::Json, &[("Retry-After", "1")])),
        ("503 with a wait".to_owned(), status(503, FaultBody::Html, &[("Retry-After", "1")])),
        ("404 of a gateway".to_owned(), status(404, FaultBody::Html, &[])),
        ("200 with HTML".to_owned(), status(200, FaultBody::Html, &[])),
        ("HTML as JSON".to_owned(), text("<html>Just a moment</html>")),
        ("empty".to_owned(), status(200, FaultBody::Empty, &[])),
        ("empty as JSON".to_owned(), text("")),
        ("{}".to_owned(), text("{}")),
        ("null".to_owned(), text("null")),
        ("[]".to_owned(), text("[]")),
        ("another document".to_owned(), text(r#"{"shipmentId":"another"}"#)),
        ("cut".to_owned(), FaultKind::Cut { after: 60 }),
        ("reset".to_owned(), FaultKind::Reset),
        ("reset in the body".to_owned(), FaultKind::ResetAfter { bytes: 60 }),
        ("bomb of 1 MiB".to_owned(), FaultKind::GzipBomb { bytes: 1 << 20 }),
        ("bomb of 1 GiB".to_owned(), FaultKind::GzipBomb { bytes: 1 << 30 }),
        ("100 MiB".to_owned(), FaultKind::Huge { bytes: 100 << 20 }),
        ("a byte a second".to_owned(), FaultKind::Drip { bytes: 1, ms: 1000 }),
        ("longer than it is".to_owned(), FaultKind::WrongContentLength { by: 40 }),
        ("shorter than it is".to_owned(), FaultKind::WrongContentLength { by: -40 }),
        ("bad chunk".to_owned(), FaultKind::BadChunk),
        ("redirect".to_owned(), FaultKind::Redirect { to: format!("http://{trap}/retailer/shipments") }),
        ("nested".to_owned(), FaultKind::Nested { depth: 100_000 }),
        ("nested within".to_owned(), insert(&deep)),
        ("no UTF-8".to_owned(), FaultKind::Garbage),
        ("no UTF-8 within".to_owned(), insert("\"cafe\":\"caf\u{e9}\",")),
        ("NaN".to_owned(), insert(r#""a":NaN,"#)),
        ("a number beyond all".to_owned(), insert(r#""a":1e999,"#)),
        ("a raw control character".to_owned(), insert("\"a\":\"\u{1}\",")),
    ];
    for code in [204, 206, 304, 400, 401, 403, 404, 408, 410, 425, 500, 501, 502, 503, 504] {
        kinds.push((code.to_string(), status(code, FaultBody::Json, &[])));
    }
    kinds.extend(EchoForm::ALL.map(|form| (format!("an echo as {form:?}"), FaultKind::Echo { form })));
    kinds
}

/// Calls of the shops that receive `Retry-After`.
fn absurd_waits(world: &World) -> Vec<Fault> {
    let rule = |(client, wait): (&String, &str)| {
        let headers = BTreeMap::from([("Retry-After".to_owned(), wait.to_owned())]);
        let kind = FaultKind::Status { code: 429, body: FaultBody::Json, headers };
        Fault { client_id: Some(client.clone()), ..Fault::times(DETAIL, kind, 1) }
    };
    world.clients[SHOPS..].iter().zip(ABSURD).map(rule).collect()
}

/// Re-reads every document that may still change, because the faults need calls to affect.
async fn read_again(world: &World, serving: &Serving) {
    for client in &world.clients[..SHOPS] {
        let (status, answer) = world.walk(serving, client).await;
        assert!(matches!(status, 202 | 409), "{status} {answer}");
    }
}

/// Nothing changed, so whatever is stored must equal the marketplace.
async fn truthful(world: &World, serving: &Serving) {
    let truth = oracle::truth(world);
    for item in serving.all("/api/v1/shipments").await {
        let key = (item["shop_id"].as_str().unwrap().to_owned(), item["id"].as_str().unwrap().to_owned());
        assert_eq!(truth.get(&key), Some(&item["document"]), "a bad answer was stored for {key:?}");
    }
}

/// `Retry-After` is obeyed: no further call of that rule was made, and the shop can still be removed.
async fn waits_obeyed(world: &mut World, serving: &Serving) {
    let calls = world.market.sandbox.calls();
    for client in world.clients[SHOPS..].iter().cloned() {
        let of_it: Vec<_> = calls.iter().filter(|call| call.client_id == client && call.id.is_some()).collect();
        let throttled = of_it.iter().find(|call| call.status == 429).expect("it was asked to wait");
        // Calls already in flight do not count.
        let after = of_it.iter().filter(|call| call.at_us > throttled.at_us + 1_000_000).count();
        assert_eq!(after, 0, "{client} called on although it was asked to wait");
        let path = format!("/api/v1/shops/{}?purge=true", world.shops[&client]);
        let (status, answer) = world.insist(serving, Method::DELETE, &path, None).await;
        assert_eq!(status, 204, "{answer}");
        world.shops.remove(&client);
    }
}

/// Requeues parked work until none is left.
async fn heal(world: &World, serving: &Serving) {
    serving.idle(Duration::from_secs(60)).await;
    let parked = serving.all("/api/v1/parked").await;
    world.run.note(format!("{} parked", parked.len()));
    assert!(parked.iter().all(|one| one["reason"].as_str().is_some_and(|reason| !reason.is_empty())), "{parked:?}");
    world.retry_parked(serving).await;
}

/// A host that nothing should ever connect to.
struct Trap {
    address: String,
    visitors: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Trap {
    async fn set() -> Trap {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let visitors = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&visitors);
        let accepting = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Trap { address, visitors, accepting }
    }

    fn visitors(&self) -> usize {
        self.visitors.load(Ordering::SeqCst)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
