//! Numbers as the digits that were sent, so that no precision is lost to a binary format.

use std::borrow::Cow;

use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;

/// Longest text that a number with an exponent is expanded to: what a text column holds.
const PLAIN_MAX: usize = 65_535;
/// An integer part with fewer digits, without an exponent, is below the largest 64-bit float.
const DIGITS_SAFE: usize = 300;

/// A JSON number: its text, valid by RFC 8259.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number<'a>(Cow<'a, str>);

/// The value of a number: `digits` times ten to the power of `exponent`.
#[derive(Debug, PartialEq, Eq)]
struct Worth {
    is_negative: bool,
    /// Without zeros at either end; empty: zero.
    digits: String,
    exponent: i64,
}

impl<'a> Number<'a> {
    /// Wraps the text of a JSON number. None: its magnitude exceeds 64-bit floats, so databases and most parsers refuse
    /// it.
    pub(super) fn new(text: &'a str) -> Option<Number<'a>> {
        let is_safe = text.len() <= DIGITS_SAFE && !text.contains(['e', 'E']);
        let is_finite = || text.parse::<f64>().is_ok_and(f64::is_finite);
        (is_safe || is_finite()).then_some(Number(Cow::Borrowed(text)))
    }

    /// The text that was sent.
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// The text of a whole number that was sent as one: without a point, an exponent or a negative zero.
    pub fn whole_digits(&self) -> Option<&str> {
        let is_whole = !self.0.contains(['.', 'e', 'E']) && self.0 != "-0";
        is_whole.then_some(self.digits())
    }

    /// Its value where that is a whole number of 64 bits, however it is written: `10.0` and `1e1` are ten.
    pub fn whole(&self) -> Option<i64> {
        if let Ok(number) = self.0.parse() {
            return Some(number);
        }
        let Worth { is_negative, digits, exponent } = Worth::of(&self.0)?;
        let digits = if digits.is_empty() { "0" } else { &digits };
        let zeros = usize::try_from(exponent).ok().filter(|zeros| digits.len() + zeros <= 19)?;
        format!("{}{digits}{}", if is_negative { "-" } else { "" }, "0".repeat(zeros)).parse().ok()
    }

    /// All its digits, without an exponent; as sent where it has none. None: too long to be of use.
    pub fn plain(&self) -> Option<Cow<'_, str>> {
        let Some((mantissa, exponent)) = self.0.split_once(['e', 'E']) else {
            return Some(Cow::Borrowed(self.digits()));
        };
        let exponent: i64 = exponent.parse().ok()?;
        let (sign, unsigned) = mantissa.strip_prefix('-').map_or(("", mantissa), |unsigned| ("-", unsigned));
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        // The position of the decimal point, and the zeros needed before or after the digits.
        let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
        let count = i64::try_from(whole.len() + fraction.len()).ok()?;
        let before = usize::try_from(1_i64.saturating_sub(point).max(0)).ok()?;
        let behind = usize::try_from(point.saturating_sub(count).max(0)).ok()?;
        if before.max(behind) > PLAIN_MAX {
            return None;
        }
        let digits = format!("{}{whole}{fraction}{}", "0".repeat(before), "0".repeat(behind));
        let (whole, fraction) = digits.split_at_checked(usize::try_from(point).unwrap_or(0).max(1))?;
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let dot = if fraction.is_empty() { "" } else { "." };
        Some(Cow::Owned(format!("{sign}{whole}{dot}{fraction}")))
    }

    /// The canonical text, the same for numbers that digests treat as equal.
    ///
    /// Stored digests were once made from 64-bit values: 64-bit integers by their digits, all others by the shortest
    /// text of the float. That text still represents every number of exactly that value (so `1.0`, `1e0` and `1.00`
    /// are one, and `1` is another). A number with more digits than a float holds has its own form.
    pub(super) fn canonical(&self) -> Cow<'_, str> {
        let text = self.digits();
        // At most 18 digits always fit.
        let is_plain = text.bytes().skip(usize::from(text.starts_with('-'))).all(|byte| byte.is_ascii_digit());
        if is_plain && text != "-0" && (text.len() <= 18 || text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok())
        {
            return Cow::Borrowed(text);
        }
        let float = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(|float| float.to_string());
        let worth = Worth::of(text);
        match (float, worth) {
            (Some(float), Some(worth)) if Worth::of(&float).as_ref() == Some(&worth) => Cow::Owned(float),
            (_, Some(Worth { is_negative, digits, exponent })) => {
                Cow::Owned(format!("{}{digits}e{exponent}", if is_negative { "-" } else { "" }))
            }
            _ => Cow::Borrowed(text),
        }
    }
}

impl Worth {
    /// None: an exponent beyond 64 bits.
    fn of(text: &str) -> Option<Worth> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (is_negative, unsigned) = mantissa.strip_prefix('-').map_or((false, mantissa), |unsigned| (true, unsigned));
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let all = format!("{whole}{fraction}");
        let kept = all.trim_end_matches('0');
        let digits = kept.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Worth { is_negative, digits, exponent: 0 });
        }
        let shift = i64::try_from(all.len() - kept.len()).ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        Some(Worth { is_negative, digits, exponent: exponent.parse::<i64>().ok()?.checked_add(shift)? })
    }
}

/// Serializes the digits as they are.
impl Serialize for Number<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.digits()).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy as _, any, prop_assert_eq, proptest};

    use super::{Number, Worth};

    fn number(text: &str) -> Number<'_> {
        Number::new(text).unwrap()
    }

    #[test]
    fn plain_digits_are_those_sent_and_exponents_are_written_out() {
        for (sent, plain) in [
            ("9400110200881234567890", "9400110200881234567890"),
            ("1.50", "1.50"),
            ("-0.10", "-0.10"),
            ("1e3", "1000"),
            ("1.5E+3", "1500"),
            ("1.2345e2", "123.45"),
            ("-1.5e-3", "-0.0015"),
            ("0.001e5", "100"),
            ("12e-1", "1.2"),
            ("12e-2", "0.12"),
            ("0e5", "0"),
        ] {
            assert_eq!(number(sent).plain().unwrap(), plain, "{sent}");
        }
        assert_eq!(number("1e-999999999").plain(), None);
        assert_eq!(number("0e99999999999999999999").plain(), None);
        assert_eq!((Number::new("1e400"), Number::new("-1e400")), (None, None));
    }

    #[test]
    fn whole_numbers_are_whole_however_they_are_written() {
        let whole = |text| number(text).whole();
        assert_eq!([whole("10"), whole("10.0"), whole("1e1"), whole("-100e-1")], [10, 10, 10, -10].map(Some));
        assert_eq!(whole("9223372036854775807.00"), Some(i64::MAX));
        assert_eq!(whole("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(whole("0e-5"), Some(0));
        for not in ["1.5", "9223372036854775808", "123456789012345678.9", "1e300", "1e-1"] {
            assert_eq!(whole(not), None, "{not}");
        }
        assert_eq!(number("18446744073709551616").whole_digits(), Some("18446744073709551616"));
        assert_eq!([number("1.0").whole_digits(), number("-0").whole_digits()], [None, None]);
    }

    #[test]
    fn numbers_that_differ_beyond_float_precision_stay_distinct() {
        let same = |one, other| number(one).canonical().into_owned() == number(other).canonical();
        assert!(!same("9400110200881234567890", "9400110200881234567891"));
        assert!(!same("0.1234567890123456789", "0.1234567890123456788"));
        assert!(!same("1", "1.0"), "as in stored digests");
        assert!(
            same("1.0", "1e0") && same("1.0", "1.00") && same("94001102008812345678900e-1", "9400110200881234567890")
        );
        assert!(!same("1e-400", "0.0") && !same("1e-400", "1e-401"));
        assert!(!same("0e0", "-0"));
    }

    /// Between two shortest texts of the same length, like 2208702195076511.2 and .3, each library chooses its own.
    fn has_one_text(float: f64) -> bool {
        let known = serde_json::Number::from_f64(float).map(|number| Worth::of(&number.to_string()));
        known.is_some_and(|known| known == Worth::of(&format!("{float}")))
    }

    proptest! {
        /// Otherwise an upgrade would re-read every document.
        #[test]
        fn canonical_texts_of_64_bit_values_match_stored_digests(
            float in any::<f64>().prop_filter("finite, with one shortest text", |float| has_one_text(*float)),
            signed in any::<i64>(), unsigned in any::<u64>(), short in -1_000_000i64..1_000_000, scale in 0u32..8,
        ) {
            let plain = format!("{float}");
            let cents = format!("{}.{:02}", short / 100, short.unsigned_abs() % 100);
            let tenths = format!("{:?}", short as f64 / f64::from(10_u32.pow(scale)));
            let before = |text: &str| serde_json::from_str::<serde_json::Number>(text).unwrap().to_string();
            let whole = [signed.to_string(), unsigned.to_string()];
            for text in [plain, format!("{float:e}"), format!("{float:?}"), cents, tenths].into_iter().chain(whole) {
                prop_assert_eq!(number(&text).canonical().into_owned(), before(&text));
            }
        }
    }
}
