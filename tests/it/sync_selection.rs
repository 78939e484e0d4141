//! `sync` makes one pass: no schedule runs meanwhile, and with `--shop` or `--resource` only those streams are worked on.

use std::collections::BTreeSet;
use std::time::Duration;

use sandbox::{Options, ShopOptions};
use serde_json::Value;

use crate::support::no_limits;
use crate::support::program::{Ended, Folder, Market};

/// Resources with details and without.
const RESOURCES: &str = "resources = [\"shipments\", \"returns\"]\n";

async fn market() -> Market {
    let shop =
        |id: &str| ShopOptions { client_id: id.into(), client_secret: format!("secret-of-{id}"), fbr: 40, fbb: 10 };
    let latency = Duration::from_millis(20);
    Market::open(Options {
        shops: vec![shop("north"), shop("west")],
        limits: no_limits(),
        latency,
        ..Options::default()
    })
    .await
}

/// A folder whose schedule would start a walk of everything each second, and the ids of both shops.
fn registered(market: &Market) -> (Folder, [String; 2]) {
    let mut folder = Folder::at(&market.base, "");
    let lifted: Vec<String> = no_limits().keys().map(|rule| format!("\"{rule}\" = \"none\"")).collect();
    folder.write(
        "waybill.toml",
        &format!(
            "{RESOURCES}[source]\nbase_url = \"{base}\"\ntoken_url = \"{base}/token\"\n[source.limits]\n{}\n[schedule]\n\
             sync = \"* * * * * *\"\nreconcile = \"* * * * * *\"\n",
            lifted.join("\n"),
            base = market.base
        ),
    );
    folder.set("WAYBILL_LOG_LEVEL", "warn");
    let ids = ["north", "west"].map(|client| {
        let add = ["shops", "add", "--name", "One name", "--client-id", client];
        folder.feed(&add, &format!("secret-of-{client}")).expect(0).out.trim().to_owned()
    });
    (folder, ids)
}

/// Shop and resource of each run of a `sync --json`.
fn runs(ended: &Ended) -> Vec<(String, String)> {
    let said: Value = serde_json::from_str(&ended.out).unwrap();
    let text = |run: &Value, name: &str| run[name].as_str().unwrap().to_owned();
    said["items"].as_array().unwrap().iter().map(|run| (text(run, "shop_id"), text(run, "resource"))).collect()
}

/// The clients and resources that calls were made for since the last look.
fn called(market: &Market) -> BTreeSet<(String, String)> {
    let calls = market.sandbox.calls();
    market.sandbox.reset_audit();
    let resource = |path: &str| path.trim_start_matches("/retailer/").split(['/', '?']).next().unwrap().to_owned();
    let data = calls.into_iter().filter(|call| call.path.starts_with("/retailer/"));
    data.map(|call| (call.client_id, resource(&call.path))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    expected.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_over_one_shop_or_one_resource_leaves_everything_else_alone() {
    let market = market().await;
    let (folder, [north, west]) = registered(&market);
    let ended = folder.run(&["sync", "--shop", &north, "--resource", "returns", "--json"]).expect(0);
    assert_eq!(called(&market), pairs(&[("north", "returns")]));
    assert_eq!(runs(&ended).into_iter().collect::<BTreeSet<_>>(), pairs(&[(&north, "returns")]), "{}", ended.out);

    let ended = folder.run(&["sync", "--resource", "shipments", "--json"]).expect(0);
    assert_eq!(called(&market), pairs(&[("north", "shipments"), ("west", "shipments")]));
    assert_eq!(runs(&ended).len(), 4, "two streams of each shop, each once: {}", ended.out);

    let ended = folder.run(&["sync", "--shop", &west, "--json"]).expect(0);
    assert_eq!(called(&market), pairs(&[("west", "shipments"), ("west", "returns")]));
    assert!(runs(&ended).iter().all(|(shop, _)| *shop == west), "{}", ended.out);

    // Without a choice everything, and still once only, though the schedule is due each second.
    let ended = folder.run(&["sync", "--json"]).expect(0);
    let ids: Vec<(String, String)> = runs(&ended);
    let distinct: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(distinct.len(), 4);
    let shipments = ids.iter().filter(|(_, resource)| resource == "shipments").count();
    assert_eq!(shipments, 4, "two streams of each shop, each once: {}", ended.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_walks_of_others_are_left_for_the_next_pass() {
    let market = market().await;
    let (folder, [north, west]) = registered(&market);
    market.sandbox.set_latency(Duration::from_millis(300));
    folder.run(&["sync", "--at-most", "1s", "--quiet"]).expect(1);
    market.sandbox.set_latency(Duration::ZERO);
    market.sandbox.reset_audit();
    let ended = folder.run(&["sync", "--shop", &north]).expect(0);
    assert!(called(&market).iter().all(|(client, _)| client == "north"));
    assert!(!ended.out.contains(&west), "{}", ended.out);
    folder.run(&["sync"]).expect(0);
    assert!(called(&market).iter().any(|(client, _)| client == "west"));
    folder.run(&["verify"]).expect(0);
    // The ids distinguish shops of one name.
    for command in [&["plan"][..], &["state"], &["check"]] {
        let said = folder.run(command).expect(0).out;
        assert!(said.contains(&north) && said.contains(&west), "{said}");
    }
}
