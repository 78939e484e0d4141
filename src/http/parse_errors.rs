//! Gives hyper's own responses a body. hyper answers a head that it cannot read (400, 414, 431) by itself, with an empty
//! response and no hook for another.
//!
//! The server reads a head only after the response before it was flushed, so what hyper writes while no response of ours
//! is due is its own: [`Gate`] holds that back, and [`with_problem`] turns it into a problem.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use warp::http::Response;
use warp::http::header::CONTENT_LENGTH;

use super::reply::{Problem, ProblemKind, finish_problem};

/// Most bytes held back; hyper's own responses have about a hundred.
const HELD_MAX: usize = 1024;

/// Whether a response of ours is due on a connection, from its request until it was flushed.
#[derive(Clone, Default)]
pub(super) struct DueResponse(Arc<Flags>);

#[derive(Default)]
struct Flags {
    is_due: AtomicBool,
    /// Its body was handed to hyper whole.
    is_handed_over: AtomicBool,
}

impl DueResponse {
    /// A request was read.
    pub(super) fn begin(&self) {
        self.0.is_handed_over.store(false, Ordering::Release);
        self.0.is_due.store(true, Ordering::Release);
    }

    /// Notes when hyper has taken the whole body of this response.
    pub(super) fn track<B>(self, response: Response<B>) -> Response<TrackedBody<B>> {
        response.map(|body| TrackedBody { body, _handed_over: OnDrop(self) })
    }

    fn is_due(&self) -> bool {
        self.0.is_due.load(Ordering::Acquire)
    }

    /// hyper has written all that it had.
    fn flushed(&self) {
        if self.0.is_handed_over.load(Ordering::Acquire) {
            self.0.is_due.store(false, Ordering::Release);
        }
    }
}

/// hyper drops a body at its end.
struct OnDrop(DueResponse);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.0.is_handed_over.store(true, Ordering::Release);
    }
}

/// A body whose end is noted.
pub(super) struct TrackedBody<B> {
    body: B,
    _handed_over: OnDrop,
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that holds back what is written while no response of ours is due.
pub(super) struct Gate<S> {
    socket: S,
    due: DueResponse,
    held: Vec<u8>,
}

impl<S> Gate<S> {
    pub(super) fn new(socket: S, due: DueResponse) -> Gate<S> {
        Gate { socket, due, held: Vec::new() }
    }

    /// The socket, and what was held back.
    pub(super) fn into_parts(self) -> (S, Vec<u8>) {
        (self.socket, self.held)
    }

    fn hold(&mut self, bytes: &[u8]) -> usize {
        let room = HELD_MAX.saturating_sub(self.held.len()).min(bytes.len());
        self.held.extend(bytes.iter().take(room));
        bytes.len()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.due.is_due() {
            return Pin::new(&mut self.socket).poll_write(cx, buf);
        }
        Poll::Ready(Ok(self.hold(buf)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.due.is_due() {
            return Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        }
        Poll::Ready(Ok(bufs.iter().map(|buf| self.hold(buf)).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.due.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is held back is still to be sent in another form.
        if self.held.is_empty() { Pin::new(&mut self.socket).poll_shutdown(cx) } else { Poll::Ready(Ok(())) }
    }
}

/// The same response with a problem as its body; `error` is why hyper gave it.
pub(super) fn with_problem(held: &[u8], error: &hyper::Error) -> Vec<u8> {
    let head = String::from_utf8_lossy(held);
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let status_line = lines.next().unwrap_or_default();
    let kind = match status_line.split(' ').nth(1) {
        Some("414") => ProblemKind::UriTooLong,
        Some("431") => ProblemKind::HeadTooLarge,
        _ => ProblemKind::BadRequest,
    };
    // hyper's words are fixed: they quote nothing of the request.
    let detail = format!("the head of the request is refused: {error}");
    let (headers, body) = finish_problem(&uuid::Uuid::new_v4().to_string(), &Problem::new(kind, detail));
    let has_length = |line: &&str| line.to_ascii_lowercase().starts_with(CONTENT_LENGTH.as_str());
    let mut text = format!("{status_line}\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    lines.filter(|line| !has_length(line)).for_each(|line| text.extend([line.as_bytes(), b"\r\n"].concat()));
    for (name, value) in &headers {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    text.extend(b"\r\n");
    text.extend(body);
    text
}
