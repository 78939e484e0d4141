//! The texts of ids, times, prices and codes, and the numbers that content is drawn from.
//!
//! Ids depend on method and index alone, so two shops share ids but not content.

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::value::RawValue;

use crate::clock::Millis;
use crate::document::Method;

const ORDER_FIRST: u64 = 4_123_456_789;
const ORDER_STEP: u64 = 7;
/// Some orders have ids of letters and a number in base 36, at least four digits.
const LETTERED_ORDER: &str = "A2K8";
const LETTERED_ORDER_FIRST: u64 = 1_679_616;

/// Dutch time by rule, so that no zone files are needed.
static DUTCH: LazyLock<TimeZone> =
    LazyLock::new(|| TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap_or(TimeZone::UTC));

/// The id of a shipment: digits, sometimes letters and digits. With `odd`, a few ids of one shop differ only in case.
pub(crate) fn shipment_id(method: Method, index: u64, odd: bool) -> String {
    let number = number(method, index);
    let lettered = |number: u64| format!("C000{}", base36(46_656 + number));
    match index % 40 {
        21 if odd => lettered(number),
        22 if odd => lettered(number - 2).to_lowercase(),
        _ if number % 17 == 5 => lettered(number),
        _ => (541_757_635 + number * 13).to_string(),
    }
}

/// A number unique within a shop.
pub(crate) fn number(method: Method, index: u64) -> u64 {
    index * 2 + u64::from(method == Method::Fbb)
}

/// The id of the order whose first shipment has that index.
pub(crate) fn order_id(method: Method, index: u64) -> String {
    let number = number(method, index);
    if number % 5 == 2 {
        format!("{LETTERED_ORDER}{}", base36(LETTERED_ORDER_FIRST + number))
    } else {
        (ORDER_FIRST + number * ORDER_STEP).to_string()
    }
}

/// Finds the order with this id: its method and the index of its first shipment. May return a result for texts that
/// are not order ids; compare the ids.
pub(crate) fn place_of_order(id: &str) -> Option<(Method, u64)> {
    let number = match id.strip_prefix(LETTERED_ORDER) {
        Some(rest) => u64::from_str_radix(rest, 36).ok()?.checked_sub(LETTERED_ORDER_FIRST)?,
        None => id.parse::<u64>().ok()?.checked_sub(ORDER_FIRST)? / ORDER_STEP,
    };
    Some((if number.is_multiple_of(2) { Method::Fbr } else { Method::Fbb }, number / 2))
}

/// Mixes 64 bits (splitmix), so that neighbouring numbers give unrelated values.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_add(b.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Formats a time like `2026-11-22T15:04:05+01:00`, in Dutch time with the offset of that day. Milliseconds are
/// printed with 3, 5 or 9 digits.
pub(crate) fn local_time(at: Millis) -> String {
    let zoned = Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(DUTCH.clone());
    let fraction = match at.rem_euclid(1000) {
        0 => String::new(),
        ms => match ms % 3 {
            0 => format!(".{ms:03}"),
            1 => format!(".{ms:03}45"),
            _ => format!(".{ms:03}456789"),
        },
    };
    format!("{}{fraction}{}", zoned.strftime("%Y-%m-%dT%H:%M:%S"), zoned.strftime("%:z"))
}

/// Formats a date like `2026-11-22`, in Dutch time.
pub(crate) fn local_date(at: Millis) -> String {
    let zoned = Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(DUTCH.clone());
    zoned.strftime("%Y-%m-%d").to_string()
}

/// A price with two decimals, as a JSON numeral.
pub(crate) fn money(cents: u64) -> Box<RawValue> {
    let text = format!("{}.{:02}", cents / 100, cents % 100);
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A 13-digit code with its check digit.
pub(crate) fn ean(twelve_digits: u64) -> String {
    let digits = format!("{twelve_digits:012}");
    let sum: u32 = digits.bytes().zip([1, 3].into_iter().cycle()).map(|(d, weight)| u32::from(d - b'0') * weight).sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).unwrap_or_default();
        digits.push(char::from_digit(digit, 36).unwrap_or('0').to_ascii_uppercase());
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Method, ean, local_time, money, shipment_id};

    #[test]
    fn ids_are_unique_and_some_differ_only_in_case() {
        let ids = |odd| {
            [Method::Fbr, Method::Fbb].into_iter().flat_map(move |m| (0..20_000).map(move |i| shipment_id(m, i, odd)))
        };
        assert_eq!(ids(true).collect::<HashSet<_>>().len(), 40_000);
        assert_eq!(ids(false).map(|id| id.to_lowercase()).collect::<HashSet<_>>().len(), 40_000);
        assert!(ids(true).map(|id| id.to_lowercase()).collect::<HashSet<_>>().len() < 40_000);
    }

    #[test]
    fn times_carry_the_dutch_offset_of_their_day() {
        assert_eq!(local_time(1_767_225_600_000), "2026-01-01T01:00:00+01:00");
        assert_eq!(local_time(1_782_864_000_120), "2026-07-01T02:00:00.120+02:00");
        assert_eq!(local_time(1_782_864_000_235), "2026-07-01T02:00:00.23545+02:00");
        assert_eq!(local_time(1_782_864_000_347), "2026-07-01T02:00:00.347456789+02:00");
        // The hour in which clocks go forward, and the two sides of going back.
        assert_eq!(local_time(1_774_746_000_000), "2026-03-29T03:00:00+02:00");
        assert_eq!(local_time(1_792_886_400_000), "2026-10-25T02:00:00+02:00");
        assert_eq!(local_time(1_792_890_000_000), "2026-10-25T02:00:00+01:00");
    }

    #[test]
    fn numerals_and_codes_are_right() {
        assert_eq!(money(123_450).get(), "1234.50");
        assert_eq!(money(7).get(), "0.07");
        assert_eq!(ean(774_040), "0000007740404");
    }
}
