//! Lists of documents are read in turns: one API key does not make another wait, and has only a few under way.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::app::{Builder, TestApp};
use crate::support::mariadb::Database;

async fn is_fair(builder: Builder) {
    let app = builder.shop("north", 900, 600).start().await;
    app.run_until_idle().await;
    let (greedy, modest) = (app.bound_key(&["north"]).await, app.bound_key(&["north"]).await);
    let mut searches = JoinSet::new();
    for _ in 0..40 {
        let search = app.request_by(&greedy, Method::GET, "/api/v1/shipments?q=zzzz");
        searches.spawn(async move { search.send().await });
    }
    let first = app.get("/api/v1/shipments?limit=1").await["items"][0].clone();
    let order = first["order_id"].as_str().unwrap_or_default();
    for path in ["/api/v1/shipments?limit=50".to_owned(), format!("/api/v1/shipments?order_id={order}")] {
        let (status, page) = app.call_by(&modest, Method::GET, &path, None).await;
        assert_eq!(status, 200, "{page}");
        assert!(page["items"].as_array().is_some_and(|items| items.contains(&first)), "{path}: {page}");
    }
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    while let Some(answer) = searches.join_next().await {
        let answer = answer.expect("a search").expect("an answer");
        let status = answer.status().as_u16();
        *statuses.entry(status).or_default() += 1;
        if status == 429 {
            assert_eq!(answer.headers()["retry-after"], "1");
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
        }
    }
    assert!(statuses.keys().all(|status| [200, 429, 503].contains(status)), "{statuses:?}");
    assert!(statuses[&200] >= 1 && statuses[&429] >= 1, "{statuses:?}");
    // None of them is under way any more.
    let (status, page) = app.call_by(&greedy, Method::GET, "/api/v1/shipments?q=zzzz", None).await;
    assert_eq!((status, &page["items"]), (200, &json!([])));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_asks_for_too_much_at_once_is_refused_and_delays_no_other() {
    let database = Database::fresh().await;
    is_fair(TestApp::builder()).await;
    is_fair(TestApp::builder().mysql(database.url())).await;
}
