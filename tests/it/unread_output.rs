//! A service whose standard output and error are not read: it answers, counts the lost log lines, and stops.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Client;
use sandbox::Options;

use crate::support::app::eventually;
use crate::support::program::{ADMIN_KEY, Folder, Market, signal};

/// What a service manager may count on.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// Linux's flag, for the filling only: what the program has is a pipe that blocks.
const O_NONBLOCK: i32 = 0o4000;
const AT_ONCE: usize = 16;
const REQUESTS: usize = 100;

/// A pipe without room for one byte.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let mut filler = File::options().write(true).custom_flags(O_NONBLOCK).open(path).unwrap();
    for size in [4096, 1] {
        let full = loop {
            if let Err(error) = filler.write(&vec![b'\n'; size]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }
    (reader, writer)
}

/// Waits for the end; its exit code.
fn ended(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    while begun.elapsed() < ENDS_WITHIN {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("it did not end within {ENDS_WITHIN:?}");
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

struct Mute {
    child: Child,
    base: String,
    http: Client,
    /// The other ends of standard output and standard error.
    readers: Vec<PipeReader>,
}

impl Drop for Mute {
    /// A child does not outlive a test that fails.
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Mute {
    fn start(folder: &Folder) -> Mute {
        let address = free_address();
        let ((out_reader, out), (err_reader, err)) = (full_pipe(), full_pipe());
        let mut command = folder.command(&["serve", "--listen", &address]);
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        let readers = vec![out_reader, err_reader];
        Mute { child, base: format!("http://{address}"), http: Client::new(), readers }
    }

    async fn ask(&self, path: &str) -> Option<String> {
        let call = self.http.get(format!("{}{path}", self.base)).bearer_auth(ADMIN_KEY).timeout(Duration::from_secs(5));
        let answer = call.send().await.ok().filter(|answer| answer.status() == 200)?;
        answer.text().await.ok()
    }

    async fn lost(&self) -> Option<u64> {
        let metrics = self.ask("/metrics").await?;
        let count = metrics.lines().find_map(|line| line.strip_prefix("waybill_log_lines_lost_total "))?;
        Some(count.parse().unwrap()).filter(|count| *count > 0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_output_nothing_reads_answers_counts_the_lost_lines_and_ends() {
    let market = Market::open(Options::default()).await;
    for format in ["text", "json"] {
        let mut folder = Folder::at(&market.base, "");
        folder.set("WAYBILL_LOG_LEVEL", "trace");
        folder.set("WAYBILL_LOG_FORMAT", format);
        let mut mute = Mute::start(&folder);
        eventually("an answer", || mute.ask("/healthz")).await;
        eventually("lost lines", async || {
            // Each is a line of log, also those that are too often.
            let often = async || {
                for _ in 0..REQUESTS {
                    mute.ask("/readyz").await;
                }
            };
            join_all((0..AT_ONCE).map(|_| often())).await;
            mute.lost().await
        })
        .await;
        let mut reader = mute.readers.pop().unwrap();
        let said = std::thread::spawn(move || {
            let mut said = Vec::new();
            let mut piece = [0; 4096];
            while !String::from_utf8_lossy(&said).contains("log lines were dropped") {
                match reader.read(&mut piece).unwrap() {
                    0 => break,
                    size => said.extend_from_slice(&piece[..size]),
                }
            }
            // The pipe is full again, and standard output always was.
            (reader, String::from_utf8_lossy(&said).into_owned())
        });
        eventually("the line that says so", || async { said.is_finished().then_some(()) }).await;
        let (reader, said) = said.join().unwrap();
        assert!(said.contains("log lines were dropped"), "{said}");
        mute.readers.push(reader);
        signal("TERM", &mute.child.id().to_string());
        assert_eq!(ended(&mut mute.child), Some(0));
    }
}

#[test]
fn errors_of_a_start_hold_nothing_up_although_nothing_reads_them() {
    let folder = Folder::bare();
    folder.write("waybill.toml", "[http]\nlistne = \"127.0.0.1:1\"\n");
    for arguments in [&["serve"][..], &["serve", "--no-such-flag"]] {
        let ((_out_reader, out), (_err_reader, err)) = (full_pipe(), full_pipe());
        let mut child = folder.command(arguments).stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        assert_eq!(ended(&mut child), Some(2), "{arguments:?}");
    }
}
