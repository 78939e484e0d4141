//! The API against a model: shops are registered, renamed, paused, synced and deleted, keys made and revoked, in any
//! order, with clean stops and kills in between. Each answer is what the model says, and at the end the documents are
//! those of the shops that are left. `WAYBILL_TEST_SEED` repeats a run.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use sandbox::{Options, ShopOptions};
use serde_json::{Value, json};

use crate::support::is_full;
use crate::support::program::{Folder, Market, Serving};

const CLIENTS: [&str; 4] = ["first", "second", "third", "fourth"];
/// Steps of one story; more of them with `WAYBILL_TEST_FULL`.
const STEPS: usize = 150;
const LIFTED: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
const IDLE_WITHIN: Duration = Duration::from_secs(60);

/// What the API must know.
#[derive(Default)]
struct Model {
    /// By id.
    shops: BTreeMap<String, Shop>,
    /// Id to secret text, and the one shop it may see.
    keys: BTreeMap<String, (String, String)>,
    /// Ids and keys of what is gone.
    dead_shops: Vec<String>,
    dead_keys: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Shop {
    client_id: String,
    name: String,
    paused: bool,
}

struct Story {
    random: fastrand::Rng,
    folder: Folder,
    serving: Serving,
    model: Model,
}

impl Story {
    /// Asks again as long as the API says that it is asked too often.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        loop {
            let mut call = self.serving.call(method.clone(), path);
            if let Some(body) = &body {
                call = call.json(body);
            }
            let answer = call.send().await.unwrap();
            let status = answer.status().as_u16();
            if status != 429 {
                return (status, answer.json().await.unwrap_or(Value::Null));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn some_shop(&mut self) -> Option<String> {
        let ids: Vec<&String> = self.model.shops.keys().collect();
        self.random.choice(ids).cloned()
    }

    async fn register(&mut self) {
        let client_id = *self.random.choice(&CLIENTS).unwrap();
        let name = format!("Shop {}", self.random.u32(..));
        let right = self.random.u8(..4) > 0;
        let secret = if right { format!("secret-of-{client_id}") } else { "wrong-secret".to_owned() };
        let known = self.model.shops.values().any(|shop| shop.client_id == client_id);
        let body = json!({"name": name, "client_id": client_id, "client_secret": secret});
        let (status, answer) = self.ask(Method::POST, "/api/v1/shops", Some(body)).await;
        let expected = if known {
            409
        } else if right {
            201
        } else {
            422
        };
        assert_eq!(status, expected, "register {client_id}: {answer}");
        if status == 201 {
            let id = answer["id"].as_str().unwrap().to_owned();
            assert!(!self.model.dead_shops.contains(&id), "an id is not given twice");
            self.model.shops.insert(id, Shop { client_id: client_id.to_owned(), name, paused: false });
        }
    }

    async fn change(&mut self) {
        let Some(id) = self.some_shop() else { return };
        let path = format!("/api/v1/shops/{id}");
        let shop = self.model.shops.get_mut(&id).unwrap();
        let secret = format!("secret-of-{}", shop.client_id);
        let before = shop.clone();
        let (body, expected) = match self.random.u8(..7) {
            0 | 1 => {
                shop.name = format!("Renamed {}", self.random.u32(..));
                (json!({"name": shop.name}), 200)
            }
            2 => {
                shop.paused = true;
                (json!({"paused": true}), 200)
            }
            3 | 4 => {
                shop.paused = false;
                (json!({"paused": false}), 200)
            }
            5 => (json!({"client_secret": secret}), 200),
            _ => (json!({"name": "Never", "nmae": "x"}), 422),
        };
        let (status, answer) = self.ask(Method::PATCH, &path, Some(body.clone())).await;
        assert_eq!(status, expected, "{body} to {before:?}: {answer}");
    }

    async fn sync(&mut self) {
        let Some(id) = self.some_shop() else { return };
        let paused = self.model.shops[&id].paused;
        let body = json!({"mode": if self.random.bool() { "full" } else { "incremental" }});
        let (status, answer) = self.ask(Method::POST, &format!("/api/v1/shops/{id}/sync"), Some(body)).await;
        assert_eq!(status, if paused { 409 } else { 202 }, "{answer}");
    }

    async fn delete(&mut self) {
        let Some(id) = self.some_shop() else { return };
        let (status, answer) = self.ask(Method::DELETE, &format!("/api/v1/shops/{id}?purge=true"), None).await;
        assert_eq!(status, 204, "{answer}");
        self.model.shops.remove(&id);
        self.model.dead_shops.push(id);
    }

    async fn make_key(&mut self) {
        let Some(id) = self.some_shop() else { return };
        let (status, answer) =
            self.ask(Method::POST, "/api/v1/keys", Some(json!({"name": "reader", "shops": [id]}))).await;
        assert_eq!(status, 201, "{answer}");
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        self.model.keys.insert(text("id"), (text("key"), id));
    }

    async fn revoke_key(&mut self) {
        let Some(id) = self.random.choice(self.model.keys.keys()).cloned() else { return };
        let (status, answer) = self.ask(Method::DELETE, &format!("/api/v1/keys/{id}"), None).await;
        assert_eq!(status, 204, "{answer}");
        let (key, _) = self.model.keys.remove(&id).unwrap();
        self.model.dead_keys.push(key);
    }

    /// Ends the service, softly or not, and starts it again.
    fn restart(mut self) -> Story {
        if self.random.bool() {
            assert_eq!(self.serving.terminate().0, Some(0), "{}", self.folder.said());
        } else {
            self.serving.kill();
        }
        self.serving = self.folder.serve();
        self
    }

    /// Every answer is the model's.
    async fn agrees(&mut self) {
        let limit = self.random.usize(1..4);
        let mut found = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let (status, page) = self.ask(Method::GET, &format!("/api/v1/shops?limit={limit}{cursor}"), None).await;
            assert_eq!(status, 200, "{page}");
            for shop in page["items"].as_array().unwrap() {
                let text = |name: &str| shop[name].as_str().unwrap().to_owned();
                let paused = shop["state"] == "paused";
                let form = Shop { client_id: text("client_id"), name: text("name"), paused };
                assert!(found.insert(text("id"), form).is_none(), "listed twice: {shop}");
            }
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(found, self.model.shops);
        if let Some(dead) = self.random.choice(&self.model.dead_shops) {
            let path = format!("/api/v1/shops/{dead}");
            for method in [Method::GET, Method::DELETE] {
                assert_eq!(self.ask(method, &path, None).await.0, 404);
            }
        }
        let keys =
            self.model.keys.values().map(|(key, shop)| (key, self.model.shops.contains_key(shop).then_some(shop)));
        if let Some((key, shop)) = self.random.choice(keys.collect::<Vec<_>>()) {
            let (status, page) = self.with_key(key).await;
            let seen: Vec<&str> = page["items"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
            assert_eq!((status, seen), (200, shop.into_iter().map(String::as_str).collect()), "only its shop");
        }
        if let Some(key) = self.random.choice(&self.model.dead_keys) {
            assert_eq!(self.with_key(key).await.0, 401, "a revoked key");
        }
    }

    async fn with_key(&self, key: &str) -> (u16, Value) {
        let call = reqwest::Client::new().get(format!("{}/api/v1/shops", self.serving.base)).bearer_auth(key);
        let answer = call.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_story_of_shops_and_keys_ends_as_the_model_says() {
    let seed: u64 = std::env::var("WAYBILL_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("repeat with WAYBILL_TEST_SEED={seed}");
    let shop = |client_id: &&str| ShopOptions {
        client_id: (*client_id).into(),
        client_secret: format!("secret-of-{client_id}"),
        fbr: 20,
        fbb: 5,
    };
    let limits = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let limits = limits.iter().map(|rule| ((*rule).to_owned(), "none".to_owned())).collect();
    let shops = CLIENTS.iter().map(shop).collect();
    let market = Market::open(Options { seed, shops, limits, ..Options::default() }).await;
    let folder = Folder::at(&market.base, LIFTED);
    let serving = folder.serve();
    let random = fastrand::Rng::with_seed(seed);
    let mut story = Story { random, folder, serving, model: Model::default() };
    let steps = if is_full() { 20 * STEPS } else { STEPS };
    for _ in 0..steps {
        match story.random.u8(..24) {
            0..8 => story.register().await,
            8..13 => story.change().await,
            13..16 => story.sync().await,
            16..18 => story.delete().await,
            18..21 => story.make_key().await,
            21 => story.revoke_key().await,
            _ => story = story.restart(),
        }
        story.agrees().await;
    }
    for shop in story.model.shops.clone().into_keys() {
        story.model.shops.get_mut(&shop).unwrap().paused = false;
        let resumed = story.ask(Method::PATCH, &format!("/api/v1/shops/{shop}"), Some(json!({"paused": false}))).await;
        assert_eq!(resumed.0, 200, "{}", resumed.1);
        let synced =
            story.ask(Method::POST, &format!("/api/v1/shops/{shop}/sync"), Some(json!({"mode": "full"}))).await;
        assert_eq!(synced.0, 202, "{}", synced.1);
    }
    story.agrees().await;
    story.serving.idle(IDLE_WITHIN).await;
    let items = story.serving.all("/api/v1/shipments").await;
    let pair = |item: &Value| ["shop_id", "id"].map(|name| item[name].as_str().unwrap().to_owned());
    let found: BTreeSet<[String; 2]> = items.iter().map(pair).collect();
    let of = |(id, shop): (&String, &Shop)| {
        market
            .sandbox
            .truth(&shop.client_id)
            .into_iter()
            .map(|(_, document, _)| [id.clone(), document])
            .collect::<Vec<_>>()
    };
    let truth: BTreeSet<[String; 2]> = story.model.shops.iter().flat_map(of).collect();
    assert_eq!((items.len(), found), (truth.len(), truth.clone()), "documents of the shops that are left");
    assert_eq!(story.serving.terminate().0, Some(0));
}
