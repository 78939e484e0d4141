//! Strict parsing of query strings and path segments; each is percent-decoded once.
//!
//! Unknown and repeated parameters are rejected: a misspelled filter would otherwise be ignored silently.

use std::borrow::Cow;
use std::str::FromStr;

use super::reply::{Problem, ProblemKind};
use crate::domain::Timestamp;
use crate::domain::datetime::{self, Written};

/// Longest value of a parameter, in characters.
pub(super) const VALUE_CHARS_MAX: usize = 512;
/// Longest cursor, in characters: it holds two ids.
const CURSOR_CHARS_MAX: usize = 2048;
/// The years 1 to 9999, which every sink can compare.
const TIME_RANGE: std::ops::Range<Timestamp> =
    Timestamp::from_millis(-62_135_596_800_000)..Timestamp::from_millis(253_402_300_800_000);

/// Default page size.
pub(super) const LIMIT_DEFAULT: usize = 50;
/// Largest page size.
pub(super) const LIMIT_MAX: usize = 500;

/// The query parameters of a request, each given once.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// # Errors
    /// 400 for a name that is not in `known` or is repeated, and for a value that is empty, too long, not UTF-8 or has
    /// control characters.
    pub(super) fn read(query: &str, known: &[&str]) -> Result<Params, Problem> {
        let mut params: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let malformed = || Problem::new(ProblemKind::BadRequest, "the query is not percent-encoded UTF-8");
            let name = decode(name, Space::Plus).ok_or_else(malformed)?;
            let value = decode(value, Space::Plus).ok_or_else(malformed)?;
            if !known.contains(&name.as_str()) {
                let name: String = name.chars().take(64).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::parameter(
                    &name,
                    format!("is not a parameter of this endpoint; allowed: {known}"),
                ));
            }
            if params.iter().any(|(present, _)| *present == name) {
                return Err(Problem::parameter(&name, "is given twice"));
            }
            let chars_max = if name == "cursor" { CURSOR_CHARS_MAX } else { VALUE_CHARS_MAX };
            if value.is_empty() || value.chars().count() > chars_max || value.chars().any(char::is_control) {
                let message = format!("must have 1 to {chars_max} characters and no control characters");
                return Err(Problem::parameter(&name, message));
            }
            params.push((name, value));
        }
        Ok(Params(params))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(present, _)| present == name).map(|(_, value)| value.as_str())
    }

    /// The parameters that select items: all but `limit` and `cursor`.
    pub(super) fn filters(&self) -> Vec<(String, String)> {
        self.0.iter().filter(|(name, _)| name != "limit" && name != "cursor").cloned().collect()
    }

    /// `limit`, or `default`.
    pub(super) fn limit(&self, default: usize) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else { return Ok(default) };
        // `parse` alone would accept `+5`.
        let number = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        number
            .and_then(|number| number.parse().ok())
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| Problem::parameter("limit", format!("must be a whole number from 1 to {LIMIT_MAX}")))
    }

    /// A boolean; false if absent.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::parameter(name, "must be true or false")),
        }
    }

    /// A point in time: RFC 3339, or `YYYY-MM-DD` for midnight UTC.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let at = point_in_time(text).filter(|at| TIME_RANGE.contains(at));
        at.map(Some).ok_or_else(|| {
            let what =
                "must be RFC 3339 like 2026-01-31T12:00:00Z, or a date like 2026-01-31 (UTC), in the years 1 to 9999";
            Problem::parameter(name, what)
        })
    }
}

fn point_in_time(text: &str) -> Option<Timestamp> {
    if text.len() == "2026-01-31".len() {
        return Written::parse(&format!("{text}T00:00:00Z"))?.utc(None).map(datetime::timestamp);
    }
    Written::parse(&with_plus(text))?.utc(None).map(datetime::timestamp)
}

/// Restores the plus sign of an offset: `+01:00` without percent-encoding arrives as ` 01:00`.
pub(super) fn with_plus(text: &str) -> Cow<'_, str> {
    match text.rsplit_once(' ') {
        Some((time, offset)) if time.contains(['T', 't']) => format!("{time}+{offset}").into(),
        _ => text.into(),
    }
}

/// The meaning of a plus sign: a space in a query, itself in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    Plus,
    Plain,
}

/// Percent-decodes a text. None: an invalid escape, or not UTF-8.
fn decode(text: &str, space: Space) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if space == Space::Plus => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// One path segment, decoded once; an id may contain `/`, sent as `%2F`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment(pub(super) String);

impl FromStr for Segment {
    type Err = ();

    fn from_str(text: &str) -> Result<Segment, ()> {
        decode(text, Space::Plain).filter(|text| !text.is_empty()).map(Segment).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Params, Segment, point_in_time};
    use crate::domain::Timestamp;

    #[test]
    fn unknown_repeated_and_malformed_parameters_are_rejected() {
        let read = |query| Params::read(query, &["shop", "q"]).map_err(|problem| format!("{problem:?}"));
        let params = read("shop=a&q=caf%C3%A9+ol%C3%A9").unwrap();
        assert_eq!(params.get("q"), Some("café olé"));
        for bad in ["shp=a", "shop=a&shop=a", "shop", "shop=", "q=%zz", "q=%", "q=%ff", "q=%00", "q=a%0Ab"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_limit_is_digits_only_and_from_1_to_500() {
        let limit = |text: &str| Params::read(&format!("limit={text}"), &["limit"]).unwrap().limit(50).ok();
        assert_eq!((limit("1"), limit("500")), (Some(1), Some(500)));
        for bad in ["0", "501", "-1", "%2B5", "1.0", "x", "99999999999999999999999"] {
            assert_eq!(limit(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_is_rfc_3339_or_a_date() {
        let day = Timestamp::from_millis(86_400_000);
        assert_eq!(point_in_time("1970-01-02"), Some(day));
        assert_eq!(point_in_time("1970-01-02T00:00:00Z"), Some(day));
        assert_eq!(point_in_time("1970-01-02T01:00:00+01:00"), Some(day));
        assert_eq!(point_in_time("1970-01-02T01:00:00 01:00"), Some(day));
        for (text, at) in [
            ("9999-12-31", 253_402_214_400_000),
            ("9999-12-31T00:00:00Z", 253_402_214_400_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
            ("9999-12-31T23:00:00-00:59", 253_402_300_740_000),
            ("0001-01-01", -62_135_596_800_000),
            ("1969-12-31", -86_400_000),
        ] {
            assert_eq!(point_in_time(text), Some(Timestamp::from_millis(at)), "{text}");
        }
        let none = "9999-12-31T23:59:59-00:01";
        for bad in [
            "",
            "now",
            "10000-01-01",
            none,
            "9999-12-31T23:59:59",
            "2026-01-3Z",
            "1970-13-02",
            "1970-01-02T00:00:00",
            "1970-02-30",
        ] {
            assert_eq!(point_in_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_segment_is_decoded_once() {
        assert_eq!("a%252Fb".parse(), Ok(Segment("a%2Fb".to_owned())));
        assert_eq!("a%2Fb+c".parse(), Ok(Segment("a/b+c".to_owned())));
        assert_eq!("%ff".parse::<Segment>(), Err(()));
    }
}
