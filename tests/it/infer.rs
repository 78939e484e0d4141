//! `waybill schema infer`: what it prints is a definition that works as it is.

use std::fs;

use sandbox::{MEDIA_TYPE, Options, ShopOptions};

use crate::support::program::{Folder, Market, says};

const ORDERS: [&str; 9] = [
    "schema",
    "infer",
    "purchases",
    "--path",
    "/retailer/orders",
    "--detail",
    "/retailer/orders/{id}",
    "--media-type",
    MEDIA_TYPE,
];
const RULES: [&str; 4] =
    ["GET /retailer/orders", "GET /retailer/orders/*", "GET /retailer/shipments", "GET /retailer/shipments/*"];
const LIFTED: &str = "[source.limits]\n\"GET /retailer/orders\" = \"none\"\n\"GET /retailer/orders/*\" = \"none\"\n\
    \"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";

async fn market() -> Market {
    let shop = ShopOptions { client_id: "first".into(), client_secret: "secret".into(), fbr: 40, fbb: 10 };
    Market::open(Options {
        shops: vec![shop],
        limits: RULES.iter().map(|rule| ((*rule).to_owned(), "none".to_owned())).collect(),
        ..Options::default()
    })
    .await
}

fn registered(market: &Market, more: &str) -> (Folder, String) {
    let folder = Folder::at(&market.base, more);
    let added = folder.feed(&["shops", "add", "--name", "First", "--client-id", "first"], "secret").expect(0);
    (folder, added.out.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_inferred_is_pasted_checked_and_synced() {
    let market = market().await;
    let (folder, _) = registered(&market, LIFTED);
    let more = ["--parameter", "status=ALL", "--parameter", "fulfilment-method=ALL", "--rows", "5"];
    let arguments: Vec<&str> = ORDERS.iter().chain(&more).copied().collect();
    market.sandbox.reset_audit();
    let inferred = folder.run(&arguments).expect(0);
    let audit = market.sandbox.audit();
    assert_eq!((audit.list_pages, audit.details_read, audit.calls), (1, 5, 6));
    says(&inferred.err, &["6 calls"]);
    says(
        &inferred.out,
        &[
            "[resource.purchases.list]",
            "items = \"/orders\"",
            "id         = \"/orderId\"",
            "id      = \"order_id\"",
            "style = \"number\"",
            "status = [\"ALL\"]",
            "[resource.purchases.table.children.purchase_order_items]",
            "unit_price",
            "type = \"decimal(14,4)\"",
            "type = \"datetime\"",
            "# GET /retailer/orders has the rate rule",
        ],
    );
    // Nothing of a customer.
    let email = inferred.out.contains('@');
    assert!(!email, "{}", inferred.out);

    let file = fs::read_to_string(folder.path("waybill.toml")).unwrap();
    folder.write("waybill.toml", &format!("resources = [\"purchases\", \"shipments\"]\n{file}\n{}", inferred.out));
    says(
        &folder.run(&["check"]).expect(0).out,
        &["resources: purchases, shipments", "rows on the first page of purchases"],
    );
    folder.run(&["sync", "--quiet"]).expect(0);
    let serving = folder.serve();
    let all = serving.all("/api/v1/purchases").await;
    assert!(all.len() > 5, "{}", all.len());
    for purchase in &all {
        assert_eq!(purchase["id"], purchase["document"]["orderId"], "{purchase:#}");
    }
    assert!(all.iter().any(|purchase| purchase["order_placed_date_time"].is_string()), "{:#}", all[0]);
    // A name in use is refused from now on.
    assert_eq!(serving.terminate().0, Some(0));
    let again = folder.run(&ORDERS).expect(2);
    says(&again.err, &["`purchases` already has a definition"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_read_within_the_budget_and_nothing_else_is_kept() {
    let market = market().await;
    let limits = [("GET /retailer/orders".to_owned(), "3/3s".to_owned())].into();
    market.sandbox.set_limits(&limits).unwrap();
    let (folder, shop) = registered(&market, LIFTED);
    // A path that no rule is for.
    let path = ["--path", "/other/retailer/orders", "--limit", "3/3s", "--media-type", MEDIA_TYPE, "--shop", &shop];
    let arguments: Vec<&str> = ORDERS[..3].iter().chain(&path).copied().collect();
    market.sandbox.reset_audit();
    for _ in 0..4 {
        let inferred = folder.run(&arguments).expect(0);
        says(&inferred.out, &["[resource.purchases.table.children.purchase_order_items]"]);
        says(&inferred.out, &["# To go under [source.limits]: \"GET /other/retailer/orders\" = \"3/3s\""]);
        assert!(!inferred.out.contains("detail"), "the rows are the documents");
    }
    let audit = market.sandbox.audit();
    assert_eq!((audit.calls, audit.refused_429, audit.breaches()), (4, 0, vec![]));
    // The walks that a new shop begins with wait in the store; nothing else is there.
    let state = folder.run(&["state"]).expect(0).out;
    assert!(!state.contains("purchases"), "{state}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_shop_has_to_take_the_resource_yet_and_a_parameter_may_have_many_values() {
    let market = market().await;
    let folder = Folder::at(&market.base, LIFTED);
    let add = ["shops", "add", "--name", "First", "--client-id", "first", "--resource", "shipments"];
    folder.feed(&add, "secret").expect(0);
    let more = ["--parameter", "fulfilment-method=FBB", "--parameter", "status=ALL"];
    let again = ["--parameter", "fulfilment-method=FBR", "--parameter", "fulfilment-method=FBB"];
    let arguments: Vec<&str> = ORDERS.iter().take(5).chain(&ORDERS[7..]).chain(&more).chain(&again).copied().collect();
    market.sandbox.reset_audit();
    let inferred = folder.run(&arguments).expect(0);
    says(&inferred.out, &[r#"parameters = { fulfilment-method = ["FBB", "FBR"], status = ["ALL"] }"#]);
    let calls: Vec<_> = market.sandbox.calls().into_iter().filter(|call| !call.token).collect();
    assert_eq!(calls.len(), 1);
    says(&calls[0].path, &["fulfilment-method=FBB"]);
    assert!(!calls[0].path.contains("FBR"), "{}", calls[0].path);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_inferred_is_asked_for() {
    let market = market().await;
    let (folder, _) = registered(&market, LIFTED);
    let refused = |arguments: &[&str], code: i32, parts: &[&str]| {
        let all: Vec<&str> = ["schema", "infer"].iter().chain(arguments).copied().collect();
        let ended = folder.run(&all).expect(code);
        assert_eq!(ended.out, "");
        says(&ended.err, parts);
    };
    let orders = ["--path", "/retailer/orders", "--media-type", MEDIA_TYPE];
    let with = |name: &'static str, more: &[&'static str]| [&[name], &orders[..], more].concat();
    refused(&with("shipments", &[]), 2, &["already has a definition", "waybill preview shipments"]);
    refused(&with("orders", &[]), 2, &["is in the catalog"]);
    refused(&with("Purchases", &[]), 2, &["is not a name"]);
    refused(&with("purchases", &["--detail", "/retailer/orders"]), 2, &["{id}"]);
    refused(&with("purchases", &["--limit", "often"]), 2, &["25/min"]);
    refused(&with("purchases", &["--parameter", "status"]), 2, &["status=OPEN"]);
    refused(&with("purchases", &["--shop", "unknown"]), 2, &["there is no such shop"]);
    refused(&with("purchases", &["--items", "/rows"]), 1, &["--items /rows", "no array"]);
    refused(&with("purchases", &["--id", "/orderItems"]), 1, &["--id /orderItems"]);
    refused(&["things", "--path", "/retailer/things"], 2, &["no rate rule for GET /retailer/things", "--limit 20/min"]);
    let unknown = ["things", "--path", "/retailer/things", "--limit", "20/min", "--media-type", MEDIA_TYPE];
    refused(&unknown, 1, &["GET /retailer/things", "404"]);
    let serving = folder.serve();
    refused(&with("purchases", &[]), 1, &["is already in use"]);
    assert_eq!(serving.terminate().0, Some(0));
}
