//! Values are what the API sent, or NULL and counted: numbers, dates, odd JSON, through both sinks and the front door.

mod columns;
mod fake;
mod kept;

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::TestApp;
use crate::support::mariadb::Database;
use crate::support::program::Folder;
use fake::{Answer, DETAIL, Things, fake};

async fn drift(app: &TestApp) -> Value {
    app.get("/api/v1/resources/things/drift").await
}

/// The body of the listing, as text: a JSON reader would round its numbers.
async fn listing(app: &TestApp, query: &str) -> String {
    let answer = app.request(Method::GET, &format!("/api/v1/things?{query}")).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{query}");
    answer.text().await.unwrap()
}

fn kinds(places: &Value) -> Vec<String> {
    let text = |place: &Value| format!("{} {}", place["path"].as_str().unwrap(), place["kind"].as_str().unwrap());
    places.as_array().unwrap().iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_strict_readers_refuse_is_kept_counted_and_the_same_in_both_sinks() {
    let database = Database::fresh().await;
    let mut served = Vec::new();
    for mysql in [None, Some(&database)] {
        let (api, address) = fake().await;
        api.set_rows([r#"{"id":"half"}"#, r#"{"id":"twice"}"#, r#"{"id":"mark"}"#]);
        api.set("/things/half", [Answer::ok(r#"{"id":"half","street":"Kade 1 \ud83d"}"#)]);
        api.set("/things/twice", [Answer::ok(r#"{"id":"twice","x":1,"deep":[{"y":1,"y":2}],"x":{"z":3}}"#)]);
        api.set("/things/mark", [Answer::ok("\u{feff}{\"id\":\"mark\"}")]);
        let columns =
            "street = { from = \"/street\", type = \"text(40)\" }\nx = { from = \"/x/z\", type = \"integer\" }";
        let app = Things { own: DETAIL, columns, ..Things::default() }.synced(&address, mysql).await;
        let found = drift(&app).await;
        assert_eq!(
            kinds(&found["tolerated"]),
            [" byte_order_mark", "/deep/*/y duplicate_key", "/street half_surrogate", "/x duplicate_key"]
        );
        let items = app.pages("/api/v1/things?limit=10").await;
        let columns: Vec<Value> = items.iter().map(|item| json!([item["id"], item["street"], item["x"]])).collect();
        assert_eq!(
            columns,
            [json!(["half", "Kade 1 \u{fffd}", null]), json!(["mark", null, null]), json!(["twice", null, 3])]
        );
        served.push(items.iter().map(|item| item["document"].clone()).collect::<Vec<_>>());
        app.finish().await;
    }
    assert_eq!(served[0], served[1]);
    let valid: Vec<(u64, Option<String>)> = database
        .rows("SELECT SUM(JSON_VALID(document)), MAX(JSON_UNQUOTE(JSON_EXTRACT(document, '$.x.z'))) FROM things")
        .await;
    assert_eq!(valid, [(3, Some("3".to_owned()))], "every reader sees the last of equal keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_keep_their_digits_in_columns_documents_and_answers() {
    const BIG: &str = "9400110200881234567890";
    let database = Database::fresh().await;
    for mysql in [None, Some(&database)] {
        let (api, address) = fake().await;
        api.set_rows([&*format!(r#"{{"id":{BIG},"n":{BIG},"m":123456789012345678.9,"exact":12.50}}"#)]);
        let columns = "tracking = { from = \"/n\", type = \"text(40)\" }\nexact = { from = \"/n\", type = \"decimal(30,0)\" }\n\
                       whole = { from = \"/n\", type = \"integer\" }\nm = { from = \"/m\", type = \"integer\" }\n\
                       raw = { from = \"/n\", type = \"json\" }\nprice = { from = \"/exact\", type = \"text(10)\" }";
        let app = Things { columns, ..Things::default() }.synced(&address, mysql).await;
        let text = listing(&app, "limit=1").await;
        for part in [
            format!("\"id\":\"{BIG}\""),
            format!("\"tracking\":\"{BIG}\""),
            format!("\"exact\":\"{BIG}\""),
            "\"whole\":null".to_owned(),
            "\"m\":null".to_owned(),
            format!("\"raw\":{BIG}"),
            "\"price\":\"12.50\"".to_owned(),
            format!("\"n\":{BIG},\"m\":123456789012345678.9,\"exact\":12.50}}"),
        ] {
            assert!(text.contains(&part), "{part}: {text}");
        }
        let misfits = drift(&app).await["misfits"].clone();
        let columns: Vec<&str> =
            misfits.as_array().unwrap().iter().map(|one| one["column"].as_str().unwrap()).collect();
        assert_eq!(columns, ["m", "whole"]);
        app.finish().await;
    }
    let row: Vec<(String, String, String)> =
        database.rows("SELECT tracking, CAST(exact AS CHAR), CAST(raw AS CHAR) FROM things").await;
    assert_eq!(row, [(BIG.to_owned(), BIG.to_owned(), BIG.to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_digits_beyond_64_bits_is_a_change() {
    let (api, address) = fake().await;
    let set = |row: &str, document: &str| {
        api.set_rows([&*format!(r#"{{"id":"a","rev":{row}}}"#)]);
        api.set("/things/a", [Answer::ok(format!(r#"{{"id":"a","n":{document}}}"#))]);
    };
    set("9400110200881234567890", "9400110200881234567890");
    let columns = "n = { from = \"/n\", type = \"text(40)\" }";
    let app = Things { own: DETAIL, columns, ..Things::default() }.synced(&address, None).await;
    for (row, document) in [
        ("9400110200881234567891", "9400110200881234567891"),
        ("1", "9400110200881234567892"),
        ("2", "0.1234567890123456789"),
        ("3", "0.1234567890123456788"),
    ] {
        set(row, document);
        let before = api.calls("/things/a");
        assert_eq!(app.sync("shop", "full").await.0, 202);
        app.run_until_idle().await;
        assert_eq!(api.calls("/things/a") - before, 1, "{row}");
        assert!(listing(&app, "limit=1").await.contains(&format!("\"n\":\"{document}\"")), "{document}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_without_an_offset_are_read_by_the_zone_that_is_named_and_counted_without_one() {
    let rows = ["2026-06-30T22:30:00", "2026-06-29T22:30:00"]
        .iter()
        .enumerate()
        .map(|(n, at)| format!(r#"{{"id":"{n}","modified":"{at}","local":"{at}"}}"#))
        .collect::<Vec<_>>();
    let columns = "gmt = { from = \"/modified\", type = \"datetime\" }\n\
                   local = { from = \"/local\", type = \"datetime\", zone = \"Europe/Amsterdam\" }\n\
                   day = { from = \"/modified\", type = \"date\" }";
    let list = "time = \"/modified\"\norder = \"newest-first\"";
    for (own, gmt) in [("", Value::Null), ("zone = \"UTC\"", json!("2026-06-30T22:30:00.000000Z"))] {
        let (api, address) = fake().await;
        api.set_rows(rows.iter().map(String::as_str));
        let app = Things { own, list, columns, ..Things::default() }.synced(&address, None).await;
        let items = app.pages("/api/v1/things?limit=10").await;
        assert_eq!((&items[0]["gmt"], &items[0]["day"]), (&gmt, &json!("2026-06-30")));
        assert_eq!(items[0]["local"], "2026-06-30T20:30:00.000000Z");
        let found = drift(&app).await;
        let untimed = if own.is_empty() { vec!["/modified time_without_offset"] } else { vec![] };
        assert_eq!(kinds(&found["untimed"]), untimed);
        let misfits: Vec<&Value> = found["misfits"].as_array().unwrap().iter().map(|one| &one["kind"]).collect();
        assert_eq!(misfits.len(), untimed.len());
        assert!(misfits.iter().all(|kind| **kind == "time_without_offset"));
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_fails_on_times_that_cannot_be_read_and_names_the_zone_to_add() {
    let (api, address) = fake().await;
    let list = "time = \"/modified\"\norder = \"newest-first\"";
    let columns = "modified = { from = \"/modified\", type = \"datetime\" }";
    let folder_of = |things: &Things<'_>| {
        let mut folder = Folder::at(&address, &things.toml());
        folder.set("WAYBILL_SOURCE_AUTH", "api-key");
        folder.set("WAYBILL_SOURCE_API_KEY_HEADER", "X-Key");
        folder.set("WAYBILL_RESOURCES", "things");
        folder.feed(&["shops", "add", "--name", "Shop", "--client-id", "shop"], "secret").expect(0);
        folder
    };
    let at = |time: &str| api.set_rows([&*format!(r#"{{"id":"a","modified":"{time}"}}"#)]);
    at("2026-06-30T22:30:00");
    let ended = folder_of(&Things { list, ..Things::default() }).run(&["check"]).expect(1);
    let said = format!("{}{}", ended.out, ended.err);
    for part in ["/modified (list.time)", "zone = \"UTC\"", "[resource.things]"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let ended = folder_of(&Things { columns, ..Things::default() }).run(&["check"]).expect(1);
    let said = format!("{}{}", ended.out, ended.err);
    assert!(said.contains("things.modified would be NULL") && said.contains("zone = \"UTC\""), "{said}");
    folder_of(&Things { own: "zone = \"UTC\"", list, columns, ..Things::default() }).run(&["check"]).expect(0);
    at("30 June 2026");
    let ended = folder_of(&Things { own: "zone = \"UTC\"", list, ..Things::default() }).run(&["check"]).expect(1);
    let said = format!("{}{}", ended.out, ended.err);
    assert!(said.contains("/modified (list.time); it must be RFC 3339"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_and_to_reach_the_ends_of_the_calendar() {
    let database = Database::fresh().await;
    let rows = [
        r#"{"id":"a-first","at":"0001-01-01T00:00:00Z"}"#,
        r#"{"id":"b-before","at":"1969-07-20T20:17:40Z"}"#,
        r#"{"id":"c-now","at":"2026-11-30T04:00:00Z"}"#,
        r#"{"id":"d-last-but-one","at":"9999-12-30T23:59:59.999999Z"}"#,
        r#"{"id":"e-last","at":"9999-12-31T23:59:59Z"}"#,
        r#"{"id":"f-none","at":null}"#,
    ];
    for mysql in [None, Some(&database)] {
        let (api, address) = fake().await;
        api.set_rows(rows);
        let columns = "at = { from = \"/at\", type = \"datetime\" }";
        let table = "time = \"at\"\nfilters = { at = \"at\" }";
        let app = Things { columns, table, ..Things::default() }.synced(&address, mysql).await;
        for (query, found) in [
            ("to=9999-12-31", "abcd"),
            ("to=9999-12-30", "abc"),
            ("to=9999-12-31T23:59:59Z", "abcd"),
            ("to=9999-12-31T23:59:59.999Z", "abcde"),
            ("from=9999-12-31", "e"),
            ("from=9999-12-31T00:00:00Z&to=9999-12-31T23:59:59.999Z", "e"),
            ("from=0001-01-01", "abcde"),
            ("to=0001-01-02", "a"),
            ("to=1970-01-01", "ab"),
            ("from=1969-07-20T20:17:40Z&to=2026-12-01", "bc"),
            ("at=9999-12-31T23:59:59Z", "e"),
            ("at=0001-01-01T00:00:00Z", "a"),
            ("", "abcdef"),
        ] {
            let items = app.pages(&format!("/api/v1/things?limit=10&{query}")).await;
            let letters: String = items.iter().filter_map(|item| item["id"].as_str()?.chars().next()).collect();
            assert_eq!(letters, found, "{query}, mysql: {}", mysql.is_some());
        }
        for query in
            ["to=10000-01-01", "from=9999-12-31T23:59:59-00:01", "from=0000-12-31", "to=0001-01-01T00:00:00%2B01:00"]
        {
            assert_eq!(app.call(Method::GET, &format!("/api/v1/things?{query}"), None).await.0, 400, "{query}");
        }
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_without_a_secret_is_for_basic_authentication_alone() {
    let (api, address) = fake().await;
    api.set_rows([r#"{"id":"a"}"#]);
    for (auth, status) in [("basic", 201), ("bearer", 422), ("api-key", 422)] {
        let header = if auth == "api-key" { "api_key_header = \"X-Key\"" } else { "" };
        let app = TestApp::builder()
            .source(&format!("base_url = \"{address}\"\nauth = \"{auth}\"\n{header}"))
            .resources(&["things"])
            .toml(&Things::default().toml())
            .unregistered()
            .start()
            .await;
        let shop = json!({"name": "Shop", "client_id": "key", "client_secret": ""});
        let (found, answer) = app.call(Method::POST, "/api/v1/shops", Some(shop)).await;
        assert_eq!(found, status, "{auth}: {answer}");
        app.run_until_idle().await;
        assert_eq!(app.pages("/api/v1/things?limit=10").await.len(), usize::from(status == 201), "{auth}");
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_410_is_gone_and_a_403_with_retry_after_is_asked_again() {
    let (api, address) = fake().await;
    api.set_rows([r#"{"id":"gone"}"#, r#"{"id":"limited"}"#, r#"{"id":"refused"}"#]);
    let answer = |status, body: &str| Answer { status, ..Answer::ok(body) };
    api.set("/things/gone", [answer(410, "{}")]);
    let limited = answer(403, r#"{"message":"secondary rate limit"}"#).with("retry-after", "0.5");
    api.set("/things/limited", [limited.with("retry-after", "soon, 0"), Answer::ok(r#"{"id":"limited"}"#)]);
    api.set("/things/refused", [answer(403, "{}")]);
    let mut app = Things { own: DETAIL, ..Things::default() }.synced(&address, None).await;
    let runs = app.runs("shop").await;
    assert_eq!((&runs[0]["gone"], &runs[0]["fetched"], &runs[0]["parked"]), (&json!(1), &json!(1), &json!(1)));
    // Whether one is gone is known once another was answered.
    assert_eq!(["gone", "limited", "refused"].map(|id| api.calls(&format!("/things/{id}"))), [2, 2, 1]);
    app.expect_parked(1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzip_answer_of_several_members_is_read_whole() {
    let member = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let (api, address) = fake().await;
    let body = [r#"{"items":["#, r#"{"id":"a"},"#, r#"{"id":"b"}]}"#].map(member).concat();
    api.set("/things", [Answer::ok(body).with("content-encoding", "gzip")]);
    let app = Things::default().synced(&address, None).await;
    assert_eq!(app.pages("/api/v1/things?limit=10").await.len(), 2);
    app.finish().await;
}
