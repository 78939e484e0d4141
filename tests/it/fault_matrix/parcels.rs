//! An API whose list goes by cursors and says how many rows it has; on request it stops short.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use warp::Filter as _;
use warp::reply::Response;

const PARCELS: usize = 6;
const ON_A_PAGE: usize = 2;
/// The shop whose list stops short.
const SHORT_KEY: &str = "secret-of-ill";

/// What Waybill must know about it.
pub(super) const DEFINITION: &str = r#"
[resource.parcels]
id = "/id"
list = { path = "/parcels", items = "/items", pages = { style = "cursor", parameter = "after", next = ["/next"], total = "/total" } }
detail = { path = "/parcels/{id}" }

[resource.parcels.table]
id = "parcel_id"

[resource.parcels.table.columns]
weight = { from = "/weight", type = "integer" }
"#;

/// The API, on a port of its own.
pub(super) struct Parcels {
    pub(super) base: String,
    is_short: Arc<AtomicBool>,
}

impl Parcels {
    pub(super) async fn open() -> Parcels {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let is_short = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&is_short);
        let answer = move |path: warp::path::FullPath, query: BTreeMap<String, String>, key: String| {
            let stops = stops.load(Ordering::SeqCst) && key == SHORT_KEY;
            let mut response = Response::new(body(path.as_str(), &query, stops).to_string().into());
            response.headers_mut().insert("content-type", "application/json".parse().unwrap());
            response
        };
        let routes = warp::path::full()
            .and(warp::query::<BTreeMap<String, String>>())
            .and(warp::header::<String>("x-key"))
            .map(answer);
        tokio::spawn(warp::serve(routes).incoming(listener).run());
        Parcels { base, is_short }
    }

    /// From now on the list ends after its first page, or does not.
    pub(super) fn stop_short(&self, is_short: bool) {
        self.is_short.store(is_short, Ordering::SeqCst);
    }
}

fn body(path: &str, query: &BTreeMap<String, String>, stops: bool) -> Value {
    if let Some(id) = path.strip_prefix("/parcels/") {
        return json!({"id": id, "weight": id.len()});
    }
    let after: usize = query.get("after").and_then(|text| text.parse().ok()).unwrap_or(0);
    let end = (after + ON_A_PAGE).min(PARCELS);
    let items: Vec<Value> = (after..end).map(|number| json!({"id": format!("p{number}")})).collect();
    let next = (end < PARCELS && !stops).then(|| end.to_string());
    json!({"items": items, "next": next, "total": PARCELS})
}
