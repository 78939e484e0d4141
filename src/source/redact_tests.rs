//! Each form in which a host may quote a credential.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::{any, prop_assert, proptest};

use super::{Anchors, PIECE_MAX, REDACTED, Sent, SentClient, SentToken};

const SECRET: &str = "Zk3/x+Q9-_v7Lw2Ts8Rb4Ny6Hd1Gf5Jc0Mp";
const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiI4YzFmIn0.Q2x-f_9aZs7LmT4wPv8eXk1NbY6hRj3Uc5Di0OgVtKq";

fn sent<'a>(id: &'a str, secret: &'a str, token: Option<&'a str>) -> Sent<'a> {
    Sent::by(SentClient { id, secret, anchors: None }, token.map(|text| SentToken { text, anchors: None }))
}

fn redacted(text: &str) -> String {
    sent("client", SECRET, Some(TOKEN)).redact(text).into_owned()
}

fn found(body: &str) -> Option<&'static str> {
    let found = sent("client", SECRET, Some(TOKEN)).found_in(body.as_bytes());
    let (client, token) = (Anchors::of_client("client", SECRET), Anchors::of_secret(TOKEN));
    let client = SentClient { id: "client", secret: SECRET, anchors: Some(&client) };
    let kept = Sent::by(client, Some(SentToken { text: TOKEN, anchors: Some(&token) })).found_in(body.as_bytes());
    assert_eq!(kept, found, "{body}");
    found
}

fn percent(text: &str, is_upper: bool) -> String {
    let one = |byte: u8| if is_upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
    text.bytes().map(one).collect()
}

fn basic() -> String {
    STANDARD.encode(format!("client:{SECRET}"))
}

/// What is left of a credential: the longest piece that the text has in common with it.
fn left(text: &str, secret: &str) -> usize {
    let has = |length: usize| {
        secret.as_bytes().windows(length).any(|piece| text.as_bytes().windows(length).any(|window| window == piece))
    };
    (1..=secret.len()).take_while(|length| has(*length)).last().unwrap_or(0)
}

#[test]
fn each_form_of_each_credential_is_redacted_and_its_neighbours_stay() {
    for secret in [TOKEN, SECRET, &basic()] {
        let json = serde_json::to_string(secret).unwrap();
        let escaped: String = secret.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
        let html: String = secret.bytes().map(|byte| format!("&#{byte};")).collect();
        let hex: String = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
        for quoted in [
            secret.to_owned(),
            json.replace('/', "\\/"),
            escaped,
            html,
            hex,
            percent(secret, true),
            percent(secret, false),
            percent(&percent(secret, true), false),
            secret.replace('/', "%2F").replace('+', "%2b"),
            secret.to_ascii_lowercase(),
        ] {
            let text = redacted(&format!("the value [{quoted}] is wrong"));
            assert!(text.starts_with("the value [") && text.ends_with("] is wrong"), "{quoted}: {text}");
            assert!(text.contains(REDACTED) && text.len() < 60, "{quoted}: {text}");
        }
    }
}

#[test]
fn base64_is_redacted_at_each_alignment_and_in_both_alphabets() {
    for secret in [TOKEN, SECRET, &basic()] {
        for before in ["", "a", "ab", "abc"] {
            let whole = format!("{before}{secret}; and more behind it");
            for text in [STANDARD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)] {
                assert!(redacted(&text).len() < 60, "{before}: {}", redacted(&text));
                // The value of a Basic header is base64 already.
                let is_found = found(&format!("{{\"a\":\"{text}\"}}")).is_some();
                assert!(is_found || secret == basic(), "{text}");
            }
        }
    }
}

#[test]
fn pieces_are_redacted_down_to_a_dozen_bytes() {
    for secret in [TOKEN, SECRET] {
        for at in 0..secret.len() - PIECE_MAX {
            let text = redacted(&format!("({})", secret.get(at..at + PIECE_MAX).unwrap()));
            assert_eq!(text, format!("({REDACTED})"));
        }
        for end in 1..secret.len() {
            assert!(left(&redacted(secret.get(..end).unwrap()), secret) < PIECE_MAX);
        }
    }
}

#[test]
fn texts_without_credentials_are_not_touched() {
    for text in ["", "invalid_client", "Account is not active; 100 % of \\u0041 &amp; %41 client", "größer"] {
        assert!(matches!(sent("client", SECRET, Some(TOKEN)).redact(text), std::borrow::Cow::Borrowed(_)), "{text}");
    }
    // A secret of one or two letters is in any text.
    assert_eq!(sent("me", "s", Some("t")).redact("not this secret"), "not this secret");
    assert_eq!(sent("me", "bad", None).redact("wrong: BAD."), format!("wrong: {REDACTED}."));
    assert_eq!(Sent::key(TOKEN).redact(TOKEN), REDACTED);
}

#[test]
fn a_document_is_judged_by_whole_credentials_only() {
    for secret in [TOKEN, SECRET, &basic()] {
        let form = serde_json::json!({"id": 7, "echo": format!("Bearer {secret}")}).to_string();
        assert!(found(&form).is_some(), "{form}");
        assert!(found(&form.replace('/', "\\/")).is_some());
        assert!(found(&form.replace('+', "%2B").replace('/', "%2f")).is_some());
    }
    assert_eq!(found(&format!("{{\"a\":\"{TOKEN}\"}}")), Some("the access token"));
    // Another token of the same issuer begins alike, and one may even end alike.
    let (begin, end) = TOKEN.split_at(40);
    assert_eq!(found(&format!("{{\"a\":\"{begin}x\",\"b\":\"{end}\"}}")), None);
    // A short secret may be a word of a document; the value of its header is none.
    let sent = sent("client-one", "envelope", None);
    assert_eq!(sent.found_in(br#"{"envelopeId":"1"}"#), None);
    assert!(sent.found_in(STANDARD.encode("client-one:envelope").as_bytes()).is_some());
}

proptest! {
    #[test]
    fn any_text_is_redacted_without_panic(text in any::<String>(), at in 0..30usize, secret in "[!-~]{0,40}") {
        let mut mixed = text;
        let at = (0..=at.min(mixed.len())).rev().find(|at| mixed.is_char_boundary(*at)).unwrap_or(0);
        mixed.insert_str(at, &secret);
        let sent = sent("c", &secret, None);
        let redacted = sent.redact(&mixed);
        prop_assert!(secret.len() < 3 || !redacted.contains(&secret) || REDACTED.contains(&secret));
        sent.found_in(mixed.as_bytes());
    }
}
