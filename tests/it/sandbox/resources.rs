//! What the sandbox serves beside shipments: whole walks against its truth, filters, changes and refusals.

use std::collections::BTreeMap;

use reqwest::Response;
use sandbox::{Clock, Options, Sandbox};
use serde_json::{Value, json};

use crate::support::CATALOG;

use super::{NOW, Stand, shop, stand};
use crate::support::no_limits;

const OFFERS_MEDIA_TYPE: &str = "application/vnd.retailer.v11+json";
const DAY_MS: i64 = 86_400_000;

/// The lists with pages that show a resource together, the key of their rows and the id in one.
fn walks(resource: &str) -> (Vec<String>, &'static str, &'static str) {
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    match resource {
        "returns" => {
            let each =
                |handled| ["FBR", "FBB"].map(|method| format!("returns?handled={handled}&fulfilment-method={method}"));
            ([each("true"), each("false")].concat(), "returns", "returnId")
        }
        "replenishments" => (owned(&["replenishments?x"]), "replenishments", "replenishmentId"),
        "inventory" => (owned(&["inventory?x"]), "inventory", "bsku"),
        "invoice_requests" => (owned(&["shipments/invoices/requests?state=ALL"]), "invoiceRequests", "shipmentId"),
        "promotions" => {
            let paths = ["promotions?promotion-type=AWARENESS", "promotions?promotion-type=PRICE_OFF"];
            (owned(&paths), "promotions", "promotionId")
        }
        _ => {
            let days = (0..93).map(|ago| day(NOW - ago * DAY_MS));
            let paths = days.map(|day| format!("orders?status=ALL&fulfilment-method=ALL&latest-change-date={day}"));
            (paths.collect(), "orders", "orderId")
        }
    }
}

fn day(at: i64) -> String {
    jiff::Timestamp::from_millisecond(at).unwrap().strftime("%Y-%m-%d").to_string()
}

pub(super) fn rows(list: &Value, key: &str) -> Vec<Value> {
    list[key].as_array().cloned().unwrap_or_default()
}

impl Stand {
    /// All pages of a list whose path has a query; no page holds more than 50 rows, and the end is `{}`.
    pub(super) async fn pages(&self, token: &str, path: &str, key: &str) -> Vec<Value> {
        let mut all = Vec::new();
        for page in 1.. {
            let list = self.json(token, &format!("{path}&page={page}")).await;
            let rows = rows(&list, key);
            if rows.is_empty() {
                assert_eq!(list, json!({}), "{path}");
                return all;
            }
            assert!(rows.len() <= 50);
            all.extend(rows);
        }
        unreachable!("a list without an end")
    }

    async fn get_offers(&self, token: &str, path: &str) -> Response {
        let url = format!("{}/retailer/{path}", self.base);
        self.http.get(url).bearer_auth(token).header("accept", OFFERS_MEDIA_TYPE).send().await.unwrap()
    }

    async fn offers(&self, token: &str, path: &str) -> Value {
        let answer = self.get_offers(token, path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(OFFERS_MEDIA_TYPE));
        answer.json().await.unwrap()
    }

    /// A walk by cursor: the rows.
    async fn offer_walk(&self, token: &str, query: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let list = self.offers(token, &format!("offers?{query}{cursor}")).await;
            all.extend(rows(&list, "offers"));
            let Some(next) = list.pointer("/page/nextCursor") else { return all };
            cursor = format!("&cursor={}", next.as_str().unwrap());
        }
    }

    pub(super) fn truth_of(&self, resource: &str) -> BTreeMap<String, Value> {
        let truth = self.sandbox.truth_of("a", resource);
        let count = truth.len();
        let truth: BTreeMap<String, Value> = truth.into_iter().collect();
        assert_eq!(truth.len(), count, "{resource}: an id twice");
        truth
    }
}

pub(super) fn by_id(rows: &[Value], id: &str) -> BTreeMap<String, Value> {
    let found: BTreeMap<_, _> = rows.iter().map(|row| (row[id].as_str().unwrap().to_owned(), row.clone())).collect();
    assert_eq!(found.len(), rows.len(), "a row twice");
    found
}

pub(super) async fn one_shop(fbr: usize, fbb: usize) -> (Stand, String) {
    let token_life = std::time::Duration::from_secs(86_400);
    let options = Options { shops: vec![shop("a", fbr, fbb)], limits: no_limits(), token_life, ..Options::default() };
    let stand = stand(options).await;
    let token = stand.token("a").await;
    (stand, token)
}

#[tokio::test]
async fn full_walks_return_every_document() {
    let (stand, token) = one_shop(420, 130).await;
    for resource in ["orders", "returns", "replenishments", "inventory", "invoice_requests", "promotions"] {
        let (paths, key, id) = walks(resource);
        let mut all = Vec::new();
        for path in &paths {
            all.extend(stand.pages(&token, path, key).await);
        }
        let (found, truth) = (by_id(&all, id), stand.truth_of(resource));
        assert!(!truth.is_empty() && found.keys().eq(truth.keys()), "{resource}");
        for (id, document) in truth {
            let has_detail = !["inventory", "invoice_requests"].contains(&resource);
            let served =
                if has_detail { stand.json(&token, &format!("{resource}/{id}")).await } else { found[&id].clone() };
            assert_eq!(served, document, "{resource} {id}");
        }
    }
    let mut products = BTreeMap::new();
    for promotion in stand.truth_of("promotions").into_keys() {
        let page = stand.pages(&token, &format!("promotions/{promotion}/products?x"), "products").await;
        products.extend(by_id(&page, "ean").into_iter().map(|(ean, row)| (format!("{promotion}:{ean}"), row)));
    }
    assert_eq!(products, stand.truth_of("promotion_products"));
    let offers = by_id(&stand.offer_walk(&token, "page-size=60").await, "offerId");
    let truth = stand.truth_of("offers");
    assert!(offers.keys().eq(truth.keys()) && offers.len() > 200);
    for (id, document) in truth {
        let detail = stand.offers(&token, &format!("offers/{id}")).await;
        assert_eq!((&detail, &detail["ean"]), (&document, &offers[&id]["ean"]));
    }
}

#[tokio::test]
async fn invoices_are_read_by_periods_of_a_month_at_most() {
    let (stand, token) = one_shop(20, 0).await;
    let truth = stand.truth_of("invoices");
    assert_eq!(truth.len(), 26);
    let mut found = Vec::new();
    for window in 0..7 {
        let until = NOW - window * 31 * DAY_MS;
        let (from, until) = (day(until - 30 * DAY_MS), day(until));
        let path = format!("invoices?period-start-date={from}&period-end-date={until}");
        found.extend(rows(&stand.json(&token, &path).await, "invoiceListItems"));
    }
    assert_eq!(by_id(&found, "invoiceId"), truth);
    let recent = stand.json(&token, "invoices").await;
    assert!(recent["period"].is_string());
    assert_eq!(rows(&recent, "invoiceListItems").len(), 5, "today's, and those of the last four weeks");
    let row = &recent["invoiceListItems"][0];
    let (seconds, millis) = (row["issueDate"].as_i64().unwrap(), row["invoicePeriod"]["endDate"].as_i64().unwrap());
    assert_eq!(seconds * 1000, millis);
    let detail = stand.json(&token, &format!("invoices/{}", row["invoiceId"].as_str().unwrap())).await;
    assert_eq!(detail["invoiceId"], row["invoiceId"]);
    let added = stand.sandbox.add_invoice("a").unwrap();
    assert!(stand.json(&token, "invoices").await.to_string().contains(&added));
    for wrong in [
        "period-start-date=2026-10-01&period-end-date=2026-11-01",
        "period-start-date=2026-10-02&period-end-date=2026-10-01",
        "period-start-date=2026-10-02",
        "period-start-date=soon&period-end-date=2026-10-01",
    ] {
        assert_eq!(stand.get(&token, &format!("invoices?{wrong}")).await.status(), 400, "{wrong}");
    }
    let month = "invoices?period-start-date=2026-10-01&period-end-date=2026-10-31";
    assert_eq!(stand.get(&token, month).await.status(), 200);
}

#[tokio::test]
async fn offers_are_walked_by_cursor() {
    let (stand, token) = one_shop(90, 30).await;
    let truth = stand.truth_of("offers");
    let all = stand.offer_walk(&token, "page-size=100").await;
    assert!(all.len() == truth.len() && all.len() > 100);
    for size in [1, 7, all.len().min(100)] {
        assert_eq!(stand.offer_walk(&token, &format!("page-size={size}")).await, all, "{size}");
    }
    let first = stand.offers(&token, "offers").await;
    assert_eq!(rows(&first, "offers").len(), 50);
    let cursor = first["page"]["nextCursor"].as_str().unwrap();
    assert_eq!(stand.get_offers(&token, &format!("offers?cursor={cursor}")).await.status(), 200);
    for wrong in [
        "cursor=".to_owned(),
        "cursor=c-50".to_owned(),
        format!("cursor=f{cursor}"),
        format!("cursor={cursor}&for-sale=true"),
        format!("cursor={cursor}&page-size=20"),
        "page-size=101".to_owned(),
        "page-size=0".to_owned(),
        "for-sale=maybe".to_owned(),
        "eans=12".to_owned(),
    ] {
        assert_eq!(stand.get_offers(&token, &format!("offers?{wrong}")).await.status(), 400, "{wrong}");
    }
    let ean = |at: usize| all[at]["ean"].as_str().unwrap();
    for both in [format!("eans={},{}", ean(3), ean(8)), format!("eans={}&eans={}", ean(3), ean(8))] {
        assert_eq!(stand.offer_walk(&token, &both).await, [all[3].clone(), all[8].clone()], "{both}");
    }
    let sold = |for_sale| stand.offer_walk(&token, for_sale);
    assert!(stand.sandbox.put_offer("a", all[0]["offerId"].as_str().unwrap(), 0).is_ok());
    let (yes, no) = (sold("for-sale=true").await, sold("for-sale=false").await);
    assert!(yes.len() + no.len() == all.len() && no.iter().any(|row| row["offerId"] == all[0]["offerId"]));
    let added = stand.sandbox.add_offer("a").unwrap();
    let id = all[5]["offerId"].as_str().unwrap();
    assert!(stand.sandbox.change_offer("a", id).unwrap() && !stand.sandbox.change_offer("a", "none").unwrap());
    let after = stand.offer_walk(&token, "page-size=100").await;
    assert_eq!(after.last().unwrap()["offerId"], added);
    assert_ne!(after[5], all[5], "the row changed");
    assert_eq!(stand.offers(&token, &format!("offers/{added}")).await["offerId"], added);
    assert_eq!(stand.get_offers(&token, "offers/none").await.status(), 404);
    assert_eq!(stand.get(&token, "offers").await.status(), 406, "v10");
    assert_eq!(stand.get(&token, &format!("offers/{id}")).await.status(), 406, "v10");
    assert_eq!(stand.get_offers(&token, "returns").await.status(), 406, "v11");
}

#[tokio::test]
async fn filters_return_the_matching_documents() {
    let (stand, token) = one_shop(900, 400).await;
    let sent = stand.pages(&token, "replenishments?x", "replenishments").await;
    let time = |row: &Value| row["creationDateTime"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(sent.iter().rev().map(time).is_sorted(), "newest first");
    let states = stand.truth_of("replenishments");
    let count =
        |wanted: &[&str]| states.values().filter(|one| wanted.iter().any(|state| one["state"] == *state)).count();
    for (query, wanted) in [
        ("state=DONE", &["DONE"][..]),
        ("state=DONE,ANNOUNCED", &["DONE", "ANNOUNCED"]),
        ("state=DONE&state=CANCELLED", &["DONE", "CANCELLED"]),
    ] {
        let found = stand.pages(&token, &format!("replenishments?{query}"), "replenishments").await;
        assert!(found.len() == count(wanted) && !found.is_empty(), "{query}");
    }
    let (one, reference) = (&sent[4], sent[4]["reference"].as_str().unwrap());
    let ean = one["lines"][0]["ean"].as_str().unwrap();
    let created = one["creationDateTime"].as_str().unwrap().split('T').next().unwrap();
    for query in [
        format!("reference={reference}"),
        format!("ean={ean}&reference={reference}"),
        format!("start-date={created}&end-date={created}"),
    ] {
        assert_eq!(
            stand.pages(&token, &format!("replenishments?{query}"), "replenishments").await,
            std::slice::from_ref(one)
        );
    }
    let stock = stand.pages(&token, "inventory?x", "inventory").await;
    let within = |key: &str, least: u64, most: u64| {
        stock.iter().filter(|row| (least..=most).contains(&row[key].as_u64().unwrap())).count()
    };
    for (query, count) in [
        ("quantity=0-10", within("regularStock", 0, 10)),
        ("quantity=0-10,20-30", within("regularStock", 0, 10) + within("regularStock", 20, 30)),
        ("quantity=2-2&state=GRADED", within("gradedStock", 2, 2)),
        ("stock=SUFFICIENT", within("regularStock", 5, 1000)),
        ("stock=INSUFFICIENT&state=REGULAR", within("regularStock", 1, 4)),
        ("state=GRADED", within("gradedStock", 1, 1000)),
    ] {
        let found = stand.pages(&token, &format!("inventory?{query}"), "inventory").await;
        assert!(found.len() == count && count > 0, "{query}");
    }
    let ean = stock[7]["ean"].as_str().unwrap();
    assert_eq!(stand.pages(&token, &format!("inventory?query={ean}"), "inventory").await, [stock[7].clone()]);
    let titled = stand.pages(&token, "inventory?query=KOFFIEMOK", "inventory").await;
    assert!(!titled.is_empty() && titled.iter().all(|row| row["title"].to_string().contains("Koffiemok")));
    let path = "shipments/invoices/requests";
    let all = stand.pages(&token, &format!("{path}?x"), "invoiceRequests").await;
    assert!(all.len() > 50);
    for (state, status) in [("OPEN", "INVOICE_REQUESTED"), ("UPLOAD_ERROR", "INVOICE_INCORRECT")] {
        let found = stand.pages(&token, &format!("{path}?state={state}"), "invoiceRequests").await;
        let wanted: Vec<Value> = all.iter().filter(|row| row["status"] == status).cloned().collect();
        assert!(found == wanted && !found.is_empty(), "{state}");
    }
    let id = all[2]["shipmentId"].as_str().unwrap();
    assert_eq!(stand.pages(&token, &format!("{path}?shipment-id={id}"), "invoiceRequests").await, [all[2].clone()]);
    assert_eq!(stand.json(&token, &format!("shipments/{id}")).await["shipmentId"], id, "shipments are still served");
}

#[tokio::test]
async fn invalid_queries_are_refused() {
    let (stand, token) = one_shop(60, 60).await;
    for (path, name) in [
        ("returns?handled=1", "handled"),
        ("returns?fulfilment-method=ALL", "fulfilment-method"),
        ("returns?page=0", "page"),
        ("replenishments?state=SENT", "state"),
        ("replenishments?state=DONE,SENT", "state"),
        ("replenishments?start-date=now", "start-date"),
        ("replenishments?end-date=01-02-2026", "end-date"),
        ("replenishments?page=x", "page"),
        ("inventory?quantity=ten", "quantity"),
        ("inventory?quantity=10-0", "quantity"),
        ("inventory?stock=LOW", "stock"),
        ("inventory?state=NEW", "state"),
        ("shipments/invoices/requests?state=CLOSED", "state"),
        ("promotions", "promotion-type"),
        ("promotions?promotion-type=ALL", "promotion-type"),
        ("promotions/1000/products?page=-1", "page"),
    ] {
        let answer = stand.get(&token, path).await;
        assert_eq!(answer.status(), 400, "{path}");
        assert_eq!(answer.json::<Value>().await.unwrap()["violations"][0]["name"], name, "{path}");
    }
    for path in [
        "returns/none",
        "replenishments/none",
        "invoices/none",
        "promotions/none",
        "promotions/none/products",
        "inventory/1",
        "shipments/invoices",
        "shipments/invoices/requests/1",
        "products",
    ] {
        assert_eq!(stand.get(&token, path).await.status(), 404, "{path}");
    }
    let text = stand.get(&token, "returns/a%20b").await.text().await.unwrap();
    assert!(text.contains("Return for return id a b not found."), "{text}");
    stand.sandbox.reset_audit();
    stand.json(&token, "inventory?qty=3&statee=GRADED").await;
    let audit = stand.sandbox.audit();
    assert_eq!((audit.unknown_parameters, audit.list_pages), (2, 1));
    stand.offers(&token, "offers").await;
    stand.json(&token, "invoices").await;
    assert_eq!(stand.sandbox.audit().list_pages, 3);
}

#[tokio::test]
async fn a_shop_without_shipments_has_no_documents() {
    let (stand, token) = one_shop(0, 0).await;
    let lists = [
        ("returns", "returns"),
        ("returns?handled=true&fulfilment-method=FBB", "returns"),
        ("replenishments", "replenishments"),
        ("inventory", "inventory"),
        ("invoices", "invoiceListItems"),
        ("shipments/invoices/requests", "invoiceRequests"),
        ("promotions?promotion-type=AWARENESS", "promotions"),
    ];
    for empty_array in [false, true] {
        stand.sandbox.set_empty_array(empty_array);
        let empty = |key: &str| if empty_array { json!({ key: [] }) } else { json!({}) };
        for (path, key) in lists {
            let mut list = stand.json(&token, path).await;
            list.as_object_mut().unwrap().remove("period");
            assert_eq!(list, empty(key), "{path}");
        }
        assert_eq!(stand.offers(&token, "offers").await, empty("offers"));
    }
    assert!(stand.sandbox.add_return("a").unwrap_err().to_string().contains("no shipment"));
}

#[tokio::test]
async fn content_follows_from_seed_shop_and_clock_alone() {
    let options = || {
        let arrivals = Some(std::time::Duration::from_secs(1));
        Options { shops: vec![shop("a", 90, 40), shop("b", 90, 40)], arrivals, ..Options::default() }
    };
    let clocks = [Clock::manual(NOW), Clock::manual(NOW)];
    let [early, late] = clocks.clone().map(|clock| Sandbox::new(options(), clock).unwrap());
    let beside = |sandbox: &Sandbox, shop: &str| CATALOG[2..].iter().map(|name| sandbox.truth_of(shop, name)).collect();
    let looked: Vec<Vec<(String, Value)>> = beside(&early, "a");
    clocks.iter().for_each(|clock| clock.set(NOW + 3_600_000));
    let (then, late_look): (Vec<_>, Vec<_>) = (beside(&early, "a"), beside(&late, "a"));
    assert!(looked == then && then == late_look, "the moment of the first look changes nothing");
    for (name, (a, b)) in CATALOG[2..].iter().zip(then.iter().zip(beside(&early, "b"))) {
        let same = a.iter().filter(|one| b.contains(one)).count();
        assert!(a.is_empty() || same * 5 < a.len(), "{name}: {same} of {} are the same in two shops", a.len());
    }
}
