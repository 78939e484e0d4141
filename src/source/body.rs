//! Response bodies: read whole or in part, decompressed and never beyond a limit.
//!
//! The client library decodes only the first member of a gzip body. RFC 1952 allows any number, and servers that compress
//! in pieces send several, so the decoding is done here.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use super::problem::{SourceError, root_cause};

/// The encoding that calls ask for.
pub(super) const ENCODING: &str = "gzip";

/// Reads the whole body, of at most `limit` bytes after decompression.
///
/// # Errors
/// [`SourceError::TooLarge`], [`SourceError::TimedOut`], [`SourceError::Malformed`].
pub(super) async fn read_whole(mut response: Response, limit: usize) -> Result<Bytes, SourceError> {
    let length = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    if length > limit {
        return Err(SourceError::TooLarge { limit });
    }
    let mut body = PartialBody::new(response.headers(), length, limit);
    let broken = |detail: String| SourceError::Malformed { detail: format!("its body is incomplete: {detail}") };
    loop {
        match response.chunk().await {
            Ok(None) => return body.end().map(Bytes::from).map_err(|error| broken(error.to_string())),
            Ok(Some(chunk)) => match body.take(&chunk) {
                Ok(()) => {}
                Err(_) if body.is_full() => return Err(SourceError::TooLarge { limit }),
                Err(error) => return Err(broken(error.to_string())),
            },
            Err(error) if error.is_timeout() => return Err(SourceError::TimedOut),
            Err(error) => return Err(broken(root_cause(&error))),
        }
    }
}

/// Reads what arrives of an error's body, up to `limit` bytes. Never fails.
pub(super) async fn read_some(mut response: Response, limit: usize) -> Vec<u8> {
    let mut body = PartialBody::new(response.headers(), 0, limit);
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.take(&chunk).is_err() {
            break;
        }
    }
    body.so_far()
}

/// A body while it arrives.
enum PartialBody {
    Plain(Capped),
    Gzip { decoder: Box<MultiGzDecoder<Capped>>, is_empty: bool },
}

impl PartialBody {
    fn new(headers: &HeaderMap, length: usize, limit: usize) -> PartialBody {
        let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
        let capped = Capped { bytes: Vec::with_capacity(length), limit, is_full: false };
        if ["gzip", "x-gzip"].iter().any(|name| encoding.eq_ignore_ascii_case(name)) {
            PartialBody::Gzip { decoder: Box::new(MultiGzDecoder::new(capped)), is_empty: true }
        } else {
            PartialBody::Plain(capped)
        }
    }

    fn take(&mut self, part: &[u8]) -> io::Result<()> {
        match self {
            PartialBody::Plain(capped) => capped.write_all(part),
            PartialBody::Gzip { decoder, is_empty } => {
                *is_empty &= part.is_empty();
                decoder.write_all(part)
            }
        }
    }

    fn is_full(&self) -> bool {
        match self {
            PartialBody::Plain(capped) => capped.is_full,
            PartialBody::Gzip { decoder, .. } => decoder.get_ref().is_full,
        }
    }

    /// The whole body. Fails when a compressed one ends too early or its checksum differs.
    fn end(self) -> io::Result<Vec<u8>> {
        match self {
            PartialBody::Plain(capped) => Ok(capped.bytes),
            PartialBody::Gzip { is_empty: true, .. } => Ok(Vec::new()),
            PartialBody::Gzip { decoder, .. } => Ok(decoder.finish()?.bytes),
        }
    }

    fn so_far(self) -> Vec<u8> {
        match self {
            PartialBody::Plain(capped) => capped.bytes,
            PartialBody::Gzip { mut decoder, .. } => {
                // Whether the stream is complete does not matter here, only what was decoded.
                drop(decoder.flush());
                std::mem::take(&mut decoder.get_mut().bytes)
            }
        }
    }
}

/// A buffer that refuses bytes beyond a limit.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
    is_full: bool,
}

impl Write for Capped {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let room = self.limit.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(part.get(..room).unwrap_or(part));
        if part.len() > room {
            self.is_full = true;
            return Err(io::Error::other("it is larger than the limit"));
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use reqwest::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};

    use super::PartialBody;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// Reads a body that arrives in pieces of this size; none: it cannot be read whole.
    fn read(encoding: &'static str, body: &[u8], piece: usize, limit: usize) -> Option<Vec<u8>> {
        let headers: HeaderMap = [(CONTENT_ENCODING, HeaderValue::from_static(encoding))].into_iter().collect();
        let mut read = PartialBody::new(&headers, 0, limit);
        for part in body.chunks(piece) {
            read.take(part).ok()?;
        }
        read.end().ok()
    }

    #[test]
    fn a_gzip_body_of_several_members_is_read_whole_in_pieces_of_any_size() {
        let members = [gzip(b"{\"items\":["), gzip(b""), gzip(b"1,2"), gzip(b"]}")].concat();
        for piece in [1, 2, 7, 19, 1000] {
            for encoding in ["gzip", "x-gzip", " GZIP"] {
                assert_eq!(read(encoding, &members, piece, 100).as_deref(), Some(&b"{\"items\":[1,2]}"[..]), "{piece}");
            }
        }
        assert_eq!(read("identity", b"{}", 1, 100).unwrap(), b"{}");
        assert_eq!(read("gzip", b"", 1, 100).unwrap(), b"");
    }

    #[test]
    fn a_truncated_changed_or_too_large_body_is_an_error() {
        let (one, two) = (gzip(b"first"), gzip(b"second"));
        let both = [one.clone(), two.clone()].concat();
        for end in 1..both.len() {
            let is_whole = end == one.len();
            assert_eq!(read("gzip", &both[..end], 5, 100).is_some(), is_whole, "{end} of {}", both.len());
        }
        let mut changed = both.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(read("gzip", &changed, 5, 100), None);
        assert_eq!(read("gzip", b"plain text", 5, 100), None);
        assert_eq!(read("gzip", &both, 5, 11).unwrap(), b"firstsecond");
        assert_eq!(read("gzip", &both, 5, 10), None, "a byte beyond the limit");
        let bomb = gzip(&vec![0; 10_000_000]);
        assert_eq!(read("gzip", &bomb, 16_384, 1_000), None);
    }
}
