//! A private MariaDB on loopback, in a directory of its own.
//!
//! `WAYBILL_TEST_MYSQL=mysql://root@127.0.0.1:PORT` names a server to share instead. Else the first
//! test of a process starts one. A shell holds it and ends it when its standard input closes, which
//! happens whichever way the test process ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Opts, OptsBuilder};

/// Starts the server behind `&`, prints its pid, and waits for the end of its own input.
const WATCHDOG: &str = r#"
"$@" >"$WAYBILL_DIR/server.log" 2>&1 &
server=$!
echo "$server"
cat >/dev/null
kill -9 "$server" 2>/dev/null
wait "$server" 2>/dev/null
[ -e "$WAYBILL_DIR/keep" ] || rm -rf "$WAYBILL_DIR"
"#;

/// Of the redo log, also while the data directory is made: the default would not fit on a small disk.
const LOG_SIZE: &str = "--innodb-log-file-size=32M";

/// A running server.
pub(crate) struct MariaDb {
    port: u16,
    dir: PathBuf,
    /// Its files, mostly in `dir`.
    data: PathBuf,
    pid: String,
    /// Options beside ours.
    options: Vec<String>,
    watchdog: Option<(Child, ChildStdin)>,
}

impl MariaDb {
    /// Makes a data directory and starts a server on it.
    pub(crate) fn start() -> MariaDb {
        MariaDb::start_on(None)
    }

    /// The same with more options; they come last.
    pub(crate) fn start_with(options: Vec<String>) -> MariaDb {
        MariaDb::make(None, options)
    }

    /// The same with the data directory elsewhere, in `disk`, which must outlive the server.
    pub(crate) fn start_on(disk: Option<&Path>) -> MariaDb {
        MariaDb::make(disk, Vec::new())
    }

    fn make(disk: Option<&Path>, options: Vec<String>) -> MariaDb {
        let dir = tempfile::Builder::new().prefix("waybill-mariadb-").tempdir().unwrap().keep();
        std::fs::create_dir(dir.join("tmp")).unwrap();
        let data = disk.unwrap_or(&dir).join("data");
        let made = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"])
            .arg(LOG_SIZE)
            .args(places(&dir, &data))
            .output()
            .expect("mariadb-install-db is needed for these tests");
        let reported = [made.stdout.as_slice(), made.stderr.as_slice()].concat();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&reported));
        let mut server = MariaDb { port: 0, dir, data, pid: String::new(), options, watchdog: None };
        server.run();
        server
    }

    /// Starts the server again after [`MariaDb::kill`], on the same port.
    pub(crate) fn run(&mut self) {
        for _ in 0..5 {
            if self.port == 0 || self.watchdog.is_none() && !is_free(self.port) {
                self.port = free_port();
            }
            if self.try_run() {
                return;
            }
            self.kill();
            self.port = 0;
        }
        panic!("MariaDB does not start; see {}", self.log().display());
    }

    fn try_run(&mut self) -> bool {
        // An earlier server's log would pass for this one's.
        for file in ["server.log", "keep"] {
            let _absent_at_first = std::fs::remove_file(self.dir.join(file));
        }
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh", "mariadbd", "--no-defaults", "--user=root", "--skip-name-resolve"])
            .args(["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=2"])
            .args([LOG_SIZE, "--performance-schema=OFF", "--skip-log-bin"])
            // As small as the disk may be: 64 MiB at once are the default.
            .arg("--innodb-autoextend-increment=4")
            .arg(format!("--port={}", self.port))
            .args(places(&self.dir, &self.data))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--pid-file={}", self.dir.join("server.pid").display()))
            .args(&self.options)
            .env("WAYBILL_DIR", &self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // What ends the test's group must not end the one who cleans up behind it.
            .process_group(0)
            .spawn()
            .unwrap();
        let stdin = watchdog.stdin.take().unwrap();
        let mut pid = String::new();
        BufReader::new(watchdog.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        self.watchdog = Some((watchdog, stdin));
        pid.trim().clone_into(&mut self.pid);
        // The server says so in its log when it listens; its process is gone if it gave up.
        loop {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            if log.contains("ready for connections") {
                return true;
            }
            if !self.is_alive() || log.contains("Aborting") {
                return false;
            }
            std::thread::yield_now();
        }
    }

    /// kill -9, and waits until it is gone. The data stays.
    pub(crate) fn kill(&mut self) {
        std::fs::write(self.dir.join("keep"), "").unwrap();
        if let Some((mut watchdog, stdin)) = self.watchdog.take() {
            drop(stdin);
            watchdog.wait().unwrap();
        }
    }

    /// Whether it still runs: a server may give up by itself.
    pub(crate) fn is_alive(&self) -> bool {
        // A zombie, too, has a place in /proc; the shell that holds it waits for our end first.
        let stat = std::fs::read_to_string(Path::new("/proc").join(&self.pid).join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    }

    /// Sends the server a signal, as `TERM` or `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        super::program::signal(name, &self.pid);
    }

    /// The last line of its log that reports an error.
    pub(crate) fn last_error(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().rev().find(|line| line.contains("[ERROR]")).unwrap_or_default().to_owned()
    }

    fn log(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("s.sock")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `mysql://root@127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}", self.port)
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if let Some((mut watchdog, stdin)) = self.watchdog.take() {
            drop(stdin);
            watchdog.wait().unwrap();
        } else {
            std::fs::remove_dir_all(&self.dir).unwrap();
        }
    }
}

/// Also a place for temporary tables: in a shared one, servers take them from each other.
fn places(dir: &Path, data: &Path) -> [String; 2] {
    [format!("--datadir={}", data.display()), format!("--tmpdir={}", dir.join("tmp").display())]
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn is_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A fresh database on a server.
pub(crate) struct Database {
    server: String,
    pub(crate) name: String,
}

impl Database {
    /// On the shared server.
    pub(crate) async fn fresh() -> Database {
        static SHARED: OnceLock<(String, Option<MariaDb>)> = OnceLock::new();
        let (server, _) = SHARED.get_or_init(|| match std::env::var("WAYBILL_TEST_MYSQL") {
            Ok(url) => (url.trim_end_matches('/').to_owned(), None),
            Err(_) => {
                let server = MariaDb::start();
                (server.url(), Some(server))
            }
        });
        Database::on(server).await
    }

    pub(crate) async fn on(server: &str) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("waybill_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut conn = Conn::from_url(server).await.unwrap();
        // Of a process that had this number before, and was killed.
        conn.query_drop(format!("DROP DATABASE IF EXISTS `{name}`")).await.unwrap();
        // A bare server's default; ours must not depend on it.
        conn.query_drop(format!("CREATE DATABASE `{name}` CHARACTER SET latin1")).await.unwrap();
        conn.disconnect().await.unwrap();
        Database { server: server.to_owned(), name }
    }

    /// A database of the same name on another server.
    pub(crate) async fn twin(&self, server: &str) -> Database {
        let twin = Database { server: server.to_owned(), name: self.name.clone() };
        let mut conn = Conn::from_url(server).await.unwrap();
        conn.query_drop(format!("CREATE DATABASE `{}`", twin.name)).await.unwrap();
        conn.disconnect().await.unwrap();
        twin
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/{}", self.server, self.name)
    }

    /// With another user.
    pub(crate) fn url_of(&self, user: &str) -> String {
        self.url().replacen("root", user, 1)
    }

    /// A connection that does what the test says.
    pub(crate) async fn conn(&self) -> Conn {
        let opts = OptsBuilder::from_opts(Opts::from_url(&self.url()).unwrap()).prefer_socket(false);
        Conn::new(opts).await.unwrap()
    }

    /// Whether the server is MariaDB, and not a MySQL that `WAYBILL_TEST_MYSQL` names.
    pub(crate) async fn is_mariadb(&self) -> bool {
        self.rows::<String>("SELECT VERSION()").await.concat().contains("MariaDB")
    }

    pub(crate) async fn run(&self, text: &str) {
        let mut conn = self.conn().await;
        conn.query_drop(text).await.unwrap();
        conn.disconnect().await.unwrap();
    }

    pub(crate) async fn rows<T: FromRow + Send + 'static>(&self, text: &str) -> Vec<T> {
        let mut conn = self.conn().await;
        let rows = conn.query(text).await.unwrap();
        conn.disconnect().await.unwrap();
        rows
    }
}
