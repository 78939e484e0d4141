//! The rules of faults: what the documentation and the help say of them works as written, and a rule that can never take
//! effect is refused.

use std::process::{Command, Stdio};

use reqwest::Method as Http;
use sandbox::{EchoForm, FAULT_FIELDS, FAULT_KINDS, Options};
use serde_json::{Value, json};

use super::{shop, stand};
use crate::support::configuration::load;
use crate::support::no_limits;
use crate::support::program::Folder;

const ADDRESS: &str = "127.0.0.1:8090";

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sandbox.md")).unwrap()
}

/// The lines of the page's `sh` blocks, of commands that begin with `curl -d`.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(|block| block.split("curl -d ").skip(1));
    lines.map(|rest| format!("curl -d {}", rest.trim_end())).collect()
}

#[test]
fn the_page_and_the_help_have_every_field_and_kind_with_an_example() {
    let (page, help) = (page(), Folder::bare().run(&["sandbox", "--help"]).expect(0).out);
    for (field, what) in FAULT_FIELDS {
        assert!(page.contains(&format!("| `{field}` |")), "{field} is not in docs/sandbox.md");
        assert!(help.contains(&format!("  {field} ")) && help.contains(what), "{field} is not in the help:\n{help}");
    }
    let commands = commands(&page);
    for (kind, example, _) in FAULT_KINDS {
        assert!(page.contains(&format!("`{kind}`: ")), "{kind} is not described in docs/sandbox.md");
        let given = format!("\"kind\": {example}");
        assert!(commands.iter().any(|command| command.contains(&given)), "docs/sandbox.md has no line with {given}");
        assert!(help.contains(example), "{example} is not in the help:\n{help}");
    }
    for form in EchoForm::ALL {
        let form = serde_json::to_string(&form).unwrap();
        assert!(page.contains(&format!("`{form}`")) && help.contains(&form), "{form}");
    }
}

#[tokio::test]
async fn each_example_of_the_page_and_the_help_is_accepted_by_a_running_sandbox() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = Folder::bare();
    let mut serving = folder.spawn(&["sandbox", "--listen", "127.0.0.1:0", "--rows", "4"]);
    let line = serving.line().unwrap();
    let address = line.strip_prefix("sandbox listens on http://").unwrap().to_owned();
    let http = reqwest::Client::new();
    for (kind, example, _) in FAULT_KINDS {
        let rule = format!(r#"[{{"match": "/retailer/shipments", "kind": {example}}}]"#);
        let answer = http.post(format!("http://{address}/_sandbox/faults")).body(rule).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.text().await.unwrap().as_str()),
            (200, r#"{"rules":1}"#),
            "{kind}"
        );
    }
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: no curl");
        return;
    }
    let commands = commands(&page());
    assert!(commands.len() > FAULT_KINDS.len());
    for command in commands {
        assert!(command.contains(ADDRESS), "{command}");
        let ran = Command::new("bash").args(["-c", &command.replace(ADDRESS, &address)]).output().unwrap();
        let said: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(said["rules"].is_u64() && said.as_object().unwrap().len() == 1, "{command}: {said}");
    }
}

#[tokio::test]
async fn a_rule_that_can_never_take_effect_is_refused_with_the_reason_and_changes_nothing() {
    let stand = stand(Options { shops: vec![shop("a", 3, 0)], limits: no_limits(), ..Options::default() }).await;
    let token = stand.token("a").await;
    let kept = json!([{ "match": "/retailer/shipments", "kind": "reset" }]);
    assert_eq!(stand.control(Http::POST, "faults", kept).await.0, 200);
    let rule = |edit: Value| {
        let mut rule = json!({ "match": "/retailer/shipments", "kind": "garbage" });
        rule.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
        json!([rule])
    };
    let status = |status: Value| rule(json!({ "kind": { "status": status } }));
    for (rules, reason) in [
        (rule(json!({ "match": "/retailer/shipmens" })), "rule 1: match `/retailer/shipmens`: no call begins with it"),
        (rule(json!({ "match": "/retailer/ship?page=1" })), "must be a whole one"),
        (rule(json!({ "match": "/retailer/public/ratelimits" })), "no call begins with it"),
        (rule(json!({ "match": "POST /retailer/orders" })), "the method POST, and rules match paths"),
        (rule(json!({ "match": stand.base.clone() + "/retailer/orders" })), "write `/retailer/orders`"),
        (rule(json!({ "method": "GET" })), "unknown field `method`, expected one of `match`, "),
        (rule(json!({ "kind": "rest" })), "unknown variant `rest`, expected one of `status`, "),
        (rule(json!({ "kind": { "slow": { "seconds": 1 } } })), "unknown field `seconds`, expected `ms`"),
        (rule(json!({ "kind": { "slow": { "ms": 0 } } })), "kind slow: 0 ms is no delay"),
        (rule(json!({ "kind": { "wrong_content_length": { "by": 0 } } })), "off by 0 is right"),
        (rule(json!({ "kind": { "insert": { "text": "" } } })), "the text is empty"),
        (rule(json!({ "match": "/token", "kind": "same_page" })), "kind same_page: it acts on lists"),
        (rule(json!({ "match": "/retailer/orders", "kind": "reversed" })), "kind reversed: it acts on the list of"),
        (status(json!({})), "missing field `code`"),
        (status(json!({ "code": 0 })), "kind status: 0 is not a final HTTP status"),
        (status(json!({ "code": 503, "body": "none" })), "unknown variant `none`, expected one of `json`, "),
        (status(json!({ "code": 503, "headers": { "Retry After": "4" } })), "the header `Retry After` cannot be sent"),
        (rule(json!({ "times": 0 })), "times 0: it takes no call"),
        (rule(json!({ "probability": 0 })), "probability 0: give more than 0"),
        (rule(json!({ "probability": 1.5 })), "at most 1"),
        (rule(json!({ "client_id": "b" })), "client_id `b`: no shop has it"),
        (
            json!([{ "match": "/retailer", "kind": "reset" }, { "match": "/retailer/orders", "kind": "garbage" }]),
            "rule 2: rule 1 takes each call that this one matches",
        ),
    ] {
        let (code, said) = stand.control(Http::POST, "faults", rules.clone()).await;
        let said: Value = serde_json::from_str(&said).unwrap();
        let said = said["error"].as_str().unwrap();
        assert!(code == 400 && said.starts_with("faults: ") && said.contains(reason), "{rules}: {code} {said}");
    }
    assert!(stand.try_get(&token, "shipments").await.is_err(), "the rules before stay");
    assert_eq!(stand.control(Http::POST, "faults", json!([])).await.0, 200);
    assert_eq!(stand.get(&token, "shipments").await.status(), 200);
}

#[tokio::test]
async fn each_path_that_a_rule_may_match_is_served_and_each_path_of_the_catalog_may_be_matched() {
    let stand = stand(Options { shops: vec![shop("a", 9, 9)], limits: no_limits(), ..Options::default() }).await;
    let token = stand.token("a").await;
    let wrong = json!([{ "match": "/nowhere", "kind": "reset" }]);
    let (_, said) = stand.control(Http::POST, "faults", wrong).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    let (_, paths) = said["error"].as_str().unwrap().split_once("the sandbox serves /token, ").unwrap();
    let paths: Vec<&str> = paths.split(", ").collect();
    for path in &paths {
        let path = path.strip_prefix("/retailer/").unwrap().replace("{id}", "none");
        let said = stand.get(&token, &path).await.text().await.unwrap();
        assert!(!said.contains("The sandbox has no such resource"), "{path}: {said}");
    }
    let none = stand.get(&token, "nothing").await.text().await.unwrap();
    assert!(none.contains("The sandbox has no such resource"), "{none}");
    let all = "resources = [\"shipments\", \"orders\", \"returns\", \"replenishments\", \"inventory\", \"invoices\", \
               \"invoice_requests\", \"promotions\", \"promotion_products\", \"offers\"]";
    let config = load(all, &[]).unwrap();
    for path in config.definitions.iter().flat_map(|definition| definition.paths()) {
        let path = path.replace("{parent}", "{id}");
        assert!(paths.contains(&path.as_str()), "{path} is not among {paths:?}");
    }
}
