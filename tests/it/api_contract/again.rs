//! `Idempotency-Key`: the same request again is done once.

use super::world::{ADMIN, READ};
use super::{Door, Got, SHOP, check_form};

async fn post(door: &Door, path: &str, name: &str, body: &str) -> Got {
    let request = warp::test::request().method("POST").path(&door.world.fill(path));
    let request = request.header("authorization", door.bearer(ADMIN));
    let request = request.header("content-type", "application/json").header("idempotency-key", name).body(body);
    let (parts, body) = request.reply(&door.routes).await.into_parts();
    let text = String::from_utf8_lossy(&body).into_owned();
    let got = Got { status: parts.status.as_u16(), headers: parts.headers, text };
    check_form(&got);
    got
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_answered_as_the_first_time() {
    let door = Door::synced().await;
    for (path, body) in
        [("/api/v1/shops", SHOP), ("/api/v1/keys", r#"{"name":"n"}"#), ("/api/v1/shops/{one}/sync", "{}")]
    {
        let first = post(&door, path, path, body).await;
        let again = post(&door, path, path, body).await;
        assert!(first.status < 300 && first.header("idempotent-replayed").is_empty(), "{first:?}");
        assert_eq!((again.status, &again.text), (first.status, &first.text), "{path}");
        for header in ["location", "content-type"] {
            assert_eq!(again.header(header), first.header(header), "{path}");
        }
        assert_eq!(again.header("idempotent-replayed"), "true");
    }
    let shops = door.get("/api/v1/shops", ADMIN).await.json();
    assert_eq!(shops["items"].as_array().unwrap().len(), 4, "one shop was made: {shops}");
    let retried = post(&door, "/api/v1/parked/{parked_one}/retry", "r", "").await;
    assert_eq!((retried.status, post(&door, "/api/v1/parked/{parked_one}/retry", "r", "").await.status), (204, 204));
    let keys = door.get("/api/v1/keys", ADMIN).await.json();
    assert_eq!(keys["items"].as_array().unwrap().len(), 3, "one key was made: {keys}");
}

#[tokio::test]
async fn a_name_belongs_to_one_request_of_one_key() {
    let door = Door::synced().await;
    assert_eq!(post(&door, "/api/v1/keys", "k", r#"{"name":"n"}"#).await.status, 201);
    let other = post(&door, "/api/v1/keys", "k", r#"{"name":"m"}"#).await;
    assert!(other.status == 422 && other.text.contains("use a new one"), "{other:?}");
    assert_eq!(post(&door, "/api/v1/shops", "k", r#"{"name":"n"}"#).await.status, 422, "another path");
    // What failed was not done, and may be tried again under its name.
    let refused = SHOP.replace("c-9", "refused");
    assert_eq!(post(&door, "/api/v1/shops", "s", &refused).await.status, 422);
    assert_eq!(post(&door, "/api/v1/shops", "s", SHOP).await.status, 201);
    for wrong in ["a b", &"n".repeat(256)] {
        assert_eq!(post(&door, "/api/v1/keys", wrong, r#"{"name":"n"}"#).await.status, 400, "{wrong}");
    }
    // Of what only looks, the name is nothing.
    let request = warp::test::request().path("/api/v1/shops").header("authorization", door.bearer(READ));
    assert_eq!(request.header("idempotency-key", "a b").reply(&door.routes).await.status(), 200);
}
