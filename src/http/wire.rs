//! One connection, as hyper reads and writes it: every wait has an end, and every head is judged first.
//!
//! [`Wire`] stands between the socket and hyper. It hands over one whole head at a time, then exactly the
//! bytes of its body. A head that is refused is replaced by a stand-in, and [`Exchange`] tells the service
//! to answer that one with the refusal: so hyper writes every answer, in order, and all have one form.
//!
//! How a client can be slow, and what ends it: says nothing or half a head ([`Limits::head_time_max`]),
//! half a body (`body`), nothing more ([`Limits::idle_time_max`]), does not take its answer
//! ([`Limits::send_time_max`]), or does not close its side ([`Limits::linger_time_max`]).

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
use super::framing::{BodyLength, HeadBounds, Judgement, judge};
use super::reply::{Kind, Problem};

/// Read at once from a socket.
const READ_BYTES: usize = 8 * 1024;
/// Read and thrown away at the end, so that a client in the middle of sending hears its answer: closing
/// with unread bytes would reset the connection. Holds a head and a body far beyond their bounds.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What hyper reads instead of a head that is refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// What the service shall do with a request that hyper hands it.
#[derive(Debug)]
pub(super) enum Verdict {
    /// `last`: its framing leaves no sure place for a request behind it.
    Serve {
        last: bool,
    },
    Refuse(Problem),
}

/// What the two ends of hyper, the socket and the service, must know of each other.
pub(super) struct Exchange(Mutex<Talk>);

struct Talk {
    /// Of heads that hyper has and the service has not.
    verdicts: VecDeque<Verdict>,
    /// Heads that hyper has and that have no answer yet.
    unanswered: usize,
    /// The last answer, or the last part of one that the client took.
    quiet_since: Instant,
    send_due: Option<Instant>,
}

impl Exchange {
    fn new() -> Exchange {
        let (verdicts, quiet_since) = (VecDeque::new(), Instant::now());
        Exchange(Mutex::new(Talk { verdicts, unanswered: 0, quiet_since, send_due: None }))
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        // A panic cannot leave it half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&self, verdict: Verdict) {
        let mut talk = self.talk();
        talk.verdicts.push_back(verdict);
        talk.unanswered += 1;
    }

    /// The verdict on the request that hyper just handed over: heads are judged and handed over in order.
    pub(super) fn verdict(&self) -> Verdict {
        self.talk().verdicts.pop_front().unwrap_or(Verdict::Serve { last: true })
    }

    /// The service has an answer; the client must have taken it by `send_due`.
    pub(super) fn answered(&self, send_due: Instant) {
        let mut talk = self.talk();
        talk.unanswered = talk.unanswered.saturating_sub(1);
        talk.quiet_since = Instant::now();
        talk.send_due = Some(send_due);
    }

    fn taken(&self) {
        self.talk().quiet_since = Instant::now();
    }

    /// Since when the client owes a request; none while we owe an answer.
    fn idle_since(&self) -> Option<Instant> {
        let talk = self.talk();
        (talk.unanswered == 0).then_some(talk.quiet_since)
    }

    fn send_due(&self) -> Option<Instant> {
        self.talk().send_due
    }
}

/// Whose bytes come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    /// So many of a body.
    Body(u64),
    /// A chunked body's. hyper reads to its end, and past it: so nothing behind it is a request.
    Rest,
    /// Nobody's: a refusal is on its way.
    Shut,
}

/// How long silence may last, and what follows.
enum Silence {
    Allowed,
    /// Nothing was asked: close without a word.
    Close,
    /// In the middle of a head.
    Refuse,
}

/// A socket for hyper.
pub(super) struct Wire {
    stream: TcpStream,
    exchange: Arc<Exchange>,
    limits: Limits,
    phase: Phase,
    buffer: BytesMut,
    /// Bytes at the front of the buffer that were a partial head when last looked at.
    scanned: usize,
    /// Bytes at the front of the buffer that are a judged head.
    head: usize,
    /// None before the first byte of a head; the first head of all is due from the start.
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
            exchange: Arc::new(Exchange::new()),
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

    pub(super) fn exchange(&self) -> Arc<Exchange> {
        Arc::clone(&self.exchange)
    }

    /// How much of the buffer hyper may have.
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
            // An idle connection holds no memory.
            self.buffer = BytesMut::new();
        }
        if self.head > 0 {
            self.head -= length;
        } else if let Phase::Body(left) = self.phase {
            let left = left.saturating_sub(length as u64);
            self.phase = if left == 0 { Phase::Head } else { Phase::Body(left) };
        }
    }

    /// Looks at the bytes of a head; true when hyper has something to read.
    fn judge_head(&mut self) -> bool {
        if self.buffer.is_empty() {
            return false;
        }
        self.head_due.get_or_insert_with(|| Instant::now() + self.limits.head_time_max);
        let bounds = HeadBounds {
            bytes_max: self.limits.head_bytes_max,
            headers_max: self.limits.headers_max,
            uri_bytes_max: self.limits.uri_bytes_max,
        };
        match judge(&self.buffer, self.scanned, bounds) {
            Judgement::Partial => {
                self.scanned = self.buffer.len();
                return false;
            }
            Judgement::Whole { length, body } => {
                self.phase = match body {
                    BodyLength::Known(0) => Phase::Head,
                    BodyLength::Known(left) => Phase::Body(left),
                    BodyLength::Chunked => Phase::Rest,
                };
                self.head = length;
                self.exchange.hand_over(Verdict::Serve { last: body == BodyLength::Chunked });
            }
            Judgement::Refused(problem) => self.refuse(problem),
        }
        (self.scanned, self.head_due) = (0, None);
        true
    }

    fn refuse(&mut self, problem: Problem) {
        self.buffer = BytesMut::from(STAND_IN);
        self.head = STAND_IN.len();
        self.phase = Phase::Shut;
        self.exchange.hand_over(Verdict::Refuse(problem));
    }

    /// Reads what is there into the buffer; zero at the end.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        self.buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Whether silence in [`Phase::Head`] has lasted too long; else arranges to be asked again in time.
    fn judge_silence(&mut self, cx: &mut Context<'_>) -> Silence {
        loop {
            match self.head_due.or_else(|| Some(self.exchange.idle_since()? + self.limits.idle_time_max)) {
                Some(due) if self.silence.deadline() != due => self.silence.as_mut().reset(due),
                None => {
                    // hyper does not ask again when the answer is sent: so ask in time for the earliest idleness.
                    let look = Instant::now() + self.limits.idle_time_max;
                    if self.silence.is_elapsed() || self.silence.deadline() > look {
                        self.silence.as_mut().reset(look);
                    }
                }
                Some(_) => {}
            }
            if self.silence.as_mut().poll(cx).is_pending() {
                return Silence::Allowed;
            }
            match self.head_due {
                Some(_) if !self.buffer.is_empty() => return Silence::Refuse,
                Some(_) => return Silence::Close,
                None if self
                    .exchange
                    .idle_since()
                    .is_some_and(|since| since.elapsed() >= self.limits.idle_time_max) =>
                {
                    return Silence::Close;
                }
                None => {}
            }
        }
    }

    fn too_slow(&self) -> Problem {
        let detail = format!("the head must be complete within {} s", self.limits.head_time_max.as_secs());
        Problem::new(Kind::RequestTimeout, detail)
    }

    /// Bounds the time in which a client takes an answer.
    fn sent<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.sending = None;
            self.exchange.taken();
            return outcome;
        }
        let (exchange, time_max) = (&self.exchange, self.limits.send_time_max);
        let due = || Box::pin(sleep_until(exchange.send_due().unwrap_or_else(|| Instant::now() + time_max)));
        ready!(self.sending.get_or_insert_with(due).as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer")))
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
            if wire.phase == Phase::Head && wire.judge_head() {
                continue;
            }
            match wire.fill(cx)? {
                Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(_) => {}
                // The time of a body is bounded where it is read.
                Poll::Pending if wire.phase != Phase::Head => return Poll::Pending,
                Poll::Pending => match wire.judge_silence(cx) {
                    Silence::Allowed => return Poll::Pending,
                    Silence::Close => return Poll::Ready(Ok(())),
                    Silence::Refuse => {
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
