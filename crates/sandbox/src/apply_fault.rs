//! Applies a fault: turns a right answer into a broken one.

use std::time::Duration;

use bytes::Bytes;

use crate::body::{ANSWER_TYPE, MEDIA_TYPE, insert};
use crate::fault::{EchoForm, FaultBody, FaultKind};
use crate::wire::{Answer, Delivery, Request};
use crate::{echo, gzip_bomb, problem};

/// Bytes of a chunk that is shorter than any credential.
const CHUNK: usize = 7;

/// An answer and how it is delivered.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    pub(crate) delivery: Delivery,
    pub(crate) pause: Duration,
}

impl Outcome {
    pub(crate) fn whole(answer: Answer) -> Outcome {
        Outcome { answer, delivery: Delivery::Whole, pause: Duration::ZERO }
    }
}

/// Applies a fault. Made-up answers carry no rate headers, like those of a proxy in front of the API.
pub(crate) fn apply(kind: FaultKind, right: Answer, request: &Request) -> Outcome {
    let mut outcome = Outcome::whole(right);
    match kind {
        FaultKind::Status { code, body, headers } => {
            outcome.answer = status(code, body);
            outcome.answer.headers.extend(headers.into_iter().filter(|(name, value)| is_header(name, value)));
        }
        FaultKind::Garbage => outcome.answer = made_up(&b"\xFF\xFE{\"shipments\":[\xC3\x28,]]\0\x80"[..]),
        FaultKind::Nested { depth } => outcome.answer = made_up([vec![b'['; depth], vec![b']'; depth]].concat()),
        FaultKind::Huge { bytes } => {
            let filler = bytes.saturating_sub(br#"{"filler":""}"#.len());
            outcome.answer = made_up([br#"{"filler":""#.to_vec(), vec![b'x'; filler], br#""}"#.to_vec()].concat());
        }
        FaultKind::GzipBomb { bytes } => {
            outcome.answer = made_up(gzip_bomb::gzip_zeros(bytes)).with("content-encoding", "gzip");
        }
        FaultKind::Cut { after } => outcome.delivery = Delivery::Cut(after),
        FaultKind::Slow { ms } => outcome.pause = Duration::from_millis(ms),
        FaultKind::Drip { bytes, ms } => {
            outcome.delivery = Delivery::Drip { bytes, pause: Duration::from_millis(ms) };
        }
        FaultKind::Reset => outcome.delivery = Delivery::Reset,
        FaultKind::ResetAfter { bytes } => outcome.delivery = Delivery::ResetAfter(bytes),
        FaultKind::WrongContentLength { by } => outcome.delivery = Delivery::Misdeclared(by),
        FaultKind::BadChunk => outcome.delivery = Delivery::BadChunk,
        FaultKind::Insert { text } => outcome.answer.body = insert(&outcome.answer.body, &text),
        FaultKind::Redirect { to } => {
            let to: String = to.chars().filter(|c| !c.is_control()).collect();
            outcome.answer = Answer::new(302, "text/html", "").with("location", to);
        }
        // Already applied by the list.
        FaultKind::SamePage | FaultKind::Reversed => {}
        FaultKind::Echo { form } => {
            if form == EchoForm::Chunks {
                outcome.delivery = Delivery::Chunks(CHUNK);
            }
            outcome.answer = echo::answer(form, request, outcome.answer);
        }
    }
    outcome
}

fn status(code: u16, body: FaultBody) -> Answer {
    match body {
        FaultBody::Json => problem::gateway(code, "Sandbox fault", "This answer was asked for by a fault rule."),
        FaultBody::Html => Answer::new(
            code,
            "text/html; charset=UTF-8",
            format!("<html><head><title>{code}</title></head><body><h1>{code}</h1><hr>nginx</body></html>\n"),
        ),
        FaultBody::Empty => Answer::new(code, "", ""),
        FaultBody::Text(text) => Answer::new(code, MEDIA_TYPE, text),
    }
}

/// Whether a header is safe to send: names or values that would break the head are left out.
pub(crate) fn is_header(name: &str, value: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        && !value.chars().any(char::is_control)
}

fn made_up(body: impl Into<Bytes>) -> Answer {
    Answer::new(200, ANSWER_TYPE, body)
}

#[cfg(test)]
mod tests {
    use super::insert;

    #[test]
    fn inserted_text_follows_the_first_brace_in_single_bytes_where_possible() {
        assert_eq!(insert(b"{\"a\":1}", "\"a\":2,"), &b"{\"a\":2,\"a\":1}"[..]);
        assert_eq!(insert(b"{}", "\u{e9}\u{20ac}"), &b"{\xe9\xe2\x82\xac}"[..]);
        assert_eq!(insert(b"null", "x"), &b"xnull"[..]);
    }
}
