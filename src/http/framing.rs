//! Where a request's head ends, how long its body is, and whether both are beyond doubt.
//!
//! Pure: bytes in, a judgement out. `wire` asks it before hyper sees a byte of a request, because two
//! readers that disagree about where a request ends are how one client's bytes become another's request.
//! hyper itself takes a transfer coding beside a length, and a length twice; here both are refused.
//! What a name, a value or an address may be made of is left to hyper, which answers with a plain 400.

use super::reply::{Kind, Problem};

/// What the method, the version and the spaces add to an address.
const REQUEST_LINE_SLACK: usize = 64;

/// The bounds of a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadBounds {
    pub(super) bytes_max: usize,
    pub(super) headers_max: usize,
    pub(super) uri_bytes_max: usize,
}

/// How a body says its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// None is a length of zero.
    Known(u64),
    Chunked,
}

/// What the bytes so far are.
#[derive(Debug)]
pub(super) enum Judgement {
    /// More must come.
    Partial,
    /// The head is the first `length` bytes.
    Whole {
        length: usize,
        body: BodyLength,
    },
    Refused(Problem),
}

/// Judges the bytes from the start of a request on; the first `scanned` of them were `Partial` before.
pub(super) fn judge(bytes: &[u8], scanned: usize, bounds: HeadBounds) -> Judgement {
    let start = blank_lines(bytes);
    let head = bytes.get(start..).unwrap_or_default();
    let from = scanned.saturating_sub(start);
    let end = end_of_head(head, from);
    let length = end.unwrap_or(head.len());
    let line = head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len());
    if line > bounds.uri_bytes_max + REQUEST_LINE_SLACK {
        let detail = format!("an address may have at most {} bytes", bounds.uri_bytes_max);
        return Judgement::Refused(Problem::new(Kind::UriTooLong, detail));
    }
    if start + length > bounds.bytes_max {
        let detail = format!("the head of a request may have at most {} bytes", bounds.bytes_max);
        return Judgement::Refused(Problem::new(Kind::HeadersTooLarge, detail));
    }
    if end.is_none() {
        return Judgement::Partial;
    }
    match body_length(head.get(..length).unwrap_or_default(), bounds.headers_max) {
        Ok(body) => Judgement::Whole { length: start + length, body },
        Err(problem) => Judgement::Refused(problem),
    }
}

/// Bytes of the empty lines that may stand before a request (RFC 9112, 2.2).
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

/// The length of a head with its empty line. As hyper's parser, it lets a line end without the return.
fn end_of_head(head: &[u8], scanned: usize) -> Option<usize> {
    // The empty line may have begun in what was looked at before.
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
    let malformed = |what: &str| Problem::new(Kind::BadRequest, what);
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let version = lines.next().and_then(|line| line.rsplit(|byte| *byte == b' ').next()).unwrap_or_default();
    if !version.starts_with(b"HTTP/1.") {
        return Err(malformed("the first line must be a method, an address and `HTTP/1.1`"));
    }
    let (mut headers, mut length, mut coded) = (0, None, false);
    for line in lines.take_while(|line| !line.is_empty()) {
        headers += 1;
        if headers > headers_max {
            let detail = format!("a request may have at most {headers_max} header lines");
            return Err(Problem::new(Kind::HeadersTooLarge, detail));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let Some((name, value)) = colon.and_then(|at| line.split_at_checked(at)) else {
            return Err(malformed("a header line has no colon"));
        };
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
            return Err(malformed("a header line begins with white space, or has some before its colon"));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let given = digits(value).ok_or_else(|| malformed("`Content-Length` must be one whole number"))?;
            if length.replace(given).is_some() {
                return Err(malformed("`Content-Length` stands here twice"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if coded || !value.eq_ignore_ascii_case(b"chunked") || version == b"HTTP/1.0" {
                return Err(malformed("the only transfer coding here is one `chunked`, with HTTP/1.1"));
            }
            coded = true;
        }
    }
    match (length, coded) {
        (Some(_), true) => Err(malformed("`Content-Length` and `Transfer-Encoding` exclude each other")),
        (length, false) => Ok(BodyLength::Known(length.unwrap_or(0))),
        (None, true) => Ok(BodyLength::Chunked),
    }
}

/// Digits only: `parse` alone would take `+5`.
fn digits(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::{BodyLength, HeadBounds, Judgement, judge};

    const BOUNDS: HeadBounds = HeadBounds { bytes_max: 400, headers_max: 3, uri_bytes_max: 100 };

    /// The length of the head and of the body, or the start of the refusal; none while more must come.
    fn judged(text: &str) -> Option<Result<(usize, BodyLength), String>> {
        match judge(text.as_bytes(), 0, BOUNDS) {
            Judgement::Partial => None,
            Judgement::Whole { length, body } => Some(Ok((length, body))),
            Judgement::Refused(problem) => Some(Err(format!("{problem:?}"))),
        }
    }

    fn body(headers: &str) -> Result<BodyLength, String> {
        judged(&format!("POST / HTTP/1.1\r\n{headers}\r\n")).unwrap().map(|(_, body)| body)
    }

    #[test]
    fn a_head_ends_at_its_first_empty_line() {
        for (text, length) in [
            ("GET / HTTP/1.1\r\n\r\n", 18),
            ("GET / HTTP/1.1\n\nGET / HTTP/1.1\n\n", 16),
            ("\r\n\nGET / HTTP/1.1\r\na: b\r\n\r\nbody", 27),
            ("GET / HTTP/1.1\r\na: b\n\r\nbody", 23),
        ] {
            assert_eq!(judged(text), Some(Ok((length, BodyLength::Known(0)))), "{text:?}");
        }
        for text in ["", "\r\n", "\r", "GET / HTTP/1.1", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\na: b\r\n\r"] {
            assert_eq!(judged(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_judged_the_same() {
        let text = b"\r\nPOST / HTTP/1.1\r\nContent-Length: 12\r\n\r\nx";
        let mut scanned = 0;
        for end in 0..text.len() {
            let Judgement::Partial = judge(text.get(..end).unwrap(), scanned, BOUNDS) else {
                assert_eq!(end, text.len() - 1);
                return;
            };
            scanned = end;
        }
        panic!("the end was not seen");
    }

    #[test]
    fn one_length_or_one_coding() {
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
            assert!(body(bad).is_err_and(|told| told.contains("BadRequest")), "{bad:?}");
        }
        assert!(judged("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap().is_err());
        assert!(judged("PRI * HTTP/2.0\r\n\r\n").unwrap().is_err());
    }

    #[test]
    fn a_head_is_bounded_before_it_is_whole() {
        let told = |text: &str| judged(text).unwrap().unwrap_err();
        assert!(told(&format!("GET /{}", "x".repeat(170))).contains("UriTooLong"));
        assert!(told(&format!("GET / HTTP/1.1\r\na: {}", "x".repeat(400))).contains("HeadersTooLarge"));
        assert!(told(&"\n".repeat(401)).contains("HeadersTooLarge"));
        assert!(told("GET / HTTP/1.1\r\na: b\r\na: b\r\na: b\r\na: b\r\n\r\n").contains("HeadersTooLarge"));
        assert!(body("a: b\r\na: b\r\na: b\r\n").is_ok());
    }
}
