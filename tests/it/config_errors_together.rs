//! All errors of a configuration are reported together, in line order, whichever part finds them; what only follows from
//! another error is not reported.

use crate::definitions::with;
use crate::support::configuration::problems;
use crate::support::program::Folder;

#[test]
fn all_errors_of_a_definition_are_reported_at_once() {
    let text = with("id", "id = \"x\"\nmedia = \"y\"")
        .replace("text(64)", "string")
        .replace("style = \"number\"", "style = \"nmber\"");
    let found = problems(&text);
    let keys: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").nth(1)).collect();
    assert_eq!(
        keys,
        [
            "resource.things.id",
            "resource.things.media",
            "resource.things.list.pages.style",
            "resource.things.table.columns.name.type",
        ],
        "{found:#?}"
    );
}

/// Each of these is found by another part, and none hides another.
#[test]
fn errors_of_different_parts_are_reported_in_line_order() {
    let text = r#"resources = ["things", "things", "boxes"]
[mysql]
url = "mysql://u:p@127.0.0.1/w?pool_size=many"
[source.limits]
"GET /v1/things" = 20
[resource.things]
id = "/id"
[resource.things.list]
path = "/v1/things"
items = "/things"
pages = { style = "number", parameter = "page" }
[resource.things.detail]
path = "/v2/things/{id}"
[resource.things.table]
columns = { at = { from = "/at", type = "datetim" } }
time = "at"
filters = { at = "at", "no" = "item.ean", some = "items.ean" }
search = "at"
indexes = "at"
children = { items = 5 }
[resource.boxes]
id = "/id"
parent = "thing"
[resource.boxes.list]
path = "/v1/things/{parent}"
items = ""
pages = { style = "none" }
[resource.boxes.table]
name = "things"
"#;
    let types = "text, text(64), datetime, date, integer, decimal(14,4), boolean or json";
    let rule = |line: usize, key: &str, path: &str, pattern: &str| {
        format!(
            "waybill.toml:{line}: resource.{key}: no rate rule for GET {path}; add it under [source.limits], like \
             \"GET {pattern}\" = \"20/min\""
        )
    };
    let expected = [
        "waybill.toml:1: resources: `things` is listed twice; leave one out".to_owned(),
        "waybill.toml:5: source.limits.\"GET /v1/things\": `20` is not a limit; write it like \"25/min\", \"50/s\", \"9/h\", \
         \"7/3min\" or \"none\""
            .to_owned(),
        rule(13, "things.detail.path", "/v2/things/{id}", "/v2/things/*"),
        format!("waybill.toml:15: resource.things.table.columns.at.type: `datetim` is not a type; use {types}"),
        "waybill.toml:17: resource.things.table.filters.no: `item.ean` is not a column of this table or its children"
            .to_owned(),
        "waybill.toml:20: resource.things.table.children.items: must be a table, not 5".to_owned(),
        "waybill.toml:23: resource.boxes.parent: `thing` is not among `resources`; add it there, its list is needed"
            .to_owned(),
        rule(25, "boxes.list.path", "/v1/things/{parent}", "/v1/things/*"),
        "waybill.toml:29: resource.boxes.table.name: `things` is also the table of resource.things.table.name; choose \
         another name"
            .to_owned(),
    ];
    assert_eq!(problems(text), expected);
}

/// A missing section or an invalid path is reported once, without what would follow from it.
#[test]
fn an_error_is_reported_once() {
    let path = with("path", "path = \"things\"").replace("\"/v1/things/{id}\"", "\"/v1/things\"");
    assert_eq!(
        problems(&path),
        [
            "waybill.toml:7: resource.things.list.path: `things` is not a path; it begins with one / and has no parameters \
             (those go into `parameters`)",
            "waybill.toml:12: resource.things.detail.path: must contain {id}, the place of the document's id",
        ]
    );
    let bare = "[source.limits]\n[resource.things]\n";
    assert_eq!(
        problems(bare),
        [
            "waybill.toml:2: resource.things: `id` is missing; give the pointer to a row's id, like id = \"/orderId\"",
            "waybill.toml:2: resource.things: `list` is missing; it says how the resource is listed: \
             [resource.NAME.list]",
            "waybill.toml:2: resource.things: `table` is missing; it says what the columns are; \
             [resource.NAME.table] may be empty",
        ]
    );
    assert_eq!(
        problems("[resource]\nthings = 5\n"),
        ["waybill.toml:2: resource.things: must be a table, like [resource.things]"]
    );
}

/// Mismatches with the API's description and with MySQL are reported among the other errors.
#[test]
fn check_reports_errors_of_the_openapi_document_and_mysql_too() {
    let folder = Folder::bare();
    let api = r#"{"openapi": "3.0.1", "paths": {
        "/v1/things": {"get": {"parameters": [
            {"name": "page", "in": "query", "required": true},
            {"name": "state", "in": "query", "required": true, "schema": {"enum": ["OPEN", "DONE"]}}
        ]}},
        "/v1/boxes": {"get": {"parameters": [{"name": "page", "in": "query"}]}}
    }}"#;
    folder.write("api.json", api);
    let boxes = r#"[resource.boxes]
id = "/id"
[resource.boxes.list]
path = "/v1/boxes"
items = ""
pages = { style = "number", parameter = "pag" }
[resource.boxes.table]
"#;
    let text = with("pages", "pages = { style = \"nmber\", parameter = \"page\" }")
        .replace("items = \"/things\"", "items = \"/things\"\nparameters = { stat = [\"OPEN\"] }")
        .replace("\"GET /v1/things\"", "\"GET /v1/*\"");
    let columns: Vec<String> =
        (0..400).map(|n| format!("c{n} = {{ from = \"/c{n}\", type = \"text(40)\" }}")).collect();
    let wide = format!("[resource.boxes.table.columns]\n{}\n", columns.join("\n"));
    let mysql = "[mysql]\nurl = \"mysql://root:canary-password@127.0.0.1:1/w?pool_size=many\"\n";
    folder.write("waybill.toml", &format!("resources = [\"things\", \"boxes\"]\n{text}\n{boxes}{wide}{mysql}"));
    let ended = folder.run(&["check", "--offline", "--openapi", "api.json"]).expect(2);
    let errors: Vec<&str> = ended.err.lines().map(str::trim).collect();
    assert_eq!(
        errors,
        [
            "waybill: 6 problems in the configuration:",
            "waybill.toml:10: resource.things.list.parameters.stat: `stat` is not a parameter of GET /v1/things; did you mean \
             `state`?",
            "waybill.toml:11: resource.things.list.pages.style: `nmber` is not a style; did you mean `number`? There are \
             number, has-more-flag, cursor, offset, next-link, none",
            "waybill.toml:14: resource.things.detail.path: `/v1/things/{id}` is not a path of this API; did you mean \
             `/v1/things`?",
            "waybill.toml:23: resource.boxes.list.pages.parameter: `pag` is not a parameter of GET /v1/boxes; did you mean \
             `page`?",
            "waybill.toml:24: resource.boxes.table: its 400 columns do not fit a row of MySQL; leave some out",
            "waybill.toml:427: mysql.url: Unknown connection URL parameter `pool_size'; write it like \
             mysql://user:password@127.0.0.1:3306/waybill",
        ],
        "{}",
        ended.err
    );
}

/// A number beyond 64 bits is reported at its key and hides no other error.
#[test]
fn a_number_beyond_64_bits_is_one_error() {
    let text = "resources = [\"orders\"]\n[resource.orders.table.columns]\nbogus = 5\n[resource.returns.list.pages]\n\
                first = 99999999999999999999\n[resource.orders.list]\nhistory = [[0xFFFF_FFFF_FFFF_FFFF]]\n";
    assert_eq!(
        problems(text),
        [
            "waybill.toml:3: resource.orders.table.columns.bogus: must be a table, not 5",
            "waybill.toml:5: resource.returns.list.pages.first: is too large a number; the maximum is 9223372036854775807",
            "waybill.toml:7: resource.orders.list.history: is too large a number; the maximum is 9223372036854775807",
            "waybill.toml:7: resource.orders.list.history: must be a text, not a list",
        ]
    );
}
