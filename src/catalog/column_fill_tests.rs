//! Tests of `column_fill`.

use super::column_fill::{ColumnFill, FillReport, Unfilled, UnfilledColumn};
use super::columns::ColumnKind;

/// The report about these columns, and children, after these documents.
fn report(table: &str, documents: &[&str]) -> FillReport {
    let list = r#"list = { path = "/things", items = "", pages = { style = "none" } }"#;
    let text = format!("id = \"/id\"\n{list}\n[table.columns]\n{table}");
    let definition = crate::catalog::reader::read("things", &toml::from_str(&text).unwrap()).unwrap();
    let mut fill = ColumnFill::new(&definition);
    documents.iter().for_each(|document| fill.add(document.as_bytes()));
    fill.report()
}

fn near(table: &str, document: &str) -> Vec<(String, String, Option<String>)> {
    let absent = |column: UnfilledColumn| match column.why {
        Unfilled::Absent { near, .. } => (column.name, column.pointer, near),
        other => panic!("{other:?}"),
    };
    report(table, &[document]).unfilled.into_iter().map(absent).collect()
}

#[test]
fn the_key_that_was_meant_is_named() {
    let document =
        r#"{"id":1,"orderItemId":"a","to":{"zipCode":"b"},"lines":[{"sku":"c","unitPrice":1,"tags":[{"label":"x"}]}]}"#;
    for (table, name, pointer, meant) in [
        ("a = { from = \"/orderItemID\", type = \"text\" }", "things.a", "/orderItemID", "/orderItemId"),
        ("a = { from = \"/order_item_id\", type = \"text\" }", "things.a", "/order_item_id", "/orderItemId"),
        ("a = { from = \"/ordrItemId\", type = \"text\" }", "things.a", "/ordrItemId", "/orderItemId"),
        ("a = { from = \"/too/zipCode\", type = \"text\" }", "", "", ""),
        ("a = { from = \"/To/zipCode\", type = \"text\" }", "things.a", "/To/zipCode", "/to/zipCode"),
        ("a = { from = \"/to/zipcode\", type = \"text\" }", "things.a", "/to/zipcode", "/to/zipCode"),
        (
            "a = { from = \"/lines/0/untPrice\", type = \"text\" }",
            "things.a",
            "/lines/0/untPrice",
            "/lines/0/unitPrice",
        ),
        ("[table.children.l]\nfrom = \"/liness\"", "l", "/liness", "/lines"),
        ("[table.children.l]\nfrom = \"/lines/*/tagss\"", "l", "/lines/*/tagss", "/lines/*/tags"),
        ("[table.children.l]\nfrom = \"/linez/*/tags\"", "l", "/linez", "/lines"),
        (
            "[table.children.l]\nfrom = \"/lines\"\ncolumns.p = { from = \"/unitprice\", type = \"integer\" }",
            "l.p",
            "/unitprice",
            "/unitPrice",
        ),
        (
            "[table.children.t]\nfrom = \"/lines/*/tags\"\ncolumns.p = { above = \"/unit_price\", type = \"integer\" }",
            "t.p",
            "/unit_price",
            "/unitPrice",
        ),
    ] {
        let expected: Vec<_> = (!name.is_empty())
            .then(|| (name.to_owned(), pointer.to_owned(), Some(meant.to_owned())))
            .into_iter()
            .collect();
        assert_eq!(near(table, document), expected, "{table}");
    }
}

#[test]
fn what_may_be_optional_is_not_reported_before_many_documents() {
    let taken = "a = { from = \"/firstName\", type = \"text\" }\nb = { from = \"/fristName\", type = \"text\" }\n\
                 c = { from = \"/none\", type = \"text\" }\nd = { from = \"/to/none\", type = \"text\" }\n\
                 e = { from = \"/empty\", type = \"date\" }";
    let document = r#"{"id":1,"firstName":"x","to":null,"empty":"","more":1}"#;
    let few = report(taken, &[document; 19]);
    assert_eq!((few.documents, few.columns, few.filled), (19, 4, 1), "a null says nothing of what is in it");
    assert_eq!(few.unfilled, []);
    let unseen: Vec<&str> = few.unseen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(unseen, ["things.b", "things.c"], "another column takes the similar key");
    let many = report(taken, &[document; 20]);
    assert_eq!(many.unseen, []);
    assert_eq!(many.unfilled.len(), 2);
    for column in &many.unfilled {
        let others = vec!["more".to_owned(), "to".to_owned()];
        assert_eq!(column.why, Unfilled::Absent { documents: 20, near: None, others });
    }
    let elsewhere = report("a = { from = \"/ean\", type = \"text\" }", &[r#"{"id":1,"product":{"ean":"x"}}"#; 20]);
    let Unfilled::Absent { near, .. } = &elsewhere.unfilled[0].why else { panic!("{elsewhere:?}") };
    assert_eq!(near.as_deref(), Some("/product/ean"));
}

#[test]
fn a_type_that_no_value_fits_is_reported_with_one_that_holds_them() {
    let misfit = |kind: ColumnKind, kinds: &[&'static str], fitting: Option<&str>| Unfilled::Misfit {
        documents: 2,
        column: Some(kind),
        kinds: kinds.to_vec(),
        fitting: fitting.map(str::to_owned),
    };
    for (kind, values, expected) in [
        ("integer", ["\"A-1\"", "\"B-2\""], Some(misfit(ColumnKind::Integer, &["text"], Some("text(32)")))),
        ("integer", ["1.5", "2.25"], Some(misfit(ColumnKind::Integer, &["number"], Some("decimal(14,4)")))),
        ("text", ["true", "{}"], Some(misfit(ColumnKind::Text(None), &["boolean", "object"], Some("json")))),
        ("datetime", ["\"2026-11-25\"", "null"], None),
        ("text", ["{\"a\":1}", "{\"a\":2}"], Some(misfit(ColumnKind::Text(None), &["object"], None))),
        ("integer", ["1", "\"x\""], None),
        ("boolean", ["null", "\"\""], None),
    ] {
        let documents = values.map(|value| format!("{{\"id\":1,\"v\":{value}}}"));
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        let found = report(&format!("v = {{ from = \"/v\", type = \"{kind}\" }}"), &documents);
        let why = found.unfilled.first().map(|column| column.why.clone());
        if kind == "datetime" {
            let date = matches!(&why, Some(Unfilled::Misfit { fitting, .. }) if fitting.as_deref() == Some("date"));
            assert!(date, "{why:?}");
            continue;
        }
        assert_eq!(why, expected, "{kind} {values:?}");
    }
    let no_array = report("[table.children.l]\nfrom = \"/lines\"", &[r#"{"id":1,"lines":{"a":1}}"#]);
    assert!(matches!(&no_array.unfilled[0].why, Unfilled::Misfit { column: None, .. }), "{no_array:?}");
    let mixed = [r#"{"id":1,"v":"2026-11-25T10:00:00Z"}"#, r#"{"id":2,"v":"2026-11-25T10:00:00"}"#];
    let found = report("v = { from = \"/v\", type = \"datetime\" }", &mixed);
    assert_eq!(found.unfilled[0].why, Unfilled::WithoutOffset);
}
