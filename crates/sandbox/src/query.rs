//! Parses the query of a list call, collects its violations, and builds list answers.
//!
//! Used by every resource: `api` (shipments), `orders` and `other_resources`.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

use crate::audit::Call;
use crate::body::ANSWER_TYPE;
use crate::problem;
use crate::state::Settings;
use crate::stock::PAGE_SIZE;
use crate::wire::{Answer, Request};

/// One API call on its way to the resource.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Request,
    pub(crate) path: &'a str,
    /// Path and query without base.
    pub(crate) full: &'a str,
    /// Answer this page, whatever was requested.
    pub(crate) page: Option<u64>,
    /// Reverse the list.
    pub(crate) reversed: bool,
    pub(crate) call: &'a mut Call,
}

impl Asked<'_> {
    /// Records the decoded id of a detail call.
    pub(crate) fn wants(&mut self, id: &str) -> String {
        let id = percent_decoded(id);
        self.call.id = Some(id.clone());
        id
    }

    pub(crate) fn not_found(&self, what: &str, id: &str) -> Answer {
        problem::problem(404, "Not Found", &format!("{what} {id} not found."), self.full)
    }
}

/// Parses query parameters and collects violations.
pub(crate) struct Query<'a, 'b> {
    pub(crate) asked: &'a mut Asked<'b>,
    violations: Vec<(Option<&'static str>, String)>,
}

impl<'a, 'b> Query<'a, 'b> {
    /// Names not in `known` are counted and otherwise ignored, as the API does.
    pub(crate) fn new(asked: &'a mut Asked<'b>, known: &[&str]) -> Query<'a, 'b> {
        let unknown = asked.request.query.iter().filter(|(name, _)| !known.contains(&name.as_str())).count();
        asked.call.unknown_parameters = u32::try_from(unknown).unwrap_or(u32::MAX);
        Query { asked, violations: Vec::new() }
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.asked.request.parameter(name).map(str::to_owned)
    }

    pub(crate) fn violation(&mut self, name: Option<&'static str>, reason: String) {
        self.violations.push((name, reason));
    }

    /// The page to answer, from 1.
    pub(crate) fn page(&mut self) -> u64 {
        let asked = self.number("page", 1, i32::MAX.unsigned_abs().into()).unwrap_or(1);
        self.asked.call.page = Some(asked);
        self.asked.page.unwrap_or(asked)
    }

    /// The page of a list without page numbers, for a request that skips `before` rows in pages of `size`. True if a
    /// fault forces the first page.
    pub(crate) fn unnumbered(&mut self, before: usize, size: usize) -> bool {
        self.asked.call.page = Some(1 + u64::try_from(before / size.max(1)).unwrap_or_default());
        self.asked.page.is_some()
    }

    pub(crate) fn number(&mut self, name: &'static str, least: u64, most: u64) -> Option<u64> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.violation(
                Some(name),
                format!("Request contains invalid value(s): '{text}', allowed: {least} to {most}."),
            );
        }
        number
    }

    /// A date as text, `YYYY-MM-DD`.
    pub(crate) fn date(&mut self, name: &'static str) -> Option<String> {
        let day = self.text(name)?;
        if day.parse::<jiff::civil::Date>().is_err() {
            self.violation(Some(name), format!("'{day}' is no date, use YYYY-MM-DD."));
        }
        Some(day)
    }

    pub(crate) fn choice(&mut self, name: &'static str, allowed: &[&str]) -> Option<String> {
        let text = self.text(name)?;
        if !allowed.contains(&text.as_str()) {
            let allowed = allowed.join(", ");
            self.violation(
                Some(name),
                format!("Request contains invalid value(s): '{text}', allowed values: {allowed}."),
            );
        }
        Some(text)
    }

    /// One or several values, separated by commas or repeated.
    pub(crate) fn several(&self, name: &str) -> Vec<String> {
        let given = self.asked.request.query.iter().filter(|(known, _)| known == name);
        given.flat_map(|(_, value)| value.split(',')).map(str::to_owned).collect()
    }

    /// The same, each validated.
    pub(crate) fn choices(&mut self, name: &'static str, allowed: &[&str]) -> Vec<String> {
        let given = self.several(name);
        for text in given.iter().filter(|text| !allowed.contains(&text.as_str())) {
            let reason =
                format!("Request contains invalid value(s): '{text}', allowed values: {}.", allowed.join(", "));
            self.violation(Some(name), reason);
        }
        given
    }

    pub(crate) fn refusal(&self) -> Option<Answer> {
        (!self.violations.is_empty()).then(|| problem::violations(&self.violations, self.asked.full))
    }
}

/// One page of `rows`.
pub(crate) fn cut<T>(rows: impl Iterator<Item = T>, page: u64) -> impl Iterator<Item = T> {
    let before = usize::try_from(page - 1).unwrap_or(usize::MAX).saturating_mul(PAGE_SIZE);
    rows.skip(before).take(PAGE_SIZE)
}

/// A list answer; without rows it is `{}` or has an empty array, as configured.
pub(crate) fn collection(key: &str, rows: impl ExactSizeIterator<Item = Bytes>, settings: &Settings) -> Answer {
    collection_and(key, rows, None, settings)
}

/// The same, with another field after the rows.
pub(crate) fn collection_and(
    key: &str,
    rows: impl ExactSizeIterator<Item = Bytes>,
    more: Option<(&str, Value)>,
    settings: &Settings,
) -> Answer {
    if rows.len() == 0 && !settings.empty_array {
        return Answer::new(200, ANSWER_TYPE, &b"{}"[..]);
    }
    let mut body = BytesMut::with_capacity(64 + rows.len() * 400);
    body.put_slice(format!("{{\"{key}\":[").as_bytes());
    for (place, row) in rows.enumerate() {
        if place > 0 {
            body.put_u8(b',');
        }
        body.put_slice(&row);
    }
    body.put_u8(b']');
    if let Some((name, value)) = more {
        body.put_slice(format!(",\"{name}\":{value}").as_bytes());
    }
    body.put_u8(b'}');
    Answer::new(200, ANSWER_TYPE, body.freeze())
}

pub(crate) fn percent_decoded(part: &str) -> String {
    // In a path, a plus is literal.
    let escaped = format!("x={}", part.replace('+', "%2B"));
    let mut fields = url::form_urlencoded::parse(escaped.as_bytes());
    fields.next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}
