//! A minimal HTTP/1.1 server over a raw socket: what a client of the API and `curl` need, plus deliberate violations.
//!
//! A server library would correct what a fault must break (cut bodies, wrong lengths, resets). Limits: 16 KiB of head,
//! 1 MiB of request body, `Content-Length` bodies only.

use std::borrow::Cow;
use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEAD_MAX: usize = 16 * 1024;
const BODY_MAX: usize = 1024 * 1024;
/// Bodies up to this size are sent in one write with their head.
const ONE_WRITE_MAX: usize = 64 * 1024;

/// A request that could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Answered with this status; then the connection ends.
    #[error("{1}")]
    Bad(u16, &'static str),
}

/// One complete request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// As sent, without the query.
    pub(crate) path: String,
    /// As sent, including its `?`; empty without one.
    pub(crate) query_text: String,
    /// Decoded.
    pub(crate) query: Vec<(String, String)>,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// When its last byte arrived.
    pub(crate) arrived: Instant,
    keep_alive: bool,
}

impl Request {
    /// The first header of that lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first query parameter of that name.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// One answer, before any fault is applied.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: Cow<'static, str>,
    /// Instead of the status's own.
    pub(crate) reason: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn new(status: u16, content_type: impl Into<Cow<'static, str>>, body: impl Into<Bytes>) -> Answer {
        Answer { status, content_type: content_type.into(), reason: None, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl std::fmt::Display) -> Answer {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// How an answer is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Delivery {
    #[default]
    Whole,
    /// This many bytes of the body, then the end.
    Cut(usize),
    /// Nothing, then a reset.
    Reset,
    /// The head and this many bytes of the body, then a reset.
    ResetAfter(usize),
    /// `Content-Length` off by this much, then the end.
    Misdeclared(i64),
    BadChunk,
    /// In chunks of this many bytes.
    Chunks(usize),
    Drip {
        bytes: usize,
        pause: Duration,
    },
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Wire {
        Wire { stream, buffer: BytesMut::with_capacity(4096) }
    }

    /// Reads the next request; None when the client is done. Not cancel safe: drop the connection after a cancelled
    /// call.
    pub(crate) async fn read(&mut self) -> Result<Option<Request>, WireError> {
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.buffer.split_to(end);
                self.buffer.advance(4);
                break head;
            }
            if self.buffer.len() > HEAD_MAX {
                return Err(WireError::Bad(431, "the head of the request is over 16 KiB"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(WireError::Bad(400, "the connection ended inside a request"))
                };
            }
        };
        let mut request = parse_head(&head)?;
        let length = match request.header("content-length") {
            Some(text) => text.parse().map_err(|_| WireError::Bad(400, "Content-Length is no number"))?,
            None if request.header("transfer-encoding").is_some() => {
                return Err(WireError::Bad(411, "send a Content-Length; chunked requests are not taken"));
            }
            None => 0,
        };
        if length > BODY_MAX {
            return Err(WireError::Bad(413, "the body of the request is over 1 MiB"));
        }
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(WireError::Bad(400, "the connection ended inside a body"));
            }
        }
        request.body = self.buffer.split_to(length).freeze();
        request.arrived = Instant::now();
        Ok(Some(request))
    }

    /// Sends an answer; true if the connection can take another request.
    pub(crate) async fn send(&mut self, answer: &Answer, delivery: Delivery, request: &Request) -> io::Result<bool> {
        let body = if request.method == "HEAD" { &[] } else { answer.body.as_ref() };
        let keep = delivery == Delivery::Whole && request.keep_alive
            || matches!(delivery, Delivery::Drip { .. } | Delivery::Chunks(_));
        let framing = match delivery {
            Delivery::BadChunk | Delivery::Chunks(_) => "transfer-encoding: chunked\r\n".to_owned(),
            Delivery::Misdeclared(by) => {
                format!(
                    "content-length: {}\r\n",
                    i64::try_from(body.len()).unwrap_or(i64::MAX).saturating_add(by).max(0)
                )
            }
            _ if answer.status == 204 => String::new(),
            _ => format!("content-length: {}\r\n", answer.body.len()),
        };
        let mut out = head(answer, &framing, keep);
        match delivery {
            Delivery::Whole if body.len() <= ONE_WRITE_MAX => {
                out.extend_from_slice(body);
                self.stream.write_all(&out).await?;
            }
            Delivery::Whole | Delivery::Misdeclared(_) => {
                self.stream.write_all(&out).await?;
                self.stream.write_all(body).await?;
            }
            Delivery::Cut(after) | Delivery::ResetAfter(after) => {
                out.extend_from_slice(body.get(..after).unwrap_or(body));
                self.stream.write_all(&out).await?;
                if matches!(delivery, Delivery::ResetAfter(_)) {
                    self.stream.set_zero_linger()?;
                }
            }
            Delivery::Reset => self.stream.set_zero_linger()?,
            Delivery::BadChunk => {
                let (first, rest) = body.split_at(body.len() / 2);
                out.extend_from_slice(format!("{:x}\r\n", first.len()).as_bytes());
                out.extend_from_slice(first);
                out.extend_from_slice(b"\r\nnot-a-size\r\n");
                out.extend_from_slice(rest);
                self.stream.write_all(&out).await?;
            }
            Delivery::Chunks(bytes) => {
                for piece in body.chunks(bytes.max(1)) {
                    out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    out.extend_from_slice(piece);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n\r\n");
                self.stream.write_all(&out).await?;
            }
            Delivery::Drip { bytes, pause } => {
                self.stream.write_all(&out).await?;
                for piece in body.chunks(bytes.max(1)) {
                    self.stream.write_all(piece).await?;
                    tokio::time::sleep(pause).await;
                }
            }
        }
        Ok(keep && request.keep_alive)
    }

    /// Answers something that could not be parsed as a request.
    pub(crate) async fn refuse(&mut self, status: u16, reason: &str) -> io::Result<()> {
        let answer = Answer::new(status, "text/plain; charset=utf-8", format!("{reason}\n"));
        let mut out = head(&answer, &format!("content-length: {}\r\n", answer.body.len()), false);
        out.extend_from_slice(&answer.body);
        self.stream.write_all(&out).await
    }
}

fn parse_head(head: &[u8]) -> Result<Request, WireError> {
    let bad = |reason| WireError::Bad(400, reason);
    let head = std::str::from_utf8(head).map_err(|_| bad("the head of the request is not UTF-8"))?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (first.next(), first.next(), first.next(), first.next())
    else {
        return Err(bad("the first line is not: method, target, version"));
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(WireError::Bad(505, "only HTTP/1.1 is spoken here"));
    }
    if !target.starts_with('/') {
        return Err(bad("the target does not begin with /"));
    }
    let mut headers = Vec::with_capacity(8);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a header has no colon"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let connection = headers.iter().find(|(name, _)| name == "connection").map(|(_, value)| value.to_ascii_lowercase());
    Ok(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query_text: if query.is_empty() { String::new() } else { format!("?{query}") },
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers,
        body: Bytes::new(),
        arrived: Instant::now(),
        keep_alive: match connection.as_deref() {
            Some("close") => false,
            Some("keep-alive") => true,
            _ => version == "HTTP/1.1",
        },
    })
}

fn head(answer: &Answer, framing: &str, keep: bool) -> Vec<u8> {
    let mut head = String::with_capacity(512);
    let reason = answer.reason.as_deref().unwrap_or_else(|| reason(answer.status));
    head.push_str(&format!("HTTP/1.1 {} {reason}\r\n", answer.status));
    if !answer.content_type.is_empty() {
        head.push_str(&format!("content-type: {}\r\n", answer.content_type));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(framing);
    head.push_str(if keep { "\r\n" } else { "connection: close\r\n\r\n" });
    head.into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::parse_head;

    #[test]
    fn heads_are_read() {
        let request =
            parse_head(b"GET /base/retailer/shipments?page=2&order-id=A%2B1 HTTP/1.1\r\nAccept: x\r\nX-A:b").unwrap();
        assert_eq!(request.path, "/base/retailer/shipments");
        assert_eq!(request.query_text, "?page=2&order-id=A%2B1");
        assert_eq!(request.parameter("order-id"), Some("A+1"));
        assert_eq!(request.header("accept"), Some("x"));
        assert!(request.keep_alive);
        assert!(!parse_head(b"GET / HTTP/1.1\r\nConnection: Close").unwrap().keep_alive);
    }

    #[test]
    fn broken_heads_are_refused() {
        for head in ["GET /", "GET  / HTTP/1.1", "GET x HTTP/1.1", "GET / HTTP/2", "GET / HTTP/1.1\r\nnocolon", ""] {
            assert!(parse_head(head.as_bytes()).is_err(), "{head}");
        }
        assert!(parse_head(b"GET /\xFF HTTP/1.1").is_err());
    }
}
