//! The sandbox's table and reader of rate rules against those of the program: two that were written apart must agree,
//! or the audit would judge by other limits than the program keeps.

use std::collections::BTreeMap;

use proptest::prelude::{prop_assert_eq, proptest};
use sandbox::{Limit, Options};
use waybill::catalog::{self, RuleTable};

use super::stand;

#[tokio::test]
async fn the_catalog_has_exactly_the_limits_that_the_sandbox_publishes() {
    let stand = stand(Options::default()).await;
    let answer = stand.http.get(format!("{}/retailer/public/ratelimits", stand.base)).send().await.unwrap();
    let rows: Vec<BTreeMap<String, String>> = answer.json().await.unwrap();
    let limit = |row: &BTreeMap<String, String>| {
        let window = match (row["timeToLive"].as_str(), row["timeUnit"].as_str()) {
            ("1", unit) => unit.to_owned(),
            (count, unit) => format!("{count}{unit}"),
        };
        format!(
            "{}/{}",
            row["maxCapacity"],
            window.replace("SECONDS", "s").replace("MINUTES", "min").replace("HOURS", "h")
        )
    };
    let published: BTreeMap<String, String> =
        rows.iter().map(|row| (format!("{} {}", row["methods"], row["path"]), limit(row))).collect();
    assert_eq!(published, catalog::source_defaults().unwrap().limits);
}

#[tokio::test]
async fn both_choose_the_same_rule_for_a_call() {
    let paths = [
        "/retailer/shipments",
        "/retailer/shipments/7",
        "/retailer/shipments/invoices/requests",
        "/retailer/offers/export",
        "/retailer/offers/export/7",
        "/retailer/products/7/offers",
        "/retailer/products/categories",
        "/retailer/promotions/7",
        "/retailer/promotions/7/products",
        "/retailer/orders/",
        "/retailer/unknown",
        "/retailer/own/1/b",
        "/retailer/own/a/b",
        "/retailer/own/a/c/d",
    ];
    let own = ["own/*", "own/{id}/b", "own/a/*", "own/*/c/d"];
    let own: BTreeMap<String, String> =
        own.iter().map(|path| (format!("GET /retailer/{path}"), "9/s".to_owned())).collect();
    let rules = RuleTable::build([&catalog::source_defaults().unwrap().limits, &own]).unwrap();
    let stand = stand(Options { limits: own, ..Options::default() }).await;
    for path in paths {
        assert_eq!(stand.http.get(format!("{}{path}", stand.base)).send().await.unwrap().status(), 401);
        let chosen = stand.sandbox.calls().pop().unwrap().rule;
        assert_eq!(chosen, rules.find("GET", path).map(|rule| rule.name.clone()), "{path}");
    }
    assert_eq!(stand.http.post(format!("{}/retailer/orders", stand.base)).send().await.unwrap().status(), 401);
    assert_eq!(stand.sandbox.calls().pop().unwrap().rule, None);
}

#[tokio::test]
async fn the_audit_names_limits_as_they_were_written() {
    let limits = BTreeMap::from([("GET /retailer/orders".to_owned(), "7/3min".to_owned())]);
    let shops = vec![super::shop("a", 1, 0)];
    let stand = stand(Options { shops, limits, ..Options::default() }).await;
    let token = stand.token("a").await;
    assert_eq!(stand.get(&token, "orders").await.status(), 200);
    let budget = stand.sandbox.audit().budgets.remove(0);
    assert_eq!((budget.limit.as_deref(), budget.allowed, budget.busiest), (Some("7/3min"), Some(7), Some(1)));
}

proptest! {
    #[test]
    fn both_readers_read_the_same_from_every_text(
        text in "(none|[ +]?-?[0-9]{0,11} ?)(/ ?[0-9]{0,8} ?(s|sec|m|min|h|hour|d|)[ s]?){0,2}",
    ) {
        let own = Limit::parse(&text).map(|limit| limit.map(|limit| (limit.calls, limit.window, limit.to_string())));
        let other = catalog::Limit::parse(&text);
        prop_assert_eq!(own, other.map(|limit| limit.map(|limit| (limit.calls, limit.window, limit.to_string()))));
    }
}
