//! Non-blocking output of the log and of everything else that a service writes to its standard streams.
//!
//! Both streams may be pipes that nothing reads. Each line goes into a bounded queue, which a thread writes out; if the
//! queue is full, the line is dropped and counted. The count is a metric (`waybill_log_lines_lost_total`), and is logged
//! once lines get through again.

use std::convert::Infallible;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use console::Term;
use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use super::bars_stderr;
use super::command_error::{CommandError, CommandResult};
use super::table::wrap;
use crate::config::{Log, LogFormat};
use crate::domain::{Clock, Timestamp};

/// Lines that a stream may queue: a few megabytes of memory if nothing reads it.
const WAITING_MAX: usize = 4096;
/// How long the process waits at exit for unwritten lines.
const EXIT_PATIENCE: Duration = Duration::from_secs(1);
/// Poll interval while waiting for that.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Text is not wrapped narrower than this.
const WIDTH_MIN: usize = 20;
/// How often the metric of lost lines is updated.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Standard error of this process, once the log or a service has started.
static STDERR: OnceLock<Stream> = OnceLock::new();
/// Standard output of a service.
static STDOUT: OnceLock<Stream> = OnceLock::new();
/// The format of a service's lines that are not log events; unset in other commands.
static SERVICE: OnceLock<ServiceLines> = OnceLock::new();

/// How a service writes lines to standard error.
#[derive(Default)]
struct ServiceLines {
    is_json: OnceLock<bool>,
}

/// How much a command logs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// A service: the configured level.
    Service,
    /// A command that prints its own results: warnings only, unless a level is configured.
    Command,
    /// A command that is silent on success: errors only, unless a level is configured.
    Quiet,
}

impl Voice {
    pub(super) fn of_command(quiet: bool) -> Voice {
        if quiet { Voice::Quiet } else { Voice::Command }
    }
}

/// A standard stream behind a queue. Cheap to clone.
#[derive(Clone)]
pub(super) struct Stream {
    queue: NonBlocking,
    lost: ErrorCounter,
    counts: Arc<LineCounts>,
    /// Never dropped: dropping it writes to standard output when the queue is full.
    _guard: Arc<std::mem::ManuallyDrop<WorkerGuard>>,
}

#[derive(Default)]
struct LineCounts {
    /// Lines submitted, including lost ones.
    sent: AtomicU64,
    /// Lines written, or refused by the stream.
    written: AtomicU64,
}

impl Stream {
    fn new(name: &str, to: impl Write + Send + 'static) -> Stream {
        let counts = Arc::<LineCounts>::default();
        let lost = Arc::<OnceLock<ErrorCounter>>::default();
        let writer = LogWriter { to, counts: Arc::clone(&counts), lost: Arc::clone(&lost), seen: 0, reported: 0 };
        let queue = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_MAX).thread_name(name);
        let (queue, guard) = queue.finish(writer);
        let counter = lost.get_or_init(|| queue.error_counter()).clone();
        Stream { queue, lost: counter, counts, _guard: Arc::new(std::mem::ManuallyDrop::new(guard)) }
    }

    /// Standard output of a service.
    pub(super) fn stdout() -> Stream {
        STDOUT.get_or_init(|| Stream::new("stdout", io::stdout())).clone()
    }

    fn stderr() -> Stream {
        STDERR.get_or_init(|| Stream::new("stderr", bars_stderr::Stderr)).clone()
    }

    /// Lines dropped so far.
    fn lost(&self) -> u64 {
        self.lost.dropped_lines() as u64
    }

    /// Whether every line that was not dropped has been written.
    fn is_drained(&self) -> bool {
        let written = self.counts.written.load(Ordering::Acquire);
        self.counts.sent.load(Ordering::Acquire).saturating_sub(self.lost()) <= written
    }

    /// Waits up to `at_most` until every line is written; returns whether they are.
    pub(super) async fn drained(&self, at_most: Duration) -> bool {
        let begun = Instant::now();
        while !self.is_drained() && begun.elapsed() < at_most {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.is_drained()
    }
}

impl Write for Stream {
    /// One call is one line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.counts.sent.fetch_add(1, Ordering::AcqRel);
        self.queue.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's end of a queue.
struct LogWriter<W> {
    to: W,
    counts: Arc<LineCounts>,
    lost: Arc<OnceLock<ErrorCounter>>,
    /// The count of lost lines at the last write.
    seen: usize,
    /// The count of lost lines that the log has been given.
    reported: usize,
}

impl<W: Write> Write for LogWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A stream that is closed or full drops the line, as it always did.
        let written = self.to.write_all(line).and_then(|()| self.to.flush());
        self.counts.written.fetch_add(1, Ordering::AcqRel);
        let lost = self.lost.get().map_or(0, ErrorCounter::dropped_lines);
        // While lines are still being dropped, this one would be too.
        if lost > self.reported && lost == self.seen {
            tracing::warn!(
                lines = lost - self.reported,
                "log lines were dropped: the reader of the stream is too slow"
            );
            if self.lost.get().map_or(0, ErrorCounter::dropped_lines) == lost {
                self.reported = lost;
            }
        }
        self.seen = lost;
        written.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Makes all output of this process non-blocking.
pub(super) fn begin_service() {
    Stream::stderr();
    SERVICE.get_or_init(ServiceLines::default);
}

/// Starts the log.
pub(super) fn start(log: &Log, voice: Voice) -> CommandResult {
    let level = match voice {
        Voice::Command if !log.level_is_set => "warn",
        Voice::Quiet if !log.level_is_set => "error",
        _ => log.level.as_str(),
    };
    let wrong =
        |error| CommandError::Usage(format!("1 problem in the configuration:\n  log.level: `{level}`: {error}"));
    let filter = filter(level).map_err(wrong)?;
    let stream = Stream::stderr();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || stream.clone()).with_target(true);
    let started = match log.format {
        // The list of spans includes the current one.
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => lines.with_ansi(console::colors_enabled_stderr()).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))?;
    if let Some(service) = SERVICE.get() {
        service.is_json.get_or_init(|| log.format == LogFormat::Json);
    }
    Ok(())
}

/// The filter of a level: without other crates' messages about every bad connection, with which any stranger could
/// flood the log, and about their own start. A list of directives is used as it is.
fn directives(level: &str) -> String {
    if level.contains(['=', ',']) {
        return level.to_owned();
    }
    format!("{level},warp=off,tokio_cron_scheduler=error")
}

/// Modules that log what a host sent (HTTP/2 closes a connection with a text of the host), and their highest level.
/// Whatever is asked for: such a text may quote a credential.
const QUOTING: [&str; 3] = ["h2=info", "hyper=info", "hyper_util=info"];

fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    let filter = EnvFilter::try_new(directives(level))?;
    QUOTING.iter().try_fold(filter, |filter, directive| Ok(filter.add_directive(directive.parse()?)))
}

/// Prints a text to standard error, whatever the log level; on a terminal wrapped between words. In a service it is JSON
/// if the log is.
pub(super) fn say(level: Level, text: impl Display) {
    let Some(service) = SERVICE.get() else {
        // If stderr is closed, there is nowhere left to report it.
        writeln!(io::stderr(), "{}", fitted(&text.to_string())).ok();
        return;
    };
    let line = if service.is_json.get() == Some(&true) { json_line(level, text) } else { text.to_string() };
    Stream::stderr().write_all(format!("{line}\n").as_bytes()).ok();
}

/// A text as wide as the terminal, if there is one. Indented lines are commands, which are copied.
fn fitted(text: &str) -> String {
    let terminal = Term::stderr();
    let Some((_, columns)) = terminal.is_term().then(|| terminal.size_checked()).flatten() else {
        return text.to_owned();
    };
    let fit = |line: &str| match line.starts_with(' ') {
        true => line.to_owned(),
        false => wrap(line, usize::from(columns).max(WIDTH_MIN), 2).join("\n"),
    };
    text.split('\n').map(fit).collect::<Vec<_>>().join("\n")
}

/// The text as a JSON event, if this process logs JSON.
pub(super) fn in_json(text: impl Display) -> Option<String> {
    let is_json = SERVICE.get().is_some_and(|service| service.is_json.get() == Some(&true));
    is_json.then(|| json_line(Level::INFO, text))
}

/// One event in the format of the JSON log.
fn json_line(level: Level, text: impl Display) -> String {
    let event = serde_json::json!({
        "timestamp": timestamp(Clock::system().now()),
        "level": level.as_str(),
        "message": text.to_string(),
        "target": "waybill",
    });
    event.to_string()
}

/// A time as the events of the log write it, always with six digits of a second.
fn timestamp(at: Timestamp) -> String {
    format!("{:.6}", jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

/// Keeps the metric of lost lines up to date, until it is dropped.
pub(super) async fn count_lost() -> Infallible {
    loop {
        if let Some(stderr) = STDERR.get() {
            metrics::counter!("waybill_log_lines_lost_total").absolute(stderr.lost());
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

/// Waits until all lines are written, for a second at most, as nothing may read them.
pub(super) fn flush() {
    let begun = Instant::now();
    let drained = || STDERR.get().into_iter().chain(STDOUT.get()).all(Stream::is_drained);
    while !drained() && begun.elapsed() < EXIT_PATIENCE {
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Runs work that writes to a standard stream directly, and waits for it for a second at most.
pub(super) fn bounded(work: impl FnOnce() + Send + 'static) {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        work();
        // After a timeout there is no receiver.
        done.send(()).ok();
    });
    // The process ends either way.
    ended.recv_timeout(EXIT_PATIENCE).ok();
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::time::Duration;

    use super::{QUOTING, Stream, WAITING_MAX, directives, filter};

    /// A stream that accepts a line only when the test reads one.
    struct Reluctant(SyncSender<Vec<u8>>);

    impl Write for Reluctant {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.send(line.to_vec()).ok();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn reluctant() -> (Stream, Receiver<Vec<u8>>) {
        let (sender, receiver) = sync_channel(0);
        (Stream::new("test", Reluctant(sender)), receiver)
    }

    #[test]
    fn what_hosts_sent_is_logged_at_no_level() {
        for level in ["trace", "h2=trace,hyper=debug", "trace,hyper_util=trace"] {
            let filter = filter(level).unwrap().to_string();
            let directives: Vec<&str> = filter.split(',').collect();
            assert!(QUOTING.iter().all(|quoting| directives.contains(quoting)), "{filter}");
            assert!(!filter.contains("h2=trace") && !filter.contains("h2=debug"), "{filter}");
        }
    }

    #[tokio::test]
    async fn unread_lines_are_dropped_and_counted_without_blocking() {
        let (mut stream, reader) = reluctant();
        let sent = WAITING_MAX as u64 + 100;
        for number in 0..sent {
            stream.write_all(number.to_string().as_bytes()).unwrap();
        }
        // The thread may hold one line in addition to the queue.
        assert!((99..=100).contains(&stream.lost()), "{}", stream.lost());
        assert!(!stream.drained(Duration::ZERO).await);
        for _ in 0..sent - stream.lost() {
            reader.recv().unwrap();
        }
        assert!(stream.drained(Duration::from_secs(60)).await);
    }

    #[test]
    fn a_plain_level_omits_messages_that_strangers_could_trigger() {
        for level in ["error", "info", "trace", "info,waybill::sync=debug", "warn,warp=debug"] {
            assert!(tracing_subscriber::EnvFilter::try_new(directives(level)).is_ok(), "{level}");
        }
        assert!(directives("info").contains("warp=off"));
        assert_eq!(directives("warn,warp=debug"), "warn,warp=debug");
    }
}
