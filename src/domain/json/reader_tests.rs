//! What the parser accepts, reports and refuses.

use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

use super::{Json, JsonFault, PathPart, Tolerance, Tolerated};

fn text(json: &Json<'_>) -> String {
    serde_json::to_string(json).unwrap()
}

fn member(name: &str) -> PathPart {
    PathPart::Member(name.to_owned())
}

/// The value read from a text, what was tolerated, and the text that is stored.
fn read(sent: &str) -> (String, Vec<(Tolerance, Vec<PathPart>)>, String) {
    let reading = Json::read(sent.as_bytes()).unwrap();
    let kept = reading.normalised.clone().unwrap_or_else(|| sent.as_bytes().to_vec());
    let strict: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(text(&reading.value), text(&Json::parse(&kept).unwrap()), "the kept text has the same value");
    assert_eq!(strict, serde_json::from_str::<serde_json::Value>(&text(&reading.value)).unwrap());
    let noted = reading.tolerated.into_iter().map(|Tolerated { what, path }| (what, path)).collect();
    (text(&reading.value), noted, String::from_utf8(kept).unwrap())
}

#[test]
fn numbers_keep_the_digits_that_were_sent() {
    let sent = r#"[9400110200881234567890,0.1234567890123456789,1.50,-0,1e5,1E-7,18446744073709551615]"#;
    assert_eq!(read(sent), (sent.to_owned(), vec![], sent.to_owned()));
}

#[test]
fn half_a_surrogate_pair_reads_as_the_replacement_character() {
    let half = |path: Vec<PathPart>| (Tolerance::HalfSurrogate, path);
    for (sent, value, kept) in [
        (r#"{"a":"x\ud83d"}"#, "{\"a\":\"x\u{fffd}\"}", r#"{"a":"x\ufffd"}"#),
        (r#"{"a":"\ude00y"}"#, "{\"a\":\"\u{fffd}y\"}", r#"{"a":"\ufffdy"}"#),
        (r#"{"a":"\ud83d\n"}"#, "{\"a\":\"\u{fffd}\\n\"}", r#"{"a":"\ufffd\n"}"#),
        (r#"{"a":"\uD83D\u0041"}"#, "{\"a\":\"\u{fffd}A\"}", r#"{"a":"\ufffd\u0041"}"#),
        (r#"{"a":"\ud83d\ud83d\ude00"}"#, "{\"a\":\"\u{fffd}😀\"}", r#"{"a":"\ufffd\ud83d\ude00"}"#),
    ] {
        assert_eq!(read(sent), (value.to_owned(), vec![half(vec![member("a")])], kept.to_owned()), "{sent}");
    }
    let whole = r#"{"a":"\ud83d\ude00"}"#;
    assert_eq!(read(whole), ("{\"a\":\"😀\"}".to_owned(), vec![], whole.to_owned()));
    let (_, noted, _) = read(r#"{"rows":[{"a":"\ud83d"}],"\ude00":1}"#);
    assert_eq!(noted, [half(vec![member("rows"), PathPart::Element, member("a")]), half(vec![member("\u{fffd}")])]);
}

#[test]
fn the_last_of_equal_keys_wins_for_every_parser() {
    let twice = |path: Vec<PathPart>| (Tolerance::DuplicateKey, path);
    for (sent, value, kept, noted) in [
        (r#"{"x":1,"x":2}"#, r#"{"x":2}"#, r#"{"x":2}"#, vec![twice(vec![member("x")])]),
        (
            r#"{"x":1, "b":0, "\u0078": 2}"#,
            r#"{"b":0,"x":2}"#,
            r#"{"b":0, "\u0078": 2}"#,
            vec![twice(vec![member("x")])],
        ),
        (
            r#"{"x":{"y":1,"y":"\ud83d"},"x":{"y":3}}"#,
            r#"{"x":{"y":3}}"#,
            r#"{"x":{"y":3}}"#,
            vec![
                (Tolerance::HalfSurrogate, vec![member("x"), member("y")]),
                twice(vec![member("x"), member("y")]),
                twice(vec![member("x")]),
            ],
        ),
        (
            r#"[{"x":1,"x":2,"x":3}]"#,
            r#"[{"x":3}]"#,
            r#"[{"x":3}]"#,
            vec![twice(vec![PathPart::Element, member("x")]), twice(vec![PathPart::Element, member("x")])],
        ),
    ] {
        assert_eq!(read(sent), (value.to_owned(), noted, kept.to_owned()), "{sent}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped_only_at_the_start() {
    let (value, noted, kept) = read("\u{feff} {\"a\":\"\u{feff}\"}");
    assert_eq!((value.as_str(), kept.as_str()), ("{\"a\":\"\u{feff}\"}", " {\"a\":\"\u{feff}\"}"));
    assert_eq!(noted, [(Tolerance::ByteOrderMark, vec![])]);
    assert!(Json::parse("\u{feff}\u{feff}{}".as_bytes()).is_err());
    assert!(Json::parse("{\u{feff}}".as_bytes()).is_err());
}

#[test]
fn nothing_else_is_tolerated() {
    let fault = |text: &[u8]| Json::parse(text).unwrap_err().fault;
    for text in [
        "<html>",
        "{} {}",
        "{\"a\":NaN}",
        "{a:1}",
        "{'a':1}",
        "[1,]",
        "{\"a\":1,}",
        "[1 2]",
        "01",
        "1.",
        ".5",
        "+1",
        "-",
        "1e",
        "tru",
        "nulL",
        "\"\u{1}\"",
        "\"\t\"",
        r#""\x""#,
        r#""\u12g4""#,
        "[1]]",
        "//x\n1",
        "Infinity",
        "\u{a0}1",
    ] {
        assert!(matches!(fault(text.as_bytes()), JsonFault::Syntax | JsonFault::EndsEarly), "{text}");
    }
    for text in ["", "{", "[1,", "\"a", "{\"a\":", r#""\u12"#, "-", "tr", "1e+"] {
        assert_eq!(fault(text.as_bytes()), JsonFault::EndsEarly, "{text}");
    }
    assert_eq!(fault(b"\"\xff\""), JsonFault::NotUtf8);
    assert_eq!(fault(b"[1e400]"), JsonFault::NumberTooGreat);
    assert_eq!(fault(b"[-1e309]"), JsonFault::NumberTooGreat);
    assert_eq!(fault(format!("[{}]", "9".repeat(400)).as_bytes()), JsonFault::NumberTooGreat);
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(Json::parse(deep(128).as_bytes()).is_ok());
    assert_eq!(fault(deep(129).as_bytes()), JsonFault::TooDeep);
    assert_eq!(fault(deep(1_000_000).as_bytes()), JsonFault::TooDeep);
}

#[test]
fn errors_name_the_place_and_quote_nothing() {
    let error = Json::parse(b"{\"name\":\n \"Jansen\" 1}").unwrap_err();
    assert_eq!(error.to_string(), "it is not JSON (line 2, column 11)");
    let error = Json::parse(br#"{"name": 1e400}"#).unwrap_err();
    assert_eq!(error.to_string(), "a number in it is out of range (line 1, column 14)");
}

#[test]
fn many_tolerated_places_are_all_replaced_but_only_the_first_are_reported() {
    let many = format!("[{}]", vec![r#""\ud83d""#; 5_000].join(","));
    let reading = Json::read(many.as_bytes()).unwrap();
    assert_eq!(reading.tolerated.len(), super::reader::NOTED_MAX);
    assert_eq!(reading.normalised.unwrap(), many.replace(r"\ud83d", r"\ufffd").into_bytes());
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            proptest::collection::btree_map(".{0,6}", inner, 0..5)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn valid_json_parses_as_in_serde_json(value in json(), pretty in any::<bool>()) {
        let sent = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let reading = Json::read(sent.as_bytes()).unwrap();
        prop_assert_eq!(text(&reading.value), serde_json::to_string(&value).unwrap());
        prop_assert_eq!((reading.tolerated.len(), reading.normalised), (0, None));
    }

    /// Accepts everything that a strict parser accepts; never panics.
    #[test]
    fn without_tolerances_the_parser_agrees_with_a_strict_one(bytes in "[\\[\\]{}\",:0-9eE.+\\\\untrlfaseé \n-]{0,24}") {
        let theirs = serde_json::from_str::<serde_json::Value>(&bytes);
        match Json::read(bytes.as_bytes()) {
            Ok(reading) if reading.tolerated.is_empty() => prop_assert_eq!(theirs.is_ok(), true, "{}", bytes),
            Ok(_) => {}
            Err(_) => prop_assert_eq!(theirs.is_err(), true, "{}", bytes),
        }
    }
}
