//! `waybill check --openapi`: what a definition names that the API's description does not is reported with its line.

use std::path::{Path, PathBuf};

use crate::support::program::Folder;

const API: &str = r##"{
    "openapi": "3.0.1",
    "paths": {
        "/v1/things": {
            "get": {
                "parameters": [
                    {"$ref": "#/components/parameters/Page"},
                    {"name": "fulfilment-method", "in": "query", "schema": {"enum": ["A", "B"]}},
                    {"name": "latest-change-date", "in": "query"}
                ]
            }
        },
        "/v1/things/{thing-id}": {"get": {}}
    },
    "components": {"parameters": {"Page": {"name": "page", "in": "query"}}}
}"##;

const SOUND: &str = r#"resources = ["things"]
[source.limits]
"GET /v1/things" = "1/s"
"GET /v1/things/*" = "1/s"
[resource.things]
id = "/id"
[resource.things.list]
path = "/v1/things"
items = "/things"
pages = { style = "number", parameter = "page" }
[resource.things.list.parameters]
fulfilment-method = ["A", "B"]
[resource.things.list.windows]
day = "latest-change-date"
reach = "9d"
[resource.things.detail]
path = "/v1/things/{id}"
[resource.things.table]
"#;

fn folder(configuration: &str) -> Folder {
    let folder = Folder::bare();
    folder.write("waybill.toml", &format!("{configuration}\n[http]\nlisten = \"127.0.0.1:0\"\n"));
    folder.write("api.json", API);
    folder
}

const CHECK: [&str; 4] = ["check", "--offline", "--openapi", "api.json"];

#[test]
fn a_definition_that_matches_the_description_passes() {
    let ended = folder(SOUND).run(&CHECK).expect(0);
    assert!(ended.out.contains("ok    resource things: its paths and parameters are in"), "{}", ended.out);
}

#[test]
fn each_mismatch_is_reported_with_its_line_and_the_fix() {
    let wrong = SOUND
        .replace("fulfilment-method = [\"A\"", "fullfilment-method = [\"A\"")
        .replace("parameter = \"page\"", "parameter = \"pag\"")
        .replace("latest-change-date", "latest-change-day")
        .replace("/v1/things/{id}", "/v1/thinks/{id}")
        .replace("\"GET /v1/things/*\"", "\"GET /v1/thinks/*\"");
    let ended = folder(&wrong).run(&CHECK).expect(1);
    let line = |text: &str| wrong.lines().position(|line| line.contains(text)).unwrap() + 1;
    for (text, what) in [
        ("fullfilment", "`fullfilment-method` is not a parameter of GET /v1/things; did you mean `fulfilment-method`?"),
        ("\"pag\"", "`pag` is not a parameter of GET /v1/things; did you mean `page`?"),
        ("change-day", "`latest-change-day` is not a parameter of GET /v1/things; did you mean `latest-change-date`?"),
        ("thinks/{id}", "`/v1/thinks/{id}` is not a path of this API; did you mean `/v1/things/{thing-id}`?"),
    ] {
        let place = format!("FAIL  waybill.toml:{}: resource.things.", line(text));
        let reported = ended.out.lines().any(|line| line.starts_with(&place) && line.ends_with(what));
        assert!(reported, "{place} ... {what}\nis not in\n{}", ended.out);
    }
    assert!(ended.err.contains("4 of "), "{}", ended.err);
    let value = SOUND.replace("[\"A\", \"B\"]", "[\"A\", \"C\"]");
    let ended = folder(&value).run(&CHECK).expect(1);
    assert!(ended.out.contains("`C` is not a value of `fulfilment-method`; there are A, B"), "{}", ended.out);
}

#[test]
fn a_file_that_is_not_openapi_is_a_usage_error() {
    let folder = folder(SOUND);
    for (name, text, what) in
        [("api.yaml", "openapi: 3.0.1", "turn YAML into JSON"), ("old.json", "{}", "not OpenAPI 3")]
    {
        folder.write(name, text);
        let ended = folder.run(&["check", "--offline", "--openapi", name]).expect(2);
        assert!(ended.err.contains(what) && ended.out.is_empty(), "{}", ended.err);
    }
    let ended = folder.run(&["check", "--offline", "--openapi", "absent.json"]).expect(2);
    assert!(ended.err.contains("--openapi absent.json: cannot be read"), "{}", ended.err);
}

#[test]
fn the_catalog_matches_the_official_description() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = std::env::var_os("WAYBILL_SHARED").map_or_else(beside, PathBuf::from);
    let Ok(text) = std::fs::read_to_string(shared.join("bol/retailer-v10.openapi.json")) else {
        println!("SKIPPED: no official description in {}", shared.display());
        return;
    };
    // Offers have moved to the next version of the API.
    let all = "resources = [\"shipments\", \"orders\", \"returns\", \"replenishments\", \"inventory\", \"invoices\", \
        \"invoice_requests\", \"promotions\", \"promotion_products\"]";
    let folder = folder(all);
    folder.write("api.json", &text);
    let ended = folder.run(&CHECK).expect(0);
    assert_eq!(ended.out.matches("its paths and parameters are in").count(), 9, "{}", ended.out);
}
