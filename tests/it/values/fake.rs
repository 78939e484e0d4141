//! An API of one list whose answers are given byte by byte, and an app that syncs it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use warp::Filter as _;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::support::app::TestApp;
use crate::support::mariadb::Database;

/// A status, headers and a body.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Answer {
        Answer { status: 200, headers: Vec::new(), body: body.into() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }
}

/// What each path answers, in order; the last answer is given again and again.
#[derive(Default)]
pub(super) struct Fake {
    answers: Mutex<BTreeMap<String, VecDeque<Answer>>>,
    calls: Mutex<Vec<String>>,
}

impl Fake {
    pub(super) fn set(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().unwrap().insert(path.to_owned(), answers.into_iter().collect());
    }

    /// The list, of rows as they are sent.
    pub(super) fn set_rows<'a>(&self, rows: impl IntoIterator<Item = &'a str>) {
        let rows: Vec<&str> = rows.into_iter().collect();
        self.set("/things", [Answer::ok(format!("{{\"items\":[{}]}}", rows.join(",")))]);
    }

    pub(super) fn calls(&self, path: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| *call == path).count()
    }

    fn answer(&self, path: &str) -> Answer {
        self.calls.lock().unwrap().push(path.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let found = answers
            .get_mut(path)
            .and_then(|answers| if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() });
        found.unwrap_or(Answer { status: 404, headers: Vec::new(), body: b"{}".to_vec() })
    }
}

/// Starts it; its address.
pub(super) async fn fake() -> (Arc<Fake>, String) {
    let fake = Arc::new(Fake::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::clone(&fake);
    let answer = move |path: warp::path::FullPath| {
        let Answer { status, headers, body } = shared.answer(path.as_str());
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        for (name, value) in headers {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        response
    };
    tokio::spawn(warp::serve(warp::get().and(warp::path::full()).map(answer)).incoming(listener).run());
    (fake, address)
}

/// The definition of `things`: lines of its own, of its list, and its columns and what else its table has.
#[derive(Default)]
pub(super) struct Things<'a> {
    pub(super) own: &'a str,
    pub(super) list: &'a str,
    pub(super) columns: &'a str,
    pub(super) table: &'a str,
}

impl Things<'_> {
    pub(super) fn toml(&self) -> String {
        let Things { own, list, columns, table } = self;
        let detail = if own.contains("detail") { "\"GET /things/*\" = \"none\"\n" } else { "" };
        format!(
            "[source.limits]\n\"GET /things\" = \"none\"\n{detail}[resource.things]\nid = \"/id\"\n{own}\n\
             [resource.things.list]\npath = \"/things\"\nitems = \"/items\"\npages = {{ style = \"none\" }}\n{list}\n\
             [resource.things.table]\n{table}\n[resource.things.table.columns]\n{columns}\n"
        )
    }

    /// An app that has synced the list once.
    pub(super) async fn synced(&self, address: &str, mysql: Option<&Database>) -> TestApp {
        let mut builder = TestApp::builder()
            .source(&format!("base_url = \"{address}\"\nauth = \"api-key\"\napi_key_header = \"X-Key\""))
            .resources(&["things"])
            .toml(&self.toml())
            .unregistered();
        if let Some(database) = mysql {
            builder = builder.mysql(database.url());
        }
        let mut app = builder.start().await;
        app.register("shop").await;
        app.run_until_idle().await;
        app
    }
}

pub(super) const DETAIL: &str = "detail = { path = \"/things/{id}\" }";
