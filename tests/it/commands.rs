//! `preview`, `plan`, `state` and `schema infer` with the real binary: what they say, which calls they make, and that
//! they write nothing.

use std::collections::BTreeMap;

use sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::Value;

use crate::support::program::{Folder, Market, says};

const RESOURCES: &str = "resources = [\"shipments\", \"orders\", \"promotions\", \"promotion_products\"]\n";

const RULES: [&str; 6] = ["shipments", "shipments/*", "orders", "orders/*", "promotions", "promotions/*/products"];

async fn market() -> Market {
    let limits: BTreeMap<String, String> =
        RULES.iter().map(|rule| (format!("GET /retailer/{rule}"), "600/min".to_owned())).collect();
    let shop = ShopOptions { client_id: "first".into(), client_secret: "secret-of-first".into(), fbr: 70, fbb: 30 };
    Market::open(Options { shops: vec![shop], limits, ..Options::default() }).await
}

/// A folder with a registered shop; nothing was called for it but its token.
fn registered(market: &Market) -> Folder {
    let mut folder = Folder::bare();
    let limits = RULES.map(|rule| format!("\"GET /retailer/{rule}\" = \"600/min\""));
    folder.write(
        "waybill.toml",
        &format!(
            "{RESOURCES}[source]\nbase_url = \"{base}\"\ntoken_url = \"{base}/token\"\n[source.limits]\n{}\n",
            limits.join("\n"),
            base = market.base
        ),
    );
    folder.set("WAYBILL_LOG_LEVEL", "warn");
    folder.feed(&["shops", "add", "--name", "First shop", "--client-id", "first"], "secret-of-first").expect(0);
    folder
}

#[test]
fn the_views_of_what_is_configured_are_printed_as_they_stand() {
    let folder = Folder::bare();
    let file = |name: &str| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/views/");
        std::fs::read_to_string(format!("{path}{name}.sql")).unwrap()
    };
    folder.write("waybill.toml", "resources = [\"orders\", \"returns\"]\n");
    let printed = folder.run(&["schema", "print", "--views"]).expect(0).out;
    assert_eq!(printed, format!("{}\n{}\n", file("v_open_orders"), file("v_returns_by_reason")));
    folder.write("waybill.toml", "resources = [\"orders\"]\n[resource.orders.table]\nname = \"sales\"\n");
    assert_eq!(folder.run(&["schema", "print", "--views"]).expect(0).out, "", "it has another table");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_shows_rows_and_what_each_column_got() {
    let market = market().await;
    let folder = registered(&market);
    let shown = folder.run(&["preview", "orders", "--rows", "1"]).expect(0).out;
    says(
        &shown,
        &[
            "orders of First shop: 1 document",
            "order_id",
            "order_placed_date_time",
            "/orderPlacedDateTime",
            "order_items: ",
        ],
    );
    let audit = market.sandbox.audit();
    // Orders are listed day by day: it looks back until a day has some.
    assert!((1..=10).contains(&audit.list_pages) && audit.details_read == 1, "{audit:?}");
    let shown = folder.run(&["preview", "promotion_products"]).expect(0).out;
    says(
        &shown,
        &[
            "promotion_products of First shop: 5 documents",
            "the parent's id",
            "promotion_product_relevance_scores: 1 row",
        ],
    );
    let nothing = folder.run(&["preview", "order"]).expect(2).err;
    says(&nothing, &["`order` is not configured; did you mean `orders`?"]);
    for command in [&["preview", "orders"][..], &["plan"], &["state"]] {
        let unknown = folder.run(&[command, &["--shop", "unknown"]].concat()).expect(2).err;
        says(&unknown, &["--shop unknown: there is no such shop", "waybill shops list"]);
    }
    // Nothing was kept but the use of the budget: each rule's slots are those of the calls.
    let state: Value = serde_json::from_str(&folder.run(&["state", "--json"]).expect(0).out).unwrap();
    let budgets = state["shops"][0]["budgets"].as_array().unwrap();
    let orders = budgets.iter().find(|budget| budget["rule"] == "GET /retailer/orders/*").unwrap();
    assert_eq!(orders["occupied"], 1, "{state:#}");
    let runs = folder.run(&["sync", "--quiet", "--resource", "promotions"]).expect(0);
    assert!(!runs.out.contains("failed"), "{}", runs.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_makes_no_call_and_knows_what_the_last_walk_took() {
    let market = market().await;
    let folder = registered(&market);
    let first = folder.run(&["plan"]).expect(0).out;
    says(&first, &["never walked; give --rows", "?", "plus what is not known yet"]);
    let given = folder.run(&["plan", "--resource", "shipments", "--rows", "5000"]).expect(0).out;
    // 5,000 rows in each of two streams: 101 pages, passed twice, and 10,000 details at 600 a minute.
    says(&given, &["202", "5000", "the given rows", "10000", "16 min"]);
    assert_eq!(market.sandbox.audit().calls, 0);
    folder.run(&["sync", "--quiet", "--resource", "shipments", "--full"]).expect(0);
    let calls = market.sandbox.audit().calls;
    let next = folder.run(&["plan", "--resource", "shipments", "--full"]).expect(0).out;
    says(&next, &["the pages of the last walk", "GET /retailer/shipments/*"]);
    assert_eq!(market.sandbox.audit().calls, calls);
    let news = folder.run(&["plan", "--resource", "shipments"]).expect(0).out;
    says(&news, &["the rows within the overlap"]);
    says(&folder.run(&["plan", "--rows", "many"]).expect(2).err, &["--rows many: write it like 10000"]);
    says(&folder.run(&["plan", "--resource", "shipment"]).expect(2).err, &["did you mean `shipments`?"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_shows_what_is_there_and_no_secret() {
    let market = market().await;
    let folder = registered(&market);
    folder.run(&["sync", "--quiet", "--resource", "shipments"]).expect(0);
    let text = folder.run(&["state"]).expect(0).out;
    says(&text, &["First shop", "shipments fulfilment-method=FBR", "outbox: 0 entries", "GET /retailer/shipments"]);
    let json = folder.run(&["state", "--json"]).expect(0).out;
    let state: Value = serde_json::from_str(&json).unwrap();
    let walked = state["shops"][0]["streams"].as_array().unwrap();
    assert!(
        walked.iter().any(|stream| stream["resource"] == "shipments" && stream["full_walk_at"].is_string()),
        "{state:#}"
    );
    assert!(!json.contains("secret-of-first"));
    let serving = folder.serve();
    let refused = folder.run(&["state"]).expect(1);
    says(&refused.err, &["/api/v1/status"]);
    drop(serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_inferred_is_a_definition_that_works() {
    let market = market().await;
    let folder = registered(&market);
    let media = "application/vnd.retailer.v10+json";
    let infer = [
        "schema",
        "infer",
        "sales",
        "--path",
        "/retailer/orders",
        "--detail",
        "/retailer/orders/{id}",
        "--media-type",
        media,
        "--parameter",
        "status=ALL",
        "--parameter",
        "fulfilment-method=ALL",
        "--rows",
        "5",
    ];
    let text = folder.run(&infer).expect(0).out;
    says(
        &text,
        &["[resource.sales]", "id         = \"/orderId\"", "# A guess", "sale_order_items", "type = \"decimal(14,4)\""],
    );
    let before = std::fs::read_to_string(folder.path("waybill.toml")).unwrap();
    let with = before.replace(RESOURCES, "resources = [\"sales\"]\n");
    folder.write("waybill.toml", &format!("{with}\n{text}"));
    folder.run(&["check", "--offline"]).expect(0);
    let synced = folder.run(&["sync"]).expect(0).out;
    says(&synced, &["sales", "done"]);
    let shown = folder.run(&["preview", "sales", "--rows", "2"]).expect(0).out;
    says(&shown, &["sales of First shop: 2 documents", "sale_order_items: "]);
    let known = folder.run(&infer).expect(2).err;
    says(&known, &["`sales` already has a definition", "waybill preview sales"]);
    let unruled = folder.run(&["schema", "infer", "x", "--path", "/other/x"]).expect(2).err;
    says(&unruled, &["no rate rule for GET /other/x; give --limit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_that_a_command_receives_is_obeyed_by_the_next_process() {
    let market = market().await;
    let folder = registered(&market);
    let status = |code: u16, wait: u32| {
        let headers = BTreeMap::from([("retry-after".to_owned(), wait.to_string())]);
        FaultKind::Status { code, body: FaultBody::Json, headers }
    };
    market.sandbox.set_faults(vec![
        Fault::times("/retailer/orders/", status(429, 1_500), 1),
        Fault::times("/retailer/shipments?", status(503, 2_000), 1),
        Fault::times("/retailer/promotions?", status(429, 2_500), 1),
    ]);
    says(&folder.run(&["preview", "orders"]).expect(1).err, &["too many calls"]);
    let infer =
        ["schema", "infer", "deals", "--path", "/retailer/promotions", "--parameter", "promotion-type=AANBIEDING"];
    says(&folder.run(&infer).expect(1).err, &["too many calls"]);
    folder.run(&["check"]).expect(1);
    let state: Value = serde_json::from_str(&folder.run(&["state", "--json"]).expect(0).out).unwrap();
    let left = |rule: &str| {
        let budgets = state["shops"][0]["budgets"].as_array().unwrap();
        budgets.iter().find(|budget| budget["rule"] == rule).unwrap()["pause_s"].as_u64().unwrap()
    };
    for (rule, wait) in
        [("GET /retailer/orders/*", 1_500), ("GET /retailer/shipments", 2_000), ("GET /retailer/promotions", 2_500)]
    {
        // With the margin for a clock that runs fast.
        assert!((wait - 300..=wait + wait / 1_000 + 1).contains(&left(rule)), "{rule}: {state:#}");
    }
    assert_eq!(left("GET /retailer/orders"), 0, "its list may be read");
}
