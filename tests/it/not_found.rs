//! "Not found" is believed of a document only while the call that asks for it is known to work: a wrong path, lost rights
//! and a moved API answer it for every document.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use warp::Filter as _;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::support::app::TestApp;
use crate::support::mariadb::Database;
use crate::support::program::{Ended, Folder};

/// An API with a list of things, and a document of each at `/things/{id}`.
#[derive(Default)]
pub(crate) struct Api(Mutex<State>);

#[derive(Default)]
struct State {
    listed: Vec<String>,
    /// Listed, but without a document.
    gone: BTreeSet<String>,
    /// The answer to each detail call, if it is an error.
    error: Option<u16>,
    details: usize,
}

impl Api {
    pub(crate) async fn open(things: usize) -> (Arc<Api>, String) {
        let api = Arc::new(Api::default());
        api.list(0, things);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&api);
        let answer = move |path: warp::path::FullPath| {
            let (status, body) = shared.answer(path.as_str());
            let mut response = Response::new(body.to_string().into());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert("content-type", "application/json".parse().unwrap());
            response
        };
        let routes = warp::get().and(warp::path::full()).map(answer);
        tokio::spawn(warp::serve(routes).incoming(listener).run());
        (api, address)
    }

    fn edit(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    fn list(&self, from: usize, until: usize) {
        self.edit(|state| state.listed.extend((from..until).map(|n| format!("t{n:02}"))));
    }

    /// Detail calls since the last look.
    pub(crate) fn details(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().details)
    }

    fn answer(&self, path: &str) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        if path == "/things" {
            let row = |id: &String| json!({"id": id, "number": id.replacen('t', "9", 1)});
            return (200, json!({"items": state.listed.iter().map(row).collect::<Vec<_>>()}));
        }
        if path.starts_with("/parts/") && !path.starts_with("/parts/of/") {
            return (404, json!({"title": "Not Found"}));
        }
        if let Some(parent) = path.strip_prefix("/parts/of/") {
            return if parent == "t00" { (200, json!({"items": [{"id": "p"}]})) } else { (404, json!({})) };
        }
        state.details += 1;
        let id = path.strip_prefix("/things/").unwrap_or_default().to_owned();
        match state.error {
            Some(status) => (status, json!({"title": "Not Found"})),
            None if state.listed.contains(&id) && !state.gone.contains(&id) => {
                (200, json!({"id": id, "name": "a thing"}))
            }
            None => (404, json!({"title": "Not Found"})),
        }
    }
}

const RIGHT: &str = "/things/{id}";
const WRONG: &str = "/things/x/{id}";

fn definition(detail: &str) -> String {
    let rules = ["/things/*", "/things/x/*", "/v1/things/*", "/parts/*", "/parts/of/*"];
    definition_with(detail, &rules)
}

fn definition_with(detail: &str, rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|path| format!("\"GET {path}\" = \"none\"\n")).collect();
    format!(
        "[source.limits]\n\"GET /things\" = \"none\"\n{rules}\
         [resource.things]\nid = \"/id\"\ndetail = {{ path = \"{detail}\" }}\n\
         [resource.things.list]\npath = \"/things\"\nitems = \"/items\"\npages = {{ style = \"none\" }}\n\
         [resource.things.table]\ncolumns = {{ name = {{ from = \"/name\", type = \"text\" }} }}\n"
    )
}

async fn app(address: &str, detail: &str) -> TestApp {
    app_of(address, &["things"], &definition(detail)).await
}

async fn app_of(address: &str, resources: &[&str], definitions: &str) -> TestApp {
    TestApp::synced_from(address, resources, definitions).await
}

async fn sync(app: &TestApp, mode: &str) {
    assert_eq!(app.sync("shop", mode).await.0, 202);
    app.run_until_idle().await;
}

async fn parked(app: &TestApp) -> Vec<String> {
    let parked = app.pages("/api/v1/parked?limit=500").await;
    parked.iter().map(|one| one["reason"].as_str().unwrap().to_owned()).collect()
}

/// Listed, stored, parked, gone, and whether that is complete.
async fn books(app: &TestApp) -> ([u64; 4], bool) {
    let found = app.get(&format!("/api/v1/shops/{}/completeness", app.shops["shop"])).await;
    let things = &found["resources"][0];
    let count = |name: &str| things[name].as_u64().unwrap();
    let parts = ["in_sink", "pending", "parked", "gone", "missing"].map(count);
    assert_eq!(count("listed"), parts.iter().sum::<u64>(), "{things}");
    (["listed", "stored", "parked", "gone"].map(count), found["complete"].as_bool().unwrap())
}

fn change(folder: &std::path::Path, from: &str, to: &str) {
    let file = folder.join("waybill.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from}: {text}");
    std::fs::write(&file, text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_detail_path_is_reported_by_each_command_and_the_right_one_recovers() {
    let (api, address) = Api::open(8).await;
    let database = Database::fresh().await;
    let folder = Folder::bare();
    let configure = |detail: &str| {
        let text = format!(
            "resources = [\"things\"]\n[mysql]\nurl = \"{}\"\n[source]\nbase_url = \"{address}\"\nauth = \"api-key\"\n\
             api_key_header = \"X-Key\"\n{}",
            database.url(),
            // A rule without a call is an error of `check`.
            definition_with(detail, &[&detail.replace("{id}", "*")])
        );
        folder.write("waybill.toml", &text);
    };
    configure(WRONG);
    folder.feed(&["shops", "add", "--name", "First", "--client-id", "first"], "key").expect(0);
    let says = |ended: Ended, what: &[&str]| {
        let said = format!("{}{}", ended.out, ended.err).split_whitespace().collect::<Vec<_>>().join(" ");
        for what in what {
            assert!(said.contains(what), "{what}:\n{}\n{}", ended.out, ended.err);
        }
    };
    let key = "resource.things.detail.path";
    says(folder.run(&["check"]).expect(1), &["GET /things/x/t00", key, "not found by the API (404)"]);
    says(folder.run(&["preview", "things"]).expect(1), &["GET /things/x/t00", key, "(404)"]);
    api.details();
    says(folder.run(&["sync"]).expect(1), &["8 pages or documents", "gone"]);
    assert_eq!(api.details(), 8, "each is asked for once");
    says(folder.run(&["status"]).expect(1), &["failing", "its detail calls fail", key]);
    says(folder.run(&["verify"]).expect(1), &["no: 8 parked"]);
    // Nothing changed, and they are not due: each later pass says so too.
    for pass in [&["sync", "--quiet"][..], &["sync", "--quiet"], &["sync", "--full", "--quiet"]] {
        let ended = folder.run(pass).expect(1);
        assert_eq!(ended.out, "");
        says(ended, &["First (", "things: its detail calls fail", key, "8 pages or documents", "Remedy: "]);
    }
    assert_eq!(api.details(), 0);

    configure(RIGHT);
    says(
        folder.run(&["check"]).expect(0),
        &["8 rows on the first page of things; /things/t00 answers with a document"],
    );
    // They are put back at the start, so their run is open again and the table counts them.
    says(folder.run(&["sync"]).expect(0), &["things done 1 8 8 0 8 0 8 0", "things done 1 8 0 0 0 0 0 0"]);
    assert_eq!(database.rows::<u64>("SELECT COUNT(*) FROM things").await, [8]);
    says(folder.run(&["verify"]).expect(0), &["yes"]);
    says(folder.run(&["status"]).expect(0), &["ok"]);

    // One that worked is changed wrongly: what is new is not gone.
    configure(WRONG);
    api.list(8, 10);
    says(folder.run(&["sync"]).expect(1), &["2 pages or documents"]);
    configure(RIGHT);
    folder.run(&["sync"]).expect(0);
    assert_eq!(database.rows::<u64>("SELECT COUNT(*) FROM things").await, [10]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_document_is_gone_before_one_was_answered() {
    for (status, path) in [(404, RIGHT), (410, RIGHT), (404, "/v1/things/{id}")] {
        let (api, address) = Api::open(7).await;
        // As to an account without the right to read documents; or by a path that no document has.
        api.edit(|state| state.error = (path == RIGHT).then_some(status));
        let mut app = app(&address, path).await;
        assert_eq!(books(&app).await, ([7, 0, 7, 0], false));
        assert_eq!(api.details(), 7);
        for reason in parked(&app).await {
            let claim = format!("the API answered {status} for it, and no call of {path} was ever answered");
            assert!(reason.contains(&claim) && reason.contains("resource.things.detail.path"), "{reason}");
        }
        let run = app.runs("shop").await.remove(0);
        assert_eq!((&run["parked"], &run["gone"]), (&json!(7), &json!(0)), "{run}");
        sync(&app, "full").await;
        assert_eq!(api.details(), 0, "they are not due");
        // One that is answered proves the call, and all are read.
        if path == RIGHT {
            api.edit(|state| state.error = None);
            api.list(7, 8);
        } else {
            app.restart_after(|folder| change(folder, path, RIGHT)).await;
        }
        sync(&app, "incremental").await;
        let all = if path == RIGHT { 8 } else { 7 };
        assert_eq!(books(&app).await, ([all, all, 0, 0], true));
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_moves_makes_no_document_gone() {
    let (api, address) = Api::open(9).await;
    let app = app(&address, RIGHT).await;
    assert_eq!(books(&app).await, ([9, 9, 0, 0], true));
    api.edit(|state| state.error = Some(404));
    api.list(9, 21);
    sync(&app, "incremental").await;
    assert_eq!(books(&app).await, ([21, 9, 12, 0], false));
    for reason in parked(&app).await {
        assert!(reason.contains("since /things/{id} last sent one"), "{reason}");
    }
    let health = app.status().await["health"].clone();
    assert_eq!(health["level"], "failing", "{health}");
    assert!(health["reasons"].to_string().contains("its detail calls fail"), "{health}");
    // It comes back.
    api.edit(|state| state.error = None);
    api.list(21, 22);
    sync(&app, "incremental").await;
    assert_eq!(books(&app).await, ([22, 22, 0, 0], true));
    assert_eq!(app.status().await["health"]["level"], "ok");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_is_gone_is_gone_once_another_was_answered() {
    let (api, address) = Api::open(1).await;
    api.edit(|state| state.gone = BTreeSet::from(["t00".to_owned()]));
    let app = app(&address, RIGHT).await;
    assert_eq!(books(&app).await, ([1, 0, 1, 0], false));
    api.details();
    for _ in 0..3 {
        sync(&app, "full").await;
    }
    assert_eq!(api.details(), 0, "it costs nothing meanwhile");
    api.list(1, 5);
    sync(&app, "incremental").await;
    assert_eq!(books(&app).await, ([5, 4, 0, 1], true));
    // One at a time, any number may be gone.
    for n in 5..17 {
        api.edit(|state| state.gone.extend([format!("t{n:02}")]));
        api.list(n, n + 1);
        sync(&app, "incremental").await;
        api.list(n + 100, n + 101);
        sync(&app, "incremental").await;
    }
    assert_eq!(books(&app).await, ([29, 16, 0, 13], true));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_from_the_wrong_pointer_are_not_gone() {
    let (_api, address) = Api::open(6).await;
    let mut app = app(&address, RIGHT).await;
    assert_eq!(books(&app).await, ([6, 6, 0, 0], true));
    app.restart_after(|folder| change(folder, "id = \"/id\"", "id = \"/number\"")).await;
    sync(&app, "incremental").await;
    let ([listed, stored, parked, gone], complete) = books(&app).await;
    assert_eq!((listed, stored, parked, gone, complete), (12, 6, 6, 0, false));
    app.expect_parked(6);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_children_that_no_parent_has_are_not_empty() {
    for (path, state) in [("/parts/{parent}", "unproved"), ("/parts/of/{parent}", "done")] {
        let (_api, address) = Api::open(3).await;
        let more = format!(
            "{}[resource.parts]\nid = \"/id\"\nparent = \"things\"\n[resource.parts.list]\npath = \"{path}\"\n\
             items = \"/items\"\npages = {{ style = \"none\" }}\n[resource.parts.table]\n",
            definition(RIGHT)
        );
        let app = app_of(&address, &["things", "parts"], &more).await;
        let runs = app.runs("shop").await;
        let run = runs.iter().find(|run| run["resource"] == "parts").unwrap();
        assert_eq!(run["state"], state, "{run}");
        let is_told = run["error"].to_string().contains("is resource.parts.list.path right?");
        assert_eq!(is_told, state == "unproved", "{run}");
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_not_there_is_not_empty_although_its_lists_end_with_404() {
    let (_api, address) = Api::open(3).await;
    let definition = definition_with(RIGHT, &["/nothing", "/things/*"])
        .replace("path = \"/things\"\n", "path = \"/nothing\"\nend = { status = [404] }\n")
        .replace("style = \"none\"", "style = \"number\", parameter = \"page\"");
    let mut app = app_of(&address, &["things"], &definition).await;
    let run = app.runs("shop").await.remove(0);
    assert_eq!(run["state"], "failed", "{run}");
    assert!(!books(&app).await.1);
    app.expect_failed_runs(1);
    app.expect_parked(1);
    app.finish().await;
}
