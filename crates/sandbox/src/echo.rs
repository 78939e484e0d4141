//! Quotes a request in its answer, as gateways in debug mode do, and hosts that want its credentials to be found later.

use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::body::{ANSWER_TYPE, MEDIA_TYPE, insert, json as text};
use crate::fault::EchoForm;
use crate::login;
use crate::wire::{Answer, Request};

/// Bytes of a credential that a host which shortens it shows.
const SHOWN: usize = 100;

/// Quotes a request instead of the right answer, or in it.
pub(crate) fn answer(form: EchoForm, request: &Request, right: Answer) -> Answer {
    let header = request.header("authorization").unwrap_or_default();
    let value = header.split_once(' ').map_or(header, |(_, value)| value);
    let status = if request.path.ends_with("/token") { 401 } else { 400 };
    let problem = |encode: &dyn Fn(&str) -> String| {
        let secret = login::basic(request).map(|(_, secret)| encode(&secret)).unwrap_or_default();
        let violations: Vec<_> =
            request.headers.iter().map(|(name, value)| json!({ "name": name, "reason": encode(value) })).collect();
        // The secret first: clients cut long texts.
        let body = json!({
            "title": secret, "detail": encode(value), "status": status, "error": "invalid_request",
            "error_description": encode(header), "violations": violations,
        });
        Answer::new(status, MEDIA_TYPE, text(&body))
    };
    match form {
        // How they are sent is of `apply_fault`.
        EchoForm::Plain | EchoForm::Chunks => problem(&str::to_owned),
        EchoForm::Gzip => {
            let plain = problem(&str::to_owned);
            let mut compressed = GzEncoder::new(Vec::new(), Compression::default());
            // Nothing fails that writes into memory.
            drop(compressed.write_all(&plain.body));
            Answer { body: compressed.finish().unwrap_or_default().into(), ..plain }.with("content-encoding", "gzip")
        }
        EchoForm::Hex => problem(&|value| {
            let lower = value.bytes().map(|byte| format!("{byte:02x}"));
            lower.chain([" ".to_owned()]).chain(value.bytes().map(|byte| format!("{byte:02X}"))).collect()
        }),
        EchoForm::Base64 => problem(&|value| {
            let [first, second, third] = ["", "x", "xx"].map(|before| format!("{before}{value}"));
            format!("{} {} {}", STANDARD.encode(first), URL_SAFE_NO_PAD.encode(second), STANDARD.encode(third))
        }),
        EchoForm::Percent => problem(&|value| {
            let upper = value.bytes().map(|byte| format!("%{byte:02X}"));
            upper.chain(value.bytes().map(|byte| format!("%{byte:02x}"))).collect()
        }),
        EchoForm::Json => problem(&|value| value.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect()),
        EchoForm::Prefix => problem(&|value| value.chars().take(SHOWN).collect()),
        EchoForm::Headers => Answer { reason: Some(value.to_owned()), ..Answer::new(status, "", "") }
            .with("x-echo", header)
            .with(&header_name(value), "1")
            .with("www-authenticate", format_args!("Bearer error=\"invalid_token\", error_description=\"{value}\""))
            .with("link", format_args!("</retailer/shipments?page=2&token={value}>; rel=\"next\""))
            .with("retry-after", format_args!("0, {value}")),
        EchoForm::Type => Answer::new(200, format!("text/{value}"), format!("<html><h1>{value}</h1></html>\n")),
        EchoForm::Broken => Answer::new(200, ANSWER_TYPE, format!("{{\"shipmentId\":\"1\",\"echo\":{value}")),
        EchoForm::Redirect => {
            Answer::new(302, "text/html", "").with("location", format_args!("/retailer/shipments?token={value}"))
        }
        EchoForm::Document => {
            let member = format!("\"echo\":{},", json!(header));
            Answer { body: insert(&right.body, &member), ..right }
        }
    }
}

/// A header name with as much of the value as one can have.
fn header_name(value: &str) -> String {
    format!("x-{}", value.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>())
}
