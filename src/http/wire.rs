//! The socket that hyper reads and writes: adds timeouts and validates each request head first.
//!
//! [`Wire`] sits between the socket and hyper. It passes on one complete head at a time, then exactly the bytes of its
//! body. A rejected head is replaced by a placeholder, and [`ConnectionControl`] has the service answer that one with
//! the problem: hyper still writes every response, in order and in one form.
//!
//! Timeouts: no or half a head ([`Limits::head_time_max`]), half a body (`body`), no next request
//! ([`Limits::idle_time_max`]), a response that is not received ([`Limits::send_time_max`]), a client that does not
//! close its side ([`Limits::linger_time_max`]).

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Limits;
use super::framing::{BodyLength, HeadBounds, HeadCheck, check_head};
use super::reply::{Problem, ProblemKind};

/// Bytes per read from the socket.
const READ_BYTES: usize = 8 * 1024;
/// Bytes discarded before closing, so that a client that is still sending can read its response: closing with unread
/// bytes would reset the connection. Far more than a head and a body within their limits.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What hyper reads instead of a rejected head.
const PLACEHOLDER: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// What the service does with the next request from hyper.
#[derive(Debug)]
pub(super) enum Verdict {
    /// `last`: close afterwards, because the end of the body is not tracked.
    Serve {
        last: bool,
    },
    Refuse(Problem),
}

/// State shared by the two sides of hyper: the socket and the service.
pub(super) struct ConnectionControl(Mutex<ConnectionState>);

struct ConnectionState {
    /// For heads that were passed to hyper and not yet to the service.
    verdicts: VecDeque<Verdict>,
    /// Heads that were passed to hyper and have no response yet.
    unanswered: usize,
    /// When the last response, or part of one, was sent.
    quiet_since: Instant,
    send_due: Option<Instant>,
}

impl ConnectionControl {
    fn new() -> ConnectionControl {
        let (verdicts, quiet_since) = (VecDeque::new(), Instant::now());
        ConnectionControl(Mutex::new(ConnectionState { verdicts, unanswered: 0, quiet_since, send_due: None }))
    }

    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        // A panic cannot leave the state half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&self, verdict: Verdict) {
        let mut state = self.state();
        state.verdicts.push_back(verdict);
        state.unanswered += 1;
    }

    /// The verdict on the request that hyper just passed to the service. Both keep the order of the heads.
    pub(super) fn verdict(&self) -> Verdict {
        self.state().verdicts.pop_front().unwrap_or(Verdict::Serve { last: true })
    }

    /// Notes that the service has a response, which the client must have received by `send_due`.
    pub(super) fn answered(&self, send_due: Instant) {
        let mut state = self.state();
        state.unanswered = state.unanswered.saturating_sub(1);
        state.quiet_since = Instant::now();
        state.send_due = Some(send_due);
    }

    fn taken(&self) {
        self.state().quiet_since = Instant::now();
    }

    /// Since when no request is open; none while one is.
    fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.unanswered == 0).then_some(state.quiet_since)
    }

    fn send_due(&self) -> Option<Instant> {
        self.state().send_due
    }
}

/// What the next bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    /// A body with this many bytes left.
    Body(u64),
    /// A chunked body. hyper may read past its end, so the connection closes after it.
    Rest,
    /// Nothing: the request was rejected.
    Shut,
}

/// What to do while the client sends nothing.
enum Timeout {
    Allowed,
    /// No request was begun: close without a response.
    Close,
    /// A head is incomplete: answer 408.
    Refuse,
}

/// A socket for hyper, with limits.
pub(super) struct Wire {
    stream: TcpStream,
    control: Arc<ConnectionControl>,
    limits: Limits,
    phase: Phase,
    buffer: BytesMut,
    /// Bytes at the front of the buffer that are known to be an incomplete head.
    scanned: usize,
    /// Bytes at the front of the buffer that are a validated head.
    head: usize,
    /// None before the first byte of a head, except for the first head of the connection.
    head_due: Option<Instant>,
    silence: Pin<Box<Sleep>>,
    sending: Option<Pin<Box<Sleep>>>,
    lingering: Option<Linger>,
}

struct Linger {
    end: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, limits: Limits) -> Wire {
        let head_due = Instant::now() + limits.head_time_max;
        Wire {
            stream,
            control: Arc::new(ConnectionControl::new()),
            limits,
            phase: Phase::Head,
            buffer: BytesMut::new(),
            scanned: 0,
            head: 0,
            head_due: Some(head_due),
            silence: Box::pin(sleep_until(head_due)),
            sending: None,
            lingering: None,
        }
    }

    pub(super) fn control(&self) -> Arc<ConnectionControl> {
        Arc::clone(&self.control)
    }

    /// How many bytes of the buffer may be passed to hyper.
    fn deliverable(&self) -> usize {
        match self.phase {
            _ if self.head > 0 => self.head,
            Phase::Body(left) => usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len()),
            Phase::Rest => self.buffer.len(),
            Phase::Head | Phase::Shut => 0,
        }
    }

    fn deliver(&mut self, out: &mut ReadBufCursor<'_>, most: usize) {
        let length = most.min(out.remaining());
        out.put_slice(self.buffer.get(..length).unwrap_or_default());
        self.buffer.advance(length);
        if self.buffer.is_empty() {
            // Frees the memory of an idle connection.
            self.buffer = BytesMut::new();
        }
        if self.head > 0 {
            self.head -= length;
        } else if let Phase::Body(left) = self.phase {
            let left = left.saturating_sub(length as u64);
            self.phase = if left == 0 { Phase::Head } else { Phase::Body(left) };
        }
    }

    /// Validates the buffered head; true when hyper has something to read.
    fn take_head(&mut self) -> bool {
        if self.buffer.is_empty() {
            return false;
        }
        self.head_due.get_or_insert_with(|| Instant::now() + self.limits.head_time_max);
        let bounds = HeadBounds {
            bytes_max: self.limits.head_bytes_max,
            headers_max: self.limits.headers_max,
            uri_bytes_max: self.limits.uri_bytes_max,
        };
        match check_head(&self.buffer, self.scanned, bounds) {
            HeadCheck::Partial => {
                self.scanned = self.buffer.len();
                return false;
            }
            HeadCheck::Whole { length, body } => {
                self.phase = match body {
                    BodyLength::Known(0) => Phase::Head,
                    BodyLength::Known(left) => Phase::Body(left),
                    BodyLength::Chunked => Phase::Rest,
                };
                self.head = length;
                self.control.hand_over(Verdict::Serve { last: body == BodyLength::Chunked });
            }
            HeadCheck::Refused(problem) => self.refuse(problem),
        }
        (self.scanned, self.head_due) = (0, None);
        true
    }

    fn refuse(&mut self, problem: Problem) {
        self.buffer = BytesMut::from(PLACEHOLDER);
        self.head = PLACEHOLDER.len();
        self.phase = Phase::Shut;
        self.control.hand_over(Verdict::Refuse(problem));
    }

    /// Reads available bytes into the buffer; zero at the end of the stream.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        self.buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Whether [`Phase::Head`] has timed out; else registers a wake-up for the deadline.
    fn check_timeout(&mut self, cx: &mut Context<'_>) -> Timeout {
        loop {
            match self.head_due.or_else(|| Some(self.control.idle_since()? + self.limits.idle_time_max)) {
                Some(due) if self.silence.deadline() != due => self.silence.as_mut().reset(due),
                None => {
                    // hyper does not poll when the response is sent: wake up at the earliest idle deadline.
                    let look = Instant::now() + self.limits.idle_time_max;
                    if self.silence.is_elapsed() || self.silence.deadline() > look {
                        self.silence.as_mut().reset(look);
                    }
                }
                Some(_) => {}
            }
            if self.silence.as_mut().poll(cx).is_pending() {
                return Timeout::Allowed;
            }
            match self.head_due {
                Some(_) if !self.buffer.is_empty() => return Timeout::Refuse,
                Some(_) => return Timeout::Close,
                None if self.control.idle_since().is_some_and(|since| since.elapsed() >= self.limits.idle_time_max) => {
                    return Timeout::Close;
                }
                None => {}
            }
        }
    }

    fn too_slow(&self) -> Problem {
        let detail = format!("the request head must arrive within {} s", self.limits.head_time_max.as_secs());
        Problem::new(ProblemKind::RequestTimeout, detail)
    }

    /// Bounds the time for the client to receive a response.
    fn sent<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.sending = None;
            self.control.taken();
            return outcome;
        }
        let (control, time_max) = (&self.control, self.limits.send_time_max);
        let due = || Box::pin(sleep_until(control.send_due().unwrap_or_else(|| Instant::now() + time_max)));
        ready!(self.sending.get_or_insert_with(due).as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not receive its response")))
    }
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut out: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        loop {
            let most = wire.deliverable();
            if most > 0 {
                wire.deliver(&mut out, most);
                return Poll::Ready(Ok(()));
            }
            if wire.phase == Phase::Shut {
                return Poll::Pending;
            }
            if wire.phase == Phase::Head && wire.take_head() {
                continue;
            }
            match wire.fill(cx)? {
                Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(_) => {}
                // The `body` module bounds the time of a body.
                Poll::Pending if wire.phase != Phase::Head => return Poll::Pending,
                Poll::Pending => match wire.check_timeout(cx) {
                    Timeout::Allowed => return Poll::Pending,
                    Timeout::Close => return Poll::Ready(Ok(())),
                    Timeout::Refuse => {
                        let problem = wire.too_slow();
                        wire.refuse(problem);
                    }
                },
            }
        }
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.sent(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if self.phase == Phase::Head {
                return Poll::Ready(Ok(()));
            }
            let end = Box::pin(sleep_until(Instant::now() + self.limits.linger_time_max));
            self.lingering = Some(Linger { end, bytes_left: LINGER_BYTES_MAX });
        }
        loop {
            self.buffer.clear();
            let read = self.fill(cx);
            let Some(linger) = &mut self.lingering else { return Poll::Ready(Ok(())) };
            match read {
                Poll::Ready(Ok(length)) if (1..linger.bytes_left).contains(&length) => linger.bytes_left -= length,
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return linger.end.as_mut().poll(cx).map(Ok),
            }
        }
    }
}
