//! `waybill check` names the columns that no document fills, and says nothing of those that an API may leave out.

use std::sync::Arc;

use sandbox::{Options, ShopOptions};

use super::fake::{Answer, DETAIL, Fake, Things, fake};
use crate::support::mariadb::Database;
use crate::support::no_limits;
use crate::support::program::{Ended, Folder, Market};

/// A folder with a shop of the API at this address.
fn folder(address: &str, things: &Things<'_>, mysql: Option<&Database>) -> Folder {
    let mut folder = Folder::at(address, &things.toml());
    folder.set("WAYBILL_SOURCE_AUTH", "api-key");
    folder.set("WAYBILL_SOURCE_API_KEY_HEADER", "X-Key");
    folder.set("WAYBILL_RESOURCES", "things");
    if let Some(database) = mysql {
        folder.set("WAYBILL_MYSQL_URL", &database.url());
    }
    folder.feed(&["shops", "add", "--name", "Shop", "--client-id", "shop"], "secret").expect(0);
    folder
}

/// The lines about columns, each in one.
fn lines(ended: &Ended) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in ended.out.lines() {
        match lines.last_mut().filter(|_| line.starts_with("      ")) {
            Some(last) => *last = format!("{last} {}", line.trim()),
            None => lines.push(line.to_owned()),
        }
    }
    lines.retain(|line| line.contains("resource things: ") || line.contains("resource shipments: "));
    lines
}

/// The line of the file with this text.
fn place(folder: &Folder, text: &str) -> String {
    let file = std::fs::read_to_string(folder.path("waybill.toml")).unwrap();
    let line = file.lines().position(|line| line.contains(text)).unwrap();
    format!("waybill.toml:{}", line + 1)
}

fn has(lines: &[String], level: &str, subject: &str, parts: &[&str]) {
    let begin = format!("{level:4}  resource things: {subject}: ");
    let line = lines.iter().find(|line| line.starts_with(&begin)).unwrap_or_else(|| panic!("{begin}: {lines:#?}"));
    for part in parts {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// Rows of an order with its lines, which are documents.
fn rows(api: &Arc<Fake>, count: usize) {
    let row = |n: usize| {
        format!(
            r#"{{"id":"{n}","orderItemId":"A-{n}","unitPrice":1.5,"note":null,"lines":[{{"sku":"x","orderedQuantity":{n}}}]}}"#
        )
    };
    let rows: Vec<String> = (0..count).map(row).collect();
    api.set_rows(rows.iter().map(String::as_str));
}

const COLUMNS: &str = "item = { from = \"/orderItemID\", type = \"text\" }\nprice = { from = \"/unitPrice\", type = \"integer\" }\n\
    note = { from = \"/note\", type = \"text\" }\ncoupon = { from = \"/coupon\", type = \"text\" }\n\
    [resource.things.table.children.parts]\nfrom = \"/lines\"\n\
    columns = { sku = { from = \"/sku\", type = \"text\" }, count = { from = \"/orderdQuantity\", type = \"integer\" } }\n\
    [resource.things.table.children.extras]\nfrom = \"/lines/*/extra\"\ncolumns = { a = { from = \"/a\", type = \"text\" } }\n";

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_column_that_no_document_fills_and_what_was_meant() {
    let (api, address) = fake().await;
    rows(&api, 3);
    let folder = folder(&address, &Things { columns: COLUMNS, ..Things::default() }, None);
    let found = lines(&folder.run(&["check"]).expect(1));
    let line = place(&folder, "item = ");
    let parts = ["is always NULL: none of 3 documents has /orderItemID", &line, "did you mean `/orderItemId`?"];
    has(&found, "WARN", "column things.item", &parts);
    has(&found, "WARN", "column parts.count", &["none of 3 documents has /orderdQuantity", "`/orderedQuantity`?"]);
    let line = place(&folder, "price = ");
    let parts = ["3 documents have a value at /unitPrice, and none fits integer; their type is number", &line];
    has(&found, "FAIL", "column things.price", &parts);
    has(&found, "FAIL", "column things.price", &["use type = \"decimal(14,4)\""]);
    let few = ["1 of 6 had a value in 3 documents", "things.coupon (/coupon), extras (/lines/*/extra)", "too few"];
    has(&found, "ok", "columns", &few);
    assert_eq!(found.len(), 4, "a null is no fault: {found:#?}");

    rows(&api, 20);
    let found = lines(&folder.run(&["check"]).expect(1));
    let parts = [
        "none of 20 documents has /coupon",
        "or leave it if the API may omit the field; keys there without a column: orderItemId",
    ];
    has(&found, "WARN", "column things.coupon", &parts);
    has(&found, "WARN", "child table extras", &["is always empty: none of 20 documents has /lines/*/extra"]);
    has(&found, "ok", "columns", &["1 of 6 had a value in 20 documents"]);
    assert_eq!(found.len(), 6, "{found:#?}");

    let right = COLUMNS.replace("orderItemID", "orderItemId").replace("orderd", "ordered").replace("integer", "text");
    folder.write("right.toml", &std::fs::read_to_string(folder.path("waybill.toml")).unwrap().replace(COLUMNS, &right));
    let found = lines(&folder.run(&["--config", "right.toml", "check"]).expect(0));
    assert!(found.iter().all(|line| !line.starts_with("FAIL")), "{found:#?}");
    has(&found, "ok", "columns", &["4 of 6 had a value"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reads_up_to_three_details_for_the_columns_and_none_that_would_have_to_wait() {
    let (api, address) = fake().await;
    api.set_rows([r#"{"id":"gone"}"#, r#"{"id":"a"}"#, r#"{"id":"b"}"#, r#"{"id":"c"}"#]);
    for id in ["a", "b", "c"] {
        let body = format!(r#"{{"id":"{id}","madeAt":"2026-11-30T10:00:00","size":"{}"}}"#, "long".repeat(4));
        api.set(&format!("/things/{id}"), [Answer::ok(body)]);
    }
    let columns = "made = { from = \"/madeAt\", type = \"datetime\" }\nsize = { from = \"/size\", type = \"text(8)\" }";
    let things = Things { own: DETAIL, columns, ..Things::default() };
    let folder = folder(&address, &things, None);
    let found = lines(&folder.run(&["check"]).expect(1));
    has(&found, "FAIL", "column things.made", &["would be NULL: its times have no offset", "zone = \"UTC\""]);
    has(&found, "FAIL", "column things.size", &["2 documents have a value at /size, and none fits text(8)"]);
    has(&found, "ok", "columns", &["0 of 2 had a value in 2 documents"]);
    assert_eq!(["gone", "a", "b", "c"].map(|id| api.calls(&format!("/things/{id}"))), [1, 1, 1, 0]);

    let config = std::fs::read_to_string(folder.path("waybill.toml")).unwrap();
    let slow = config.replace("\"GET /things/*\" = \"none\"", "\"GET /things/*\" = \"2/h\"");
    assert_ne!(slow, config);
    folder.write("waybill.toml", &slow);
    api.set_rows([r#"{"id":"a"}"#, r#"{"id":"b"}"#]);
    let found = lines(&folder.run(&["check"]).expect(1));
    has(&found, "ok", "columns", &["in 1 document"]);
    assert_eq!(["a", "b"].map(|id| api.calls(&format!("/things/{id}"))), [2, 1], "the next would have to wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_looks_at_stored_documents_in_both_sinks() {
    let database = Database::fresh().await;
    for mysql in [None, Some(&database)] {
        let (api, address) = fake().await;
        rows(&api, 30);
        let columns =
            "coupon = { from = \"/coupon\", type = \"text\" }\nitem = { from = \"/orderItemId\", type = \"boolean\" }";
        let folder = folder(&address, &Things { columns, ..Things::default() }, mysql);
        folder.run(&["sync"]).expect(0);
        rows(&api, 2);
        let found = lines(&folder.run(&["check"]).expect(1));
        has(&found, "WARN", "column things.coupon", &["none of 30 documents has /coupon"]);
        has(
            &found,
            "FAIL",
            "column things.item",
            &["30 documents have a value at /orderItemId, and none fits boolean"],
        );
        has(&found, "ok", "columns", &["0 of 2 had a value in 30 documents"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_catalog_has_and_the_api_may_leave_out_is_no_finding() {
    let shop = ShopOptions { client_id: "a".into(), client_secret: "secret-of-a".into(), fbr: 60, fbb: 30 };
    let market = Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await;
    let resources = "shipments,orders,returns,replenishments,inventory,invoices,invoice_requests,promotions,\
                     promotion_products,offers";
    let limits: String = no_limits().into_iter().map(|(rule, limit)| format!("\"{rule}\" = \"{limit}\"\n")).collect();
    let toml = format!("[source.limits]\n{limits}");
    let mut folder = Folder::at(&market.base, &toml);
    folder.set("WAYBILL_RESOURCES", resources);
    folder.feed(&["shops", "add", "--name", "Shop", "--client-id", "a"], "secret-of-a").expect(0);
    folder.run(&["sync"]).expect(0);
    let ended = folder.run(&["check"]).expect(0);
    assert!(!ended.out.lines().any(|line| line.starts_with("WARN")), "{}", ended.out);
    for resource in resources.split(',') {
        assert!(ended.out.contains(&format!("ok    resource {resource}: columns: ")), "{resource}: {}", ended.out);
    }
    let config = std::fs::read_to_string(folder.path("waybill.toml")).unwrap();
    let own = "[resource.shipments.table.columns]\nmine = { from = \"/shipmentRefrence\", type = \"text\" }\n";
    folder.write("waybill.toml", &format!("{config}{own}"));
    let ended = folder.run(&["check"]).expect(0);
    let warned: Vec<String> = lines(&ended).into_iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(warned.len(), 1, "{}", ended.out);
    assert!(warned[0].contains("resource shipments: column shipments.mine: "), "{warned:?}");
}
