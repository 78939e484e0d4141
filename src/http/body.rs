//! Request bodies: read with a size limit and a deadline, then parsed field by field.
//!
//! [`capped_json`] and [`capped`] are the only readers of bodies (clippy.toml bans warp's unlimited ones). [`BodyFields`]
//! collects all errors, so that one response names them all. A body may hold a secret: it is never logged, and wiped on
//! drop.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};
use warp::Filter;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};

use super::limits::ServerLimits;
use super::reply::{Problem, ProblemKind};
use crate::service::FieldError;
use crate::service::validation::TextRule;

/// An unread request body.
pub(super) type RequestBody = BoxStream<'static, Result<Bytes, warp::Error>>;

/// Extracts the body without reading it. Must come after path and method.
pub(super) fn body() -> impl Filter<Extract = (RequestBody,), Error = warp::Rejection> + Clone {
    warp::body::stream().map(|stream| {
        let chunks = futures_util::TryStreamExt::map_ok(stream, |mut chunk| {
            let chunk: &mut dyn Buf = &mut chunk;
            chunk.copy_to_bytes(chunk.remaining())
        });
        chunks.into_stream().boxed()
    })
}

/// Reads a JSON object of at most `bytes_max` bytes, chunked or not. An empty body without content type reads as `{}`:
/// [`BodyFields`] reports missing fields.
///
/// # Errors
/// 415 not JSON, 413 too large, 408 slower than `deadline`, 400 incomplete, malformed, or a repeated field.
pub(super) async fn capped_json(
    headers: &HeaderMap,
    body: RequestBody,
    bytes_max: usize,
    deadline: Duration,
) -> Result<BodyFields, Problem> {
    let length = content_length(headers);
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    // An empty body needs no content type.
    let typed = headers.contains_key(CONTENT_TYPE) || length.is_some_and(|length| length > 0);
    if typed {
        expect_json(headers)?;
    }
    let text = collect_in_time(body, bytes_max, deadline).await?;
    if text.is_empty() {
        return Ok(BodyFields::default());
    }
    expect_json(headers)?;
    let Object(map) = serde_json::from_slice(&text).map_err(|error| {
        // Position only: serde's message may quote the value, which may be a secret.
        let what = if error.is_data() { "not a JSON object with unique fields" } else { "malformed JSON" };
        Problem::new(
            ProblemKind::BadRequest,
            format!("the body is {what} (line {}, column {})", error.line(), error.column()),
        )
    })?;
    Ok(BodyFields { map, errors: Vec::new(), known: Vec::new() })
}

/// Reads a raw body; the caller parses it.
///
/// # Errors
/// 413, 408 and 400 as [`capped_json`].
pub(super) async fn capped(
    headers: &HeaderMap,
    body: RequestBody,
    limits: &ServerLimits,
) -> Result<Zeroizing<Vec<u8>>, Problem> {
    if content_length(headers).is_some_and(|length| length > limits.body_bytes_max as u64) {
        return Err(too_large(limits.body_bytes_max));
    }
    collect_in_time(body, limits.body_bytes_max, limits.body_time_max).await
}

async fn collect_in_time(
    body: RequestBody,
    bytes_max: usize,
    deadline: Duration,
) -> Result<Zeroizing<Vec<u8>>, Problem> {
    tokio::time::timeout(deadline, collect(body, bytes_max)).await.map_err(|_| {
        Problem::new(
            ProblemKind::RequestTimeout,
            format!("the request body must arrive within {} s", deadline.as_secs()),
        )
    })?
}

async fn collect(mut body: RequestBody, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let mut text = Zeroizing::new(Vec::new());
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| {
            Problem::new(ProblemKind::BadRequest, "the request body is incomplete: the connection broke")
        })?;
        if text.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(ProblemKind::TooLarge, format!("the request body must not be larger than {bytes_max} bytes"))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(ProblemKind::UnsupportedMediaType, "send `Content-Type: application/json`"));
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::new(ProblemKind::UnsupportedMediaType, "send the body without a content encoding"));
    }
    Ok(())
}

/// A JSON object with unique fields: parsers disagree about which of two counts.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("a field is repeated"));
                    }
                }
                Ok(Object(map))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

/// The fields of a request body. Each `take_*` removes one; [`BodyFields::finish`] rejects the rest.
#[derive(Debug, Default)]
pub(super) struct BodyFields {
    map: Map<String, Value>,
    errors: Vec<FieldError>,
    known: Vec<&'static str>,
}

impl BodyFields {
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Records an error.
    pub(super) fn add_error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.errors.push(FieldError { field: field.into(), message: message.into() });
    }

    /// Records a missing field, unless it has an error already.
    pub(super) fn require<T: Default>(&mut self, field: &'static str, value: Option<T>) -> T {
        if value.is_none() && !self.errors.iter().any(|error| error.field == field) {
            self.add_error(field, "is missing");
        }
        value.unwrap_or_default()
    }

    /// Text that `rule` accepts.
    pub(super) fn take_text(&mut self, field: &'static str, rule: TextRule) -> Option<String> {
        match self.take(field)? {
            Value::String(text) => match rule(&text) {
                Ok(()) => Some(text),
                Err(message) => {
                    self.add_error(field, message);
                    None
                }
            },
            other => self.wrong(field, "text", &other),
        }
    }

    /// As [`BodyFields::take_text`]; the text is wiped on drop.
    pub(super) fn take_secret(&mut self, field: &'static str, rule: TextRule) -> Option<SecretString> {
        self.take_text(field, rule).map(SecretString::from)
    }

    pub(super) fn take_bool(&mut self, field: &'static str) -> Option<bool> {
        match self.take(field)? {
            Value::Bool(value) => Some(value),
            other => self.wrong(field, "true or false", &other),
        }
    }

    /// A whole number within bounds.
    pub(super) fn take_number(&mut self, field: &'static str, bounds: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let value = self.take(field)?;
        // To JSON, 30 and 30.0 are the same number.
        let number = value.as_f64().filter(|number| number.fract() == 0.0);
        let within = (f64::from(*bounds.start())..=f64::from(*bounds.end())).contains(&number.unwrap_or(f64::NAN));
        if let (Some(number), true) = (number, within) {
            return Some(number as u32);
        }
        self.add_error(field, format!("must be a whole number from {} to {}", bounds.start(), bounds.end()));
        None
    }

    /// One of the given words.
    pub(super) fn take_choice<T: Copy>(&mut self, field: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.take(field)?;
        let found = value.as_str().and_then(|text| choices.iter().find(|(name, _)| *name == text));
        if let Some((_, choice)) = found {
            return Some(*choice);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.add_error(field, format!("must be one of: {}", names.join(", ")));
        None
    }

    /// A list of 1 to `length_max` distinct texts that `rule` accepts.
    pub(super) fn take_list(
        &mut self,
        field: &'static str,
        length_max: usize,
        rule: impl Fn(&str) -> Result<(), String>,
    ) -> Option<Vec<String>> {
        let values = match self.take(field)? {
            Value::Array(values) => values,
            other => return self.wrong(field, "a list of texts", &other),
        };
        if values.is_empty() || values.len() > length_max {
            self.add_error(field, format!("must have 1 to {length_max} entries"));
            return None;
        }
        let mut list: Vec<String> = Vec::with_capacity(values.len());
        let before = self.errors.len();
        for (index, value) in values.into_iter().enumerate() {
            let at = format!("{field}[{index}]");
            match value {
                Value::String(text) if list.contains(&text) => self.add_error(at, "is given twice"),
                Value::String(text) => match rule(&text) {
                    Ok(()) => list.push(text),
                    Err(message) => self.add_error(at, message),
                },
                _ => self.add_error(at, "must be text"),
            }
        }
        (self.errors.len() == before).then_some(list)
    }

    /// Whether the field is `null`; removes it if so.
    pub(super) fn take_null(&mut self, field: &'static str) -> bool {
        let is_null = self.map.get(field).is_some_and(Value::is_null);
        if is_null {
            self.take(field);
        }
        is_null
    }

    /// # Errors
    /// 422 with all errors, including unknown fields.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        let unknown: Vec<String> = self.map.keys().map(|name| name.chars().take(64).collect()).collect();
        let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
        for name in unknown {
            self.add_error(name, format!("is not a field of this request; allowed: {known}"));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }

    fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.map.remove(field)
    }

    fn wrong<T>(&mut self, field: &'static str, wanted: &str, found: &Value) -> Option<T> {
        let found = match found {
            Value::Null => "null; leave the field out instead",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.add_error(field, format!("must be {wanted}, not {found}"));
        None
    }
}
