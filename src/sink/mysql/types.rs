//! Compares the type of an existing column with the type that a definition asks for. Pure.
//!
//! A column may always be wider than asked: rows that are too wide get TEXT on purpose, and an older release running
//! beside a newer one asks for less. A narrower column is changed only if no value can be lost.

/// What to do with an existing column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It holds every value of the type asked for.
    Fine,
    /// It holds less, and each of its values fits the type asked for: widen it.
    Widen,
    /// Some value would be lost, now or with the next document: leave it alone.
    No,
}

/// A column's type, as far as it limits values.
#[derive(Clone, Debug, PartialEq)]
enum Held {
    /// Maximum characters, and bytes.
    Text {
        chars: u64,
        bytes: u64,
    },
    Json,
    Date,
    /// Fractional digits of a second.
    Datetime(u64),
    Integer {
        least: i128,
        most: i128,
    },
    Decimal {
        whole: u64,
        scale: u64,
    },
    Other,
}

/// Compares the type that the server reports (`varchar(64)`, `bigint(20) unsigned`) with one of ours (`VARCHAR(64)
/// CHARACTER SET ...`, `BOOLEAN NULL`). `is_json`: the server accepts only JSON there, whatever the type.
pub(super) fn fit(there: &str, is_json: bool, asked: &str) -> Fit {
    let there = if is_json { Held::Json } else { held(there) };
    let asked = held(asked);
    if holds(&there, &asked) {
        Fit::Fine
    } else if holds(&asked, &there) {
        Fit::Widen
    } else {
        Fit::No
    }
}

/// Whether a text type is too long for an index of the whole column.
pub(super) fn is_long_text(kind: &str) -> bool {
    word(kind).ends_with("text")
}

/// Whether every value of `less` can be stored unchanged in `more`.
fn holds(more: &Held, less: &Held) -> bool {
    match (more, less) {
        (Held::Text { chars, bytes }, Held::Text { chars: asked, bytes: asked_bytes }) => {
            chars >= asked && bytes >= asked_bytes
        }
        // MariaDB implements JSON as LONGTEXT with a check constraint.
        (Held::Text { bytes, .. }, Held::Json) => *bytes >= MEDIUM_BYTES,
        (Held::Datetime(more), Held::Datetime(less)) => more >= less,
        (Held::Integer { least, most }, Held::Integer { least: asked_least, most: asked_most }) => {
            least <= asked_least && most >= asked_most
        }
        (Held::Decimal { whole, scale }, Held::Decimal { whole: asked, scale: asked_scale }) => {
            whole >= asked && scale >= asked_scale
        }
        (Held::Decimal { whole, .. }, Held::Integer { least, most }) => {
            *whole >= digits(least.unsigned_abs().max(most.unsigned_abs()))
        }
        (Held::Json, Held::Json) | (Held::Date | Held::Datetime(_), Held::Date) => true,
        _ => false,
    }
}

const TEXT_BYTES: u64 = 65_535;
const MEDIUM_BYTES: u64 = 16_777_215;
const LONG_BYTES: u64 = 4_294_967_295;

fn held(kind: &str) -> Held {
    let text = |bytes: u64| Held::Text { chars: bytes, bytes };
    let integer = |bits: u32| {
        if kind.to_lowercase().contains("unsigned") {
            Held::Integer { least: 0, most: (1 << bits) - 1 }
        } else {
            Held::Integer { least: -(1 << (bits - 1)), most: (1 << (bits - 1)) - 1 }
        }
    };
    match word(kind).as_str() {
        "varchar" | "char" => {
            // Each takes up to four bytes.
            let chars = argument(kind, 0).unwrap_or(1);
            Held::Text { chars, bytes: chars.saturating_mul(4) }
        }
        "tinytext" => text(255),
        "text" => text(TEXT_BYTES),
        "mediumtext" => text(MEDIUM_BYTES),
        "longtext" => text(LONG_BYTES),
        "json" => Held::Json,
        "date" => Held::Date,
        "datetime" => Held::Datetime(argument(kind, 0).unwrap_or(0)),
        "boolean" | "tinyint" => integer(8),
        "smallint" => integer(16),
        "mediumint" => integer(24),
        "int" => integer(32),
        "bigint" => integer(64),
        "decimal" if !kind.to_lowercase().contains("unsigned") => {
            let (digits, scale) = (argument(kind, 0).unwrap_or(10), argument(kind, 1).unwrap_or(0));
            Held::Decimal { whole: digits.saturating_sub(scale), scale }
        }
        _ => Held::Other,
    }
}

/// Returns `varchar` for `VARCHAR(64) NULL`.
fn word(kind: &str) -> String {
    kind.chars().take_while(char::is_ascii_alphabetic).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// A number in the parentheses after it.
fn argument(kind: &str, at: usize) -> Option<u64> {
    let (_, behind) = kind.split_once('(')?;
    behind.split_once(')')?.0.split(',').nth(at)?.trim().parse().ok()
}

fn digits(number: u128) -> u64 {
    u64::from(number.checked_ilog10().unwrap_or(0)) + 1
}

#[cfg(test)]
mod tests {
    use super::{Fit, fit};

    #[test]
    fn a_column_is_widened_only_where_nothing_can_be_lost() {
        for (there, asked, want) in [
            ("varchar(64)", "VARCHAR(64) CHARACTER SET utf8mb4 NULL", Fit::Fine),
            ("varchar(255)", "VARCHAR(64) NULL", Fit::Fine),
            ("varchar(64)", "VARCHAR(255) NULL", Fit::Widen),
            ("varchar(64)", "TEXT NULL", Fit::Widen),
            ("varchar(1)", "BIGINT NULL", Fit::No),
            ("char(36)", "VARCHAR(36) NULL", Fit::Fine),
            ("text", "VARCHAR(1000) NULL", Fit::Fine),
            ("text", "VARCHAR(16000) NULL", Fit::Fine),
            ("tinytext", "VARCHAR(100) NULL", Fit::No),
            ("tinytext", "TEXT NULL", Fit::Widen),
            ("longtext", "TEXT NULL", Fit::Fine),
            ("text", "JSON NULL", Fit::No),
            ("longtext", "JSON NULL", Fit::Fine),
            ("json", "JSON NOT NULL", Fit::Fine),
            ("json", "TEXT NULL", Fit::No),
            ("json", "VARCHAR(64) NULL", Fit::No),
            ("datetime(6)", "DATETIME(6) NULL", Fit::Fine),
            ("datetime", "DATETIME(6) NULL", Fit::Widen),
            ("date", "DATETIME(6) NULL", Fit::Widen),
            ("datetime(6)", "DATE NULL", Fit::Fine),
            ("date", "DATE NULL", Fit::Fine),
            ("timestamp", "DATETIME(6) NULL", Fit::No),
            ("bigint(20)", "BIGINT NULL", Fit::Fine),
            ("bigint", "BIGINT NULL", Fit::Fine),
            ("bigint(20) unsigned", "BIGINT NULL", Fit::No),
            ("bigint unsigned", "BIGINT UNSIGNED NOT NULL DEFAULT 0", Fit::Fine),
            ("int(10) unsigned", "INT UNSIGNED NOT NULL", Fit::Fine),
            ("int(11)", "BIGINT NULL", Fit::Widen),
            ("tinyint(1)", "BOOLEAN NULL", Fit::Fine),
            ("tinyint(1)", "BIGINT NULL", Fit::Widen),
            ("bigint(20)", "BOOLEAN NULL", Fit::Fine),
            ("decimal(14,4)", "DECIMAL(14,4) NULL", Fit::Fine),
            ("decimal(16,4)", "DECIMAL(14,4) NULL", Fit::Fine),
            ("decimal(14,4)", "DECIMAL(16,5) NULL", Fit::Widen),
            ("decimal(14,4)", "DECIMAL(14,5) NULL", Fit::No),
            ("decimal(14,4)", "BIGINT NULL", Fit::No),
            ("decimal(20,0)", "BIGINT NULL", Fit::Fine),
            ("bigint(20)", "DECIMAL(14,4) NULL", Fit::No),
            ("bigint(20)", "DECIMAL(23,4) NULL", Fit::Widen),
            ("int(11)", "DECIMAL(14,4) NULL", Fit::Widen),
            ("tinyint(1)", "VARCHAR(8) NULL", Fit::No),
            ("double", "DECIMAL(14,4) NULL", Fit::No),
            ("enum('a','b')", "VARCHAR(8) NULL", Fit::No),
        ] {
            assert_eq!(fit(there, false, asked), want, "{there} for {asked}");
        }
        // MariaDB's JSON is such a LONGTEXT and accepts no other text.
        assert_eq!(fit("longtext", true, "JSON NULL"), Fit::Fine);
        assert_eq!(fit("longtext", true, "TEXT NULL"), Fit::No);
    }
}
