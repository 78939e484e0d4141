//! What `plan` forecasts is what the walk then costs, by the sandbox's own count: for the first, an incremental and a full
//! walk of every resource of the catalog.

use std::collections::BTreeMap;

use serde_json::Value;
use waybill::app::plan::{Ask, Plan, Rows};

use crate::support::app::{Builder, TestApp};
use crate::support::{CATALOG, no_limits};

fn builder(resource: &str) -> Builder {
    // Those of shipments the test app writes itself.
    let own = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let lifted: Vec<_> = no_limits().into_iter().filter(|(rule, _)| !own.contains(&rule.as_str())).collect();
    let text: Vec<String> = lifted.iter().map(|(rule, limit)| format!("\"{rule}\" = \"{limit}\"")).collect();
    // A list of children has no walk without its parents'.
    let resources = if resource == "promotion_products" { vec!["promotions", resource] } else { vec![resource] };
    TestApp::builder()
        .resources(&resources)
        .limits_too(&text.join("\n"))
        .options(move |options| options.limits.extend(lifted))
        .shop("first", 1_300, 1_250)
}

/// Calls by rule, as planned.
fn by_rule(plan: Plan) -> BTreeMap<String, u64> {
    assert!(plan.streams.iter().all(|stream| stream.lists.is_some() && stream.details.is_some()), "{plan:#?}");
    plan.budgets.into_iter().map(|budget| (budget.rule, budget.calls)).collect()
}

/// Within 2 % or 3 calls.
#[track_caller]
fn agrees(what: &str, planned: &BTreeMap<String, u64>, made: &BTreeMap<String, u64>) {
    println!("{what}: planned {planned:?}, made {made:?}");
    for rule in planned.keys().chain(made.keys()) {
        let of = |calls: &BTreeMap<String, u64>| calls.get(rule).copied().unwrap_or_default();
        let (planned, made) = (of(planned), of(made));
        let most = (made / 50).max(3);
        assert!(planned.abs_diff(made) <= most, "{what}, {rule}: {planned} planned, {made} made");
    }
}

/// The calls by rule since the last look.
fn made(app: &TestApp) -> BTreeMap<String, u64> {
    let made = app.sandbox().audit().by_rule;
    app.sandbox().reset_audit();
    made
}

/// Rows of each stream, as its first walk listed them.
async fn rows(app: &TestApp) -> BTreeMap<String, u64> {
    let runs = app.pages("/api/v1/runs?limit=500").await;
    let of = |run: &Value| {
        let parameters = run["parameters"].as_object().unwrap().iter();
        let parameters: Vec<String> =
            parameters.map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect();
        let name = format!("{} {}", run["resource"].as_str().unwrap(), parameters.join("&"));
        (name.trim().to_owned(), run["listed"].as_u64().unwrap())
    };
    runs.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_what_the_audit_counts_for_every_resource() {
    for resource in CATALOG {
        let app = builder(resource).start().await;
        app.run_until_idle().await;
        let first = made(&app);
        // Another installation that has not walked yet, and is given the numbers of rows.
        let ask = Ask { rows: Rows { each: None, of: rows(&app).await }, ..Ask::default() };
        agrees(&format!("first walk of {resource}"), &by_rule(app.plan_first("first", &ask).await), &first);
        made(&app);
        for (mode, full) in [("incremental", false), ("full", true), ("incremental", false)] {
            let planned = by_rule(app.plan(&Ask { full, ..Ask::default() }));
            app.sync("first", mode).await;
            app.run_until_idle().await;
            agrees(&format!("{mode} walk of {resource}"), &planned, &made(&app));
        }
        app.finish().await;
    }
}
