//! Unusual but legal values: what the specification allows, or has been observed, and breaks careless readers.
//! `content` adds them by index if `Options::odd` is set.

use serde_json::json;

use crate::document::Extra;

/// Texts that break SQL, HTML, a log line or a spreadsheet unless they are treated as text.
const TEXTS: [&str; 16] = [
    "\u{1F600} thank you \u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467} \u{20BB7}\u{91CE}\u{5BB6}",
    "'; DROP TABLE shipments; --",
    "\"double\" 'single' `back` \\ back\\slash \\' \\\"",
    "<script>alert('waybill')</script>",
    "\u{0634}\u{062D}\u{0646}\u{0629} \u{0645}\u{062C}\u{0627}\u{0646}\u{064A}\u{0629} \u{202E}txt.exe",
    "{{7*7}} ${7*7} %s %n %00",
    "=cmd|' /C calc'!A0",
    "line one\r\nX-Injected: yes\tand a tab",
    "cafe\u{0301} caf\u{00E9}",
    "nul\u{0}inside",
    "../../etc/passwd",
    "NULL",
    "trailing spaces   ",
    "\u{FEFF}byte order mark",
    "\u{0130}stanbul \u{00DF} \u{017F} \u{212A}",
    "",
];

/// The unusual text of one index.
pub(crate) fn text(index: u64) -> String {
    let place = usize::try_from(index % TEXTS.len() as u64).unwrap_or_default();
    TEXTS.get(place).copied().unwrap_or_default().to_owned()
}

/// 2,000 characters, some of four bytes.
pub(crate) fn long_text() -> String {
    "A very long title, with \u{1F4E6}. ".chars().cycle().take(2_000).collect()
}

/// Unspecified fields, some with integers beyond 2^53.
pub(crate) fn extra(index: u64) -> Extra {
    Extra::from([
        ("loyaltyPoints".to_owned(), json!(9_007_199_254_740_993_u64 + index)),
        ("ledgerNumber".to_owned(), json!(u64::MAX - index)),
        ("sustainability".to_owned(), json!({ "label": "A+", "grams": -273.15, "checked": null })),
        ("experiments".to_owned(), json!([[], {}, [true, false, null], "\u{1F680}"])),
    ])
}
