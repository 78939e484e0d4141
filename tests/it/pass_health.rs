//! What `sync` says at its end, and its exit code, follow from the health of what it was asked for: a problem that an
//! earlier pass left is a problem of each later one. Cron mails nothing else.

use sandbox::{Fault, FaultBody, FaultKind, Method, Options, ShopOptions};

use crate::support::app::eventually;
use crate::support::no_limits;
use crate::support::program::{Ended, Folder, Market};

const LIFTED: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
const QUIET: [&str; 2] = ["sync", "--quiet"];

async fn market(shops: &[&str]) -> Market {
    let shop = |id: &&str| ShopOptions { client_id: (*id).into(), client_secret: secret(id), fbr: 12, fbb: 0 };
    Market::open(Options { shops: shops.iter().map(shop).collect(), limits: no_limits(), ..Options::default() }).await
}

fn secret(client: &str) -> String {
    format!("secret-of-{client}")
}

fn add(folder: &Folder, client: &str) -> String {
    let arguments = ["shops", "add", "--name", client, "--client-id", client];
    folder.feed(&arguments, &secret(client)).expect(0).out.trim().to_owned()
}

/// Fails with one line for each of these shops, which has all these parts.
#[track_caller]
fn fails(ended: Ended, shop: &str, parts: &[&str]) {
    let ended = ended.expect(1);
    assert_eq!(ended.out, "");
    let lines: Vec<&str> = ended.err.lines().filter(|line| line.contains(shop)).collect();
    let [line] = lines[..] else { panic!("not one line about {shop}:\n{}", ended.err) };
    for part in parts {
        assert!(line.contains(part), "`{part}` is not in:\n{line}");
    }
}

#[track_caller]
fn silent(ended: Ended) {
    let ended = ended.expect(0);
    assert_eq!((ended.out, ended.err), (String::new(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pass_that_leaves_out_a_refused_shop_says_so_and_fails() {
    let market = market(&["north", "west"]).await;
    let folder = Folder::at(&market.base, LIFTED);
    let [north, west] = ["north", "west"].map(|client| add(&folder, client));
    silent(folder.run(&QUIET));
    market.sandbox.set_active("west", false).unwrap();
    market.sandbox.kill_tokens();
    for _ in 0..3 {
        let ended = folder.run(&QUIET);
        assert!(!ended.err.contains(&north), "{}", ended.err);
        fails(ended, &format!("west ({west}), shipments: "), &["Remedy: ", &format!("`waybill shops rotate {west}`")]);
    }
    let by_name = |shop| folder.run(&["sync", "--quiet", "--shop", shop]);
    fails(by_name(&west), &west, &["Remedy: "]);
    // A pass answers for what it was asked for.
    silent(by_name(&north));
    // A table does not hide it.
    let shown = folder.run(&["sync"]).expect(1);
    assert!(shown.out.contains("done") && shown.err.contains(&format!("waybill shops rotate {west}")), "{}", shown.err);

    // An operator knows of a shop that he paused himself, unless he asks for it.
    market.sandbox.set_active("west", true).unwrap();
    folder.feed(&["shops", "rotate", &west], &secret("west")).expect(0);
    folder.run(&["shops", "pause", &west]).expect(0);
    silent(folder.run(&QUIET));
    let named = by_name(&west).expect(1).err;
    assert!(named.contains("is paused") && named.contains(&format!("waybill shops resume {west}")), "{named}");
    folder.run(&["shops", "resume", &west]).expect(0);
    silent(folder.run(&QUIET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pass_that_leaves_out_a_shop_which_waybill_paused_says_so_and_fails() {
    let market = market(&["north", "west"]).await;
    let mut folder = Folder::at(&market.base, LIFTED);
    let [north, west] = ["north", "west"].map(|client| add(&folder, client));
    silent(folder.run(&QUIET));
    let new = market.sandbox.add_shipments("west", Method::Fbr, 2).unwrap();
    let broken = |id: &String| {
        let kind = FaultKind::Status { code: 500, body: FaultBody::Html, headers: Default::default() };
        Fault::always(&format!("/retailer/shipments/{id}"), kind)
    };
    market.sandbox.set_faults(new.iter().map(broken).collect());
    folder.set("WAYBILL_LIMITS_ATTEMPTS_MAX", "1");
    folder.set("WAYBILL_LIMITS_PARKED_MAX", "2");
    for _ in 0..3 {
        let ended = folder.run(&QUIET).expect(1);
        assert!(!ended.err.contains(&north), "{}", ended.err);
        let says = |what: &str| ended.err.lines().any(|line| line.contains(&west) && line.contains(what));
        assert!(says("limits.parked_max allows 2") && says("2 pages or documents"), "{}", ended.err);
    }
    let named = folder.run(&["sync", "--quiet", "--shop", &west]).expect(1).err;
    assert!(named.contains("limits.parked_max allows 2"), "{named}");
    silent(folder.run(&["sync", "--quiet", "--shop", &north]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_that_is_stopped_says_what_it_waited_for() {
    let market = market(&["north"]).await;
    let folder = Folder::at(&market.base, LIFTED);
    let north = add(&folder, "north");
    let away = FaultKind::Status { code: 503, body: FaultBody::Html, headers: Default::default() };
    market.sandbox.set_faults(vec![Fault::always("/retailer/shipments?", away)]);
    let syncing = folder.spawn(&QUIET);
    // Each of two streams has been answered, and one of them was asked again.
    eventually("failed calls", async || (market.sandbox.audit().calls >= 3).then_some(())).await;
    let (code, _) = syncing.terminate();
    let said = folder.said();
    assert_eq!(code, Some(1), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("waybill: ")).collect();
    let [line] = lines[..] else { panic!("not one line:\n{said}") };
    for part in ["stopped, with 2 open runs", &format!("Last error of north ({north}), shipments"), "503", "Remedy: "] {
        assert!(line.contains(part), "`{part}` is not in:\n{line}");
    }
}
