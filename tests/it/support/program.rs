//! The real binary as a child process: a folder of its own, no inherited configuration, and ends that
//! cannot be missed. A child that a test leaves running is killed when its value drops.
//!
//! Both test binaries use this file. `WAYBILL_RIG_BINARY` names another build to run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use sandbox::{Clock, Options, Sandbox};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Nothing that a test asks of the binary takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// A pause of loops that wait for another process.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A pause between questions to the API, which limits how often a key may ask.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// The admin key of every folder.
pub(crate) const ADMIN_KEY: &str = "canary-admin-key-7f3a91c2d4e5b6a8";

/// The program under test.
fn binary() -> String {
    std::env::var("WAYBILL_RIG_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_waybill").to_owned())
}

/// A sandbox in this process, on a port of its own.
pub(crate) struct Market {
    pub(crate) sandbox: Sandbox,
    pub(crate) base: String,
}

impl Market {
    /// Serves it until the test's runtime ends; give it a runtime with threads.
    pub(crate) async fn open(options: Options) -> Market {
        Market::at(TcpListener::bind("127.0.0.1:0").await.unwrap(), "127.0.0.1", options)
    }

    /// The same on a socket of the caller's; `host` is what the service calls its address.
    pub(crate) fn at(listener: TcpListener, host: &str, options: Options) -> Market {
        drop(rustls::crypto::ring::default_provider().install_default());
        let sandbox = Sandbox::new(options, Clock::system()).unwrap();
        let base = format!("http://{host}:{}", listener.local_addr().unwrap().port());
        tokio::spawn(sandbox.clone().serve(listener, std::future::pending()));
        Market { sandbox, base }
    }
}

/// A folder with a configuration, and the commands that run in it.
pub(crate) struct Folder {
    pub(crate) dir: TempDir,
    environment: BTreeMap<String, String>,
    /// A command that runs the binary: its name and the arguments before the binary's path.
    under: Vec<String>,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// The exit code is this; else the test fails and shows everything.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "\n-- stdout\n{}\n-- stderr\n{}", self.out, self.err);
        self
    }
}

impl Folder {
    /// Without any configuration but a port that no other test uses: `check` fails on one that is taken.
    pub(crate) fn bare() -> Folder {
        let dir = tempfile::Builder::new().prefix("waybill-it-").tempdir().unwrap();
        let listen = ("WAYBILL_HTTP_LISTEN".to_owned(), "127.0.0.1:0".to_owned());
        Folder { dir, environment: BTreeMap::from([listen]), under: Vec::new() }
    }

    /// Configured to sync from `market`, on request only, and to listen on any port. `more` is TOML.
    pub(crate) fn at(market: &str, more: &str) -> Folder {
        let mut folder = Folder::bare();
        folder.write(
            "waybill.toml",
            &format!(
                "[http]\nlisten = \"127.0.0.1:0\"\n[source]\nbase_url = \"{market}\"\ntoken_url = \"{market}/token\"\n\
                 [schedule]\nsync = \"0 0 0 1 1 *\"\nreconcile = \"0 0 0 1 1 *\"\n{more}"
            ),
        );
        folder.set("WAYBILL_ADMIN_KEY", ADMIN_KEY);
        folder
    }

    /// A variable of all commands from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// From now on the binary runs under this command, which must leave the process ours: a child of
    /// the test, with the binary's exit code. Empty: by itself.
    pub(crate) fn run_under(&mut self, command: &[&str]) {
        self.under = command.iter().map(|&part| part.to_owned()).collect();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file for this user alone, as one with a password must be.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let mut options = File::options();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let binary = binary();
        let mut words = self.under.iter().chain([&binary]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        self.started(command, arguments)
    }

    fn started(&self, mut command: Command, arguments: &[&str]) -> Command {
        let kept = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("WAYBILL_"));
        command.args(arguments).current_dir(self.dir.path()).env_clear().envs(kept).envs(&self.environment);
        command
    }

    /// Runs a command to its end with nothing on its standard input.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.feed(arguments, "")
    }

    /// The same with a text on its standard input.
    pub(crate) fn feed(&self, arguments: &[&str], input: &str) -> Ended {
        let (out, err) = (self.path("run.stdout"), self.path("run.stderr"));
        let mut child = Killed(
            self.command(arguments)
                .stdin(Stdio::piped())
                .stdout(File::create(&out).unwrap())
                .stderr(File::create(&err).unwrap())
                .spawn()
                .unwrap(),
        );
        // A command that reads no input may be gone by now.
        drop(child.0.stdin.take().unwrap().write_all(input.as_bytes()));
        let status = child.wait(PATIENCE, &format!("{arguments:?}"));
        let ended = Ended { code: status.code(), out: lossy(&out), err: lossy(&err) };
        self.keep(&format!("$ waybill {}\n{}{}", arguments.join(" "), ended.out, ended.err));
        ended
    }

    /// Adds to what all commands of the folder have said.
    fn keep(&self, text: &str) {
        let mut file = File::options().create(true).append(true).open(self.path("said.log")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Everything that commands have said so far, `serve` included.
    pub(crate) fn said(&self) -> String {
        ["said.log", "serve.stdout", "serve.stderr"].iter().map(|name| lossy(&self.path(name))).collect()
    }

    /// Starts `serve` without waiting for it. Its log goes to `serve.stderr`.
    pub(crate) fn spawn_serve(&self) -> Serving {
        self.serving(self.command(&["serve"]))
    }

    /// The same with room for so few open files, sockets among them.
    pub(crate) fn spawn_serve_with_files(&self, most: u32) -> Serving {
        let limited = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
        self.serving(self.started(Command::new("sh"), &["-c", &limited, &binary(), "serve"]))
    }

    /// Starts any command without waiting for it.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Serving {
        self.serving(self.command(arguments))
    }

    fn serving(&self, mut command: Command) -> Serving {
        let err = File::options().create(true).append(true).open(self.path("serve.stderr")).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(err).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut kept = File::options().create(true).append(true).open(self.path("serve.stdout")).unwrap();
        let (sender, lines) = channel();
        let reader = std::thread::spawn(move || {
            // Ends when the child closes its output; no one may be listening by then.
            for line in out.lines().map_while(Result::ok) {
                writeln!(kept, "{line}").unwrap();
                drop(sender.send(line));
            }
        });
        let log = self.path("serve.stderr");
        let lines = Mutex::new(lines);
        Serving { child: Killed(child), lines, reader: Some(reader), log, base: String::new(), http: Client::new() }
    }

    /// Starts `serve` and waits until it listens.
    pub(crate) fn serve(&self) -> Serving {
        let mut serving = self.spawn_serve();
        serving.listening();
        serving
    }
}

/// A running `waybill serve`.
pub(crate) struct Serving {
    child: Killed,
    /// Behind a lock only so that a test may hold it over an await.
    lines: Mutex<Receiver<String>>,
    reader: Option<JoinHandle<()>>,
    log: PathBuf,
    pub(crate) base: String,
    http: Client,
}

impl Serving {
    /// Waits until it prints its address.
    pub(crate) fn listening(&mut self) {
        assert!(self.listens(), "serve does not listen:\n{}", lossy(&self.log));
    }

    /// Waits until it prints its address; false when it ended before, or says nothing for long.
    pub(crate) fn listens(&mut self) -> bool {
        while let Ok(line) = self.lines.get_mut().unwrap().recv_timeout(PATIENCE) {
            // In JSON it is the message of an event.
            if let Some((_, address)) = line.split_once("waybill listens on ") {
                self.base = address.split("/\"").next().unwrap().trim_end_matches('/').to_owned();
                return true;
            }
        }
        false
    }

    /// Waits for its next line of output; None when it ended before, or says nothing for long.
    pub(crate) fn line(&mut self) -> Option<String> {
        self.lines.get_mut().unwrap().recv_timeout(PATIENCE).ok()
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_none()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Waits until it ends by itself; its exit code, None when a signal ended it.
    pub(crate) fn ended(mut self) -> Option<i32> {
        let status = self.child.wait(PATIENCE, "serve, which should end by itself");
        self.read_out();
        status.code()
    }

    /// kill -9, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
        self.read_out();
    }

    /// SIGTERM, without waiting for what it does.
    pub(crate) fn ask_to_end(&self) {
        signal("TERM", &self.child.0.id().to_string());
    }

    /// SIGTERM; its exit code and how long it took.
    pub(crate) fn terminate(mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        self.ask_to_end();
        let status = self.child.wait(PATIENCE, "serve after SIGTERM");
        self.read_out();
        (status.code(), begun.elapsed())
    }

    fn read_out(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }

    /// A call with the admin key.
    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(ADMIN_KEY).timeout(PATIENCE)
    }

    /// The JSON of a GET that must succeed; asked again as long as that is too often.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let begun = Instant::now();
        let answer = loop {
            let answer = self.call(Method::GET, path).send().await.unwrap();
            if answer.status() != 429 || begun.elapsed() > PATIENCE {
                break answer;
            }
            tokio::time::sleep(ASK_EVERY).await;
        };
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until nothing is left to do, for `at_most`; the last status.
    pub(crate) async fn idle(&self, at_most: Duration) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.get("/api/v1/status").await;
            if status["idle"] == true {
                return status;
            }
            assert!(begun.elapsed() < at_most, "not idle: {status:#}\n{}", lossy(&self.log));
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// All items of a list, page by page.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}?limit=500{cursor}")).await;
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next_cursor"].as_str() else { return items };
            cursor = format!("&cursor={next}");
        }
    }
}

/// A child that does not outlive its value.
struct Killed(Child);

impl Killed {
    fn wait(&mut self, at_most: Duration, what: &str) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < at_most, "{what}: not ended after {at_most:?}");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A file's text, with marks where it is none; empty when there is no file.
pub(crate) fn lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Sends a signal by the shell's own `kill`: a bare machine has no program of that name.
pub(crate) fn signal(name: &str, pid: &str) {
    assert!(Command::new("sh").args(["-c", "kill -$0 $1", name, pid]).status().unwrap().success());
}

/// Holds that a text has all these parts; the failure names those that are missing.
#[track_caller]
pub(crate) fn says(text: &str, parts: &[&str]) {
    let missing: Vec<&&str> = parts.iter().filter(|part| !text.contains(**part)).collect();
    assert!(missing.is_empty(), "missing {missing:?} in:\n{text}");
}
