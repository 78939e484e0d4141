//! Rate-limit headers, `Retry-After`, `Link` and `Date`.
//!
//! Called by the client on every response. Reading never fails and never panics: an unparseable value is
//! ignored, and an unparseable `Retry-After` is treated as 60 s. The header map compares names
//! without case.

use std::time::Duration;

use jiff::SignedDuration;
use reqwest::header::{DATE, HeaderMap, LINK, RETRY_AFTER};

use crate::domain::Timestamp;
use crate::domain::datetime::{self, Written};

/// Longest pause taken from a header; a server that needs more will ask again.
pub const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// The pause for an unparseable `Retry-After`.
pub const PAUSE_UNREADABLE: Duration = Duration::from_secs(60);

/// A reset above this is a Unix timestamp, below it a number of seconds.
const EPOCH_FROM: i64 = 1_000_000;

/// The quota of the call's rate rule, from the response. Absent or unparseable parts are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Calls in one window.
    pub limit: Option<u32>,
    /// Calls left in the window.
    pub remaining: Option<u32>,
    /// Time until the window turns; at most [`PAUSE_MAX`].
    pub reset: Option<Duration>,
    /// How far our clock is ahead of the response's date; negative: behind.
    pub clock_ahead: Option<SignedDuration>,
}

impl Quota {
    /// Reads the headers. `wall` is only used for a reset given as a timestamp, and only when the
    /// response has no `Date`.
    pub fn read(headers: &HeaderMap, wall: Timestamp) -> Quota {
        let limit = number(headers, "x-ratelimit-limit").filter(|limit| *limit > 0);
        let reset = number(headers, "x-ratelimit-reset").map(|reset| {
            let seconds = if reset > EPOCH_FROM {
                reset.saturating_sub(server_now(headers, wall).as_millis() / 1000)
            } else {
                reset
            };
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(PAUSE_MAX)
        });
        Quota {
            limit: limit.map(to_u32),
            remaining: number(headers, "x-ratelimit-remaining").map(|left| to_u32(left.max(0))),
            reset,
            clock_ahead: server_date(headers).map(|date| wall.ahead_of(date)),
        }
    }
}

/// The address of the next page in the header `Link`, if there is one with `rel="next"` (RFC 8288).
pub fn next_link(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(LINK).into_iter().filter_map(|value| value.to_str().ok());
    links.flat_map(links_of).find_map(|(address, parameters)| {
        let is_next = |parameter: &str| {
            let (name, relation) = parameter.split_once('=')?;
            let is_relation = name.trim().eq_ignore_ascii_case("rel");
            let mut relations = relation.trim().trim_matches('"').split_whitespace();
            (is_relation && relations.any(|one| one.eq_ignore_ascii_case("next"))).then_some(())
        };
        outside_quotes(parameters, ';').find_map(is_next)?;
        Some(address.to_owned())
    })
}

/// The links of one header: each address with its parameters. Both may contain commas and semicolons.
fn links_of(mut text: &str) -> impl Iterator<Item = (&str, &str)> {
    std::iter::from_fn(move || {
        let (address, rest) = text.split_once('<')?.1.split_once('>')?;
        let parameters = outside_quotes(rest, ',').next().unwrap_or_default();
        text = rest.get(parameters.len()..).unwrap_or_default();
        Some((address, parameters))
    })
}

/// Splits at a separator outside quotes.
fn outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |c: char| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    })
}

/// The pause that `Retry-After` asks for, in seconds or until a date; at most [`PAUSE_MAX`]. Of several headers
/// the longest counts. `None` when there is no such header; [`PAUSE_UNREADABLE`] when none can be parsed.
pub fn retry_after(headers: &HeaderMap, wall: Timestamp) -> Option<Duration> {
    let mut values = headers.get_all(RETRY_AFTER).iter().peekable();
    values.peek()?;
    let pauses = values.filter_map(|value| value.to_str().ok()).flat_map(|text| pauses(text, headers, wall));
    Some(pauses.max().unwrap_or(PAUSE_UNREADABLE).min(PAUSE_MAX))
}

/// The pauses in one header: proxies join two with a comma, and dates contain commas of their own.
fn pauses(text: &str, headers: &HeaderMap, wall: Timestamp) -> Vec<Duration> {
    match pause(text, headers, wall) {
        Some(pause) => vec![pause],
        None => text.split(',').filter_map(|part| pause(part, headers, wall)).collect(),
    }
}

fn pause(text: &str, headers: &HeaderMap, wall: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Some(seconds) = seconds(text) {
        return Some(Duration::from_secs(seconds));
    }
    Some(http_date(text)?.since(server_now(headers, wall)))
}

/// Seconds as `2` or `2.0`, rounded up so that no pause is shortened.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    // A number too large for u64 is a long pause, not invalid.
    let whole: u64 = whole.parse().unwrap_or(u64::MAX);
    Some(whole.saturating_add(u64::from(fraction.bytes().any(|byte| byte != b'0'))))
}

/// The server's clock, where it sends its date: its other dates are best compared with that.
fn server_now(headers: &HeaderMap, wall: Timestamp) -> Timestamp {
    server_date(headers).unwrap_or(wall)
}

pub(super) fn server_date(headers: &HeaderMap) -> Option<Timestamp> {
    headers.get(DATE).and_then(|value| http_date(value.to_str().ok()?))
}

/// Parses an HTTP date in each of its three forms: `Sun, 22 Nov 2026 15:04:05 GMT`, `Sunday, 22-Nov-26 15:04:05 GMT` and
/// `Sun Nov 22 15:04:05 2026`.
fn http_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let parser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    if let Ok(at) = parser.parse_timestamp(text) {
        return Some(at.into());
    }
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|word| !word.is_empty()).collect();
    let (day, month, year, time) = match words.as_slice() {
        [_, day, month, year, time, "GMT" | "UTC"] => (*day, *month, *year, *time),
        [_, month, day, time, year] => (*day, *month, *year, *time),
        _ => return None,
    };
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))?;
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let year: i16 = year.parse().ok().filter(|_| is_digits(year) && matches!(year.len(), 2 | 4))?;
    // Two digits as in mail: 70 and above are in the last century.
    let year = if year >= 100 {
        year
    } else if year >= 70 {
        1900 + year
    } else {
        2000 + year
    };
    let written = format!("{year:04}-{:02}-{:0>2}T{time}Z", month + 1, day);
    Written::parse(&written)?.utc(None).map(datetime::timestamp)
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The whole number at the start of a header, like `25`, `25.5` or `25, 25;w=60`.
fn number(headers: &HeaderMap, name: &str) -> Option<i64> {
    let text = headers.get(name)?.to_str().ok()?;
    text.split([',', ';', '.']).next()?.trim().parse().ok()
}

fn to_u32(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};
    use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

    use super::{PAUSE_MAX, PAUSE_UNREADABLE, Quota, next_link, retry_after};
    use crate::domain::Timestamp;
    use std::time::Duration;

    /// Sun, 22 Nov 2026 15:04:05 GMT
    const WALL: Timestamp = Timestamp::from_millis(1_795_359_845_000);

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn quota(limit: &str, remaining: &str, reset: &str) -> (Option<u32>, Option<u32>, Option<u64>) {
        let pairs = [("X-RateLimit-Limit", limit), ("x-ratelimit-remaining", remaining), ("X-RATELIMIT-RESET", reset)];
        let quota = Quota::read(&headers(&pairs), WALL);
        (quota.limit, quota.remaining, quota.reset.map(|reset| reset.as_secs()))
    }

    #[test]
    fn the_next_link_is_found_among_others_with_any_content() {
        let next = |text: &str| next_link(&headers(&[("Link", text)]));
        let found = |address: &str| Some(address.to_owned());
        assert_eq!(next("<https://h/a?fields=a,b;c&page=2>; rel=\"next\""), found("https://h/a?fields=a,b;c&page=2"));
        assert_eq!(
            next("</a?page=1>; title=\"a, b; rel=next\"; rel=prev, </a?page=3>;Rel = \"last Next\""),
            found("/a?page=3")
        );
        assert_eq!(next("</a>; rel=prev"), None);
        assert_eq!(next("nonsense, <"), None);
    }

    #[test]
    fn quota_headers_are_read_in_any_case_and_invalid_ones_ignored() {
        assert_eq!(quota("25", "24", "54"), (Some(25), Some(24), Some(54)));
        assert_eq!(quota(" 25, 25;w=60", "-1", "0.4"), (Some(25), Some(0), Some(0)));
        assert_eq!(quota("0", "", "soon"), (None, None, None));
        assert_eq!(quota("99999999999", "x", "99999"), (Some(u32::MAX), None, Some(3600)));
        assert_eq!(Quota::read(&HeaderMap::new(), WALL), Quota::default());
    }

    #[test]
    fn a_large_reset_is_a_timestamp_compared_with_the_servers_clock() {
        let wall = WALL.as_millis() / 1000;
        assert_eq!(quota("1", "1", &(wall + 30).to_string()).2, Some(30));
        assert_eq!(quota("1", "1", &(wall - 30).to_string()).2, Some(0));
        let dated =
            headers(&[("date", "Sun, 22 Nov 2026 15:04:00 GMT"), ("x-ratelimit-reset", &(wall + 30).to_string())]);
        assert_eq!(
            Quota::read(&dated, Timestamp::EPOCH).reset,
            Some(Duration::from_secs(35)),
            "our own clock is wrong here"
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_capped_and_a_minute_if_invalid() {
        let pause = |text: &str| retry_after(&headers(&[("Retry-After", text)]), WALL);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(retry_after(&HeaderMap::new(), WALL), None);
        assert_eq!(pause("4"), seconds(4));
        assert_eq!(pause("0"), seconds(0));
        assert_eq!(pause("86400"), Some(PAUSE_MAX));
        assert_eq!(pause("99999999999999999999999"), Some(PAUSE_MAX));
        assert_eq!(pause("Sun, 22 Nov 2026 15:04:35 GMT"), seconds(30));
        assert_eq!(pause("Sun, 22 Nov 2026 15:00:00 GMT"), seconds(0), "already over");
        for garbage in ["", "soon", "-5", "1.", ".5", "1.5s", "1e3", "Sun, 99 Nov 2026 15:04:35 GMT", "Infinity"] {
            assert_eq!(pause(garbage), Some(PAUSE_UNREADABLE), "{garbage}");
        }
    }

    #[test]
    fn retry_after_is_read_in_each_form_and_never_shortened() {
        let pause = |text: &str| retry_after(&headers(&[("Retry-After", text)]), WALL).map(|pause| pause.as_secs());
        for (text, seconds) in [
            ("2.0", 2),
            ("2.5", 3),
            ("0.5", 1),
            ("0.0000001", 1),
            ("0.0", 0),
            (" 7 ", 7),
            ("Sunday, 22-Nov-26 15:04:35 GMT", 30),
            ("Sun Nov 22 15:04:35 2026", 30),
            ("Tue Dec  1 00:00:00 2026", 3600),
            ("  Sun, 22 Nov 2026 15:04:35 GMT", 30),
            ("Sun, 22 Nov 2026 15:04:35 +0000", 30),
            ("Sun Nov  1 15:04:35 2026", 0),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
            ("2, 9", 9),
            ("soon, 9", 9),
        ] {
            assert_eq!(pause(text), Some(seconds), "{text}");
        }
        let twice = |one: &str, other: &str| {
            let mut headers = headers(&[("Retry-After", one)]);
            headers.append("Retry-After", HeaderValue::from_str(other).unwrap());
            retry_after(&headers, WALL).map(|pause| pause.as_secs())
        };
        assert_eq!([twice("3", "8"), twice("8", "3"), twice("soon", "3"), twice("3", "soon")], [8, 8, 3, 3].map(Some));
        assert_eq!(twice("Sun, 22 Nov 2026 15:04:35 GMT", "5"), Some(30));
        assert_eq!(twice("soon", ""), Some(PAUSE_UNREADABLE.as_secs()));
    }

    proptest! {
        #[test]
        fn headers_of_any_bytes_never_panic(value in proptest::collection::vec(any::<u8>(), 0..40), wall in any::<i64>()) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after", "date"] {
                    headers.insert(name, value.clone());
                }
                let wall = Timestamp::from_millis(wall);
            let quota = Quota::read(&headers, wall);
                prop_assert!(quota.reset.is_none_or(|reset| reset <= PAUSE_MAX));
                prop_assert!(retry_after(&headers, wall).is_some_and(|pause| pause <= PAUSE_MAX));
            }
        }
    }
}
