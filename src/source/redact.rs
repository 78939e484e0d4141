//! Redacts from the texts of an answer what we sent to its host, in each form in which a host may quote it.
//!
//! A gateway in debug mode, or a hostile host, quotes the request in its answer. Its texts reach logs, the API and the
//! store, so every text passes through [`Sent::redact`] where it enters: in `problem`, `client` and `login`. Forms that
//! are recognised: plain, base64 at any alignment (standard and URL-safe), hex, percent-encoded, escaped as in JSON,
//! Rust or HTML, several of these one upon the other, and pieces of all of them, since hosts cut texts off.
//!
//! A document is not redacted, since it is stored as it was received: [`Sent::found_in`] says that it must not be
//! stored. That is asked for each good answer, so it looks for a dozen bytes of each form only.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use memchr::memmem;
use zeroize::Zeroizing;

/// What replaces a credential.
const REDACTED: &str = "[redacted]";

/// Bytes of a text that are read. Texts are cut far shorter before they are shown.
const READ_MAX: usize = 4096;

/// A common piece of this length is redacted, of a short credential a third of it; a shorter one may be a word.
const PIECE_MAX: usize = 12;
const PIECE_MIN: usize = 8;

/// Shorter secrets are in any text.
const SECRET_MIN: usize = 3;

/// Encodings of shorter secrets are in many.
const ENCODED_MIN: usize = 6;

/// Shorter secrets may be words of a document.
const IN_DOCUMENTS_MIN: usize = 16;

/// Bytes of a form that a document is searched for.
const ANCHOR: usize = 12;

/// The end of a credential, from which its anchors are taken: the begin of a JWT is the same for all of an issuer.
const TAIL: usize = 48;

/// Encodings upon each other that are undone.
const DECODED_MAX: usize = 3;

/// What a request carried that no answer may bring back.
#[derive(Clone, Copy)]
pub(crate) struct Sent<'a> {
    client: Option<SentClient<'a>>,
    token: Option<SentToken<'a>>,
}

/// The credentials of a shop.
#[derive(Clone, Copy)]
pub(super) struct SentClient<'a> {
    pub(super) id: &'a str,
    pub(super) secret: &'a str,
    /// Of these two. None: they are made for each body.
    pub(super) anchors: Option<&'a Anchors>,
}

/// An access token, or an API key.
#[derive(Clone, Copy)]
pub(super) struct SentToken<'a> {
    pub(super) text: &'a str,
    /// As those of a [`SentClient`].
    pub(super) anchors: Option<&'a Anchors>,
}

impl<'a> Sent<'a> {
    /// A request of a shop; with a token if it had one.
    pub(super) fn by(client: SentClient<'a>, token: Option<SentToken<'a>>) -> Sent<'a> {
        Sent { client: Some(client), token }
    }

    /// A request with a key and no client.
    pub(crate) fn key(key: &'a str) -> Sent<'a> {
        Sent { client: None, token: Some(SentToken { text: key, anchors: None }) }
    }

    /// The text without what was sent. Only its first [`READ_MAX`] bytes are read.
    pub(crate) fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let end = (0..=text.len().min(READ_MAX)).rev().find(|at| text.is_char_boundary(*at));
        self.redact_all(text.get(..end.unwrap_or_default()).unwrap_or_default())
    }

    /// The same for a text of any length.
    pub(crate) fn redact_all<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut is_sent = vec![false; text.len()];
        let forms = self.forms();
        for layer in layers(text.as_bytes()) {
            forms.iter().for_each(|form| form.mark(&layer, &mut is_sent));
        }
        if !is_sent.contains(&true) {
            return Cow::Borrowed(text);
        }
        let (mut left, mut was_sent) = (Vec::with_capacity(text.len()), false);
        for (byte, is_sent) in text.bytes().zip(is_sent) {
            match (was_sent, is_sent) {
                (_, false) => left.push(byte),
                (false, true) => left.extend_from_slice(REDACTED.as_bytes()),
                (true, true) => {}
            }
            was_sent = is_sent;
        }
        Cow::Owned(String::from_utf8_lossy(&left).into_owned())
    }

    /// Which credential a body contains, whole and in any form.
    pub(crate) fn found_in(&self, body: &[u8]) -> Option<&'static str> {
        if !self.has_anchor_in(body) {
            return None;
        }
        // Nearly certain by now; another credential may end alike.
        let forms: Vec<Form> = self.forms().into_iter().filter(|form| form.is_in_documents).collect();
        layers(body).find_map(|layer| {
            let contains = |form: &&Form| memmem::find(&layer.folded, &form.folded).is_some();
            forms.iter().find(contains).map(|form| form.what)
        })
    }

    /// The secrets, each with its name.
    fn secrets(&self) -> Vec<(&'static str, Zeroizing<String>)> {
        let mut secrets = Vec::with_capacity(3);
        let mut add = |what, secret: &str| secrets.push((what, Zeroizing::new(secret.to_owned())));
        if let Some(token) = self.token {
            add("the access token", token.text);
        }
        if let Some(client) = self.client {
            add("the client secret", client.secret);
            add("the client secret", &basic_pair(client.id, client.secret));
        }
        secrets
    }

    fn forms(&self) -> Vec<Form> {
        let secrets = self.secrets();
        secrets.iter().flat_map(|(what, secret)| forms_of(what, secret.as_bytes())).collect()
    }

    fn has_anchor_in(&self, body: &[u8]) -> bool {
        let is_token_near = |token: SentToken<'_>| match token.anchors {
            Some(anchors) => anchors.any_is_in(body),
            None => Anchors::of_secret(token.text).any_is_in(body),
        };
        let is_client_near = |client: SentClient<'_>| match client.anchors {
            Some(anchors) => anchors.any_is_in(body),
            None => Anchors::of_client(client.id, client.secret).any_is_in(body),
        };
        self.token.is_some_and(is_token_near) || self.client.is_some_and(is_client_near)
    }
}

/// A few bytes of each form of a credential that a document is searched for. Making them takes longer than the search, so
/// they are kept with the credential.
#[derive(Clone)]
pub(super) struct Anchors(Zeroizing<Vec<[u8; ANCHOR]>>);

impl std::fmt::Debug for Anchors {
    /// They are parts of a credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Anchors(..)")
    }
}

impl Anchors {
    /// Of a token, a key or a client's secret.
    pub(super) fn of_secret(secret: &str) -> Anchors {
        let mut anchors = Zeroizing::new(Vec::with_capacity(4));
        let tail = secret.as_bytes().split_at(secret.len().saturating_sub(TAIL)).1;
        if secret.len() >= IN_DOCUMENTS_MIN {
            anchors.extend(anchor_of(tail));
            anchors.extend((0..3).filter_map(|offset| anchor_of(&base64_inside(tail, offset))));
        }
        Anchors(anchors)
    }

    /// Of a client's id and secret.
    pub(super) fn of_client(id: &str, secret: &str) -> Anchors {
        if secret.len() >= IN_DOCUMENTS_MIN {
            // The value of a Basic header is among its forms.
            return Anchors::of_secret(secret);
        }
        let pair = basic_pair(id, secret);
        let anchor = anchor_of(pair.as_bytes()).filter(|_| pair.len() >= IN_DOCUMENTS_MIN);
        Anchors(Zeroizing::new(anchor.into_iter().collect()))
    }

    fn any_is_in(&self, body: &[u8]) -> bool {
        self.0.iter().any(|anchor| memmem::find(body, anchor).is_some())
    }
}

/// The value of a Basic header.
fn basic_pair(id: &str, secret: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{id}:{secret}"));
    Zeroizing::new(STANDARD.encode(pair.as_bytes()))
}

/// A credential in one encoding.
struct Form {
    what: &'static str,
    folded: Zeroizing<Vec<u8>>,
    piece: usize,
    is_in_documents: bool,
}

fn forms_of(what: &'static str, secret: &[u8]) -> Vec<Form> {
    if secret.len() < SECRET_MIN {
        return Vec::new();
    }
    let is_in_documents = secret.len() >= IN_DOCUMENTS_MIN;
    let form = |bytes: &[u8], least: usize| {
        let piece = (bytes.len() / 3).clamp(least, PIECE_MAX).min(bytes.len());
        let folded = Zeroizing::new(bytes.iter().map(|byte| fold(*byte)).collect());
        Form { what, folded, piece, is_in_documents }
    };
    let mut forms = vec![form(secret, PIECE_MIN)];
    if secret.len() >= ENCODED_MIN {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        forms.push(form(Zeroizing::new(hex).as_bytes(), PIECE_MAX));
        forms.extend((0..3).map(|offset| form(&base64_inside(secret, offset), PIECE_MIN)));
    }
    forms
}

/// The base64 of bytes inside others, `offset` bytes behind a boundary of three, without the letters that their
/// neighbours share.
fn base64_inside(bytes: &[u8], offset: usize) -> Zeroizing<Vec<u8>> {
    let shifted = Zeroizing::new([&[0; 3][..offset.min(3)], bytes].concat());
    let mut text = Zeroizing::new(STANDARD_NO_PAD.encode(shifted.as_slice()).into_bytes());
    if shifted.len() % 3 != 0 {
        text.pop();
    }
    let shared = (offset * 8).div_ceil(6).min(text.len());
    text.drain(..shared);
    text
}

/// The last bytes that no encoding escapes; else the last ones.
fn anchor_of(form: &[u8]) -> Option<[u8; ANCHOR]> {
    let is_plain = |window: &&[u8]| window.iter().all(u8::is_ascii_alphanumeric);
    let found = form.windows(ANCHOR).rev().find(is_plain).or_else(|| form.windows(ANCHOR).next_back());
    found?.try_into().ok()
}

/// Makes alike what hosts change: the case of letters, and the two alphabets of base64.
fn fold(byte: u8) -> u8 {
    match byte {
        b'-' => b'+',
        b'_' => b'/',
        byte => byte.to_ascii_lowercase(),
    }
}

impl Form {
    /// Marks the bytes of the original text that have a piece in common with it.
    fn mark(&self, layer: &Layer, is_sent: &mut [bool]) {
        let pieces: HashSet<&[u8]> = self.folded.windows(self.piece).collect();
        for (at, window) in layer.folded.windows(self.piece).enumerate() {
            if !pieces.contains(window) {
                continue;
            }
            let ends = (layer.begins.get(at), layer.begins.get(at + self.piece));
            if let (Some(from), Some(to)) = ends
                && let Some(range) = is_sent.get_mut(*from..*to)
            {
                range.fill(true);
            }
        }
    }
}

/// A text with some of its encodings undone.
struct Layer {
    bytes: Vec<u8>,
    folded: Vec<u8>,
    /// Where each byte begins in the original text, and where the text ends.
    begins: Vec<usize>,
}

/// The text, and what it decodes to as long as something changes.
fn layers(text: &[u8]) -> impl Iterator<Item = Layer> {
    let plain = Layer::new(text.to_vec(), (0..=text.len()).collect());
    let mut next = Some(plain);
    let mut left = DECODED_MAX;
    std::iter::from_fn(move || {
        let layer = next.take()?;
        if left > 0 {
            left -= 1;
            next = layer.decoded();
        }
        Some(layer)
    })
}

impl Layer {
    fn new(bytes: Vec<u8>, begins: Vec<usize>) -> Layer {
        let folded = bytes.iter().map(|byte| fold(*byte)).collect();
        Layer { bytes, folded, begins }
    }

    /// One level of escapes undone; none: there are none.
    fn decoded(&self) -> Option<Layer> {
        let (mut bytes, mut begins) = (Vec::with_capacity(self.bytes.len()), Vec::with_capacity(self.begins.len()));
        let mut at = 0;
        while let Some(rest) = self.bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (byte, length) = unescaped(rest).unwrap_or((rest.first().copied().unwrap_or_default(), 1));
            bytes.push(byte);
            begins.push(self.begins.get(at).copied().unwrap_or_default());
            at += length;
        }
        begins.push(self.begins.last().copied().unwrap_or_default());
        (bytes.len() < self.bytes.len()).then(|| Layer::new(bytes, begins))
    }
}

/// The byte that an escape at the start of a text represents, and the length of the escape. Credentials are ASCII.
fn unescaped(text: &[u8]) -> Option<(u8, usize)> {
    match text {
        [b'%', high, low, ..] => Some((hex(&[*high, *low])?, 3)),
        [b'\\', b'u', digits @ ..] => Some((hex(digits.get(..4)?)?, 6)),
        [b'\\', b'x', digits @ ..] => Some((hex(digits.get(..2)?)?, 4)),
        [b'\\', escaped @ (b'"' | b'\'' | b'\\' | b'/'), ..] => Some((*escaped, 2)),
        [b'&', ..] => {
            let name = text.get(1..text.iter().take(10).position(|byte| *byte == b';')?)?;
            let byte = match name {
                b"amp" => b'&',
                b"lt" => b'<',
                b"gt" => b'>',
                b"quot" => b'"',
                b"apos" => b'\'',
                [b'#', b'x' | b'X', digits @ ..] => hex(digits)?,
                [b'#', digits @ ..] => std::str::from_utf8(digits).ok()?.parse().ok()?,
                _ => return None,
            };
            Some((byte, name.len() + 2))
        }
        _ => None,
    }
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::try_from(u32::from_str_radix(text, 16).ok()?).ok()
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
