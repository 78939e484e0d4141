//! A headless Chromium with one page, driven over its debugging pipe (file descriptors 3 and 4; JSON messages, each
//! ended by a zero byte). Dropping it ends the browser.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A cold start of the browser on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pipe is standard input and output of the shell; the browser itself gets neither.
const ON_A_PIPE: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";

/// The browser's path, if it is installed.
pub(crate) fn program() -> Option<&'static str> {
    let known = ["chromium", "chromium-browser", "google-chrome"];
    known.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok_and(|ran| ran.status.success()))
}

pub(crate) struct Browser {
    child: Child,
    pipe: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    asked: u64,
    /// Events received.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts the browser with an empty page that runs `first` before anything else in every document.
    pub(crate) fn open(first: &str) -> Browser {
        let profile = tempfile::Builder::new().prefix("waybill-rig-browser-").tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", ON_A_PIPE, program().unwrap(), "--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--disable-breakpad", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (pipe, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = channel();
        // Removed when the browser ends.
        std::thread::spawn(move || {
            for message in BufReader::new(out).split(0).map_while(Result::ok) {
                drop(sender.send(serde_json::from_slice(&message).unwrap()));
            }
        });
        let (session, events) = (None, Vec::new());
        let mut browser = Browser { child, pipe, messages, session, asked: 0, events, _profile: profile };
        let page = browser.ask("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.ask("Target.attachToTarget", json!({"targetId": page, "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            browser.ask(domain, json!({}));
        }
        browser.ask("Page.addScriptToEvaluateOnNewDocument", json!({"source": first}));
        browser
    }

    /// Sends a command and returns its result.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.pipe.write_all(format!("{message}\0").as_bytes()).unwrap();
        let begun = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let message = self.messages.recv_timeout(left).unwrap_or_else(|_| panic!("no answer to {method}"));
            if message["id"] == json!(self.asked) {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            if message["method"] == "Page.javascriptDialogOpening" {
                // An open dialog would block everything else.
                let close = json!({"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": false},
                    "sessionId": self.session});
                self.pipe.write_all(format!("{close}\0").as_bytes()).unwrap();
            }
            self.events.push(message);
        }
    }

    pub(crate) fn go(&mut self, address: &str) {
        let went = self.ask("Page.navigate", json!({"url": address}));
        assert!(went["errorText"].is_null(), "{address}: {went}");
    }

    /// Evaluates an expression in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let found = self.ask("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) fn until(&mut self, expression: &str) {
        let begun = Instant::now();
        while self.value(expression) != json!(true) {
            let shown = || format!("never true: {expression}");
            assert!(begun.elapsed() < PATIENCE, "{}\n{}", shown(), self.value("document.body.innerText"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the events of these kinds received so far.
    pub(crate) fn events(&self, kinds: &[&str]) -> Vec<&Value> {
        self.events.iter().filter(|event| kinds.iter().any(|kind| event["method"] == *kind)).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helper processes are in its group, except the crash handlers, which end with it. All of this fails only
        // if it has already ended.
        let group = format!("-{}", self.child.id());
        drop(Command::new("sh").args(["-c", "kill -KILL $0", &group]).status());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
