//! Listings: filters, cursors, and documents as they were received.

use super::world::{ADMIN, BOUND, READ};
use super::{Door, Got};

fn ids(got: &Got) -> Vec<(String, String)> {
    let json = got.json();
    let items = json["items"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    items.iter().map(|item| (text(&item["shop_id"]), text(&item["id"]))).collect()
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_double() {
    let door = Door::synced().await;
    let whole = ids(&door.get("/api/v1/shipments?limit=500", READ).await);
    assert_eq!(whole.len(), 15);
    for limit in [1, 4, 15] {
        let (mut paged, mut path) = (Vec::new(), format!("/api/v1/shipments?limit={limit}"));
        loop {
            let got = door.get(&path, READ).await;
            paged.extend(ids(&got));
            let Some(cursor) = got.json()["next_cursor"].as_str().map(str::to_owned) else { break };
            path = format!("/api/v1/shipments?limit={limit}&cursor={cursor}");
        }
        assert_eq!(paged, whole, "limit {limit}");
    }
    for (listing, count) in [("runs", 6), ("parked", 2), ("shops", 3)] {
        let (mut paged, mut path) = (0, format!("/api/v1/{listing}?limit=1"));
        loop {
            let got = door.get(&path, READ).await.json();
            paged += got["items"].as_array().map_or(0, Vec::len);
            let Some(cursor) = got["next_cursor"].as_str() else { break };
            path = format!("/api/v1/{listing}?limit=1&cursor={cursor}");
        }
        assert_eq!(paged, count, "{listing}");
    }
}

#[tokio::test]
async fn a_cursor_goes_only_with_the_listing_and_filters_it_came_from() {
    let door = Door::synced().await;
    let got = door.get("/api/v1/shipments?limit=2&shop={one}", READ).await.json();
    let cursor = got["next_cursor"].as_str().unwrap();
    let status = async |path: String| door.get(&path, READ).await.status;
    assert_eq!(status(format!("/api/v1/shipments?limit=3&cursor={cursor}&shop={{one}}")).await, 200);
    assert_eq!(status(format!("/api/v1/shipments?limit=2&cursor={cursor}")).await, 400);
    assert_eq!(status(format!("/api/v1/shipments?shop={{two}}&cursor={cursor}")).await, 400);
    assert_eq!(status(format!("/api/v1/runs?shop={{one}}&cursor={cursor}")).await, 400);
    assert_eq!(status(format!("/api/v1/shipments?shop={{one}}&cursor={cursor}A")).await, 400);
    assert_eq!(status("/api/v1/shipments?cursor=b25l".to_owned()).await, 400);
    let narrowed = door.get(&format!("/api/v1/shipments?shop={{one}}&cursor={cursor}"), BOUND).await;
    assert!(ids(&narrowed).iter().all(|(shop, _)| *shop == door.world.fill("{one}")), "a cursor widens nothing");
}

#[tokio::test]
async fn parameters_are_checked() {
    let door = Door::synced().await;
    for (query, status) in [
        ("shop={one}&order_id=o-1&ean=1&fulfilment_method=FBR&q=x", 200),
        ("from=2026-01-01&to=2026-01-02T00:00:00%2B01:00", 200),
        ("limit=0", 400),
        ("limit=501", 400),
        ("limit=1&limit=1", 400),
        ("shp=one", 400),
        ("q=", 400),
        ("from=yesterday", 400),
        ("from=2026-01-02&to=2026-01-01", 400),
        ("from=9999-12-31T23:59:59Z&to=10000-01-01", 400),
        ("from=2026-01-01&to=9999-12-31", 200),
        ("q=%FF", 400),
        ("cursor=x", 400),
    ] {
        let got = door.get(&format!("/api/v1/shipments?{query}"), READ).await;
        assert_eq!(got.status, status, "{query}: {}", got.text);
    }
    let unknown = door.get("/api/v1/shipments?shp=one", READ).await;
    assert!(unknown.text.contains("fulfilment_method"), "the known ones are listed: {}", unknown.text);
    assert_eq!(door.get("/api/v1/runs?state=asleep", READ).await.status, 400);
    assert_eq!(door.get("/api/v1/runs?state=fetching", READ).await.status, 200);
    assert_eq!(door.get("/api/v1/status?x=1", READ).await.status, 400);
}

#[tokio::test]
async fn a_document_is_shown_byte_for_byte() {
    let door = Door::synced().await;
    let received = r#""order":{"orderId":"o-1"},"big": 12345678901234567890123, "a":2}"#;
    for path in ["/api/v1/shipments/{one}/id-1", "/api/v1/shipments"] {
        let got = door.get(path, ADMIN).await;
        assert!(got.text.contains(received), "{}", got.text);
        assert!(got.text.contains(r#""order_id":"o-1""#));
        assert!(got.text.contains(r#""no_longer_listed_at":null"#));
    }
}

#[tokio::test]
async fn an_id_may_hold_a_slash_and_any_letter() {
    let door = Door::synced().await;
    let got = door.get("/api/v1/shipments/{one}/a%2Fb%20%C3%A9%F0%9F%98%80", READ).await;
    assert_eq!((got.status, &got.json()["id"]), (200, &"a/b é😀".into()));
    assert_eq!(door.get("/api/v1/shipments/{one}/a%252Fb", READ).await.status, 404, "decoded once");
    assert_eq!(door.get("/api/v1/shipments/{one}/a/b", READ).await.status, 404);
    assert_eq!(door.get("/api/v1/shipments/{one}/%FF", READ).await.status, 404);
}
