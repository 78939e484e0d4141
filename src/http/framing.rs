//! Finds the end of a request head and the length of its body; rejects ambiguous framing.
//!
//! Pure. `wire` calls it before hyper sees a byte of the request. It prevents request smuggling: hyper accepts a
//! transfer coding together with a length, and a repeated length, and a proxy in front may read those differently. Both
//! are rejected here. The characters of names, values and URIs are left to hyper, which answers a plain 400.

use super::reply::{Problem, ProblemKind};

/// Room for the method, the version and the spaces beside the URI.
const REQUEST_LINE_SLACK: usize = 64;

/// Limits of a request head.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadBounds {
    pub(super) bytes_max: usize,
    pub(super) headers_max: usize,
    pub(super) uri_bytes_max: usize,
}

/// The framing of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// Zero if no length is given.
    Known(u64),
    Chunked,
}

/// Result of checking the bytes received so far.
#[derive(Debug)]
pub(super) enum HeadCheck {
    /// The head is incomplete.
    Partial,
    /// The head is the first `length` bytes.
    Whole {
        length: usize,
        body: BodyLength,
    },
    Refused(Problem),
}

/// Checks the bytes of a request from its start. The first `scanned` of them were `Partial` before.
pub(super) fn check_head(bytes: &[u8], scanned: usize, bounds: HeadBounds) -> HeadCheck {
    let start = blank_lines(bytes);
    let head = bytes.get(start..).unwrap_or_default();
    let from = scanned.saturating_sub(start);
    let end = end_of_head(head, from);
    let length = end.unwrap_or(head.len());
    let line = head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len());
    if line > bounds.uri_bytes_max + REQUEST_LINE_SLACK {
        let detail = format!("the URI must not be longer than {} bytes", bounds.uri_bytes_max);
        return HeadCheck::Refused(Problem::new(ProblemKind::UriTooLong, detail));
    }
    if start + length > bounds.bytes_max {
        let detail = format!("the request head must not be longer than {} bytes", bounds.bytes_max);
        return HeadCheck::Refused(Problem::new(ProblemKind::HeadersTooLarge, detail));
    }
    if end.is_none() {
        return HeadCheck::Partial;
    }
    match body_length(head.get(..length).unwrap_or_default(), bounds.headers_max) {
        Ok(body) => HeadCheck::Whole { length: start + length, body },
        Err(problem) => HeadCheck::Refused(problem),
    }
}

/// Length of the empty lines that may precede a request (RFC 9112, 2.2).
fn blank_lines(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match bytes.get(at..) {
            Some([b'\n', ..]) => at += 1,
            Some([b'\r', b'\n', ..]) => at += 2,
            _ => return at,
        }
    }
}

/// The length of a head including its empty line. Like hyper, it accepts a bare line feed.
fn end_of_head(head: &[u8], scanned: usize) -> Option<usize> {
    // The empty line may have begun in the bytes that were scanned before.
    let from = scanned.saturating_sub(2);
    let ends = head.get(from..)?.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| from + at + 1);
    let empty = |at: usize| match head.get(at..) {
        Some([b'\n', ..]) => Some(at + 1),
        Some([b'\r', b'\n', ..]) => Some(at + 2),
        _ => None,
    };
    ends.into_iter().find_map(empty)
}

fn body_length(head: &[u8], headers_max: usize) -> Result<BodyLength, Problem> {
    let malformed = |what: &str| Problem::new(ProblemKind::BadRequest, what);
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let version = lines.next().and_then(|line| line.rsplit(|byte| *byte == b' ').next()).unwrap_or_default();
    if !version.starts_with(b"HTTP/1.") {
        return Err(malformed("the first line must be a method, a URI and `HTTP/1.1`"));
    }
    let (mut headers, mut length, mut coded) = (0, None, false);
    for line in lines.take_while(|line| !line.is_empty()) {
        headers += 1;
        if headers > headers_max {
            let detail = format!("a request must not have more than {headers_max} header lines");
            return Err(Problem::new(ProblemKind::HeadersTooLarge, detail));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let Some((name, value)) = colon.and_then(|at| line.split_at_checked(at)) else {
            return Err(malformed("a header line has no colon"));
        };
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
            return Err(malformed("a header line has white space at its start or before its colon"));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let given = digits(value).ok_or_else(|| malformed("`Content-Length` must be one whole number"))?;
            if length.replace(given).is_some() {
                return Err(malformed("`Content-Length` is given twice"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if coded || !value.eq_ignore_ascii_case(b"chunked") || version == b"HTTP/1.0" {
                return Err(malformed("the only supported transfer coding is `chunked`, with HTTP/1.1"));
            }
            coded = true;
        }
    }
    match (length, coded) {
        (Some(_), true) => Err(malformed("`Content-Length` and `Transfer-Encoding` must not be combined")),
        (length, false) => Ok(BodyLength::Known(length.unwrap_or(0))),
        (None, true) => Ok(BodyLength::Chunked),
    }
}

/// Digits only: `parse` alone would accept `+5`.
fn digits(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::{BodyLength, HeadBounds, HeadCheck, check_head};

    const BOUNDS: HeadBounds = HeadBounds { bytes_max: 400, headers_max: 3, uri_bytes_max: 100 };

    /// The length of the head and the framing of the body, or the problem; none if incomplete.
    fn checked(text: &str) -> Option<Result<(usize, BodyLength), String>> {
        match check_head(text.as_bytes(), 0, BOUNDS) {
            HeadCheck::Partial => None,
            HeadCheck::Whole { length, body } => Some(Ok((length, body))),
            HeadCheck::Refused(problem) => Some(Err(format!("{problem:?}"))),
        }
    }

    fn body(headers: &str) -> Result<BodyLength, String> {
        checked(&format!("POST / HTTP/1.1\r\n{headers}\r\n")).unwrap().map(|(_, body)| body)
    }

    #[test]
    fn a_head_ends_at_its_first_empty_line() {
        for (text, length) in [
            ("GET / HTTP/1.1\r\n\r\n", 18),
            ("GET / HTTP/1.1\n\nGET / HTTP/1.1\n\n", 16),
            ("\r\n\nGET / HTTP/1.1\r\na: b\r\n\r\nbody", 27),
            ("GET / HTTP/1.1\r\na: b\n\r\nbody", 23),
        ] {
            assert_eq!(checked(text), Some(Ok((length, BodyLength::Known(0)))), "{text:?}");
        }
        for text in ["", "\r\n", "\r", "GET / HTTP/1.1", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\na: b\r\n\r"] {
            assert_eq!(checked(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_head_received_byte_by_byte_ends_at_the_same_place() {
        let text = b"\r\nPOST / HTTP/1.1\r\nContent-Length: 12\r\n\r\nx";
        let mut scanned = 0;
        for end in 0..text.len() {
            let HeadCheck::Partial = check_head(text.get(..end).unwrap(), scanned, BOUNDS) else {
                assert_eq!(end, text.len() - 1);
                return;
            };
            scanned = end;
        }
        panic!("the end of the head was not found");
    }

    #[test]
    fn a_body_has_one_length_or_one_chunked_coding_never_both() {
        assert_eq!(body("Content-Length: 12\r\n"), Ok(BodyLength::Known(12)));
        assert_eq!(body("content-length:\t7 \r\n"), Ok(BodyLength::Known(7)));
        assert_eq!(body("Transfer-Encoding: Chunked\r\n"), Ok(BodyLength::Chunked));
        assert_eq!(body("a: b\r\n"), Ok(BodyLength::Known(0)));
        for bad in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Content-Length : 5\r\n",
            " Content-Length: 5\r\n",
            "no colon\r\n",
            ": no name\r\n",
        ] {
            assert!(body(bad).is_err_and(|problem| problem.contains("BadRequest")), "{bad:?}");
        }
        assert!(checked("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap().is_err());
        assert!(checked("PRI * HTTP/2.0\r\n\r\n").unwrap().is_err());
    }

    #[test]
    fn an_incomplete_head_over_its_limits_is_rejected() {
        let problem = |text: &str| checked(text).unwrap().unwrap_err();
        assert!(problem(&format!("GET /{}", "x".repeat(170))).contains("UriTooLong"));
        assert!(problem(&format!("GET / HTTP/1.1\r\na: {}", "x".repeat(400))).contains("HeadersTooLarge"));
        assert!(problem(&"\n".repeat(401)).contains("HeadersTooLarge"));
        assert!(problem("GET / HTTP/1.1\r\na: b\r\na: b\r\na: b\r\na: b\r\n\r\n").contains("HeadersTooLarge"));
        assert!(body("a: b\r\na: b\r\na: b\r\n").is_ok());
    }
}
