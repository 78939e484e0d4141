//! Parses a filter's text for the type of its column. Shared by all sinks, so that each finds the same documents.

use super::cell::text_cell;
use super::columns::ColumnKind;

/// The text in the form in which a column of this type stores it; None if it is not a value of the type.
pub(crate) fn held(kind: ColumnKind, text: &str) -> Option<String> {
    match kind {
        ColumnKind::Text(_) | ColumnKind::Json => Some(text.to_owned()),
        ColumnKind::Decimal { scale, .. } => text_cell(kind, text).map(|_| plain(text, usize::from(scale))),
        ColumnKind::Datetime | ColumnKind::Date | ColumnKind::Integer | ColumnKind::Boolean => {
            text_cell(kind, text)?.as_text()
        }
    }
}

/// Whether a column value of this type equals the text of a filter.
pub(crate) fn equals(kind: ColumnKind, value: &str, text: &str) -> bool {
    let Some(wanted) = held(kind, text) else { return false };
    match kind {
        ColumnKind::Decimal { .. } => held(kind, value).is_some_and(|value| value == wanted),
        ColumnKind::Text(_)
        | ColumnKind::Datetime
        | ColumnKind::Date
        | ColumnKind::Integer
        | ColumnKind::Boolean
        | ColumnKind::Json => value == wanted,
    }
}

/// Normalises a numeral: drops leading and trailing zeros, and digits beyond the scale.
fn plain(numeral: &str, scale: usize) -> String {
    let mut numeral = numeral.to_owned();
    cut_fraction(&mut numeral, scale);
    let (sign, unsigned) = numeral.strip_prefix('-').map_or(("", numeral.as_str()), |unsigned| ("-", unsigned));
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    match (whole.trim_start_matches('0'), fraction.trim_end_matches('0')) {
        ("", "") => "0".to_owned(),
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// Truncates digits beyond the scale. Rounding `9.99` up would not fit a column for one digit.
pub(crate) fn cut_fraction(numeral: &mut String, scale: usize) {
    if let Some(point) = numeral.find('.') {
        let keep = if scale == 0 { point } else { point + 1 + scale };
        if keep < numeral.len() {
            numeral.truncate(keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{cut_fraction, equals, held};
    use crate::catalog::definition::ColumnKind;

    const DECIMAL: ColumnKind = ColumnKind::Decimal { digits: 5, scale: 2 };

    #[test]
    fn a_fraction_is_cut_not_rounded() {
        for (numeral, scale, want) in [("1.999", 2, "1.99"), ("1.9", 2, "1.9"), ("12", 2, "12"), ("-7.5", 0, "-7")] {
            let mut text = numeral.to_owned();
            cut_fraction(&mut text, scale);
            assert_eq!(text, want);
        }
    }

    #[test]
    fn a_text_that_is_no_value_of_the_type_equals_nothing() {
        for (kind, text) in [
            (ColumnKind::Integer, "1 OR 1=1"),
            (ColumnKind::Boolean, "1"),
            (ColumnKind::Datetime, "yesterday"),
            (ColumnKind::Datetime, "2026-01-01"),
            (ColumnKind::Date, "2026-02-30"),
            (ColumnKind::Date, "-000001-02-03"),
            (DECIMAL, "x"),
            (DECIMAL, "nan"),
            (DECIMAL, "inf"),
            (DECIMAL, "1e2"),
            (DECIMAL, "+1"),
            (DECIMAL, "1000"),
            (DECIMAL, "12.509"),
        ] {
            assert_eq!(held(kind, text), None, "{text}");
        }
    }

    #[test]
    fn what_means_the_same_is_equal() {
        let datetime = |text: &str| held(ColumnKind::Datetime, text).unwrap();
        assert_eq!(datetime("2026-01-01T01:00:00.1234567+01:00"), "2026-01-01 00:00:00.123456");
        for (value, text, is_equal) in [
            ("12.50", "12.5", true),
            ("12.50", "012.500", true),
            ("-0", "0.00", true),
            ("-0.5", "-.5", false),
            ("-0.5", "-0.50", true),
            ("100", "100.0", true),
            ("1", "10", false),
        ] {
            assert_eq!(equals(DECIMAL, value, text), is_equal, "{value} {text}");
        }
        assert!(equals(ColumnKind::Text(None), "1", "1") && !equals(ColumnKind::Text(None), "1", "01"));
        assert!(equals(ColumnKind::Integer, "1", "+01"));
    }
}
