//! What a wrong definition could not read is read once the definition is corrected: by the next command, without a request.

use reqwest::Method as Verb;
use serde_json::{Value, json};

use crate::not_found::Api;
use crate::support::program::{ADMIN_KEY, Ended, Folder};

/// A resource whose rows are named by this pointer, and whose documents are at that one.
fn configure(folder: &Folder, address: &str, id: &str, document: &str) {
    let text = format!(
        "resources = [\"things\"]\n[source]\nbase_url = \"{address}\"\nauth = \"api-key\"\napi_key_header = \"X-Key\"\n\
         [source.limits]\n\"GET /things\" = \"none\"\n\"GET /things/*\" = \"none\"\n\
         [resource.things]\nid = \"{id}\"\ndetail = {{ path = \"/things/{{id}}\", document = \"{document}\" }}\n\
         [resource.things.list]\npath = \"/things\"\nitems = \"/items\"\npages = {{ style = \"none\" }}\n\
         [resource.things.table]\ncolumns = {{ name = {{ from = \"/name\", type = \"text\" }} }}\n"
    );
    folder.write("waybill.toml", &text);
}

/// Listed, in the sink, pending, parked, and whether that is complete.
fn books(verified: &Ended) -> ([u64; 4], bool) {
    let found: Value = serde_json::from_str(&verified.out).unwrap();
    let things = found["shops"][0]["resources"][0].clone();
    let counts = ["listed", "in_sink", "pending", "parked"].map(|name| things[name].as_u64().unwrap());
    (counts, found["complete"].as_bool().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_the_definition_did_not_find_are_read_after_the_correction() {
    let (api, address) = Api::open(8).await;
    let folder = Folder::bare();
    configure(&folder, &address, "/id", "/thing");
    folder.feed(&["shops", "add", "--name", "First", "--client-id", "first"], "key").expect(0);
    folder.run(&["sync"]).expect(1);
    assert_eq!(books(&folder.run(&["verify", "--json"])), ([8, 0, 0, 8], false));
    // Another command does not spend calls on them while the definition is as it was.
    api.details();
    folder.run(&["sync"]);
    assert_eq!(api.details(), 0);

    configure(&folder, &address, "/id", "");
    folder.run(&["sync"]).expect(0);
    assert_eq!(books(&folder.run(&["verify", "--json"]).expect(0)), ([8, 8, 0, 0], true));
    folder.run(&["status"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_the_definition_did_not_find_are_read_after_the_correction() {
    let (_api, address) = Api::open(8).await;
    let folder = Folder::bare();
    configure(&folder, &address, "/nr", "");
    folder.feed(&["shops", "add", "--name", "First", "--client-id", "first"], "key").expect(0);
    folder.run(&["sync"]).expect(1);
    assert_eq!(books(&folder.run(&["verify", "--json"])), ([8, 0, 0, 8], false));
    let status = folder.run(&["status"]).expect(1);
    let said = status.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains("failing") && said.contains("none of the 8 rows that the list shows could be read"),
        "{said}"
    );
    configure(&folder, &address, "/id", "");
    folder.run(&["sync"]).expect(0);
    assert_eq!(books(&folder.run(&["verify", "--json"]).expect(0)), ([8, 8, 0, 0], true));
    folder.run(&["status"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_put_back_are_read_at_once_and_count_as_listed_until_then() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let (_api, address) = Api::open(8).await;
    let mut folder = Folder::bare();
    folder.set("WAYBILL_ADMIN_KEY", ADMIN_KEY);
    configure(&folder, &address, "/nr", "");
    folder.feed(&["shops", "add", "--name", "First", "--client-id", "first"], "key").expect(0);
    let shops: Value = serde_json::from_str(&folder.run(&["shops", "list", "--json"]).expect(0).out).unwrap();
    let serving = folder.serve();
    let shop = shops["items"][0]["id"].as_str().unwrap().to_owned();
    let idle = std::time::Duration::from_secs(60);
    serving.idle(idle).await;
    let books = async || {
        let path = format!("/api/v1/shops/{shop}/completeness");
        let found: Value = serving.call(Verb::GET, &path).send().await.unwrap().json().await.unwrap();
        let things = &found["resources"][0];
        let counts = ["listed", "in_sink", "pending", "parked"].map(|name| things[name].as_u64().unwrap());
        (counts, found["complete"].as_bool().unwrap())
    };
    assert_eq!(books().await, ([8, 0, 0, 8], false));
    let retry = format!("/api/v1/shops/{shop}/parked/retry");
    let retried: Value = serving.call(Verb::POST, &retry).send().await.unwrap().json().await.unwrap();
    assert_eq!(retried, json!({"retried": 8}));
    // Nothing is complete that was listed and is not there, whether the walk is over by now or not.
    let (counts, is_complete) = books().await;
    assert!(counts[0] == 8 && !is_complete, "{counts:?}");
    serving.idle(idle).await;
    assert_eq!(books().await, ([8, 0, 0, 8], false), "they are parked again");
}
