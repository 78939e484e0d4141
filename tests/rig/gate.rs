//! Stops an exchange at one moment: when the awaited request has arrived, or its answer, or half of that has passed.
//!
//! A proxy has at most one gate. What passed before it closed has arrived, nothing of the exchange does afterwards,
//! and the test is notified at that instant. So a kill -9 hits the service in a known state, not at a guessed time.

use std::time::Duration;

use tokio::sync::oneshot;

/// When a gate closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The request has come, and does not reach the server.
    Asked,
    /// The server has answered, and nothing of that has passed.
    Answered,
    /// Half of the answer has passed.
    Half,
    /// The whole answer has passed.
    Whole,
}

/// Whether a request is the one that a gate waits for. Sees all requests until one is.
type Wanted = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// A gate that waits for its request.
pub(crate) struct Gate {
    moment: Moment,
    wanted: Wanted,
    closed: oneshot::Sender<()>,
}

/// The other end of a gate.
pub(crate) struct Armed(oneshot::Receiver<()>);

impl Armed {
    /// Waits until the gate closes; false when that takes too long.
    pub(crate) async fn closed(self, at_most: Duration) -> bool {
        matches!(tokio::time::timeout(at_most, self.0).await, Ok(Ok(())))
    }
}

impl Gate {
    pub(crate) fn new(moment: Moment, wanted: impl FnMut(&[u8]) -> bool + Send + 'static) -> (Gate, Armed) {
        let (closed, hears) = oneshot::channel();
        (Gate { moment, wanted: Box::new(wanted), closed }, Armed(hears))
    }

    pub(crate) fn wants(&mut self, request: &[u8]) -> bool {
        (self.wanted)(request)
    }

    /// Its request has come.
    pub(crate) fn meet(self) -> Closing {
        Closing { moment: self.moment, closed: self.closed, passed: 0, closes_at: None }
    }
}

/// A gate that has met its request and counts the answer.
pub(crate) struct Closing {
    moment: Moment,
    closed: oneshot::Sender<()>,
    passed: usize,
    closes_at: Option<usize>,
}

impl Closing {
    /// Whether the request itself may not pass.
    pub(crate) fn holds_request(&self) -> bool {
        self.moment == Moment::Asked
    }

    /// How many of these bytes of the answer pass before the gate closes; None: all, and it stays open.
    pub(crate) fn closes_after(&mut self, answer: &[u8]) -> Option<usize> {
        let closes_at = *self.closes_at.get_or_insert_with(|| match self.moment {
            Moment::Asked | Moment::Answered => 0,
            Moment::Half => length(answer) / 2,
            Moment::Whole => length(answer),
        });
        let left = closes_at.saturating_sub(self.passed);
        if left > answer.len() {
            self.passed += answer.len();
            return None;
        }
        Some(left)
    }

    /// Notifies the test that it is closed.
    pub(crate) fn close(self) {
        let _unheard_when_cut_short = self.closed.send(());
    }
}

/// How long an answer is that begins so: by its head if it is HTTP; all that is there else, as answers
/// of MySQL that are waited for here are one packet.
fn length(begin: &[u8]) -> usize {
    let Some(end) = begin.windows(4).position(|four| four == b"\r\n\r\n").filter(|_| begin.starts_with(b"HTTP/"))
    else {
        return begin.len();
    };
    let head = String::from_utf8_lossy(&begin[..end]).to_ascii_lowercase();
    let body = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    end + 4 + body.unwrap_or_default()
}

/// The rig sees what it should.
pub(crate) fn sees() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n";
    assert_eq!(length(answer), answer.len() + 11);
    assert_eq!(length(b"\x07\0\0\x01\0\0\0\x02\0\0\0"), 11);
    let closes = |moment, pieces: &[&[u8]]| {
        let mut closing = Gate::new(moment, |_| true).0.meet();
        pieces.iter().map(|piece| closing.closes_after(piece)).collect::<Vec<_>>()
    };
    assert_eq!(closes(Moment::Answered, &[answer]), [Some(0)]);
    assert_eq!(closes(Moment::Half, &[answer, b"hello"])[0], Some(25));
    assert_eq!(closes(Moment::Whole, &[answer, b"hello ", b"world"]), [None, None, Some(5)]);
}
