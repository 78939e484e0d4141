//! The simulated marketplace: things that are added, changed and removed, behind a bad network. It records when each
//! call arrived, and checks that no limit was exceeded.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::catalog::RuleTable;
use crate::domain::Timestamp;
use crate::domain::clock::rfc3339;
use crate::source::{Call, Credentials, Ending, Outcome, SourceError, Upstream};

/// Rows of a page.
const PAGE_ROWS: usize = 5;
/// Timeout of our client.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A call that leaves this soon after a request to wait could not know of it.
const UNAWARE_US: i64 = 2_000;
pub(super) const KINDS: [&str; 2] = ["a", "b"];

/// One thing for sale.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) id: String,
    at: Timestamp,
    /// Version of what the list shows.
    row: u32,
    /// Version of what only the document shows.
    document: u32,
    /// The document is final.
    done: bool,
}

impl Thing {
    fn row(&self) -> Value {
        json!({"id": self.id, "at": rfc3339(self.at), "row": self.row})
    }

    pub(super) fn document(&self) -> Value {
        let code = if self.done { "DONE" } else { "MOVING" };
        let events = json!([{"code": code, "count": self.document}]);
        json!({"id": self.id, "at": rfc3339(self.at), "row": self.row, "events": events})
    }
}

pub(super) struct Market {
    rules: RuleTable,
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    /// The world's time at an instant of the running process.
    begun: (Timestamp, Instant),
    /// By client and kind, newest first.
    shelves: BTreeMap<(String, &'static str), Vec<Thing>>,
    made: u32,
    /// Share of calls that fail, in percent.
    trouble: u8,
    /// When calls arrived, in microseconds of the world, by client and rule.
    arrivals: BTreeMap<(String, String), Vec<i64>>,
    /// When a client was asked to wait, and until when, by client and rule; in microseconds of the world.
    waits: BTreeMap<(String, String), (i64, i64)>,
    /// Calls that left although their client had been asked to wait.
    impatient: Vec<String>,
    calls: u64,
}

impl State {
    fn now_us(&self) -> i64 {
        let since = i64::try_from(self.begun.1.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.begun.0.as_millis() * 1_000 + since
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now_us() / 1_000)
    }
}

impl Market {
    pub(super) fn new(seed: u64, rules: RuleTable, clients: &[String], things: usize, now: Timestamp) -> Market {
        let random = fastrand::Rng::with_seed(seed);
        let state = State {
            random,
            begun: (now, Instant::now()),
            shelves: BTreeMap::new(),
            made: 0,
            trouble: 0,
            arrivals: BTreeMap::new(),
            waits: BTreeMap::new(),
            impatient: Vec::new(),
            calls: 0,
        };
        let market = Market { rules, state: Mutex::new(state) };
        for client in clients {
            for kind in KINDS {
                market.state().shelves.insert((client.clone(), kind), Vec::new());
                let count = market.state().random.usize(0..things);
                for place in (0..count).rev() {
                    let age = Duration::from_secs(place as u64 * 5 * 3_600);
                    market.add(client, kind, now - age);
                }
            }
        }
        market
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new process at this time of the world. One with `another_clock` cannot know how long ago it was
    /// asked to wait.
    pub(super) fn begin(&self, now: Timestamp, trouble: u8, another_clock: bool) {
        let mut state = self.state();
        if another_clock {
            state.waits.clear();
        }
        state.begun = (now, Instant::now());
        state.trouble = trouble;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.state().now()
    }

    fn add(&self, client: &str, kind: &'static str, at: Timestamp) {
        let mut state = self.state();
        state.made += 1;
        let done = state.random.u8(..3) == 0;
        // Ids of different shops may be equal, as in reality.
        let id = format!("{kind}{:04}", state.made);
        let shelf = state.shelves.entry((client.to_owned(), kind)).or_default();
        shelf.insert(0, Thing { id, at, row: 0, document: 0, done });
    }

    /// Adds, changes or removes a random thing.
    pub(super) fn change(&self) {
        let mut state = self.state();
        let shelves: Vec<(String, &'static str)> = state.shelves.keys().cloned().collect();
        let Some(place) = state.random.choice(shelves) else { return };
        let now = state.now();
        let what = state.random.u8(..10);
        let count = state.shelves.get(&place).map_or(0, Vec::len);
        if what < 4 || count == 0 {
            drop(state);
            return self.add(&place.0, place.1, now);
        }
        let at = state.random.usize(..count);
        let Some(shelf) = state.shelves.get_mut(&place) else { return };
        match what {
            4 | 5 => shelf[at].row += 1,
            6 => drop(shelf.remove(at)),
            _ if shelf[at].done => {}
            7 | 8 => shelf[at].document += 1,
            _ => shelf[at].done = true,
        }
    }

    /// All things of a client.
    pub(super) fn truth(&self, client: &str) -> Vec<Thing> {
        let state = self.state();
        KINDS.iter().filter_map(|kind| state.shelves.get(&(client.to_owned(), *kind))).flatten().cloned().collect()
    }

    pub(super) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Sliding windows with more calls than their rule allows, and calls that ignored a request to wait.
    pub(super) fn breaches(&self) -> Vec<String> {
        let state = self.state();
        let mut found = state.impatient.clone();
        for ((client, rule), arrivals) in &state.arrivals {
            let Some(limit) = self.rules.rules().iter().find(|known| known.name == *rule).and_then(|rule| rule.limit)
            else {
                continue;
            };
            let mut arrivals = arrivals.clone();
            arrivals.sort_unstable();
            let window = i64::try_from(limit.window.as_micros()).unwrap_or(i64::MAX);
            let width = limit.calls as usize;
            for calls in arrivals.windows(width + 1) {
                let span = calls[width] - calls[0];
                if span < window {
                    found.push(format!("{client} {rule}: {} calls within {span} us", width + 1));
                }
            }
        }
        found
    }

    /// The API's answer, before the network damages it.
    fn answer(&self, client: &str, call: &Call) -> Result<Bytes, SourceError> {
        let mut state = self.state();
        let parameter =
            |name: &str| call.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let body = if let Some(id) = call.path.strip_prefix("/things/") {
            let shelves = KINDS.iter().filter_map(|kind| state.shelves.get(&(client.to_owned(), *kind)));
            let thing = shelves.flatten().find(|thing| thing.id == id);
            thing.ok_or_else(|| SourceError::NotFound { status: 404, detail: String::new() })?.document()
        } else {
            let kind = KINDS.iter().find(|kind| parameter("kind") == Some(kind)).copied().unwrap_or("a");
            let page: usize = parameter("page").and_then(|page| page.parse().ok()).unwrap_or(1);
            let shelf = state.shelves.get(&(client.to_owned(), kind)).map(Vec::as_slice).unwrap_or_default();
            let rows: Vec<Value> = shelf.iter().skip((page - 1) * PAGE_ROWS).take(PAGE_ROWS).map(Thing::row).collect();
            // The API ends lists in either way.
            if rows.is_empty() && state.random.bool() { json!({}) } else { json!({"things": rows}) }
        };
        Ok(Bytes::from(body.to_string()))
    }

    async fn call(&self, credentials: &Credentials, call: &Call) -> Outcome {
        let client = &credentials.client_id;
        let (there, back, trouble, arrives) = {
            let mut state = self.state();
            let there = Duration::from_micros(state.random.u64(500..200_000));
            let back = Duration::from_micros(state.random.u64(500..200_000));
            let trouble = (state.random.u8(..100) < state.trouble).then(|| state.random.u8(..8));
            let arrives = trouble != Some(0);
            if arrives {
                // Recorded when it leaves: it arrives even if its sender is killed meanwhile.
                let at = state.now_us() + i64::try_from(there.as_micros()).unwrap_or(0);
                if let Some(rule) = self.rules.find("GET", &call.path) {
                    let (place, left) = ((client.clone(), rule.name.clone()), state.now_us());
                    if let Some((asked, until)) = state.waits.get(&place).copied()
                        && (asked + UNAWARE_US..until).contains(&left)
                    {
                        state.impatient.push(format!("{place:?}: left {} us too early", until - left));
                    }
                    state.arrivals.entry(place).or_default().push(at);
                }
                state.calls += 1;
            }
            (there, back, trouble, arrives)
        };
        let begun = Instant::now();
        sleep(there).await;
        if !arrives {
            let result = Err(SourceError::Unreachable("refused".to_owned()));
            return Outcome::plain(result, Ending::NotSent);
        }
        let answer = self.answer(client, call);
        let (result, ending) = match trouble {
            None => (answer, Ending::Answered),
            Some(1) => (Err(SourceError::Interrupted("reset".to_owned())), Ending::Lost),
            Some(2) => {
                sleep_until(begun + TIMEOUT).await;
                (Err(SourceError::TimedOut), Ending::Lost)
            }
            Some(3) => (Err(SourceError::Unavailable { status: 503, retry_after: None }), Ending::Answered),
            Some(4) => {
                let retry_after = Some(Duration::from_secs(7));
                (Err(SourceError::Unavailable { status: 503, retry_after }), Ending::Answered)
            }
            Some(5) => (Err(SourceError::Unauthorized), Ending::Answered),
            Some(6) => (Ok(Bytes::from_static(b"<html>busy</html>")), Ending::Answered),
            Some(_) => (answer.map(|body| body.slice(..body.len() / 2)), Ending::Answered),
        };
        sleep(back).await;
        if let (Err(SourceError::Unavailable { retry_after: Some(pause), .. }), Some(rule)) =
            (&result, self.rules.find("GET", &call.path))
        {
            let mut state = self.state();
            let asked = state.now_us();
            let until = asked + i64::try_from(pause.as_micros()).unwrap_or(0);
            state.waits.insert((client.clone(), rule.name.clone()), (asked, until));
        }
        Outcome::plain(result, ending)
    }
}

impl Upstream for Market {
    fn get<'a>(&'a self, credentials: &'a Credentials, call: &'a Call) -> BoxFuture<'a, Outcome> {
        Box::pin(self.call(credentials, call))
    }

    fn login(&self, _: &Credentials) -> Option<BoxFuture<'static, ()>> {
        None
    }

    fn forget(&self, _: &str) {}

    fn close(&self) {}
}
