//! What tests ask of a running app through its API.

#![expect(clippy::unwrap_used, reason = "a test may stop")]

use reqwest::Method;
use serde_json::{Value, json};

use super::app::{TestApp, secret};

impl TestApp {
    /// Makes an API key that sees only these shops.
    pub(crate) async fn bound_key(&self, shops: &[&str]) -> String {
        let ids: Vec<&String> = shops.iter().map(|client| &self.shops[*client]).collect();
        let (status, key) = self.call(Method::POST, "/api/v1/keys", Some(json!({"name": "bound", "shops": ids}))).await;
        assert_eq!(status, 201, "{key}");
        key["key"].as_str().unwrap().to_owned()
    }

    /// A GET that must be answered with 200.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// All items of a listing, page by page.
    pub(crate) async fn pages(&self, path: &str) -> Vec<Value> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut next) = (Vec::new(), path.to_owned());
        loop {
            let mut page = self.get(&next).await;
            items.append(page["items"].as_array_mut().unwrap());
            match page["next_cursor"].as_str() {
                Some(cursor) => next = format!("{path}{joint}cursor={cursor}"),
                None => return items,
            }
        }
    }

    /// Whether a shop is complete, and its only resource; the parts of that add up.
    pub(crate) async fn completeness(&self, client_id: &str) -> (bool, Value) {
        let answer = self.get(&format!("/api/v1/shops/{}/completeness", self.shops[client_id])).await;
        let resource = answer["resources"][0].clone();
        let count = |name: &str| resource[name].as_u64().unwrap();
        let parts = ["in_sink", "pending", "parked", "gone", "missing"].map(count);
        assert_eq!(count("listed"), parts.iter().sum::<u64>(), "{resource}");
        (answer["complete"].as_bool().unwrap(), resource)
    }

    pub(crate) async fn status(&self) -> Value {
        self.get("/api/v1/status").await
    }

    /// Registers a shop of the sandbox.
    pub(crate) async fn register(&mut self, client_id: &str) {
        let body = json!({"name": client_id, "client_id": client_id, "client_secret": secret(client_id)});
        let (status, shop) = self.call(Method::POST, "/api/v1/shops", Some(body)).await;
        assert_eq!(status, 201, "{client_id}: {shop}");
        self.shops.insert(client_id.to_owned(), shop["id"].as_str().unwrap().to_owned());
    }

    /// Asks for a walk over a shop's streams.
    pub(crate) async fn sync(&self, client_id: &str, mode: &str) -> (u16, Value) {
        let path = format!("/api/v1/shops/{}/sync", self.shops[client_id]);
        self.call(Method::POST, &path, Some(json!({"mode": mode}))).await
    }

    /// Changes a shop.
    pub(crate) async fn patch(&self, client_id: &str, change: Value) -> (u16, Value) {
        self.call(Method::PATCH, &format!("/api/v1/shops/{}", self.shops[client_id]), Some(change)).await
    }

    /// Runs of a shop, newest first.
    pub(crate) async fn runs(&self, client_id: &str) -> Vec<Value> {
        self.pages(&format!("/api/v1/runs?limit=500&shop={}", self.shops[client_id])).await
    }
}
