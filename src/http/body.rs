//! Request bodies: read with a cap and a deadline, then taken apart field by field.
//!
//! [`capped_json`] is the only reader of bodies (clippy.toml bans warp's uncapped ones). [`Fields`]
//! collects every offence, so that one answer names them all. Nothing of a body is ever logged, and
//! its bytes are wiped, because it may hold a secret.

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

use super::Limits;
use super::backend::FieldError;
use super::reply::{Kind, Problem};
use super::rules::TextRule;

/// An unread request body.
pub(super) type Body = BoxStream<'static, Result<Bytes, warp::Error>>;

/// Extracts the body without reading it. Comes after path and method.
pub(super) fn body() -> impl Filter<Extract = (Body,), Error = warp::Rejection> + Clone {
    warp::body::stream().map(|stream| {
        let chunks = futures_util::TryStreamExt::map_ok(stream, |mut chunk| {
            let chunk: &mut dyn Buf = &mut chunk;
            chunk.copy_to_bytes(chunk.remaining())
        });
        chunks.into_stream().boxed()
    })
}

/// Reads a JSON object of at most `bytes_max` bytes, however it is sent (chunked too). An empty body
/// without content type reads as `{}`: whether fields are missing is for [`Fields`] to say.
///
/// # Errors
/// 415 not JSON, 413 too large, 408 slower than `deadline`, 400 cut, malformed, or a field twice.
pub(super) async fn capped_json(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    deadline: Duration,
) -> Result<Fields, Problem> {
    let length = content_length(headers);
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    // A client that sends nothing need not say what kind of nothing it is.
    let typed = headers.contains_key(CONTENT_TYPE) || length.is_some_and(|length| length > 0);
    if typed {
        expect_json(headers)?;
    }
    let text = collect_in_time(body, bytes_max, deadline).await?;
    if text.is_empty() {
        return Ok(Fields::default());
    }
    expect_json(headers)?;
    let Object(map) = serde_json::from_slice(&text).map_err(|error| {
        // Position only: serde's text may quote the value, and the value may be a secret.
        let what = if error.is_data() { "not a JSON object with each field once" } else { "malformed JSON" };
        Problem::new(Kind::BadRequest, format!("the body is {what} (line {}, column {})", error.line(), error.column()))
    })?;
    Ok(Fields { map, errors: Vec::new(), known: Vec::new() })
}

/// A body as it came, whatever it is; what it must be is for who takes it apart.
///
/// # Errors
/// 413, 408, and 400 for one that broke off, as [`capped_json`].
pub(super) async fn capped(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Zeroizing<Vec<u8>>, Problem> {
    if content_length(headers).is_some_and(|length| length > limits.body_bytes_max as u64) {
        return Err(too_large(limits.body_bytes_max));
    }
    collect_in_time(body, limits.body_bytes_max, limits.body_time_max).await
}

async fn collect_in_time(body: Body, bytes_max: usize, deadline: Duration) -> Result<Zeroizing<Vec<u8>>, Problem> {
    tokio::time::timeout(deadline, collect(body, bytes_max)).await.map_err(|_| {
        Problem::new(Kind::RequestTimeout, format!("the body must be complete within {} s", deadline.as_secs()))
    })?
}

async fn collect(mut body: Body, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let mut text = Zeroizing::new(Vec::new());
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Kind::BadRequest, "the body broke off"))?;
        if text.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("a body may have at most {bytes_max} bytes"))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(Kind::UnsupportedMediaType, "send `Content-Type: application/json`"));
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::new(Kind::UnsupportedMediaType, "send the body without a content encoding"));
    }
    Ok(())
}

/// A JSON object in which no field stands twice: readers disagree about which one counts.
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
                        return Err(A::Error::custom("a field stands twice"));
                    }
                }
                Ok(Object(map))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

/// The fields of a request body. Each `take_*` removes one; [`Fields::done`] refuses what is left.
#[derive(Debug, Default)]
pub(super) struct Fields {
    map: Map<String, Value>,
    errors: Vec<FieldError>,
    known: Vec<&'static str>,
}

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Notes an offence.
    pub(super) fn offend(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.errors.push(FieldError { field: field.into(), message: message.into() });
    }

    /// Notes that a field is needed when `value` is none and nothing worse was said about it.
    pub(super) fn require<T: Default>(&mut self, field: &'static str, value: Option<T>) -> T {
        if value.is_none() && !self.errors.iter().any(|error| error.field == field) {
            self.offend(field, "is missing");
        }
        value.unwrap_or_default()
    }

    /// Text that `rule` accepts.
    pub(super) fn take_text(&mut self, field: &'static str, rule: TextRule) -> Option<String> {
        match self.take(field)? {
            Value::String(text) => match rule(&text) {
                Ok(()) => Some(text),
                Err(message) => {
                    self.offend(field, message);
                    None
                }
            },
            other => self.wrong(field, "text", &other),
        }
    }

    /// As [`Fields::take_text`]; the text is wiped after use.
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
        self.offend(field, format!("must be a whole number from {} to {}", bounds.start(), bounds.end()));
        None
    }

    /// One of a few words.
    pub(super) fn take_choice<T: Copy>(&mut self, field: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.take(field)?;
        let found = value.as_str().and_then(|text| choices.iter().find(|(name, _)| *name == text));
        if let Some((_, choice)) = found {
            return Some(*choice);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.offend(field, format!("must be one of: {}", names.join(", ")));
        None
    }

    /// A list of 1 to `length_max` different texts that `rule` accepts.
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
            self.offend(field, format!("must have 1 to {length_max} entries"));
            return None;
        }
        let mut list: Vec<String> = Vec::with_capacity(values.len());
        let before = self.errors.len();
        for (index, value) in values.into_iter().enumerate() {
            let at = format!("{field}[{index}]");
            match value {
                Value::String(text) if list.contains(&text) => self.offend(at, "stands here twice"),
                Value::String(text) => match rule(&text) {
                    Ok(()) => list.push(text),
                    Err(message) => self.offend(at, message),
                },
                _ => self.offend(at, "must be text"),
            }
        }
        (self.errors.len() == before).then_some(list)
    }

    /// Whether the field is there as `null`; it is taken then.
    pub(super) fn take_null(&mut self, field: &'static str) -> bool {
        let is_null = self.map.get(field).is_some_and(Value::is_null);
        if is_null {
            self.take(field);
        }
        is_null
    }

    /// # Errors
    /// 422 with every offence, fields that nobody asked for among them.
    pub(super) fn done(mut self) -> Result<(), Problem> {
        let unknown: Vec<String> = self.map.keys().map(|name| name.chars().take(64).collect()).collect();
        let known = if self.known.is_empty() { "nothing".to_owned() } else { self.known.join(", ") };
        for name in unknown {
            self.offend(name, format!("is not known here; known: {known}"));
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
        self.offend(field, format!("must be {wanted}, not {found}"));
        None
    }
}
