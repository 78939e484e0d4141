//! What each surface says at one moment, and whether that is what it should say.

#![expect(clippy::print_stderr, reason = "a test says what it skips")]

use std::sync::{Arc, Mutex};

use reqwest::{Client, Method};
use serde_json::Value;

use super::browser::{self, Browser};
use super::schedules::Since;
use crate::support::program::{ADMIN_KEY, Folder, Serving};

/// The surfaces, in the order of the table.
pub(super) const SURFACES: [&str; 6] = ["status", "/readyz", "metrics", "log", "dashboard", "waybill status"];

/// Whether a surface says what it should; else what it says instead.
pub(super) type Said = Result<String, String>;

/// What a fault is about.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) shop: String,
    /// None: the installation as a whole.
    pub(super) resource: Option<&'static str>,
    /// Each of the reasons holds one of these.
    pub(super) words: &'static [&'static str],
    /// The streams are fresh all the same.
    pub(super) all_fresh: bool,
}

impl About {
    /// The resource whose runs show that time has passed.
    pub(super) fn resource(&self) -> &'static str {
        self.resource.unwrap_or("shipments")
    }
}

/// One browser for all rows, where there is one.
#[derive(Clone)]
pub(super) struct Dashboard(Option<Arc<Mutex<Browser>>>);

impl Dashboard {
    pub(super) fn open() -> Dashboard {
        if browser::program().is_none() {
            eprintln!("SKIPPED: the dashboard in a browser, there is no Chromium");
            return Dashboard(None);
        }
        let key = format!("sessionStorage.setItem('waybill-key', '{ADMIN_KEY}')");
        Dashboard(Some(Arc::new(Mutex::new(Browser::open(&key)))))
    }

    /// The lamp, its word, the headline and the states of resources. None: there is no browser.
    fn look(&self, base: &str) -> Option<Value> {
        let mut browser = self.0.as_ref()?.lock().unwrap();
        browser.go(&format!("{base}/"));
        browser.until("document.readyState === 'complete' && document.querySelectorAll('#shops .states').length > 0");
        let shown = browser.value(
            "({lamp: document.getElementById('state').className, word: document.getElementById('state').textContent, \
             headline: document.getElementById('headline').textContent, \
             reasons: document.getElementById('reasons').textContent, \
             chips: [...document.querySelectorAll('#shops .states .chip')].map((chip) => chip.textContent)})",
        );
        browser.go("about:blank");
        Some(shown)
    }
}

/// What the service says at one moment.
pub(super) struct Seen {
    shops: Value,
    status: Value,
    word: (u16, Value),
    reasons: (u16, Value),
    metrics: String,
}

impl Seen {
    pub(super) async fn at(serving: &Serving, metrics: &str) -> Seen {
        let http = Client::new();
        let word = http.get(format!("{}/readyz", serving.base)).send().await.unwrap();
        Seen {
            shops: serving.get("/api/v1/shops").await,
            word: (word.status().as_u16(), word.json().await.unwrap()),
            reasons: {
                let answer = serving.call(Method::GET, "/readyz").send().await.unwrap();
                (answer.status().as_u16(), answer.json().await.unwrap())
            },
            status: serving.get("/api/v1/status").await,
            metrics: http.get(metrics).send().await.unwrap().text().await.unwrap(),
        }
    }

    /// The state of one resource, or the word for a shop that is gone.
    fn state(&self, shop: &str, resource: &str) -> &str {
        let shop = self.shops["items"].as_array().unwrap().iter().find(|one| one["id"] == shop);
        let of =
            shop.and_then(|shop| shop["resources_health"].as_array()?.iter().find(|one| one["resource"] == resource));
        of.and_then(|one| one["state"].as_str()).unwrap_or("absent")
    }

    fn states(&self) -> Vec<&str> {
        let shops = self.shops["items"].as_array().unwrap().iter();
        shops
            .flat_map(|shop| shop["resources_health"].as_array().unwrap())
            .map(|one| one["state"].as_str().unwrap())
            .collect()
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let line = self.metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    fn shops_that_are(&self, state: &str) -> f64 {
        self.metric(&format!("waybill_shops{{state=\"{state}\"}}")).unwrap_or(f64::NAN)
    }

    fn not_fresh(&self) -> Vec<&'static str> {
        let states = ["paused", "behind", "unproved", "failing", "refused"];
        states.into_iter().filter(|state| self.shops_that_are(state) > 0.0).collect()
    }

    /// What status, `/readyz` and metrics say while the fault lasts.
    pub(super) fn unwell(&self, about: &About) -> [Said; 3] {
        [self.status_unwell(about), self.ready_unwell(about), self.metrics_unwell(about)]
    }

    fn status_unwell(&self, about: &About) -> Said {
        let health = &self.status["health"];
        let reasons = health["reasons"].as_array().ok_or_else(|| self.status.to_string())?;
        let ours = reasons.iter().find(|reason| match about.resource {
            Some(resource) => reason["shop_id"] == about.shop.as_str() && reason["resource"] == resource,
            None => reason["shop_id"].is_null(),
        });
        let state = self.state(&about.shop, about.resource());
        let Some(reason) = ours.filter(|_| health["level"] != "ok" && (state == "fresh") == about.all_fresh) else {
            return Err(format!("{state}, {health}"));
        };
        let (text, remedy) = (reason["text"].as_str().unwrap(), reason["remedy"].as_str().unwrap());
        if remedy.is_empty() || !about.words.iter().any(|word| text.contains(word)) {
            return Err(format!("{state}, {reason}"));
        }
        Ok(format!("{} {state}/{}", health["level"].as_str().unwrap(), reason["code"].as_str().unwrap()))
    }

    fn ready_unwell(&self, about: &About) -> Said {
        let (with_key, without) = (self.reasons.1.to_string(), self.word.1.to_string());
        let named = about.resource.is_none_or(|resource| with_key.contains(&format!("{}/{resource}", about.shop)));
        let is_unwell = |(status, body): &(u16, Value)| *status == 503 || body["status"] == "degraded";
        let leaks = without.contains(&about.shop) || self.word.1.get("reasons").is_some();
        if !is_unwell(&self.word) || !is_unwell(&self.reasons) || !named || leaks {
            return Err(format!("without a key {without}; with one {with_key}"));
        }
        Ok(self.word.1["status"].as_str().map_or_else(|| "503".to_owned(), str::to_owned))
    }

    fn metrics_unwell(&self, about: &About) -> Said {
        let level = self.metric("waybill_health_level").unwrap_or(0.0);
        let states = self.not_fresh();
        let age = self.age(about);
        if level <= 0.0 || states.is_empty() != about.all_fresh || age.is_none() {
            return Err(format!("level {level}, shops {states:?}, age {age:?}"));
        }
        Ok(format!("level {level}, {}", states.join("+")))
    }

    /// `waybill_stream_age_seconds` of what the fault is about.
    pub(super) fn age(&self, about: &About) -> Option<f64> {
        let (shop, resource) = (&about.shop, about.resource());
        self.metric(&format!("waybill_stream_age_seconds{{shop=\"{shop}\",resource=\"{resource}\"}}"))
    }

    /// What they say when all is well.
    pub(super) fn well(&self) -> [Said; 3] {
        let states = self.states();
        let health = &self.status["health"];
        let is_well = health["level"] == "ok" && health["reasons"] == serde_json::json!([]);
        let all_fresh = states.iter().all(|state| *state == "fresh") && !states.is_empty();
        let status = if is_well && all_fresh { Ok("ok".to_owned()) } else { Err(format!("{states:?}, {health}")) };
        let ready =
            [&self.word, &self.reasons].iter().all(|(status, body)| *status == 200 && body["status"] == "ready");
        let ready = if ready { Ok("ready".to_owned()) } else { Err(format!("{:?}, {:?}", self.word, self.reasons)) };
        let (level, bad) = (self.metric("waybill_health_level"), self.not_fresh());
        let metrics = if level == Some(0.0) && bad.is_empty() && self.shops_that_are("fresh") > 0.0 {
            Ok("level 0".to_owned())
        } else {
            Err(format!("level {level:?}, shops {bad:?}"))
        };
        [status, ready, metrics]
    }
}

/// The dashboard while the fault lasts; without a browser what it is drawn from says it.
pub(super) fn dashboard_unwell(dashboard: &Dashboard, base: &str, about: &About) -> Said {
    let Some(shown) = dashboard.look(base) else { return Ok("as status".to_owned()) };
    let lamp = shown["lamp"].as_str().unwrap();
    // The headline is the worst reason; all of them are listed when there are more.
    let named = about.resource.is_none_or(|resource| {
        let name = format!("Shop ill, {resource}: ");
        ["headline", "reasons"].iter().any(|part| shown[part].as_str().unwrap().contains(&name))
    });
    let is_green = lamp.contains("good") || lamp.contains("busy");
    let all_fresh = shown["chips"].as_array().unwrap().iter().all(|chip| chip == "fresh");
    if is_green || !named || all_fresh != about.all_fresh {
        return Err(shown.to_string());
    }
    Ok(shown["word"].as_str().unwrap().to_owned())
}

/// The dashboard when all is well.
pub(super) fn dashboard_well(dashboard: &Dashboard, base: &str) -> Said {
    let Some(shown) = dashboard.look(base) else { return Ok("as status".to_owned()) };
    let is_green = ["lamp good", "lamp busy"].iter().any(|lamp| shown["lamp"] == *lamp);
    let all_fresh = shown["chips"].as_array().unwrap().iter().all(|chip| chip == "fresh");
    if is_green && all_fresh { Ok(shown["word"].as_str().unwrap().to_owned()) } else { Err(shown.to_string()) }
}

/// Lines of the service's log, as JSON.
pub(super) fn log(folder: &Folder) -> Vec<Value> {
    let text = crate::support::program::lossy(&folder.path("serve.stderr"));
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn is_about(line: &Value, about: &About) -> bool {
    match about.resource {
        Some(resource) => line["shop.id"] == about.shop.as_str() && line["resource"] == resource,
        None => line.get("shop.id").is_none_or(Value::is_null),
    }
}

/// The warning that a fault began, among the lines after the first `from`; it comes within this number of schedules.
pub(super) fn log_unwell(folder: &Folder, from: usize, about: &About, (since, allowed): (Since, u64)) -> Said {
    let lines = log(folder);
    let new = lines.get(from..).unwrap_or_default();
    let found = new.iter().position(|line| {
        line["level"] == "WARN" && line["code"].as_str().is_some_and(|code| code != "parked") && is_about(line, about)
    });
    let Some(at) = found else { return Err(format!("no warning in {} lines", new.len())) };
    within(&new[..at], about, (since, allowed)).map(|()| format!("WARN {}", new[at]["code"].as_str().unwrap()))
}

/// The line that it is over; it comes within this number of schedules.
pub(super) fn log_well(folder: &Folder, from: usize, about: &About, (since, allowed): (Since, u64)) -> Said {
    let lines = log(folder);
    let new = lines.get(from..).unwrap_or_default();
    let Some(at) = new.iter().position(|line| line["message"] == "well again" && is_about(line, about)) else {
        let is_health = |line: &&Value| line["message"] == "well again" || line["message"] == "not well";
        let health: Vec<String> = lines.iter().filter(is_health).map(Value::to_string).collect();
        return Err(format!("no end in {} lines; of the health it says:\n{}", new.len(), health.join("\n")));
    };
    let done: Vec<Value> = new[..at].iter().filter(|line| line["result"] == "done").cloned().collect();
    within(&done, about, (since, allowed)).map(|()| "INFO".to_owned())
}

fn within(before: &[Value], about: &About, (since, allowed): (Since, u64)) -> Result<(), String> {
    match since.logged_before(before, about) {
        walked if walked > allowed => Err(format!("not within {allowed} schedules: {walked} runs ended before it")),
        _ => Ok(()),
    }
}

/// `waybill status` on the data directory at rest, with a schedule of its own.
pub(super) fn command(folder: &Folder, code: i32, schedule: &str, about: &About) -> Said {
    let mut command = folder.command(&["status"]);
    let ended = command.env("WAYBILL_SCHEDULE_SYNC", schedule).env("WAYBILL_LOG_FORMAT", "text").output().unwrap();
    let out = String::from_utf8_lossy(&ended.stdout).into_owned();
    let err = String::from_utf8_lossy(&ended.stderr).into_owned();
    let named = about.resource.is_none_or(|resource| out.contains(&format!("{} {resource}: ", about.shop)));
    let explained = about.words.iter().any(|word| out.contains(word));
    if ended.status.code() != Some(code) || (code == 1 && !(named && explained)) || out.is_empty() {
        return Err(format!("exit {:?}: {out}{err}", ended.status.code()));
    }
    Ok(format!("exit {code}"))
}
