//! What a column cannot hold is NULL and counted, never something else: random values, every type, both sinks.

use fastrand::Rng;
use serde_json::Value;

use super::drift;
use super::fake::{Things, fake};
use crate::support::mariadb::Database;

const DOCUMENTS: usize = 400;

/// Types, and the columns of those types.
const TYPES: [(&str, &str); 10] = [
    ("short", "text(8)"),
    ("long", "text(40)"),
    ("free", "text"),
    ("moment", "datetime"),
    ("day", "date"),
    ("whole", "integer"),
    ("price", "decimal(14,4)"),
    ("big", "decimal(40,0)"),
    ("flag", "boolean"),
    ("raw", "json"),
];

/// A value as it is sent.
fn value(rng: &mut Rng) -> String {
    let digits = |rng: &mut Rng, most: usize| -> String {
        let count = rng.usize(1..=most);
        let digits: String = (0..count).map(|_| rng.digit(10)).collect();
        let digits = digits.trim_start_matches('0').to_owned();
        if digits.is_empty() { "0".to_owned() } else { digits }
    };
    let sign = if rng.bool() { "-" } else { "" };
    let number = match rng.u8(0..5) {
        0 => digits(rng, 5),
        1 => digits(rng, 42),
        2 => format!("{}.{}", digits(rng, 12), digits(rng, 6)),
        3 => format!("{}.{}e{}", digits(rng, 3), digits(rng, 4), rng.i8(-6..30)),
        _ => format!("{}.{}0000", digits(rng, 20), digits(rng, 4)),
    };
    let number = format!("{sign}{number}");
    let text = match rng.u8(0..10) {
        0 => number.clone(),
        1 => "x".repeat(rng.usize(0..45)),
        2 => "é".repeat(rng.usize(5..12)),
        3 => "😀".repeat(rng.usize(32_760..32_780) / if rng.bool() { 2 } else { 1 }),
        4 => format!("{:04}-{:02}-{:02}", rng.u16(0..=9999), rng.u8(0..14), rng.u8(0..33)),
        5 => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:00Z",
            rng.u16(0..=9999),
            rng.u8(1..13),
            rng.u8(1..29),
            rng.u8(0..25),
            rng.u8(0..61)
        ),
        6 => format!("2026-06-{:02}t22:30:0{}.{}+0{}00", rng.u8(1..30), rng.u8(0..10), digits(rng, 9), rng.u8(0..10)),
        7 => {
            ["true", "false", "0", "1", "null", "", " 7", "7 ", "+7", "1e3", "0x7", "NaN"][rng.usize(0..12)].to_owned()
        }
        8 => [
            "9999-12-31T23:59:59.999999Z",
            "9999-12-31T23:59:59-01:00",
            "0000-01-01",
            "2026-06-30+02:00",
            "2026-W27-2",
            "2026-06-30T22:30:00",
        ][rng.usize(0..6)]
        .to_owned(),
        _ => "a\u{0}b\\\"%_' ".to_owned(),
    };
    match rng.u8(0..12) {
        0 => ["true", "false", "null"][rng.usize(0..3)].to_owned(),
        1 => ["[]", "{}", "[1,[2]]", "{\"b\":9400110200881234567890,\"a\":null}"][rng.usize(0..4)].to_owned(),
        2..6 => number,
        _ => Value::from(text).to_string(),
    }
}

/// A decimal numeral without what does not count: exponent, zeros at its ends.
fn worth(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (is_negative, unsigned) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let kept = all.trim_end_matches('0');
    let shift = (all.len() - kept.len()) as i64 - fraction.len() as i64;
    let digits = kept.trim_start_matches('0').to_owned();
    let exponent = if digits.is_empty() { 0 } else { exponent.parse::<i64>().ok()? + shift };
    Some((is_negative && !digits.is_empty(), digits, exponent))
}

/// Whether what a column holds is the value that was sent, and nothing else.
fn is_same(kind: &str, sent: &str, held: &str) -> bool {
    let text: Option<String> = serde_json::from_str(sent).ok();
    let plain = text.as_deref().unwrap_or(sent);
    match kind {
        "datetime" => {
            // Sent with an offset or as a number; its day is at most one away.
            text.is_none_or(|text| text.len() > 10 && held.len() == 26)
        }
        "date" => text.is_some_and(|text| text.replace("-", "").starts_with(&held.replace("-", ""))),
        "boolean" => sent == if held == "1" { "true" } else { "false" },
        "json" => {
            let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            read(held) == read(sent)
        }
        _ if kind.starts_with("text") => match &text {
            Some(text) => text == held,
            None => worth(sent) == worth(held),
        },
        _ => worth(plain.trim_start_matches('+')) == worth(held),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_column_cannot_hold_is_null_and_counted_and_never_something_else_in_both_sinks() {
    let seed =
        std::env::var("WAYBILL_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("WAYBILL_TEST_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let sent: Vec<String> = (0..DOCUMENTS).map(|_| value(&mut rng)).collect();
    let rows: Vec<String> =
        sent.iter().enumerate().map(|(n, value)| format!(r#"{{"id":"{n:04}","v":{value}}}"#)).collect();
    let columns: String =
        TYPES.map(|(name, kind)| format!("{name} = {{ from = \"/v\", type = \"{kind}\" }}\n")).concat();
    let database = Database::fresh().await;
    let mut listings = Vec::new();
    for mysql in [None, Some(&database)] {
        let (api, address) = fake().await;
        api.set_rows(rows.iter().map(String::as_str));
        let app = Things { columns: &columns, ..Things::default() }.synced(&address, mysql).await;
        let items = app.pages("/api/v1/things?limit=500").await;
        assert_eq!(items.len(), DOCUMENTS, "nothing is parked");
        let misfits = drift(&app).await["misfits"].clone();
        app.finish().await;
        listings.push((items, misfits));
    }
    let [(archived, archive_misfits), (listed, mysql_misfits)] = &listings[..] else { unreachable!() };
    let counted = |misfits: &Value| -> Vec<(String, String)> {
        let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
        misfits.as_array().unwrap().iter().map(|one| (text(one, "column"), text(one, "kind"))).collect()
    };
    assert_eq!(counted(archive_misfits), counted(mysql_misfits));
    for (name, kind) in TYPES {
        let column: Vec<(String, Option<String>)> = database
            .rows(&format!("SELECT document_id, CAST(`{name}` AS CHAR) FROM things ORDER BY document_id"))
            .await;
        let mut is_misfit = false;
        for (((id, held), sent), (one, other)) in column.iter().zip(&sent).zip(archived.iter().zip(listed)) {
            assert_eq!((&one["id"], &one[name]), (&other["id"], &other[name]), "the sinks differ: {kind} {sent:.60}");
            assert_eq!(one["id"], **id);
            let is_null = held.is_none() || kind == "json" && held.as_deref() == Some("null");
            assert_eq!(one[name].is_null(), is_null, "listing and table differ: {kind} {sent:.60}");
            match held {
                Some(held) => assert!(is_same(kind, sent, held), "{kind}: {sent:.60} became {held:.60}"),
                None => is_misfit |= sent != "null",
            }
        }
        let is_counted = counted(mysql_misfits).iter().any(|(column, _)| column == name);
        assert_eq!(is_misfit, is_counted, "{kind}");
    }
}
