//! What `plan` forecasts is what the walk then costs, by the sandbox's own count: for the first, an incremental and a full
//! walk of every resource of the catalog.

#![expect(clippy::print_stderr, reason = "the figures belong to the report of a run")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use waybill::service::plan::{Ask, AssumedRows, Plan};

use crate::support::app::{Builder, TestApp, eventually};
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
    eprintln!("{what}: planned {planned:?}, made {made:?}");
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

/// AssumedRows of each stream, as its first walk listed them.
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
        let ask = Ask { rows: AssumedRows { each: None, of: rows(&app).await }, ..Ask::default() };
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

/// The run that walks, if one does.
async fn walking(app: &TestApp) -> Option<Value> {
    let runs = app.get("/api/v1/runs?state=walking").await;
    runs["items"].as_array().unwrap().first().cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_has_a_forecast_while_its_pages_are_read() {
    let builder = TestApp::builder().limits(["10/s", "none"]);
    let app = builder.shop("first", 1_300, 0).start().await;
    // 27 pages, passed twice. In the first pass the age of the rows decides; in the second, the first.
    let mut seen = Vec::new();
    {
        let ended = app.run_until_idle();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                () = &mut ended => break,
                run = walking(&app) => seen.extend(run),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let pages = 54;
    let in_pass = |number: u64, runs: &[Value]| -> Vec<Value> {
        let known = |run: &&Value| run["passes"] == number && run["parameters"]["fulfilment-method"] == "FBR";
        runs.iter().filter(known).cloned().collect()
    };
    let expected = |run: &Value| run["pages_expected"].as_u64().unwrap_or_else(|| panic!("{run}"));
    let first: Vec<Value> = in_pass(1, &seen).into_iter().filter(|run| run["pages"].as_u64() > Some(5)).collect();
    assert!(!first.is_empty());
    for run in &first {
        assert!((pages / 2..=pages * 2).contains(&expected(run)), "{run}");
        assert!(run["forecast_at"].is_string(), "{run}");
    }
    let second = in_pass(2, &seen);
    assert!(!second.is_empty());
    assert!(second.iter().all(|run| expected(run) == pages && run["forecast_at"].is_string()), "{second:?}");
    // The next whole walk is known from its beginning.
    app.sync("first", "full").await;
    let run = eventually("a walk", async || {
        walking(&app).await.filter(|run| run["parameters"]["fulfilment-method"] == "FBR")
    });
    let run = run.await;
    assert_eq!(run["pages_expected"], pages / 2, "{run}");
    assert!(run["forecast_at"].is_string(), "{run}");
    app.run_until_idle().await;
    assert!(app.get("/api/v1/runs").await["items"][0]["pages_expected"].is_null());
    app.finish().await;
}
